//! What a person is told while a drive's peers are looked for: one line each time the picture changes.
//!
//! [`Looking`] watches the picture ([`Outlook`]) for as long as a command waits, and [`refusal`] puts the same words into
//! the error with which a command gives up.

use super::outlook::{HAS_IT, Outlook, SILENCE, Wait, nor_where_told, rounds};
use super::output::Output;
use crate::hyper::drive::LiveDrive;
use crate::hyper::session::{CoreHandle, Reach};
use crate::key::{CoreKey, Topic};
use crate::node::{DriveUse, Node};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The network is asked this often while there is no peer.
pub const LOOK: Duration = Duration::from_millis(250);
/// Nothing is said before this: most drives are found sooner.
pub const FIRST_WORD: Duration = Duration::from_secs(1);
/// Who waits for what there is to say waits so long: by then it is known but where a peer is being reached.
const FIRST_VERDICT: Duration = Duration::from_secs(6);
/// The last peer has been gone for this long before that is told: many are back at once.
const GONE: Duration = Duration::from_secs(3);

/// Decides what is worth a line.
#[derive(Default)]
struct Voice {
    told: Option<Outlook>,
    /// It was told that neighbours find the drive, and that one has.
    met: bool,
}

impl Voice {
    /// The line for `outlook`, if it is news. That a peer is there is none if nothing was said before.
    /// `findable` if it is a drive of our own, which others can find.
    fn say(&mut self, outlook: &Outlook, findable: bool, before: bool) -> Option<String> {
        let same = match (&self.told, outlook) {
            // How many they are changes all the time.
            (Some(Outlook::Unreachable(_, told)), Outlook::Unreachable(_, why)) => told == why,
            (told, outlook) => told.as_ref() == Some(outlook),
        };
        if same || self.told.is_none() && *outlook == Outlook::Found {
            return None;
        }
        // Neighbours come and go. That says nothing new of the DHT.
        if self.told == Some(Outlook::Near) && *outlook == Outlook::Found && !findable {
            return (!std::mem::replace(&mut self.met, true)).then(|| outlook.to_string());
        }
        self.met = false;
        let line = match outlook {
            Outlook::Found if findable => "the DHT answers: others can find the drive".to_string(),
            Outlook::Found => outlook.to_string(),
            Outlook::Nobody | Outlook::Unreachable(..) => {
                format!("{outlook}{}; looking on…", outlook.advice())
            }
            Outlook::Looking if before && self.told.is_none() => "looking for another…".to_string(),
            Outlook::Looking => format!("{outlook}, looking…"),
            _ => format!("{outlook}{}; trying on…", outlook.advice()),
        };
        let line = match before && self.told.is_none() {
            true => format!("the last peer is gone: {line}"),
            false => line,
        };
        self.told = (*outlook != Outlook::Found).then(|| outlook.clone());
        Some(line)
    }
}

/// Tells how the look for the peers of a drive goes, for as long as this lives.
pub struct Looking {
    task: JoinHandle<()>,
    judged: watch::Receiver<bool>,
}

impl Looking {
    /// `name` stands in front of each line where a command has several drives.
    pub fn start(
        node: &Arc<Node>,
        out: &Arc<Output>,
        drive: &LiveDrive,
        name: Option<&str>,
    ) -> Self {
        let (node, out, db) = (node.clone(), out.clone(), drive.db().clone());
        let name = name.map_or_else(String::new, |name| format!("{name}: "));
        let own = drive.db().core().writable();
        let (judge, judged) = watch::channel(false);
        let tell = move |line, outlook: &Outlook| match outlook {
            // What is wrong is on this machine.
            Outlook::Unheard => out.warn(format_args!("{name}{line}")),
            _ => out.note(format_args!("{name}{line}")),
        };
        Self { task: tokio::spawn(async move { look(&node, &db, own, tell, judge).await }), judged }
    }

    /// Waits until it is said why there is no peer, or clear that there is nothing to say.
    pub async fn first_verdict(&self) {
        let mut judged = self.judged.clone();
        let _ = timeout(FIRST_VERDICT, judged.wait_for(|judged| *judged)).await;
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(
    node: &Node,
    db: &CoreHandle,
    own: bool,
    tell: impl Fn(String, &Outlook),
    judge: watch::Sender<bool>,
) {
    let topic = Topic::from(db.discovery_key());
    let mut reach = db.reach();
    let mut voice = Voice::default();
    let (mut since, mut pause, mut before) = (Instant::now(), FIRST_WORD, false);
    let mut rounds_before = 0;
    let mut company: Option<Instant> = None;
    loop {
        // With a peer, the network is left alone until it goes.
        let Reach { holders, peers, blank, .. } = *reach.borrow_and_update();
        let found = holders > 0;
        let status = if found { None } else { node.network_status().await };
        let outlook = match found {
            true => Outlook::Found,
            false => {
                let connected = status.as_ref().and_then(|s| s.reachability.get(&topic));
                company = match connected.is_some_and(|reach| reach.connected > 0) {
                    true => company.or_else(|| Some(Instant::now())),
                    false => None,
                };
                let wait = Wait {
                    waited: since.elapsed(),
                    rounds_before,
                    company: company.map_or(Duration::ZERO, |since| since.elapsed()),
                    blank: peers == 0 && blank > 0,
                };
                Outlook::of(status.as_ref(), topic, own, wait)
            }
        };
        let findable = own && status.as_ref().is_some_and(|status| status.nodes > 0);
        if found || since.elapsed() >= pause {
            if let Some(line) = voice.say(&outlook, findable, before) {
                let (said, told) =
                    (outlook.to_string(), nor_where_told(status.as_ref(), topic, &outlook));
                tell(line.replacen(&said, &format!("{said}{told}"), 1), &outlook);
            }
            if outlook != Outlook::Looking {
                judge.send_replace(true);
            }
        }
        if found {
            if reach.wait_for(|reach| reach.holders == 0).await.is_err() {
                return;
            }
            (since, pause, before, company) = (Instant::now(), GONE, true, None);
            let status = node.network_status().await;
            rounds_before = status.map_or(0, |status| rounds(&status, topic));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Why a command that found no peer gives up: which drive, what is wrong, what may help.
pub async fn refusal(node: &Node, key: &CoreKey) -> String {
    let status = node.network_status().await;
    let topic = Topic::from(key.discovery_key());
    let wait = Wait { waited: SILENCE, company: HAS_IT, ..Wait::default() };
    match Outlook::of(status.as_ref(), topic, false, wait) {
        Outlook::Looking | Outlook::Found => format!("drive {key}: no peer has sent it yet"),
        outlook => {
            let told = nor_where_told(status.as_ref(), topic, &outlook);
            format!("drive {key}: {outlook}{told}{}", outlook.advice())
        }
    }
}

/// A drive that a command uses, with the word about its peers.
pub struct Sought {
    drive: DriveUse,
    _looking: Looking,
}

impl Sought {
    pub fn new(node: &Arc<Node>, out: &Arc<Output>, drive: DriveUse) -> Self {
        let looking = Looking::start(node, out, &drive, None);
        Self { drive, _looking: looking }
    }
}

impl Deref for Sought {
    type Target = LiveDrive;

    fn deref(&self) -> &LiveDrive {
        &self.drive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn who_is_alone_on_a_local_network_is_told_what_may_be_wrong_there() {
        let mut voice = Voice::default();
        let line = voice.say(&Outlook::NobodyNear, false, false).unwrap();
        assert!(line.starts_with("nobody on the local network has it, and no DHT node"), "{line}");
        assert!(line.contains("check the key, that a peer"), "{line}");
        assert!(line.contains("firewalls of both machines"), "{line}");
        let line = voice.say(&Outlook::Unheard, false, false).unwrap();
        assert!(line.contains("calls on the local network are not heard"), "{line}");
        assert!(line.contains("239.255.104.100") && line.contains("firewall"), "{line}");
    }

    #[test]
    fn neighbours_that_come_and_go_are_no_news_of_the_dht() {
        let mut voice = Voice::default();
        let line = voice.say(&Outlook::Near, false, false).unwrap();
        let near = "no DHT node answers: only the local network finds the drive; check the network, or --bootstrap; \
                    trying on…";
        assert_eq!(line, near);
        let said: Vec<_> = (0..3)
            .flat_map(|_| [Outlook::Found, Outlook::Near])
            .filter_map(|outlook| voice.say(&outlook, false, true))
            .collect();
        assert_eq!(said, ["peer found"]);
        let line = voice.say(&Outlook::Found, true, false).unwrap();
        assert!(line.starts_with("the DHT answers"), "{line}");
        // A reader that came before anything was said.
        let line = voice.say(&Outlook::Near, false, true).unwrap();
        assert!(line.starts_with("the last peer is gone: no DHT node answers: only"), "{line}");
    }

    #[test]
    fn a_line_is_said_once_and_a_peer_only_after_something_else() {
        let mut voice = Voice::default();
        assert_eq!(voice.say(&Outlook::Found, false, false), None);
        let mut say = |outlook, before| voice.say(&outlook, false, before);
        assert_eq!(say(Outlook::Looking, false).as_deref(), Some("no peer yet, looking…"));
        assert_eq!(say(Outlook::Looking, false), None);
        let nobody = say(Outlook::Nobody, false).unwrap();
        assert!(
            nobody.contains("nobody announces") && nobody.contains("check the key"),
            "{nobody}"
        );
        let silent = |n| Outlook::Unreachable(n, "no answer".into());
        assert!(say(silent(2), false).unwrap().starts_with("2 peers"));
        assert_eq!(say(silent(3), false), None, "it changes all the time");
        assert_eq!(say(Outlook::Found, false).as_deref(), Some("peer found"));
        assert_eq!(say(Outlook::Found, true), None);
        let gone = say(Outlook::Looking, true).unwrap();
        assert!(gone == "the last peer is gone: looking for another…", "{gone}");
        let gone = say(Outlook::NoNetwork("Network is down".into()), true).unwrap();
        assert!(gone.starts_with("no network: Network is down"), "{gone}");
    }
}
