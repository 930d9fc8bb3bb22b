//! Limits of this process and of the machine, and the clock. Memory is not locked, so the limit of that is of no matter.

use super::finding::Finding;
use crate::cli::words::date;
use crate::descriptors;
use crate::disk;
use crate::threads::{LIMIT, RAISE};
use rustix::fs::inotify::{self, CreateFlags};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// With fewer descriptors an owner of many drives, or one that punches with many sockets, has to close and open.
const FEW_FILES: u64 = 1024;
/// Whoever works on a store starts fewer, with some mounts.
pub const MANY_THREADS: usize = 64;
/// A share needs a watch for each of its folders, and other programs have theirs.
const FEW_WATCHES: u64 = 65_536;
/// The clock of whoever wrote this said more: 2026-01-01.
const WRITTEN: i64 = 1_767_225_600;
/// Files of this machine may be younger than its clock by so much, after it was set.
const SLACK: i64 = 3600;
/// Times of files come from disks, which may hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen of the limits.
#[derive(Debug, Clone, Default)]
struct Limits {
    /// Files that may be open at once.
    files: u64,
    /// Threads that can be started, as far as it was tried.
    threads: usize,
    /// Folders that this user may have watched.
    watches: Option<u64>,
    /// Why nothing can be watched.
    unwatched: Option<String>,
}

/// What the clock says, and times that cannot be later; in seconds since 1970.
#[derive(Debug, Clone, Default)]
struct Clock {
    now: i64,
    /// When this program was put here.
    program: Option<i64>,
    /// When the store was last written.
    store: Option<i64>,
}

pub async fn look(store: Option<PathBuf>, threads: usize) -> Vec<Finding> {
    let times = disk::ask(move || {
        (
            std::env::current_exe().ok().and_then(|at| time(&at)),
            store.and_then(|store| newest(&store)),
        )
    });
    let (program, store) =
        timeout(PATIENCE, times).await.ok().and_then(Result::ok).unwrap_or_default();
    let now = seconds(SystemTime::now());
    let mut findings = judge_limits(&Limits::see(threads));
    findings.push(judge_clock(&Clock { now, program, store }));
    findings
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

fn time(path: &Path) -> Option<i64> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok().map(seconds)
}

fn newest(store: &Path) -> Option<i64> {
    let files = fs::read_dir(store).ok()?.flatten();
    files.filter_map(|file| time(&file.path())).max()
}

impl Limits {
    fn see(threads: usize) -> Self {
        let text = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
        Self {
            files: descriptors::limit(),
            threads,
            watches: text.ok().and_then(|text| text.trim().parse().ok()),
            unwatched: inotify::init(CreateFlags::CLOEXEC).err().map(|errno| errno.to_string()),
        }
    }
}

fn judge_limits(limits: &Limits) -> Vec<Finding> {
    let files = limits.files;
    let first = match files {
        ..FEW_FILES => {
            let next = "`ulimit -n 1024` before it, or more; LimitNOFILE= in a unit of systemd";
            Finding::note("files", format!("only {files} may be open at once"), next)
        }
        _ => Finding::good("files", format!("{files} may be open at once")),
    };
    let threads = match limits.threads {
        few @ ..MANY_THREADS => {
            let words = format!("only {few} more can be started: {LIMIT}");
            Finding::note("threads", words, RAISE)
        }
        many => Finding::good("threads", format!("{many} more can be started, or more")),
    };
    let watches = match (&limits.unwatched, limits.watches) {
        (Some(why), _) => {
            let words = format!("a share sees changes late, by looking: inotify: {why}");
            let next = "end programs that watch, or `sysctl fs.inotify.max_user_instances=1024`";
            Finding::note("watches", words, next)
        }
        (None, Some(few @ ..FEW_WATCHES)) => {
            let words = format!(
                "only {few} folders can be watched; a share of more sees changes late, by looking"
            );
            Finding::note("watches", words, "`sysctl fs.inotify.max_user_watches=1048576`")
        }
        (None, Some(many)) => Finding::good("watches", format!("a share can watch {many} folders")),
        (None, None) => {
            Finding::unknown("watches", "how many folders a share can watch is not known")
        }
    };
    let threads = threads.with(json!({ "threads": limits.threads }));
    vec![
        first.with(json!({ "files": files })),
        threads,
        watches.with(json!({ "watches": limits.watches })),
    ]
}

fn judge_clock(clock: &Clock) -> Finding {
    let shown = |seconds: i64| format!("{} UTC", date(seconds.saturating_mul(1000)));
    let late = |than: &i64| than.saturating_sub(SLACK) > clock.now;
    let then = match (clock.program.filter(late), clock.store.filter(late)) {
        (_, Some(store)) => Some(format!("the store was written at {}", shown(store))),
        (Some(program), None) => Some(format!("hdrive was put here at {}", shown(program))),
        (None, None) => (clock.now < WRITTEN).then(|| "hdrive was written later".to_string()),
    };
    let now = shown(clock.now);
    match then {
        None => Finding::good("clock", now),
        Some(then) => {
            let words = format!("it is wrong, {now}: {then}; times of versions are told wrong");
            Finding::note("clock", words, "set it: `timedatectl set-ntp true`, or `date -s`")
        }
    }
    .with(json!({ "unix": clock.now }))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn limits_that_are_low_are_told_with_what_raises_them() {
        let enough = Limits {
            files: 1 << 20,
            threads: MANY_THREADS,
            watches: Some(1 << 20),
            unwatched: None,
        };
        let verdicts = |limits: &Limits| -> Vec<Verdict> {
            judge_limits(limits).iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(&enough), [Verdict::Good; 3]);
        let few = Limits { files: 256, threads: 20, watches: Some(8192), unwatched: None };
        assert_eq!(verdicts(&few), [Verdict::Note; 3]);
        let none = Limits { unwatched: Some("Too many open files".into()), ..enough };
        let found = judge_limits(&none);
        assert!(found[2].next.as_ref().unwrap().contains("max_user_instances"));
        assert_eq!(
            verdicts(&Limits { watches: None, unwatched: None, ..none })[2],
            Verdict::Unknown
        );
    }

    #[test]
    fn a_clock_before_what_was_there_already_is_wrong() {
        let now = WRITTEN + 1_000_000;
        let right = Clock { now, program: Some(now - 5), store: Some(now + SLACK) };
        assert_eq!(judge_clock(&right).verdict, Verdict::Good);
        for (clock, word) in [
            (Clock { now: 5, ..Clock::default() }, "written later"),
            (Clock { program: Some(now + SLACK + 1), ..right.clone() }, "put here"),
            (Clock { store: Some(now + SLACK + 1), ..right }, "the store was written"),
        ] {
            let found = judge_clock(&clock);
            assert!(found.verdict == Verdict::Note && found.words.contains(word), "{found:?}");
        }
    }
}
