//! A stream whose peer sends any packets it likes, at any time, while we write and time passes. Payload comes
//! in order and no more of it than was sent; what goes out keeps the agreed size.
#![no_main]

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use hdrive::swarm::SocketId;
use hdrive::swarm::udx::packet::Header;
use hdrive::swarm::udx::{ConnectOptions, Sink, Udx, UdxConfig};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const LOCAL: u32 = 7;
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1000);
/// Datagrams taken from the machine after each step.
const BURSTS: usize = 64;

#[derive(Default)]
struct Got(u64);

impl Sink for Got {
    fn data(&mut self, stream: u32, payload: &[u8]) {
        assert_eq!(stream, LOCAL);
        self.0 += payload.len() as u64;
    }
}

/// A packet near what the stream expects, or anything.
fn datagram(u: &mut Unstructured<'_>, seq: &mut u32, acked: &mut u32) -> Result<Vec<u8>> {
    if u.ratio(1, 16u8)? {
        return u.arbitrary();
    }
    let near = |u: &mut Unstructured<'_>, n: u32| {
        Ok(n.wrapping_add(u.int_in_range(0..=8)?).wrapping_sub(2))
    };
    let flags = if u.arbitrary()? { 1 } else { u.arbitrary()? };
    let payload = vec![*seq as u8; u.int_in_range(0..=40)?];
    let header = Header {
        flags,
        data_offset: if u.ratio(7, 8u8)? { 0 } else { u.arbitrary()? },
        stream: LOCAL,
        window: if u.arbitrary()? { 1 << 20 } else { u.arbitrary()? },
        seq: if u.ratio(15, 16u8)? { near(u, *seq)? } else { u.arbitrary()? },
        ack: if u.ratio(15, 16u8)? { near(u, *acked)? } else { u.arbitrary()? },
    };
    if header.seq == *seq && flags & 1 != 0 {
        *seq = seq.wrapping_add(1);
    }
    *acked = header.ack;
    let mut out = header.encode().to_vec();
    out.extend_from_slice(&payload);
    Ok(out)
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut now = Instant::now();
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    let big = u.arbitrary()?;
    let options = ConnectOptions {
        max_datagram: if big { 65507 } else { 1472 },
        keep_alive: Some(Duration::from_secs(5)),
        ..ConnectOptions::default()
    };
    udx.open(Some(LOCAL)).expect("a free id");
    let (mut seq, mut acked, mut sent) = (0, 0, 0u64);
    let (mut got, mut buf) = (Got::default(), Vec::new());
    if u.ratio(7, 8u8)? {
        udx.connect(LOCAL, SocketId::MAIN, 9, PEER, options.clone(), now);
    }
    while !u.is_empty() {
        match u.int_in_range(0..=9u8)? {
            0 => {
                let n = u.int_in_range(0..=70_000)?;
                let _ = udx.write(LOCAL, Bytes::from(vec![1; n]), now);
            }
            1 => now += Duration::from_micros(u.int_in_range(0..=2_000_000)?),
            2 => udx.end(LOCAL),
            3 => udx.set_backlog(LOCAL, u.int_in_range(0..=8 << 20)?),
            4 => drop(udx.send_message(LOCAL, Bytes::from(vec![2; u.int_in_range(0..=1500)?]))),
            5 if u.ratio(1, 8u8)? => udx.destroy(LOCAL),
            _ => {
                let datagram = datagram(u, &mut seq, &mut acked)?;
                sent += datagram.len() as u64;
                udx.handle_datagram(SocketId::MAIN, PEER, &datagram, now, &mut got);
            }
        }
        udx.end_of_batch(now);
        udx.handle_timeout(now);
        for _ in 0..BURSTS {
            let Some(transmit) = udx.poll_transmit(now, &mut buf, 10) else { break };
            let size = transmit.segment_size.unwrap_or(buf.len());
            assert!(size <= options.max_datagram.max(20), "{size}");
            assert!(buf.len() <= size * 10);
        }
        while udx.poll_event().is_some() {}
        assert!(got.0 <= sent);
        let _ = udx.poll_timeout();
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
