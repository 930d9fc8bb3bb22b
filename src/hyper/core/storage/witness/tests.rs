//! Stores that are closed, killed, copied, restored, and looked at on another file system.

use super::*;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let mut dir = tempfile::tempdir().unwrap();
        if place_of(dir.path()).is_some_and(|(kind, _)| kind & BORROWED_ID != 0) {
            // As in many containers: there another boot is always a doubt.
            dir = tempfile::tempdir_in("/dev/shm").unwrap();
        }
        fs::write(dir.path().join("db"), b"1").unwrap();
        Self { dir }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    fn open(&self) -> Witness {
        let witness = Witness::open(self.dir.path(), &self.database(), false);
        witness.opened(self.turn());
        witness
    }

    /// The turn of a database is at its end here.
    fn turn(&self) -> Option<LastTurn> {
        fs::read(self.database()).unwrap().last_chunk::<40>().and_then(|end| LastTurn::decode(end))
    }

    fn new_witness(&self) {
        let witness = Witness::open(self.dir.path(), &self.database(), true);
        witness.opened(None);
    }

    /// Opened, changed, and left open or closed.
    fn use_it(&self, close: bool) {
        let witness = self.open();
        self.change();
        witness.changed(self.turn().as_ref());
        if close {
            self.touch();
            witness.close();
        }
    }

    /// A clock tick later, so that the change shows.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the file system's clock that must move on"
    )]
    fn change(&self) {
        std::thread::sleep(std::time::Duration::from_millis(15));
        let next = LastTurn::next(self.turn());
        let mut options = OpenOptions::new();
        let mut file = options.append(true).open(self.database()).unwrap();
        std::io::Write::write_all(&mut file, &next.encode()).unwrap();
    }

    /// Writes without a transaction.
    #[expect(clippy::disallowed_methods, reason = "as above")]
    fn touch(&self) {
        std::thread::sleep(std::time::Duration::from_millis(15));
        let file = OpenOptions::new().write(true).open(self.database()).unwrap();
        file.write_all_at(b"2", 0).unwrap();
    }

    /// Long after the note was written.
    #[expect(clippy::disallowed_methods, reason = "as above")]
    fn change_rights(&self, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::thread::sleep(4 * NOTE_TICKS);
        fs::set_permissions(self.database(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn doubt(&self) -> Option<Doubt> {
        self.open().doubts().gravest()
    }

    fn edit(&self, change: impl FnOnce(&mut Note)) {
        let path = self.dir.path().join("witness");
        let mut note = Note::decode(&fs::read(&path).unwrap()).unwrap();
        change(&mut note);
        fs::write(path, note.encode()).unwrap();
    }
}

#[test]
fn what_was_left_is_known_again() {
    let place = Place::new();
    place.new_witness();
    for close in [true, false, true] {
        place.use_it(close);
        assert_eq!(place.doubt(), None, "closed: {close}");
    }
    // Closed, and the machine started anew.
    place.use_it(true);
    place.edit(|note| note.boot = [1; 16]);
    assert_eq!(place.doubt(), None);
}

#[test]
fn a_machine_that_stopped_is_told_from_a_copy() {
    let place = Place::new();
    place.new_witness();
    place.use_it(false);
    place.edit(|note| note.boot = [1; 16]);
    assert_eq!(place.doubt(), Some(Doubt::Crashed));
    place.change();
    assert_eq!(place.doubt(), Some(Doubt::Crashed));
    // A copy, put back in its place or over what is there.
    let place = Place::new();
    place.new_witness();
    place.use_it(true);
    let old = fs::read(place.database()).unwrap();
    let note = fs::read(place.dir.path().join("witness")).unwrap();
    place.use_it(true);
    for away in [true, false] {
        if away {
            fs::rename(place.database(), place.dir.path().join("away")).unwrap();
        }
        fs::write(place.database(), &old).unwrap();
        fs::write(place.dir.path().join("witness"), &note).unwrap();
        assert!(place.doubt().is_some());
    }
    // Whoever takes the database alone has a copy; one that an older version wrote never had a note.
    fs::remove_file(place.dir.path().join("witness")).unwrap();
    assert_eq!(place.doubt(), Some(Doubt::Copied));
    fs::write(place.database(), b"1").unwrap();
    fs::remove_file(place.dir.path().join("witness")).unwrap();
    assert_eq!(place.doubt(), Some(Doubt::Crashed));
}

/// Both files as they are, to be put back in place as `cp -a` does it.
fn backup(place: &Place) -> impl Fn() {
    let files = [place.database(), place.dir.path().join("witness")].map(|path| {
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        (fs::read(&path).unwrap(), modified, path)
    });
    move || {
        for (bytes, modified, path) in &files {
            fs::write(path, bytes).unwrap();
            File::options().write(true).open(path).unwrap().set_modified(*modified).unwrap();
        }
    }
}

#[test]
fn a_copy_that_was_put_back_in_place_is_one() {
    for close in [true, false] {
        let place = Place::new();
        place.new_witness();
        place.use_it(close);
        let restore = backup(&place);
        // As large as before.
        place.change();
        place.use_it(true);
        restore();
        assert_eq!(place.doubt(), Some(Doubt::Copied), "closed: {close}");
        place.edit(|note| note.boot = [1; 16]);
        assert_eq!(place.doubt(), Some(Doubt::Copied), "closed: {close}, another start");
    }
}

#[test]
fn an_older_database_that_was_written_over_one_left_open_is_a_copy() {
    // How many transactions are missing; all of them are noted, or the last one is not.
    for (missing, noted) in [(1, true), (3, true), (2, false), (3, false)] {
        for boot in [false, true] {
            let place = Place::new();
            place.new_witness();
            place.use_it(false);
            let old = fs::read(place.database()).unwrap();
            let witness = place.open();
            for n in 0..missing {
                place.change();
                if noted || n + 1 < missing {
                    witness.changed(place.turn().as_ref());
                }
            }
            drop(witness);
            let whole = fs::read(place.database()).unwrap();
            if boot {
                place.edit(|note| note.boot = [1; 16]);
            }
            // As `cp backup/store.redb store/` does: the same file, changed by writing to it.
            let note = fs::read(place.dir.path().join("witness")).unwrap();
            fs::write(place.database(), &old).unwrap();
            let doubt = place.doubt();
            assert_eq!(doubt, Some(Doubt::Copied), "{missing} missing, noted: {noted}");
            // With what was there it is the one that was left.
            fs::write(place.database(), &whole).unwrap();
            fs::write(place.dir.path().join("witness"), &note).unwrap();
            assert_eq!(place.doubt(), boot.then_some(Doubt::Crashed));
        }
    }
}

#[test]
fn notes_that_were_lost_with_the_machine_make_no_copy() {
    let place = Place::new();
    place.new_witness();
    place.use_it(false);
    let note = fs::read(place.dir.path().join("witness")).unwrap();
    (0..3).for_each(|_| place.use_it(false));
    fs::write(place.dir.path().join("witness"), &note).unwrap();
    place.edit(|note| note.boot = [1; 16]);
    assert_eq!(place.doubt(), Some(Doubt::Crashed));
    // On a machine that runs on none are lost.
    let place = Place::new();
    place.new_witness();
    place.use_it(false);
    let note = fs::read(place.dir.path().join("witness")).unwrap();
    (0..3).for_each(|_| place.use_it(false));
    fs::write(place.dir.path().join("witness"), &note).unwrap();
    assert_eq!(place.doubt(), Some(Doubt::Copied));
}

#[test]
fn an_opening_that_is_killed_before_its_first_transaction_leaves_no_doubt() {
    let place = Place::new();
    place.new_witness();
    for close in [true, false] {
        place.use_it(close);
        drop(Witness::open(place.dir.path(), &place.database(), false));
        // What opening it writes.
        place.touch();
        assert_eq!(place.doubt(), None, "closed before: {close}");
    }
}

#[test]
fn another_file_system_is_another_store() {
    let other = |place: Option<(u64, u64)>| place.map(|(kind, id)| (kind, id ^ 1));
    for close in [true, false] {
        let place = Place::new();
        place.new_witness();
        place.use_it(close);
        // A snapshot: of the same kind, inode and times.
        place.edit(|note| note.place = other(note.place));
        assert_eq!(place.doubt(), Some(Doubt::Copied));
    }
    let (ext, network) = (0xef53, 0x6969);
    let note = |boot, place| Note {
        open: false,
        doubts: Doubts::default(),
        boot: [boot; 16],
        found: Found::look(Path::new("/")).unwrap(),
        written: (0, 0),
        place: Some(place),
        turn: None,
    };
    let here = |place| Here { boot: &[1; 16], place: Some(place) };
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

/// What [`judge`] makes of a store in which these differ from what was left.
fn judged(change: impl FnOnce(&mut Note, &mut Found, &mut Found, &mut [u8; 16])) -> Option<Doubt> {
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
    };
    change(&mut note, &mut now, &mut noted, &mut boot);
    let here = Here { boot: &boot, place: None };
    judge(Some(&note), Some(now), Some(noted), &here).gravest()
}

#[test]
fn a_time_of_change_that_was_lost_with_the_machine_makes_no_copy() {
    let (copied, crashed) = (Some(Doubt::Copied), Some(Doubt::Crashed));
    let earlier = |now: &mut Found| (now.changed, now.modified) = ((995, 0), (995, 0));
    for open in [false, true] {
        let lost = judged(|note, now, _, boot| {
            (note.open, *boot) = (open, [2; 16]);
            earlier(now);
        });
        assert_eq!(lost, crashed, "open: {open}");
        let other_file = judged(|note, now, _, boot| {
            (note.open, *boot, now.inode) = (open, [2; 16], 2);
            earlier(now);
        });
        assert_eq!(other_file, copied, "open: {open}");
    }
    assert_eq!(judged(|_, now, _, _| earlier(now)), copied, "on a machine that runs on");
    let later = judged(|_, now, _, boot| {
        *boot = [2; 16];
        (now.changed, now.modified) = ((1001, 0), (1001, 0));
    });
    assert_eq!(later, copied, "written over one that was closed");
}

#[test]
fn an_old_note_that_was_put_back_with_its_database_is_not_ours_for_long() {
    for (age, doubt) in [(2, Doubt::Crashed), (60, Doubt::Copied), (600, Doubt::Copied)] {
        let put_back = judged(|note, now, noted, boot| {
            (note.open, *boot) = (true, [2; 16]);
            for file in [now, noted] {
                (file.changed, file.modified) = ((1000 + age, 0), (1000 + age, 0));
            }
        });
        assert_eq!(put_back, Some(doubt), "after {age} s");
    }
}

#[test]
fn what_was_noted_is_durable_before_the_database_changes_and_at_the_end() {
    let place = Place::new();
    place.new_witness();
    let unsynced = |witness: &Witness| lock(&witness.state).unsynced;
    let note = || Note::decode(&fs::read(place.dir.path().join("witness")).unwrap()).unwrap();
    let witness = Witness::open(place.dir.path(), &place.database(), false);
    assert!(note().open && !unsynced(&witness), "that it is open");
    place.touch();
    witness.opened(place.turn());
    place.touch();
    witness.close();
    assert!(!unsynced(&witness), "without a transaction");
    assert_eq!(note().found, Found::look(&place.database()).unwrap());
}

#[test]
fn an_opening_that_is_killed_after_the_machine_stopped_forgets_nothing_of_that() {
    let place = Place::new();
    place.new_witness();
    place.use_it(false);
    let note = fs::read(place.dir.path().join("witness")).unwrap();
    (0..3).for_each(|_| place.use_it(false));
    fs::write(place.dir.path().join("witness"), &note).unwrap();
    place.edit(|note| note.boot = [1; 16]);
    drop(Witness::open(place.dir.path(), &place.database(), false));
    place.touch();
    assert_eq!(place.doubt(), Some(Doubt::Crashed));
}

#[test]
fn a_killed_process_and_other_rights_are_no_doubt() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.new_witness();
    place.use_it(false);
    // Killed between a change and its note.
    place.change();
    assert_eq!(place.doubt(), None);
    place.use_it(true);
    place.change_rights(0o640);
    assert_eq!(place.doubt(), None);
    // Of both files: nobody can tell that from a copy.
    place.use_it(true);
    place.change_rights(0o600);
    let note = place.dir.path().join("witness");
    fs::set_permissions(note, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(place.doubt(), Some(Doubt::Copied));
}

#[test]
fn a_note_of_the_first_version_is_read() {
    let place = Place::new();
    place.new_witness();
    place.use_it(true);
    let path = place.dir.path().join("witness");
    let mut note = fs::read(&path).unwrap();
    assert_eq!(note.len(), 156);
    note[0] = 1;
    note.truncate(75);
    note.extend([0; 2]);
    fs::write(&path, &note).unwrap();
    assert_eq!(place.doubt(), None);
    fs::write(&path, &note).unwrap();
    place.change();
    assert_eq!(place.doubt(), Some(Doubt::Copied));
}

#[test]
fn a_doubt_stays_until_it_is_settled() {
    let place = Place::new();
    place.new_witness();
    place.use_it(true);
    let copy = fs::read(place.database()).unwrap();
    fs::remove_file(place.database()).unwrap();
    fs::write(place.dir.path().join("other"), b"takes the inode").unwrap();
    fs::write(place.database(), copy).unwrap();
    place.use_it(true);
    place.use_it(true);
    let doubts = place.open().doubts();
    assert_eq!(doubts.gravest(), Some(Doubt::Copied));
    place.use_it(true);
    assert_eq!(place.open().doubts(), doubts);
    // A machine that stops adds to it, and makes no new copy.
    place.use_it(false);
    place.edit(|note| note.boot = [1; 16]);
    let more = place.open().doubts();
    assert_eq!(more.copied, doubts.copied);
    assert!(more.crashed.is_some());
    assert_eq!(more.but(&[doubts.copied.unwrap()]).gravest(), Some(Doubt::Crashed));
    place.open().settle();
    place.use_it(true);
    assert_eq!(place.doubt(), None);
}
