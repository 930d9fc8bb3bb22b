//! Paths that become narrower under a transfer, and others that only look like it.
//!
//! What must travel in parts does so here, and comes together again.

use super::flow::path;
use super::*;

#[test]
fn a_path_that_becomes_narrower_under_a_transfer_does_not_end_it() {
    // (what the path takes at first, afterwards, what both sides agreed on)
    for (before, after, agreed) in [
        (1472, 1400, ORDINARY_MAX),
        (1472, 1172, ORDINARY_MAX),
        (1300, 1200, ORDINARY_MAX),
        (65_507, 1472, MAX_DATAGRAM),
        (8972, 1250, MAX_DATAGRAM),
    ] {
        for seed in 0..4 {
            let (mut there, back) = path(50, 40, 200, 0.0);
            (there.max_datagram, there.queue) = (before, usize::MAX);
            let opts = ConnectOptions { max_datagram: agreed, ..ConnectOptions::default() };
            let mut pair = Pair::connected_with(there, back, seed, &opts);
            pair.machines[0].total = 12 << 20;
            pair.end_when_written();
            pair.run(Duration::from_millis(900 + 37 * seed));
            pair.link(0, 1).cfg.max_datagram = after;
            let at = pair.elapsed();
            let context = format!("{before} {after} seed {seed}");
            let all = |p: &Pair| p.machines[1].events.contains(&UdxEvent::RemoteEnded { id: B });
            let done = pair.run_until(Duration::from_secs(30), all).is_some();
            let (got, closed) = (pair.machines[1].sink.bytes, pair.machines[0].closed());
            assert!(
                done,
                "{context}: {got} bytes, {closed:?}, {:?}",
                pair.machines[0].udx.stats(A)
            );
            assert!(pair.machines[1].sink.intact && got == 12 << 20, "{context}");
            let took = pair.elapsed() - at;
            assert!(took < Duration::from_secs(15), "{context}: {took:?}");
        }
    }
}

#[test]
fn a_peer_that_stands_still_is_not_taken_for_a_narrow_path() {
    // Whatever was sent meanwhile arrives at once: had it been cut anew, bytes would come twice.
    for (seed, pause) in [(1, 4), (2, 6), (3, 8), (4, 10)] {
        let (there, back) = path(50, 40, 200, 0.0);
        let mut pair = Pair::connected(there, back, seed);
        pair.machines[0].total = 10 << 20;
        pair.machines[1].total = 10 << 20;
        pair.run(Duration::from_millis(800));
        // B reads nothing and sends nothing: both directions take that much longer.
        pair.link(0, 1).cfg.latency += Duration::from_secs(pause);
        pair.run(Duration::from_secs(pause));
        pair.link(0, 1).cfg.latency -= Duration::from_secs(pause);
        pair.run_until(Duration::from_secs(60), |p| {
            p.machines[1].sink.bytes == 10 << 20 && p.machines[0].sink.bytes == 10 << 20
        });
        assert!(pair.machines[0].sink.intact && pair.machines[1].sink.intact, "seed {seed}");
    }
}

#[test]
fn where_not_even_parts_pass_the_stream_ends_and_what_came_is_right() {
    let (mut there, back) = path(50, 40, 200, 0.0);
    there.queue = usize::MAX;
    let mut pair = Pair::connected(there, back, 1);
    pair.machines[0].total = 12 << 20;
    pair.run(Duration::from_millis(900));
    pair.link(0, 1).cfg.max_datagram = 1250;
    pair.tap = Some(Box::new(|datagram| datagram.bytes[0] != FRAGMENT));
    let ended = pair.run_until(Duration::from_secs(30), |p| p.machines[0].closed().is_some());
    assert!(ended.is_some_and(|took| took < Duration::from_secs(15)), "{ended:?}");
    assert_eq!(pair.machines[0].closed(), Some(CloseReason::TimedOut));
    assert!(pair.machines[1].sink.intact);
}

#[test]
fn a_path_that_stands_still_while_the_peer_tells_of_its_window_changes_no_bytes() {
    let total = 12 << 20;
    for stall in [4000u64, 5000, 6000, 8000] {
        for update in (2500..stall).step_by(500).map(Some).chain([None]) {
            let (mut there, back) = path(20, 40, 200, 0.0);
            there.queue = 500_000;
            let mut pair = Pair::connected(there, back, 3);
            pair.machines[0].total = total;
            pair.run(Duration::from_secs(2));
            // The owner is slow.
            pair.machines[1].udx.set_backlog(B, 3 << 20);
            pair.run(Duration::from_millis(300));
            for ms in (0..stall).step_by(50) {
                // Whatever is sent meanwhile arrives when it goes on.
                pair.link(0, 1).cfg.latency = Duration::from_millis(20 + stall - ms);
                if update == Some(ms) {
                    pair.machines[1].udx.set_backlog(B, 0);
                }
                pair.run(Duration::from_millis(50));
            }
            pair.link(0, 1).cfg.latency = Duration::from_millis(20);
            pair.machines[1].udx.set_backlog(B, 0);
            let all = |p: &Pair| p.machines[1].sink.bytes >= total;
            let done = pair.run_until(Duration::from_secs(30), all).is_some();
            let context = format!("stall {stall}, update {update:?}");
            assert_eq!(pair.machines[0].closed(), None, "{context}");
            pair.run(Duration::from_secs(5));
            assert!(done && pair.machines[1].sink.intact, "{context}");
            assert_eq!(pair.machines[1].sink.bytes, total, "{context}");
        }
    }
}

#[test]
fn copies_that_come_however_late_change_no_bytes() {
    // The path becomes narrower; what it had taken before is held back and overtaken by everything.
    for late in [500, 2500, 3500, 5000, 9000] {
        for seed in 0..4 {
            let (mut there, back) = path(50, 40, 200, 0.0);
            there.reorder_delay = Duration::from_millis(late);
            let mut pair = Pair::connected(there, back, seed);
            pair.machines[0].total = 6 << 20;
            pair.run(Duration::from_millis(700));
            pair.link(0, 1).cfg.reorder = 0.5;
            pair.run(Duration::from_millis(200));
            pair.link(0, 1).cfg.reorder = 0.0;
            pair.link(0, 1).cfg.max_datagram = 1250;
            let all = |p: &Pair| p.machines[1].sink.bytes >= 6 << 20;
            let done = pair.run_until(Duration::from_secs(30), all).is_some();
            pair.run(Duration::from_secs(10));
            let context = format!("late {late}, seed {seed}");
            assert!(done && pair.machines[1].sink.intact, "{context}");
            assert_eq!(pair.machines[1].sink.bytes, 6 << 20, "{context}");
        }
    }
}
