//! An ordinary user mounts through fusermount3.
//!
//! Where only root may open `/dev/fuse`, a mount namespace of the test's own gets a device node that all may
//! open; nothing of the machine is changed.

use crate::child::child_command;
use crate::common::{fuse_is_here, mounted_with};
use crate::required::available;
use crate::volume::TestVolume;
use hdrive::fs::{Access, MountOptions};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

const NOBODY: u32 = 65534;

/// Where the folder for temporary ones is closed to others, nobody gets to anything in it, whatever is mounted there.
fn nobody_gets_to(base: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x"]);
    let there = command.arg(base).status().is_ok_and(|status| status.success());
    available("a temporary folder that every user may enter", there)
}

/// What the scripts below begin with: `$dir` to mount on, `$node` where a device may be made, `$user` to run
/// something as nobody; the rest of the arguments is the program that mounts and unmounts.
const HEAD: &str = r#"
set -eu
dir=$1; node=$2; shift 2
user="setpriv --reuid=65534 --regid=65534 --clear-groups"
start() {
    : >"$dir.log"
    HDRIVE_TEST_MOUNT=$dir "$@" >"$dir.log" 2>&1 &
    pid=$!
    for i in $(seq 1200); do
        if grep -Eq '^(mounted|error:)' "$dir.log"; then break; fi
        sleep 0.05
    done
    grep -E '^(mounted|error:)' "$dir.log" || cat "$dir.log"
}
open_device() {
    $user sh -c ': <>/dev/fuse' 2>/dev/null && return
    mknod "$node" c 10 229
    chmod 666 "$node"
    mount --bind "$node" /dev/fuse
    $user sh -c ': <>/dev/fuse' || { echo unable; exit 0; }
}
"#;

/// Mounts as nobody, looks at it as nobody and as root, is killed and heals, and unmounts.
const LIFE: &str = r#"
open_device
start $user "$@"
$user cat "$dir/f" || true
echo
grep -F " $dir " /proc/self/mountinfo || true
echo "root: $(cat "$dir/f" 2>&1 || true)"
kill -9 $pid
wait $pid 2>/dev/null || true
start $user "$@"
echo "again: $($user cat "$dir/f" 2>&1 || true)"
HDRIVE_TEST_UNMOUNT=$dir $user "$@" | grep -E '^(unmounted|error)'
wait $pid 2>/dev/null || true
"#;

/// What each thing that is lacking is told as.
const FAULTS: &str = r#"
mknod "$node.private" c 10 229
chmod 600 "$node.private"
mount --bind "$node.private" /dev/fuse
start $user "$@"
wait $pid || true
open_device
echo "no helper:"; FUSERMOUNT_PATH=/nonexistent start $user env PATH=/nonexistent "$@"; wait $pid || true
cp "$(command -v fusermount3)" "$node.helper"
echo "not setuid:"; FUSERMOUNT_PATH=$node.helper start $user "$@"; wait $pid || true
echo "not mine:"; chown 0:0 "$dir"; chmod 755 "$dir"; start $user "$@"; wait $pid || true
echo "sticky:"; chmod 1777 "$dir"; start $user "$@"; wait $pid || true; chmod 755 "$dir"
echo "container:"; start setpriv --bounding-set -sys_admin --inh-caps -sys_admin env FUSERMOUNT_PATH=/nonexistent "$@"; wait $pid || true
echo "no device:"; mount -t tmpfs none /dev; : >/dev/null; start "$@"; wait $pid || true
"#;

fn run(script: &str) -> Option<String> {
    let root = nix::unistd::geteuid().is_root();
    let tools = ["unshare", "setpriv", "fusermount3"].iter().all(|tool| {
        Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if !fuse_is_here() || !available("root with unshare, setpriv and fusermount3", root && tools) {
        return None;
    }
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if !nobody_gets_to(base.path()) {
        return None;
    }
    let dir = base.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let node = base.path().join("fuse");
    // A copy, for the program may lie where nobody may look.
    let program = base.path().join("program");
    let child = child_command();
    fs::copy(child.get_program(), &program).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{HEAD}{script}"), "sh"])
        .args([&dir, &node, &program])
        .args(child.get_args())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    eprintln!("{said}");
    let able = !said.lines().any(|line| line == "unable");
    available("a device node that an ordinary user may open", able).then_some(said)
}

#[test]
fn an_ordinary_user_mounts_and_unmounts() {
    let Some(said) = run(LIFE) else { return };
    for wanted in [
        "mounted\nfrom the child\n",
        "nosuid,nodev",
        "fuse.hdrive hdrive",
        "Permission denied\nmounted\nagain: from the child",
        "\nunmounted\n",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is missing in:\n{said}");
    }
}

#[test]
fn what_a_user_lacks_is_named_with_the_remedy() {
    let Some(said) = run(FAULTS) else { return };
    for wanted in [
        "error: /dev/fuse may not be opened (mode 0600): ",
        "no helper:\nerror: fusermount3 was not found, which an ordinary user needs to mount: ",
        "not setuid:\nerror: ",
        "has no setuid bit",
        "not mine:\nerror: mount point ",
        "sticky:\nerror: mount point ",
        "container:\nerror: mounting on ",
        "no device:\nerror: /dev/fuse does not exist: load it with `modprobe fuse`",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is missing in:\n{said}");
    }
}

#[test]
fn a_mount_for_its_owner_and_root_shows_a_third_user_nothing_that_is_cached() {
    let root = nix::unistd::geteuid().is_root();
    let tool = Command::new("setpriv")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !available("root with setpriv", root && tool) {
        return;
    }
    let volume = TestVolume::frozen();
    volume.file("/d/secret", "mine");
    let options = MountOptions { access: Access::OwnerAndRoot, ..MountOptions::default() };
    let Some(mount) = mounted_with(&volume, &options) else { return };
    if !nobody_gets_to(mount.dir.path().parent().unwrap()) {
        return;
    }
    // The kernel has all of it now.
    assert_eq!(fs::read(mount.at("d/secret")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(mount.at("d")).unwrap().count(), 1);
    let third = |program: &str, at: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        command.arg(mount.at(at)).output().unwrap()
    };
    for (program, at) in [("cat", "d/secret"), ("stat", "d/secret"), ("ls", "d"), ("ls", "")] {
        let output = third(program, at);
        assert!(!output.status.success() && output.stdout.is_empty(), "{program}: {output:?}");
    }
}
