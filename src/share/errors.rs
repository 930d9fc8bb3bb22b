//! What an error says of a file or folder of the person: that it is gone, that it is so from now on, or nothing but that the
//! moment was a bad one.
//!
//! A change that is missed for a moment's error would never be seen: no further event tells of it. So only what another
//! try cannot change is final; everything else is tried again, whatever the filesystem may call it.

use rustix::io::Errno;
use std::io;

/// Nothing is there.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A link is on the way to it.
pub fn is_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// The next time it may be there, or be read: a server or a disk that does not answer, somebody who has a lease on it, a
/// limit that is met, something that became another at this moment.
pub fn is_of_the_moment(error: &io::Error) -> bool {
    !is_gone(error) && !is_final(error)
}

/// It is so until somebody changes the file, the folder, or what may be done with them; an event tells that.
fn is_final(error: &io::Error) -> bool {
    let raw = Errno::from_io_error(error);
    let refused = matches!(raw, Some(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::XDEV));
    let no_such_thing = matches!(
        raw,
        Some(
            Errno::NAMETOOLONG
                | Errno::INVAL
                | Errno::ISDIR
                | Errno::NXIO
                | Errno::NODEV
                | Errno::OVERFLOW
                | Errno::ILSEQ
                | Errno::NOSYS
                | Errno::OPNOTSUPP
        )
    );
    refused || no_such_thing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_try_cannot_change_is_final_and_nothing_else() {
        let says = |errno: Errno| {
            let error = io::Error::from(errno);
            (is_gone(&error), is_of_the_moment(&error))
        };
        for errno in [Errno::NOENT, Errno::NOTDIR] {
            assert_eq!(says(errno), (true, false), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::PERM, Errno::LOOP, Errno::NAMETOOLONG, Errno::NXIO] {
            assert_eq!(says(errno), (false, false), "{errno}");
        }
        let moment = [
            Errno::IO,
            Errno::STALE,
            Errno::AGAIN,
            Errno::INTR,
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::TIMEDOUT,
            Errno::HOSTDOWN,
            Errno::NOTCONN,
            Errno::BUSY,
            Errno::NOKEY,
        ];
        for errno in moment {
            assert_eq!(says(errno), (false, true), "{errno}");
        }
        assert!(is_of_the_moment(&io::Error::other("it is no file any more")));
    }
}
