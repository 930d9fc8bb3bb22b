//! Addresses that cannot belong to a node of the public network.
//!
//! Source: bogon/index.js; hyperdht/index.js:filterNode

use std::net::{Ipv4Addr, SocketAddrV4};

/// Private, carrier-grade NAT, loopback or link-local.
pub fn is_private(ip: &Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || (a == 100 && (64..128).contains(&b))
}

/// For documentation and benchmarks: nobody's on the public network, and what laboratories are built of.
pub fn is_test(ip: &Ipv4Addr) -> bool {
    let range = ip.octets();
    matches!(range, [192, 0, 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _])
}

/// Never a peer's address: "this network", multicast, reserved.
pub fn is_reserved(ip: &Ipv4Addr) -> bool {
    match ip.octets() {
        [0, ..] | [192, 0, 0, _] => true,
        [a, ..] => a >= 224,
    }
}

pub fn is_bogon(ip: &Ipv4Addr) -> bool {
    is_private(ip) || is_test(ip) || is_reserved(ip)
}

/// Nodes of test networks that got mixed into the public one; the reference skips them too.
pub fn is_known_bad(addr: &SocketAddrV4) -> bool {
    matches!(
        (addr.ip().octets(), addr.port()),
        ([134, 209, 28, 98] | [167, 99, 142, 185], 49738)
            | ([35, 233, 47, 252], 9400)
            | ([150, 136, 142, 116], _)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_told_apart() {
        let ip = |s: &str| s.parse::<Ipv4Addr>().unwrap();
        for private in
            ["10.1.2.3", "127.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1"]
        {
            assert!(is_private(&ip(private)) && !is_reserved(&ip(private)), "{private}");
        }
        for test in ["192.0.2.9", "198.19.0.1", "203.0.113.1"] {
            assert!(is_test(&ip(test)) && !is_private(&ip(test)) && !is_reserved(&ip(test)));
        }
        for reserved in ["0.1.2.3", "192.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert!(is_reserved(&ip(reserved)) && !is_private(&ip(reserved)), "{reserved}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "198.20.0.1", "192.0.3.1"] {
            assert!(!is_bogon(&ip(public)), "{public}");
        }
    }
}
