//! Packets no honest peer sends.

use proptest::prelude::*;

use super::*;
use crate::swarm::udx::packet::Header;

fn connected() -> (Udx, Instant) {
    let now = epoch();
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    udx.open(Some(A)).unwrap();
    let opts = ConnectOptions { max_datagram: MAX_DATAGRAM, ..ConnectOptions::default() };
    udx.connect(A, SocketId::MAIN, B, address(2), opts, now);
    (udx, now)
}

fn drain(udx: &mut Udx, now: Instant) -> usize {
    udx.end_of_batch(now);
    let mut buf = Vec::new();
    let mut sent = 0;
    while udx.poll_transmit(now, &mut buf, 16).is_some() {
        sent += buf.len();
        assert!(sent < 8 << 20, "sends for ever");
    }
    while udx.poll_event().is_some() {}
    sent
}

/// A header near the numbers in use, with anything behind it.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let near = prop_oneof![0u32..40, any::<u32>()];
    let body = proptest::collection::vec(prop_oneof![Just(0u8), 0u8..30, any::<u8>()], 0..120);
    (any::<u8>(), prop_oneof![Just(0u8), any::<u8>()], any::<u32>(), near.clone(), near, body)
        .prop_map(|(flags, data_offset, window, seq, ack, body)| {
            // DESTROY would end most runs at once.
            let flags = if flags & 0x0f == 0 { flags } else { flags & !flag::DESTROY };
            let header = Header { flags, data_offset, stream: A, window, seq, ack };
            [&header.encode()[..], &body].concat()
        })
}

proptest! {
    #[test]
    fn arbitrary_packets_neither_panic_nor_run_wild(
        datagrams in proptest::collection::vec(packets(), 0..60),
        steps in proptest::collection::vec(0u64..3_000, 60),
    ) {
        let (mut udx, mut now) = connected();
        let mut sink = Collect::new();
        for (datagram, step) in datagrams.into_iter().zip(steps) {
            let _ = udx.write(A, payload(0, 3000), now);
            udx.handle_datagram(SocketId::MAIN, address(2), &datagram, now, &mut sink);
            drain(&mut udx, now);
            now += Duration::from_millis(step);
            udx.handle_timeout(now);
            drain(&mut udx, now);
        }
    }

    #[test]
    fn arbitrary_bytes_are_harmless(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let (mut udx, now) = connected();
        udx.handle_datagram(SocketId::MAIN, address(2), &bytes, now, &mut Collect::new());
        if let Some(head) = bytes.first_chunk_mut::<8>() {
            *head = [0xff, 1, head[2], head[3], 0x11, 0x11, 0, 0];
            udx.handle_datagram(SocketId::MAIN, address(2), &bytes, now, &mut Collect::new());
        }
        drain(&mut udx, now);
    }
}

#[test]
fn acknowledging_what_was_never_sent_changes_nothing() {
    let (mut udx, now) = connected();
    udx.write(A, payload(0, 5000), now).unwrap();
    drain(&mut udx, now);
    let before = udx.stats(A).unwrap();
    let header =
        Header { flags: flag::SACK, data_offset: 0, stream: A, window: 0, seq: 0, ack: 900 };
    let ack = [&header.encode()[..], &[9, 0, 0, 0, 90, 0, 0, 0]].concat();
    udx.handle_datagram(SocketId::MAIN, address(2), &ack, now, &mut Collect::new());
    drain(&mut udx, now);
    assert_eq!(udx.stats(A).unwrap(), before);
}

#[test]
fn a_peer_that_sacks_everything_but_never_acknowledges_is_given_up() {
    let (mut udx, mut now) = connected();
    udx.write(A, payload(0, 3000), now).unwrap();
    drain(&mut udx, now);
    let header =
        Header { flags: flag::SACK, data_offset: 0, stream: A, window: 1 << 20, seq: 0, ack: 0 };
    let sack = [&header.encode()[..], &[0, 0, 0, 0, 3, 0, 0, 0]].concat();
    for _ in 0..20 {
        udx.handle_datagram(SocketId::MAIN, address(2), &sack, now, &mut Collect::new());
        udx.end_of_batch(now);
        now = now.max(udx.poll_timeout().unwrap_or(now));
        udx.handle_timeout(now);
        if udx.poll_event() == Some(UdxEvent::Closed { id: A, reason: CloseReason::TimedOut }) {
            return;
        }
    }
    panic!("still waiting");
}

#[test]
fn a_flood_of_heartbeats_gets_one_answer_per_batch() {
    let (mut udx, now) = connected();
    let header =
        Header { flags: flag::HEARTBEAT, data_offset: 0, stream: A, window: 0, seq: 0, ack: 0 };
    for _ in 0..1000 {
        udx.handle_datagram(SocketId::MAIN, address(2), &header.encode(), now, &mut Collect::new());
    }
    assert_eq!(drain(&mut udx, now), 20);
}

#[test]
fn size_probes_are_answered_only_where_agreed() {
    let header =
        Header { flags: flag::SIZE_PROBE, data_offset: 0, stream: A, window: 0, seq: 0, ack: 0 };
    let probe = [&header.encode()[..], &[0; 8952]].concat();
    let (mut udx, now) = connected();
    udx.handle_datagram(SocketId::MAIN, address(2), &probe, now, &mut Collect::new());
    assert_eq!(drain(&mut udx, now), 24);
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    udx.open(Some(A)).unwrap();
    udx.connect(A, SocketId::MAIN, B, address(2), ConnectOptions::default(), now);
    udx.handle_datagram(SocketId::MAIN, address(2), &probe, now, &mut Collect::new());
    assert_eq!(drain(&mut udx, now), 0);
}
