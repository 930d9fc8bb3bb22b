//! The kernel's side of a mount: `/dev/fuse`, opened and attached to the mount point.
//!
//! Not left to fuser, whose session unmounts by path when it ends. By then another mount may have taken the
//! place, and would be taken away.

use super::options::{Access, MountOptions};
use super::unmount::helper;
use crate::mountinfo::SOURCE;
use crate::threads;
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::unistd::{getgid, getuid};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// `MS_NOSYMFOLLOW` of mount(2); older kernels than 5.10 know nothing of it.
const NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(256);

pub const DEVICE: &str = "/dev/fuse";

/// Mounts on `point` and returns the device through which the kernel asks.
///
/// # Errors
/// Those of mount(2), or what fusermount3 had to say; kind `NotFound` if it is needed and missing.
pub fn attach(point: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    match by_system_call(point, options) {
        // Not root: the helper is.
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => {
            by_helper(point, options)
        }
        done => done,
    }
}

fn by_system_call(point: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let mode = std::fs::metadata(point)?.permissions().mode();
    let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    let (fd, user, group) = (device.as_raw_fd(), getuid(), getgid());
    let mut data = format!("fd={fd},rootmode={mode:o},user_id={user},group_id={group}");
    data.push_str(",default_permissions");
    data.push_str(&format!(",subtype={SOURCE}"));
    if options.access != Access::Owner {
        data.push_str(",allow_other");
    }
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, !options.writable);
    flags.set(MsFlags::MS_NOEXEC, options.noexec);
    flags.set(MsFlags::MS_NOATIME, options.noatime);
    flags.set(NOSYMFOLLOW, options.nosymfollow);
    let source = Some(options.source.as_str());
    nix::mount::mount(source, point, Some("fuse"), flags, Some(data.as_str()))?;
    Ok(device.into())
}

/// fusermount3 mounts and passes the device back over the socket that is its standard input.
fn by_helper(point: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let helper = helper().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let (ours, theirs) = UnixStream::pair()?;
    let child = Command::new(helper)
        .arg("-o")
        .arg(helper_options(options))
        .arg("--")
        .arg(point)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C that ends a command does not end it half-way.
        .process_group(0)
        .spawn()
        .map_err(|error| threads::told("fusermount3", error))?;
    let device = receive(&ours);
    let output = child.wait_with_output()?;
    match device? {
        Some(device) => Ok(device),
        None => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(io::Error::other(said))
        }
    }
}

fn helper_options(options: &MountOptions) -> String {
    // In its list a backslash takes the meaning from a comma.
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let access = if options.writable { "rw" } else { "ro" };
    let mut list =
        format!("{access},nosuid,nodev,default_permissions,subtype={SOURCE},fsname={source}");
    for (on, name) in [
        (options.access != Access::Owner, ",allow_other"),
        (options.noexec, ",noexec"),
        (options.noatime, ",noatime"),
        (options.nosymfollow, ",nosymfollow"),
    ] {
        if on {
            list.push_str(name);
        }
    }
    list
}

/// The descriptor that comes with one byte; none if the other side hangs up without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut io = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut io, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fds.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helpers_list_keeps_a_source_with_commas_whole() {
        let options = MountOptions { source: "a,b\\c".into(), noexec: true, ..Default::default() };
        let list = helper_options(&options);
        assert_eq!(
            list,
            "ro,nosuid,nodev,default_permissions,subtype=hdrive,fsname=a\\,b\\\\c,noexec"
        );
    }

    #[test]
    fn a_helper_that_hangs_up_gave_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }
}
