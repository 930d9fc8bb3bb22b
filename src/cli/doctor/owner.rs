//! The process that works on the store, if there is one: whether it answers, and what its `status` says of the network.

use super::finding::Finding;
use super::router::{self, Port};
use crate::cli::args::{Command, Status};
use crate::cli::exit::Exit;
use crate::cli::face::pid_of;
use crate::cli::owner::meet;
use crate::cli::request::{FULL, LISTENS, Request, STANDS, ask_for, greet, read_standing};
use crate::cli::standing::Place;
use crate::cli::view::View;
use crate::key::PublicKey;
use crate::swarm::{Access, Nat, Standing};
use serde_json::{Value, json};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

/// One that says nothing for so long is stopped, say.
const PATIENCE: Duration = Duration::from_secs(3);
/// What `status` says at most: of each drive, command and peer some hundred bytes.
const MAX_STATUS: u64 = 16 << 20;

/// What it is like.
#[derive(Debug, Clone, PartialEq)]
pub enum Owner {
    None,
    /// How it stands, if its network is started.
    Answers {
        pid: i32,
        standing: Option<Standing>,
        /// Those that it was told to go through.
        relays: Vec<PublicKey>,
        /// What became of a port of the router, if it wants one.
        port: Option<Port>,
    },
    /// It did not say that it listens, or what runs.
    Silent {
        pid: i32,
    },
    /// It runs as many commands as it takes.
    Full {
        pid: i32,
    },
    /// It refuses, and says why.
    Refuses {
        pid: i32,
        why: String,
    },
    /// It may not be asked.
    Forbidden(String),
}

pub async fn look(store: &Path) -> Owner {
    let stream = match meet(store) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Owner::Forbidden(error.to_string());
        }
        // A socket that a process left which was killed is nobody's.
        Err(_) => return Owner::None,
    };
    let pid = pid_of(&stream);
    match timeout(PATIENCE, ask(stream, pid)).await {
        Ok(Ok(owner)) => owner,
        // It ended just now.
        Ok(Err(_)) => Owner::None,
        Err(_) => Owner::Silent { pid },
    }
}

async fn ask(stream: std::os::unix::net::UnixStream, pid: i32) -> io::Result<Owner> {
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let _ = greet(&mut stream).await;
    match stream.read_u8().await? {
        LISTENS => {}
        FULL => return Ok(Owner::Full { pid }),
        // One from before there was a hello.
        _ => return Ok(Owner::Refuses { pid, why: "it is of another version of hdrive".into() }),
    }
    let ((stdin, _), (stdout, out), (stderr, errors)) = (io::pipe()?, io::pipe()?, io::pipe()?);
    ask_for(&mut stream, &request(), [stdin.as_fd(), out.as_fd(), errors.as_fd()]).await?;
    drop((stdin, out, errors));
    let (said, why) = tokio::try_join!(all_of(stdout), all_of(stderr))?;
    let mut answer = stream.read_u8().await?;
    let mut relays = Vec::new();
    while answer > Exit::Interrupted as u8 {
        if answer == STANDS {
            let place = read_standing(&mut stream).await?.place;
            relays = place.relay.iter().filter_map(|key| key.parse().ok()).collect();
        }
        answer = stream.read_u8().await?;
    }
    Ok(match answer {
        0 => {
            let network = network_of(&said);
            let port = network.as_ref().and_then(router::of_status);
            Owner::Answers { pid, standing: network.as_ref().map(standing_of), relays, port }
        }
        _ => Owner::Refuses { pid, why: why.trim().trim_start_matches("error: ").to_string() },
    })
}

async fn all_of(pipe: io::PipeReader) -> io::Result<String> {
    let pipe: &mut (dyn AsyncRead + Send + Unpin) = &mut Receiver::from_owned_fd(pipe.into())?;
    let mut text = Vec::new();
    pipe.take(MAX_STATUS).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn request() -> Request {
    Request {
        version: env!("CARGO_PKG_VERSION").into(),
        command: Command::Status(Status {}),
        cwd: "/".into(),
        json: true,
        quiet: true,
        trust_store: false,
        place: Place::default(),
        peers: Vec::new(),
        port_mapping: Some(false),
        view: View::own(),
        pid: std::process::id(),
        background: false,
        insists: false,
        stood: None,
        told: 0,
    }
}

impl Owner {
    /// Relays that `named` does not have, with the process that was told of them.
    pub fn more_relays(&self, named: &[PublicKey]) -> Vec<(PublicKey, Option<i32>)> {
        let Self::Answers { pid, relays, .. } = self else { return Vec::new() };
        let new = relays.iter().filter(|key| !named.contains(key));
        new.map(|key| (*key, Some(*pid))).collect()
    }
}

/// What the JSON of `status` says of the network.
fn network_of(status: &str) -> Option<Value> {
    let mut status: Value = serde_json::from_str(status).ok()?;
    status.get_mut("network").map(Value::take).filter(Value::is_object)
}

fn standing_of(network: &Value) -> Standing {
    let text = |name: &str| network.get(name).and_then(Value::as_str).unwrap_or_default();
    Standing {
        access: match text("reachable") {
            "open" => Access::Open,
            "closed" => Access::Closed,
            _ => Access::Unknown,
        },
        nat: match text("nat") {
            "none" => Nat::None,
            "steady" => Nat::Steady,
            "varying" => Nat::Varying,
            _ => Nat::Unknown,
        },
        address: text("address").parse().ok(),
        is_node: network.get("dhtNode").and_then(Value::as_bool).unwrap_or_default(),
        asks_later: false,
    }
}

pub fn judge(owner: &Owner) -> Finding {
    let version = env!("CARGO_PKG_VERSION");
    let end = |pid: &i32| format!("end it (`kill {pid}`) and try again");
    match owner {
        Owner::None => Finding::good("owner", "no process works on the store"),
        Owner::Answers { pid, .. } => {
            let words = format!("process {pid} works on the store, and answers; hdrive {version}");
            Finding::good("owner", words).with(json!({ "pid": pid }))
        }
        Owner::Silent { pid } => {
            let words = format!("process {pid} works on the store, and does not answer");
            Finding::bad("owner", words, end(pid)).with(json!({ "pid": pid }))
        }
        Owner::Full { pid } => {
            let words = format!("process {pid} runs as many commands as it takes at once");
            let next = "end one of them: `hdrive status` shows what runs";
            Finding::bad("owner", words, next).with(json!({ "pid": pid }))
        }
        Owner::Refuses { pid, why } => {
            let words = format!("process {pid} works on the store, and takes no command: {why}");
            Finding::bad("owner", words, end(pid)).with(json!({ "pid": pid }))
        }
        Owner::Forbidden(why) => {
            let words = format!("the process that works on the store cannot be asked: {why}");
            Finding::bad(
                "owner",
                words,
                "use another store with --store, or be the user that it belongs to",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::cli::status::network_json;
    use crate::swarm::SwarmStatus;

    #[test]
    fn what_status_says_of_the_network_is_understood() {
        let address = Some("20.0.0.1:5".parse().unwrap());
        for access in [Access::Unknown, Access::Open, Access::Closed] {
            for nat in [Nat::Unknown, Nat::None, Nat::Steady, Nat::Varying] {
                let standing = Standing { access, nat, address, is_node: true, asks_later: false };
                let status = SwarmStatus { standing, ..SwarmStatus::default() };
                let said = json!({ "network": network_json(&status) }).to_string();
                assert_eq!(standing_of(&network_of(&said).unwrap()), standing);
            }
        }
        assert_eq!(network_of("{\"network\":null}"), None);
        assert_eq!(network_of("error"), None);
    }

    #[test]
    fn an_owner_that_keeps_a_mount_from_the_store_is_bad() {
        let why = "other".to_string();
        for owner in
            [Owner::Silent { pid: 7 }, Owner::Full { pid: 7 }, Owner::Refuses { pid: 7, why }]
        {
            let finding = judge(&owner);
            assert_eq!(finding.verdict, Verdict::Bad, "{owner:?}");
            assert!(finding.words.contains("process 7") && finding.next.is_some());
        }
        assert_eq!(judge(&Owner::Forbidden("denied".into())).verdict, Verdict::Bad);
        let relays = Vec::new();
        for owner in [Owner::None, Owner::Answers { pid: 7, standing: None, relays, port: None }] {
            assert_eq!(judge(&owner).verdict, Verdict::Good, "{owner:?}");
        }
    }
}
