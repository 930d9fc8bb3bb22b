//! How one peer is connected, and how fast it goes.

use crate::cli::words::bytes;
use crate::swarm::ConnectionStatus;
use serde_json::{Value, json};

/// Where the datagrams of a relayed peer go to is the relay's address; where the peer is nobody has to know.
pub fn json(peer: &ConnectionStatus) -> Value {
    let addr = peer.addr.map(|addr| addr.to_string());
    let (address, relay_address) = if peer.relay.is_some() { (None, addr) } else { (addr, None) };
    let path = match (peer.relay, peer.near) {
        (Some(_), _) => "relay",
        (None, true) => "lan",
        (None, false) => "direct",
    };
    json!({
        "key": peer.remote.to_string(), "path": path, "address": address,
        "relay": peer.relay.map(|key| json!({"key": key.to_string(), "address": relay_address})),
        "open": peer.open, "received": peer.received, "sent": peer.sent,
        "receivedPerSecond": peer.receiving, "sentPerSecond": peer.sending,
        "rttMs": peer.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
    })
}

pub fn words(peer: &ConnectionStatus) -> String {
    let at = peer.addr.map_or_else(|| "-".into(), |addr| addr.to_string());
    let way = match (peer.relay, peer.near) {
        (Some(relay), _) => format!("relay through {relay} at {at}"),
        (None, true) => format!("lan at {at}"),
        (None, false) => format!("direct at {at}"),
    };
    let rtt =
        peer.rtt.map_or_else(|| "-".into(), |rtt| format!("{:.1} ms", rtt.as_secs_f64() * 1e3));
    let [all_in, all_out, now_in, now_out] =
        [peer.received, peer.sent, peer.receiving, peer.sending].map(bytes);
    format!(
        "peer: {} {way}, {all_in} in, {all_out} out, now {now_in}/s in, {now_out}/s out, {rtt}",
        peer.remote
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;
    use crate::swarm::ConnId;
    use std::time::Duration;

    #[test]
    fn people_and_programs_are_told_through_whom_a_peer_is_connected_and_how_fast() {
        let [key, relay] = [PublicKey([1; 32]), PublicKey([2; 32])];
        let mut peer = ConnectionStatus {
            conn: ConnId(7),
            remote: key,
            initiator: true,
            open: true,
            addr: Some(([192, 0, 2, 7], 5).into()),
            near: false,
            relay: None,
            received: 3 << 20,
            sent: 595,
            receiving: 1 << 20,
            sending: 20,
            queued: 0,
            rtt: Some(Duration::from_micros(81_800)),
        };
        let rest = "3.0 MiB in, 595 B out, now 1.0 MiB/s in, 20 B/s out, 81.8 ms";
        assert_eq!(words(&peer), format!("peer: {key} direct at 192.0.2.7:5, {rest}"));
        assert_eq!((&json(&peer)["relay"], &json(&peer)["path"]), (&Value::Null, &"direct".into()));
        peer.near = true;
        assert_eq!(words(&peer), format!("peer: {key} lan at 192.0.2.7:5, {rest}"));
        assert_eq!(json(&peer)["address"], "192.0.2.7:5");
        peer.relay = Some(relay);
        let through = format!("relay through {relay} at 192.0.2.7:5");
        assert_eq!(words(&peer), format!("peer: {key} {through}, {rest}"));
        let json = json(&peer);
        assert!(json["address"].is_null() && json["path"] == "relay", "{json}");
        let wanted = json!({"key": relay.to_string(), "address": "192.0.2.7:5"});
        assert_eq!((&json["relay"], &json["receivedPerSecond"]), (&wanted, &(1 << 20).into()));
        assert_eq!((&json["sentPerSecond"], &json["rttMs"]), (&20.into(), &81.8.into()));
    }
}
