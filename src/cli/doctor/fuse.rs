//! FUSE: an empty drive is mounted in a folder of its own and taken away again, exactly as a mount does it. What is lacking
//! is told in the words of the mount itself.

use super::finding::Finding;
use crate::disk;
use crate::fs::volume::{Changes, Entry, FileContent, MaybeLater, Volume, VolumeError, VolumeInfo};
use crate::fs::{MountError, MountOptions, mount};
use crate::path::DrivePath;
use crate::threads::RAISE;
use nix::unistd::Uid;
use serde_json::json;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// A mount takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// What lets an ordinary user let others in.
const CONFIG: &str = "/etc/fuse.conf";
const OTHERS: &str = "user_allow_other";

/// How the trial went.
#[derive(Debug)]
enum Trial {
    Mounted,
    /// It was not unmounted by itself.
    Stays(PathBuf),
    Refused(MountError),
    /// No folder could be made for it.
    Nowhere(PathBuf, io::Error),
    Hangs,
}

/// What else was seen.
#[derive(Debug, Clone, Copy, Default)]
struct Around {
    root: bool,
    /// Others may be let in.
    others: bool,
    /// Programs cannot get rights that this process has not (`no_new_privs`).
    no_new_rights: bool,
    container: bool,
    /// This process sees other mounts than the first one; none where that cannot be told.
    own_namespace: Option<bool>,
}

pub async fn look() -> Vec<Finding> {
    let runtime = Handle::current();
    let trial = match timeout(PATIENCE, disk::ask(move || attempt(runtime))).await {
        Ok(Ok(trial)) => trial,
        Ok(Err(error)) => Trial::Nowhere("it".into(), io::Error::other(error.to_string())),
        Err(_) => Trial::Hangs,
    };
    let around = Around::see();
    let mut findings = vec![judge(&trial, around)];
    if matches!(trial, Trial::Mounted) {
        findings.extend(others(around));
    }
    findings
}

fn attempt(runtime: Handle) -> Trial {
    let at = std::env::temp_dir().join(format!("hdrive-doctor-{}", std::process::id()));
    if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&at) {
        return Trial::Nowhere(at, error);
    }
    let mounted = mount(Arc::new(Empty), &at, &MountOptions::default(), runtime);
    let trial = match mounted {
        Ok(mounted) => {
            drop(mounted);
            match fs::remove_dir(&at) {
                Ok(()) => return Trial::Mounted,
                Err(_) => return Trial::Stays(at),
            }
        }
        Err(error) => Trial::Refused(error),
    };
    let _ = fs::remove_dir(&at);
    trial
}

impl Around {
    fn see() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let config = fs::read_to_string(CONFIG).unwrap_or_default();
        let marks = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
        let namespace = |process: &str| {
            fs::metadata(format!("/proc/{process}/ns/mnt")).map(|meta| (meta.dev(), meta.ino()))
        };
        let own_namespace = match (namespace("self"), namespace("1")) {
            (Ok(own), Ok(first)) => Some(own != first),
            _ => None,
        };
        Self {
            root: Uid::effective().is_root(),
            others: config.lines().any(|line| line.trim() == OTHERS),
            no_new_rights: status.lines().any(|line| {
                line.strip_prefix("NoNewPrivs:").is_some_and(|value| value.trim() == "1")
            }),
            container: marks.iter().any(|mark| Path::new(mark).exists()),
            own_namespace,
        }
    }
}

fn judge(trial: &Trial, around: Around) -> Finding {
    let finding = match trial {
        Trial::Mounted if around.own_namespace == Some(true) => {
            let next = "run hdrive outside of it (without `unshare`, PrivateMounts=, PrivateTmp=) for others to see a mount";
            let words = "a drive can be mounted, but is seen in this mount namespace only";
            Finding::note("fuse", words, next)
        }
        Trial::Mounted if around.container => {
            Finding::good("fuse", "a drive can be mounted; it is seen in this container only")
        }
        Trial::Mounted => Finding::good("fuse", "a drive can be mounted"),
        Trial::Stays(at) => {
            let words = format!("a drive can be mounted, but is not unmounted: {}", at.display());
            Finding::bad("fuse", words, format!("`hdrive umount --lazy {}`", at.display()))
        }
        Trial::Refused(MountError::Io { what, source })
            if source.kind() == io::ErrorKind::WouldBlock =>
        {
            Finding::bad("fuse", format!("{what}: {source}"), RAISE)
        }
        Trial::Refused(error) => {
            let (words, next) = parts(error);
            let next = next.unwrap_or_else(|| match around.no_new_rights && !around.root {
                true => {
                    "this process may not gain rights (no_new_privs, as NoNewPrivileges= of a unit or a sandbox sets \
                     it), so fusermount3 cannot mount: start hdrive without that, or as root"
                }
                false => "see what the kernel says (`dmesg`)",
            }.into());
            Finding::bad("fuse", words, next)
        }
        Trial::Nowhere(at, error) => {
            let words = format!("cannot be tried, {} cannot be made: {error}", at.display());
            Finding::bad("fuse", words, "set TMPDIR to a folder that can be written")
        }
        Trial::Hangs => {
            let next = "see what holds /dev/fuse or fusermount3 up (`dmesg`)";
            Finding::bad("fuse", "a mount was tried, and hangs", next)
        }
    };
    finding.with(json!({ "container": around.container, "ownNamespace": around.own_namespace }))
}

/// What is wrong, and what to do, of an error that says both.
fn parts(error: &MountError) -> (String, Option<String>) {
    let text = error.to_string();
    match error {
        MountError::NoDevice
        | MountError::DeviceForbidden { .. }
        | MountError::NoHelper { .. }
        | MountError::HelperNotSetuid { .. }
        | MountError::NotPermitted(_) => match text.split_once(": ") {
            Some((what, next)) => (what.to_string(), Some(next.to_string())),
            None => (text, None),
        },
        _ => (text, None),
    }
}

/// Root lets in whom he wants.
fn others(around: Around) -> Option<Finding> {
    if around.root {
        return None;
    }
    Some(match around.others {
        true => Finding::good("allow-other", "other users of this machine may be let in"),
        false => {
            let next = format!("add the line `{OTHERS}` to {CONFIG} if --allow-other is needed");
            Finding::note("allow-other", "only this user can see a mount", next)
        }
    })
}

/// A drive with nothing in it.
struct Empty;

impl Volume for Empty {
    fn info(&self) -> VolumeInfo {
        VolumeInfo::default()
    }

    fn lookup(&self, path: &DrivePath) -> MaybeLater<Option<Entry>> {
        MaybeLater::Now(Ok(path.is_root().then(Entry::directory)))
    }

    fn list(&self, _dir: &DrivePath) -> MaybeLater<Arc<Vec<(String, Entry)>>> {
        MaybeLater::Now(Ok(Arc::default()))
    }

    fn open(&self, _path: &DrivePath) -> MaybeLater<Arc<dyn FileContent>> {
        MaybeLater::Now(Err(VolumeError::NotFound))
    }

    fn cached_bytes(&self, _path: &DrivePath) -> u64 {
        0
    }

    fn subscribe(&self, _listener: Box<dyn Fn(Changes) + Send + Sync>) {}

    fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn each_fault_of_a_mount_has_its_next_step() {
        let install = || "`apt install fuse3`".to_string();
        let helper = PathBuf::from("/usr/bin/fusermount3");
        for (error, words, next) in [
            (MountError::NoDevice, "/dev/fuse does not exist", "load it with `modprobe fuse`"),
            (
                MountError::DeviceForbidden { mode: 0o600, install: install() },
                "/dev/fuse may not be opened (mode 0600)",
                "`apt install fuse3` sets it to 0666",
            ),
            (MountError::NoHelper { install: install() }, "was not found", "`apt install fuse3`"),
            (
                MountError::HelperNotSetuid { helper, install: install() },
                "has no setuid bit",
                "reinstall it",
            ),
            (MountError::NotPermitted("/m".into()), "not permitted here", "--cap-add SYS_ADMIN"),
            (MountError::Io { what: "x".into(), source: io::Error::other("y") }, "x: y", "`dmesg`"),
        ] {
            let finding = judge(&Trial::Refused(error), Around::default());
            assert_eq!(finding.verdict, Verdict::Bad);
            assert!(finding.words.contains(words), "{}", finding.words);
            assert!(!finding.words.contains("apt"), "{}", finding.words);
            assert!(finding.next.as_ref().unwrap().contains(next), "{:?}", finding.next);
        }
        let around = Around { no_new_rights: true, ..Around::default() };
        let failed = MountError::Io { what: "x".into(), source: io::Error::other("y") };
        let finding = judge(&Trial::Refused(failed), around);
        assert!(finding.next.unwrap().contains("no_new_privs"));
    }

    #[test]
    fn where_a_mount_is_seen_is_told() {
        let of = |around| judge(&Trial::Mounted, around);
        assert_eq!(of(Around::default()).words, "a drive can be mounted");
        let container = of(Around { container: true, ..Around::default() });
        assert!(container.verdict == Verdict::Good && container.words.contains("container"));
        let hidden = of(Around { own_namespace: Some(true), ..Around::default() });
        assert!(hidden.verdict == Verdict::Note && hidden.next.is_some());
        assert!(others(Around { root: true, ..Around::default() }).is_none());
        assert_eq!(others(Around::default()).unwrap().verdict, Verdict::Note);
        let open = Around { others: true, ..Around::default() };
        assert_eq!(others(open).unwrap().verdict, Verdict::Good);
    }
}
