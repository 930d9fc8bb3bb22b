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
fn copies_do_not_carry_the_attributes_along() {
    let volume = TestVolume::new();
    volume.file("/a", "x");
    let Some(mount) = mounted(&volume) else { return };
    let mut names = [0; 200];
    for at in ["", "a"] {
        assert_eq!(rustix::fs::listxattr(mount.at(at), &mut names[..]), Ok(0), "{at}");
    }
    let target = tempfile::tempdir().unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(mount.at("a")).arg(target.path()).status();
    assert!(copied.unwrap().success());
    let mut value = [0; 100];
    let got = rustix::fs::getxattr(target.path().join("a"), "user.hdrive.key", &mut value[..]);
    assert!(matches!(got, Err(Errno::NODATA | Errno::OPNOTSUPP)), "{got:?}");
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
    let set = rustix::fs::setxattr(&path, "user.x", b"1", rustix::fs::XattrFlags::empty());
    assert_eq!(set, Err(Errno::ROFS));
}
