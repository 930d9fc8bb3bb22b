//! An ordinary user mounts through fusermount3.
//!
//! Where only root may open `/dev/fuse`, a mount namespace of the test's own gets a device node that all may
//! open; nothing of the machine is changed.

use crate::common::{can, fuse_is_here};
use crate::mount::child_command;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

const NOBODY: u32 = 65534;

/// Mounts as nobody on `$1`, then looks at it as nobody and as root; `$2` is where a device may be made.
const SCRIPT: &str = r#"
set -eu
dir=$1; node=$2; shift 2
user="setpriv --reuid=65534 --regid=65534 --clear-groups"
if ! $user sh -c ': <>/dev/fuse' 2>/dev/null; then
    mknod "$node" c 10 229
    chmod 666 "$node"
    mount --bind "$node" /dev/fuse
    $user sh -c ': <>/dev/fuse' || { echo unable; exit 0; }
fi
HDRIVE_TEST_MOUNT=$dir $user "$@" >"$dir.log" 2>&1 &
pid=$!
for i in $(seq 100); do
    if grep -Eq '^(mounted|error:)' "$dir.log"; then break; fi
    sleep 0.05
done
grep -E '^(mounted|error:)' "$dir.log" || cat "$dir.log"
$user cat "$dir/f" || true
echo
grep -F " $dir " /proc/self/mountinfo || true
echo "root: $(cat "$dir/f" 2>&1 || true)"
kill -9 $pid
wait $pid 2>/dev/null || true
HDRIVE_TEST_MOUNT=$dir $user "$@" >"$dir.log" 2>&1 &
pid=$!
for i in $(seq 100); do
    if grep -Eq '^(mounted|error:)' "$dir.log"; then break; fi
    sleep 0.05
done
echo "again: $($user cat "$dir/f" 2>&1 || true)"
$user fusermount3 -u "$dir" && echo unmounted
kill -9 $pid 2>/dev/null || true
"#;

fn run(dir: &Path, node: &Path) -> String {
    let child = child_command();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .args([dir, node])
        .arg(child.get_program())
        .args(child.get_args())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    format!("{}{error}", String::from_utf8_lossy(&output.stdout))
}

#[test]
fn an_ordinary_user_can_mount() {
    let root = nix::unistd::geteuid().is_root();
    let helper =
        Path::new("/usr/bin/fusermount3").exists() || Path::new("/bin/fusermount3").exists();
    let tools = ["unshare", "setpriv"].iter().all(|tool| {
        Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if !fuse_is_here()
        || !can("root with unshare, setpriv and fusermount3", root && helper && tools)
    {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let dir = base.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    // The program may lie where nobody may look.
    let said = run(&dir, &base.path().join("fuse"));
    eprintln!("{said}");
    if said.contains("unable") || said.contains("Permission denied (os error 13)") {
        can("a device node that an ordinary user may open", false);
        return;
    }
    assert!(
        said.contains("\nfrom the child") || said.contains("mounted\nfrom the child"),
        "{said}"
    );
    assert!(said.contains("fuse.hdrive hdrive"), "{said}");
    assert!(said.contains("nosuid,nodev"), "{said}");
    assert!(said.contains("root:") && said.contains("Permission denied"), "{said}");
    assert!(said.contains("again: from the child"), "{said}");
    assert!(said.contains("unmounted"), "{said}");
}
