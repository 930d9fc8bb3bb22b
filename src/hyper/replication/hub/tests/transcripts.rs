//! Conversations of the reference with itself, with one side played by a hub.

use super::*;
use crate::hyper::core::tree::testing::vectors;
use crate::key::unhex;
use crate::sim::epoch;
use serde_json::Value;

struct Line<'a> {
    phase: &'a str,
    from: &'a str,
    frame: Vec<u8>,
}

fn transcript(i: usize) -> Vec<Line<'static>> {
    let frames = vectors()["transcripts"][i]["frames"].as_array().unwrap();
    frames
        .iter()
        .map(|f: &Value| Line {
            phase: f["phase"].as_str().unwrap(),
            from: f["from"].as_str().unwrap(),
            frame: unhex(f["frame"].as_str().unwrap()).unwrap(),
        })
        .collect()
}

/// What a frame says on channels; controls are left out.
fn messages(mux: &mut Mux, frame: &[u8]) -> Vec<Message> {
    mux.handle_frame(frame.to_vec().into()).unwrap();
    let mut out = Vec::new();
    while let Some(event) = mux.poll_event().unwrap() {
        match event {
            MuxEvent::Asked { .. } => drop(mux.accept(&[])),
            MuxEvent::Message { kind, body, .. } => {
                out.extend(Message::decode(kind, &body).unwrap());
            }
            _ => {}
        }
    }
    out
}

fn info(initiator: bool) -> ConnInfo {
    let handshake_hash = std::array::from_fn(|i| i as u8);
    ConnInfo { handshake_hash, initiator, remote: PublicKey([0; 32]) }
}

/// Frames that a hub sends now.
fn sent(hub: &mut Hub) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| hub.poll_transmit()).map(|(_, f)| f.payload().to_vec()).collect()
}

const CONN: ConnId = ConnId(1);

/// A server that hears the reference's client says, in substance, what the reference's server said.
fn play_server(i: usize, act: impl Fn(&str, &SharedCore) -> bool) {
    let now = epoch();
    let w = writer(20);
    if i == 1 {
        w.lock().unwrap().clear(3..6).unwrap();
    }
    let mut hub = Hub::new(Limits::default());
    let core = hub.attach(w.clone(), LIVE, now);
    hub.handle_connected(CONN, info(false), now);
    meet_all(&mut hub, now);
    let (mut theirs, mut ours) = (Mux::new(super::super::super::connection::PROTOCOLS), Vec::new());
    let mut reference = Mux::new(super::super::super::connection::PROTOCOLS);
    let mut wanted = Vec::new();
    let mut phase = "";
    let mut first = None;
    for line in transcript(i) {
        if line.phase == "server inactive" {
            break; // a hub that downloads does not go idle
        }
        if line.phase != phase {
            phase = line.phase;
            if act(phase, &w) {
                hub.core_changed(core, now);
            }
        }
        if line.from == "client" {
            hub.handle_frame(CONN, line.frame.into(), now);
        } else {
            if line.frame[..2] == [0, 0] && first.is_none() {
                first = Some(line.frame.clone());
            }
            wanted.extend(messages(&mut reference, &line.frame));
        }
        for frame in sent(&mut hub) {
            if frame.starts_with(&[0, 0, 1, 5]) {
                assert_eq!(Some(&frame), first.as_ref().or(Some(&frame)));
            }
            ours.extend(messages(&mut theirs, &frame));
        }
    }
    let telling = |m: &&Message| !matches!(m, Message::Sync(_) | Message::Range { .. });
    let wanted: Vec<&Message> = wanted.iter().filter(telling).collect();
    let said: Vec<&Message> = ours.iter().filter(telling).collect();
    assert!(!wanted.is_empty());
    assert_eq!(said, wanted);
}

#[test]
fn a_client_of_the_reference_gets_the_bytes_it_got_then() {
    play_server(0, |phase, w| {
        let now = phase.starts_with("server append");
        if now {
            w.lock().unwrap().append(&[Bytes::from_static(b"lmn")], Durability::Buffered).unwrap();
        }
        now
    });
}

#[test]
fn a_sparse_server_tells_its_bits_and_a_truncation() {
    play_server(1, |phase, w| {
        let now = phase.starts_with("server truncate");
        if now {
            w.lock().unwrap().truncate(13, 1).unwrap();
        }
        now
    });
}

#[test]
fn a_linear_download_is_served() {
    play_server(2, |_, _| false);
}

/// A client that hears the reference's server asks what the reference's client asked.
fn play_client(i: usize) -> SharedCore {
    let now = epoch();
    let r = reader();
    let mut hub = Hub::new(Limits::default());
    let core = hub.attach(r.clone(), LIVE, now);
    hub.handle_connected(CONN, info(true), now);
    meet_all(&mut hub, now);
    let protocols = super::super::super::connection::PROTOCOLS;
    let (mut theirs, mut asked) = (Mux::new(protocols), VecDeque::new());
    let (mut client, mut server) = (Mux::new(protocols), Mux::new(protocols));
    let mut voice = Mux::new(protocols);
    let mut opened = false;
    let mut ids = HashMap::new();
    for line in transcript(i) {
        if line.from == "client" {
            for message in messages(&mut client, &line.frame) {
                let Message::Request(want) = message else { continue };
                if let Some(block) = want.request.block {
                    hub.want_block(core, block.index, true, now);
                }
                for frame in sent(&mut hub) {
                    asked.extend(messages(&mut theirs, &frame));
                }
                asked.retain(|m: &Message| matches!(m, Message::Request(_)));
                let Some(Message::Request(got)) = asked.pop_front() else { panic!("{want:?}") };
                assert_eq!((&got.request, got.fork), (&want.request, want.fork));
                ids.insert(want.id, got.id);
            }
            continue;
        }
        let said = messages(&mut server, &line.frame);
        if !opened && said.is_empty() {
            opened = true;
            hub.handle_frame(CONN, line.frame.clone().into(), now);
            messages(&mut voice, &line.frame);
            voice.poll_transmit(); // its own open, made by accepting: heard just now
            continue;
        }
        // The same, with our numbers.
        for message in said {
            let message = match message {
                Message::Data { request, proof } => Message::Data { request: ids[&request], proof },
                other => other,
            };
            voice.send_sized(1, message.kind(), message.size_hint(), |out| message.encode(out));
        }
        while let Some(frame) = voice.poll_transmit() {
            hub.handle_frame(CONN, frame.payload().to_vec().into(), now);
        }
    }
    while let Some(event) = hub.poll_event() {
        assert!(!matches!(event, HubEvent::Violation { .. }), "{event:?}");
    }
    r
}

#[test]
fn a_server_of_the_reference_is_asked_as_it_was_then() {
    let r = play_client(0);
    assert_eq!((length(&r), here(&r)), (21, 3));
    let core = r.lock().unwrap();
    assert_eq!(core.get(20).unwrap().unwrap(), &b"lmn"[..]);
    assert_eq!(core.get(7).unwrap().unwrap(), block(7));
}
