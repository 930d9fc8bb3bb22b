//! Taking a mount away: `hdrive umount [--lazy]`, and the end of a mount of this process.

use super::errno::MountError;
use super::pin::Pin;
use super::place::{resolve, unlisted};
use crate::mountinfo::{self, MountEntry, over_in, unescaped};
use crate::threads;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Programs that are named when a mount is in use.
const MAX_USERS: usize = 5;

/// A mount that somebody only looks at is tried again for so long: whoever ends has more to do within a second.
pub(super) const LOOKS: Duration = Duration::from_millis(100);
/// And by who has nothing else to do.
const PATIENT: Duration = Duration::from_secs(1);
/// And so often at least, however busy the machine is: the first time only marks it.
const MIN_TRIES: u32 = 10;
/// A process to unmount with is waited for so long, where as many run as may.
const ROOM: Duration = Duration::from_millis(400);
/// Whoever looks is let go on meanwhile.
const PAUSE: Duration = Duration::from_millis(1);

/// How long the memory of processes is looked at for files of a mount.
const MAPS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Only if nobody uses it.
    Clean,
    /// At once for everybody who comes later; those who use it keep it until they end.
    Lazy,
}

/// Unmounts the drive at `path`, alive or dead.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::NotOurs`], [`MountError::Covered`], [`MountError::Locked`],
/// [`MountError::InUse`] with the users that can be seen.
pub fn unmount(path: &Path, how: How) -> Result<(), MountError> {
    let (point, missing) = match resolve(path) {
        Err(MountError::Automounter(path)) => {
            let (kind, source_name) = ("autofs".into(), "an automounter".into());
            return Err(MountError::NotOurs { path, kind, source_name });
        }
        // Perhaps since what covers a mount there has no such folder.
        Err(MountError::Missing(path)) => (path, true),
        point => (point?, false),
    };
    let mounts = mountinfo::mounts().map_err(unlisted)?;
    let over = over_in(&mounts, &point);
    let top = over.filter(|over| over.path == point && !missing);
    if let Some(mount) = top.filter(|top| top.is_ours()) {
        return match how {
            How::Clean => match detach_clean(mount, LOOKS).map_err(with_users) {
                // Nobody who could be told to stop: it is only looked at.
                Err(MountError::InUse { by, .. }) if by.is_empty() => {
                    detach_clean(mount, PATIENT).map_err(with_users)
                }
                done => done,
            },
            How::Lazy => detach_lazily(mount),
        };
    }
    let is_covered = mounts.iter().any(|mount| mount.path == point && mount.is_ours());
    if let Some(over) = over.filter(|_| is_covered) {
        return Err(covered(&point, over));
    }
    let Some(MountEntry { kind, source, .. }) = top.cloned() else {
        return Err(if missing {
            MountError::Missing(point)
        } else {
            MountError::NotMounted(point)
        });
    };
    Err(MountError::NotOurs { path: point, kind, source_name: source })
}

/// The drive on `path` is not seen there, but `over`.
pub(super) fn covered(path: &Path, over: &MountEntry) -> MountError {
    MountError::Covered {
        path: path.into(),
        cover: over.path.clone(),
        kind: over.kind.clone(),
        source_name: over.source.clone(),
    }
}

/// Unmounts `mount` if it is what one sees at its path, and nobody uses it. Who does is not looked for, which may take long.
///
/// By its path, for a mount that is held is in use. Another may come there at any moment, so the kernel is told to mark
/// what is there first, which it takes away only when it is told once more; and between the two it is looked at.
pub(super) fn detach_clean(mount: &MountEntry, patience: Duration) -> Result<(), MountError> {
    let (point, begun, mut tries) = (&mount.path, Instant::now(), 0);
    loop {
        check_seen(mount)?;
        match umount2(point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_EXPIRE) {
            Ok(()) => return Ok(()),
            // Marked now; the mark of before is lost if somebody has looked at it.
            Err(Errno::EAGAIN) => {}
            // Somebody may only look at it just now.
            Err(Errno::EBUSY) => std::thread::sleep(PAUSE),
            Err(Errno::EPERM) => return detach_as_user(mount, How::Clean),
            // It is there still: nothing but who made it keeps it.
            Err(Errno::EINVAL) => return check_seen(mount).and(Err(locked(point))),
            Err(errno) => return Err(failed(point, errno.into())),
        }
        tries += 1;
        if tries >= MIN_TRIES && begun.elapsed() >= patience {
            return Err(in_use(point));
        }
    }
}

fn detach_lazily(mount: &MountEntry) -> Result<(), MountError> {
    let pin = Pin::at(&mount.path).map_err(|error| failed(&mount.path, error))?;
    let held = pin.mount().map_err(unlisted)?;
    match held.is_some_and(|held| is_same(&held, mount)) {
        true => detach_held(pin),
        // Another came there just now.
        false => check_seen(mount).and(Err(MountError::NotMounted(mount.path.clone()))),
    }
}

/// Unmounts what is held, lazily, if it is mounted still.
///
/// # Errors
/// Those of [`unmount`].
pub(super) fn detach_held(pin: Pin) -> Result<(), MountError> {
    let path = pin.path();
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::EINVAL) => match pin.mount().map_err(unlisted)? {
            Some(mount) if std::fs::read_link(&path).is_ok_and(|held| held == mount.path) => {
                Err(locked(&mount.path))
            }
            // It is mounted no more, or what is held is only a folder.
            _ => Ok(()),
        },
        Err(Errno::EPERM) => match pin.mount().map_err(unlisted)? {
            Some(mount) => detach_as_user(&mount, How::Lazy),
            None => Ok(()),
        },
        Err(errno) => Err(failed(&path, errno.into())),
    }
}

/// Fails if one sees another at its path, or nothing.
fn check_seen(mount: &MountEntry) -> Result<(), MountError> {
    let mounts = mountinfo::mounts().map_err(unlisted)?;
    match over_in(&mounts, &mount.path) {
        Some(over) if is_same(over, mount) => Ok(()),
        Some(over) if mounts.iter().any(|other| is_same(other, mount)) => {
            Err(covered(&mount.path, over))
        }
        _ => Err(MountError::NotMounted(mount.path.clone())),
    }
}

fn is_same(one: &MountEntry, other: &MountEntry) -> bool {
    (one.id, one.device, &one.path) == (other.id, other.device, &other.path)
}

/// Through fusermount3, which may do it for the user who mounted.
///
/// It knows mounts by their paths only, so what is there is looked at just before.
fn detach_as_user(mount: &MountEntry, how: How) -> Result<(), MountError> {
    check_seen(mount)?;
    let point = &mount.path;
    let helper = helper().ok_or_else(|| MountError::NoHelper { install: install_hint() })?;
    let mut command = Command::new(helper);
    // A Ctrl-C that ends a command does not end it half-way.
    command.process_group(0).arg("-u");
    if how == How::Lazy {
        command.arg("-z");
    }
    let output =
        started(command.arg("--").arg(point), how).map_err(|error| failed(point, error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // It knows the mounts of other users as little as those that are none.
    let of_another = ["not found in /etc/mtab", "Operation not permitted", "Permission denied"];
    match said {
        said if said.contains("busy") => Err(in_use(point)),
        said if of_another.iter().any(|words| said.contains(words)) => Err(failed(
            point,
            io::Error::other("only the user who mounted it, or root, may do that"),
        )),
        said => Err(failed(point, io::Error::other(said))),
    }
}

/// Where the system gives no more processes it may soon: threads of a mount that ends do so.
fn started(command: &mut Command, how: How) -> io::Result<Output> {
    let begun = Instant::now();
    let limit = if how == How::Lazy { ROOM } else { LOOKS };
    loop {
        match command.output() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(error) if begun.elapsed() >= limit => {
                let why = threads::told("fusermount3", error);
                let text =
                    format!("{why}; when there is room, `hdrive umount --lazy` takes it away");
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(_) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

pub(super) fn failed(point: &Path, source: io::Error) -> MountError {
    MountError::Io { what: format!("unmounting {}", point.display()), source }
}

fn locked(point: &Path) -> MountError {
    MountError::Locked(point.into())
}

fn in_use(point: &Path) -> MountError {
    MountError::InUse { path: point.into(), by: Vec::new() }
}

/// Names who uses what is in use, as far as this user may see.
pub(super) fn with_users(error: MountError) -> MountError {
    let MountError::InUse { path, .. } = error else { return error };
    let mut by = inner_mounts(&path);
    by.extend(users(&path));
    MountError::InUse { path, by }
}

/// Mounts that lie in the one at `point`.
fn inner_mounts(point: &Path) -> Vec<String> {
    let mounts = mountinfo::mounts().unwrap_or_default();
    let Some(outer) = over_in(&mounts, point).map(|outer| outer.id) else { return Vec::new() };
    let inner = mounts.iter().filter(|inner| inner.parent == outer && inner.id != outer);
    let named = inner.map(|MountEntry { path, kind, source, .. }| {
        format!("the mount on {} ({kind} from {source})", path.display())
    });
    named.take(MAX_USERS).collect()
}

/// The fusermount that an ordinary user mounts with.
pub(super) fn helper() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FUSERMOUNT_PATH") {
        return Some(PathBuf::from(path)).filter(|helper| helper.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fixed = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(fixed).collect();
    let candidates = ["fusermount3", "fusermount"]
        .into_iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// The command that installs fusermount3 here.
pub(super) fn install_hint() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    install_command(&release).to_owned()
}

fn install_command(os_release: &str) -> &'static str {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let ids = format!("{} {}", value("ID="), value("ID_LIKE="));
    for id in ids.split_whitespace() {
        match id {
            "debian" | "ubuntu" => return "`apt install fuse3`",
            "fedora" | "rhel" | "centos" => return "`dnf install fuse3`",
            "arch" => return "`pacman -S fuse3`",
            "alpine" => return "`apk add fuse3`",
            "suse" | "opensuse" => return "`zypper install fuse3`",
            "gentoo" => return "`emerge sys-fs/fuse`",
            "nixos" => return "`programs.fuse.enable = true;` in configuration.nix",
            _ => {}
        }
    }
    "installing the package fuse3"
}

/// Whether a process that can be seen has something below `point` open, or stands there. Only links in `/proc` are read.
pub(super) fn is_open(point: &Path) -> bool {
    !processes(point, has_open).is_empty()
}

/// Names of processes that use something below `point`, as far as this user may see. Only `/proc` is read: the mount itself
/// is not touched.
fn users(point: &Path) -> Vec<String> {
    let found = processes(point, has_open);
    if !found.is_empty() {
        return found;
    }
    // Who only maps a file is looked for last: that takes longer, and waits for a process that is stuck in its memory.
    let (told, named) = channel();
    let at = point.to_path_buf();
    let look = move || drop(told.send(processes(&at, maps)));
    let looks = threads::spawn("hdrive-maps", look);
    looks.ok().and_then(|_| named.recv_timeout(MAPS).ok()).unwrap_or_default()
}

fn processes(point: &Path, uses: fn(&Path, &Path) -> bool) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter(|process| process.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter(|process| uses(&process.path(), point))
        .take(MAX_USERS)
        .map(|process| {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!("{} ({})", name.trim(), process.file_name().to_string_lossy())
        })
        .collect()
}

fn has_open(process: &Path, point: &Path) -> bool {
    let inside =
        |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(point));
    ["cwd", "root", "exe"].into_iter().any(|link| inside(process.join(link)))
        || std::fs::read_dir(process.join("fd"))
            .is_ok_and(|fds| fds.flatten().any(|fd| inside(fd.path())))
}

fn maps(process: &Path, point: &Path) -> bool {
    let maps = std::fs::read(process.join("maps")).unwrap_or_default();
    maps.split(|byte| *byte == b'\n').filter_map(mapped).any(|file| file.starts_with(point))
}

/// `7f00-7f01 r-xp 00000000 00:2d 5    /mnt/a b`; a newline in a name comes as `\012`.
fn mapped(line: &[u8]) -> Option<PathBuf> {
    let at = line.iter().position(|byte| *byte == b'/')?;
    Some(OsString::from_vec(unescaped(line.get(at..)?)).into())
}

#[cfg(test)]
mod tests {
    use super::super::pin::Probe;
    use super::*;
    use crate::required::available;
    use nix::mount::{MsFlags, mount};

    #[test]
    fn the_package_is_named_for_the_system_at_hand() {
        assert_eq!(install_command("NAME=x\nID=debian\n"), "`apt install fuse3`");
        assert_eq!(install_command("ID=pop\nID_LIKE=\"ubuntu debian\""), "`apt install fuse3`");
        assert_eq!(install_command("ID=\"rocky\"\nID_LIKE=\"rhel fedora\""), "`dnf install fuse3`");
        assert_eq!(install_command(""), "installing the package fuse3");
    }

    #[test]
    fn only_drives_are_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(unmount(dir.path(), How::Clean), Err(MountError::NotMounted(_))));
        assert!(matches!(unmount(Path::new("/proc"), How::Clean), Err(MountError::NotOurs { .. })));
    }

    #[test]
    fn users_of_a_directory_are_found() {
        let dir = tempfile::tempdir().unwrap();
        assert!(users(dir.path()).is_empty());
        let _open = std::fs::File::open(dir.path()).unwrap();
        let own = format!("({})", std::process::id());
        assert!(users(dir.path()).iter().any(|user| user.ends_with(&own)));
    }
    fn tmpfs(at: &Path) -> bool {
        let mounted = mount(Some("test"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>);
        available("the right to mount", mounted.is_ok())
    }

    #[test]
    fn only_what_is_held_is_taken_away_though_another_has_its_place_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        if !tmpfs(&at) {
            return;
        }
        let first = Pin::at(&at).unwrap();
        let listed = first.mount().unwrap().unwrap();
        assert_eq!((listed.path.as_path(), listed.kind.as_str()), (at.as_path(), "tmpfs"));
        assert_eq!(first.probe(), Probe::Alive);
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(first.mount().unwrap(), None);

        assert!(tmpfs(&at));
        std::fs::write(at.join("second"), "x").unwrap();
        detach_held(first).unwrap();
        assert!(at.join("second").exists(), "another mount was taken away");
        detach_held(Pin::at(&at).unwrap()).unwrap();
        assert!(!at.join("second").exists());
        // A folder that is no mount is nothing to take away.
        detach_held(Pin::at(&at).unwrap()).unwrap();
        assert!(mountinfo::top_at(&at).unwrap().is_none());
    }
}
