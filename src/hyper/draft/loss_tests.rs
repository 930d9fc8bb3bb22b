//! Ways in which something was lost.

use super::*;

#[test]
fn a_folder_is_not_moved_where_what_is_in_it_would_have_too_long_a_path() {
    let bench = Bench::new();
    let (long, short) = (path(&format!("/{}", "n".repeat(200))), path("/n"));
    bench.editor.make_dir(&short).unwrap();
    bench.editor.make_dir(&path("/o")).unwrap();
    let mut at = short.clone();
    while let Ok(deeper) = at.join(&"d".repeat(255)) {
        bench.editor.make_dir(&deeper).unwrap();
        at = deeper;
    }
    bench.editor.make_dir(&at.join(&"d".repeat(200)).unwrap()).unwrap();
    let moved = |from, to, how| bench.editor.rename(from, to, how);
    assert_eq!(moved(&short, &long, Rename::Replace), Err(EditError::TooLong));
    bench.editor.make_dir(&long).unwrap();
    assert_eq!(moved(&short, &long, Rename::Exchange), Err(EditError::TooLong));
    assert_eq!(moved(&long, &short, Rename::Exchange), Err(EditError::TooLong));
    moved(&short, &path("/o"), Rename::Exchange).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen(), bench.here());
}
