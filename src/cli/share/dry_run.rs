//! `hdrive share --dry-run`: the names that would be shared.

use super::private_line;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Fail, Failure, Result};
use crate::cli::words::count;
use crate::path::DrivePath;
use crate::share::import::is_below;
use crate::share::rules::Rules;
use crate::share::scan::{LocalKind, scan_by};

pub(super) async fn tell_only(rules: &Rules, cx: &Context) -> Result {
    let folder = rules.folder().to_path_buf();
    let rules = rules.clone();
    let scan = tokio::task::spawn_blocking(move || scan_by(&rules, &DrivePath::root()));
    let mut scan = scan.await.or_exit(Exit::Failed)?;
    if let Some(why) = scan.blind {
        return Err(Failure::new(Exit::Failed, format_args!("{}: {why}", folder.display())));
    }
    for (path, why) in &scan.warnings {
        cx.out.warn(format_args!("{}: {why}", path.display()));
    }
    let closed = std::mem::take(&mut scan.closed);
    let is_open = |path: &DrivePath| !closed.iter().any(|dir| is_below(path, dir));
    scan.found.retain(|local| is_open(&local.path));
    scan.empty.retain(is_open);
    let size = |kind: &LocalKind| if let LocalKind::File { size } = kind { *size } else { 0 };
    let bytes: u64 = scan.found.iter().map(|local| size(&local.kind)).sum();
    let files = scan.found.len();
    let below = |path: &DrivePath| path.as_str().trim_start_matches('/').to_string();
    let mut names: Vec<String> = scan.found.iter().map(|local| below(&local.path)).collect();
    names.extend(scan.empty.iter().map(|dir| format!("{}/", below(dir))));
    names.sort();
    let private = scan.found.iter().filter(|local| local.private);
    let (private, example) = (private.clone().count(), private.clone().next());
    if cx.out.json {
        cx.out.object(&serde_json::json!({
            "dry_run": {"files": files, "bytes": bytes, "private": private, "names": names}
        }));
    } else {
        for name in names {
            cx.out.line(name);
        }
        let (files, bytes) = (count(files as u64, "file"), count(bytes, "byte"));
        cx.out.pair("would share", format_args!("{files}, {bytes}"));
    }
    for (path, why) in &scan.skipped {
        cx.out.note(format_args!("left out: {}: {why}", path.display()));
    }
    if let Some(example) = example {
        cx.out.note(private_line(private as u64, &example.path, ["would be"; 2]));
    }
    Ok(())
}
