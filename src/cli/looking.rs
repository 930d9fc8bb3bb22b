//! What a person is told while a drive's peers are looked for: one line each time the picture changes.
//!
//! [`Outlook::of`] turns what the network knows into one of a few pictures; [`Looking`] watches it for as long
//! as a command waits, and [`refusal`] puts the same words into the error with which a command gives up.

use super::hearing;
use super::output::Output;
use crate::hyper::drive::LiveDrive;
use crate::hyper::session::{CoreHandle, Reach};
use crate::key::{CoreKey, PublicKey, Topic};
use crate::node::{DriveUse, Node};
use crate::swarm::lan::Hearing;
use crate::swarm::{Reachability, SwarmStatus};
use std::fmt;
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
/// A DHT that has not answered for this long is called silent. Its nodes are asked anew within a second or two.
const SILENCE: Duration = Duration::from_secs(4);
/// A peer that is connected tells within this whether it has the drive, or it never does.
const HAS_IT: Duration = Duration::from_secs(3);
/// The last peer has been gone for this long before that is told: many are back at once.
const GONE: Duration = Duration::from_secs(3);

/// How long there has been no peer that has the drive.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wait {
    pub waited: Duration,
    /// Rounds of looking that had ended when the last peer went; they tell nothing of now.
    pub rounds_before: u64,
    /// How long somebody has been connected.
    pub company: Duration,
    /// Whoever is connected has said that he does not have it.
    pub blank: bool,
}

fn rounds(status: &SwarmStatus, topic: Topic) -> u64 {
    status.topics.iter().find(|known| known.topic == topic).map_or(0, |known| known.rounds)
}

/// Why no peer of a drive is there, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing is known yet.
    Looking,
    /// The system has no way to send anything; its words.
    NoNetwork(String),
    /// No node of the DHT answers.
    NoDht,
    /// The same, of a drive of our own, which neighbours find all the same.
    Near,
    /// The same, and no neighbour has it.
    NobodyNear,
    /// The same, and a firewall keeps neighbours from finding each other.
    Unheard,
    /// The DHT answers, and nobody has announced the drive.
    Nobody,
    /// So many announced it and cannot be reached; why the last could not.
    Unreachable(usize, String),
    /// Peers are connected that announced the drive, and do not have it.
    NotThere,
    /// A peer has it, or, for a drive of our own, others can find it.
    Found,
}

impl Outlook {
    /// The picture after `wait`; `own` if it is a drive of this store, which needs no peer.
    pub fn of(status: Option<&SwarmStatus>, topic: Topic, own: bool, wait: Wait) -> Self {
        let Some(status) = status else { return Self::Looking };
        let Wait { waited, rounds_before, company, blank } = wait;
        let searched = rounds(status, topic) > rounds_before;
        let none = Reachability::default();
        let reach = status.reachability.get(&topic).unwrap_or(&none);
        let no_way = status.traffic.no_way;
        let silent = no_way.is_some() || searched || waited >= SILENCE;
        if status.nodes == 0 && (reach.connected == 0 || own) {
            // Whoever was met there and cannot be reached is told of nowhere else yet.
            let met = reach.failed + reach.dialling > 0;
            return match no_way {
                _ if !silent => Self::Looking,
                // What leads to neighbours is a network.
                _ if status.local_network => match status.hearing() {
                    Hearing::Unknown if waited < SILENCE => Self::Looking,
                    Hearing::Unheard => Self::Unheard,
                    _ if own => Self::Near,
                    _ if met => Self::NoDht,
                    _ => Self::NobodyNear,
                },
                Some(errno) => Self::NoNetwork(nix::errno::Errno::from_raw(errno).desc().into()),
                None => Self::NoDht,
            };
        }
        match reach {
            _ if own => Self::Found,
            Reachability { connected: 1.., .. } if company >= HAS_IT => Self::NotThere,
            Reachability { connected: 1.., dialling: 0, .. } if blank => Self::NotThere,
            Reachability { connected: 1.., .. } => Self::Looking,
            // Some are tried again and again.
            Reachability { failed: failed @ 1.., why, dialling, .. }
                if *dialling == 0 || waited >= SILENCE =>
            {
                let why = why.clone().unwrap_or_default();
                Self::Unreachable(*failed, why + &relays_gone(&status.absent_relays))
            }
            Reachability { dialling: 1.., .. } => Self::Looking,
            _ if searched => Self::Nobody,
            _ => Self::Looking,
        }
    }

    /// What may help, for an error that ends a command.
    fn advice(&self) -> String {
        const RUNS: &str = "; check the key, and that a peer that shares it is running";
        match self {
            Self::NoDht | Self::Near => "; check the network, or --bootstrap".into(),
            Self::NobodyNear => format!("{RUNS}; for peers elsewhere the network, or --bootstrap"),
            Self::Unheard => format!("; {}", hearing::advice()),
            Self::Nobody => RUNS.into(),
            _ => String::new(),
        }
    }
}

/// Of relays that were named and are of no use.
fn relays_gone(relays: &[PublicKey]) -> String {
    let gone = |relay| {
        format!(
            "; the relay {relay} that was named is not found, or does not serve: see `hdrive doctor --relay {relay}`"
        )
    };
    relays.iter().map(gone).collect()
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking => f.write_str("no peer yet"),
            Self::NoNetwork(why) => write!(f, "no network: {why}"),
            Self::NoDht => f.write_str("no DHT node answers"),
            Self::Near => {
                f.write_str("no DHT node answers: only the local network finds the drive")
            }
            Self::NobodyNear => {
                f.write_str("nobody on the local network has it, and no DHT node answers")
            }
            Self::Unheard => f.write_str(
                "no DHT node answers, and calls on the local network are not heard by this machine: peers do not find \
                 each other there",
            ),
            Self::Nobody => f.write_str("no peer has it: nobody announces this drive"),
            Self::Unreachable(1, why) => {
                write!(f, "a peer that has it was found but cannot be reached: {why}")
            }
            Self::Unreachable(n, why) => {
                write!(f, "{n} peers that have it were found but cannot be reached: {why}")
            }
            Self::NotThere => f.write_str("the peers that announce this drive do not have it"),
            Self::Found => f.write_str("peer found"),
        }
    }
}

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

/// That nobody is where we were told either, if that is so.
fn nor_where_told(status: Option<&SwarmStatus>, topic: Topic, outlook: &Outlook) -> String {
    let silent =
        status.and_then(|status| status.reachability.get(&topic)).map(|reach| &reach.silent);
    let Some([first, more @ ..]) = silent.map(Vec::as_slice) else { return String::new() };
    match outlook {
        Outlook::NoNetwork(_)
        | Outlook::NoDht
        | Outlook::NobodyNear
        | Outlook::Unheard
        | Outlook::Nobody
        | Outlook::Unreachable(..) => {}
        Outlook::Looking | Outlook::Near | Outlook::NotThere | Outlook::Found => {
            return String::new();
        }
    }
    let more = match more.len() {
        0 => String::new(),
        n => format!(", nor at {n} more addresses"),
    };
    format!(", and nobody who has it answers at {first}{more}")
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
    use crate::swarm::lan::LinkStatus;
    use crate::swarm::{JoinOptions, TopicStatus};

    const TOPIC: Topic = Topic([1; 32]);

    fn status(nodes: usize, rounds: u64, reach: Reachability) -> SwarmStatus {
        let options = JoinOptions { server: false, client: true };
        let topic = TopicStatus { topic: TOPIC, options, announced: false, found: 0, rounds };
        let reachability = [(TOPIC, reach)].into();
        SwarmStatus { nodes, topics: vec![topic], reachability, ..SwarmStatus::default() }
    }

    fn after(status: &SwarmStatus, seconds: u64) -> Outlook {
        Outlook::of(Some(status), TOPIC, false, wait(seconds))
    }

    fn wait(seconds: u64) -> Wait {
        let waited = Duration::from_secs(seconds);
        Wait { waited, company: waited, ..Wait::default() }
    }

    fn heard(hearing: Hearing) -> Vec<LinkStatus> {
        vec![LinkStatus { addr: [10, 0, 0, 1].into(), hearing }]
    }

    #[test]
    fn each_reason_has_its_picture() {
        let none = Reachability::default;
        assert_eq!(Outlook::of(None, TOPIC, false, wait(9)), Outlook::Looking);
        let mut offline = status(0, 0, none());
        assert_eq!(after(&offline, 1), Outlook::Looking);
        assert_eq!(after(&offline, 4), Outlook::NoDht);
        offline.traffic.no_way = Some(nix::errno::Errno::ENETUNREACH as i32);
        assert_eq!(after(&offline, 1), Outlook::NoNetwork("Network is unreachable".into()));
        assert_eq!(after(&status(0, 1, none()), 1), Outlook::NoDht);
        assert_eq!(after(&status(3, 0, none()), 9), Outlook::Looking);
        assert_eq!(after(&status(3, 1, none()), 1), Outlook::Nobody);
        let why = Some("it is behind a NAT".to_string());
        let failed = Reachability { failed: 2, why, ..none() };
        assert_eq!(
            after(&status(3, 1, failed.clone()), 1),
            Outlook::Unreachable(2, "it is behind a NAT".into())
        );
        let mut relayed = status(3, 1, failed.clone());
        relayed.absent_relays = vec![PublicKey([1; 32])];
        let line = after(&relayed, 1).to_string();
        assert!(line.contains("NAT; the relay ") && line.contains("is not found"), "{line}");
        let again = Reachability { dialling: 1, ..failed };
        let again = status(3, 1, again);
        assert_eq!(after(&again, 1), Outlook::Looking);
        assert!(matches!(after(&again, 4), Outlook::Unreachable(2, _)), "they are tried on");
        let strange = status(3, 1, Reachability { connected: 1, ..none() });
        assert_eq!(after(&strange, 1), Outlook::Looking);
        assert_eq!(after(&strange, 3), Outlook::NotThere);
        let company = Duration::from_secs(1);
        let just_come = |blank| Wait { company, blank, ..wait(60) };
        let of = |status, wait| Outlook::of(Some(status), TOPIC, false, wait);
        assert_eq!(of(&strange, just_come(false)), Outlook::Looking, "it has not said a word");
        assert_eq!(of(&strange, just_come(true)), Outlook::NotThere);
        let others = Reachability { connected: 1, dialling: 1, ..none() };
        assert_eq!(of(&status(3, 1, others), just_come(true)), Outlook::Looking);
        let own = Outlook::of(Some(&status(3, 1, none())), TOPIC, true, wait(9));
        assert_eq!(own, Outlook::Found);
        // A network that leads to neighbours alone is one.
        offline.local_network = true;
        assert_eq!(after(&offline, 1), Outlook::Looking, "nobody was called yet");
        assert_eq!(after(&offline, 4), Outlook::NobodyNear);
        offline.links = heard(Hearing::Heard);
        assert_eq!(after(&offline, 1), Outlook::NobodyNear);
        offline.reachability.insert(TOPIC, Reachability { failed: 1, ..none() });
        assert_eq!(after(&offline, 1), Outlook::NoDht, "somebody has it");
        let visited = status(0, 0, Reachability { connected: 1, ..none() });
        for (mut status, waited) in [(offline, 1), (visited, 4)] {
            status.local_network = true;
            status.links = heard(Hearing::Unheard);
            let own = Outlook::of(Some(&status), TOPIC, true, wait(waited));
            assert_eq!(own, Outlook::Unheard, "nobody finds it there");
            status.links = heard(Hearing::Heard);
            let own = |waited| Outlook::of(Some(&status), TOPIC, true, wait(waited));
            assert_eq!(own(waited), Outlook::Near);
            status.local_network = false;
            assert_ne!(Outlook::of(Some(&status), TOPIC, true, wait(waited)), Outlook::Near);
        }
        let again = Wait { rounds_before: 1, ..wait(9) };
        let anew = |rounds| Outlook::of(Some(&status(3, rounds, none())), TOPIC, false, again);
        assert_eq!((anew(1), anew(2)), (Outlook::Looking, Outlook::Nobody));
    }

    #[test]
    fn who_is_alone_on_a_local_network_is_told_what_may_be_wrong_there() {
        let mut voice = Voice::default();
        let line = voice.say(&Outlook::NobodyNear, false, false).unwrap();
        assert!(line.starts_with("nobody on the local network has it, and no DHT node"), "{line}");
        assert!(line.contains("check the key, and that a peer"), "{line}");
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
