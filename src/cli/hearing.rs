//! What people are told of the local networks: whether calls to neighbours are heard there, and what helps where they are not.

use crate::swarm::SwarmStatus;
use crate::swarm::lan::{GROUP, GROUP6, Hearing, LinkStatus};
use serde_json::{Value, json};

/// What may help where calls are not heard. The least is enough (`swarm::lan`), but neighbours meet a moment later.
pub fn advice() -> String {
    let groups = format!("{} and {}, port {}", GROUP.ip(), GROUP6.ip(), GROUP.port());
    format!(
        "let UDP of the local network in and out through the firewall of this machine, at least that to {groups}"
    )
}

/// Of places where calls are heard, and where they are not; nothing if there is none.
pub fn words(heard: &str, unheard: &str) -> Option<String> {
    Some(match (heard, unheard) {
        ("", "") => return None,
        (heard, "") => format!("neighbours are called on {heard}, and calls are heard there"),
        ("", unheard) => {
            format!("neighbours are called on {unheard}, but calls are not heard there")
        }
        (heard, unheard) => format!(
            "neighbours are called on {unheard}, but calls are not heard there; on {heard} they are"
        ),
    })
}

/// The same of a network that runs, with what helps.
pub fn of_status(network: &SwarmStatus) -> Option<String> {
    let places = |hearing| {
        let links = network.links.iter().filter(|link| link.hearing == hearing);
        let places: Vec<_> = links.map(|link| link.addr.to_string()).collect();
        places.join(", ")
    };
    let (heard, unheard) = (places(Hearing::Heard), places(Hearing::Unheard));
    let words = words(&heard, &unheard).filter(|_| network.local_network)?;
    Some(if unheard.is_empty() { words } else { format!("{words}: {}", advice()) })
}

/// The same for programs.
pub fn json(network: &SwarmStatus) -> Value {
    let heard = |hearing| match hearing {
        Hearing::Unknown => Value::Null,
        Hearing::Heard => true.into(),
        Hearing::Unheard => false.into(),
    };
    let link =
        |link: &LinkStatus| json!({"address": link.addr.to_string(), "heard": heard(link.hearing)});
    let links = network.links.iter().filter(|_| network.local_network);
    links.map(link).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_hears_us_it_is_said_what_helps() {
        let link = |n: u8, hearing| LinkStatus { addr: [10, 0, 0, n].into(), hearing };
        let of = |links: &[LinkStatus], local_network| {
            let network =
                SwarmStatus { links: links.to_vec(), local_network, ..SwarmStatus::default() };
            (of_status(&network), json(&network))
        };
        let (heard, deaf) = (link(1, Hearing::Heard), link(2, Hearing::Unheard));
        assert_eq!(of(&[link(1, Hearing::Unknown)], true).0, None);
        assert_eq!(of(&[heard], false), (None, json!([])), "this machine's own is none");
        let good = "neighbours are called on 10.0.0.1, and calls are heard there";
        assert_eq!(of(&[heard], true).0.unwrap(), good);
        let (words, json) = of(&[heard, deaf], true);
        let words = words.unwrap();
        assert!(words.contains("10.0.0.2, but calls are not heard there; on 10.0.0.1"), "{words}");
        assert!(words.ends_with(&advice()) && advice().contains("239.255.104.100"), "{words}");
        assert_eq!(json[1]["heard"], false);
    }
}
