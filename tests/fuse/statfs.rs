//! statfs.

use crate::common::mounted;
use crate::volume::TestVolume;
use nix::sys::statvfs::{FsFlags, statvfs};

#[test]
fn df_shows_the_drive() {
    let volume = TestVolume::new();
    volume.file("/a", vec![0; 10_000]);
    volume.file("/b", vec![0; 6_384]);
    let Some(mount) = mounted(&volume) else { return };

    let stat = statvfs(mount.mounted.mount_point()).unwrap();
    assert_eq!(stat.blocks() * stat.fragment_size(), 16_384);
    assert_eq!((stat.blocks_free(), stat.files(), stat.name_max()), (0, 2, 255));
    assert!(stat.flags().contains(FsFlags::ST_RDONLY | FsFlags::ST_NOSUID));
    let df = std::process::Command::new("df").arg(mount.mounted.mount_point()).output().unwrap();
    assert!(String::from_utf8(df.stdout).unwrap().contains("hdrive"));
}
