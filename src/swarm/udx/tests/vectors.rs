//! Captured packets of the reference.

use serde_json::Value;

use super::*;
use crate::swarm::udx::packet::Header;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/swarm.json");
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all["udx"].take()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex(value["bytes"].as_str().unwrap())
}

/// The local id, as the peer writes it into its packets.
fn id_in(datagram: &[u8]) -> u32 {
    u32::from_le_bytes(datagram[4..8].try_into().unwrap())
}

#[derive(Default)]
struct Log(Vec<String>);

impl Sink for Log {
    fn data(&mut self, _: u32, payload: &[u8]) {
        self.0.push(payload.iter().map(|byte| format!("{byte:02x}")).collect());
    }
}

/// One machine and what it did.
struct Replay {
    udx: Udx,
    now: Instant,
    log: Log,
    sent: Vec<Vec<u8>>,
}

impl Replay {
    fn new() -> Self {
        let udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
        Self { udx, now: epoch(), log: Log::default(), sent: Vec::new() }
    }

    fn connect(&mut self, id: u32, remote: u32, opts: &ConnectOptions) {
        if self.udx.open(Some(id)).is_some() {
            self.udx.connect(id, SocketId::MAIN, remote, address(1), opts.clone(), self.now);
        }
    }

    fn feed(&mut self, datagram: &[u8]) -> bool {
        let taken =
            self.udx.handle_datagram(SocketId::MAIN, address(1), datagram, self.now, &mut self.log);
        self.udx.end_of_batch(self.now);
        self.drain();
        taken
    }

    fn drain(&mut self) {
        let mut buf = Vec::new();
        while self.udx.poll_transmit(self.now, &mut buf, 1).is_some() {
            self.sent.push(buf.clone());
        }
        while let Some(event) = self.udx.poll_event() {
            match event {
                UdxEvent::Message { payload, .. } => {
                    let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
                    self.log.0.push(format!("msg:{hex}"));
                }
                UdxEvent::RemoteEnded { .. } => self.log.0.push("EOF".into()),
                UdxEvent::Closed { .. } => self.log.0.push("CLOSE".into()),
                _ => {}
            }
        }
    }

    fn wait(&mut self) {
        self.now = self.udx.poll_timeout().unwrap().max(self.now);
        self.udx.handle_timeout(self.now);
        self.drain();
    }
}

/// Plays one side of a captured conversation; what it sends must be the same, byte for byte.
fn converse(name: &str, role: &str, opts: &ConnectOptions) {
    let vectors = vectors();
    let entries = list(&vectors[name]);
    let mine = entries.iter().find(|e| e["from"] != role).unwrap()["remoteStreamId"]
        .as_u64()
        .unwrap() as u32;
    let other = entries.iter().find(|e| e["from"] == role).unwrap()["remoteStreamId"]
        .as_u64()
        .unwrap() as u32;
    let mut replay = Replay::new();
    replay.connect(mine, other, opts);
    let mut expected = Vec::new();
    for entry in entries {
        let datagram = bytes(entry);
        let kind = entry["type"].as_str().unwrap();
        if entry["from"] != role {
            if replay.udx.stats(mine).is_none() {
                // The reference repeats its END, which our grave answers.
                break;
            }
            replay.feed(&datagram);
            if kind == "DESTROY" {
                assert_eq!(replay.log.0.pop().unwrap(), "CLOSE");
                break;
            }
            continue;
        }
        if replay.udx.stats(mine).is_none() && kind != "ACK" {
            // What the reference repeats after its peer is gone.
            break;
        }
        expected.push(datagram.clone());
        let payload = Bytes::copy_from_slice(&datagram[20..]);
        let now = replay.now;
        match kind {
            "DATA" => replay.udx.write(mine, payload, now).unwrap(),
            "DATA|END" => {
                replay.udx.write(mine, payload, now).unwrap();
                replay.udx.end(mine);
            }
            "END" => replay.udx.end(mine),
            "MESSAGE" => replay.udx.send_message(mine, payload).unwrap(),
            "DESTROY" => replay.udx.destroy(mine),
            "HEARTBEAT" => replay.wait(),
            "ACK" => {}
            other => panic!("{other}"),
        }
        replay.drain();
        if kind == "DESTROY" {
            break;
        }
    }
    assert_eq!(replay.sent, expected, "{name} {role}");
}

#[test]
fn headers_are_those_of_the_reference() {
    let vectors = vectors();
    let mut seen = 0;
    for (name, section) in vectors.as_object().unwrap() {
        for entry in list(section).iter().filter(|entry| entry["from"].is_string()) {
            let datagram = bytes(entry);
            let packet = Packet::parse(&datagram).unwrap();
            assert_eq!(u64::from(packet.header.seq), entry["seq"].as_u64().unwrap(), "{name}");
            assert_eq!(u64::from(packet.header.ack), entry["ack"].as_u64().unwrap(), "{name}");
            assert_eq!(u64::from(packet.header.window), entry["rwnd"].as_u64().unwrap(), "{name}");
            assert_eq!(
                packet.payload.len() as u64,
                entry["payloadLength"].as_u64().unwrap_or(0),
                "{name}"
            );
            assert_eq!(datagram[..20], packet.header.encode());
            seen += 1;
        }
    }
    assert!(seen > 30);
}

#[test]
fn conversations_are_repeated_byte_for_byte() {
    let plain = ConnectOptions::default();
    for name in ["hello", "end_with_data", "destroy"] {
        converse(name, "A", &plain);
        converse(name, "B", &plain);
    }
    converse("message", "A", &plain);
    let opts = ConnectOptions { initial_seq: 1000, initial_ack: 0xffff_fffe, ..plain.clone() };
    converse("initial_seq", "A", &opts);
    let opts = ConnectOptions { initial_seq: 0xffff_fffe, initial_ack: 1000, ..plain.clone() };
    converse("initial_seq", "B", &opts);
    let opts = ConnectOptions { keep_alive: Some(Duration::from_millis(300)), ..plain.clone() };
    converse("keepalive", "A", &opts);
    converse("keepalive", "B", &plain);
}

#[test]
fn crafted_packets_get_the_same_answers() {
    let vectors = vectors();
    let mut replay = Replay::new();
    let mut seen = 0;
    for case in list(&vectors["crafted"]) {
        let name = case["name"].as_str().unwrap();
        let sent: Vec<&str> = list(&case["sent"]).iter().filter_map(Value::as_str).collect();
        let special = name.contains("unconnected") || name.contains("closes the window");
        if sent.is_empty() || sent.iter().any(|text| text.contains('.')) || special {
            continue;
        }
        let mut passed = Vec::new();
        for datagram in sent.iter().map(|text| hex(text)) {
            let known = datagram.len() >= 20 && id_in(&datagram) != 0x67932;
            if known {
                replay.connect(id_in(&datagram), 77, &ConnectOptions::default());
            }
            if !replay.feed(&datagram) {
                passed.push(datagram);
            }
        }
        let replies: Vec<_> = list(&case["replies"]).iter().map(bytes).collect();
        assert_eq!(std::mem::take(&mut replay.sent), replies, "{name}");
        let received: Vec<_> =
            list(&case["received"]).iter().map(|v| v.as_str().unwrap()).collect();
        assert_eq!(std::mem::take(&mut replay.log.0), received, "{name}");
        let expected: Vec<_> =
            list(&case["passedToSocketMessage"]).iter().map(|v| hex(v.as_str().unwrap())).collect();
        assert_eq!(passed, expected, "{name}");
        seen += 1;
    }
    assert!(seen >= 13, "{seen}");
}

#[test]
fn a_gap_report_is_as_long_as_the_reference_s_and_ascends() {
    let vectors = vectors();
    let case = list(&vectors["crafted"]).iter().find(|c| c["sent"] == "120 packets").unwrap();
    let reference = list(&case["replies"][0]["sacks"]).to_vec();
    let mut replay = Replay::new();
    replay.connect(5, 77, &ConnectOptions::default());
    for n in 1..=120 {
        let header = Header {
            flags: flag::DATA,
            data_offset: 0,
            stream: 5,
            window: 1,
            seq: 2 * n - 1,
            ack: 0,
        };
        replay.feed(&[&header.encode()[..], b"x"].concat());
    }
    let ours =
        Packet::parse(replay.sent.last().unwrap()).unwrap().sack_blocks().collect::<Vec<_>>();
    // The same lowest blocks; the rest are the newest ones instead of the next lowest.
    assert_eq!(ours.len(), reference.len());
    for (ours, theirs) in ours.iter().zip(&reference).take(20) {
        assert_eq!(
            (Some(ours.0.into()), Some(ours.1.into())),
            (theirs[0].as_u64(), theirs[1].as_u64())
        );
    }
    assert!(ours.is_sorted() && ours.last() == Some(&(239, 240)));
}

#[test]
fn losses_are_reported_as_the_reference_reports_them() {
    let vectors = vectors();
    let mut replay = Replay::new();
    replay.connect(0x1122_3344, 1, &ConnectOptions::default());
    let mut expected = Vec::new();
    for entry in list(&vectors["loss_and_sack"]["packets"]) {
        let (seq, ack) =
            (entry["seq"].as_u64().unwrap() as u32, entry["ack"].as_u64().unwrap() as u32);
        match (entry["from"].as_str().unwrap(), entry["type"].as_str().unwrap()) {
            (_, "DESTROY") => break,
            ("A", "DATA") if entry["dropped"].is_null() => {
                let flags = flag::DATA;
                let header =
                    Header { flags, data_offset: 0, stream: 0x1122_3344, window: 1, seq, ack };
                let payload = vec![0; entry["payloadLength"].as_u64().unwrap() as usize];
                replay.feed(&[&header.encode()[..], &payload].concat());
            }
            ("B", _) => {
                let blocks = list(&entry["sacks"]).iter().map(|block| {
                    (block[0].as_u64().unwrap() as u32, block[1].as_u64().unwrap() as u32)
                });
                expected.push((seq, ack, blocks.collect::<Vec<_>>()));
            }
            _ => {}
        }
    }
    let ours = replay.sent.iter().map(|datagram| {
        let packet = Packet::parse(datagram).unwrap();
        (packet.header.seq, packet.header.ack, packet.sack_blocks().collect::<Vec<_>>())
    });
    assert_eq!(ours.collect::<Vec<_>>(), expected);
}

#[test]
fn probes_of_the_reference_are_read_and_ours_end_at_the_same_size() {
    let vectors = vectors();
    let probing = &vectors["mtu_probing"];
    for probe in list(&probing["probes"]) {
        let len = probe["payloadLength"].as_u64().unwrap() as usize;
        let padding = probe["dataOffset"].as_u64().unwrap() as usize;
        let mut datagram = hex(probe["header"].as_str().unwrap());
        datagram.resize(20 + padding + len, 0);
        assert_eq!(Packet::parse(&datagram).unwrap().payload.len(), len);
    }
    let mut pair = Pair::connected(LinkConfig::default(), LinkConfig::default(), 1);
    pair.machines[0].total = 20_000_000;
    assert!(
        pair.run_until(Duration::from_secs(10), |p| p.machines[1].sink.bytes == 20_000_000)
            .is_some()
    );
    let mtu = pair.machines[0].udx.stats(A).unwrap().mtu;
    assert_eq!(mtu as u64, probing["result"]["mtu"].as_u64().unwrap());
}

#[test]
fn a_closed_window_is_asked_about_as_the_reference_does() {
    let vectors = vectors();
    let crafted = list(&vectors["crafted"]);
    let case =
        crafted.iter().find(|c| c["name"].as_str().unwrap().contains("closes the window")).unwrap();
    let closing = hex(case["sent"][0].as_str().unwrap());
    let id = id_in(&closing);
    let mut replay = Replay::new();
    replay.connect(id, 77, &ConnectOptions::default());
    let write = |replay: &mut Replay, text: &'static [u8]| {
        let now = replay.now;
        replay.udx.write(id, Bytes::from_static(text), now).unwrap();
        replay.drain();
    };
    write(&mut replay, b"zero window test");
    assert_eq!(std::mem::take(&mut replay.sent), [bytes(&case["replies"][0])]);
    replay.feed(&closing);
    write(&mut replay, b"more");
    let start = replay.now;
    let heartbeats = |replay: &mut Replay| {
        let kinds = replay.sent.drain(..).map(|d| Packet::parse(&d).unwrap().header);
        kinds.map(|h| (h.flags, h.seq)).collect::<Vec<_>>()
    };
    assert_eq!(heartbeats(&mut replay), [(flag::HEARTBEAT, 1)]);
    replay.wait();
    assert_eq!(
        (heartbeats(&mut replay), (replay.now - start).as_millis()),
        (vec![(flag::HEARTBEAT, 1)], 1000)
    );
    replay.wait();
    assert_eq!(
        (heartbeats(&mut replay), (replay.now - start).as_millis()),
        (vec![(flag::HEARTBEAT, 1)], 3000)
    );
    let open = Header { flags: 0, data_offset: 0, stream: id, window: 1 << 22, seq: 0, ack: 1 };
    replay.feed(&open.encode());
    assert_eq!(heartbeats(&mut replay), [(flag::DATA, 1)]);
}
