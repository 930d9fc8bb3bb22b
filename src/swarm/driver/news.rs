//! News of the interfaces: the kernel tells when one of them comes, goes, or has another address.
//!
//! What exactly happened is not read: the addresses are looked at anew. Where there is no such socket they are looked at from
//! time to time only.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Links, addresses of IPv4 and of IPv6 (`RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR`).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

pub struct News {
    socket: Option<OwnedFd>,
}

impl News {
    pub fn new() -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let family = AddressFamily::Netlink;
        let opened = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute);
        let bound = opened.and_then(|opened| {
            bind(opened.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
            Ok(opened)
        });
        Self { socket: bound.ok() }
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Whether there was any.
    pub fn take(&self) -> bool {
        let (mut any, mut buf) = (false, [0; 4096]);
        while let Some(socket) = &self.socket {
            match recv(socket.as_raw_fd(), &mut buf, MsgFlags::MSG_DONTWAIT) {
                // More than there was room for is news as well.
                Ok(1..) | Err(nix::errno::Errno::ENOBUFS) => any = true,
                _ => break,
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_machine_has_no_news() {
        let news = News::new();
        assert!(news.fd().is_some());
        news.take();
    }
}
