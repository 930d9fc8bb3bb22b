//! What can go wrong with a core: our own trouble ([`CoreError`]), and a peer's answers ([`ApplyError`]).

use super::storage::{Doubt, StorageError};
use super::tree::VerifyError;
use std::io;

/// Trouble of our own. Nothing of what was asked has happened, and what was there before stands.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The bitfield has the block, the tree file lacks a node above it.
    #[error(
        "checksums of block {0} are missing from the store: start hdrive again, which looks through its files"
    )]
    MissingNodes(u64),
    /// The stored block is too short to be an encrypted one: the core is not encrypted, or not so.
    #[error("block {0} cannot be decrypted")]
    NotEncrypted(u64),
    /// A key was given that is not the one which the core is known to be encrypted with.
    #[error(
        "the encryption key is not this drive's: pass the one it was made with (check \
         --encryption-key and HDRIVE_ENCRYPTION_KEY), or none where this store knows it"
    )]
    OtherEncryptionKey,
    /// A key was given for a core that is not encrypted.
    #[error("this drive is not encrypted: leave --encryption-key and HDRIVE_ENCRYPTION_KEY out")]
    Unencrypted,
    #[error(
        "it cannot be changed here: its secret key is in the store that made it, or several must sign"
    )]
    ReadOnly,
    #[error("a block of {0} bytes is above the limit of 15 MiB")]
    BlockTooLarge(u64),
    /// A manifest or key pair that was given for a core is another's.
    #[error("the {0} does not belong to the key")]
    NotTheKey(&'static str),
    /// The core changed between the preparation of an append and its commit.
    #[error("it was changed by something else at the same moment: try again")]
    Stale,
    /// Peers must be asked first.
    #[error("{0}")]
    InDoubt(WriterDoubt),
    /// A core takes one append at a time.
    #[error("something else is writing to it: try again")]
    Busy,
    #[error("cannot cut it to {to} blocks at fork {fork}: it has {length} at fork {at}")]
    BadTruncate { to: u64, fork: u64, length: u64, at: u64 },
}

/// Why a core of ours takes no append. The later is the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriterDoubt {
    /// A peer had more of it than we had.
    Outgrown,
    /// The store may be older than what was published.
    Store(Doubt),
    /// Two histories of it were signed.
    TwoHistories,
}

impl std::fmt::Display for WriterDoubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Outgrown => {
                "this store is older than what was published: a peer had more of the drive, which has been \
                 brought up to date; nothing was written, run the command again"
            }
            Self::Store(_) => {
                "this store may be older than what was published: nothing was written, peers must be asked first"
            }
            Self::TwoHistories => {
                "two different histories of the drive were published, by this store and by a copy of it: nothing was \
                 written"
            }
        })
    }
}

impl From<io::Error> for CoreError {
    /// Errors of the node store travel through the tree code as [`io::Error`].
    fn from(error: io::Error) -> Self {
        match error.downcast::<StorageError>() {
            Ok(error) => Self::Storage(error),
            Err(error) => Self::Storage(StorageError::io("read", "tree nodes", error)),
        }
    }
}

impl CoreError {
    /// It only follows from an earlier error, which was told.
    pub fn is_echo(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_echo())
    }

    /// What went wrong, for who is about to end anyway.
    pub fn cause(&self) -> &dyn std::error::Error {
        match self {
            Self::Storage(error) => error.cause(),
            error => error,
        }
    }

    /// Whoever asked for a change was told why none can be made: nothing was tried.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Unnoted { .. } | StorageError::Replaced { .. }))
    }

    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_disk_full())
    }

    /// See [`StorageError::leaves_it_readable`].
    pub(super) fn leaves_it_readable(&self) -> bool {
        matches!(self, Self::Storage(error) if error.leaves_it_readable())
    }
}

/// Why a peer's answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The answer does not hold: see [`VerifyError`] for what that says about the peer.
    #[error(transparent)]
    Rejected(VerifyError),
    /// The manifest that came along is not the one that the core's key stands for.
    #[error("the manifest is not the core's")]
    Manifest,
    /// A signed tree longer than [`super::MAX_BLOCKS`].
    #[error("a log of {0} blocks is longer than this program keeps")]
    TooLong(u64),
    /// It holds, and its block could not be written.
    #[error("{0}")]
    Unstored(CoreError),
    /// Not the peer's doing.
    #[error(transparent)]
    Local(#[from] CoreError),
}

impl From<VerifyError> for ApplyError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Io(error) => Self::Local(error.into()),
            other => Self::Rejected(other),
        }
    }
}

impl From<StorageError> for ApplyError {
    fn from(error: StorageError) -> Self {
        Self::Local(error.into())
    }
}

impl From<io::Error> for ApplyError {
    fn from(error: io::Error) -> Self {
        Self::Local(error.into())
    }
}
