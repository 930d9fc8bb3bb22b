//! What the owner of a store leaves to the command that takes over from it: how it stands in the network.
//!
//! That command may have been begun with other options, or none, and did not use its own. Whoever keeps a drive off
//! the public network by what he told the first process must not find it there because that process ended.

use super::args::Global;
use super::request::Request;
use crate::swarm::driver::PeerAddress;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// In the directory of the store.
const NAME: &str = "network.json";
/// Whatever is longer is none of ours.
const MAX_LEN: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Left {
    place: super::request::Place,
    peers: Vec<PeerAddress>,
}

/// Has `first`, the own command of a new owner, go on as the owner before it did if that ran it, and leaves what counts
/// now to the next.
///
/// # Errors
/// It is not known how the owner before stood in the network, or cannot be told to the next.
pub fn succeed(store: &Path, first: &mut Request, global: &mut Global) -> io::Result<()> {
    let path = store.join(NAME);
    if first.ran {
        let mut text = String::new();
        fs::File::open(&path)?.take(MAX_LEN).read_to_string(&mut text)?;
        let left: Left = serde_json::from_str(&text)?;
        left.place.apply(global).map_err(io::Error::other)?;
        first.place = left.place;
        first.peers.extend(left.peers);
        first.peers.dedup();
        return Ok(());
    }
    // What an owner before said must not count for this one, also where there is no room to say anything.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let left = Left { place: first.place.clone(), peers: first.peers.clone() };
    let new = store.join(format!("{NAME}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(&left)?)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use crate::cli::{Place, View};
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
            ran: false,
            told: 0,
        };
        (request, cli.global)
    }

    #[test]
    fn who_takes_over_goes_by_what_the_owner_before_was_told_or_not_at_all() {
        let store = tempfile::tempdir().unwrap();
        let begin = |words: &[&str]| {
            let (mut request, mut global) = request(words);
            succeed(store.path(), &mut request, &mut global)
        };
        let take_over = || {
            let (mut request, mut global) = request(&[]);
            request.ran = true;
            succeed(store.path(), &mut request, &mut global).map(|()| global)
        };
        begin(&[]).unwrap();
        assert!(!take_over().unwrap().no_lan);
        let private = ["--no-lan", "--bootstrap", "1.2.3.4:5", "--port", "7"];
        begin(&private).unwrap();
        let global = take_over().unwrap();
        assert_eq!((global.no_lan, global.port), (true, Some(7)));
        assert_eq!(global.bootstrap, Some(vec!["1.2.3.4:5".to_string()]));
        // It cannot be written: nobody goes by what was true before.
        begin(&[]).unwrap();
        fs::create_dir(store.path().join("network.json.new")).unwrap();
        assert!(begin(&private).is_err() && take_over().is_err());
    }
}
