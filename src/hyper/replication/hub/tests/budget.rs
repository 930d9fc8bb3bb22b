//! Peers that fill whatever can be filled, over many cores and many connections.

use super::speed::cpu;
use super::*;

const MIB: usize = 1 << 20;
const CORES: u8 = 12;

struct Flood {
    hub: Hub,
    muxes: Vec<Mux>,
    now: Instant,
}

fn info(conn: usize) -> ConnInfo {
    let handshake_hash = std::array::from_fn(|i| (i + conn) as u8);
    ConnInfo { handshake_hash, initiator: true, remote: PublicKey([conn as u8; 32]) }
}

impl Flood {
    /// A hub with some cores, and connections of which each has opened all of them.
    fn new(conns: usize, limits: Limits) -> Self {
        let mut hub = Hub::new(limits);
        let now = epoch();
        for pair in 0..CORES {
            hub.attach(share(writer_of(pair)), AttachOptions { downloading: false, ..LIVE }, now);
        }
        let mut flood = Self { hub, muxes: Vec::new(), now };
        for conn in 0..conns {
            flood.hub.handle_connected(ConnId(conn as u64), info(conn), now);
            flood.muxes.push(Mux::new(super::super::super::connection::PROTOCOLS));
            for pair in 0..CORES {
                let key = *writer_of(pair).key();
                let capability = wire::capability(&info(conn).handshake_hash, &key, false);
                let handshake = wire::Handshake { seeks: true, capability }.encode();
                flood.muxes[conn].open(wire::PROTOCOL, &key.discovery_key().0, &handshake);
            }
            flood.flush(conn);
            for channel in 1..=u64::from(CORES) {
                let sync = wire::Sync {
                    length: 1 << 39,
                    uploading: true,
                    downloading: true,
                    ..wire::Sync::default()
                };
                flood.say(conn, channel, &Message::Sync(sync));
            }
        }
        flood
    }

    fn say(&mut self, conn: usize, channel: u64, message: &Message) {
        let mux = &mut self.muxes[conn];
        mux.send_sized(channel, message.kind(), message.size_hint(), |out| message.encode(out));
        if mux.queued() > 16 << 10 {
            self.flush(conn);
        }
    }

    fn flush(&mut self, conn: usize) {
        let id = ConnId(conn as u64);
        while let Some(frame) = self.muxes[conn].poll_transmit() {
            self.hub.handle_frame(id, frame.payload().to_vec().into(), self.now);
        }
        while self.hub.poll_transmit().is_some() {}
        while self.hub.poll_event().is_some() {}
    }

    fn held(&self) -> Vec<usize> {
        self.hub.conns.values().map(|conn| conn.held.bytes()).collect()
    }

    /// What is really there.
    fn tables(&self) -> usize {
        let peers = self.hub.replicas.values().flat_map(|replica| replica.peers.values());
        peers.map(|peer| peer.bits.held() + peer.uploads.held() + peer.remote_wants.held()).sum()
    }
}

#[test]
fn bitfields_of_many_cores_are_bounded_for_one_connection_and_for_all() {
    let limits =
        Limits { held_of_one: 4 * MIB, held: 10 * MIB, fair_share: MIB / 4, ..Limits::default() };
    let mut flood = Flood::new(4, limits);
    for conn in 0..4 {
        for channel in 1..=u64::from(CORES) {
            for page in 0..200 {
                let start = page * 2 * 32_768 + 1;
                flood.say(conn, channel, &Message::Range { drop: false, start, length: 1 });
                let words = vec![0x5555_5555; 1024];
                flood.say(conn, channel, &Message::Bitfield { start: (start + 300) & !31, words });
            }
        }
        flood.flush(conn);
    }
    let held = flood.held();
    assert!(held.iter().all(|bytes| *bytes <= 4 * MIB), "{held:?}");
    assert!(held.iter().all(|bytes| *bytes >= MIB / 4 - 8192), "each has its share: {held:?}");
    assert!(flood.hub.held <= 10 * MIB + MIB / 4, "{}", flood.hub.held);
    assert_eq!(held.iter().sum::<usize>(), flood.hub.held);
    assert!(flood.tables() <= flood.hub.held && flood.tables() > 9 * MIB, "{}", flood.tables());
    for conn in 0..4 {
        flood.hub.handle_closed(ConnId(conn), flood.now);
    }
    assert_eq!(flood.hub.held, 0, "what is gone is not counted any more");
}

#[test]
fn requests_about_many_cores_are_bounded_for_one_connection() {
    let limits = Limits { held_of_one: MIB, ..Limits::default() };
    let mut flood = Flood::new(1, limits);
    // It reads nothing, so nothing is answered.
    let now = flood.now;
    for channel in 1..=u64::from(CORES) {
        for id in 1..=2000 {
            flood.hub.handle_queued(ConnId(0), 3 << 20, now);
            let request = crate::hyper::core::Request {
                block: Some(crate::hyper::core::message::NodeRequest { index: id, nodes: 0 }),
                ..Default::default()
            };
            let message = wire::RequestMessage { id, fork: 0, request };
            flood.say(0, channel, &Message::Request(message));
            let want = wire::Want { start: id * 4096, length: 4096, any: id % 2 == 0 };
            flood.say(0, channel, &Message::Want(want));
        }
    }
    let held = flood.held()[0];
    assert!(held <= MIB && held > MIB * 9 / 10, "{held}");
    assert_eq!(flood.hub.held, held);
    flood.hub.handle_queued(ConnId(0), 0, now);
    flood.flush(0);
    flood.hub.handle_queued(ConnId(0), 0, now);
    while flood.hub.poll_transmit().is_some() {
        flood.hub.handle_queued(ConnId(0), 0, now);
    }
    assert!(flood.held()[0] < MIB / 4, "answered: {}", flood.held()[0]);
}

#[test]
fn channels_count_and_refused_ones_leave_nothing() {
    let limits = Limits { held_of_one: 5 * 1024, ..Limits::default() };
    let flood = Flood::new(1, limits);
    let open: usize = flood.hub.replicas.values().map(|replica| replica.peers.len()).sum();
    assert_eq!(open, 5);
    assert!(flood.held()[0] <= 6 * 1024, "{:?}", flood.held());
}

#[test]
fn connections_that_do_not_read_share_one_backlog() {
    let limits = Limits {
        all_backlogs: 4 * MIB,
        fair_backlog: 64 << 10,
        upload_backlog: 2 * MIB,
        ..Limits::default()
    };
    let mut hub = Hub::new(limits);
    let w = share(writer_of(0));
    let blocks: Vec<Bytes> = (0..64u8).map(|i| vec![i; 65_536].into()).collect();
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    let now = epoch();
    hub.attach(w, AttachOptions { downloading: false, ..LIVE }, now);
    let mut flood = Flood { hub, muxes: Vec::new(), now };
    let key = key();
    for conn in 0..8 {
        flood.hub.handle_connected(ConnId(conn as u64), info(conn), now);
        let mut mux = Mux::new(super::super::super::connection::PROTOCOLS);
        let capability = wire::capability(&info(conn).handshake_hash, &key, false);
        let handshake = wire::Handshake { seeks: true, capability }.encode();
        mux.open(wire::PROTOCOL, &key.discovery_key().0, &handshake);
        flood.muxes.push(mux);
        let sync = wire::Sync { downloading: true, ..wire::Sync::default() };
        flood.say(conn, 1, &Message::Sync(sync));
        for id in 0..64 {
            let request = crate::hyper::core::Request {
                block: Some(crate::hyper::core::message::NodeRequest { index: id, nodes: 0 }),
                ..Default::default()
            };
            let message = wire::RequestMessage { id: id + 1, fork: 0, request };
            flood.say(conn, 1, &Message::Request(message));
        }
        flood.flush(conn);
    }
    let queued: Vec<usize> = flood.hub.conns.values().map(Conn::backlog).collect();
    assert!(queued.iter().sum::<usize>() < 4 * MIB + 3 * MIB, "{queued:?}");
    assert!(queued.iter().all(|bytes| *bytes >= 64 << 10), "each has something: {queued:?}");
}

/// A request for block 1 of a core that has none.
fn idle_request(id: u64) -> Message {
    let request = crate::hyper::core::Request {
        block: Some(crate::hyper::core::message::NodeRequest { index: 1, nodes: 0 }),
        ..Default::default()
    };
    Message::Request(wire::RequestMessage { id, fork: 0, request })
}

/// Frames of one request each: most answers are "no data", at once. Gives the frames that were answered until the
/// connection was closed, and the bytes of these answers; `takes` says how much of them is left after each.
fn ask(flood: &mut Flood, frames: u64, takes: impl Fn(usize) -> usize) -> (bool, usize, usize) {
    let (conn, now) = (ConnId(0), flood.now);
    let (mut answers, mut queued) = (0, 0);
    for id in 1..=frames {
        let message = idle_request(id);
        flood.muxes[0].send(1, message.kind(), |out| message.encode(out));
        while let Some(frame) = flood.muxes[0].poll_transmit() {
            flood.hub.handle_frame(conn, frame.payload().to_vec().into(), now);
        }
        while let Some((_, frame)) = flood.hub.poll_transmit() {
            (answers, queued) = (answers + 1, queued + frame.len());
            queued = takes(queued);
            flood.hub.handle_queued(conn, queued, now);
        }
        while let Some(event) = flood.hub.poll_event() {
            if matches!(event, HubEvent::CloseConnection { .. }) {
                return (true, answers, queued);
            }
        }
    }
    (false, answers, queued)
}

#[test]
fn answers_at_once_do_not_pile_up_for_who_does_not_read() {
    let mut flood = Flood::new(1, Limits::default());
    flood.hub.handle_queued(ConnId(0), 2 << 20, flood.now);
    let (closed, answers, queued) = ask(&mut flood, 100_000, |queued| queued.max(2 << 20));
    assert!(closed, "{answers} answers of {queued} bytes");
    // 20 bytes and the cost of a frame each.
    assert!((10_000..20_000).contains(&answers), "{answers}");
}

/// However much it makes us ask, that is not what it made us say.
#[test]
fn what_we_ask_counts_against_no_peer() {
    let no_data = Message::NoData { request: 1, reason: wire::Reason::NotAvailable };
    for (message, is_ours) in [(idle_request(1), true), (no_data, false)] {
        let mut flood = Flood::new(1, Limits::default());
        let conn = ConnId(0);
        let mut is_fair = true;
        for _ in 0..20_000 {
            let (_, mut cx) = flood.hub.parts(flood.now);
            let before = cx.conn(conn).unwrap().begin_frame();
            cx.send(conn, 1, &message);
            is_fair &= cx.conn(conn).unwrap().said_at_once(before);
        }
        assert_eq!(is_fair, is_ours, "{message:?}");
    }
}

#[test]
fn who_reads_what_it_asks_for_may_ask_on() {
    // At once, or behind several megabytes of blocks that it takes slowly.
    let slowly = |queued| if queued < 4 * MIB { 8 * MIB } else { queued - 4096 };
    for takes in [(|_| 0) as fn(usize) -> usize, slowly] {
        let mut flood = Flood::new(1, Limits::default());
        let (closed, answers, _) = ask(&mut flood, 40_000, takes);
        assert!(!closed && answers > 10_000, "{closed} after {answers}");
    }
}

/// Ten bytes of a peer are not to cost a look at all that is wished for.
#[test]
fn a_flood_of_syncs_with_many_wishes_open_is_cheap() {
    let r = reader();
    let (mut peer, core) = Peer::new(&r);
    peer.serve_head(&writer(20));
    let now = peer.now;
    for index in 20..20_000 {
        peer.hub.want_block(core, index, false, now);
    }
    for i in 0..200 {
        peer.hub.want_seek(core, 1_000_000 + i, now);
    }
    peer.listen();
    peer.wait(Duration::from_secs(5));
    let clock = cpu();
    for i in 0..2_000 {
        let sync = wire::Sync {
            length: 21 + i,
            uploading: true,
            downloading: true,
            ..wire::Sync::default()
        };
        let sync = Message::Sync(sync);
        peer.mux.send(peer.channel, sync.kind(), |out| sync.encode(out));
        peer.flush();
        let range = Message::Range { drop: i % 2 == 0, start: 20, length: 1 << 20 };
        peer.mux.send(peer.channel, range.kind(), |out| range.encode(out));
        peer.flush();
    }
    let took = cpu() - clock;
    println!("4,000 messages took {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
