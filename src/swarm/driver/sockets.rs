//! The sockets of the network: the main one, its companion for IPv6 where there is IPv6, and those that the machine asks
//! for by sending from them.

use super::socket::{Received, Socket};
use crate::swarm::SocketId;
use crate::swarm::socket::ipv4;
use nix::poll::{PollFd, PollFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4};

/// All sockets, and the buffers that they receive into.
pub struct Sockets {
    main: Socket,
    others: BTreeMap<SocketId, Socket>,
    /// Those that the system had no room for, so that it is not asked for each datagram.
    refused: BTreeSet<SocketId>,
    received: Received,
}

impl Sockets {
    pub fn new(main: Socket) -> Self {
        let (others, refused) = Default::default();
        let mut sockets = Self { main, others, refused, received: Received::new() };
        // Others may write to it first.
        sockets.get(SocketId::IPV6);
        sockets
    }

    pub fn main(&self) -> &Socket {
        &self.main
    }

    pub fn local_addr(&self) -> io::Result<SocketAddrV4> {
        self.main.local_addr().and_then(main_addr)
    }

    /// Where the companion for IPv6 is bound.
    pub fn ipv6_addr(&mut self) -> Option<SocketAddr> {
        self.get(SocketId::IPV6)?.local_addr().ok()
    }

    /// The socket of this number, which is bound if it is not yet, beside the main one. None if the system has no more.
    pub fn get(&mut self, id: SocketId) -> Option<&Socket> {
        if id == SocketId::MAIN {
            return Some(&self.main);
        }
        if !self.others.contains_key(&id) && !self.refused.contains(&id) {
            match self.place(id).and_then(Socket::bind) {
                Ok(socket) => {
                    self.others.insert(id, socket);
                }
                Err(error) => {
                    tracing::debug!(%error, "no further socket");
                    self.refused.insert(id);
                }
            }
        }
        self.others.get(&id)
    }

    /// Where a socket is to be bound: beside the main one, the companion at its port.
    fn place(&self, id: SocketId) -> io::Result<SocketAddr> {
        let main = self.local_addr()?;
        Ok(match id {
            SocketId::IPV6 if main.ip().is_unspecified() => {
                (Ipv6Addr::UNSPECIFIED, main.port()).into()
            }
            SocketId::IPV6 if main.ip().is_loopback() => (Ipv6Addr::LOCALHOST, main.port()).into(),
            // Whoever binds to one address wants to be at no other.
            SocketId::IPV6 => return Err(io::ErrorKind::AddrNotAvailable.into()),
            _ => (*main.ip(), 0).into(),
        })
    }

    pub fn close(&mut self, id: SocketId) {
        self.others.remove(&id);
        self.refused.remove(&id);
    }

    /// Takes what waits in each socket, in at most so many calls for each, and tells it.
    pub fn receive(&mut self, calls: usize, mut take: impl FnMut(SocketId, &Received)) {
        let main = std::iter::once((SocketId::MAIN, &self.main));
        for (id, socket) in main.chain(self.others.iter().map(|(id, socket)| (*id, socket))) {
            for _ in 0..calls {
                let more = socket.receive(&mut self.received);
                take(id, &self.received);
                if !more {
                    break;
                }
            }
        }
    }

    /// What to poll: for something to receive, and the one that is `blocked` for room to send.
    pub fn poll_fds<'a>(&'a self, blocked: Option<SocketId>, fds: &mut Vec<PollFd<'a>>) {
        let main = std::iter::once((SocketId::MAIN, &self.main));
        for (id, socket) in main.chain(self.others.iter().map(|(id, socket)| (*id, socket))) {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, blocked == Some(id));
            fds.push(PollFd::new(socket.fd(), flags));
        }
    }
}

/// The main socket is one of IPv4.
pub fn main_addr(addr: SocketAddr) -> io::Result<SocketAddrV4> {
    ipv4(addr).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_socket_is_bound_when_it_is_first_used_and_closed_when_it_is_not() {
        let at = (Ipv4Addr::LOCALHOST, 0).into();
        let mut sockets = Sockets::new(Socket::bind(at).unwrap());
        let main = SocketAddr::from(sockets.local_addr().unwrap());
        let mut fds = Vec::new();
        sockets.poll_fds(None, &mut fds);
        let always = fds.len();
        drop(fds);
        let other = sockets.get(SocketId(7)).unwrap().local_addr().unwrap();
        assert_eq!((other.ip(), other.port() != main.port()), (main.ip(), true));
        assert_eq!(sockets.get(SocketId(7)).unwrap().local_addr().unwrap(), other);
        sockets.get(SocketId::MAIN).unwrap().send(other, b"x", None, None);
        let mut came = Vec::new();
        sockets.receive(4, |id, received| {
            came.extend(received.datagrams().map(|(from, _, bytes, _)| (id, from, bytes.to_vec())));
        });
        assert_eq!(came, [(SocketId(7), main, b"x".to_vec())]);
        sockets.close(SocketId(7));
        let mut fds = Vec::new();
        sockets.poll_fds(None, &mut fds);
        assert_eq!(fds.len(), always);
    }
}
