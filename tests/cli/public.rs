//! Whom a peer asks when nobody was named: the public nodes; and a node whose network comes up late. Run in a
//! network of its own that leads nowhere, whose firewall counts what would have left.

use crate::common::{Hdrive, PATIENCE, available, eventually};
use nix::sys::signal::Signal;
use std::process::Command;

/// Where nothing answers: the only way out of the network, and its resolver.
const RESOLVER: &str = "192.0.2.53";
/// Addresses of the public nodes, port 49737.
const PUBLIC: [&str; 3] = ["88.99.3.86", "142.93.90.113", "138.68.147.8"];

/// A network namespace with a default route into a cable with nobody at its other end.
struct Nowhere {
    name: String,
}

impl Nowhere {
    /// None where namespaces cannot be made.
    fn new(name: &str) -> Option<Self> {
        let name = format!("hdrive-{name}-{}", std::process::id());
        let made = run("ip", &["netns", "add", &name]);
        let tools = run("nft", &["--version"]);
        if made && !tools {
            run("ip", &["netns", "del", &name]);
        }
        if !available("root for network namespaces, or nft", made && tools) {
            return None;
        }
        let here = Self { name };
        let resolver = format!("/etc/netns/{}", here.name);
        std::fs::create_dir_all(&resolver).unwrap();
        std::fs::write(format!("{resolver}/resolv.conf"), format!("nameserver {RESOLVER}\n"))
            .unwrap();
        for line in [
            "ip link set lo up",
            "ip link add out type veth peer name far",
            "ip link set far up",
            "ip addr add 192.0.2.1/24 dev out",
            "ip link set out up",
            "ip route add default dev out",
            "nft add table ip watch",
            "nft add chain ip watch leaving { type filter hook output priority 0 ; }",
        ] {
            here.inside(line);
        }
        for (i, host) in PUBLIC.into_iter().enumerate() {
            here.count(&format!("node{i}"), &format!("ip daddr {host} udp dport 49737"));
        }
        here.count("names", &format!("ip daddr {RESOLVER} udp dport 53"));
        here.count("everything", "oifname out");
        Some(here)
    }

    fn inside(&self, line: &str) {
        let mut args = vec!["netns", "exec", &self.name];
        args.extend(line.split(' '));
        assert!(run("ip", &args), "{line}");
    }

    fn count(&self, name: &str, what: &str) {
        self.inside(&format!("nft add counter ip watch {name}"));
        self.inside(&format!("nft add rule ip watch leaving {what} counter name {name}"));
    }

    /// Datagrams counted under a name so far.
    fn counted(&self, name: &str) -> u64 {
        let args = ["netns", "exec", &self.name, "nft", "list", "counter", "ip", "watch", name];
        let output = Command::new("ip").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
    }

    /// A command in this network.
    fn command(&self, args: &[&str]) -> Command {
        let hdrive = Hdrive::command(args);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .arg(hdrive.get_program())
            .args(hdrive.get_args());
        command.env("HDRIVE_BOOTSTRAP", "").env("HDRIVE_LOCAL", "").env("HDRIVE_NO_LAN", "1");
        command
    }
}

impl Drop for Nowhere {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
        let _ = std::fs::remove_dir_all(format!("/etc/netns/{}", self.name));
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

#[test]
fn without_bootstrap_nodes_the_public_ones_are_asked_by_address_and_then_by_name() {
    let Some(nowhere) = Nowhere::new("public") else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), "a").unwrap();
    let mut command = nowhere.command(&["share", folder.to_str().unwrap()]);
    command.env("HDRIVE_STORE", dir.path().join("store"));
    let mut share = Hdrive::spawn(command);
    for node in ["node0", "node1", "node2"] {
        let asked = || (nowhere.counted(node) > 0).then_some(());
        eventually(node, PATIENCE, asked);
    }
    eventually("names", PATIENCE, || (nowhere.counted("names") > 0).then_some(()));
    // Nobody else: whatever has left went to them or to the resolver.
    let known = || (0..3).map(|i| nowhere.counted(&format!("node{i}"))).sum::<u64>();
    let same = || {
        let before = nowhere.counted("everything");
        let of_them = known() + nowhere.counted("names");
        (of_them >= before).then_some(())
    };
    eventually("nothing else leaves", PATIENCE, same);
    share.signal(Signal::SIGINT);
    assert!(share.wait(PATIENCE).success());
}

#[test]
fn named_nodes_are_asked_and_nobody_else_even_if_their_names_do_not_resolve() {
    let Some(nowhere) = Nowhere::new("named") else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let mut command = nowhere.command(&["share", folder.to_str().unwrap()]);
    command.env("HDRIVE_STORE", dir.path().join("store"));
    command.env("HDRIVE_BOOTSTRAP", "dht.example.org:49737");
    let mut share = Hdrive::spawn(command);
    // A machine without a resolver is no reason to give up.
    eventually("names", PATIENCE, || (nowhere.counted("names") > 0).then_some(()));
    // By then all there is to ask has been asked.
    share.told("no DHT node answers");
    for node in ["node0", "node1", "node2"] {
        assert_eq!(nowhere.counted(node), 0, "{node}");
    }
    share.signal(Signal::SIGINT);
    assert!(share.wait(PATIENCE).success());
}

#[test]
fn a_dht_node_that_starts_before_its_network_follows_its_address() {
    let Some(nowhere) = Nowhere::new("late") else { return };
    nowhere.inside("ip addr del 192.0.2.1/24 dev out");
    let mut dht = Hdrive::spawn(nowhere.command(&["dht", "--bind", "0.0.0.0:4977"]));
    assert_eq!(dht.line("listening: "), "127.0.0.1:4977");
    nowhere.inside("ip addr add 192.0.2.9/24 dev out");
    assert_eq!(dht.line("listening: "), "192.0.2.9:4977");
    dht.signal(Signal::SIGINT);
    assert!(dht.wait(PATIENCE).success());
}
