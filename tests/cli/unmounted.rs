//! A mount that was taken away and goes on, because somebody has it still: what is told, and how it ends.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::process::Command;

fn mounted(lab: &Lab) -> (Hdrive, Mounted) {
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (share, key) = lab.share("alice", &folder);
    let mount = lab.mount("bob", &key, &[]);
    (share, mount)
}

/// A process that another test starts at this moment has what is open here until it runs: the mount is in use for that.
fn unmount(lab: &Lab, at: &str) {
    let unmounted = || (lab.run("bob", &["umount", at]).code == 0).then_some(());
    eventually("the unmount", PATIENCE, unmounted);
}

/// The places of mounts and of former ones.
fn status(lab: &Lab) -> [Vec<String>; 2] {
    let status = lab.run("bob", &["status", "--json"]).text();
    let status: Value = serde_json::from_str(&status).unwrap();
    ["mounts", "unmounted"].map(|list| {
        let places = status[list].as_array().unwrap().iter();
        places.map(|one| one["mountpoint"].as_str().unwrap().to_string()).collect()
    })
}

#[test]
fn a_mount_that_another_namespace_holds_is_told_and_named_no_more() {
    let can =
        nix::unistd::geteuid().is_root() && Command::new("unshare").arg("-V").output().is_ok();
    if !fuse_available() || !available("root with unshare", can) {
        return;
    }
    let lab = Lab::new();
    let (_share, mut mount) = mounted(&lab);
    let at = text(&mount.at).to_string();
    assert_eq!(status(&lab), [vec![at.clone()], vec![]]);
    let mut holder = Command::new("unshare");
    holder.args(["-m", "--propagation", "private", "sh", "-c", "echo here; exec sleep 300"]);
    let mut holder = Hdrive::spawn(holder);
    holder.line("here");
    unmount(&lab, &at);
    mount.process.told("is unmounted, and used still by open files or in another mount namespace");
    assert_eq!(status(&lab), [vec![], vec![at.clone()]]);
    let told = lab.run("bob", &["status"]).text();
    assert!(!told.contains("\nmount: ") && told.contains(&format!("\nunmounted: {at} ")), "{told}");
    // It is served until the last one is gone.
    drop(holder);
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_copy_of_a_mount_is_named_in_its_place_and_the_command_can_be_ended() {
    if !fuse_available() || !available("root", nix::unistd::geteuid().is_root()) {
        return;
    }
    let lab = Lab::new();
    let (_share, mut mount) = mounted(&lab);
    let copy = lab.folder("copy");
    let none = None::<&str>;
    nix::mount::mount(Some(&mount.at), &copy, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
    assert_eq!(status(&lab), [vec![text(&mount.at).to_string()], vec![]]);
    unmount(&lab, text(&mount.at));
    mount.process.told(&format!("is unmounted, and used still on {}", copy.display()));
    assert_eq!(status(&lab), [vec![text(&copy).to_string()], vec![]]);
    assert_eq!(fs::read_to_string(copy.join("file")).unwrap(), "content");
    mount.process.signal(Signal::SIGINT);
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 0);
}
