//! Whether a call to neighbours leaves this machine, as far as that can be told from here: it is heard here as well.
//!
//! Nothing else is waited for: who hears a call in which nothing is looked for does not answer.

use super::neighbours::{Neighbours, links};
use super::socket::Socket;
use super::sockets::Sockets;
use crate::swarm::SocketId;
use crate::swarm::lan::Lan;
use nix::net::if_::if_indextoname;
use nix::poll::{PollTimeout, poll};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Calls, as what is called may be lost.
const TIMES: u32 = 3;
/// Calls of others and ours that are looked at before the time is.
const CALLS: usize = 64;
/// Longest sleep between two looks.
const LOOK_MS: u16 = 50;

/// What became of the call on one local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCall {
    /// Name of the interface.
    pub interface: String,
    /// Our address there.
    pub addr: IpAddr,
    pub heard: bool,
}

/// Calls on each local network of a socket at `local`, and listens for so long at most. Blocks.
///
/// # Errors
/// Those of making sockets.
pub fn call_and_listen(local: Ipv4Addr, patience: Duration) -> io::Result<Vec<OwnCall>> {
    let mut sockets = Sockets::new(Socket::bind(SocketAddrV4::new(local, 0).into())?);
    let (bound, bound6) = (sockets.local_addr()?, sockets.ipv6_addr());
    let links = links(bound, bound6);
    let mut heard = vec![false; links.len()];
    let mut ear = Neighbours::default();
    let listens = ear.look(bound, bound6).is_some();
    let call = Lan::empty_call(&mut StdRng::from_os_rng());
    let start = Instant::now();
    for round in 1..=TIMES {
        for link in links.iter().filter(|_| listens) {
            let to = link.group();
            if let Some(socket) = sockets.get(SocketId::towards(&to)) {
                socket.send_over(link, to, &call);
            }
        }
        let until = start + patience * round / TIMES;
        while heard.contains(&false) && Instant::now() < until {
            ear.receive(CALLS, |from, bytes| {
                let from = links.iter().position(|link| link.addr == from);
                if let Some(heard) = from.filter(|_| bytes == call).and_then(|i| heard.get_mut(i)) {
                    *heard = true;
                }
            });
            let mut fds: Vec<_> = ear.poll_fds().collect();
            let _ = poll(&mut fds, PollTimeout::from(LOOK_MS));
        }
    }
    let name =
        |interface| if_indextoname(interface).map(|name| name.to_string_lossy().into_owned());
    let calls = links.iter().zip(heard).map(|(link, heard)| OwnCall {
        interface: name(link.interface).unwrap_or_else(|_| "an interface".into()),
        addr: link.addr.ip(),
        heard,
    });
    Ok(calls.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_on_loopback_is_heard_and_none_is_made_where_there_is_no_network() {
        let patience = Duration::from_secs(20);
        let calls = call_and_listen(Ipv4Addr::LOCALHOST, patience).unwrap();
        assert_eq!(calls.len(), 1);
        assert!(calls[0].heard && calls[0].interface == "lo" && calls[0].addr.is_loopback());
        let start = Instant::now();
        assert_eq!(call_and_listen(Ipv4Addr::new(127, 0, 0, 77), patience).unwrap(), []);
        assert!(start.elapsed() < patience);
    }
}
