//! The local networks as the system has them: which interfaces neighbours are called over, and the socket that hears
//! what they call to everybody.
//!
//! One socket hears all interfaces that it has joined the group on. It is bound to the group and shares its port with
//! those of other processes, each of which gets every call. All that is sent leaves from the main socket, so that what
//! comes back finds us there.

use crate::swarm::lan::{GROUP, Link};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn};
use nix::sys::socket::{bind, setsockopt, socket, sockopt};
use rustix::net::sockopt::{
    set_ip_add_membership_with_ifindex, set_ip_drop_membership_with_ifindex,
};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// Interfaces used. The system lets a socket be in 20 groups unless told otherwise.
const MAX_LINKS: usize = 8;
/// Longest datagram that is looked at: an answer has less.
const MAX_CALL: usize = 1500;

/// The ear for calls, and where it listens.
#[derive(Default)]
pub struct Neighbours {
    ear: Option<UdpSocket>,
    links: Vec<Link>,
}

impl Neighbours {
    /// Looks which local networks there are for a socket bound to `bound`, and listens on those. Answers them if that
    /// is news.
    pub fn look(&mut self, bound: SocketAddrV4) -> Option<Vec<Link>> {
        let links = links(bound);
        if links == self.links {
            return None;
        }
        match self.listen(&links) {
            Ok(()) => {
                self.links.clone_from(&links);
                Some(links)
            }
            Err(error) => {
                tracing::debug!(%error, "neighbours cannot be heard");
                None
            }
        }
    }

    fn listen(&mut self, links: &[Link]) -> io::Result<()> {
        // The system tells a network who listens to a group.
        if links.is_empty() {
            self.ear = None;
            return Ok(());
        }
        let ear = match self.ear.take() {
            Some(ear) => ear,
            None => open()?,
        };
        // An interface that is gone has taken its membership with it.
        for link in self.links.iter().filter(|link| !links.contains(link)) {
            let (group, any) = (GROUP.ip(), &Ipv4Addr::UNSPECIFIED);
            let _ = set_ip_drop_membership_with_ifindex(&ear, group, any, link.interface);
        }
        for link in links {
            let (group, any) = (GROUP.ip(), &Ipv4Addr::UNSPECIFIED);
            match set_ip_add_membership_with_ifindex(&ear, group, any, link.interface) {
                Ok(()) | Err(rustix::io::Errno::ADDRINUSE) => {}
                Err(error) => tracing::debug!(%error, ?link, "cannot listen to neighbours"),
            }
        }
        self.ear = Some(ear);
        Ok(())
    }

    /// Hands out at most so many calls. Answers whether there was one.
    pub fn receive(&self, calls: usize, mut take: impl FnMut(SocketAddrV4, &[u8])) -> bool {
        let Some(ear) = &self.ear else { return false };
        let mut buf = [0; MAX_CALL];
        let mut any = false;
        for _ in 0..calls {
            match ear.recv_from(&mut buf) {
                Ok((len, SocketAddr::V4(from))) => take(from, buf.get(..len).unwrap_or_default()),
                Ok(_) => {}
                Err(_) => break,
            }
            any = true;
        }
        any
    }

    pub fn poll_fd(&self) -> Option<PollFd<'_>> {
        self.ear.as_ref().map(|ear| PollFd::new(ear.as_fd(), PollFlags::POLLIN))
    }
}

fn open() -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(GROUP))?;
    Ok(fd.into())
}

/// The local networks that a socket bound to `bound` reaches, and where neighbours may be called: all but this machine's
/// own, and that one where there is no other. A socket bound to one address is on that one's network alone.
fn links(bound: SocketAddrV4) -> Vec<Link> {
    let mut found: Vec<Link> = getifaddrs()
        .map(|list| list.filter_map(|address| link(&address, bound)).collect())
        .unwrap_or_default();
    if bound.ip().is_unspecified() && found.iter().any(|link| !link.addr.ip().is_loopback()) {
        found.retain(|link| !link.addr.ip().is_loopback());
    }
    found.retain(Link::is_private);
    found.truncate(MAX_LINKS);
    found
}

fn link(address: &InterfaceAddress, bound: SocketAddrV4) -> Option<Link> {
    let flags = address.flags;
    let ip = address.address?.as_sockaddr_in()?.ip();
    let mask = address.netmask?.as_sockaddr_in()?.ip();
    let works = flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
    let speaks = flags.intersects(InterfaceFlags::IFF_MULTICAST | InterfaceFlags::IFF_LOOPBACK);
    if !works || !speaks || !(bound.ip().is_unspecified() || *bound.ip() == ip) {
        return None;
    }
    let interface = if_nametoindex(address.interface_name.as_str()).ok()?;
    let prefix = mask.to_bits().leading_ones() as u8;
    Some(Link { interface, addr: SocketAddrV4::new(ip, bound.port()), prefix })
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
        let links = one.look(bound).unwrap();
        assert_eq!(other.look(bound).as_ref(), Some(&links));
        assert!(one.look(bound).is_none(), "no news");
        assert_eq!((links.len(), links[0].addr, links[0].prefix), (1, bound, 8));
        main.send_over(&links[0], GROUP, b"is anybody there?");
        for ear in [&one, &other] {
            let (mut heard, start) = (Vec::new(), Instant::now());
            while heard.is_empty() && start.elapsed() < Duration::from_secs(20) {
                ear.receive(100, |from, bytes| {
                    // Other processes of this machine may call as well.
                    if from == bound {
                        heard.push(bytes.to_vec());
                    }
                });
            }
            assert_eq!(heard, [b"is anybody there?".to_vec()]);
        }
    }
}
