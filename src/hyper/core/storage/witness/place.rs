//! Where a store lies: on which file system, and on which device of the machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) const OVERLAY: u64 = 0x794c_7630;
/// Of a kind, the bits that the system tells.
pub(super) const KIND: u64 = 0xffff_ffff;
/// Added to the kind of a file system whose id is that of the one below it; noted is the number of its device instead.
pub(super) const BORROWED_ID: u64 = 1 << 32;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The kind of file system.
    pub(super) kind: u64,
    /// Which it is of those.
    pub(super) id: u64,
    /// The number of the device it lies on, which is that of another after a start of the machine; 0 where it lies on
    /// none of its own, as those in memory, on a network, and btrfs do.
    pub(super) device: u64,
    /// Of all disks that the machine has had since it was started, which has that number; 0 if it does not tell.
    pub(super) disk: u64,
}

impl Place {
    pub(super) fn of(database: &Path) -> Option<Self> {
        let kind = rustix::fs::statfs(database).ok()?.f_type as u64 & KIND;
        let device = fs::metadata(database).ok()?.dev();
        let device = if rustix::fs::major(device) == 0 { 0 } else { device };
        let disk = if device == 0 { 0 } else { disk_of(device).unwrap_or_default() };
        if kind == OVERLAY {
            // Of files, the device may be that of a layer.
            let device = fs::metadata(database.parent()?).ok()?.dev();
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            if !has_own_id(&mounts, device) {
                return Some(Self { kind: kind | BORROWED_ID, id: device, device: 0, disk: 0 });
            }
            return Some(Self { kind, id: id_of(database)?, device: 0, disk: 0 });
        }
        Some(Self { kind, id: id_of(database)?, device, disk })
    }
}

fn id_of(path: &Path) -> Option<u64> {
    Some(rustix::fs::statvfs(path).ok()?.f_fsid)
}

/// The number of a disk among all since the start: another image behind the same device has another.
fn disk_of(device: u64) -> Option<u64> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let at = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // Of a partition it is its disk that has one.
    let read = |name| fs::read_to_string(at.join(name)).ok();
    read("diskseq").or_else(|| read("../diskseq"))?.trim().parse().ok()
}

/// Whether an overlay has an id of its own: Linux says so among its options, where it is not the one of a layer.
pub(super) fn has_own_id(mounts: &str, device: u64) -> bool {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mounts.lines().any(|line| {
        let options = line.rsplit(' ').next().unwrap_or_default();
        line.split(' ').nth(2) == Some(&number)
            && options.split(',').any(|option| option == "uuid=on")
    })
}
