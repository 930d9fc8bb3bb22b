//! What is concluded of files that differ from what was noted.

use super::*;
use crate::hyper::core::storage::witness::place::has_own_id;

#[test]
fn a_place_that_is_another_is_told_from_one_that_is_numbered_anew() {
    let (ext, network) = (0xef53, 0x6969);
    let note = |boot, place| Note {
        open: false,
        doubts: Doubts::default(),
        boot: [boot; 16],
        found: Found::look(std::path::Path::new("/")).unwrap(),
        written: (0, 0),
        place: Some(place),
        turn: None,
        own: None,
    };
    let place = |(kind, id): (u64, u64)| Place { kind, id, ..Place::default() };
    let note = |boot, at| note(boot, place(at));
    let here = |at| Here { boot: &[1; 16], place: Some(place(at)) };
    let (copied, crashed) = (Some(Doubt::Copied), Some(Doubt::Crashed));
    assert_eq!(here((ext, 1)).doubt(&note(1, (network, 1))), copied);
    assert_eq!(here((ext, 1)).doubt(&note(2, (ext, 2))), copied);
    assert_eq!(here((ext, 1)).doubt(&note(2, (ext, 1))), None);
    assert_eq!(here((network, 1)).doubt(&note(1, (network, 2))), crashed, "mounted again");
    assert_eq!(here((network, 1)).doubt(&note(2, (network, 2))), None, "numbered anew");
    // Two containers with one layer: the id tells nothing, only the mount.
    let borrowed = OVERLAY | BORROWED_ID;
    assert_eq!(here((borrowed, 1)).doubt(&note(1, (borrowed, 1))), None);
    assert_eq!(here((borrowed, 1)).doubt(&note(1, (borrowed, 2))), crashed);
    assert_eq!(here((borrowed, 1)).doubt(&note(2, (borrowed, 1))), crashed);
    assert_eq!(here((borrowed, 1)).doubt(&note(1, (OVERLAY, 1))), crashed);
    assert_eq!(here((OVERLAY, 1)).doubt(&note(2, (OVERLAY, 1))), None);
    let mount = |options| format!("36 35 0:50 / / rw,noatime - overlay overlay rw,{options}");
    assert!(has_own_id(&mount("lowerdir=/a,uuid=on"), rustix::fs::makedev(0, 50)));
    assert!(!has_own_id(&mount("lowerdir=/a,uuid=on"), rustix::fs::makedev(0, 51)));
    assert!(!has_own_id(&mount("lowerdir=/a,uuid=null"), rustix::fs::makedev(0, 50)));
}

/// An image of a file system that is mounted beside it, or in its place: only the device or the disk is another.
#[test]
fn another_device_in_one_boot_is_another_store() {
    let (ext, xfs) = (0xef53, 0x5846_5342);
    for kind in [ext, xfs] {
        let then = Place { kind, id: 1, device: 7, disk: 20 };
        let doubt = |open, same_boot, now| {
            let (was, is) = if same_boot { ([1; 16], [1; 16]) } else { ([1; 16], [2; 16]) };
            judged(
                |note, _, _, boot| {
                    (note.open, note.boot, *boot) = (open, was, is);
                    note.place = Some(then);
                },
                Some(now),
            )
        };
        let copied = Some(Doubt::Copied);
        for open in [false, true] {
            assert_eq!(doubt(open, true, then), None);
            assert_eq!(doubt(open, true, Place { device: 8, disk: 21, ..then }), copied);
            // After a start of the machine numbers tell nothing.
            let anew = doubt(open, false, Place { device: 8, disk: 2, ..then });
            assert_eq!(anew, open.then_some(Doubt::Crashed));
            // Where the machine tells no more than the device.
            assert_eq!(doubt(open, true, Place { disk: 0, ..then }), None);
        }
        // A disk that went and came back, or its image: the one can be told as long as the store was closed.
        assert_eq!(doubt(true, true, Place { disk: 21, ..then }), copied);
        assert_eq!(doubt(false, true, Place { disk: 21, ..then }), None);
    }
}

/// What [`judge`] makes of a store in which these differ from what was left.
fn judged(
    change: impl FnOnce(&mut Note, &mut Found, &mut Found, &mut [u8; 16]),
    place: Option<Place>,
) -> Option<Doubt> {
    let found = Found { inode: 1, born: (1, 0), changed: (1000, 0), size: 9, modified: (1000, 0) };
    let (mut now, mut noted, mut boot) = (found, found, [1; 16]);
    let written = (1000, 0);
    let mut note = Note {
        open: false,
        doubts: Doubts::default(),
        boot,
        found,
        written,
        place: None,
        turn: None,
        own: None,
    };
    change(&mut note, &mut now, &mut noted, &mut boot);
    let here = Here { boot: &boot, place };
    judge(Some(&note), Some(now), Some(noted), &here).gravest()
}

#[test]
fn a_time_of_change_that_was_lost_with_the_machine_makes_no_copy() {
    let (copied, crashed) = (Some(Doubt::Copied), Some(Doubt::Crashed));
    let earlier = |now: &mut Found| (now.changed, now.modified) = ((995, 0), (995, 0));
    for open in [false, true] {
        let lost = judged(
            |note, now, _, boot| {
                (note.open, *boot) = (open, [2; 16]);
                earlier(now);
            },
            None,
        );
        assert_eq!(lost, crashed, "open: {open}");
        let other_file = judged(
            |note, now, _, boot| {
                (note.open, *boot, now.inode) = (open, [2; 16], 2);
                earlier(now);
            },
            None,
        );
        assert_eq!(other_file, copied, "open: {open}");
    }
    assert_eq!(judged(|_, now, _, _| earlier(now), None), copied, "on a machine that runs on");
    let later = judged(
        |_, now, _, boot| {
            *boot = [2; 16];
            (now.changed, now.modified) = ((1001, 0), (1001, 0));
        },
        None,
    );
    assert_eq!(later, copied, "written over one that was closed");
}

#[test]
fn an_old_note_that_was_put_back_with_its_database_is_not_ours_for_long() {
    for (age, doubt) in [(2, Doubt::Crashed), (60, Doubt::Copied), (600, Doubt::Copied)] {
        let put_back = judged(
            |note, now, noted, boot| {
                (note.open, *boot) = (true, [2; 16]);
                for file in [now, noted] {
                    (file.changed, file.modified) = ((1000 + age, 0), (1000 + age, 0));
                }
            },
            None,
        );
        assert_eq!(put_back, Some(doubt), "after {age} s");
    }
}

#[test]
fn a_note_in_its_own_file_is_ours_whatever_its_times_say_and_in_another_it_is_not() {
    let (copied, crashed) = (Some(Doubt::Copied), Some(Doubt::Crashed));
    let is = |open, same_boot, own, look: fn(&mut Found)| {
        judged(
            |note, now, noted, boot| {
                (note.open, note.own) = (open, Some((own, (1, 0))));
                *boot = if same_boot { [1; 16] } else { [2; 16] };
                // Somebody changed the rights of both, long afterwards.
                (now.changed, noted.changed) = ((9000, 0), (9000, 0));
                look(now);
            },
            None,
        )
    };
    let rights = |_: &mut Found| {};
    assert_eq!(is(false, true, 1, rights), None);
    assert_eq!(is(false, false, 1, rights), None);
    assert_eq!(is(true, true, 1, rights), None);
    assert_eq!(is(true, false, 1, rights), crashed);
    // Killed between a transaction and its note, or its notes are lost; the turn tells the rest.
    let newer = |now: &mut Found| (now.modified, now.size) = ((1001, 0), 10);
    assert_eq!(is(true, true, 1, newer), None);
    assert_eq!(is(true, false, 1, newer), crashed);
    assert_eq!(is(false, true, 1, newer), copied);
    let older = |now: &mut Found| now.modified = (999, 0);
    for (open, same_boot) in [(false, true), (false, false), (true, true), (true, false)] {
        assert_eq!(is(open, same_boot, 1, older), copied);
        for look in [rights, newer, older] {
            assert_eq!(is(open, same_boot, 2, look), copied, "restored with its note");
        }
    }
}
