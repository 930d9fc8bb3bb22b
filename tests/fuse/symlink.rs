//! readlink, and that no link leads out.

use crate::common::{errno, mounted};
use crate::volume::TestVolume;
use nix::errno::Errno;
use std::fs;
use std::path::Path;

#[test]
fn links_lead_where_the_drive_says() {
    let volume = TestVolume::new();
    volume.file("/a/b/target", "found");
    volume.link("/a/relative", "b/target");
    volume.link("/a/b/up", "../b/target");
    volume.link("/a/b/absolute", "/a/b/target");
    volume.link("/rooted", "/a");
    let Some(mount) = mounted(&volume) else { return };

    for link in ["a/relative", "a/b/up", "a/b/absolute", "rooted/relative"] {
        assert_eq!(fs::read(mount.at(link)).unwrap(), b"found", "{link}");
    }
    assert_eq!(fs::read_link(mount.at("a/relative")).unwrap(), Path::new("b/target"));
    let absolute = fs::read_link(mount.at("a/b/absolute")).unwrap();
    assert_eq!(absolute, Path::new("target"));
    let size = fs::symlink_metadata(mount.at("a/b/absolute")).unwrap().len();
    assert_eq!(size, "target".len() as u64);
}

#[test]
fn no_link_leads_out_of_the_mount() {
    let volume = TestVolume::new();
    volume.file("/d/e/x", "x");
    volume.link("/passwd", "/etc/passwd");
    volume.link("/climb", "../../../../../../etc/passwd");
    volume.link("/d/short", "/");
    // Through a link that is less deep than it looks.
    volume.link("/d/e/sly", "../short/../../../../../../etc/passwd");
    volume.link("/d/e/self", "/d/e/self");
    let Some(mount) = mounted(&volume) else { return };

    for link in ["passwd", "climb", "d/e/sly"] {
        assert_eq!(errno(fs::read(mount.at(link))), Errno::ENOENT, "{link}");
    }
    assert_eq!(errno(fs::read(mount.at("d/e/self"))), Errno::ELOOP);
}

#[test]
fn targets_that_cannot_be_are_errors_and_no_more() {
    let volume = TestVolume::new();
    volume.link("/nul", "a\0b");
    volume.link("/long", &"n/".repeat(3000));
    volume.link("/empty", "");
    let Some(mount) = mounted(&volume) else { return };

    assert_eq!(errno(fs::read_link(mount.at("nul"))), Errno::EIO);
    assert_eq!(errno(fs::read_link(mount.at("long"))), Errno::ENAMETOOLONG);
    assert_eq!(fs::read_link(mount.at("empty")).unwrap(), Path::new(""));
    assert_eq!(fs::read_dir(mount.at("")).unwrap().count(), 3);
}
