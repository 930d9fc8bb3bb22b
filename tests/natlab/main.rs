//! Peers behind real NATs, in network namespaces of the laboratory (`natlab/`), with JavaScript on either side. A few cells
//! of the table that `make natlab` prints.
#![allow(clippy::disallowed_methods, reason = "real time")]

#[path = "../common/reference.rs"]
mod reference;

use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/natlab/natlab");

/// None without the reference.
fn lab(variables: &[(&str, &str)], args: &[&str]) -> Option<Output> {
    // One at a time: each measures.
    static BUSY: Mutex<()> = Mutex::new(());
    let _busy = BUSY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let node = reference::node()?;
    let mut command = Command::new("python3");
    command.arg(LAB).args(args).env("HDRIVE", env!("CARGO_BIN_EXE_hdrive"));
    command.envs(variables.iter().copied());
    command.envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().ok()
}

/// Whether there can be a laboratory. That takes root, network namespaces and nftables, which not every machine gives, so a
/// test is left out aloud where it does not.
fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let tried = lab(&[], &["run", "--a", "port", "--b", "sym", "--", "true"]);
        let possible = tried.is_some_and(|tried| tried.status.success());
        if !possible {
            eprintln!("SKIPPED: no laboratory here; it takes root, network namespaces, nftables and the reference");
        }
        possible
    })
}

#[test]
fn doctor_tells_which_nat_there_is() {
    for (kind, code, reachable, nat) in [
        ("open", 0, "open", "none"),
        ("full", 0, "open", "steady"),
        ("port", 0, "closed", "steady"),
        ("sym", 0, "closed", "varying"),
        ("blocked", 1, "unknown", "unknown"),
    ] {
        let Some(got) = read_with(&[], "hdrive-doctor", "open", kind) else { return };
        let told = (&got["code"], &got["reachable"], &got["nat"]);
        assert_eq!(told, (&code.into(), &reachable.into(), &nat.into()), "{kind}");
    }
}

/// What a scenario reads gets from `a` to `b`.
fn read(scenario: &str, a: &str, b: &str) {
    read_with(&[], scenario, a, b);
}

/// The same with variables for the scenario; tells what that measured.
fn read_with(
    variables: &[(&str, &str)],
    scenario: &str,
    a: &str,
    b: &str,
) -> Option<serde_json::Value> {
    if !is_possible() {
        return None;
    }
    let file = format!("{}/natlab/scenarios/{scenario}.json", env!("CARGO_MANIFEST_DIR"));
    let out = lab(variables, &["run", "--a", a, "--b", b, &file]).expect("it was possible");
    let text = String::from_utf8_lossy(&out.stdout);
    let got = text.lines().find_map(|line| line.split_once("RESULT ").map(|(_, json)| json));
    let got: serde_json::Value =
        got.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert_eq!(got["ok"], true, "{scenario} {a} {b}: {text}\n{errors}");
    println!("{scenario} {variables:?}, {a} to {b}: {got}");
    Some(got)
}

#[test]
fn hdrive_reads_what_hdrive_shares() {
    for (a, b) in
        [("port", "port"), ("cgnat", "addr"), ("port", "sym"), ("sym", "port"), ("port", "lan")]
    {
        read("hdrive-hdrive", a, b);
    }
}

#[test]
fn hdrive_reads_what_javascript_shares() {
    for (a, b) in [("port", "port"), ("port", "sym"), ("sym", "port")] {
        read("js-hdrive", a, b);
    }
}

#[test]
fn javascript_reads_what_hdrive_shares() {
    for (a, b) in [("port", "port"), ("port", "sym"), ("sym", "port")] {
        read("hdrive-js", a, b);
    }
}

#[test]
fn a_mount_has_its_first_byte() {
    read("hdrive-mount", "port", "port");
    read("js-mount", "port", "port");
}

#[test]
fn four_with_random_ports_are_served_at_once() {
    read("hdrive-at-once", "port", "sym");
}

/// No hole can be punched between these: a relay is named by both, by one, is that of the reference, or serves its peers.
#[test]
fn two_sides_with_random_ports_meet_at_a_relay() {
    for with in [
        &[][..],
        &[("RELAY_AT", "a")],
        &[("RELAY_AT", "b"), ("RELAY_BY", "js")],
        &[("RELAY_BY", "js"), ("SHARE_BY", "js"), ("RELAY_AT", "a")],
        &[("RELAY_BY", "js"), ("READ_BY", "js"), ("RELAY_AT", "a")],
        &[("SHARE_BY", "js"), ("READ_BY", "js")],
    ] {
        read_with(with, "hdrive-relay", "sym", "sym");
    }
}

/// One carrier, which does not turn back what its customers send each other.
#[test]
fn two_customers_of_one_carrier_meet_at_a_relay() {
    read("hdrive-relay", "cgnat", "port+a");
}

#[test]
fn nothing_is_configured_and_the_seed_of_the_drive_is_the_relay() {
    read("hdrive-seeded", "sym", "sym");
}

#[test]
fn two_hosts_on_one_switch_need_nobody_else_whoever_comes_first() {
    if !is_possible() {
        return;
    }
    let ipv6 = std::fs::exists("/proc/sys/net/ipv6").unwrap_or_default();
    for (first, addresses) in
        [("sharer", "ipv4"), ("reader", "ipv4"), ("sharer", "ipv6"), ("reader", "ipv6")]
    {
        if addresses == "ipv6" && !ipv6 {
            println!("skipped: this system has no IPv6");
            continue;
        }
        let mut command = Command::new("timeout");
        command
            .args(["120", "sh"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/natlab/switch.sh"))
            .args([first, addresses]);
        let out = command.env("HDRIVE", env!("CARGO_BIN_EXE_hdrive")).output().expect("a shell");
        let text = String::from_utf8_lossy(&out.stdout);
        let got = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let got: serde_json::Value =
            got.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert_eq!((&got["ok"], &got["path"]), (&true.into(), &"lan".into()), "{text}\n{errors}");
        println!("{first} first, {addresses}: {got}");
    }
}

/// What `natlab/router.sh` tells of a seed behind a router. None, aloud, where there cannot be one.
fn behind_router(mode: &str) -> Option<serde_json::Value> {
    let has = |program: &str| {
        let find = format!("PATH=$PATH:/usr/sbin command -v {program}");
        Command::new("sh").args(["-c", &find]).output().is_ok_and(|found| found.status.success())
    };
    let spaces =
        Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]).output();
    if !has("nft") || !has("miniupnpd") || !spaces.is_ok_and(|tried| tried.status.success()) {
        eprintln!(
            "SKIPPED: no router here; it takes root, network namespaces, nftables and miniupnpd"
        );
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/natlab/router.sh");
    let mut command = Command::new("timeout");
    command.args(["120", "sh", script, mode]).env("HDRIVE", env!("CARGO_BIN_EXE_hdrive"));
    let out = command.output().expect("a shell");
    let (text, errors) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let got = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let got = got.and_then(|json| serde_json::from_str(json).ok());
    let got: serde_json::Value = got.unwrap_or_else(|| panic!("{mode}: {text}\n{errors}"));
    println!("{mode}: {got}\n{errors}");
    Some(got)
}

#[test]
fn a_seed_is_reached_at_a_port_of_its_router_and_gives_it_back() {
    for (mode, by) in [("upnp", "UPnP"), ("pcp", "PCP")] {
        let Some(got) = behind_router(mode) else { return };
        assert_eq!((&got["state"], &got["by"]), (&"mapped".into(), &by.into()), "{got}");
        for what in ["there", "read", "gone"] {
            assert_eq!(got[what], true, "{what} of {got}");
        }
        assert!(got["end_ms"].as_u64().is_some_and(|ms| ms < 5000), "{got}");
    }
}

#[test]
fn nothing_is_asked_of_a_router_by_who_wants_nothing_or_has_a_public_address() {
    for (mode, state) in [("off", "off"), ("public", "none")] {
        let Some(got) = behind_router(mode) else { return };
        assert_eq!(got["state"], state, "{got}");
        assert_eq!((&got["there"], &got["asked"]), (&false.into(), &0.into()), "{got}");
        assert_eq!(got["read"], false, "{got}");
    }
}

/// Sixteen megabytes get from `a` to `b` though the NAT of `b` forgets them on the way, or `b` goes on over another interface.
#[test]
fn a_download_whose_path_dies_goes_on() {
    for trouble in ["forget", "interface"] {
        let variables = [("TROUBLE", trouble), ("AFTER", "0.5"), ("MB", "16")];
        read_with(&variables, "hdrive-path", "port", "port");
    }
}
