//! `hdrive info`: what is known of a drive, here and among its peers.

use super::args::Info;
use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::target::{encryption_key, open_target, resolve};
use super::words::bytes;
use crate::hyper::session::CoreHandle;
use serde_json::{Value, json};

pub async fn run(args: Info, cx: Context) -> Result {
    let secret = encryption_key(&args.secret)?;
    let asked = resolve(&cx.node, &args.key)?;
    if !asked.path.is_root() {
        let text = format!("info is about a whole drive, `hdrive ls -l` about {}", asked.path);
        return Err(Failure::new(Exit::Usage, text));
    }
    let (target, drive, index) = open_target(&cx, &args.key, secret).await?;
    let blobs = drive.blobs();
    let names = Lengths::of(drive.db());
    let contents =
        Contents { lengths: blobs.map(Lengths::of).unwrap_or_default(), size: index.bytes() };
    let peers = cx.node.peers(drive.db().discovery_key()).await;
    let blobs_key = blobs.map(|core| core.key().to_string());
    if cx.out.json {
        let peers: Vec<_> = peers
            .iter()
            .map(|peer| json!({"key": peer.remote.to_string(), "length": peer.length}))
            .collect();
        cx.out.object(&json!({
            "key": target.key.to_string(),
            "discoveryKey": drive.db().discovery_key().to_string(),
            "version": index.version(),
            "writable": drive.writable(),
            "files": index.files(),
            "bytes": index.bytes(),
            "db": {"length": names.length, "blocksHere": names.here},
            "blobs": contents.json(blobs_key),
            "peers": peers,
        }));
        return Ok(());
    }
    let out = &cx.out;
    out.pair("key", target.key);
    out.pair("version", index.version());
    out.pair("writable", if drive.writable() { "yes" } else { "no" });
    out.pair("files", index.files());
    out.pair("size", bytes(index.bytes()));
    out.pair("names here", format_args!("{} of {} blocks", names.here, names.length));
    out.pair("contents here", contents.words());
    out.pair("peers", peers.len());
    for peer in peers {
        out.room().await;
        out.line(format_args!("  {} has {} of its blocks", peer.remote, peer.contiguous));
    }
    Ok(())
}

/// Of a core, as far as it is known here.
#[derive(Debug, Clone, Copy, Default)]
struct Lengths {
    length: u64,
    here: u64,
    bytes: u64,
}

impl Lengths {
    fn of(core: &CoreHandle) -> Self {
        let core = core.core();
        Self { length: core.length(), here: core.blocks_here(), bytes: core.byte_length() }
    }
}

/// What the files of a drive hold, and `size` bytes of it now.
struct Contents {
    lengths: Lengths,
    size: u64,
}

impl Contents {
    /// Whoever only looks at names need not hear how long the contents are.
    fn is_known(&self) -> bool {
        self.lengths.length > 0 || self.size == 0
    }

    /// In proportion to the blocks.
    fn bytes_here(&self) -> u64 {
        let Lengths { length, here, bytes } = self.lengths;
        (u128::from(bytes) * u128::from(here) / u128::from(length.max(1))) as u64
    }

    fn words(&self) -> String {
        let Lengths { length, here, bytes: all } = self.lengths;
        match self.is_known() {
            true => {
                format!("{here} of {length} blocks, {} of {}", bytes(self.bytes_here()), bytes(all))
            }
            false => "none, nobody asked for any yet".to_string(),
        }
    }

    fn json(&self, key: Option<String>) -> Value {
        let known = |n: u64| self.is_known().then_some(n);
        let Lengths { length, here, bytes } = self.lengths;
        json!({
            "key": key, "length": known(length), "blocksHere": here,
            "bytes": known(bytes), "bytesHere": self.bytes_here(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_nobody_asked_for_are_not_empty_ones() {
        let unknown = Contents { lengths: Lengths::default(), size: 5 << 20 };
        assert_eq!(unknown.words(), "none, nobody asked for any yet");
        let json = unknown.json(None);
        assert!(
            json["length"].is_null() && json["bytes"].is_null() && json["bytesHere"] == 0,
            "{json}"
        );
        let empty = Contents { size: 0, ..unknown };
        assert_eq!(empty.words(), "0 of 0 blocks, 0 B of 0 B");
        assert_eq!(empty.json(None)["length"], 0);
        let half = Contents { lengths: Lengths { length: 2, here: 1, bytes: 2048 }, size: 2048 };
        assert_eq!(half.words(), "1 of 2 blocks, 1.0 KiB of 2.0 KiB");
        assert_eq!(half.json(None)["bytesHere"], 1024);
    }
}
