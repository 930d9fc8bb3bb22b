//! A private network of three nodes, started by the very line of the unit file: whoever is told of all three gets on while
//! one of them is away.

use crate::common::{Hdrive, Lab, PATIENCE, eventually, root, run, stop};
use nix::sys::signal::Signal;
use std::net::UdpSocket;

/// The arguments of the unit's ExecStart, with what its environment file says.
fn start_line(bind: &str, others: &str) -> Vec<String> {
    let unit = std::fs::read_to_string(root().join("docs/hdrive-dht.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words = line.split(' ').skip(1);
    words.map(|word| word.replace("${BIND}", bind).replace("${OTHERS}", others)).collect()
}

/// The three of one machine, each with an address of its own.
fn addresses() -> [String; 3] {
    [2, 3, 4].map(|n| {
        let free = UdpSocket::bind((std::net::Ipv4Addr::new(127, 0, 0, n), 0)).unwrap();
        free.local_addr().unwrap().to_string()
    })
}

fn start(all: &[String; 3], i: usize) -> Hdrive {
    let others: Vec<&str> =
        all.iter().filter(|other| **other != all[i]).map(String::as_str).collect();
    let args = start_line(&all[i], &others.join(","));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut node = Hdrive::spawn(Hdrive::command(&args));
    assert!(node.line("listening: ").contains(&all[i]));
    node
}

#[test]
fn three_nodes_of_a_private_network_serve_whoever_is_told_of_them_though_one_is_away() {
    let lab = Lab::new();
    let all = addresses();
    let mut nodes: Vec<Hdrive> = (0..3).map(|i| start(&all, i)).collect();
    let told = all.join(",");
    let with = |store: &str, args: &[&str]| {
        let mut command = lab.command(store, args);
        command.env("HDRIVE_BOOTSTRAP", &told);
        command
    };
    let folder = lab.folder("photos");
    std::fs::write(folder.join("a.txt"), "here").unwrap();
    let mut share = Hdrive::spawn(with("alice", &["share", folder.to_str().unwrap()]));
    let key = share.line("key: ");
    share.line("shared: ");
    let text = |store: &str| run(with(store, &["cat", &format!("{key}/a.txt")])).text();
    assert_eq!(text("bob"), "here");
    nodes[0].signal(Signal::SIGKILL);
    nodes[0].wait(PATIENCE);
    assert_eq!(text("carol"), "here", "without the first");
    // And all of them at once, which forget everything.
    for node in &mut nodes[1..] {
        node.signal(Signal::SIGKILL);
        node.wait(PATIENCE);
    }
    nodes = (0..3).map(|i| start(&all, i)).collect();
    let found = || (text("dora") == "here").then_some(());
    eventually("the share is found again", PATIENCE, found);
    nodes.into_iter().for_each(stop);
    stop(share);
}

#[test]
fn what_does_not_count_for_a_node_or_a_relay_is_refused() {
    let refused = |args: &[&str]| {
        let mut command = Hdrive::command(&[&["dht"], args].concat());
        command.env_remove("HDRIVE_LOCAL");
        let done = run(command);
        assert_eq!(done.code, 2, "{args:?}: {}", done.stderr);
        done.stderr
    };
    for args in [["--port", "5000"], ["--local", "127.0.0.1:0"]] {
        let said = refused(&args);
        assert!(said.contains(&format!("{}: a node of the DHT", args[0])), "{said}");
        assert!(said.contains("--bind ADDR:PORT"), "{said}");
    }
    assert!(refused(&["--peer", "127.0.0.1:9"]).contains("--peer: a node"));
    let lab = Lab::new();
    for args in [["--peer", "127.0.0.1:9"], ["--relay", crate::input::NOBODYS]] {
        let done = lab.run("relay", &[&["relay"], &args[..]].concat());
        let told = format!("{}: a relay", args[0]);
        assert!(done.code == 2 && done.stderr.contains(&told), "{}", done.stderr);
    }
    let said = refused(&["--bind", "127.0.0.1"]);
    assert!(said.contains("an IPv4 address with a port is meant, ADDR:PORT"), "{said}");
}
