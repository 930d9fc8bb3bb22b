//! Round-trip tokens: a node that shows one receives at the host it writes from.
//!
//! token = BLAKE2b keyed with a secret, over the requester's host in dotted form. Two secrets are valid;
//! the newer one issues. They turn over every 7.5 s, so a token lives between 7.5 and 15 s.
//!
//! Source: dht-rpc/lib/io.js:token, _drain

use super::message::Token;
use crate::crypto::hash;
use rand::RngCore;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// How long a secret issues tokens: ten drains of 750 ms.
pub const TURNOVER: Duration = Duration::from_millis(7500);

/// The two valid secrets.
pub struct Tokens {
    previous: [u8; 32],
    current: [u8; 32],
    turn_at: Instant,
}

impl Tokens {
    pub fn new(rng: &mut impl RngCore, now: Instant) -> Self {
        let (mut previous, mut current) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut previous);
        rng.fill_bytes(&mut current);
        Self { previous, current, turn_at: now + TURNOVER }
    }

    pub fn issue(&self, host: &Ipv4Addr) -> Token {
        token(&self.current, host)
    }

    pub fn accepts(&self, shown: &Token, host: &Ipv4Addr) -> bool {
        let ok = [&self.current, &self.previous].map(|s| token(s, host).ct_eq(shown));
        (ok[0] | ok[1]).into()
    }

    pub fn poll_timeout(&self) -> Instant {
        self.turn_at
    }

    /// Drops the older secret and draws a new one, when it is time.
    pub fn handle_timeout(&mut self, rng: &mut impl RngCore, now: Instant) {
        if now < self.turn_at {
            return;
        }
        self.turn_at = now + TURNOVER;
        self.previous = self.current;
        rng.fill_bytes(&mut self.current);
    }
}

fn token(secret: &[u8; 32], host: &Ipv4Addr) -> Token {
    hash::keyed(secret, &[host.to_string().as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use crate::swarm::dht_rpc::testing::{bytes32, vectors};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn tokens_match_the_vector() {
        let all = vectors();
        let v = &all["dht_rpc"]["token"];
        let tokens = Tokens {
            previous: bytes32(&v["secret0"]).unwrap(),
            current: bytes32(&v["secret1"]).unwrap(),
            turn_at: epoch(),
        };
        let host = v["host"].as_str().unwrap().parse().unwrap();
        let sent = bytes32(&v["token_with_secret1_sent_in_replies"]).unwrap();
        assert_eq!(tokens.issue(&host), sent);
        let older = bytes32(&v["token_with_secret0_also_accepted"]).unwrap();
        assert!(tokens.accepts(&sent, &host) && tokens.accepts(&older, &host));
        assert!(!tokens.accepts(&sent, &"10.1.1.2".parse().unwrap()));
    }

    #[test]
    fn a_token_lives_through_one_turnover_but_not_two() {
        let mut rng = StdRng::seed_from_u64(1);
        let start = epoch();
        let mut tokens = Tokens::new(&mut rng, start);
        let host = Ipv4Addr::LOCALHOST;
        let token = tokens.issue(&host);
        tokens.handle_timeout(&mut rng, start + TURNOVER);
        assert!(tokens.accepts(&token, &host));
        tokens.handle_timeout(&mut rng, start + TURNOVER * 2);
        assert!(!tokens.accepts(&token, &host));
    }
}
