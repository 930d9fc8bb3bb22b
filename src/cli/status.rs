//! `hdrive status`: what the owner of the store does right now.

use super::args::Status;
use super::context::Context;
use super::exit::Result;
use super::words::{bytes, count};
use serde_json::json;

pub async fn run(_args: Status, cx: Context) -> Result {
    let names = cx.node.names()?;
    let name_of = |key| names.iter().find(|(_, known)| *known == key).map(|(name, _)| name.clone());
    let mounts = cx.node.mounts();
    let network = cx.node.network_status().await;
    let mut drives = Vec::new();
    for state in cx.node.open_drives() {
        let peers = cx.node.peers(state.drive.db().discovery_key()).await.len();
        let index = state.drive.index().unwrap_or_default();
        drives.push((state, peers, index));
    }
    if cx.out.json {
        let drives: Vec<_> = drives
            .iter()
            .map(|(state, peers, index)| {
                let key = state.drive.key();
                json!({
                    "key": key.to_string(), "name": name_of(key), "at": state.version,
                    "version": index.version(), "files": index.files(), "bytes": index.bytes(),
                    "served": state.served, "uses": state.uses, "peers": peers,
                })
            })
            .collect();
        let mounts: Vec<_> = mounts
            .iter()
            .map(
                |(at, key)| json!({"mountpoint": at.display().to_string(), "key": key.to_string()}),
            )
            .collect();
        let network = network.map(|network| {
            let connections: Vec<_> = network
                .connections
                .iter()
                .map(|c| {
                    json!({
                        "key": c.remote.to_string(), "address": c.addr.map(|a| a.to_string()),
                        "open": c.open, "received": c.received, "sent": c.sent,
                        "rttMs": c.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
                    })
                })
                .collect();
            json!({"ready": network.ready && network.nodes > 0, "listening": network.listening, "peers": connections})
        });
        let stored: Vec<_> =
            names.iter().map(|(name, key)| json!({"name": name, "key": key.to_string()})).collect();
        let all = json!({
            "pid": std::process::id(), "store": cx.node.config().store.display().to_string(),
            "mounts": mounts, "drives": drives, "names": stored, "network": network,
        });
        cx.out.object(&all);
        return Ok(());
    }
    let out = &cx.out;
    out.line(format_args!("store: {}", cx.node.config().store.display()));
    out.line(format_args!("owner: process {}", std::process::id()));
    for (name, key) in &names {
        out.line(format_args!("own drive: {key} {name}"));
    }
    for (at, key) in &mounts {
        out.line(format_args!("mount: {} {key}", at.display()));
    }
    for (state, peers, index) in &drives {
        let served = match state.uses {
            0 => "closing",
            _ if state.served => "served",
            _ => "read",
        };
        let (version, files) = (index.version(), count(index.files(), "file"));
        let size = bytes(index.bytes());
        let (key, peers) = (state.drive.key(), count(*peers as u64, "peer"));
        out.line(format_args!(
            "drive: {key} {served}, version {version}, {files}, {size}, {peers}"
        ));
    }
    match network {
        None => out.line("network: not started"),
        Some(network) => {
            let state = match (network.nodes, network.traffic.no_way) {
                (1.., _) => "connected",
                (0, Some(_)) => "no way to send anything",
                (0, None) => "no DHT node answers",
            };
            out.line(format_args!("network: {state}"));
            for peer in network.connections.iter().filter(|peer| peer.open) {
                let addr = peer.addr.map_or_else(|| "-".into(), |addr| addr.to_string());
                let rtt = peer
                    .rtt
                    .map_or_else(|| "-".into(), |r| format!("{:.1} ms", r.as_secs_f64() * 1e3));
                let (down, up) = (bytes(peer.received), bytes(peer.sent));
                out.line(format_args!("peer: {} {addr} {down} in, {up} out, {rtt}", peer.remote));
            }
        }
    }
    Ok(())
}
