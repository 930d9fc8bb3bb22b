//! Commands on mounts that another lies over, and that were named in a roundabout way.

use crate::common::*;
use crate::input::NOBODYS;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn a_mount_below_another_is_told_as_covered() {
    if !fuse_available() || !available("root", nix::unistd::geteuid().is_root()) {
        return;
    }
    let lab = Lab::new();
    let (outer, at) = (lab.folder("a"), lab.folder("a/b"));
    let mut process = lab.spawn("bob", &["mount", NOBODYS, text(&at)]);
    process.line("mounted: ");
    mount(Some("cover"), &outer, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let told = format!("covered by another mount (tmpfs from cover on {})", outer.display());
    for args in [&["umount"] as &[&str], &["umount", "--lazy"]] {
        let done = lab.run("bob", &[args, &[text(&at)]].concat());
        assert_eq!(done.code, 5, "{}", done.stderr);
        assert!(done.stderr.contains(&told), "{}", done.stderr);
    }
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait(PATIENCE).code(), Some(5));
    let errors = process.errors();
    assert_eq!(errors.matches(&told).count(), 1, "{errors}");
    umount2(&outer, MntFlags::MNT_DETACH).unwrap();
    let unmounted = || (lab.run("bob", &["umount", text(&at)]).code == 0).then_some(());
    eventually("the unmount", PATIENCE, unmounted);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
}

#[test]
fn a_mount_on_the_folder_above_ends_with_its_command() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (at, inner) = (lab.folder("dt"), lab.folder("dt/d"));
    let mut command = lab.command("bob", &["mount", "-o", "nonempty", NOBODYS, ".."]);
    command.current_dir(&inner);
    let mut process = Hdrive::spawn(command);
    assert_eq!(process.line("mounted: "), text(&at));
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait(PATIENCE).code(), Some(0));
    assert!(fs::exists(&inner).unwrap());
}
