//! The local networks as the system has them: which interfaces neighbours are called over, and the sockets that hear
//! what they call to everybody.
//!
//! One socket of IPv4 and one of IPv6 hear all interfaces that they have joined the group on. They are bound to the group
//! and share its port with those of other processes, each of which gets every call. All that is sent leaves from the main
//! socket and its companion, so that what comes back finds us there.

use crate::swarm::dht_rpc::bogon;
use crate::swarm::lan::{GROUP, GROUP6, Link};
use crate::swarm::socket::plain;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage};
use nix::sys::socket::{bind, setsockopt, socket, sockopt};
use rustix::net::sockopt::{
    set_ip_add_membership_with_ifindex, set_ip_drop_membership_with_ifindex,
    set_ipv6_add_membership, set_ipv6_drop_membership,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// Interfaces used, of IPv4 and of IPv6. The system lets a socket be in 20 groups unless told otherwise.
const MAX_LINKS: usize = 8;
/// Longest datagram that is looked at: an answer has less.
const MAX_CALL: usize = 1500;

/// The ears for calls, and where they listen.
#[derive(Default)]
pub struct Neighbours {
    ears: [Option<UdpSocket>; 2],
    links: Vec<Link>,
}

impl Neighbours {
    /// Looks which local networks there are for a socket bound to `bound` and its companion, and listens on those. Answers
    /// them if that is news.
    pub fn look(&mut self, bound: SocketAddrV4, bound6: Option<SocketAddr>) -> Option<Vec<Link>> {
        let links = links(bound, bound6);
        if links == self.links {
            return None;
        }
        for (ear, group) in self.ears.iter_mut().zip([GROUP.into(), GROUP6.into()]) {
            let of = |links: &[Link]| -> Vec<Link> {
                links.iter().filter(|link| link.group() == group).copied().collect()
            };
            if let Err(error) = listen(ear, group, &of(&self.links), &of(&links)) {
                tracing::debug!(%error, %group, "neighbours cannot be heard");
                // Without IPv6 there are those of IPv4.
                if group.is_ipv4() {
                    return None;
                }
            }
        }
        self.links.clone_from(&links);
        Some(links)
    }

    /// Whether there is a local network, for a socket bound to `bound`. This machine's own is none unless it was asked for.
    pub fn has_network(&self, bound: SocketAddrV4) -> bool {
        let wide = bound.ip().is_unspecified();
        self.links.iter().any(|link| !(wide && link.addr.ip().is_loopback()))
    }

    /// Hands out at most so many calls. Answers whether there was one.
    pub fn receive(&self, calls: usize, mut take: impl FnMut(SocketAddr, &[u8])) -> bool {
        let mut buf = [0; MAX_CALL];
        let mut any = false;
        for ear in self.ears.iter().flatten() {
            for _ in 0..calls {
                let Ok((len, from)) = ear.recv_from(&mut buf) else { break };
                take(plain(from), buf.get(..len).unwrap_or_default());
                any = true;
            }
        }
        any
    }

    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.ears.iter().flatten().map(|ear| PollFd::new(ear.as_fd(), PollFlags::POLLIN))
    }
}

/// Has `ear` listen to a group on the links `new`, and on those before no more.
fn listen(
    ear: &mut Option<UdpSocket>,
    group: SocketAddr,
    old: &[Link],
    new: &[Link],
) -> io::Result<()> {
    // The system tells a network who listens to a group.
    if new.is_empty() {
        *ear = None;
        return Ok(());
    }
    let ear = match ear {
        Some(ear) => ear,
        None => ear.insert(open(group)?),
    };
    // An interface that is gone has taken its membership with it.
    for link in old.iter().filter(|link| !new.contains(link)) {
        let _ = match group.ip() {
            IpAddr::V4(group) => {
                let any = &Ipv4Addr::UNSPECIFIED;
                set_ip_drop_membership_with_ifindex(&*ear, &group, any, link.interface)
            }
            IpAddr::V6(group) => set_ipv6_drop_membership(&*ear, &group, link.interface),
        };
    }
    for link in new {
        let joined = match group.ip() {
            IpAddr::V4(group) => {
                let any = &Ipv4Addr::UNSPECIFIED;
                set_ip_add_membership_with_ifindex(&*ear, &group, any, link.interface)
            }
            IpAddr::V6(group) => set_ipv6_add_membership(&*ear, &group, link.interface),
        };
        match joined {
            Ok(()) | Err(rustix::io::Errno::ADDRINUSE) => {}
            Err(error) => tracing::debug!(%error, ?link, "cannot listen to neighbours"),
        }
    }
    Ok(())
}

fn open(group: SocketAddr) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let family = if group.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // A group of IPv6 that is bound to would be that of one interface.
    let at = match group {
        SocketAddr::V4(_) => group,
        SocketAddr::V6(_) => {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            (std::net::Ipv6Addr::UNSPECIFIED, group.port()).into()
        }
    };
    bind(fd.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(fd.into())
}

/// The local networks that a socket bound to `bound` and its companion reach, and where neighbours may be called: all but
/// this machine's own, and that one where there is no other. A socket bound to one address is on that one's network
/// alone, and has no companion.
pub(super) fn links(bound: SocketAddrV4, bound6: Option<SocketAddr>) -> Vec<Link> {
    let list: Vec<_> = getifaddrs().map(Iterator::collect).unwrap_or_default();
    let mut found: Vec<Link> = list.iter().filter_map(|address| link(address, bound)).collect();
    if bound.ip().is_unspecified() {
        if found.iter().any(|link| !link.addr.ip().is_loopback()) {
            found.retain(|link| !link.addr.ip().is_loopback());
        }
        let strange: Vec<u32> = list.iter().filter_map(|of| public_interface(of, &list)).collect();
        let ipv6 = bound6.map(|bound| list.iter().filter_map(move |of| link6(of, bound.port())));
        found.extend(ipv6.into_iter().flatten().filter(|link| !strange.contains(&link.interface)));
    }
    found.retain(Link::is_private);
    for ipv4 in [true, false] {
        let mut count = 0;
        found.retain(|link| {
            count += usize::from(link.addr.is_ipv4() == ipv4);
            link.addr.is_ipv4() != ipv4 || count <= MAX_LINKS
        });
    }
    found
}

/// The interface that an address is of, if it works and can carry calls.
fn interface(address: &InterfaceAddress) -> Option<u32> {
    let flags = address.flags;
    let works = flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
    let speaks = flags.intersects(InterfaceFlags::IFF_MULTICAST | InterfaceFlags::IFF_LOOPBACK);
    (works && speaks).then(|| if_nametoindex(address.interface_name.as_str()).ok())?
}

fn link(address: &InterfaceAddress, bound: SocketAddrV4) -> Option<Link> {
    let ip = address.address?.as_sockaddr_in()?.ip();
    let mask = address.netmask?.as_sockaddr_in()?.ip();
    if !(bound.ip().is_unspecified() || *bound.ip() == ip) {
        return None;
    }
    let prefix = mask.to_bits().leading_ones() as u8;
    let addr = SocketAddrV4::new(ip, bound.port()).into();
    Some(Link { interface: interface(address)?, addr, prefix })
}

/// Of IPv6 the link-local addresses alone: everybody has one, and they lead nowhere else.
fn link6(address: &InterfaceAddress, port: u16) -> Option<Link> {
    let ip = address.address?.as_sockaddr_in6()?.ip();
    let interface = interface(address).filter(|_| ip.is_unicast_link_local())?;
    let addr = SocketAddrV6::new(ip, port, 0, interface).into();
    Some(Link { interface, addr, prefix: 64 })
}

/// The interface of a public address, if neighbours are strangers there: with one of IPv4, or of IPv6 alone.
fn public_interface(address: &InterfaceAddress, all: &[InterfaceAddress]) -> Option<u32> {
    let here = |of: &&InterfaceAddress| of.interface_name == address.interface_name;
    let of = address.address?;
    let public = match (of.as_sockaddr_in(), of.as_sockaddr_in6()) {
        (Some(of), _) => !bogon::is_bogon(&of.ip()),
        (_, Some(of)) => {
            let is_ipv4 =
                |of: &InterfaceAddress| of.address.is_some_and(|a| a.as_sockaddr_in().is_some());
            let own = of.ip().is_unicast_link_local()
                || of.ip().is_unique_local()
                || of.ip().is_loopback();
            !own && !all.iter().filter(here).any(is_ipv4)
        }
        _ => false,
    };
    public.then(|| interface(address))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::driver::socket::Socket;
    use crate::swarm::socket::ipv4;
    use std::time::{Duration, Instant};

    #[test]
    fn each_process_of_a_machine_hears_what_is_called() {
        let main = Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let bound = ipv4(main.local_addr().unwrap()).unwrap();
        let (mut one, mut other) = (Neighbours::default(), Neighbours::default());
        let links = one.look(bound, None).unwrap();
        assert_eq!(other.look(bound, None).as_ref(), Some(&links));
        assert!(one.look(bound, None).is_none(), "no news");
        assert_eq!((links.len(), links[0].addr, links[0].prefix), (1, bound.into(), 8));
        assert!(one.has_network(bound) && !Neighbours::default().has_network(bound));
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, bound.port());
        assert!(!one.has_network(any), "without any network it is alone");
        main.send_over(&links[0], GROUP.into(), b"is anybody there?");
        for ear in [&one, &other] {
            let (mut heard, start) = (Vec::new(), Instant::now());
            while heard.is_empty() && start.elapsed() < Duration::from_secs(20) {
                ear.receive(100, |from, bytes| {
                    // Other processes of this machine may call as well.
                    if from == bound.into() {
                        heard.push(bytes.to_vec());
                    }
                });
            }
            assert_eq!(heard, [b"is anybody there?".to_vec()]);
        }
    }
}
