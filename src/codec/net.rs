//! IPv4 and IPv6 socket addresses as the network writes them: address bytes in network order, then the
//! port **little endian** (6 and 18 bytes).

use super::{Put, Reader, Result};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

/// Bytes of an encoded IPv4 address.
pub const IPV4_LEN: usize = 6;
/// Bytes of an encoded IPv6 address.
pub const IPV6_LEN: usize = 18;

pub fn put_ipv4(out: &mut impl Put, addr: &SocketAddrV4) {
    out.put(&addr.ip().octets());
    out.put_u16(addr.port());
}

pub fn ipv4(r: &mut Reader<'_>) -> Result<SocketAddrV4> {
    let ip = Ipv4Addr::from(r.fixed::<4>()?);
    Ok(SocketAddrV4::new(ip, r.u16()?))
}

pub fn put_ipv4_list(out: &mut impl Put, addrs: &[SocketAddrV4]) {
    out.put_uint(addrs.len() as u64);
    for addr in addrs {
        put_ipv4(out, addr);
    }
}

pub fn ipv4_list(r: &mut Reader<'_>) -> Result<Vec<SocketAddrV4>> {
    let n = r.count(IPV4_LEN)?;
    (0..n).map(|_| ipv4(r)).collect()
}

pub fn put_ipv6(out: &mut impl Put, addr: &SocketAddrV6) {
    out.put(&addr.ip().octets());
    out.put_u16(addr.port());
}

pub fn ipv6(r: &mut Reader<'_>) -> Result<SocketAddrV6> {
    let ip = Ipv6Addr::from(r.fixed::<16>()?);
    Ok(SocketAddrV6::new(ip, r.u16()?, 0, 0))
}

pub fn ipv6_list(r: &mut Reader<'_>) -> Result<Vec<SocketAddrV6>> {
    let n = r.count(IPV6_LEN)?;
    (0..n).map(|_| ipv6(r)).collect()
}
