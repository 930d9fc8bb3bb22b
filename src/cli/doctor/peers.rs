//! The addresses of `--peer`, each asked whether a peer is there. Which drives that has it tells only whoever has their keys.
//!
//! Every peer answers what nodes of the DHT are asked first, over IPv4.

use super::finding::Finding;
use super::nodes::{RESOLVER, Seen};
use crate::cli::words::without_numbers;
use crate::swarm::driver::PeerAddress;
use crate::swarm::socket::ipv4;
use serde_json::json;
use std::net::Ipv4Addr;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// What was seen at one.
pub struct Asked {
    address: PeerAddress,
    pub seen: Seen,
}

pub async fn ask(address: PeerAddress, local: Ipv4Addr) -> Asked {
    let mut seen = Seen::default();
    let (tell, found) = oneshot::channel();
    let name = address.clone();
    // It may hang for longer than anybody waits.
    let run = move || drop(tell.send(name.look_up()));
    match crate::threads::spawn("names", run) {
        Ok(_) => match timeout(RESOLVER, found).await {
            Ok(Ok(Ok(found))) => seen.asked.extend(found.into_iter().filter_map(ipv4)),
            Ok(Ok(Err(error))) => seen.unnamed = Some(without_numbers(&error.to_string())),
            Ok(Err(_)) | Err(_) => seen.unnamed = Some("the resolver does not answer".into()),
        },
        Err(error) => seen.unnamed = Some(error.to_string()),
    }
    if !seen.asked.is_empty() {
        seen.ping(local).await;
    }
    Asked { address, seen }
}

pub fn judge(asked: &Asked) -> Finding {
    let Asked { address, seen } = asked;
    let ms = seen.answered.map(|(_, rtt)| rtt.as_secs_f64() * 1000.0);
    let finding = match (ms, &seen.unsent, &seen.unnamed) {
        (Some(ms), _, _) => Finding::good("peer", format!("{address} answers after {ms:.1} ms")),
        (None, _, Some(why)) => {
            let next = "check the name, and the resolver of this machine (/etc/resolv.conf)";
            Finding::bad("peer", format!("{address} has no address: {why}"), next)
        }
        (None, None, None) if seen.asked.is_empty() => {
            Finding::unknown("peer", format!("{address} is not tried: it has no address of IPv4"))
        }
        (None, Some(why), _) => {
            let next = "see that a way leads there from this machine, and check the address";
            Finding::bad("peer", format!("{address} cannot be asked: {why}"), next)
        }
        (None, None, None) => {
            let next = "see that hdrive runs there with that --port, and that firewalls and its router let UDP to it in";
            Finding::bad("peer", format!("{address} does not answer"), next)
        }
    };
    finding.with(json!({ "peer": address.to_string(), "rttMs": ms }))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_peer_that_is_named_has_to_answer() {
        let judge = |seen| judge(&Asked { address: "10.0.0.1:5".parse().unwrap(), seen });
        let at = "10.0.0.1:5".parse().unwrap();
        let there = || Seen { asked: vec![at], ..Seen::default() };
        let answered = Some((at, Duration::from_millis(2)));
        let good = judge(Seen { answered, ..there() });
        assert_eq!(
            (good.verdict, &*good.words),
            (Verdict::Good, "10.0.0.1:5 answers after 2.0 ms")
        );
        let silent = judge(there());
        assert!(silent.verdict == Verdict::Bad && silent.next.unwrap().contains("--port"));
        let unsent = judge(Seen { unsent: Some("No route to host".into()), ..there() });
        assert!(unsent.words.ends_with("cannot be asked: No route to host"), "{unsent:?}");
        assert_eq!(judge(Seen::default()).verdict, Verdict::Unknown, "of IPv6");
    }
}
