//! What a share says of names that it leaves out, cannot follow, or has no room for: of each once.

use super::waiting::Waiting;
use crate::cli::output::Output;
use crate::cli::words::count;
use crate::lock::lock;
use crate::path::DrivePath;
use crate::share::import::Report;
use crate::share::place::locate;
use crate::share::rules::Rules;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Names told one by one, at a time and in total.
const MAX_TOLD: usize = 10;
const MAX_TOLD_EVER: usize = 10_000;

pub struct Told {
    names: Mutex<HashSet<(PathBuf, String)>>,
    /// Another process has looked at the whole folder, and told what there was to tell; not looked at here yet.
    elsewhere: AtomicBool,
}

impl Told {
    pub fn new(elsewhere: bool) -> Self {
        Self { names: Mutex::default(), elsewhere: AtomicBool::new(elsewhere) }
    }

    /// What an import has left out, as far as it is new.
    pub fn tell(&self, report: &Report, out: &Output) {
        let mut told = lock(&self.names);
        let mut is_new =
            |what: &(PathBuf, String)| told.len() < MAX_TOLD_EVER && told.insert(what.clone());
        let warnings: Vec<_> = report.warnings.iter().filter(|what| is_new(what)).collect();
        let new: Vec<_> = report.skipped.iter().filter(|what| is_new(what)).collect();
        drop(told);
        for (path, why) in warnings.iter().take(MAX_TOLD) {
            out.warn(format_args!("{}: {why}", path.display()));
        }
        if let Some(more) = warnings.len().checked_sub(MAX_TOLD).filter(|n| *n > 0) {
            out.warn(format_args!("not followed either: {more} more"));
        }
        if self.elsewhere.swap(false, Ordering::Relaxed) {
            return;
        }
        for (path, why) in new.iter().take(MAX_TOLD) {
            out.warn(format_args!("left out: {}: {why}", path.display()));
        }
        if let Some(more) = new.len().checked_sub(MAX_TOLD).filter(|n| *n > 0) {
            out.warn(format_args!("left out: {more} more"));
        }
        if let Some(example) = &report.private_example {
            out.note(private_line(report.private, example, ["is now", "are now"]));
        }
    }
}

/// What there is no room for: each name once, as long as it waits.
pub fn waiting(names: &[(DrivePath, String)], waiting: &mut Waiting, rules: &Rules, out: &Output) {
    let Some(new) = waiting.take_in(names) else { return };
    let at = locate(rules.folder(), new.path);
    let more = match new.more {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    };
    out.warn(format_args!(
        "{}{more} cannot be stored: {}; it waits until it can, and the rest of the folder is followed",
        at.display(),
        new.why
    ));
}

/// `are` for one file, and for several.
pub fn private_line(n: u64, example: &DrivePath, are: [&str; 2]) -> String {
    let are = are[usize::from(n != 1)];
    format!(
        "{} that only the owner could read {are} public to whoever has the key ({example}, for one): --exclude or a \
         .hdriveignore leaves files out",
        count(n, "file")
    )
}
