//! Files that a look at everything leaves alone for a while.

use super::*;

#[test]
fn what_rests_keeps_its_content_until_later_and_nothing_new_rests() {
    let s = Shared::new();
    fs::write(s.at("log"), "before").unwrap();
    fs::write(s.at("gone"), "before").unwrap();
    s.sync();
    fs::write(s.at("log"), "after it").unwrap();
    fs::write(s.at("new"), vec![7; DEAR as usize]).unwrap();
    fs::remove_file(s.at("gone")).unwrap();
    let path = |name: &str| DrivePath::from_user(name).unwrap();
    let import = Import {
        drive: &s.drive,
        index: &s.index(),
        rules: &s.rules,
        ledger: &s.ledger,
        trust: Trust::Full,
        resting: &["/log", "/new", "/gone"].map(path).into(),
        held: &s.rules.hold().unwrap(),
        in_parts: false,
        still: &|| true,
        progress: &|_, _| {},
        cancelled: &|| false,
    };
    let report = import.run(&[DrivePath::root()]).unwrap();
    assert_eq!(report.rested, [path("/log")]);
    assert_eq!(report.read, [(path("/new"), DEAR)], "small files are not noted");
    assert_eq!(
        (s.content("/log"), s.names()),
        (b"before".to_vec(), vec!["/log".into(), "/new".into()])
    );
    s.sync_at("/log");
    assert_eq!(s.content("/log"), b"after it");
}
