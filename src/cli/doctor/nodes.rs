//! The nodes to enter the DHT by, each asked whether it is there: its address, its name, how long it takes.

use super::finding::Finding;
use crate::cli::words::without_numbers;
use crate::swarm::dht_rpc::message::{Message, Request, internal};
use crate::swarm::driver::{BootstrapNode, look_up};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

/// A resolver that says nothing for so long is not waited for.
pub const RESOLVER: Duration = Duration::from_millis(2500);
/// When a node is asked, and for how long in all.
const ASKED_AT: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(400), Duration::from_millis(1000)];
const PATIENCE: Duration = Duration::from_millis(2200);

/// What was seen of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub name: Option<String>,
    /// Where it was asked.
    pub asked: Vec<SocketAddrV4>,
    pub answered: Option<(SocketAddrV4, Duration)>,
    /// Why its name has no address.
    pub unnamed: Option<String>,
    /// Why nothing could be sent.
    pub unsent: Option<String>,
}

/// Where it may be, before it is asked: a name without an address is looked up.
pub async fn find(node: BootstrapNode) -> (BootstrapNode, Seen) {
    let name = node.name().map(|(name, _)| name.to_string());
    let mut seen = Seen { name, ..Seen::default() };
    match node.address() {
        Some(address) => seen.asked.push(address),
        None => seen.resolve(&node).await,
    }
    (node, seen)
}

/// Asks it, where it was found; one that is silent at an address that was given is looked up by its name.
pub async fn ask(node: BootstrapNode, mut seen: Seen, local: Ipv4Addr) -> Seen {
    seen.ping(local).await;
    if seen.answered.is_none() && node.address().is_some() && node.name().is_some() {
        let before = seen.asked.len();
        seen.resolve(&node).await;
        if seen.asked.len() > before {
            seen.ping(local).await;
        }
    }
    seen
}

impl Seen {
    async fn resolve(&mut self, node: &BootstrapNode) {
        let Some((name, port)) = node.name() else { return };
        let host = name.to_string();
        let (tell, found) = oneshot::channel();
        // It may hang for longer than anybody waits.
        let run = move || drop(tell.send(look_up(&host, port)));
        let found = match crate::threads::spawn("names", run) {
            Ok(_) => timeout(RESOLVER, found).await,
            Err(error) => return self.unnamed = Some(error.to_string()),
        };
        match found {
            Ok(Ok(Ok(ips))) => {
                let new = ips.into_iter().map(|ip| SocketAddrV4::new(ip, port));
                let new: Vec<_> = new.filter(|at| !self.asked.contains(at)).collect();
                self.asked.extend(new);
            }
            Ok(Ok(Err(error))) => self.unnamed = Some(without_numbers(&error.to_string())),
            Ok(Err(_)) | Err(_) => self.unnamed = Some("the resolver does not answer".into()),
        }
    }

    pub async fn ping(&mut self, local: Ipv4Addr) {
        if let Err(error) = self.try_ping(local).await {
            self.unsent = Some(without_numbers(&error.to_string()));
        }
    }

    async fn try_ping(&mut self, local: Ipv4Addr) -> io::Result<()> {
        let socket = UdpSocket::bind((local, 0)).await?;
        let mut rng = StdRng::from_os_rng();
        let begun = Instant::now();
        let mut sent: Vec<(u16, Instant)> = Vec::new();
        for i in 0..ASKED_AT.len() {
            let tid: u16 = rng.random();
            sent.push((tid, Instant::now()));
            let mut failed = None;
            for to in &self.asked {
                failed = socket.send_to(&ping(*to, tid), to).await.err();
            }
            if let Some(error) = failed {
                return Err(error);
            }
            let until = begun + ASKED_AT.get(i + 1).copied().unwrap_or(PATIENCE);
            let mut buf = [0; 1500];
            // An error is one that came back for what was sent: nobody is there.
            while let Ok(received) = timeout_at(until, socket.recv_from(&mut buf)).await {
                let Ok((len, SocketAddr::V4(from))) = received else { continue };
                let known = self.asked.contains(&from);
                if let Ok(Message::Response(response)) = Message::decode(&buf[..len])
                    && known
                    && let Some((_, at)) = sent.iter().find(|(tid, _)| *tid == response.tid)
                {
                    self.answered = Some((from, at.elapsed()));
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn ping(to: SocketAddrV4, tid: u16) -> Vec<u8> {
    let command = internal::PING;
    let request = Request {
        tid,
        to,
        id: None,
        token: None,
        internal: true,
        command,
        target: None,
        value: None,
    };
    request.encode()
}

pub fn judge(seen: &Seen) -> Finding {
    let name = |at: Option<&SocketAddrV4>| match (&seen.name, at) {
        (Some(name), Some(at)) => format!("{at} ({name})"),
        (Some(name), None) => name.clone(),
        (None, at) => at.map_or_else(String::new, ToString::to_string),
    };
    let (at, rtt) = match seen.answered {
        Some((at, rtt)) => (Some(at), Some(rtt.as_secs_f64() * 1000.0)),
        None => (seen.asked.first().copied(), None),
    };
    let who = name(at.as_ref());
    let finding = match (rtt, &seen.unsent, &seen.unnamed) {
        (Some(ms), _, _) => Finding::good("node", format!("{who} answers after {ms:.1} ms")),
        (None, _, Some(why)) if at.is_none() => {
            let next = "check the name, and the resolver of this machine (/etc/resolv.conf)";
            Finding::note("node", format!("{who} has no address: {why}"), next)
        }
        (None, Some(why), _) => Finding::unknown("node", format!("{who} cannot be asked: {why}")),
        (None, None, _) => Finding::unknown("node", format!("{who} does not answer")),
    };
    finding.with(json!({ "address": at.map(|at| at.to_string()), "name": seen.name, "rttMs": rtt }))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn seen() -> Seen {
        Seen { asked: vec!["1.2.3.4:5".parse().unwrap()], ..Seen::default() }
    }

    #[test]
    fn each_node_is_told_by_address_name_and_time() {
        let name = Some("node1.example".to_string());
        let answered = Some((seen().asked[0], Duration::from_micros(23_400)));
        let good = judge(&Seen { name: name.clone(), answered, ..seen() });
        assert_eq!(good.words, "1.2.3.4:5 (node1.example) answers after 23.4 ms");
        assert_eq!(judge(&seen()).words, "1.2.3.4:5 does not answer");
        let unnamed = Some("Name or service not known".to_string());
        let nameless = judge(&Seen { name, unnamed, ..Seen::default() });
        assert_eq!(nameless.verdict, Verdict::Note);
        assert!(nameless.words.starts_with("node1.example has no address"));
        let unsent = Seen { unsent: Some("Network is unreachable".into()), ..seen() };
        assert!(judge(&unsent).words.contains("cannot be asked: Network is unreachable"));
    }

    #[tokio::test]
    async fn only_the_answer_of_the_node_that_was_asked_counts() {
        let local = Ipv4Addr::LOCALHOST;
        let node = UdpSocket::bind((local, 0)).await.unwrap();
        let stranger = UdpSocket::bind((local, 0)).await.unwrap();
        let at = crate::swarm::socket::ipv4(node.local_addr().unwrap()).unwrap();
        let answers = async {
            let mut buf = [0; 1500];
            let (len, from) = node.recv_from(&mut buf).await.unwrap();
            let Ok(Message::Request(request)) = Message::decode(&buf[..len]) else { panic!() };
            let SocketAddr::V4(to) = from else { panic!() };
            let answer = |tid| {
                let (closer, value) = (Vec::new(), None);
                let response = crate::swarm::dht_rpc::Response {
                    tid,
                    to,
                    id: None,
                    token: None,
                    closer,
                    error: 0,
                    value,
                };
                response.encode()
            };
            stranger.send_to(&answer(request.tid), from).await.unwrap();
            node.send_to(&answer(request.tid.wrapping_add(1)), from).await.unwrap();
            node.send_to(b"junk", from).await.unwrap();
            node.recv_from(&mut buf).await.unwrap();
            node.send_to(&answer(request.tid), from).await.unwrap();
        };
        let (_, found) = find(at.into()).await;
        // Whoever takes a false answer does not ask again.
        let answers = timeout(Duration::from_secs(20), answers);
        let (seen, answers) = tokio::join!(ask(at.into(), found, local), answers);
        answers.unwrap();
        let (from, rtt) = seen.answered.unwrap();
        assert!(from == at && rtt >= ASKED_AT[1], "{rtt:?}");
    }
}
