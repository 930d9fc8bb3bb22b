//! Which encryption key a drive is read and written with, and which core may hold its contents.
//!
//! The key of a drive that we write was fixed with its first block. That of one we read is whatever makes its
//! block 0 a bee's header: nothing is believed before that block is here, and from then on it is a fact. The
//! core of the contents is encrypted with the key of the names.

use super::{BlobsCore, DriveError, LiveError};
use crate::hyper::bee::{Header, PROTOCOL};
use crate::hyper::core::{Core, CoreError, Secrecy};
use crate::hyper::session::CoreHandle;
use crate::hyper::store::Store;
use crate::key::CoreKey;

/// Fixes what a new drive of ours is encrypted with, or that it is not, for as long as it lives. One that has been
/// made before keeps what it has; another key is an error.
pub fn fix_key(store: &Store, db: &CoreHandle, key: Option<[u8; 32]>) -> Result<(), LiveError> {
    let (length, secrecy) = {
        let core = db.core();
        (core.length(), core.secrecy())
    };
    if secrecy == Secrecy::Unknown && length == 0 && !has_contents(store, db)? {
        return Ok(store.say_secrecy(db, Secrecy::Known(key))?);
    }
    offer_key(store, db, key)
}

/// Compares a key that somebody passed with what is here of the drive; a wrong one is an error at once.
pub fn offer_key(store: &Store, db: &CoreHandle, key: Option<[u8; 32]>) -> Result<(), LiveError> {
    let Some(given) = key else { return Ok(()) };
    let (writable, secrecy) = {
        let core = db.core();
        (core.writable(), core.secrecy())
    };
    if !writable {
        let found = settled(&db.core(), &[given])?;
        return match found {
            Settled::Not if secrecy.key().is_some_and(|known| *known != given) => {
                Err(CoreError::OtherEncryptionKey.into())
            }
            Settled::Not => Ok(()),
            Settled::By(None) => Err(CoreError::Unencrypted.into()),
            Settled::By(Some(found)) if found != given => Err(CoreError::OtherEncryptionKey.into()),
            Settled::By(found) => Ok(store.settle_secrecy(db, found)?),
            Settled::Wrong => Err(CoreError::OtherEncryptionKey.into()),
        };
    }
    if secrecy == Secrecy::Unknown {
        // It was made without a key; a variable that is set for another drive must not give it one.
        return Err(CoreError::Unencrypted.into());
    }
    Ok(store.say_secrecy(db, Secrecy::Known(key))?)
}

/// Whether what is here of a drive can be read, with `key` if that is given.
///
/// # Errors
/// [`LiveError::Encrypted`] without its key, [`LiveError::EncryptionKey`] with another.
pub fn check_readable(
    store: &Store,
    db: &CoreHandle,
    key: Option<[u8; 32]>,
) -> Result<(), LiveError> {
    offer_key(store, db, key)?;
    settle(store, db, &[])
}

/// Finds out what the drive is read with once its block 0 is here: as it is, with what is known, or with one of
/// the keys that were offered.
pub(super) fn settle(
    store: &Store,
    db: &CoreHandle,
    offered: &[[u8; 32]],
) -> Result<(), LiveError> {
    let (writable, found) = {
        let core = db.core();
        (core.writable(), settled(&core, offered)?)
    };
    match found {
        Settled::By(key) if !writable => Ok(store.settle_secrecy(db, key)?),
        Settled::By(_) | Settled::Not => Ok(()),
        Settled::Wrong if offered.is_empty() => Err(LiveError::Encrypted),
        Settled::Wrong => Err(CoreError::OtherEncryptionKey.into()),
    }
}

/// What block 0 says.
enum Settled {
    /// It is not here.
    Not,
    /// This makes it a header.
    By(Option<[u8; 32]>),
    /// Nothing that is known or offered does.
    Wrong,
}

fn settled(core: &Core, offered: &[[u8; 32]]) -> Result<Settled, LiveError> {
    let Some(stored) = core.stored_block(0)? else { return Ok(Settled::Not) };
    if is_header(&stored) {
        return Ok(Settled::By(None));
    }
    let known = core.encryption_key().copied();
    for key in offered.iter().copied().chain(known) {
        if core.open_with(Some(&key), 0)?.is_some_and(|plain| is_header(&plain)) {
            return Ok(Settled::By(Some(key)));
        }
    }
    Ok(Settled::Wrong)
}

fn is_header(block: &[u8]) -> bool {
    Header::decode(block).is_ok_and(|header| header.protocol == PROTOCOL)
}

/// The contents of a drive of ours were written before its names, without a key.
fn has_contents(store: &Store, db: &CoreHandle) -> Result<bool, LiveError> {
    let manifest = db.core().manifest().cloned();
    let Some(found) = BlobsCore::of(&db.key(), manifest.as_ref(), None)? else { return Ok(false) };
    let Some(key) = found.key() else { return Ok(false) };
    let blobs = store.stored(&key.discovery_key())?;
    Ok(blobs.is_some_and(|blobs| blobs.core().length() > 0))
}

/// Opens the core of the contents.
///
/// # Errors
/// [`DriveError::ForeignContents`] where a header names a core that this store writes: whatever the header's
/// author wants with that, it is not his.
pub(super) fn contents(
    store: &Store,
    db: &CoreHandle,
    found: Option<BlobsCore>,
) -> Result<CoreHandle, LiveError> {
    let (pair, key) = {
        let core = db.core();
        let pair = core.key_pair().cloned().filter(|_| core.writable());
        (pair, core.encryption_key().copied())
    };
    match (found, pair) {
        (Some(BlobsCore::Derived(derived, manifest)), Some(pair)) => {
            // Where there are names there have been contents: an empty log must not go on from others' copies. What was
            // made to be read stays what it is as well, see `Core::learn`.
            let begins =
                db.core().length() == 0 && store.stored(&derived.discovery_key())?.is_none();
            match begins || store.writes(&derived)? {
                true => Ok(store.signed(manifest, pair, key)?),
                false => derived_contents(store, derived, key),
            }
        }
        (Some(BlobsCore::Derived(derived, _)), None) => derived_contents(store, derived, key),
        (Some(BlobsCore::Known(named)), _) => {
            if named == db.key() || store.writes(&named)? {
                return Err(DriveError::ForeignContents.into());
            }
            let blobs = store.by_key(named, None)?;
            let said = store.say_secrecy(&blobs, Secrecy::Claimed(key));
            said.map_err(|_| DriveError::ForeignContents)?;
            Ok(blobs)
        }
        (Some(BlobsCore::Named(_)) | None, _) => Err(DriveError::ContentKey.into()),
    }
}

fn derived_contents(
    store: &Store,
    derived: CoreKey,
    key: Option<[u8; 32]>,
) -> Result<CoreHandle, LiveError> {
    let blobs = store.by_key(derived, None)?;
    store.say_secrecy(&blobs, Secrecy::Known(key))?;
    Ok(blobs)
}

/// Opens the core of the contents of a drive that cannot be read, as it is stored: to hold and serve it. None where
/// only the encrypted names tell which it is.
pub(super) fn unread_contents(
    store: &Store,
    db: &CoreHandle,
) -> Result<Option<CoreHandle>, LiveError> {
    let manifest = db.core().manifest().cloned();
    match BlobsCore::of(&db.key(), manifest.as_ref(), None)? {
        Some(BlobsCore::Derived(derived, _)) => Ok(Some(store.by_key(derived, None)?)),
        Some(BlobsCore::Known(_) | BlobsCore::Named(_)) | None => Ok(None),
    }
}

#[cfg(test)]
#[path = "secret/tests.rs"]
mod tests;
