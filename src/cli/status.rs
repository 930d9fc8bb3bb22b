//! `hdrive status`: what the owner of the store does right now.

use super::args::Status;
use super::context::Context;
use super::exit::Result;
use super::looking::{Outlook, Wait};
use super::running::Running;
use super::words::{bytes, count};
use crate::key::Topic;
use crate::node::DriveId;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a drive is mounted, or was and somebody has it still.
struct Place {
    at: PathBuf,
    drive: DriveId,
    mounted: bool,
}

fn places(running: &Arc<Running>) -> Vec<Place> {
    let Some((mount, drive)) = running.mount() else { return Vec::new() };
    let at = mount.mount_point().to_path_buf();
    let there = match mount.places() {
        Ok((Some(own), _)) => vec![own],
        Ok((None, copies)) => copies,
        // Who cannot tell has heard of no end.
        Err(_) => vec![at.clone()],
    };
    match there.is_empty() {
        true => vec![Place { at, drive, mounted: false }],
        false => there.into_iter().map(|at| Place { at, drive, mounted: true }).collect(),
    }
}

pub async fn run(_args: Status, cx: Context) -> Result {
    let names = cx.node.names()?;
    let name_of = |key| names.iter().find(|(_, known)| *known == key).map(|(name, _)| name.clone());
    let me = |running: &Arc<Running>| Arc::ptr_eq(running, &cx.running);
    let commands: Vec<_> = cx.commands.all().into_iter().filter(|running| !me(running)).collect();
    let (mounts, unmounted): (Vec<_>, Vec<_>) =
        commands.iter().flat_map(places).partition(|place| place.mounted);
    let network = cx.node.network_status().await;
    let mut drives = Vec::new();
    for state in cx.node.open_drives() {
        let peers = cx.node.peers(state.drive.db().discovery_key()).await.len();
        let index = state.drive.index().unwrap_or_default();
        let topic = Topic::from(state.drive.db().discovery_key());
        let waited = cx.commands.since().elapsed();
        let reach = *state.drive.db().reach().borrow();
        let blank = reach.peers == 0 && reach.blank > 0;
        let wait = Wait { waited, company: waited, blank, ..Wait::default() };
        let own = state.drive.db().core().writable();
        let outlook = match reach.holders {
            0 => Outlook::of(network.as_ref(), topic, own, wait),
            _ => Outlook::Found,
        };
        drives.push((state, peers, index, outlook));
    }
    if cx.out.json {
        let drives: Vec<_> = drives
            .iter()
            .map(|(state, peers, index, outlook)| {
                let key = state.drive.key();
                json!({
                    "key": key.to_string(), "name": name_of(key), "at": state.version,
                    "version": index.version(), "files": index.files(), "bytes": index.bytes(),
                    "served": state.served, "uses": state.uses, "peers": peers,
                    "outlook": outlook.to_string(),
                })
            })
            .collect();
        let list = |places: &[Place]| -> Vec<_> {
            let one = |Place { at, drive: (key, version), .. }: &Place| {
                json!({
                    "mountpoint": at.display().to_string(), "key": key.to_string(), "at": version,
                })
            };
            places.iter().map(one).collect()
        };
        let (mounts, unmounted) = (list(&mounts), list(&unmounted));
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
        let commands: Vec<_> = commands
            .iter()
            .map(|running| json!({"pid": running.pid, "command": running.words}))
            .collect();
        let all = json!({
            "pid": std::process::id(), "store": cx.node.config().store.display().to_string(),
            "commands": commands, "mounts": mounts, "unmounted": unmounted, "drives": drives, "names": stored, "network": network,
        });
        cx.out.object(&all);
        return Ok(());
    }
    let out = &cx.out;
    out.line(format_args!("store: {}", cx.node.config().store.display()));
    out.line(format_args!("owner: process {}", std::process::id()));
    for running in &commands {
        out.room().await;
        out.line(format_args!("command: process {} {}", running.pid, running.words));
    }
    for (name, key) in &names {
        out.room().await;
        out.line(format_args!("own drive: {key} {name}"));
    }
    let fixed = |version: Option<u64>| version.map_or_else(String::new, |n| format!(" --at {n}"));
    for Place { at, drive: (key, version), .. } in &mounts {
        out.room().await;
        out.line(format_args!("mount: {} {key}{}", at.display(), fixed(*version)));
    }
    for Place { at, drive: (key, version), .. } in &unmounted {
        out.room().await;
        let (at, fixed) = (at.display(), fixed(*version));
        let why = "in use still, by open files or in another mount namespace";
        out.line(format_args!("unmounted: {at} {key}{fixed} {why}"));
    }
    for (state, peers, index, outlook) in &drives {
        let served = match state.uses {
            0 => "closing",
            _ if state.served => "served",
            _ => "read",
        };
        let (version, files) = (index.version(), count(index.files(), "file"));
        let size = bytes(index.bytes());
        let outlook = match outlook {
            Outlook::Found => String::new(),
            outlook => format!(": {outlook}"),
        };
        let (key, peers) = (state.drive.key(), count(*peers as u64, "peer"));
        let at = fixed(state.version);
        out.room().await;
        out.line(format_args!(
            "drive: {key}{at} {served}, version {version}, {files}, {size}, {peers}{outlook}"
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
                out.room().await;
                out.line(format_args!("peer: {} {addr} {down} in, {up} out, {rtt}", peer.remote));
            }
        }
    }
    Ok(())
}
