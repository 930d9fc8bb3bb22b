//! getxattr, listxattr.

use crate::common::mounted;
use crate::volume::TestVolume;
use rustix::io::Errno;

#[test]
fn attributes_tell_of_the_drive() {
    let volume = TestVolume::new();
    volume.file("/d/a", "12345");
    volume.file("/d/b", "123");
    let Some(mount) = mounted(&volume) else { return };
    let get = |at: &str, name: &str| {
        let mut buf = [0; 100];
        let len = rustix::fs::getxattr(mount.at(at), name, &mut buf[..])?;
        Ok::<_, Errno>(String::from_utf8(buf[..len].to_vec()).unwrap())
    };

    assert_eq!(get("", "user.hdrive.key").unwrap(), "k".repeat(52));
    assert_eq!(get("d", "user.hdrive.cached").unwrap(), "8");
    assert_eq!(get("d/a", "user.hdrive.cached").unwrap(), "5");
    let version = get("d/a", "user.hdrive.version").unwrap();
    assert!(version.parse::<u64>().unwrap() > 0);
    assert_eq!(get("d/a", "user.other"), Err(Errno::NODATA));
    assert_eq!(get("d/a", "security.capability"), Err(Errno::NODATA));
}

#[test]
fn short_buffers_are_told_and_nothing_is_set() {
    let volume = TestVolume::new();
    volume.file("/a", "x");
    let Some(mount) = mounted(&volume) else { return };
    let mut short = [0; 3];

    let path = mount.at("a");
    let short = rustix::fs::getxattr(&path, "user.hdrive.key", &mut short[..]);
    assert_eq!(short, Err(Errno::RANGE));
    let mut names = [0; 200];
    let len = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    assert_eq!(names.count(), 3);
    let set = rustix::fs::setxattr(&path, "user.x", b"1", rustix::fs::XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
}
