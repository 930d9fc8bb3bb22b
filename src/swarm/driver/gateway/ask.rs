//! Conversations with a gateway. All that is sent goes to its address, or by multicast to its network, from our address
//! there, and with a TTL of 1: no router passes it on. What answers from elsewhere is not heard.

use super::Maybe;
use crate::swarm::port_mapping::http::{self, Progress, Url};
use crate::swarm::port_mapping::pcp::{self, Answer};
use crate::swarm::port_mapping::upnp::{self, Service, Wish};
use crate::swarm::port_mapping::{By, Held, How, LEASE, NotMapped, Place};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::net::sockopt::{set_ip_multicast_if, set_ip_ttl};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

const TTL: u32 = 1;
/// How long each of the datagrams of a question is waited for.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// The same where silence was the answer already, and where the end is near.
const FEW_PAUSES: &[Duration] = &[Duration::from_millis(250), Duration::from_millis(500)];
/// How long devices have to answer, twice; they take up to a second on purpose.
const SEARCH: Duration = Duration::from_millis(1200);
const SEARCHES: usize = 2;
/// Descriptions that are read; a gateway has one.
const MAX_DESCRIPTIONS: usize = 3;
/// One question over TCP, from the first packet to the last byte.
const EXCHANGE: Duration = Duration::from_secs(3);
/// Ports tried that somebody else has, and orders of one mapping.
const MAX_CONFLICTS: usize = 4;
const MAX_ORDERS: usize = 8;

/// Why a protocol brought nothing.
enum Not {
    /// Nobody speaks it.
    Silent,
    Refused(u32),
    Nonsense,
}

/// Asks for a port of the gateway that leads to our `port`: by the way that worked before, else by all of them.
pub async fn ask(
    place: Place,
    port: u16,
    renews: Option<&Held>,
    maybe: &Maybe,
) -> Result<Held, NotMapped> {
    let external = renews.map_or(port, |held| held.external.port());
    let asker = Asker { place, port, external, maybe };
    if let Some(Held { how: How::Upnp(service), .. }) = renews
        && let Ok(held) = asker.add(service.clone()).await
    {
        return Ok(held);
    }
    let nonce = match renews.map(|held| &held.how) {
        Some(How::Pcp(nonce)) => *nonce,
        _ => StdRng::from_os_rng().random(),
    };
    let gateway = place.gateway;
    let first = match asker.pcp(&nonce).await {
        Ok(held) => return Ok(held),
        Err(why) => why,
    };
    let second = match asker.upnp().await {
        Ok(held) => return Ok(held),
        Err(why) => why,
    };
    // Who says no says more than who says nothing.
    Err(match (first, second) {
        (_, Not::Refused(code)) => NotMapped::Refused { gateway, by: By::Upnp, code },
        ((by, Not::Refused(code)), _) => NotMapped::Refused { gateway, by, code },
        ((_, Not::Silent), Not::Silent) => NotMapped::Silent(gateway),
        _ => NotMapped::Nonsense(gateway),
    })
}

/// Gives a mapping back.
pub async fn remove(held: &Held) {
    let (place, port, none) = (held.place, held.internal_port, Duration::ZERO);
    match &held.how {
        How::Upnp(service) => {
            exchange(place, service.at(), &service.remove(held.external.port())).await;
        }
        How::Pcp(nonce) => {
            let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
            let request = pcp::map(place.own, port, nowhere, none, nonce);
            end(place, &request).await;
        }
        How::NatPmp => end(place, &pcp::map_udp(port, 0, none)).await,
    }
}

/// Says the same until anything is answered.
async fn end(place: Place, request: &[u8]) {
    if let Ok(socket) = line(place).await {
        converse(&socket, request, FEW_PAUSES, |_| Some(())).await;
    }
}

struct Asker<'a> {
    place: Place,
    port: u16,
    /// The port at the gateway that would be best.
    external: u16,
    maybe: &'a Maybe,
}

impl Asker<'_> {
    fn held(&self, how: How, external: SocketAddrV4, lifetime: Option<Duration>) -> Held {
        Held { place: self.place, internal_port: self.port, external, lifetime, how }
    }

    /// What is about to be asked for.
    fn note(&self, how: How, external: u16) {
        let external = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, external);
        *self.maybe.borrow_mut() = Some(self.held(how, external, Some(LEASE)));
    }

    /// PCP, or NAT-PMP where that is spoken.
    async fn pcp(&self, nonce: &pcp::Nonce) -> Result<Held, (By, Not)> {
        let socket = line(self.place).await.map_err(|_| (By::Pcp, Not::Silent))?;
        let read = |bytes: &[u8]| pcp::decode(bytes, self.port, nonce);
        let suggested = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.external);
        let request = pcp::map(self.place.own, self.port, suggested, LEASE, nonce);
        self.note(How::Pcp(*nonce), self.external);
        let (answer, pauses) = match converse(&socket, &request, &PAUSES, read).await {
            Heard::Answer(answer) => (Some(answer), &PAUSES[..]),
            Heard::Nothing => (None, FEW_PAUSES),
            Heard::Nobody => return Err((By::Pcp, Not::Silent)),
        };
        match answer {
            Some(Answer::Granted { external, lifetime }) => {
                return Ok(self.held(How::Pcp(*nonce), external, Some(lifetime)));
            }
            Some(Answer::Refused(code)) => return Err((By::Pcp, Not::Refused(code))),
            // Some that speak the older one alone say so, some are silent.
            Some(Answer::OtherVersion | Answer::Address(_)) | None => {}
        }
        self.note(How::NatPmp, self.external);
        let request = pcp::map_udp(self.port, self.external, LEASE);
        let read = |bytes: &[u8]| read(bytes).filter(|a| !matches!(a, Answer::Address(_)));
        match converse(&socket, &request, pauses, read).await {
            Heard::Answer(Answer::Granted { external, lifetime }) => {
                let told = |bytes: &[u8]| match pcp::decode(bytes, self.port, nonce) {
                    Some(Answer::Address(ip)) => Some(ip),
                    _ => None,
                };
                let asked = converse(&socket, &pcp::public_address(), FEW_PAUSES, told).await;
                let ip = match asked {
                    Heard::Answer(ip) => ip,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let external = SocketAddrV4::new(ip, external.port());
                Ok(self.held(How::NatPmp, external, Some(lifetime)))
            }
            Heard::Answer(Answer::Refused(code)) => Err((By::NatPmp, Not::Refused(code))),
            Heard::Answer(_) => Err((By::NatPmp, Not::Nonsense)),
            Heard::Nothing | Heard::Nobody => Err((By::NatPmp, Not::Silent)),
        }
    }

    async fn upnp(&self) -> Result<Held, Not> {
        let mut found = Err(Not::Silent);
        for service in self.find().await? {
            found = self.add(service).await;
            if found.is_ok() {
                break;
            }
        }
        found
    }

    /// The services of the gateway, which has to say so itself.
    async fn find(&self) -> Result<Vec<Service>, Not> {
        let Place { gateway, own } = self.place;
        let socket = searcher(own).await.map_err(|_| Not::Silent)?;
        let (mut seen, mut buf): (Vec<Url>, _) = (Vec::new(), [0; 1500]);
        for _ in 0..SEARCHES {
            for target in upnp::TARGETS {
                let question = upnp::search(target);
                let _ = socket.send_to(question.as_bytes(), upnp::GROUP).await;
                let _ = socket.send_to(question.as_bytes(), (gateway, upnp::PORT)).await;
            }
            let until = Instant::now() + SEARCH;
            while Instant::now() < until {
                let came = timeout_at(until, socket.recv_from(&mut buf)).await;
                // An error is one of a datagram before.
                let Ok(Ok((len, SocketAddr::V4(from)))) = came else { continue };
                if *from.ip() != gateway {
                    continue;
                }
                let location = upnp::location(buf.get(..len).unwrap_or_default(), gateway);
                let Some(url) = location.filter(|url| !seen.contains(url)) else { continue };
                if seen.len() == MAX_DESCRIPTIONS {
                    return Err(Not::Nonsense);
                }
                seen.push(url.clone());
                let described = exchange(self.place, url.at, &url.get()).await;
                let Some(answer) = described else { continue };
                let services = upnp::services(&answer.body, &url);
                if !services.is_empty() {
                    return Ok(services);
                }
            }
        }
        Err(if seen.is_empty() { Not::Silent } else { Not::Nonsense })
    }

    /// Asks one of them, again in other words where the gateway has its ways.
    async fn add(&self, service: Service) -> Result<Held, Not> {
        let (mut lease, mut external, mut conflicts) = (LEASE, self.external, 0);
        for _ in 0..MAX_ORDERS {
            self.note(How::Upnp(service.clone()), external);
            let Place { own, .. } = self.place;
            let wish = Wish { own, port: self.port, external, lease: lease.as_secs() };
            let answer = exchange(self.place, service.at(), &service.add(&wish)).await;
            match upnp::outcome(&answer.ok_or(Not::Silent)?) {
                Ok(()) => {
                    let told = exchange(self.place, service.at(), &service.address()).await;
                    let ip = told.and_then(|told| upnp::external_address(&told));
                    let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
                    let lifetime = (!lease.is_zero()).then_some(lease);
                    let external = SocketAddrV4::new(ip, external);
                    return Ok(self.held(How::Upnp(service), external, lifetime));
                }
                // What is kept until it is removed is all that some can do; others do not say so.
                Err(Some(upnp::ONLY_PERMANENT | upnp::INVALID_ARGS)) if !lease.is_zero() => {
                    lease = Duration::ZERO;
                }
                // Another machine has it.
                Err(Some(upnp::CONFLICT)) if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    external = StdRng::from_os_rng().random_range(1024..=u16::MAX);
                }
                Err(Some(code)) => return Err(Not::Refused(code)),
                Err(None) => return Err(Not::Nonsense),
            }
        }
        Err(Not::Nonsense)
    }
}

/// A socket for PCP and NAT-PMP, which hears the gateway alone.
async fn line(place: Place) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((place.own, 0)).await?;
    socket.set_ttl(TTL)?;
    socket.connect((place.gateway, pcp::PORT)).await?;
    Ok(socket)
}

/// A socket that looks for devices on the network of `own`.
async fn searcher(own: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.set_ttl(TTL)?;
    socket.set_multicast_ttl_v4(TTL)?;
    set_ip_multicast_if(&socket, &own)?;
    Ok(socket)
}

enum Heard<T> {
    Answer(T),
    /// Silence.
    Nothing,
    /// The gateway says that nobody listens there.
    Nobody,
}

/// Sends a request, after each pause again, until something comes that `read` makes sense of.
async fn converse<T>(
    socket: &UdpSocket,
    request: &[u8],
    pauses: &[Duration],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Heard<T> {
    let mut buf = [0; pcp::MAX_ANSWER + 1];
    for pause in pauses {
        if socket.send(request).await.is_err() {
            return Heard::Nobody;
        }
        let until = Instant::now() + *pause;
        // Whoever floods us does not hold up the end of the wait.
        while Instant::now() < until {
            let Ok(came) = timeout_at(until, socket.recv(&mut buf)).await else { break };
            let Ok(len) = came else { return Heard::Nobody };
            if let Some(answer) = buf.get(..len).and_then(&read) {
                return Heard::Answer(answer);
            }
        }
    }
    Heard::Nothing
}

/// One question over TCP.
async fn exchange(place: Place, at: SocketAddrV4, request: &str) -> Option<http::Answer> {
    timeout(EXCHANGE, ask_over_tcp(place, at, request)).await.ok()?.ok()?
}

async fn ask_over_tcp(
    place: Place,
    at: SocketAddrV4,
    request: &str,
) -> io::Result<Option<http::Answer>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((place.own, 0).into())?;
    set_ip_ttl(&socket, TTL)?;
    let mut stream = socket.connect(at.into()).await?;
    stream.write_all(request.as_bytes()).await?;
    let (mut came, mut piece) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let len = stream.read(&mut piece).await?;
        came.extend_from_slice(piece.get(..len).unwrap_or_default());
        match http::read(&came, len == 0) {
            Progress::Done(answer) => return Ok(Some(answer)),
            Progress::More if came.len() <= http::MAX_ANSWER => {}
            Progress::More | Progress::Bad => return Ok(None),
        }
    }
}
