//! A UDP socket, sent and received in batches.
//!
//! One system call sends up to 64 datagrams of equal size (GSO) and receives up to [`BATCH`] runs of
//! them (`recvmmsg`, GRO). Path MTU discovery is on (`IP_PMTUDISC_PROBE`): a datagram that is too large
//! fails instead of being cut, which is what UDX's own search for the MTU wants. Where it wants the contrary it says so.

use crate::swarm::lan::Link;
use crate::swarm::socket::plain;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6,
    SockaddrStorage, bind, sendmsg, setsockopt, socket, sockopt,
};
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    set_ipv6_unicast_hops,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Runs of datagrams taken by one call. More would push the rest of the work out of the cache: each
/// run may be as long as [`RUN`].
const BATCH: usize = 16;

/// Longest run of datagrams that arrives, or leaves, as one: the limit of UDP.
const RUN: usize = 65_535;

/// Kernel buffers. A stream's window is 4 MiB, and the kernel counts its own overhead too.
const RECEIVE_BUFFER: usize = 16 << 20;
const SEND_BUFFER: usize = 4 << 20;

/// TTL of everything but hole punches.
const DEFAULT_TTL: u8 = 64;

/// One socket.
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// Bound to all addresses of the machine.
    any_address: bool,
    ipv4: bool,
}

/// What was received at once from one socket; all of them share it.
pub struct Received {
    /// [`BATCH`] buffers of [`RUN`] bytes.
    buffers: Vec<u8>,
    meta: [RecvMeta; BATCH],
    /// Taken by the last call.
    count: usize,
    any_address: bool,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It left, or it never can; either way it is over.
    Done,
    /// The kernel's buffer is full: try the same again when the socket is writable.
    Blocked,
    /// Datagrams of this size do not fit the way there.
    TooLarge(usize),
    /// The network is not there, or closed to us; the system's error number. The datagram is lost.
    NoWay(i32),
}

impl Socket {
    /// Binds to `addr`; a port that is taken is replaced by a free one.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let at = |addr: SocketAddr| match addr {
            SocketAddr::V4(_) => UdpSocket::bind(addr),
            SocketAddr::V6(addr) => bind_ipv6(addr),
        };
        let io = at(addr).or_else(|error| match error.kind() {
            ErrorKind::AddrInUse if addr.port() != 0 => at(SocketAddr::new(addr.ip(), 0)),
            _ => Err(error),
        })?;
        let state = UdpSocketState::new((&io).into())?;
        enlarge_buffers(&io);
        Ok(Self { io, state, any_address: addr.ip().is_unspecified(), ipv4: addr.is_ipv4() })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }

    /// Datagrams that one send may carry.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Takes what is waiting. Answers whether there may be more.
    pub fn receive(&self, into: &mut Received) -> bool {
        (into.count, into.any_address) = (0, self.any_address);
        let mut slices = into.buffers.chunks_exact_mut(RUN).map(IoSliceMut::new);
        let mut bufs: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| slices.next().unwrap_or(IoSliceMut::new(&mut [])));
        match self.state.recv((&self.io).into(), &mut bufs, &mut into.meta) {
            Ok(n) => {
                into.count = n;
                n == BATCH
            }
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
                    tracing::debug!(%error, "receiving failed");
                }
                false
            }
        }
    }

    /// Whether what is sent from now on may travel in parts, as fragments of IP.
    pub fn allow_parts(&self, parts: bool) {
        let set = match (self.ipv4, parts) {
            (true, true) => set_ip_mtu_discover(&self.io, Ipv4PathMtuDiscovery::DONT),
            (true, false) => set_ip_mtu_discover(&self.io, Ipv4PathMtuDiscovery::PROBE),
            (false, true) => set_ipv6_mtu_discover(&self.io, Ipv6PathMtuDiscovery::DONT),
            (false, false) => set_ipv6_mtu_discover(&self.io, Ipv6PathMtuDiscovery::PROBE),
        };
        if let Err(error) = set {
            tracing::debug!(%error, parts, "fragments");
        }
    }

    /// Sends the datagrams in `bytes`, each `segment` long but the last, to `to`.
    pub fn send(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<usize>,
        ttl: Option<u8>,
    ) -> Sent {
        if let Some(ttl) = ttl {
            self.set_ttl(ttl);
        }
        let sent = self.send_run(to, bytes, segment);
        if ttl.is_some() {
            self.set_ttl(DEFAULT_TTL);
        }
        sent
    }

    fn set_ttl(&self, ttl: u8) {
        let _ = match self.ipv4 {
            true => self.io.set_ttl(ttl.into()),
            false => set_ipv6_unicast_hops(&self.io, Some(ttl)).map_err(io::Error::from),
        };
    }

    /// The same from the address `source` of this machine. None if it is not one of them, or the system wants the
    /// run in parts: then [`Self::send`] does it.
    pub fn send_from(
        &self,
        source: IpAddr,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<usize>,
        ttl: Option<u8>,
    ) -> Option<Sent> {
        if ttl.is_some() {
            return None; // a punch, which goes to who has not written yet
        }
        let (info4, info6);
        let info = match source {
            IpAddr::V4(source) => {
                info4 = packet_info(0, source);
                ControlMessage::Ipv4PacketInfo(&info4)
            }
            IpAddr::V6(source) => {
                // The interface is that of the destination's scope.
                info6 = packet_info6(0, source);
                ControlMessage::Ipv6PacketInfo(&info6)
            }
        };
        let size = segment.filter(|&size| size < bytes.len()).and_then(|s| u16::try_from(s).ok());
        let mut control = vec![info];
        control.extend(size.as_ref().map(ControlMessage::UdpGsoSegments));
        let parts = [IoSlice::new(bytes)];
        let (fd, flags, to) = (self.io.as_raw_fd(), MsgFlags::empty(), SockaddrStorage::from(to));
        match sendmsg(fd, &parts, &control, flags, Some(&to)) {
            Ok(_) => Some(Sent::Done),
            Err(Errno::EAGAIN) => Some(Sent::Blocked),
            Err(Errno::EMSGSIZE) => {
                Some(Sent::TooLarge(segment.unwrap_or(bytes.len()).min(bytes.len())))
            }
            Err(_) => None,
        }
    }

    /// Sends a datagram over one interface, whatever the routes are, be it to a group: that with a TTL of 1. It may be lost.
    pub fn send_over(&self, link: &Link, to: SocketAddr, bytes: &[u8]) {
        let (info4, info6);
        let info = match link.addr.ip() {
            IpAddr::V4(source) => {
                info4 = packet_info(link.interface.cast_signed(), source);
                ControlMessage::Ipv4PacketInfo(&info4)
            }
            IpAddr::V6(source) => {
                info6 = packet_info6(link.interface, source);
                ControlMessage::Ipv6PacketInfo(&info6)
            }
        };
        let (fd, flags, to) = (self.io.as_raw_fd(), MsgFlags::empty(), SockaddrStorage::from(to));
        if let Err(error) = sendmsg(fd, &[IoSlice::new(bytes)], &[info], flags, Some(&to)) {
            tracing::trace!(%error, %to, ?link, "sending over a link failed");
        }
    }

    fn send_run(&self, to: SocketAddr, bytes: &[u8], segment: Option<usize>) -> Sent {
        match self.try_send(to, bytes, segment) {
            Ok(()) => Sent::Done,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Blocked,
            Err(error) if quinn_udp::is_msg_size_err(&error) => {
                Sent::TooLarge(segment.unwrap_or(bytes.len()).min(bytes.len()))
            }
            Err(error) if has_no_way(&error) => {
                tracing::trace!(%error, %to, "nowhere to send");
                Sent::NoWay(error.raw_os_error().unwrap_or_default())
            }
            Err(error) => {
                tracing::trace!(%error, %to, len = bytes.len(), ?segment, "sending failed");
                // Some drivers refuse a run where they would take its parts. What goes nowhere is
                // lost, as any datagram may be.
                if let Some(size) = segment.filter(|&size| size < bytes.len()) {
                    for datagram in bytes.chunks(size) {
                        let _ = self.try_send(to, datagram, None);
                    }
                }
                Sent::Done
            }
        }
    }

    fn try_send(&self, to: SocketAddr, bytes: &[u8], segment: Option<usize>) -> io::Result<()> {
        let Some(segment) = segment.filter(|&size| size < bytes.len()) else {
            // Not through `UdpSocketState`: it takes EINVAL for a driver without segmentation and never
            // tries that again, but any stranger can give us an address that cannot be sent to.
            return self.io.send_to(bytes, to).map(|_| ());
        };
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: Some(segment),
            src_ip: None,
        };
        self.state.try_send((&self.io).into(), &transmit)
    }
}

impl Received {
    pub fn new() -> Self {
        let (buffers, meta) = (vec![0; BATCH * RUN], [RecvMeta::default(); BATCH]);
        Self { buffers, meta, count: 0, any_address: false }
    }

    /// What the last [`Socket::receive`] took: sender, our address that was written to if the socket is bound to several,
    /// bytes, size of each datagram in them.
    pub fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, Option<IpAddr>, &[u8], usize)> {
        let any = self.any_address;
        let runs = self.buffers.chunks_exact(RUN).zip(&self.meta).take(self.count);
        runs.filter_map(move |(buffer, meta)| {
            let to = meta.dst_ip.filter(|_| any);
            Some((plain(meta.addr), to, buffer.get(..meta.len)?, meta.stride))
        })
    }
}

/// What has a datagram leave from an address of ours, over an interface if that is not 0.
fn packet_info(interface: i32, source: Ipv4Addr) -> in_pktinfo {
    in_pktinfo {
        ipi_ifindex: interface,
        ipi_spec_dst: SockaddrIn::from(SocketAddrV4::new(source, 0)).as_ref().sin_addr,
        ipi_addr: in_addr { s_addr: 0 },
    }
}

/// The same for IPv6.
fn packet_info6(interface: u32, source: Ipv6Addr) -> in6_pktinfo {
    let source = SockaddrIn6::from(SocketAddrV6::new(source, 0, 0, 0));
    in6_pktinfo { ipi6_addr: source.as_ref().sin6_addr, ipi6_ifindex: interface }
}

/// Whether it is the network that is missing, or forbidden.
fn has_no_way(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::NetworkUnreachable,
        ErrorKind::NetworkDown,
        ErrorKind::HostUnreachable,
        ErrorKind::PermissionDenied,
    ];
    kinds.contains(&error.kind())
}

/// Of IPv6 only, so that the port stays free for the socket of IPv4.
fn bind_ipv6(addr: SocketAddrV6) -> io::Result<UdpSocket> {
    let io = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&io, sockopt::Ipv6V6Only, &true)?;
    bind(io.as_raw_fd(), &SockaddrIn6::from(addr))?;
    Ok(io.into())
}

/// Asks for large buffers: past the system's limit where we may, else up to it.
fn enlarge_buffers(io: &UdpSocket) {
    if setsockopt(io, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = setsockopt(io, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
    if setsockopt(io, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = setsockopt(io, sockopt::SndBuf, &SEND_BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> Socket {
        Socket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
    }

    fn received(socket: &Socket) -> Vec<Vec<u8>> {
        let mut received = Received::new();
        // On loopback a datagram is there when its send returns.
        socket.receive(&mut received);
        let runs = received.datagrams().flat_map(|(_, _, run, stride)| run.chunks(stride.max(1)));
        runs.map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_run_arrives_as_its_datagrams() {
        let (a, b) = (socket(), socket());
        let to = b.local_addr().unwrap();
        let bytes: Vec<u8> = (0..3500u32).map(|i| i as u8).collect();
        assert_eq!(a.send(to, &bytes, Some(1000), None), Sent::Done);
        let parts: Vec<_> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
        assert_eq!(received(&b), parts);
    }

    #[test]
    fn the_largest_datagram_passes_and_a_larger_one_is_told() {
        let (a, b) = (socket(), socket());
        let to = b.local_addr().unwrap();
        assert_eq!(a.send(to, &[1; 65_508], None, None), Sent::TooLarge(65_508));
        assert_eq!(a.send(to, &[2; 65_507], Some(65_507), Some(5)), Sent::Done);
        assert_eq!(received(&b), [vec![2; 65_507]]);
    }

    #[test]
    fn an_address_that_cannot_be_sent_to_does_not_end_segmentation() {
        let a = socket();
        let segments = a.max_segments();
        // Refused here, with EINVAL, before a way there is looked for.
        let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
        let refused = a.io.send_to(&[1; 100], nowhere).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EINVAL as i32));
        assert_eq!(a.send(nowhere, &[1; 100], None, None), Sent::Done);
        assert_eq!(a.max_segments(), segments);
    }

    #[test]
    fn what_goes_back_leaves_from_the_address_that_was_written_to() {
        let any = Socket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = any.local_addr().unwrap().port();
        let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let second = Ipv4Addr::new(127, 0, 0, 2);
        asker.send_to(b"where are you?", (second, port)).unwrap();
        let mut received = Received::new();
        any.receive(&mut received);
        let (from, to, ..) = received.datagrams().next().unwrap();
        assert_eq!(to, Some(second.into()));
        let bytes = [7; 2500];
        for (size, segment) in [(10, None), (2500, Some(1000))] {
            let sent = any.send_from(second.into(), from, &bytes[..size], segment, None);
            assert_eq!(sent, Some(Sent::Done));
        }
        let mut buf = [0; 3000];
        for len in [10, 1000, 1000, 500] {
            let (n, sender) = asker.recv_from(&mut buf).unwrap();
            assert_eq!((n, sender), (len, (second, port).into()));
        }
        // Not ours: to be sent as the routes have it.
        let foreign = Ipv4Addr::new(192, 0, 2, 77);
        assert_eq!(any.send_from(foreign.into(), from, &bytes[..10], None, None), None);
    }

    #[test]
    fn a_taken_port_is_replaced() {
        let a = socket();
        let b = Socket::bind(a.local_addr().unwrap()).unwrap();
        assert_ne!(a.local_addr().unwrap(), b.local_addr().unwrap());
    }

    /// Says so aloud where this machine has none.
    fn ipv6(ip: Ipv6Addr, port: u16) -> Option<Socket> {
        let socket = Socket::bind((ip, port).into());
        socket.inspect_err(|error| eprintln!("no IPv6 here, nothing tested: {error}")).ok()
    }

    #[test]
    fn ipv6_carries_runs_and_answers_from_where_it_was_written_to() {
        let Some(any) = ipv6(Ipv6Addr::UNSPECIFIED, 0) else { return };
        let Some(asker) = ipv6(Ipv6Addr::LOCALHOST, 0) else { return };
        let to = SocketAddr::from((Ipv6Addr::LOCALHOST, any.local_addr().unwrap().port()));
        let bytes: Vec<u8> = (0..2500u32).map(|i| i as u8).collect();
        let parts: Vec<_> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
        assert_eq!(asker.send(to, &bytes, Some(1000), Some(3)), Sent::Done);
        let mut into = Received::new();
        any.receive(&mut into);
        let (from, to, ..) = into.datagrams().next().unwrap();
        assert_eq!((from, to), (asker.local_addr().unwrap(), Some(Ipv6Addr::LOCALHOST.into())));
        let sent = any.send_from(to.unwrap(), from, &bytes, Some(1000), None);
        assert_eq!(sent, Some(Sent::Done));
        assert_eq!(received(&asker), parts);
        any.allow_parts(true);
        any.allow_parts(false);
    }

    #[test]
    fn the_port_of_ipv4_is_free_for_ipv6() {
        let a = Socket::bind((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = a.local_addr().unwrap().port();
        let Some(b) = ipv6(Ipv6Addr::UNSPECIFIED, port) else { return };
        assert_eq!(b.local_addr().unwrap().port(), port);
    }
}
