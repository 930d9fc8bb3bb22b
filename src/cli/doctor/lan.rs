//! Local networks: where neighbours are called, and whether such a call is heard; and IPv6.

use super::finding::Finding;
use crate::cli::hearing;
use crate::disk;
use crate::swarm::driver::{OwnCall, call_and_listen};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde_json::json;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;
use tokio::time::timeout;

/// A call comes back at once; three are made.
const LISTEN: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(4);

/// For documentation (RFC 3849): there is a way to it where there is one to everybody. Nothing is sent.
const ANYWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Whether peers of a local network are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Near {
    /// There is no local network, or it is left alone.
    #[default]
    Alone,
    Heard,
    /// A firewall keeps calls from us, on all of them.
    Unheard,
}

/// The lines, and that.
pub async fn look(on: bool, local: Ipv4Addr) -> (Near, Vec<Finding>) {
    let calls = match on {
        false => None,
        true => {
            let calls = disk::ask(move || call_others(local));
            let late = || io::Error::other("no answer of the system");
            Some(match timeout(PATIENCE, calls).await {
                Ok(Ok(calls)) => calls,
                Ok(Err(_)) | Err(_) => Err(late()),
            })
        }
    };
    let near = calls.as_ref().and_then(|calls| calls.as_ref().ok());
    let near = near.map_or(Near::Alone, |calls| near_on(calls));
    (near, vec![judge(calls.as_ref()), judge_ipv6(ipv6().as_ref().ok().or(local_ipv6().as_ref()))])
}

/// Calls where others may hear them: this machine's own network is none unless it was asked for.
fn call_others(local: Ipv4Addr) -> io::Result<Vec<OwnCall>> {
    let mut calls = call_and_listen(local, LISTEN)?;
    calls.retain(|call| may_hold_others(call, local));
    Ok(calls)
}

fn may_hold_others(call: &OwnCall, local: Ipv4Addr) -> bool {
    !(local.is_unspecified() && call.addr.is_loopback())
}

fn near_on(calls: &[OwnCall]) -> Near {
    match calls {
        [] => Near::Alone,
        calls if calls.iter().any(|call| call.heard) => Near::Heard,
        _ => Near::Unheard,
    }
}

/// `None` if neighbours are not to be called.
fn judge(calls: Option<&io::Result<Vec<OwnCall>>>) -> Finding {
    let calls = match calls {
        None => return Finding::good("lan", "off, by --no-lan: neighbours are not looked for"),
        Some(Err(error)) => {
            return Finding::unknown("lan", format!("not tried: {error}"));
        }
        Some(Ok(calls)) => calls,
    };
    let places = |heard: bool| {
        let places = calls.iter().filter(|call| call.heard == heard);
        let places: Vec<_> =
            places.map(|call| format!("{} ({})", call.interface, call.addr)).collect();
        places.join(", ")
    };
    let (heard, unheard) = (places(true), places(false));
    let finding = match (hearing::words(&heard, &unheard), unheard.is_empty()) {
        (None, _) => {
            let words = "no local network: no interface with a private address, which neighbours are called from";
            Finding::good("lan", words)
        }
        // Nobody else was asked.
        (Some(words), true) => Finding::good(
            "lan",
            format!("{words}; their firewalls have to let in UDP of the local network as well"),
        ),
        (Some(words), false) => Finding::note("lan", words, hearing::advice()),
    };
    let facts = |call: &OwnCall| json!({ "interface": call.interface, "address": call.addr.to_string(), "heard": call.heard });
    finding.with(json!({ "interfaces": calls.iter().map(facts).collect::<Vec<_>>() }))
}

/// The address that this machine writes to others from. The system picks it when it is told where to, and sends nothing.
fn ipv6() -> io::Result<Ipv6Addr> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.connect((ANYWHERE, 9))?;
    match socket.local_addr()?.ip() {
        IpAddr::V6(ip) => Ok(ip),
        IpAddr::V4(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Where nothing leads to everybody: the first address that others of a local network can write to. A link-local one is none
/// that anybody would type.
fn local_ipv6() -> Option<Ipv6Addr> {
    getifaddrs().ok()?.find_map(|address| {
        let ip = address.address?.as_sockaddr_in6()?.ip();
        let works = address.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        (works && ip.is_unique_local()).then_some(ip)
    })
}

fn judge_ipv6(from: Option<&Ipv6Addr>) -> Finding {
    let is_local =
        |ip: &Ipv6Addr| ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback();
    let finding = match from {
        Some(ip) if !is_local(ip) => Finding::good(
            "ipv6",
            format!("yes, from {ip}; only --peer with such an address needs it"),
        ),
        Some(ip) => Finding::good(
            "ipv6",
            format!("only on local networks, from {ip}; only --peer with such an address needs it"),
        ),
        None => Finding::good("ipv6", "none; only --peer with such an address needs it"),
    };
    finding.with(json!({ "address": from.map(ToString::to_string) }))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn call(interface: &str, heard: bool) -> OwnCall {
        OwnCall { interface: interface.into(), addr: [10, 0, 0, 1].into(), heard }
    }

    #[test]
    fn where_calls_are_not_heard_a_firewall_is_to_let_them_in() {
        assert_eq!(judge(None).verdict, Verdict::Good);
        assert!(judge(Some(&Ok(Vec::new()))).words.starts_with("no local network"));
        let good = judge(Some(&Ok(vec![call("eth0", true)])));
        assert_eq!(
            good.words,
            "neighbours are called on eth0 (10.0.0.1), and calls are heard there; their firewalls have to let in UDP of the \
             local network as well"
        );
        let both = judge(Some(&Ok(vec![call("eth0", true), call("wlan0", false)])));
        assert_eq!(both.verdict, Verdict::Note);
        assert!(both.words.contains("called on wlan0") && both.words.contains("on eth0"));
        assert!(both.next.unwrap().contains("239.255.104.100 and ff12::6864:6472, port 49736"));
        assert_eq!(judge(Some(&Err(io::Error::other("x")))).verdict, Verdict::Unknown);
        assert_eq!(near_on(&[call("a", false), call("b", true)]), Near::Heard);
        assert_eq!(near_on(&[call("a", false)]), Near::Unheard);
        assert_eq!(near_on(&[]), Near::Alone);
        let own = OwnCall { addr: Ipv4Addr::LOCALHOST.into(), ..call("lo", true) };
        assert!(may_hold_others(&own, Ipv4Addr::LOCALHOST));
        assert!(!may_hold_others(&own, Ipv4Addr::UNSPECIFIED), "no other is on it");
        assert!(may_hold_others(&call("a", true), Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn ipv6_that_leads_nowhere_is_told_from_that_which_does() {
        let words = |ip: &str| judge_ipv6(Some(&ip.parse().unwrap())).words;
        assert!(words("2a00::5").starts_with("yes, from 2a00::5"));
        assert!(words("fd00::5").starts_with("only on local networks"));
        assert!(judge_ipv6(None).words.starts_with("none"));
    }
}
