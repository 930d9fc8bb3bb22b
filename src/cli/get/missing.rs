//! What a download could not write: why, whether the rest is tried at all, and what is told of it at the end.

use super::local::Help;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Result};
use crate::cli::words::count;
use crate::lock::lock;
use serde_json::json;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// When files fail because nothing comes, and nothing has come for this long, the rest is not tried: each of
/// them would wait as long.
const GIVE_UP: Duration = Duration::from_secs(60);
/// What could not be written is told one by one up to this many.
const MAX_TOLD: usize = 1000;

pub struct Missing {
    state: Mutex<State>,
}

struct State {
    list: Vec<One>,
    /// Folders among those, and files in them, which are not told one by one.
    lost: usize,
    of_lost: usize,
    /// Why the rest is not even tried.
    fatal: Option<Exit>,
    /// When something came from a peer or the store.
    arrived: Instant,
}

struct One {
    path: String,
    why: Failure,
}

impl Default for Missing {
    fn default() -> Self {
        let state =
            State { list: Vec::new(), lost: 0, of_lost: 0, fatal: None, arrived: Instant::now() };
        Self { state: Mutex::new(state) }
    }
}

impl Missing {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }

    /// A file or a link was not written.
    pub fn add(&self, path: String, why: Failure) {
        let mut state = self.lock();
        let nothing_comes = why.exit == Exit::TimedOut && state.arrived.elapsed() > GIVE_UP;
        if nothing_comes || why.exit == Exit::Store {
            state.fatal.get_or_insert(why.exit);
        }
        state.list.push(One { path, why });
    }

    /// A folder could not be made.
    pub fn folder(&self, path: impl std::fmt::Display, why: Failure) {
        self.lock().lost += 1;
        self.add(format!("{path} and everything in it"), why);
    }

    /// So many files and links have no folder to be in.
    pub fn note_of_lost(&self, files: usize) {
        self.lock().of_lost = files;
    }

    /// The rest need not be tried.
    pub fn end_it(&self, why: Exit) {
        self.lock().fatal.get_or_insert(why);
    }

    pub fn ends_it(&self) -> bool {
        self.lock().fatal.is_some()
    }

    pub fn not_tried(&self, path: String) {
        self.add(path, Failure::new(Exit::Failed, "not tried, as those before it failed"));
    }

    pub fn something_came(&self) {
        self.lock().arrived = Instant::now();
    }

    pub fn json(&self) -> serde_json::Value {
        let state = self.lock();
        state.list.iter().map(|one| json!({"path": one.path, "why": one.why.text})).collect()
    }

    /// Tells what is missing of `all` files; of one that was asked for `alone` its own error.
    pub async fn outcome(&self, all: usize, alone: bool, cx: &Context) -> Result {
        let mut missing = std::mem::take(&mut self.lock().list);
        if alone && let Some(one) = missing.pop() {
            return Err(one.why);
        }
        if missing.is_empty() {
            return Ok(());
        }
        for one in missing.iter().take(MAX_TOLD) {
            let path =
                if one.why.text.starts_with(&one.path) { "" } else { &format!("{}: ", one.path) };
            cx.room().await?;
            cx.out.warn(format_args!("not written: {path}{}", one.why));
        }
        let (exit, lost, of_lost) = {
            let state = self.lock();
            (state.fatal.unwrap_or(Exit::Failed), state.lost, state.of_lost)
        };
        let what = match missing.len() - lost + of_lost {
            0 => count(lost as u64, "folder"),
            n => format!("{n} of {}", count(all as u64, "file")),
        };
        let more = missing.len().saturating_sub(MAX_TOLD);
        let untold = if more > 0 { format!(" ({more} of them not listed)") } else { String::new() };
        let may_help = |help| missing.iter().any(|one| Help::against(&one.why) == help);
        let advice = match (may_help(Help::Again), may_help(Help::Force)) {
            (true, true) => ": run it again to try once more, with --force to replace what differs",
            (true, false) => ": run it again to try once more",
            (false, true) => ": pass --force to replace what differs",
            (false, false) => "",
        };
        let text = format!("{what} not written{untold}{advice}");
        Err(Failure::new(exit, text))
    }
}
