//! What the owner of a store leaves to the command that takes over from it: how it stands in the network.
//!
//! That command may have been begun with other options, or none, and did not use its own. Whoever keeps a drive off
//! the public network by what he told the first process must not find it there because that process ended.

use super::args::Global;
use super::request::Request;
use crate::swarm::driver::PeerAddress;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// In the directory of the store.
const NAME: &str = "network.json";
/// Whatever is longer is none of ours.
const MAX_LEN: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Left {
    place: super::request::Place,
    peers: Vec<PeerAddress>,
}

/// Has `first`, the own command of a new owner, go on as the owner before it did if that ran it, and leaves what counts
/// now to the next.
///
/// # Errors
/// It is not known how the owner before stood in the network, or cannot be told to the next.
pub fn succeed(store: &Path, first: &mut Request, global: &mut Global) -> io::Result<()> {
    let path = store.join(NAME);
    if first.ran {
        let mut text = String::new();
        fs::File::open(&path)?.take(MAX_LEN).read_to_string(&mut text)?;
        let left: Left = serde_json::from_str(&text)?;
        left.place.apply(global).map_err(io::Error::other)?;
        first.place = left.place;
        first.peers.extend(left.peers);
        first.peers.dedup();
        return Ok(());
    }
    let left = Left { place: first.place.clone(), peers: first.peers.clone() };
    let new = store.join(format!("{NAME}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&left)?)?;
    fs::rename(new, path)
}
