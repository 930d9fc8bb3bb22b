//! Which gateway may be asked: the one that what we send to the Internet goes through, if that is a router of a private
//! network that we are on. None for a machine with a public address, nor behind a VPN, whatever the reason: then a port of
//! some router would not lead to where others see us, and it is nobody's business that we are here.

use crate::swarm::driver::way_out::{SOMEBODY, source};
use crate::swarm::port_mapping::Place;
use nix::ifaddrs::getifaddrs;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Routes that are looked at.
const MAX_ROUTES: usize = 4096;
/// Flags of a route: it is up; it leads through a gateway.
const UP: u32 = 0x1;
const GATEWAY: u32 = 0x2;

/// Whom a socket bound to `bound` may ask.
pub fn place(bound: SocketAddrV4) -> Option<Place> {
    let table = std::fs::read_to_string("/proc/net/route").ok()?;
    let (interface, gateway) = default_route(&table)?;
    let of_interface = getifaddrs().ok()?.filter(|address| address.interface_name == interface);
    let found = of_interface.filter_map(|address| {
        let own = address.address?.as_sockaddr_in()?.ip();
        let mask = address.netmask?.as_sockaddr_in()?.ip();
        Some((Place { gateway, own }, mask.to_bits().leading_ones() as u8))
    });
    let place = found.filter(|(place, prefix)| place.may_be_asked(*prefix)).map(|(place, _)| place);
    let usable = |place: &Place| bound.ip().is_unspecified() || *bound.ip() == place.own;
    place.filter(usable).find(|place| source(bound, SOMEBODY) == Some(place.own))
}

/// The interface and the gateway of the default route in a table as /proc/net/route has it; none where two halves of
/// the Internet go another way, as VPNs like to have it.
fn default_route(table: &str) -> Option<(String, Ipv4Addr)> {
    let mut best: Option<(u32, &str, Ipv4Addr, u32)> = None;
    for line in table.lines().skip(1).take(MAX_ROUTES) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [interface, to, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else {
            continue;
        };
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let (Some(to), Some(gateway)) = (number(to), number(gateway)) else { continue };
        let (Some(flags), Some(mask)) = (number(flags), number(mask)) else { continue };
        // As they lie in memory.
        let (to, mask) = (Ipv4Addr::from(to.to_ne_bytes()), Ipv4Addr::from(mask.to_ne_bytes()));
        if flags & UP == 0 {
            continue;
        }
        match (to.octets(), mask.octets()) {
            ([0 | 128, 0, 0, 0], [128, 0, 0, 0]) => return None,
            ([0, 0, 0, 0], [0, 0, 0, 0]) => {}
            _ => continue,
        }
        let metric: u32 = metric.parse().ok()?;
        if best.is_none_or(|(known, ..)| metric < known) {
            best = Some((metric, interface, Ipv4Addr::from(gateway.to_ne_bytes()), flags));
        }
    }
    let (_, interface, gateway, flags) = best?;
    (flags & GATEWAY != 0).then(|| (interface.to_string(), gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    /// As the system writes it.
    fn route(interface: &str, to: [u8; 4], gateway: [u8; 4], metric: u32, mask: [u8; 4]) -> String {
        let hex = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let flags = if gateway == [0; 4] { "0001" } else { "0003" };
        let (to, gateway, mask) = (hex(to), hex(gateway), hex(mask));
        format!("{interface}\t{to}\t{gateway}\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
    }

    #[test]
    fn the_gateway_is_that_of_the_best_default_route() {
        let (all, none) = ([0; 4], [0; 4]);
        let net = route("wlan0", [192, 168, 1, 0], none, 600, [255, 255, 255, 0]);
        let cable = route("eth0", all, [10, 0, 0, 1], 100, all);
        let radio = route("wlan0", all, [192, 168, 1, 1], 600, all);
        let found = |routes: &[&String]| {
            let lines: String = routes.iter().map(|route| route.as_str()).collect();
            default_route(&format!("{HEAD}{lines}"))
        };
        let by = |interface: &str, ip: [u8; 4]| Some((interface.to_string(), Ipv4Addr::from(ip)));
        assert_eq!(found(&[&radio, &net, &cable]), by("eth0", [10, 0, 0, 1]));
        assert_eq!(found(&[&net, &radio]), by("wlan0", [192, 168, 1, 1]));
        assert_eq!(found(&[&net]), None);
        let tunnel = route("tun0", all, none, 50, all);
        assert_eq!(found(&[&radio, &tunnel]), None, "a tunnel has no router");
        let half = route("tun0", [128, 0, 0, 0], [10, 8, 0, 1], 0, [128, 0, 0, 0]);
        assert_eq!(found(&[&radio, &half]), None, "a VPN");
        assert_eq!(found(&[&"eth0 x\n".to_string(), &"\n".to_string()]), None);
    }

    #[test]
    fn a_socket_that_is_bound_to_loopback_asks_nobody() {
        assert_eq!(place(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5)), None);
    }
}
