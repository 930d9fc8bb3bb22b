//! Where the process that owns a store stands in the network, for all commands on it.
//!
//! A command that goes on when its owner has ended does so where that stood, whatever its own options are, which may be
//! none and did not count: whoever keeps a drive off the public network by what he told the first process must not find
//! it there because that process ended. Every owner says how it stands to each command that it runs.

use super::args::Global;
use super::request::Request;
use crate::key::KeyError;
use crate::swarm::driver::PeerAddress;
use serde::{Deserialize, Serialize};
use std::net::SocketAddrV4;

/// What a process was told of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub bootstrap: Option<Vec<String>>,
    pub local: Option<SocketAddrV4>,
    pub relay: Vec<String>,
    pub no_lan: bool,
    pub port: Option<u16>,
}

impl Place {
    pub fn of(global: &Global) -> Self {
        Self {
            bootstrap: global.bootstrap.clone(),
            local: global.local,
            no_lan: global.no_lan,
            relay: global.relay.iter().map(ToString::to_string).collect(),
            port: global.port,
        }
    }

    /// Has `global` say this.
    ///
    /// # Errors
    /// What names a relay is no key.
    pub fn apply(&self, global: &mut Global) -> Result<(), KeyError> {
        let relays = self.relay.iter().map(|key| key.parse());
        global.relay = relays.collect::<Result<_, _>>()?;
        global.bootstrap.clone_from(&self.bootstrap);
        (global.local, global.no_lan, global.port) = (self.local, self.no_lan, self.port);
        Ok(())
    }

    /// What this one says and another does not follow, for people.
    pub fn lost_in(&self, other: &Self) -> Option<String> {
        let lost = [
            ("--bootstrap", self.bootstrap.is_some() && self.bootstrap != other.bootstrap),
            ("--local", self.local.is_some() && self.local != other.local),
            ("--relay", !self.relay.is_empty() && self.relay != other.relay),
            ("--no-lan", self.no_lan && !other.no_lan),
            ("--port", self.port.is_some() && self.port != other.port),
        ];
        let lost: Vec<&str> = lost.into_iter().filter(|(_, lost)| *lost).map(|(n, _)| n).collect();
        (!lost.is_empty()).then(|| {
            let (names, verb) = (lost.join(" and "), if lost.len() == 1 { "counts" } else { "count" });
            format!(
                "{names} {verb} for the process that opened the store, {}: this command goes by what that was given",
                std::process::id()
            )
        })
    }
}

/// What an owner leaves to a command that takes over from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub place: Place,
    /// Where its own command was told that peers may be.
    pub peers: Vec<PeerAddress>,
}

impl Standing {
    /// That of an owner whose own command `first` is. `global` becomes what counts for it: what its user typed, or how an
    /// owner stood that ran this command before.
    ///
    /// # Errors
    /// What names a relay is no key.
    pub fn of_owner(first: &mut Request, global: &mut Global) -> Result<Self, KeyError> {
        if let Some(stood) = &first.stood {
            stood.place.apply(global)?;
            first.place = stood.place.clone();
            for peer in &stood.peers {
                if !first.peers.contains(peer) {
                    first.peers.push(peer.clone());
                }
            }
        }
        Ok(Self { place: first.place.clone(), peers: first.peers.clone() })
    }

    /// Whether `request` ran at an owner that stood elsewhere than this one.
    pub fn is_apart_from(&self, request: &Request) -> bool {
        request.stood.as_ref().is_some_and(|stood| stood.place != self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use crate::cli::view::View;
    use clap::Parser;

    fn request(words: &[&str]) -> (Request, Global) {
        let cli = Cli::try_parse_from([&["hdrive"], words, &["status"]].concat()).unwrap();
        let request = Request {
            version: String::new(),
            command: cli.command,
            cwd: "/".into(),
            json: false,
            quiet: false,
            trust_store: false,
            place: Place::of(&cli.global),
            port_mapping: None,
            peers: cli.global.peers.clone(),
            view: View::own(),
            pid: 1,
            background: false,
            insists: false,
            stood: None,
            told: 0,
        };
        (request, cli.global)
    }

    #[test]
    fn who_takes_over_stands_as_the_owner_before_and_nowhere_else() {
        let private =
            ["--no-lan", "--bootstrap", "1.2.3.4:5", "--port", "7", "--peer", "1.2.3.4:6"];
        let (mut first, mut global) = request(&private);
        let standing = Standing::of_owner(&mut first, &mut global).unwrap();
        let (mut second, mut global) = request(&["--peer", "1.2.3.4:8"]);
        assert!(!standing.is_apart_from(&second), "it never ran");
        second.stood = Some(standing.clone());
        let taken = Standing::of_owner(&mut second, &mut global).unwrap();
        assert_eq!(taken.place, standing.place);
        assert_eq!((taken.peers.len(), second.peers.len()), (2, 2));
        assert_eq!((global.no_lan, global.port), (true, Some(7)));
        assert_eq!(global.bootstrap, Some(vec!["1.2.3.4:5".to_string()]));
        // One that was there in between has nothing of it, and is not gone on with.
        let (mut other, mut global) = request(&[]);
        let between = Standing::of_owner(&mut other, &mut global).unwrap();
        assert!(!global.no_lan && between.is_apart_from(&second) && !taken.is_apart_from(&second));
    }
}
