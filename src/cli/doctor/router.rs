//! Whether the router gives a port that leads here, when it is asked for one. What it gives is given back.

use super::finding::Finding;
use super::owner::Owner;
use crate::swarm::SwarmStatus;
use crate::swarm::dht_rpc::bogon;
use crate::swarm::driver::NetworkHandle;
use crate::swarm::port_mapping::{NotMapped, PortMapping, PortMappingStatus};
use serde_json::{Value, json};
use std::net::SocketAddrV4;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const CHECK: &str = "router";
/// How often it is looked what the router said, and for how long whether it has its port back.
const LOOK: Duration = Duration::from_millis(50);
const GIVEN_BACK: Duration = Duration::from_millis(450);

/// What became of the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    Leads { external: SocketAddrV4, gateway: String, by: String },
    None(String),
    NotKnown,
}

/// What the router says by then, of a port that was asked for.
pub async fn wait(network: &NetworkHandle, until: Instant) -> Port {
    loop {
        let SwarmStatus { port_mapping, .. } = network.status().await.unwrap_or_default();
        match port_mapping {
            PortMappingStatus::Mapped(PortMapping { external, gateway, by, .. }) => {
                let (gateway, by) = (gateway.to_string(), by.to_string());
                return Port::Leads { external, gateway, by };
            }
            PortMappingStatus::Not(why) => return Port::None(why.to_string()),
            PortMappingStatus::Off | PortMappingStatus::Asking if Instant::now() >= until => {
                return Port::NotKnown;
            }
            PortMappingStatus::Off | PortMappingStatus::Asking => sleep(LOOK).await,
        }
    }
}

/// Gives back what was asked for, also where that was broken off.
pub async fn give_back(network: &NetworkHandle) {
    network.map_port(false);
    let until = Instant::now() + GIVEN_BACK;
    while Instant::now() < until {
        match network.status().await.map(|status| status.port_mapping) {
            None | Some(PortMappingStatus::Off) => return,
            Some(_) => sleep(LOOK).await,
        }
    }
}

/// What the JSON of `status` says of the port of the process that works on the store; none if it wants none.
pub fn of_status(network: &Value) -> Option<Port> {
    let mapping = network.get("portMapping")?;
    let text = |name: &str| mapping.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("state") {
        "mapped" => {
            let (gateway, by) = (text("gateway").into(), text("by").into());
            Some(Port::Leads { external: text("external").parse().ok()?, gateway, by })
        }
        "none" => Some(Port::None(text("why").into())),
        "asking" => Some(Port::NotKnown),
        _ => None,
    }
}

/// That of the owner, if it wants one, is there to stay.
pub fn judge(asked: Option<&Port>, owner: Option<&Owner>) -> Option<Finding> {
    let (port, pid) = match (owner, asked) {
        (Some(Owner::Answers { pid, port: Some(port), .. }), _) => (port, Some(*pid)),
        (_, port) => (port?, None),
    };
    let finding = match port {
        Port::Leads { external, gateway, by } => {
            let (ip, port) = (external.ip(), external.port());
            let words = match pid {
                Some(pid) => format!(
                    "UDP port {port} of the router {gateway} leads to process {pid}, it says ({by})"
                ),
                None => format!(
                    "the router {gateway} gives a UDP port when asked, {port} say ({by}); it was given back"
                ),
            };
            match bogon::is_private(ip) {
                true => Finding::note(
                    CHECK,
                    format!("{words}; but it is behind another NAT itself, at {ip}"),
                    "forward a port in the router before it too, or do without",
                ),
                false => Finding::good(CHECK, words),
            }
            .with(json!({ "port": port, "router": gateway, "by": by }))
        }
        Port::None(why) if *why == NotMapped::NoGateway.to_string() => {
            let next = "connect this machine to the network of the router; with a public address it needs no port of one";
            Finding::note(CHECK, format!("it gives no port: {why}"), next)
        }
        Port::None(why) => {
            let next = "switch PCP, NAT-PMP or UPnP on in the router, or forward a UDP port there by hand and pass --port";
            Finding::note(CHECK, format!("it gives no port: {why}"), next)
        }
        Port::NotKnown => Finding::unknown(CHECK, "it has not answered yet"),
    };
    Some(finding.with(json!({ "owner": pid })))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn leads(external: &str) -> Port {
        let external = external.parse().unwrap();
        Port::Leads { external, gateway: "192.168.1.1".into(), by: "PCP".into() }
    }

    #[test]
    fn what_the_router_says_is_told_with_what_to_do_about_it() {
        assert_eq!(judge(None, None), None);
        let found = |port| judge(Some(&port), None).unwrap();
        let good = found(leads("20.0.0.1:5"));
        let words =
            "the router 192.168.1.1 gives a UDP port when asked, 5 say (PCP); it was given back";
        assert_eq!((good.verdict, good.words.as_str()), (Verdict::Good, words));
        assert!(found(leads("192.168.178.2:5")).words.contains("behind another NAT"));
        let none = found(Port::None("the router refuses it".into()));
        assert!(none.verdict == Verdict::Note && none.next.unwrap().contains("--port"));
        let alone = found(Port::None(NotMapped::NoGateway.to_string())).next.unwrap();
        assert!(alone.starts_with("connect this machine"), "{alone}");
        assert_eq!(found(Port::NotKnown).verdict, Verdict::Unknown);
    }

    #[test]
    fn the_port_of_the_process_that_works_on_the_store_counts_before() {
        let status = |mapping| of_status(&json!({ "portMapping": mapping }));
        let port = status(json!({
            "state": "mapped", "by": "PCP", "gateway": "192.168.1.1", "external": "20.0.0.1:5",
        }));
        assert_eq!(port, Some(leads("20.0.0.1:5")));
        assert_eq!(status(json!({ "state": "off" })), None);
        assert_eq!(status(json!({ "state": "none", "why": "no" })), Some(Port::None("no".into())));
        let owner = Owner::Answers { pid: 7, standing: None, relays: Vec::new(), port };
        for asked in [None, Some(&Port::NotKnown)] {
            let found = judge(asked, Some(&owner)).unwrap();
            assert!(found.words.contains("port 5 of the router 192.168.1.1 leads to process 7"));
        }
    }
}
