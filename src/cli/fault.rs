//! Faults of the program itself: a panic ends the command that met it, not the process and the commands of others.
//!
//! Its words are for whoever mends it: one line names the place, and people are told what they can do.

use super::exit::{Exit, Failure, Result};
use super::output::{complain, complain_in_lines};
use crate::disk::Panicked;
use crate::node::{FAULT, NodeError};
use std::backtrace::Backtrace;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use tokio::task::JoinError;

/// From here on a panic is told in a line like any other; with `RUST_BACKTRACE` in its own words as well.
pub fn tell_faults() {
    let wordy = std::env::var_os("RUST_BACKTRACE").is_some();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let said = panic.payload_as_str().unwrap_or("it has no words for it");
        let place = panic.location().map_or_else(String::new, |place| format!(" ({place})"));
        complain(
            "warning",
            format_args!("a fault of hdrive itself, please report it: {said}{place}"),
        );
        if wordy {
            complain_in_lines(&format!("{panic}\n{}", Backtrace::force_capture()));
        }
    }));
}

/// Runs `work`, with a panic as an error.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(fault()))
}

/// The same of a future, which is not looked at any more after that.
pub async fn guarded_task<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        let look = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        look.unwrap_or_else(|_| Poll::Ready(Err(fault())))
    })
    .await
}

/// What a task or a thread came to.
pub fn joined<T, E: Into<Failure>>(done: std::result::Result<T, E>) -> Result<T> {
    done.map_err(Into::into)
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error.is_panic() {
            true => fault(),
            false => Self::new(Exit::Failed, NodeError::Ends),
        }
    }
}

impl From<Panicked> for Failure {
    fn from(_: Panicked) -> Self {
        fault()
    }
}

fn fault() -> Failure {
    Failure::new(Exit::Failed, FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_end_of_one_command_in_plain_words() {
        let plain = |done: Result<u8>| {
            let failure = done.unwrap_err();
            assert!(failure.exit == Exit::Failed && !failure.text.contains("0x7"), "{failure}");
        };
        plain(guarded(|| panic!("0x7")));
        plain(guarded_task(async { panic!("0x7") }).await);
        let late = async {
            tokio::task::yield_now().await;
            panic!("0x7")
        };
        plain(guarded_task(late).await);
        plain(joined(tokio::spawn(async { panic!("0x7") }).await));
        assert_eq!(guarded_task(async { Ok(7) }).await.unwrap(), 7);
    }
}
