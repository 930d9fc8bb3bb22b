//! Whether a core is encrypted, and with which key: said once, and never changed by who merely asks.
//!
//! A wrong key for a core that we write would spoil it for everybody with the next append, and a wrong one for a
//! core that we read would show noise as its content. So what is known stays, and what contradicts it is an
//! error that changes nothing. There is no tag in an encrypted block: what proves a key is content that makes
//! sense with it, which callers look at with [`Core::open_with`] before they [`Core::settle_secrecy`].

use super::encryption::BlockCipher;
use super::storage::Durability;
use super::verifier::Verifier;
use super::{Core, CoreError, Result};
use std::sync::Arc;

/// What is known of a core's encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Secrecy {
    /// Nobody has said; blocks are read as they are.
    #[default]
    Unknown,
    /// Said by somebody who names the core without being its writer: the header of a drive.
    Claimed(Option<[u8; 32]>),
    /// As its writer encrypts it, or does not.
    Known(Option<[u8; 32]>),
}

impl Secrecy {
    pub fn key(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Unknown => None,
            Self::Claimed(key) | Self::Known(key) => key.as_ref(),
        }
    }
}

impl Core {
    pub fn secrecy(&self) -> Secrecy {
        self.identity.secrecy
    }

    /// What the core's secrecy becomes by what is said of it.
    ///
    /// # Errors
    /// It contradicts what is known, or gives a key to a core of ours that has unencrypted blocks.
    pub(super) fn admit(&self, said: Secrecy) -> Result<Secrecy> {
        let known = self.identity.secrecy;
        let fixed = match (known, said) {
            (_, Secrecy::Unknown) => return Ok(known),
            (Secrecy::Unknown, _) => None,
            (Secrecy::Claimed(_), Secrecy::Known(_)) => return Ok(said),
            (Secrecy::Claimed(key) | Secrecy::Known(key), _) => Some(key),
        };
        let claimed = matches!(said, Secrecy::Claimed(_));
        match (fixed, said.key()) {
            // Its blocks are read as they are already, here or by our readers.
            (None, Some(_)) if self.head.length > 0 && (claimed || self.writable) => {
                Err(CoreError::Unencrypted)
            }
            (None, _) => Ok(said),
            (Some(key), given) if key.as_ref() == given => Ok(known),
            (Some(None), _) => Err(CoreError::Unencrypted),
            (Some(Some(_)), _) => Err(CoreError::OtherEncryptionKey),
        }
    }

    /// Takes what is said of the core's encryption, durably where we write it. Whether it was news.
    ///
    /// # Errors
    /// See [`Self::admit`]; nothing has changed then.
    pub fn say_secrecy(&mut self, said: Secrecy) -> Result<bool> {
        let next = self.admit(said)?;
        self.set_secrecy(next)
    }

    /// Takes what the content of a core that we read has proven, whatever was believed before. Whether it was
    /// news.
    pub fn settle_secrecy(&mut self, key: Option<[u8; 32]>) -> Result<bool> {
        if self.writable {
            return self.say_secrecy(Secrecy::Known(key));
        }
        self.set_secrecy(Secrecy::Known(key))
    }

    fn set_secrecy(&mut self, next: Secrecy) -> Result<bool> {
        let before = std::mem::replace(&mut self.identity.secrecy, next);
        if before == next {
            return Ok(false);
        }
        self.derive();
        self.dirty.identity = true;
        if self.writable
            && let Err(error) = self.flush(Durability::Durable)
        {
            self.identity.secrecy = before;
            self.derive();
            return Err(error);
        }
        Ok(true)
    }

    /// A block that is here as it would read with `key` (`None`: as it is stored), to see whether that makes
    /// sense. `None` if it is not here or too short.
    pub fn open_with(&self, key: Option<&[u8; 32]>, block: u64) -> Result<Option<Vec<u8>>> {
        let Some(stored) = self.stored_block(block)? else { return Ok(None) };
        Ok(match key {
            None => Some(stored.to_vec()),
            Some(key) => self.cipher_of(key).and_then(|cipher| cipher.decrypt(block, &stored)),
        })
    }

    /// The cipher of this core with an encryption key; `None` while the core's kind is unknown.
    fn cipher_of(&self, key: &[u8; 32]) -> Option<BlockCipher> {
        let compat = self.identity.verifier.as_ref().map(Verifier::is_compat)?;
        Some(BlockCipher::new(&self.identity.key, compat, key))
    }

    /// What follows from the identity.
    pub(super) fn derive(&mut self) {
        let cipher = self.identity.secrecy.key().and_then(|key| self.cipher_of(key));
        self.cipher = cipher.map(Arc::new);
        let pair = self.identity.key_pair.as_ref();
        let verifier = self.identity.verifier.as_ref();
        let signs = |(verifier, pair): (&Verifier, _)| verifier.can_sign(pair);
        self.writable = verifier.zip(pair).is_some_and(signs);
    }
}
