//! Exit codes and the error that carries one.

use super::words::without_numbers;
use std::fmt;

/// How a command ended. The numbers are part of the interface: hdrive(1), EXIT STATUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Something failed; stderr says what.
    Failed = 1,
    /// The command line does not make sense.
    Usage = 2,
    /// No such drive, path or mount.
    NotFound = 3,
    /// No peer answered in time.
    TimedOut = 4,
    /// The mount could not be made or undone.
    Mount = 5,
    /// The store is damaged, locked by a process that does not answer, or its disk is full.
    Store = 6,
    /// Ended by Ctrl-C or a signal.
    Interrupted = 130,
}

impl Exit {
    /// The code another process of ours ended with; anything unknown is a plain failure.
    pub fn from_code(code: u8) -> Self {
        let all = [
            Self::Ok,
            Self::Usage,
            Self::NotFound,
            Self::TimedOut,
            Self::Mount,
            Self::Store,
            Self::Interrupted,
        ];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Failed)
    }
}

/// An error with its exit code and, where there is one, the next step to take.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub text: String,
}

impl Failure {
    pub fn new(exit: Exit, text: impl fmt::Display) -> Self {
        Self { exit, text: without_numbers(&text.to_string()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// `?` on anything else is a plain failure; its causes are joined into one line.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Self::new(Exit::Failed, format!("{error:#}")),
        }
    }
}

pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Names the exit code of an error where it arises.
pub trait Fail<T> {
    fn or_exit(self, exit: Exit) -> Result<T>;
    /// The same with words in front: what was tried, on what.
    fn or_fail(self, exit: Exit, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Fail<T> for std::result::Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T> {
        self.map_err(|e| Failure::new(exit, e))
    }

    fn or_fail(self, exit: Exit, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Failure::new(exit, format!("{what}: {e}")))
    }
}
