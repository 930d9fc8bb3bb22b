//! Stores that are closed, killed, copied, restored, and looked at on another file system.

use super::*;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let mut dir = tempfile::tempdir().unwrap();
        if place::Place::of(dir.path()).is_some_and(|at| at.kind & place::BORROWED_ID != 0) {
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
        witness.opening().unwrap();
        witness.opened(self.turn(), false).unwrap();
        witness
    }

    /// The turn of a database is at its end here.
    fn turn(&self) -> Option<LastTurn> {
        fs::read(self.database()).unwrap().last_chunk::<40>().and_then(|end| LastTurn::decode(end))
    }

    fn new_witness(&self) {
        let witness = Witness::open(self.dir.path(), &self.database(), true);
        witness.opening().unwrap();
        witness.opened(None, false).unwrap();
    }

    /// Opened, changed, and left open or closed.
    fn use_it(&self, close: bool) {
        let witness = self.open();
        witness.ready().unwrap();
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
        std::thread::sleep(4 * judge::NOTE_TICKS);
        fs::set_permissions(self.database(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn doubt(&self) -> Option<Doubt> {
        self.open().doubts().gravest()
    }

    /// Brings the note back as it is now, in its file, as the device may after the machine stopped.
    fn keep_note(&self) -> impl Fn() {
        let dir = self.dir.path();
        let (path, kept) = (dir.join("witness"), dir.join("kept"));
        let _ = fs::remove_file(&kept);
        fs::hard_link(&path, &kept).unwrap();
        let note = fs::read(&path).unwrap();
        move || {
            fs::write(&kept, &note).unwrap();
            fs::remove_file(&path).unwrap();
            fs::hard_link(&kept, &path).unwrap();
        }
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
            witness.ready().unwrap();
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
            let bring_back = place.keep_note();
            fs::write(place.database(), &old).unwrap();
            let doubt = place.doubt();
            assert_eq!(doubt, Some(Doubt::Copied), "{missing} missing, noted: {noted}");
            // With what was there it is the one that was left.
            fs::write(place.database(), &whole).unwrap();
            bring_back();
            assert_eq!(place.doubt(), boot.then_some(Doubt::Crashed));
        }
    }
}

#[test]
fn notes_that_were_lost_with_the_machine_make_no_copy() {
    let place = Place::new();
    place.new_witness();
    place.use_it(false);
    let bring_back = place.keep_note();
    (0..3).for_each(|_| place.use_it(false));
    bring_back();
    place.edit(|note| note.boot = [1; 16]);
    assert_eq!(place.doubt(), Some(Doubt::Crashed));
    // On a machine that runs on none are lost.
    let place = Place::new();
    place.new_witness();
    place.use_it(false);
    let bring_back = place.keep_note();
    (0..3).for_each(|_| place.use_it(false));
    bring_back();
    assert_eq!(place.doubt(), Some(Doubt::Copied));
}

#[test]
fn an_opening_that_is_killed_before_its_first_transaction_leaves_no_doubt() {
    let place = Place::new();
    place.new_witness();
    for close in [true, false] {
        place.use_it(close);
        Witness::open(place.dir.path(), &place.database(), false).opening().unwrap();
        // What opening it writes.
        place.touch();
        assert_eq!(place.doubt(), None, "closed before: {close}");
    }
}

#[test]
fn another_file_system_is_another_store() {
    let other = |at: Option<place::Place>| at.map(|at| place::Place { id: at.id ^ 1, ..at });
    for close in [true, false] {
        let place = Place::new();
        place.new_witness();
        place.use_it(close);
        // A snapshot: of the same kind, inode and times.
        place.edit(|note| note.place = other(note.place));
        assert_eq!(place.doubt(), Some(Doubt::Copied));
    }
}

#[test]
fn what_was_noted_is_durable_before_the_database_changes_and_at_the_end() {
    let place = Place::new();
    place.new_witness();
    let unsynced = |witness: &Witness| lock(&witness.file).unsynced;
    let note = || Note::decode(&fs::read(place.dir.path().join("witness")).unwrap()).unwrap();
    let witness = Witness::open(place.dir.path(), &place.database(), false);
    witness.opening().unwrap();
    assert!(note().open && !unsynced(&witness), "that it is open");
    place.touch();
    witness.opened(place.turn(), false).unwrap();
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
    let bring_back = place.keep_note();
    (0..3).for_each(|_| place.use_it(false));
    bring_back();
    place.edit(|note| note.boot = [1; 16]);
    Witness::open(place.dir.path(), &place.database(), false).opening().unwrap();
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
    // Of both files, as the beginning of many containers does it, also after a kill or a power cut.
    let note = place.dir.path().join("witness");
    for (close, boot, doubt) in
        [(true, false, None), (false, false, None), (false, true, Some(Doubt::Crashed))]
    {
        place.use_it(close);
        if boot {
            place.edit(|note| note.boot = [1; 16]);
        }
        place.change_rights(0o600);
        fs::set_permissions(&note, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(place.doubt(), doubt, "closed: {close}");
    }
}

#[test]
fn a_hot_backup_that_was_put_back_in_place_is_a_copy_however_soon() {
    for (sync, boot) in [(true, false), (false, false), (true, true), (false, true)] {
        let place = Place::new();
        place.new_witness();
        place.use_it(true);
        let witness = place.open();
        witness.ready().unwrap();
        place.change();
        witness.changed(place.turn().as_ref());
        let restore = backup(&place);
        if sync {
            // Every few seconds.
            witness.sync();
        }
        place.change();
        witness.changed(place.turn().as_ref());
        if !sync {
            witness.close();
        }
        drop(witness);
        if boot {
            place.edit(|note| note.boot = [1; 16]);
        }
        restore();
        if boot {
            place.edit(|note| note.boot = [1; 16]);
        }
        assert_eq!(place.doubt(), Some(Doubt::Copied), "synced: {sync}, boot: {boot}");
    }
}

#[test]
fn nothing_is_changed_that_cannot_be_noted() {
    let place = Place::new();
    place.new_witness();
    place.use_it(true);
    let path = place.dir.path().join("witness");
    let note = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    // Neither a file nor to be replaced by one.
    fs::create_dir(&path).unwrap();
    fs::write(path.join("in it"), b"").unwrap();
    let unknown = Witness::open(place.dir.path(), &place.database(), false);
    assert!(unknown.opened(place.turn(), true).is_ok(), "it may be read");
    assert!(unknown.ready().is_err());
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, note).unwrap();
    // What failed once may go the next time.
    assert!(unknown.ready().is_ok());
}

#[test]
fn a_note_of_the_first_version_is_read() {
    let place = Place::new();
    place.new_witness();
    place.use_it(true);
    let path = place.dir.path().join("witness");
    let mut note = fs::read(&path).unwrap();
    assert_eq!(note.len(), 196);
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
