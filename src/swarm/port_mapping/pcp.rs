//! The messages of PCP (RFC 6887) and of NAT-PMP (RFC 6886), its predecessor on the same port: to ask for a mapping of a UDP
//! port, and what a gateway answers.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Where gateways listen for both.
pub const PORT: u16 = 5351;
/// An answer has at most so many bytes (RFC 6887, section 7).
pub const MAX_ANSWER: usize = 1100;

const PCP: u8 = 2;
const NAT_PMP: u8 = 0;
/// A bit of the operation that says that it is an answer.
const ANSWER: u8 = 0x80;
/// Operations: of PCP to map; of NAT-PMP to tell the public address, and to map a UDP port.
const MAP: u8 = 1;
const PUBLIC_ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
/// UDP's number.
const UDP: u8 = 17;
/// "Another version is spoken here", in both.
const OTHER_VERSION: u32 = 1;

/// What an answer must repeat: who does not see our requests cannot forge it.
pub type Nonce = [u8; 12];

/// What a gateway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Granted {
        external: SocketAddrV4,
        lifetime: Duration,
    },
    Refused(u32),
    /// It speaks the other protocol.
    OtherVersion,
    /// NAT-PMP's answer to [`public_address`].
    Address(Ipv4Addr),
}

/// PCP's request for a mapping of `port` for `lifetime`, if possible at `suggested`; a lifetime of 0 removes it.
pub fn map(
    own: Ipv4Addr,
    port: u16,
    suggested: SocketAddrV4,
    lifetime: Duration,
    nonce: &Nonce,
) -> Vec<u8> {
    let mut out = vec![PCP, MAP, 0, 0];
    out.extend(seconds(lifetime));
    out.extend(own.to_ipv6_mapped().octets());
    out.extend(nonce);
    out.extend([UDP, 0, 0, 0]);
    out.extend(port.to_be_bytes());
    out.extend(suggested.port().to_be_bytes());
    out.extend(suggested.ip().to_ipv6_mapped().octets());
    out
}

/// NAT-PMP's.
pub fn map_udp(port: u16, suggested: u16, lifetime: Duration) -> Vec<u8> {
    let mut out = vec![NAT_PMP, MAP_UDP, 0, 0];
    out.extend(port.to_be_bytes());
    out.extend(suggested.to_be_bytes());
    out.extend(seconds(lifetime));
    out
}

/// NAT-PMP's question for the address that the mapping is at.
pub fn public_address() -> Vec<u8> {
    vec![NAT_PMP, PUBLIC_ADDRESS]
}

fn seconds(time: Duration) -> [u8; 4] {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}

/// What came from a gateway that was asked for `port`; none if it is no answer to that.
pub fn decode(bytes: &[u8], port: u16, nonce: &Nonce) -> Option<Answer> {
    let (version, operation) = (*bytes.first()?, *bytes.get(1)?);
    if bytes.len() > MAX_ANSWER || operation & ANSWER == 0 {
        return None;
    }
    match version {
        PCP => pcp(bytes, port, nonce),
        NAT_PMP => nat_pmp(bytes, operation & !ANSWER, port),
        _ => None,
    }
}

fn pcp(bytes: &[u8], port: u16, nonce: &Nonce) -> Option<Answer> {
    let result = u32::from(*bytes.get(3)?);
    // It has understood nothing, so that nothing of ours need be in it.
    if result == OTHER_VERSION {
        return Some(Answer::OtherVersion);
    }
    let lifetime = u32_at(bytes, 4)?;
    let (operation, theirs) = (bytes.get(1)? & !ANSWER, bytes.get(24..36)?);
    let of_ours =
        operation == MAP && theirs == nonce && *bytes.get(36)? == UDP && u16_at(bytes, 40)? == port;
    if !of_ours {
        return None;
    }
    if result != 0 {
        return Some(Answer::Refused(result));
    }
    let ip: [u8; 16] = bytes.get(44..60)?.try_into().ok()?;
    let ip = std::net::Ipv6Addr::from(ip).to_ipv4_mapped()?;
    granted(SocketAddrV4::new(ip, u16_at(bytes, 42)?), lifetime)
}

fn nat_pmp(bytes: &[u8], operation: u8, port: u16) -> Option<Answer> {
    let result = u32::from(u16_at(bytes, 2)?);
    match (result, operation) {
        (OTHER_VERSION, _) => Some(Answer::OtherVersion),
        (0, PUBLIC_ADDRESS) => Some(Answer::Address(Ipv4Addr::from(u32_at(bytes, 8)?))),
        (0, MAP_UDP) if u16_at(bytes, 8)? == port => {
            let external = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, u16_at(bytes, 10)?);
            granted(external, u32_at(bytes, 12)?)
        }
        (1.., MAP_UDP) => Some(Answer::Refused(result)),
        _ => None,
    }
}

fn granted(external: SocketAddrV4, lifetime: u32) -> Option<Answer> {
    let lifetime = Duration::from_secs(lifetime.into());
    (external.port() != 0).then_some(Answer::Granted { external, lifetime })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);
    const HOUR: Duration = Duration::from_secs(3600);

    /// Laid out as RFC 6887 has it in figures 2, 3, 9 and 10.
    fn pcp_answer(result: u8) -> Vec<u8> {
        let mut answer = vec![2, 0x81, 0, result];
        answer.extend([0, 0, 0x0e, 0x10]); // lifetime: 3600
        answer.extend([0, 0, 1, 0]); // epoch
        answer.extend([0; 12]);
        answer.extend(NONCE);
        answer.extend([17, 0, 0, 0]);
        answer.extend([0x9c, 0x40, 0x9c, 0x41]); // 40000, 40001
        answer.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 20, 0, 0, 1]);
        answer
    }

    #[test]
    fn requests_are_as_the_rfcs_have_them() {
        let asked = map(OWN, 40_000, "0.0.0.0:40001".parse().unwrap(), HOUR, &NONCE);
        let mut expected = vec![2, 1, 0, 0, 0, 0, 0x0e, 0x10];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 7]);
        expected.extend(NONCE);
        expected.extend([17, 0, 0, 0, 0x9c, 0x40, 0x9c, 0x41]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!((asked.len(), asked), (60, expected));
        // RFC 6886, section 3.3.
        let expected = [0, 1, 0, 0, 0x9c, 0x40, 0x9c, 0x41, 0, 0, 0x0e, 0x10];
        assert_eq!(map_udp(40_000, 40_001, HOUR), expected);
        assert_eq!(public_address(), [0, 0]);
    }

    #[test]
    fn answers_are_read_and_what_answers_something_else_is_not() {
        let external = SocketAddrV4::new([20, 0, 0, 1].into(), 40_001);
        let granted = Answer::Granted { external, lifetime: HOUR };
        assert_eq!(decode(&pcp_answer(0), 40_000, &NONCE), Some(granted));
        assert_eq!(decode(&pcp_answer(8), 40_000, &NONCE), Some(Answer::Refused(8)));
        assert_eq!(decode(&pcp_answer(1), 40_000, &NONCE), Some(Answer::OtherVersion));
        assert_eq!(decode(&pcp_answer(0), 40_002, &NONCE), None, "another port");
        assert_eq!(decode(&pcp_answer(0), 40_000, &[0; 12]), None, "another's request");
        let mut question = pcp_answer(0);
        question[1] = 1;
        assert_eq!(decode(&question, 40_000, &NONCE), None);

        let mut mapped = vec![0, 0x81, 0, 0, 0, 0, 1, 0, 0x9c, 0x40, 0x9c, 0x41, 0, 0, 0x0e, 0x10];
        let external = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 40_001);
        let granted = Answer::Granted { external, lifetime: HOUR };
        assert_eq!(decode(&mapped, 40_000, &NONCE), Some(granted));
        assert_eq!(decode(&mapped, 40_002, &NONCE), None, "another port");
        mapped[3] = 2;
        assert_eq!(decode(&mapped, 40_000, &NONCE), Some(Answer::Refused(2)));
        let address = [0, 0x80, 0, 0, 0, 0, 1, 0, 20, 0, 0, 1];
        assert_eq!(decode(&address, 1, &NONCE), Some(Answer::Address([20, 0, 0, 1].into())));
        // Of a gateway that speaks NAT-PMP alone to a question of PCP (RFC 6886, section 3.5).
        let other = decode(&[0, 0x81, 0, 1, 0, 0, 1, 0], 40_000, &NONCE);
        assert_eq!(other, Some(Answer::OtherVersion));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(bytes: Vec<u8>, start in 0u8..3, cut in 0usize..61) {
            let _ = decode(&bytes, 1, &NONCE);
            let _ = decode(&[&[start, 0x81], bytes.as_slice()].concat(), 1, &NONCE);
            let whole = pcp_answer(0);
            let answer = decode(&whole[..cut.min(60)], 40_000, &NONCE);
            prop_assert_eq!(answer.is_some(), cut >= 60);
        }
    }
}
