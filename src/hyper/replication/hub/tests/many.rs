//! One reader and several servers, each on a line of its own: all lines are used, and hardly a byte comes twice.

use super::*;

const SERVERS: usize = 4;
const READER: usize = SERVERS;
/// 25 Mbit/s.
const RATE: u64 = 3_125_000;
const BLOCK: usize = 64 * 1024;
/// 48 MiB.
const BLOCKS: u64 = 768;
const SIZE: u64 = BLOCKS * BLOCK as u64;
/// What a reader in order has asked for ahead, as a mount does.
const AHEAD: u64 = 256;
/// Blocks of one read of the kernel, and reads of it under way.
const READ: u64 = 2;
const READS: u64 = 8;

/// Servers on lines of `rates`, with a core of 48 MiB that a reader knows the head of.
struct Swarm {
    sim: Sim,
    core: CoreId,
    r: SharedCore,
    /// The servers' ends of the lines.
    ends: Vec<ConnId>,
}

fn swarm(rates: [u64; SERVERS]) -> Swarm {
    let w = share(writer_of(0));
    let block = |i: u64| Bytes::from(vec![i as u8; BLOCK]);
    let blocks: Vec<Bytes> = (0..BLOCKS).map(block).collect();
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    let (mut sim, r) = (Sim::new(SERVERS + 1), reader());
    let core = sim.attach(READER, &r);
    let ends = (0..SERVERS).map(|hub| {
        sim.attach(hub, &w);
        let (_, end) = sim.connect(READER, hub, 10 * MS);
        sim.lines.get_mut(&(hub, end)).unwrap().rate = Some(rates[hub]);
        end
    });
    let ends = ends.collect();
    sim.run(Duration::from_secs(1));
    assert_eq!(length(&r), BLOCKS);
    Swarm { sim, core, r, ends }
}

impl Swarm {
    fn received(&self) -> u64 {
        (0..SERVERS).map(|hub| self.sim.lines[&(hub, self.ends[hub])].sent).sum()
    }

    fn set_stuck(&mut self, hub: usize) {
        self.sim.lines.get_mut(&(hub, self.ends[hub])).unwrap().stuck = true;
    }

    /// Fetches everything as `seed` does.
    fn download(&mut self) -> Duration {
        let (start, core) = (self.sim.now, self.core);
        let range = self.sim.hubs[READER].want_range(core, 0..BLOCKS, true, start);
        let done = HubEvent::RangeDone { core, range };
        let all = self.sim.run_until(Duration::from_secs(60), |s| s.has_event(READER, &done));
        assert!(all, "{} of {BLOCKS} blocks", here(&self.r));
        self.sim.now - start
    }

    /// Reads blocks from `from` on in order, as a mount does: some that are waited for, more that are fetched ahead.
    /// Gives the time and the longest that the reader stood still.
    fn read(&mut self, from: u64, to: u64) -> (Duration, Duration) {
        let (start, core) = (self.sim.now, self.core);
        let (mut at, mut waited, mut ahead) = (from, from, from);
        let (mut last, mut longest) = (start, Duration::ZERO);
        while at < to {
            let now = self.sim.now;
            while ahead < to && ahead < at + AHEAD {
                let end = (ahead + AHEAD / 8).min(to);
                self.sim.hubs[READER].want_range(core, ahead..end, true, now);
                ahead = end;
            }
            while waited < to && waited < at + READ * READS {
                self.sim.want(READER, core, waited);
                waited += 1;
            }
            let r = self.r.clone();
            let next = |_: &mut Sim| r.lock().unwrap().has(at);
            assert!(self.sim.run_until(Duration::from_secs(30), next), "block {at} never came");
            at += 1;
            longest = longest.max(self.sim.now - last);
            last = self.sim.now;
        }
        (last - start, longest)
    }
}

fn mbit(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e6 / time.as_secs_f64()
}

#[test]
fn four_servers_are_as_fast_as_their_lines_together_and_send_nothing_twice() {
    for read in [false, true] {
        let mut swarm = swarm([RATE; SERVERS]);
        let time = if read { swarm.read(0, BLOCKS).0 } else { swarm.download() };
        swarm.sim.run(Duration::from_secs(5));
        let (rate, received) = (mbit(SIZE, time), swarm.received() as f64 / SIZE as f64);
        println!("read {read}: {rate:.1} Mbit/s, received {received:.3} x");
        assert!(rate >= 95.0, "read {read}: {rate:.1} of 100 Mbit/s");
        assert!(received <= 1.02, "read {read}: {received:.3} times the file");
    }
}

#[test]
fn servers_of_all_speeds_are_used_as_they_are_able() {
    let rates = [RATE / 10, RATE, RATE * 4, RATE];
    let sum = rates.iter().sum::<u64>() as f64 * 8.0 / 1e6;
    for read in [false, true] {
        let mut swarm = swarm(rates);
        let time = if read { swarm.read(0, BLOCKS).0 } else { swarm.download() };
        swarm.sim.run(Duration::from_secs(5));
        let (rate, received) = (mbit(SIZE, time), swarm.received() as f64 / SIZE as f64);
        println!("read {read}: {rate:.1} of {sum:.1} Mbit/s, received {received:.3} x");
        assert!(rate >= 0.8 * sum, "read {read}: {rate:.1} of {sum:.1} Mbit/s");
        assert!(received <= 1.05, "read {read}: {received:.3} times the file");
    }
}

#[test]
fn a_server_that_stops_in_the_middle_costs_less_than_a_second() {
    for after in [300, 1000, 2000] {
        let mut swarm = swarm([RATE; SERVERS]);
        let (mut begun, until) = (0, swarm.sim.now + after * MS);
        while swarm.sim.now < until {
            swarm.read(begun, begun + 16);
            begun += 16;
        }
        let before = swarm.received();
        swarm.set_stuck(1);
        let (time, longest) = swarm.read(begun, BLOCKS);
        let ideal = (SIZE - begun * BLOCK as u64) as f64 / (3 * RATE) as f64;
        let lost = time.as_secs_f64() - ideal;
        println!("after {after} ms: {lost:.2} s lost, stood still for {longest:?}");
        assert!(lost < 1.0, "after {after} ms: {lost:.2} s lost");
        assert!(longest < Duration::from_secs(1), "after {after} ms: stood still for {longest:?}");
        assert!(swarm.received() - before < SIZE, "after {after} ms");
        assert_true_bytes(&swarm.r);
    }
}

fn assert_true_bytes(core: &SharedCore) {
    let core = core.lock().unwrap();
    for i in 0..core.length() {
        assert!(core.get(i).unwrap().unwrap().iter().all(|byte| *byte == i as u8), "block {i}");
    }
}
