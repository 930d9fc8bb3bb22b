//! How a relay is, told to `hdrive status`: whoever connects to its socket in the store gets one JSON object, and its end.
//!
//! The relay is no owner of the store and is asked for nothing else. It sends the words for people as well, so that it and
//! who asks need not be of one version.

use super::of_store;
use crate::cli::owner::at_socket;
use crate::cli::status::{network_json, network_lines};
use crate::swarm::SwarmStatus;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOCKET: &str = "relay-socket";
/// One that says nothing for so long is stopped, say.
const PATIENCE: Duration = Duration::from_secs(2);
/// After somebody who could not be taken (no descriptor is free, say) the next is looked at after this.
const PAUSE: Duration = Duration::from_millis(100);
/// What it tells at most: some lines. It fits into the buffer of a socket, so that nobody is waited for.
const MAX_TOLD: u64 = 16 << 10;

/// What it tells.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    json: Value,
    lines: Vec<String>,
}

/// The relay of a store, and what it told, if it answered.
pub struct Found {
    pid: u32,
    told: Option<Told>,
}

impl Found {
    pub fn lines(&self) -> Vec<String> {
        match &self.told {
            Some(told) => told.lines.clone(),
            None => vec![format!("relay: process {}, which does not answer", self.pid)],
        }
    }

    pub fn json(&self) -> Value {
        self.told.as_ref().map_or_else(|| json!({"pid": self.pid}), |told| told.json.clone())
    }
}

/// Asks the relay of a store, if there is one. It waits for it, within a bound.
pub fn ask(store: &Path) -> Option<Found> {
    let pid = of_store(store)?;
    Some(Found { pid, told: hear(store).ok() })
}

fn hear(store: &Path) -> io::Result<Told> {
    let stream = at_socket(store, SOCKET, |at| UnixStream::connect(at))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.take(MAX_TOLD).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// The socket of a relay, for as long as it is one.
pub struct Telling {
    store: PathBuf,
    /// Device and inode of the socket.
    id: (u64, u64),
    listener: tokio::net::UnixListener,
}

impl Telling {
    /// The relay's lock is held.
    pub fn start(store: &Path) -> io::Result<Self> {
        let _ = at_socket(store, SOCKET, |at| fs::remove_file(at));
        let (listener, id) = at_socket(store, SOCKET, |at| {
            let listener = UnixListener::bind(at)?;
            fs::set_permissions(at, Permissions::from_mode(0o600))?;
            Ok((listener, id_of(at)?))
        })?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        Ok(Self { store: store.into(), id, listener })
    }

    /// The next who asks; nobody, where there is no socket.
    pub async fn asked(telling: Option<&Self>) -> UnixStream {
        let Some(telling) = telling else { return std::future::pending().await };
        loop {
            let stream = telling.listener.accept().await.and_then(|(stream, _)| stream.into_std());
            match stream {
                Ok(stream) => return stream,
                Err(error) => {
                    tracing::warn!("nobody can be told how the relay is: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        // That of another relay, in another store of the same path, stays.
        let _ = at_socket(&self.store, SOCKET, |at| match id_of(at)? == self.id {
            true => fs::remove_file(at),
            false => Ok(()),
        });
    }
}

fn id_of(at: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(at).map(|meta| (meta.dev(), meta.ino()))
}

/// Who asked and takes nothing is not waited for.
pub fn tell(mut who: UnixStream, status: &SwarmStatus) {
    let Some(relaying) = &status.relaying else { return };
    let (pid, key) = (std::process::id(), relaying.key);
    let mut lines = vec![format!("relay: process {pid}, {key}")];
    lines.extend(network_lines(status).into_iter().map(|line| format!("relay {line}")));
    let json = json!({"pid": pid, "key": key.to_string(), "network": network_json(status)});
    let text = serde_json::to_string(&Told { json, lines }).unwrap_or_default();
    if let Err(error) = who.write_all(text.as_bytes()) {
        tracing::debug!("somebody asked how the relay is, and is gone: {error}");
    }
}
