//! Victims who answer for an attacker: they have a stream with him, and take for its packets what we send them.

use super::super::packet::Header;
use super::*;

const STEP: Duration = Duration::from_millis(10);

/// We, at address 1, were told by the attacker, at 9, that he is at 2: there is the victim, who has a stream with him.
struct Reflection {
    now: Instant,
    us: Udx,
    victim: Udx,
    towards_victim: usize,
    by_attacker: usize,
    written: u64,
}

impl Reflection {
    fn new(seed: u64) -> Self {
        let now = epoch();
        let open = |id, remote, to, unproven, seed| {
            let mut udx = Udx::new(StdRng::seed_from_u64(seed), UdxConfig::default());
            let options = ConnectOptions { unproven, ..ConnectOptions::default() };
            udx.open(Some(id)).unwrap();
            udx.connect(id, SocketId::MAIN, remote, to, options, now);
            udx.write(id, payload(0, 59), now).unwrap();
            udx
        };
        let us = open(A, B, address(2), Some(237), seed);
        let victim = open(B, 0x9999, address(9), None, seed + 1000);
        let mut all = Self { now, us, victim, towards_victim: 0, by_attacker: 0, written: 59 };
        // Our first packet has gone before he speaks.
        while all.us.poll_transmit(now, &mut Vec::new(), 1).is_some() {}
        let hello = |stream, len| {
            let header = Header {
                flags: flag::DATA,
                data_offset: 0,
                stream,
                window: 4 << 20,
                seq: 0,
                ack: 0,
            };
            [&header.encode()[..], &vec![7; len]].concat()
        };
        all.towards_victim(&hello(B, 59), address(9));
        // In the name of the victim.
        all.towards_us(&hello(A, 259), address(2));
        all.us.peer_known(A);
        all
    }

    fn towards_victim(&mut self, datagram: &[u8], from: SocketAddr) {
        let sink = &mut Collect::new();
        self.victim.handle_datagram(SocketId::MAIN, from, datagram, self.now, sink);
        self.victim.end_of_batch(self.now);
    }

    fn towards_us(&mut self, datagram: &[u8], from: SocketAddr) {
        self.by_attacker += datagram.len();
        let sink = &mut Collect::new();
        self.us.handle_datagram(SocketId::MAIN, from, datagram, self.now, sink);
        self.us.end_of_batch(self.now);
    }

    fn wait(&mut self) {
        self.now += STEP;
        for udx in [&mut self.us, &mut self.victim] {
            if udx.poll_timeout().is_some_and(|at| at <= self.now) {
                udx.handle_timeout(self.now);
            }
        }
    }

    /// What we send, all of it to the victim. He has asked for more than he can be sent.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        while self.us.streams.has(A) && self.us.unsent(A) < 1 << 20 {
            self.us.write(A, payload(self.written, 65_536), self.now).unwrap();
            self.written += 65_536;
        }
        let (mut buf, mut sent) = (Vec::new(), vec![]);
        while let Some(transmit) = self.us.poll_transmit(self.now, &mut buf, 1) {
            assert_eq!(transmit.to, address(2));
            self.towards_victim += buf.len();
            sent.push(buf.clone());
        }
        sent
    }

    /// The victim takes what comes, reports it to the attacker, and he passes it on as if from `from`.
    fn reflect(&mut self, from: SocketAddr) {
        for datagram in self.sent() {
            self.towards_victim(&datagram, address(1));
        }
        let (mut buf, mut reports) = (Vec::new(), vec![]);
        while let Some(transmit) = self.victim.poll_transmit(self.now, &mut buf, 1) {
            assert_eq!(transmit.to, address(9));
            reports.push(buf.clone());
        }
        for mut report in reports {
            let header = Packet::parse(&report).unwrap().header;
            if !header.has(flag::DATA | flag::HEARTBEAT) {
                report[4..8].copy_from_slice(&A.to_le_bytes());
                self.towards_us(&report, from);
            }
        }
        self.wait();
    }
}

#[test]
fn what_a_victim_reported_makes_us_send_it_nothing_for_long_once_it_has_gone() {
    // He acknowledges in its name or in his own, more and more, or cautiously, or what comes behind the next question.
    for seed in 0..60u64 {
        let mut all = Reflection::new(seed);
        for _ in 0..200 {
            all.reflect(address(2));
            if all.us.streams.get(A).is_some_and(|stream| stream.unproven.is_none()) {
                break;
            }
        }
        assert!(all.us.streams.get(A).unwrap().was_proven, "{seed}");
        // Some go on for a while.
        let more = [0, 20, 60][seed as usize % 3];
        (0..more).for_each(|_| all.reflect(address(9)));
        let before = all.towards_victim;
        all.victim.destroy(B);
        let (from, mut next) = ([address(2), address(9)][seed as usize % 2], 0);
        let first = all.us.streams.get(A).map_or(0, |stream| stream.sent.una() as u32);
        for step in 0..3000u32 {
            for datagram in all.sent() {
                next = next.max(Packet::parse(&datagram).unwrap().header.seq + 1);
            }
            let guess = (step / 4) * (1 + step / 100);
            let ack = match seed / 6 % 3 {
                0 => next,
                1 => first + guess,
                _ => first + guess / 20,
            };
            let header = Header {
                flags: 0,
                data_offset: 0,
                stream: A,
                window: 4 << 20,
                seq: 1,
                ack: ack.min(next),
            };
            all.towards_us(&header.encode(), from);
            all.wait();
        }
        let after = all.towards_victim - before;
        let allowed = 2 * before + (512 << 10) + 3 * all.by_attacker;
        assert!(after < allowed, "{seed}: {before}, then {after} for {}", all.by_attacker);
    }
}

#[test]
fn a_victim_that_took_much_gets_no_more_than_a_stretch_once_it_has_gone() {
    for seed in 0..3 {
        let mut all = Reflection::new(seed);
        for _ in 0..200 {
            all.reflect(address(2));
            if all.us.streams.get(A).is_some_and(|stream| stream.unproven.is_none()) {
                break;
            }
        }
        // It takes one long message, and goes when it has just answered. In his own name he could report nothing.
        let mut asked = false;
        for _ in 0..20_000 {
            all.reflect(address(2));
            let asks = all.us.streams.get(A).is_some_and(|stream| stream.unproven.is_some());
            if all.towards_victim > 12 << 20 && asked && !asks {
                break;
            }
            asked = asks;
        }
        assert!(all.towards_victim > 12 << 20, "{seed}: {}", all.towards_victim);
        let (before, paid) = (all.towards_victim, all.by_attacker);
        all.victim.destroy(B);
        let mut next = 0;
        for _ in 0..5000 {
            for datagram in all.sent() {
                next = next.max(Packet::parse(&datagram).unwrap().header.seq + 1);
            }
            if next > 0 && all.us.streams.get(A).is_some_and(|s| s.sent.in_flight() > 0) {
                let (flags, window) = (0, 4 << 20);
                let header = Header { flags, data_offset: 0, stream: A, window, seq: 1, ack: next };
                all.towards_us(&header.encode(), address(2));
            }
            all.wait();
        }
        let after = all.towards_victim - before;
        let allowed = (9 << 20) + (64 << 10) + 3 * (all.by_attacker - paid);
        assert!(after < allowed, "{seed}: {after} for {}", all.by_attacker - paid);
    }
}

#[test]
fn a_first_answer_counts_only_from_where_the_stream_leads() {
    for seed in 0..20 {
        let mut all = Reflection::new(seed);
        for _ in 0..2000 {
            all.reflect(address(9));
            if all.us.remote(A) != Some(address(2)) {
                break;
            }
            assert!(!all.us.streams.get(A).unwrap().was_proven, "{seed}");
        }
        // In the end it leads to him.
        assert!(all.us.remote(A).is_none_or(|to| to == address(9)), "{seed}");
        assert!(all.towards_victim < 5000, "{}", all.towards_victim);
    }
}
