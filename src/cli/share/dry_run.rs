//! `hdrive share --dry-run`: the names that would be shared.

use super::told::private_line;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::words::count;
use crate::path::DrivePath;
use crate::share::content::SECRET;
use crate::share::import::is_below;
use crate::share::place::locate;
use crate::share::rules::Rules;
use crate::share::scan::{LocalKind, Scan, scan_by};
use crate::share::stores::is_store_database;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Enough of a file to tell whether it may be the database of a store.
const HEAD: u64 = 64;

pub(super) async fn tell_only(rules: &Rules, cx: &Context) -> Result {
    let folder = rules.folder().to_path_buf();
    let rules = rules.clone();
    let scan = cx.ask_disk(move || {
        let mut scan = scan_by(&rules, &DrivePath::root());
        leave_unreadable(&rules, &mut scan);
        scan
    });
    let mut scan = scan.await?;
    if let Some(why) = scan.blind {
        return Err(Failure::new(Exit::Failed, format_args!("{}: {why}", folder.display())));
    }
    for (path, why) in &scan.warnings {
        cx.room().await?;
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
            cx.room().await?;
            cx.out.line(name);
        }
        let (files, bytes) = (count(files as u64, "file"), count(bytes, "byte"));
        cx.out.pair("would share", format_args!("{files}, {bytes}"));
    }
    for (path, why) in &scan.skipped {
        cx.room().await?;
        cx.out.warn(format_args!("left out: {}: {why}", path.display()));
    }
    if let Some(example) = example {
        cx.out.note(private_line(private as u64, &example.path, ["would be"; 2]));
    }
    Ok(())
}

/// Leaves out what only shows to be no file for a drive when it is read, as an import does.
fn leave_unreadable(rules: &Rules, scan: &mut Scan) {
    let mut skipped = Vec::new();
    scan.found.retain(|local| {
        let LocalKind::File { .. } = local.kind else { return true };
        let at = locate(rules.folder(), &local.path);
        let is_secret = |(head, file): (Vec<u8>, File)| is_store_database(&head, &file);
        let why = match begins(&at).and_then(is_secret) {
            Ok(true) => SECRET.to_string(),
            Ok(false) => return true,
            Err(error) => error.to_string(),
        };
        skipped.push((at, why));
        false
    });
    scan.skipped.extend(skipped);
}

/// An opened file, and what it begins with.
fn begins(at: &Path) -> io::Result<(Vec<u8>, File)> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags).open(at)?;
    let mut head = Vec::new();
    (&file).take(HEAD).read_to_end(&mut head)?;
    Ok((head, file))
}
