//! What an ordinary user may not do is told with what is lacking. Needs root, to become somebody else.

use crate::common::*;
use crate::input::NOBODYS;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

const NOBODY: u32 = 65534;

/// A laboratory that nobody may enter, and a copy of the program there.
fn lab_for_nobody() -> Option<(Lab, PathBuf)> {
    let can = Command::new("setpriv").arg("--version").output().is_ok();
    if !available("root with setpriv", can && nix::unistd::geteuid().is_root()) {
        return None;
    }
    let lab = Lab::new();
    fs::set_permissions(lab.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = lab.path("hdrive");
    fs::copy(env!("CARGO_BIN_EXE_hdrive"), &program).unwrap();
    let store = lab.folder("store");
    chown(&store, Some(NOBODY), Some(NOBODY)).unwrap();
    Some((lab, program))
}

/// A command as nobody, after `prepare` in a mount namespace of its own.
fn as_nobody(lab: &Lab, program: &PathBuf, prepare: &str, args: &[&str]) -> Command {
    let script = format!(
        "set -e; {prepare}; exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(program).args(args);
    command.env("HDRIVE_STORE", lab.path("store")).env("HDRIVE_BOOTSTRAP", &lab.bootstrap);
    command.env("HDRIVE_LOCAL", "127.0.0.1:0").current_dir("/");
    command
}

#[test]
fn a_folder_that_cannot_be_read_is_told() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    let closed = lab.folder("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let done = run(as_nobody(&lab, &program, "true", &["share", text(&closed)]));
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains(text(&closed)), "{}", done.stderr);
    assert!(done.stderr.contains("Permission denied"), "{}", done.stderr);

    // A part that cannot be read is left out, told, and does not hinder the rest.
    let open = lab.folder("open");
    fs::write(open.join("file"), "content").unwrap();
    fs::write(open.join("secret"), "x").unwrap();
    fs::set_permissions(open.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(open.join("closed")).unwrap();
    fs::set_permissions(open.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut share = Hdrive::spawn(as_nobody(&lab, &program, "true", &["share", text(&open)]));
    let key = share.line("key: ");
    share.line("shared: ");
    assert_eq!(lab.run("bob", &["ls", "-r", &key]).text(), "file\n");
    // What is public already stays so, and nobody is told otherwise.
    fs::set_permissions(open.join("file"), fs::Permissions::from_mode(0o000)).unwrap();
    let told = share.told(text(&open.join("file")));
    assert!(told.starts_with("warning: ") && told.contains("stays as it was"), "{told}");
    assert_eq!(lab.run("bob", &["cat", &format!("{key}/file")]).text(), "content");
    share.signal(nix::sys::signal::Signal::SIGINT);
    share.wait(PATIENCE);
    let said = share.errors();
    for name in ["secret", "closed"] {
        let wanted = format!("left out: {}: Permission denied", open.join(name).display());
        assert!(said.contains(&wanted), "no '{wanted}' in {said}");
    }
}

/// As many processes of this user run as may: to unmount, one more is needed.
#[test]
fn a_mount_ends_where_its_user_may_start_no_more_processes() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    let tools =
        ["prlimit", "fusermount3"].map(|tool| Command::new(tool).arg("-V").output().is_ok());
    if !fuse_available() || !available("prlimit and fusermount3", tools == [true; 2]) {
        return;
    }
    let open = lab.folder("open");
    fs::write(open.join("file"), "content").unwrap();
    let (_share, key) = lab.share("far", &open);
    let at = lab.folder("mnt");
    chown(&at, Some(NOBODY), Some(NOBODY)).unwrap();
    let node = lab.path("fuse");
    let prepare =
        format!("mknod {0} c 10 229; chmod 666 {0}; mount --bind {0} /dev/fuse", node.display());
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let _ = fs::remove_file(&node);
        let mount = as_nobody(&lab, &program, &prepare, &["mount", &key, text(&at)]);
        let mut mount = Hdrive::spawn(mount);
        mount.line("mounted: ");
        let limit = format!("--nproc={0}:{0}", threads_of_nobody());
        let pid = mount.pid().to_string();
        let id = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let mut prlimit = Command::new("setpriv");
        prlimit.args(id).args(["--clear-groups", "prlimit", "--pid", &pid, &limit]);
        assert!(prlimit.status().unwrap().success());
        mount.signal(signal);
        assert_eq!(mount.wait(PATIENCE).code(), Some(0), "{}", mount.errors());
    }
}

fn threads_of_nobody() -> usize {
    let count = |process: fs::DirEntry| {
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<usize>().ok()
        };
        of("Threads:").filter(|_| of("Uid:") == Some(NOBODY as usize))
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(count).sum()
}

#[test]
fn a_store_that_may_not_be_written_is_told() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    chown(lab.path("store"), Some(0), Some(0)).unwrap();
    let done = run(as_nobody(&lab, &program, "true", &["ls", NOBODYS]));
    assert_eq!(done.code, 6, "{}", done.stderr);
    let wanted = format!("cannot open {}", lab.path("store/lock").display());
    assert!(done.stderr.contains(&wanted), "{}", done.stderr);
}

#[test]
fn without_the_helper_its_package_is_named() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    if !fuse_available() {
        return;
    }
    let at = lab.folder("mnt");
    chown(&at, Some(NOBODY), Some(NOBODY)).unwrap();
    let node = lab.path("node");
    let prepare =
        format!("mknod {0} c 10 229; chmod 666 {0}; mount --bind {0} /dev/fuse", text(&node));
    let mut command = as_nobody(&lab, &program, &prepare, &["mount", NOBODYS, text(&at)]);
    command.env("FUSERMOUNT_PATH", "/nonexistent");
    let done = run(command);
    assert_eq!(done.code, 5, "{}", done.stderr);
    assert!(done.stderr.contains("fusermount3 was not found"), "{}", done.stderr);
    assert!(done.stderr.contains("fuse3"), "{}", done.stderr);
}

#[test]
fn the_mount_of_another_user_stays_and_that_is_told() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    if !fuse_available() {
        return;
    }
    let mount = lab.mount_alone("bob", NOBODYS, &["--allow-other"]);
    let done = run(as_nobody(&lab, &program, "true", &["umount", text(&mount.at)]));
    assert_eq!(done.code, 5, "{}", done.stderr);
    assert!(done.stderr.contains("only the user who mounted it"), "{}", done.stderr);
}

/// A mount as nobody at `at`, in a mount namespace of its own where nobody may open the device.
fn mount_as_nobody(lab: &Lab, program: &PathBuf, at: &Path) -> Command {
    let node = lab.path("node");
    let prepare =
        format!("mknod {0} c 10 229; chmod 666 {0}; mount --bind {0} /dev/fuse", text(&node));
    as_nobody(lab, program, &prepare, &["mount", NOBODYS, text(at)])
}

#[test]
fn a_mount_whose_place_cannot_be_entered_any_more_is_not_told_as_unmounted() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    if !fuse_available() {
        return;
    }
    let at = lab.folder("closed/mnt");
    chown(&at, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut mount = Hdrive::spawn(mount_as_nobody(&lab, &program, &at));
    mount.line("mounted: ");
    fs::set_permissions(lab.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    mount.signal(nix::sys::signal::Signal::SIGINT);
    let status = mount.wait(PATIENCE);
    fs::set_permissions(lab.path("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    let said = mount.errors();
    assert_eq!(status.code(), Some(5), "{said}");
    assert!(said.contains("Permission denied") && !said.contains("unmounted lazily"), "{said}");
}

#[test]
fn an_own_mount_point_that_may_not_be_written_is_told_as_that() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    if !fuse_available() {
        return;
    }
    let at = lab.folder("mnt");
    chown(&at, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o500)).unwrap();
    let done = run(mount_as_nobody(&lab, &program, &at));
    assert_eq!(done.code, 5, "{}", done.stderr);
    assert!(done.stderr.contains("`chmod u+w` allows it"), "{}", done.stderr);
}

#[test]
fn a_signal_while_a_mount_is_being_made_is_told_where_that_cannot_be_waited_for() {
    let Some((lab, program)) = lab_for_nobody() else { return };
    if !fuse_available() {
        return;
    }
    let (at, tools) = (lab.folder("mnt"), lab.folder("tools"));
    let (helper, begun) = (tools.join("helper"), tools.join("begun"));
    for folder in [&at, &tools] {
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::write(&helper, format!("#!/bin/sh\n: >{}; exec sleep 5\n", text(&begun))).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = mount_as_nobody(&lab, &program, &at);
    command.env("FUSERMOUNT_PATH", &helper);
    let mut mount = Hdrive::spawn(command);
    eventually("the helper", PATIENCE, || begun.exists().then_some(()));
    mount.signal(nix::sys::signal::Signal::SIGINT);
    let status = mount.wait(PATIENCE);
    let said = mount.errors();
    assert_eq!(status.code(), Some(5), "{said}");
    assert!(said.contains("is still being made"), "{said}");
}

#[test]
fn a_mount_from_outside_of_a_user_namespace_stays_and_that_is_told() {
    let can = Command::new("unshare").args(["-Urm", "true"]).status();
    if !fuse_available() || !available("a user namespace", can.is_ok_and(|status| status.success()))
    {
        return;
    }
    let lab = Lab::new();
    let mount = lab.mount_alone("bob", NOBODYS, &[]);
    for more in [&[][..], &["--lazy"]] {
        let args = [&["umount"][..], more, &[text(&mount.at)]].concat();
        let umount = lab.command("bob", &args);
        let mut command = Command::new("unshare");
        command.arg("-Urm").arg(umount.get_program()).args(umount.get_args());
        let done = run(command);
        assert_eq!(done.code, 5, "{more:?}: {}", done.stderr);
        assert!(done.stderr.contains("outside of this user namespace"), "{}", done.stderr);
    }
}
