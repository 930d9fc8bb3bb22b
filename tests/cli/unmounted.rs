//! A mount that was taken away and goes on, because somebody has it still: what is told, and how it ends.

use crate::common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

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

/// Nobody waits at the end of a mount until it is known who of many processes uses it.
#[test]
fn a_mount_in_use_ends_at_once_however_many_processes_there_are() {
    if !fuse_available() || !mounts_available() {
        return;
    }
    let lab = Lab::new();
    fs::create_dir_all(lab.path("shared/inner")).unwrap();
    let (_share, mut mount) = mounted(&lab);
    let mut crowd = Command::new("sh");
    let script = "for i in $(seq 1000); do sleep 60 & done; echo here; wait";
    let crowd = crowd.args(["-c", script]).process_group(0);
    let mut crowd = crowd.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut here = [0; 5];
    crowd.stdout.take().unwrap().read_exact(&mut here).unwrap();
    let inner = Place::tmpfs(&mount.path("inner")).unwrap();
    let done = lab.run("bob", &["umount", text(&mount.at)]);
    mount.process.signal(Signal::SIGTERM);
    let status = mount.process.wait(PATIENCE);
    kill(Pid::from_raw(-(crowd.id() as i32)), Signal::SIGKILL).unwrap();
    end_of(&mut crowd);
    drop(inner);
    let said = mount.process.errors();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("was in use; it is unmounted lazily"), "{said}");
    assert_eq!(done.code, 5, "{}", done.stderr);
    let named = format!("is in use by the mount on {} (tmpfs from ", mount.path("inner").display());
    assert!(done.stderr.contains(&named), "{}", done.stderr);
}

#[test]
fn a_mount_that_is_cut_off_says_so_and_leaves_nothing_dead() {
    if !fuse_available() || !available("root", nix::unistd::geteuid().is_root()) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let mut mount = lab.mount("bob", &key, &[]);
    let open = fs::File::open(mount.at.join("file")).unwrap();
    let forced = nix::mount::umount2(&mount.at, nix::mount::MntFlags::MNT_FORCE);
    assert_eq!(forced, Err(nix::errno::Errno::EBUSY));
    mount.process.told("ended though nobody unmounted it");
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(5));
    assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 0);
    drop(open);
    // Where nobody uses it the same call unmounts it.
    let mut again = lab.mount("bob", &key, &[]);
    nix::mount::umount2(&again.at, nix::mount::MntFlags::MNT_FORCE).unwrap();
    assert_eq!(again.process.wait(PATIENCE).code(), Some(0));
}
