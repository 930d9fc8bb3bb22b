//! A handler that panics costs its request and nothing else.

use crate::common::{errno, mounted};
use crate::volume::{Behaviour, TestVolume};
use nix::errno::Errno;
use std::fs;

#[test]
fn the_mount_outlives_every_panic() {
    let volume = TestVolume::new();
    for name in ["name", "late-name", "bytes", "late-bytes"] {
        volume.file(&format!("/{name}"), "x");
    }
    volume.file("/good", "good");
    volume.looking("/name", Behaviour::Panic);
    volume.looking("/late-name", Behaviour::LatePanic);
    volume.reading("/bytes", Behaviour::Panic);
    volume.reading("/late-bytes", Behaviour::LatePanic);
    let Some(mount) = mounted(&volume) else { return };

    // More often than there are threads.
    for _ in 0..10 {
        assert_eq!(errno(fs::metadata(mount.at("name"))), Errno::EIO);
        assert_eq!(errno(fs::metadata(mount.at("late-name"))), Errno::EIO);
        assert_eq!(errno(fs::read(mount.at("bytes"))), Errno::EIO);
        assert_eq!(errno(fs::read(mount.at("late-bytes"))), Errno::EIO);
    }
    volume.changed(&["/name"]);
    assert_eq!(fs::read(mount.at("good")).unwrap(), b"good");
    crate::common::soon("nothing waits any more", || mount.mounted.waiting() == 0);
    // The thread that tells the kernel of changes met one, too.
    volume.file("/new", "new");
    volume.changed(&["/new"]);
    crate::common::soon("the new name", || mount.at("new").exists());
}
