//! `hdrive log`: the versions of a drive, newest first, with their times and what changed.

use super::args::Log;
use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::target::{encryption_key, from_live, open_target};
use super::words::{bytes, date, printable};
use crate::hyper::bee::{Bee, BeeError, Step};
use crate::hyper::drive::{DriveError, Entry};
use crate::node::{Seen, out_of_order};
use serde_json::json;

/// What the keys of files begin with.
const FILES: &[u8] = b"files\0";

/// Changes of a version that are named to people; the others are counted.
const MAX_TOLD: usize = 10;

/// One changed path.
struct Changed {
    path: String,
    what: What,
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Added,
    Changed,
    Removed,
}

struct Version {
    version: u64,
    /// Milliseconds since 1970.
    time: Option<i64>,
    changes: Vec<Changed>,
}

pub async fn run(args: Log, cx: Context) -> Result {
    let secret = encryption_key(&args.secret)?;
    let (target, live, index) = open_target(&cx, &args.key, secret).await?;
    if !target.path.is_root() {
        let text = "a log is that of a whole drive: leave the path away";
        return Err(Failure::new(Exit::Usage, text));
    }
    if index.version() == 0 {
        // Nothing was ever put into it.
        return Ok(());
    }
    let drive = live.drive().await.map_err(|error| from_live(&target.key, error))?;
    let bee = match target.version {
        Some(version) => drive.bee().checkout(version),
        None => drive.bee().clone(),
    };
    let seen = cx.node.seen(target.key)?;
    let failed = |error: BeeError| {
        let exit = match &error {
            BeeError::Source(_) => Exit::TimedOut,
            _ => Exit::Failed,
        };
        let error = DriveError::from(error);
        Failure::new(exit, format_args!("drive {}: its past: {error}", target.key))
    };
    let mut versions = bee.versions();
    let mut found = Vec::new();
    while let Some(step) = versions.next().await.map_err(failed)? {
        found.push(version(&bee, step, &seen).await.map_err(failed)?);
    }
    for version in found.iter().rev() {
        cx.out.room().await;
        tell(&cx, version);
    }
    if let Some(note) = clock_note(&seen) {
        cx.out.note(note);
    }
    Ok(())
}

/// What is to be said if the versions were noted with times that do not rise.
pub fn clock_note(seen: &[Seen]) -> Option<String> {
    out_of_order(seen).map(|seen| {
        format!(
            "the clock was wrong or set back before version {} was noted, at {} UTC: a time stands for the newest version \
             that was noted with it or an earlier one; `hdrive log` tells the numbers",
            seen.version,
            date(seen.ms())
        )
    })
}

async fn version(bee: &Bee, step: Step, seen: &[Seen]) -> std::result::Result<Version, BeeError> {
    let old = bee.checkout(step.before);
    let mut changes = Vec::new();
    let mut newest_file = None;
    for (key, put) in step.changes {
        let Some(path) = key.strip_prefix(FILES) else { continue };
        let path = String::from_utf8_lossy(path).into_owned();
        let entry = put.map(|entry| Entry::decode(&entry.value).unwrap_or_default());
        let time = entry.as_ref().and_then(Entry::mtime_ms);
        newest_file = newest_file.max(time);
        let existed = old.get(&key).await?.is_some();
        let what = match (existed, &entry) {
            (false, Some(_)) => What::Added,
            (true, Some(_)) => What::Changed,
            (true, None) => What::Removed,
            (false, None) => continue,
        };
        let bytes = entry.and_then(|entry| entry.blob).map_or(0, |blob| blob.byte_length);
        changes.push(Changed { path, what, bytes });
    }
    // A version was there at the latest when a later one was seen.
    let later = seen.iter().find(|seen| seen.version >= step.version);
    let time = match later {
        Some(seen) if seen.version == step.version => Some(seen.ms()),
        later => newest_file.or(later.map(Seen::ms)),
    };
    Ok(Version { version: step.version, time, changes })
}

fn tell(cx: &Context, version: &Version) {
    let Version { version, time, changes } = version;
    let paths = |what| changes.iter().filter(move |c| c.what == what).map(|c| c.path.as_str());
    if cx.out.json {
        let paths = |what| paths(what).collect::<Vec<_>>();
        return cx.out.object(&json!({
            "version": version, "time": time, "added": paths(What::Added),
            "changed": paths(What::Changed), "removed": paths(What::Removed),
        }));
    }
    let time = time.map_or_else(|| "-".into(), date);
    let count = |what, word| match paths(what).count() {
        0 => None,
        n => Some(format!("{n} {word}")),
    };
    let counts = [
        count(What::Added, "added"),
        count(What::Changed, "changed"),
        count(What::Removed, "removed"),
    ];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    let counts = if counts.is_empty() { "no file changed".into() } else { counts.join(", ") };
    cx.out.line(format_args!("version {version}  {time}  {counts}"));
    for Changed { path, what, bytes: size } in changes.iter().take(MAX_TOLD) {
        let path = printable(path);
        cx.out.line(match what {
            What::Added => format!("  + {path}  {}", bytes(*size)),
            What::Changed => format!("  ~ {path}  {}", bytes(*size)),
            What::Removed => format!("  - {path}"),
        });
    }
    if let Some(more) = changes.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) {
        cx.out.line(format_args!("  and {more} more"));
    }
}
