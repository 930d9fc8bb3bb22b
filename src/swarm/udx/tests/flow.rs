//! Transfers over bad and over long paths.

use super::*;

pub(super) const MBIT: u64 = 125_000;

pub(super) fn path(
    rate_mbit: u64,
    rtt_ms: u64,
    queue_ms: u64,
    loss: f64,
) -> (LinkConfig, LinkConfig) {
    let latency = Duration::from_micros(rtt_ms * 500);
    let rate = rate_mbit * MBIT;
    let queue = (rate * queue_ms / 1000) as usize;
    let there = LinkConfig { rate: Some(rate), queue, latency, loss, ..LinkConfig::default() };
    let back = LinkConfig { latency, ..LinkConfig::default() };
    (there, back)
}

/// Share of the link that was payload over `secs` after `warm_up` seconds, and the share dropped by the queue overall.
fn utilization(config: (LinkConfig, LinkConfig), seed: u64, warm_up: u64, secs: u64) -> (f64, f64) {
    let rate = config.0.rate.unwrap() as f64;
    let mut pair = Pair::connected(config.0, config.1, seed);
    pair.machines[0].total = u64::MAX / 2;
    pair.run(Duration::from_secs(warm_up));
    let (from, at) = (pair.machines[1].sink.bytes, pair.elapsed());
    pair.run(Duration::from_secs(secs));
    let secs = (pair.elapsed() - at).as_secs_f64();
    assert!(pair.machines[1].sink.intact);
    let share = (pair.machines[1].sink.bytes - from) as f64 / secs / rate;
    let dropped = pair.link(0, 1).stats.overflowed as f64 / pair.link(0, 1).stats.sent as f64;
    let stats = pair.machines[0].udx.stats(A).unwrap();
    println!(
        "{:.1} % of the link, {:.2} % overflowed, {:?}, {stats:?}",
        share * 100.0,
        dropped * 100.0,
        pair.link(0, 1).stats
    );
    (share, dropped)
}

#[test]
fn fills_a_clean_long_path() {
    let (share, dropped) = utilization(path(100, 50, 100, 0.0), 1, 0, 25);
    assert!(share >= 0.93, "{share}");
    assert!(dropped < 0.03, "{dropped}");
}

#[test]
fn fills_a_long_path_with_one_percent_loss() {
    for seed in 1..4 {
        let (share, dropped) = utilization(path(100, 50, 100, 0.01), seed, 0, 25);
        assert!(share >= 0.92, "{share}");
        assert!(dropped < 0.03, "{dropped}");
    }
}

#[test]
fn copes_with_a_very_long_path_with_loss() {
    for seed in 1..4 {
        let (share, dropped) = utilization(path(100, 200, 100, 0.01), seed, 0, 30);
        assert!(share >= 0.75, "{share}");
        assert!(dropped < 0.03, "{dropped}");
    }
}

#[test]
fn random_losses_are_not_taken_for_a_full_queue() {
    for (rtt, loss, least) in
        [(10, 0.01, 0.93), (20, 0.05, 0.85), (50, 0.02, 0.89), (50, 0.05, 0.85)]
    {
        for seed in 1..4 {
            let (share, _) = utilization(path(100, rtt, 100, loss), seed, 0, 25);
            assert!(share >= least, "{rtt} ms, {loss}: {share}");
        }
    }
}

#[test]
fn random_losses_on_a_path_that_jitters_are_not_taken_for_a_full_queue() {
    for (rate, rtt, jitter, loss) in [
        (100, 50, 5, 0.003),
        (100, 50, 10, 0.003),
        (100, 50, 20, 0.01),
        (100, 10, 5, 0.003),
        (100, 10, 10, 0.01),
        (20, 40, 10, 0.003),
        (20, 40, 20, 0.01),
    ] {
        for seed in 1..4 {
            let (mut there, mut back) = path(rate, rtt, 100, loss);
            there.jitter = Duration::from_millis(jitter);
            back.jitter = there.jitter / 2;
            let (share, _) = utilization((there, back), seed, 0, 15);
            assert!(share >= 0.85, "{rate} Mbit/s, {rtt} ms, jitter {jitter}, {loss}: {share}");
        }
    }
}

#[test]
fn a_very_long_path_with_heavy_losses_is_full_after_seconds() {
    for seed in 1..5 {
        let (share, _) = utilization(path(20, 250, 100, 0.05), seed, 3, 10);
        assert!(share >= 0.7, "{share}");
    }
}

#[test]
fn a_start_overflows_a_short_queue_no_sooner_than_the_link_is_full() {
    for (rtt, queue) in [(200, 20), (200, 10), (100, 10)] {
        let (there, back) = path(100, rtt, queue, 0.0);
        let pipe = there.rate.unwrap() * rtt / 1000;
        let mut pair = Pair::connected(there, back, 1);
        pair.machines[0].total = u64::MAX / 2;
        let overflows = |pair: &mut Pair| pair.link(0, 1).stats.overflowed > 0;
        while !overflows(&mut pair) {
            pair.run(Duration::from_millis(1));
        }
        let in_flight = pair.machines[0].udx.stats(A).unwrap().in_flight;
        println!("{rtt} ms, queue {queue} ms: {in_flight} of {pipe} when it overflows");
        assert!(in_flight > pipe / 2, "{rtt} ms, queue {queue} ms: {in_flight} of {pipe}");
    }
}

/// Share of the link that 128 MiB have from their first byte to their last, on a path that jitters by half a millisecond.
fn share_of_a_transfer(config: (LinkConfig, LinkConfig), seed: u64) -> f64 {
    const SIZE: u64 = 128 << 20;
    let (mut there, mut back) = config;
    back.loss = there.loss;
    (there.jitter, back.jitter) = (Duration::from_micros(500), Duration::from_micros(500));
    let rate = there.rate.unwrap() as f64;
    let mut pair = Pair::connected(there, back, seed);
    pair.machines[0].total = SIZE;
    let all = |pair: &Pair| pair.machines[1].sink.bytes == SIZE;
    assert!(pair.run_until(Duration::from_secs(60), all).is_some());
    assert!(pair.machines[1].sink.intact);
    SIZE as f64 / pair.elapsed().as_secs_f64() / rate
}

#[test]
fn a_transfer_has_its_share_of_long_and_thin_links_from_the_start() {
    for (rtt, queue, loss, least) in [
        (50, 100, 0.0, 0.935),
        (50, 100, 0.01, 0.925),
        (50, 100, 0.05, 0.88),
        (200, 100, 0.0, 0.8),
        (200, 100, 0.01, 0.8),
        // A queue that is much shorter than the round trip overflows of a start in bursts.
        (200, 20, 0.01, 0.65),
    ] {
        for seed in 1..3 {
            let share = share_of_a_transfer(path(100, rtt, queue, loss), seed);
            println!("{rtt} ms, queue {queue} ms, loss {loss}: {share:.3}");
            assert!(share >= least, "{rtt} ms, queue {queue} ms, loss {loss}: {share}");
        }
    }
}

#[test]
fn a_queue_that_runs_empty_is_not_emptied_in_order_to_see_it() {
    let (there, back) = path(100, 50, 100, 0.01);
    let pipe = there.rate.unwrap() / 20;
    let mut pair = Pair::connected(there, back, 1);
    pair.machines[0].total = u64::MAX / 2;
    pair.run(Duration::from_secs(5));
    for _ in 0..4000 {
        pair.run(Duration::from_millis(10));
        let in_flight = pair.machines[0].udx.stats(A).unwrap().in_flight;
        assert!(in_flight > pipe * 3 / 5, "{in_flight} after {:?}", pair.elapsed());
    }
}

#[test]
fn keeps_going_on_a_slow_path_with_a_short_queue() {
    let (share, _) = utilization(path(2, 30, 40, 0.0), 1, 2, 30);
    assert!(share >= 0.85, "{share}");
}

fn ugly(seed: u64) -> LinkConfig {
    let dice = |n: u64| (seed.wrapping_mul(2_654_435_761) >> (n * 4)) % 8;
    LinkConfig {
        rate: (dice(0) < 5).then_some((1 + dice(1)) * 4 * MBIT),
        queue: 30_000 + dice(2) as usize * 20_000,
        latency: Duration::from_micros(50 + dice(3) * dice(3) * 1_500),
        jitter: Duration::from_micros(dice(4) * 800),
        loss: dice(5) as f64 * 0.02,
        duplicate: dice(6) as f64 * 0.01,
        reorder: dice(7) as f64 * 0.02,
        reorder_delay: Duration::from_millis(dice(0) * 2),
        max_datagram: if dice(1) < 2 { 1300 } else { 1472 },
        ..LinkConfig::default()
    }
}

#[test]
fn every_byte_arrives_in_order_over_ugly_paths() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let opts = ConnectOptions {
            initial_seq: (seed as u32).wrapping_neg().wrapping_mul(7),
            ..Default::default()
        };
        let mut pair = Pair::connected_with(ugly(seed), ugly(seed + 1000), seed, &opts);
        pair.machines[0].total = 400_000;
        pair.machines[1].total = 60_000;
        pair.end_when_written();
        let done = pair
            .run_until(Duration::from_secs(600), |p| {
                p.machines[0].closed().is_some() && p.machines[1].closed().is_some()
            })
            .is_some();
        let context = format!(
            "seed {seed}: {:?} {:?} {:?}",
            pair.elapsed(),
            pair.machines[0].events,
            pair.machines[1].events
        );
        assert!(done, "{context}");
        assert_eq!(
            (pair.machines[0].closed(), pair.machines[1].closed()),
            (Some(CloseReason::Ended), Some(CloseReason::Ended)),
            "{context}"
        );
        assert_eq!(
            (pair.machines[0].sink.bytes, pair.machines[1].sink.bytes),
            (60_000, 400_000),
            "{context}"
        );
        assert!(pair.machines[0].sink.intact && pair.machines[1].sink.intact, "{context}");
    }
}

#[test]
fn agreed_large_datagrams_are_found_and_used() {
    for (path, expected) in [(65_507, 32_028), (9_000, 9_000), (1_472, 1_500), (1_400, 1_424)] {
        let link = LinkConfig {
            max_datagram: path,
            latency: Duration::from_micros(50),
            ..LinkConfig::default()
        };
        let opts = ConnectOptions { max_datagram: MAX_DATAGRAM, ..ConnectOptions::default() };
        let mut pair = Pair::connected_with(link.clone(), link, 1, &opts);
        pair.machines[0].total = u64::MAX / 2;
        pair.run_until(Duration::from_secs(1), |p| {
            p.machines[0].udx.stats(A).unwrap().mtu == expected
        });
        pair.run(Duration::from_millis(20));
        assert!(pair.machines[1].sink.intact && pair.machines[1].sink.bytes > 1 << 20);
        assert_eq!(pair.machines[0].udx.stats(A).unwrap().mtu, expected);
    }
}

#[test]
fn a_lost_last_packet_is_repaired_by_a_probe_not_by_the_timeout() {
    let mut pair = Pair::connected(LinkConfig::default(), LinkConfig::default(), 1);
    pair.machines[0].total = 20_000;
    assert!(
        pair.run_until(Duration::from_secs(1), |p| p.machines[1].sink.bytes == 20_000).is_some()
    );
    pair.run(Duration::from_millis(100));
    pair.link(0, 1).cfg.loss = 1.0;
    pair.machines[0].total = 20_100;
    pair.settle();
    pair.link(0, 1).cfg.loss = 0.0;
    let at = pair.elapsed();
    assert!(
        pair.run_until(Duration::from_secs(5), |p| p.machines[1].sink.bytes == 20_100).is_some()
    );
    assert!(pair.elapsed() - at < Duration::from_millis(100));
}

#[test]
fn a_slow_reader_stops_the_sender_and_reading_on_wakes_it() {
    let mut pair = Pair::connected(LinkConfig::default(), LinkConfig::default(), 1);
    pair.machines[0].total = 64 << 20;
    while pair.machines[1].sink.bytes < MAX_WINDOW as u64 {
        assert!(pair.step());
        let backlog = pair.machines[1].sink.bytes as usize;
        pair.machines[1].udx.set_backlog(B, backlog);
        if pair.elapsed() > Duration::from_secs(5) {
            break;
        }
    }
    let stuck = pair.machines[1].sink.bytes;
    assert!(stuck <= MAX_WINDOW as u64 + (1 << 20), "{stuck}");
    pair.machines[1].udx.set_backlog(B, MAX_WINDOW);
    pair.run(Duration::from_secs(10));
    assert!(pair.machines[1].sink.bytes - stuck <= 1 << 20);
    pair.machines[1].udx.set_backlog(B, 0);
    let at = pair.elapsed();
    assert!(
        pair.run_until(Duration::from_secs(60), |p| p.machines[1].sink.bytes == 64 << 20).is_some()
    );
    assert!(pair.elapsed() - at < Duration::from_secs(5));
}

#[test]
fn a_stream_that_begins_late_is_as_fast_as_one_at_the_start() {
    let link = LinkConfig { latency: Duration::from_millis(25), ..LinkConfig::default() };
    let took = |late: u64| {
        let mut pair = Pair::of_links(link.clone(), link.clone(), 1);
        let start = pair.now;
        pair.now += Duration::from_secs(late);
        for (side, (remote, port)) in pair.machines.iter_mut().zip([(B, 2), (A, 1)]) {
            // The machine itself has run since the start.
            side.udx.handle_timeout(start);
            side.connect(remote, address(port), ConnectOptions::default(), pair.now);
        }
        let at = pair.now;
        pair.machines[0].total = 64 << 10;
        assert!(
            pair.run_until(Duration::from_secs(5), |p| p.machines[1].sink.bytes == 64 << 10)
                .is_some()
        );
        pair.now - at
    };
    let first = took(0);
    assert!(first < Duration::from_millis(100), "{first:?}");
    for late in [9, 11, 60, 86_400] {
        assert_eq!(took(late), first, "{late} s after the start");
    }
}
