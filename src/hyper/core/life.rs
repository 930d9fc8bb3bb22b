//! How a core comes into a store, what is learned of it there, and how it goes.
//!
//! What makes or removes several cores does it in one transaction. A core that is made anew begins with empty files,
//! and one that was made without a key pair never gets one.

use super::bitfield::Bitfield;
use super::manifest::Manifest;
use super::nodes::NodeStore;
use super::record::{Identity, damaged, decode_head};
use super::storage::{Doubt, Durability, Records, Storage, Table, Writes};
use super::tree::Head;
use super::verifier::Verifier;
use super::{Core, CoreError, CreateOptions, Dirty, Result, Secrecy, WriterDoubt, writer};
use crate::key::DiscoveryKey;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

impl Core {
    /// Opens a core that the store has.
    pub fn open(storage: &Arc<dyn Storage>, core: &DiscoveryKey) -> Result<Option<Core>> {
        let Some(bytes) = storage.get(Table::Cores, core.as_bytes())? else { return Ok(None) };
        let identity = Identity::decode(&bytes).map_err(|e| damaged(Table::Cores, core, e))?;
        let mut core = Core::new(storage, identity);
        core.load()?;
        core.set_doubt(core.inherited_doubt()?);
        Ok(Some(core))
    }

    /// Makes a core, or opens the one that is there and adds what was unknown about it. With a key pair this is
    /// durable, since the keys of what is published must not be lost.
    ///
    /// # Errors
    /// [`CoreError::NotTheKey`] if the manifest or the key pair belongs to another core. See [`Core::learn`].
    pub fn create(storage: &Arc<dyn Storage>, options: CreateOptions) -> Result<Core> {
        let mut core = match Core::open(storage, &options.key.discovery_key())? {
            Some(mut core) => {
                core.learn(options)?;
                core
            }
            None => {
                let mut core = Core::fresh(storage, &options)?;
                core.take(options)?;
                core
            }
        };
        core.set_doubt(core.inherited_doubt()?);
        let durability = match core.dirty.identity && core.writable {
            true => Durability::Durable,
            false => Durability::Buffered,
        };
        if core.dirty.identity {
            core.flush(durability)?;
        }
        Ok(core)
    }

    /// Makes cores that the store has no record of, and whatever else is to be written, durably: all or nothing. Their
    /// keys are nobody's yet: what the store may lack of other cores is no doubt about these.
    pub fn create_all(
        storage: &Arc<dyn Storage>,
        all: Vec<(CreateOptions, Secrecy)>,
        mut writes: Writes,
    ) -> Result<Vec<Core>> {
        let mut cores = Vec::with_capacity(all.len());
        for (options, secrecy) in all {
            let mut core = Core::fresh(storage, &options)?;
            // Until it is made nothing of it is to be written, by its end neither.
            core.dirty = Dirty::default();
            core.take(options)?;
            core.identity.secrecy = core.admit(secrecy)?;
            core.derive();
            let cleared = Some(writer::cleared_of(storage)).filter(|cleared| !cleared.is_empty());
            Records::change(&mut writes, &writer::trusted_record(&core.discovery_key), cleared);
            core.dirty = Dirty { identity: true, head: true, ..Dirty::default() };
            core.stage_own(&mut writes);
            cores.push(core);
        }
        storage.commit(writes, &[], Durability::Durable)?;
        Ok(cores)
    }

    /// Whether the store has a record of it.
    pub fn is_stored(storage: &Arc<dyn Storage>, core: &DiscoveryKey) -> Result<bool> {
        Ok(storage.get(Table::Cores, core.as_bytes())?.is_some())
    }

    /// Deletes cores from the store, and makes the writes that go with that: all or nothing. No instance of them
    /// may be open.
    pub fn remove_all(
        storage: &Arc<dyn Storage>,
        cores: &[DiscoveryKey],
        mut writes: Writes,
    ) -> Result<()> {
        for core in cores {
            writes.delete(Table::Cores, *core.as_bytes());
            writes.delete(Table::Heads, *core.as_bytes());
            for (key, _) in storage.scan(Table::Bits, core.as_bytes())? {
                writes.delete(Table::Bits, key);
            }
            Records::change(&mut writes, &writer::trusted_record(core), None);
            Records::change(&mut writes, &writer::histories_record(core), None);
        }
        Ok(storage.remove_cores(cores, writes)?)
    }

    /// A core that the store has no record of.
    fn fresh(storage: &Arc<dyn Storage>, options: &CreateOptions) -> Result<Core> {
        let key = options.key;
        if options.key_pair.is_some() {
            check_unused(storage, &key.discovery_key())?;
        }
        // Before its files are anybody's: what an end before the first record left there proves nothing.
        storage.remove_files(&key.discovery_key())?;
        let none = Identity { key, verifier: None, key_pair: None, secrecy: Secrecy::Unknown };
        let mut core = Core::new(storage, none);
        core.dirty = Dirty { identity: true, head: true, ..Dirty::default() };
        Ok(core)
    }

    fn new(storage: &Arc<dyn Storage>, identity: Identity) -> Core {
        let discovery_key = identity.key.discovery_key();
        let files = storage.files(&discovery_key);
        let mut core = Core {
            storage: storage.clone(),
            nodes: NodeStore::new(storage.clone(), files.clone()),
            files,
            discovery_key,
            identity,
            writable: false,
            cipher: None,
            head: Head::default(),
            bits: Bitfield::default(),
            session: storage.session().current,
            dirty: Dirty::default(),
            cursor: Cell::default(),
            next_write: None,
            generation: Arc::default(),
            appending: Arc::default(),
            following: false,
            claimed: Arc::default(),
            doubt: None,
            doubted: Arc::default(),
            names_doubted: None,
            outgrown: false,
            soundness: RefCell::default(),
            commits: 0,
        };
        core.derive();
        core
    }

    /// Reads head and bits.
    fn load(&mut self) -> Result<()> {
        let core = self.discovery_key;
        let mut stamp = None;
        if let Some(bytes) = self.storage.get(Table::Heads, core.as_bytes())? {
            let read = decode_head(&bytes).map_err(|e| damaged(Table::Heads, &core, e))?;
            (self.head, self.session, stamp) = read;
        }
        for (key, page) in self.storage.scan(Table::Bits, core.as_bytes())? {
            let number = key.last_chunk().map_or(u64::MAX, |n| u64::from_be_bytes(*n));
            let read = self.bits.decode_page(number, &page);
            read.map_err(|e| damaged(Table::Bits, &core, e))?;
        }
        let own_files = self.has_own_files(stamp) && self.storage.is_repeated(&core);
        // Of a store that is away nothing is to be taken for lost.
        if !own_files {
            self.storage.check_place()?;
        }
        if !own_files || self.session <= self.storage.session().unclean {
            self.scrub(own_files)?;
        }
        Ok(())
    }

    /// Adds what the options know and we do not.
    ///
    /// # Errors
    /// What is known already contradicts them; nothing has changed then. [`CoreError::ReadOnly`] for a key pair where
    /// the core was made without: whatever of it was written with that pair elsewhere or before, the log that is here
    /// is not known to be all of it.
    pub fn learn(&mut self, options: CreateOptions) -> Result<()> {
        if options.key_pair.is_some() && self.identity.key_pair.is_none() {
            return Err(CoreError::ReadOnly);
        }
        self.take(options)
    }

    fn take(&mut self, options: CreateOptions) -> Result<()> {
        let mut identity = self.identity.clone();
        if let Some(manifest) = &options.manifest {
            let verifier = Verifier::new(&identity.key, manifest);
            let verifier = verifier.ok_or(CoreError::NotTheKey("manifest"))?;
            identity.verifier.get_or_insert(verifier);
        }
        if let Some(pair) = options.key_pair {
            if identity.verifier.is_none() {
                let single = Manifest::single(pair.public());
                let verifier = Verifier::new(&identity.key, &single);
                identity.verifier = Some(verifier.ok_or(CoreError::NotTheKey("key pair"))?);
            }
            let manifest = identity.verifier.as_ref().map(Verifier::manifest);
            let signers = manifest.map(|m| m.signers.as_slice()).unwrap_or_default();
            if signers.iter().all(|signer| signer.public_key != pair.public()) {
                return Err(CoreError::NotTheKey("key pair"));
            }
            identity.key_pair.get_or_insert(pair);
        }
        if options.encryption_key.is_some() {
            // Blocks that were read as they are have been given to somebody already.
            if self.head.length > 0 && self.identity.secrecy == Secrecy::Unknown {
                return Err(CoreError::Unencrypted);
            }
            identity.secrecy = self.admit(Secrecy::Known(options.encryption_key))?;
        }
        self.dirty.identity |= identity.verifier.is_some() != self.identity.verifier.is_some()
            || identity.key_pair.is_some() != self.identity.key_pair.is_some()
            || identity.secrecy != self.identity.secrecy;
        self.identity = identity;
        self.derive();
        Ok(())
    }
}

/// Of a store that may be an older copy, what lies in the files of a core of ours without a record may be its newest
/// state.
fn check_unused(storage: &Arc<dyn Storage>, core: &DiscoveryKey) -> Result<()> {
    let copied = storage.doubts().copied.is_some();
    match copied && storage.cores_with_files()?.iter().any(|(id, _)| id == core) {
        true => Err(CoreError::InDoubt(WriterDoubt::Store(Doubt::Copied))),
        false => Ok(()),
    }
}
