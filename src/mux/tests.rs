use super::*;
use crate::key::{hex, unhex};
use serde_json::Value;

const PROTOCOLS: &[Protocol] = &[
    Protocol { name: "hypercore/alpha", aliases: &["hypercore"] },
    Protocol { name: "proto", aliases: &[] },
    Protocol { name: "two", aliases: &[] },
    Protocol { name: "early", aliases: &[] },
    Protocol { name: "again", aliases: &[] },
    Protocol { name: "y", aliases: &[] },
    Protocol { name: "x", aliases: &[] },
    Protocol { name: "nobody", aliases: &[] },
];
const ID: &[u8] = &[1, 2, 3, 4];

fn vectors(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

fn frames(mux: &mut Mux) -> Vec<String> {
    std::iter::from_fn(|| mux.poll_transmit()).map(|f| hex(f.payload())).collect()
}

/// Feeds frames and answers each asked open with `accept` (a handshake) or a refusal.
fn feed(mux: &mut Mux, frames: &[String], accept: Option<&[u8]>) -> Vec<MuxEvent> {
    let mut events = Vec::new();
    for f in frames {
        mux.handle_frame(unhex(f).unwrap().into()).unwrap();
        while let Some(event) = mux.poll_event().unwrap() {
            if matches!(event, MuxEvent::Asked { .. })
                && let Some(handshake) = accept
            {
                mux.accept(handshake).unwrap();
            }
            events.push(event);
        }
    }
    events
}

fn error(mux: &mut Mux, frame: &str) -> Option<MuxError> {
    if let Err(e) = mux.handle_frame(unhex(frame).unwrap().into()) {
        return Some(e);
    }
    loop {
        match mux.poll_event() {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(e) => return Some(e),
        }
    }
}

fn message(channel: u64, kind: u64, body: &[u8]) -> MuxEvent {
    MuxEvent::Message { channel, kind, body: Bytes::copy_from_slice(body) }
}

#[test]
fn two_sides_exchange_the_frames_of_the_reference() {
    let vector = vectors("swarm.json");
    let steps = vector["protomux"]["steps"].as_array().unwrap();
    let sent = |i: usize, side: &str| strings(&steps[i][side]);
    let (mut a, mut b) = (Mux::new(PROTOCOLS), Mux::new(PROTOCOLS));

    // Both open "proto" in the same moment.
    a.open("proto", ID, &[42]).unwrap();
    b.open("proto", ID, &[43]).unwrap();
    let (fa, fb) = (frames(&mut a), frames(&mut b));
    assert_eq!((&fa, &fb), (&sent(0, "a_sends"), &sent(0, "b_sends")));
    assert_eq!(
        feed(&mut a, &fb, None),
        [MuxEvent::Opened { channel: 1, handshake: Bytes::from_static(&[43]) }]
    );
    feed(&mut b, &fa, None);

    // Nobody answers "nobody": rejected.
    a.open("nobody", &[], &[1]).unwrap();
    let fa = frames(&mut a);
    assert_eq!(fa, sent(1, "a_sends"));
    feed(&mut b, &fa, None);
    let fb = frames(&mut b);
    assert_eq!(fb, sent(1, "b_sends"));
    assert_eq!(feed(&mut a, &fb, None), [MuxEvent::Closed { channel: 2, rejected: true }]);

    // One message, then a batch of three.
    a.send(1, 0, |out| out.put_string("hello"));
    let fa = frames(&mut a);
    assert_eq!(fa, sent(2, "a_sends"));
    assert_eq!(feed(&mut b, &fa, None), [message(1, 0, b"\x05hello")]);
    a.send(1, 0, |out| out.put_string("x"));
    a.send(1, 1, |out| out.put_uint(7));
    a.send(1, 0, |out| out.put_string("y"));
    let fa = frames(&mut a);
    assert_eq!(fa, sent(3, "a_sends"));
    assert_eq!(feed(&mut b, &fa, None).len(), 3);

    // b opens first and a answers when asked; freed id 2 is used again.
    b.open("two", &[], &[9]).unwrap();
    let fb = frames(&mut b);
    assert_eq!(fb, sent(4, "b_sends"));
    feed(&mut a, &fb, Some(&[8]));
    let fa = frames(&mut a);
    assert_eq!(fa, sent(4, "a_sends"));
    feed(&mut b, &fa, None);

    // A batch over two channels.
    a.send(1, 0, |out| out.put_string("1"));
    a.send(2, 1, |out| out.put_uint(300));
    a.send(2, 0, |out| out.put_string("2"));
    a.send(1, 1, |out| out.put_uint(5));
    let fa = frames(&mut a);
    assert_eq!(fa, sent(5, "a_sends"));
    let channels: Vec<_> = feed(&mut b, &fa, None)
        .into_iter()
        .map(|e| match e {
            MuxEvent::Message { channel, .. } => channel,
            _ => 0,
        })
        .collect();
    assert_eq!(channels, [1, 2, 2, 1]);

    // Messages may follow one's own open at once.
    let want = sent(6, "a_sends");
    let early = a.open("early", &[], &[3]).unwrap();
    let mut fa = frames(&mut a);
    a.send(early, 0, |out| out.put_string("pipelined"));
    fa.extend(frames(&mut a));
    assert_eq!(fa, want);
    let events = feed(&mut b, &fa, Some(&[4]));
    assert_eq!(events[1], message(3, 0, b"\x09pipelined"));
    let fb = frames(&mut b);
    assert_eq!(fb, sent(6, "b_sends"));
    feed(&mut a, &fb, None);

    // b closes, and both open another channel: the freed ids come back.
    b.close(1);
    let fb = frames(&mut b);
    assert_eq!(fb, sent(7, "b_sends"));
    assert_eq!(feed(&mut a, &fb, None), [MuxEvent::Closed { channel: 1, rejected: false }]);
    a.open("again", &[], &[11]).unwrap();
    b.open("again", &[], &[12]).unwrap();
    assert_eq!(frames(&mut a), sent(8, "a_sends"));
    assert_eq!(frames(&mut b), sent(8, "b_sends"));
    assert_eq!(feed(&mut a, &[String::new()], None), []);
}

#[test]
fn opening_an_id_that_is_open_ends_the_stream() {
    let mut mux = Mux::new(PROTOCOLS);
    mux.open("proto", ID, &[1]).unwrap();
    feed(&mut mux, &["0001010570726f746f04010203042a".into()], None);
    let again = error(&mut mux, "0001010570726f746f04010203042a");
    assert_eq!(again, Some(ChannelError::BadOpen.into()));
    // Skipping an id does as well, and so does rejecting what was not opened.
    assert_eq!(error(&mut mux, "0001090178000000"), Some(ChannelError::BadOpen.into()));
    assert_eq!(error(&mut mux, "000205"), Some(ChannelError::BadReject.into()));
}

#[test]
fn an_alias_pairs_and_an_unknown_protocol_is_rejected() {
    let mut mux = Mux::new(PROTOCOLS);
    mux.open("hypercore/alpha", ID, &[]).unwrap();
    frames(&mut mux);
    let events = feed(&mut mux, &["00010109687970657263 6f7265040102 0304".replace(' ', "")], None);
    assert!(matches!(events[..], [MuxEvent::Opened { channel: 1, .. }]), "{events:?}");
    feed(&mut mux, &["000102017100".into()], None);
    assert_eq!(frames(&mut mux), ["000202"]);
}

#[test]
fn a_channel_closed_before_the_answer_keeps_its_id_until_then() {
    let (mut a, mut b) = (Mux::new(PROTOCOLS), Mux::new(PROTOCOLS));
    let first = a.open("x", &[], &[]).unwrap();
    a.close(first);
    let second = a.open("x", &[], &[]).unwrap();
    assert_ne!(first, second);
    let events = feed(&mut b, &frames(&mut a), Some(&[]));
    assert_eq!(events.len(), 3, "{events:?}");
    let events = feed(&mut a, &frames(&mut b), None);
    assert_eq!(events, [MuxEvent::Opened { channel: second, handshake: Bytes::new() }]);
    assert_eq!(a.open("y", &[], &[]), Some(first));
}

#[test]
fn a_second_channel_of_one_name_is_rejected() {
    let mut mux = Mux::new(PROTOCOLS);
    feed(&mut mux, &["000101017800".into()], Some(&[]));
    frames(&mut mux);
    mux.handle_frame(unhex("000102017800").unwrap().into()).unwrap();
    assert!(matches!(mux.poll_event(), Ok(Some(MuxEvent::Asked { .. }))));
    assert_eq!(mux.accept(&[]), None);
    assert_eq!(frames(&mut mux), ["000202"]);
}

#[test]
fn a_large_message_gets_a_frame_of_its_own_and_keeps_its_place() {
    let mut mux = Mux::new(PROTOCOLS);
    mux.send(1, 0, |out| out.put(b"before"));
    mux.send_sized(1, 3, 70_000, |out| out.put(&[7; 70_000]));
    mux.send(1, 0, |out| out.put(b"after"));
    assert_eq!(mux.queued(), 8 + 70_002 + 6);
    let lens: Vec<_> = std::iter::from_fn(|| mux.poll_transmit()).map(|f| f.len()).collect();
    assert_eq!(lens, [8, 70_002, 7]);
    assert_eq!(mux.queued(), 0);
}

#[test]
fn frames_of_the_reference_are_reproduced() {
    let vector = vectors("hypercore.json");
    let vector = vector["protomux_frames"].as_array().unwrap();
    let want = |i: usize| strings(&vector[i]["frames"]);
    let mut mux = Mux::new(PROTOCOLS);
    mux.open("hypercore/alpha", &[0xdd; 32], &[0x11; 32]).unwrap();
    assert_eq!(frames(&mut mux), want(0));
    mux.open("x", &[], &[]).unwrap();
    assert_eq!(frames(&mut mux), want(1));
    feed(&mut mux, &["000202".into()], None);
    mux.send(1, 0, |out| out.put_uint(300));
    assert_eq!(frames(&mut mux), want(2));
    mux.send(1, 1, |out| out.put_buffer(&[0xaa, 0xbb]));
    assert_eq!(frames(&mut mux), want(3));
    let y = mux.open("y", &[5], &[]).unwrap();
    mux.send(1, 0, |out| out.put_uint(1));
    mux.send(1, 0, |out| out.put_uint(2));
    mux.send(y, 0, |out| out.put_uint(3));
    mux.close(y);
    assert_eq!(frames(&mut mux), want(4));
    mux.close(1);
    assert_eq!(frames(&mut mux), want(7));
}
