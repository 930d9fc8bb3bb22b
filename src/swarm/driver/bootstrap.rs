//! The nodes to enter the DHT by, as people write them.
//!
//! Source: hyperdht/lib/constants.js, dht-rpc/index.js

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};

/// The public network's own nodes. Each is `ip@name:port`; the address spares a look-up.
pub const PUBLIC_BOOTSTRAP: [&str; 3] = [
    "88.99.3.86@node1.hyperdht.org:49737",
    "142.93.90.113@node2.hyperdht.org:49737",
    "138.68.147.8@node3.hyperdht.org:49737",
];

#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error("'{0}' is no bootstrap node: write host:port or ip@host:port")]
    Form(String),
    #[error("the bootstrap node '{name}' has no address: {source}")]
    Unknown {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the bootstrap node '{0}' has no IPv4 address")]
    NoIpv4(String),
}

/// The address of one node given as `host:port` or `ip@host:port`. A name is looked up, which may block;
/// where an address stands before the name it is taken.
pub fn resolve_bootstrap(text: &str) -> Result<SocketAddrV4, BootstrapError> {
    let text = text.trim();
    let form = || BootstrapError::Form(text.to_string());
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port: u16 = port.parse().map_err(|_| form())?;
    if host.is_empty() || port == 0 {
        return Err(form());
    }
    let (ip, name) = host.split_once('@').unwrap_or((host, host));
    if let Ok(ip) = ip.parse::<Ipv4Addr>() {
        return Ok(SocketAddrV4::new(ip, port));
    }
    let unknown = |source| BootstrapError::Unknown { name: name.to_string(), source };
    let mut addrs = (name, port).to_socket_addrs().map_err(unknown)?;
    addrs
        .find_map(|addr| match addr {
            SocketAddr::V4(addr) => Some(addr),
            SocketAddr::V6(_) => None,
        })
        .ok_or_else(|| BootstrapError::NoIpv4(name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_look_up() {
        let node = resolve_bootstrap("127.0.0.1:49737").unwrap();
        assert_eq!(node, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 49737));
        for text in PUBLIC_BOOTSTRAP {
            let (ip, _) = text.split_once('@').unwrap();
            assert_eq!(resolve_bootstrap(text).unwrap().ip().to_string(), ip);
        }
    }

    #[test]
    fn what_has_no_port_is_refused() {
        for text in ["", "localhost", "a:b", ":1", "1.2.3.4:0", "1.2.3.4:65536"] {
            assert!(matches!(resolve_bootstrap(text), Err(BootstrapError::Form(_))), "{text}");
        }
    }
}
