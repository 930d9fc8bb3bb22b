use super::super::controls::Control;
use super::super::messages::{self, PROTOCOLS, Token};
use super::*;
use crate::key::{hex, unhex};
use crate::mux::{Mux, MuxEvent};
use crate::sim::epoch;
use crate::swarm::relay::vectors;
use serde_json::Value;

/// Numbers legs as the vectors do, and notes what is done with them.
#[derive(Default)]
struct Numbers {
    made: u32,
    removed: Vec<u32>,
    used: BTreeMap<u32, Instant>,
}

impl Joiner for Numbers {
    fn join(&mut self, _ends: [(SessionId, u32); 2]) -> [u32; 2] {
        self.made += 2;
        [6999 + self.made, 7000 + self.made]
    }

    fn remove(&mut self, leg: u32) {
        self.removed.push(leg);
    }

    fn used(&self, leg: u32) -> Option<Instant> {
        self.used.get(&leg).copied()
    }
}

fn list(step: &Value, who: &str, what: &str) -> Vec<Vec<u8>> {
    let frames = step[who][what].as_array();
    frames.into_iter().flatten().map(|f| unhex(f.as_str().unwrap()).unwrap()).collect()
}

/// One step after the other, the frames of both customers and those that they get are those of the reference.
#[test]
fn it_answers_as_the_reference_does() {
    let vectors = vectors();
    let now = epoch();
    let (mut server, mut legs) = (Server::default(), Numbers::default());
    let names = ["initiator", "other"];
    let mut controls =
        names.map(|_| Control { mux: Mux::new(PROTOCOLS), channel: None, serves: false });
    for session in 0..2 {
        server.open(session);
    }
    for step in vectors["transcript"]["steps"].as_array().unwrap() {
        // Who asks last is the one who is answered first; frames of a step come from one of the two, mostly.
        for (i, name) in names.iter().enumerate() {
            for frame in list(step, name, "sends") {
                let key = unhex(vectors["keys"][name].as_str().unwrap()).unwrap();
                controls[i].handle_frame(frame.into()).unwrap();
                let mut closed = false;
                while let Some(event) = controls[i].mux.poll_event().unwrap() {
                    match event {
                        MuxEvent::Asked { id, .. } => {
                            assert_eq!(id, key);
                            controls[i].channel = controls[i].mux.accept(&[]);
                        }
                        MuxEvent::Message { kind: messages::PAIR, body, .. } => {
                            let pair = Pair::decode(&body).unwrap();
                            for (to, answer) in server.pair(i as u32, pair, &mut legs, now) {
                                controls[to as usize].say_pair(&answer);
                            }
                        }
                        MuxEvent::Message { body, .. } => {
                            let token = messages::decode_unpair(&body).unwrap();
                            server.unpair(i as u32, &token, &mut legs);
                        }
                        MuxEvent::Closed { .. } => closed = true,
                        MuxEvent::Opened { .. } => panic!("we opened nothing"),
                    }
                }
                if closed {
                    server.close(i as u32, &mut legs);
                }
            }
        }
        for (i, name) in names.iter().enumerate() {
            let mux = &mut controls[i].mux;
            let got: Vec<String> =
                std::iter::from_fn(|| mux.poll_transmit().map(|f| hex(f.payload()))).collect();
            let want: Vec<String> = list(step, name, "gets").iter().map(|f| hex(f)).collect();
            assert_eq!(got, want, "{name}, {}", step["name"]);
        }
        let count = |what: &str| step["pairings"][what].as_u64().unwrap();
        assert_eq!(server.pending.len() as u64, count("pending"), "{}", step["name"]);
    }
    assert_eq!(legs.removed, [7001, 7002, 7004]);
    assert_eq!(server.legs(1).collect::<Vec<_>>(), [7003]);
}

fn pair(token: u8, initiator: bool) -> Pair {
    Pair { initiator, token: [token; 32], id: 5, seq: 0 }
}

#[test]
fn what_one_session_piles_up_is_bounded_and_forgotten() {
    let now = epoch();
    let (mut server, mut legs) = (Server::default(), Numbers::default());
    (0..3).for_each(|session| server.open(session));
    for token in 0..200 {
        server.pair(0, pair(token, true), &mut legs, now);
    }
    assert_eq!(server.pending.len(), MAX_PENDING);
    // The others find room all the same.
    assert!(server.pair(1, pair(250, false), &mut legs, now).is_empty());
    assert_eq!(server.pair(2, pair(250, true), &mut legs, now).len(), 2);
    server.handle_timeout(&mut legs, now + PENDING_WAIT);
    assert!(server.pending.is_empty());
    // Both halves of its own: links count for it, too.
    for token in 0..200 {
        server.pair(0, pair(token, true), &mut legs, now);
        server.pair(0, pair(token, false), &mut legs, now);
    }
    assert!(server.legs(0).count() <= MAX_LINKS + 1, "{}", server.legs(0).count());
    server.close(0, &mut legs);
    assert_eq!((server.links(), legs.removed.len() as u32), (1, legs.made - 2));
}

#[test]
fn legs_that_nobody_uses_go() {
    let now = epoch();
    let (mut server, mut legs) = (Server::default(), Numbers::default());
    (0..2).for_each(|session| server.open(session));
    server.pair(0, pair(1, true), &mut legs, now);
    server.pair(1, pair(1, false), &mut legs, now);
    legs.used.insert(7001, now + LEG_IDLE / 2);
    legs.used.insert(7002, now);
    server.handle_timeout(&mut legs, now + LEG_IDLE);
    assert_eq!(legs.removed, [7002]);
    server.handle_timeout(&mut legs, now + LEG_IDLE * 3 / 2);
    assert_eq!(legs.removed, [7002, 7001]);
    assert_eq!(server.poll_timeout(), None);
    assert!(server.is_idle(0) && server.is_idle(1));
}

#[test]
fn a_token_that_somebody_took_back_is_no_longer_known() {
    let now = epoch();
    let (mut server, mut legs) = (Server::default(), Numbers::default());
    (0..2).for_each(|session| server.open(session));
    let token: Token = [1; 32];
    server.pair(0, pair(1, true), &mut legs, now);
    server.unpair(1, &token, &mut legs);
    assert!(server.pair(1, pair(1, false), &mut legs, now).is_empty());
    assert!(server.is_idle(0) && legs.removed.is_empty());
}

/// Tokens are 32 random bytes that only the two peers know; whoever has or invents one gains nothing by it.
#[test]
fn a_token_joins_its_two_halves_and_nobody_else() {
    let now = epoch();
    let (mut server, mut legs) = (Server::default(), Numbers::default());
    (0..4).for_each(|session| server.open(session));
    server.pair(0, pair(1, true), &mut legs, now);
    // In the same role, and with tokens that nobody waits for.
    assert!(server.pair(2, pair(1, true), &mut legs, now).is_empty());
    for token in 100..200 {
        assert!(server.pair(2, pair(token, false), &mut legs, now).is_empty());
    }
    let answers = server.pair(1, pair(1, false), &mut legs, now);
    assert_eq!(answers.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 0]);
    // The two are joined: nobody comes between them, or parts them.
    for initiator in [true, false] {
        server.pair(3, pair(1, initiator), &mut legs, now);
        server.unpair(3, &[1; 32], &mut legs);
    }
    assert!(server.has_links(0) && server.has_links(1) && legs.removed.is_empty());
}
