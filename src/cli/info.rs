//! `hdrive info`: what is known of a drive, here and among its peers.

use super::args::Info;
use super::context::Context;
use super::exit::{Exit, Failure, Result};
use super::target::{encryption_key, open_target, resolve};
use super::words::bytes;
use crate::hyper::session::CoreHandle;
use serde_json::json;

pub async fn run(args: Info, cx: Context) -> Result {
    let secret = encryption_key(&args.secret)?;
    let asked = resolve(&cx.node, &args.key)?;
    if !asked.path.is_root() {
        let text = format!("info is about a whole drive, `hdrive ls -l` about {}", asked.path);
        return Err(Failure::new(Exit::Usage, text));
    }
    let (target, drive, index) = open_target(&cx, &args.key, secret).await?;
    let blobs = drive.blobs();
    let (db_length, db_here, _, _) = lengths(drive.db());
    let (blobs_length, blobs_here, blobs_bytes, blobs_bytes_here) =
        blobs.map(lengths).unwrap_or_default();
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
            "db": {"length": db_length, "blocksHere": db_here},
            "blobs": {
                "key": blobs_key, "length": blobs_length, "blocksHere": blobs_here,
                "bytes": blobs_bytes, "bytesHere": blobs_bytes_here,
            },
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
    out.pair("names here", format_args!("{db_here} of {db_length} blocks"));
    out.pair(
        "contents here",
        format_args!(
            "{blobs_here} of {blobs_length} blocks, {} of {}",
            bytes(blobs_bytes_here),
            bytes(blobs_bytes)
        ),
    );
    out.pair("peers", peers.len());
    for peer in peers {
        out.room().await;
        out.line(format_args!("  {} has {} of its blocks", peer.remote, peer.contiguous));
    }
    Ok(())
}

/// Blocks, blocks here, bytes, bytes here (in proportion to the blocks).
fn lengths(core: &CoreHandle) -> (u64, u64, u64, u64) {
    let core = core.core();
    let (length, here, bytes) = (core.length(), core.blocks_here(), core.byte_length());
    let bytes_here = u128::from(bytes) * u128::from(here) / u128::from(length.max(1));
    (length, here, bytes, bytes_here as u64)
}
