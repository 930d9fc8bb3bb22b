//! Many hubs, lines that break, a writer that appends and truncates: in the end all agree.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const HUBS: usize = 5;

fn storm(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut sim = Sim::new(HUBS);
    let w = writer(rng.random_range(0..200));
    let mut cores = vec![w.clone()];
    cores.extend((1..HUBS).map(|_| reader()));
    let ids: Vec<CoreId> = (0..HUBS).map(|hub| sim.attach(hub, &cores[hub])).collect();
    for (hub, id) in ids.iter().enumerate().skip(1) {
        let now = sim.now;
        sim.hubs[hub].want_range(*id, 0..u64::MAX, rng.random(), now);
    }
    // The content of each block that the writer has now; truncation makes some of them others.
    let mut written: Vec<Bytes> = (0..length(&w)).map(|i| block(i).into()).collect();
    for round in 0..60u32 {
        match rng.random_range(0..10) {
            0..4 => {
                let (a, b) = (rng.random_range(0..HUBS), rng.random_range(0..HUBS));
                let latency = Duration::from_millis(rng.random_range(0..60));
                if a != b && sim.lines.len() < 16 {
                    let (ca, cb) = sim.connect(a, b, latency);
                    for end in [(a, ca), (b, cb)] {
                        let rate =
                            rng.random_bool(0.5).then(|| rng.random_range(20_000..2_000_000));
                        sim.lines.get_mut(&end).unwrap().rate = rate;
                    }
                }
            }
            4 | 5 => {
                let lines: Vec<_> = sim.lines.keys().copied().collect();
                if !lines.is_empty() {
                    sim.cut(lines[rng.random_range(0..lines.len())]);
                }
            }
            6 | 7 => {
                let blocks: Vec<Bytes> = (0..rng.random_range(1..40))
                    .map(|i| vec![round as u8, i, seed as u8].into())
                    .collect();
                w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
                written.extend(blocks);
                let now = sim.now;
                sim.hubs[0].core_changed(ids[0], now);
            }
            8 if rng.random_bool(0.3) => {
                let to = rng.random_range(0..=written.len());
                let fork = w.lock().unwrap().fork() + 1;
                w.lock().unwrap().truncate(to as u64, fork).unwrap();
                written.truncate(to);
                let now = sim.now;
                sim.hubs[0].core_changed(ids[0], now);
            }
            _ => {
                let hub = rng.random_range(1..HUBS);
                let block = rng.random_range(0..300);
                sim.want(hub, ids[hub], block);
                let now = sim.now;
                if rng.random() {
                    sim.hubs[hub].unwant_block(ids[hub], block, now);
                }
            }
        }
        sim.run(Duration::from_millis(rng.random_range(0..400)));
    }
    // The weather clears. Whatever the writer is at, a last append makes it the longest of its fork.
    let last = Bytes::from_static(b"last");
    w.lock().unwrap().append(std::slice::from_ref(&last), Durability::Buffered).unwrap();
    written.push(last);
    let now = sim.now;
    sim.hubs[0].core_changed(ids[0], now);
    for hub in 1..HUBS {
        sim.connect(hub, hub - 1, 5 * MS);
    }
    sim.run(Duration::from_secs(90));
    for (hub, core) in cores.iter().enumerate() {
        assert_eq!(sim.violations(hub), 0, "seed {seed} hub {hub}: {:?}", sim.events[hub]);
        let core = core.lock().unwrap();
        let state = (core.length(), core.blocks_here());
        assert_eq!(state, (written.len() as u64, written.len() as u64), "seed {seed} hub {hub}");
        for (i, want) in written.iter().enumerate() {
            assert_eq!(core.get(i as u64).unwrap().as_ref(), Some(want), "seed {seed} block {i}");
        }
    }
}

/// `SEED=n` runs one storm, `STORMS=n` that many.
#[test]
fn after_any_storm_all_have_what_was_written() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => storm(seed),
        None => (0..number("STORMS").unwrap_or(30)).for_each(storm),
    }
}
