//! The mounted filesystem: fuse → filesystem → volume → drive.
//!
//! | file | holds |
//! |---|---|
//! | `fuse` | the kernel's requests, translated; decides only *where* an answer is made: here or in a task |
//! | `filesystem` | the operations, free of kernel types |
//! | `inode`, `dir`, `handle`, `body`, `prefetch`, `link`, `attr`, `xattr`, `errno` | what the operations are made of |
//! | `notify` | tells the kernel what it must no longer believe |
//! | `panics` | end with the request that met one |
//! | `pending` | ends the wait of a caller that was killed |
//! | `mount`, `attach`, `own`, `pin`, `options`, `mount_point`, `claim`, `place`, `unmount` | a mount's life |
//! | `volume` | what all of it needs from a drive |
//! | `drive`, `draft` | that, for a drive as it is and for one of ours that is worked on |
//!
//! Who waits for whom: FUSE threads answer from memory and local disk only and never wait for a peer; what
//! needs one becomes a task on the runtime, watched by [`pending`]. The thread of [`notify`] is the only one
//! that writes invalidations, because the kernel may hold the very locks a handler's caller waits for.
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines of requests are the patience of the kernel's callers, in real time"
)]

mod attach;
mod attr;
mod body;
mod claim;
mod clock;
mod dir;
mod draft;
mod drive;
mod errno;
mod filesystem;
mod flush;
mod fuse;
mod handle;
mod inode;
mod link;
mod mount;
mod mount_point;
mod notify;
mod options;
mod own;
mod panics;
mod pending;
mod pin;
mod place;
mod prefetch;
mod reply;
mod unmount;
pub mod volume;
mod xattr;

pub use draft::DraftVolume;
pub use drive::DriveVolume;
pub use errno::MountError;
pub use link::shown_target;
pub use mount::{End, Mounted, mount};
pub use mount_point::check as check_mount_point;
pub use options::{Access, MountOptions, split_options};
pub use unmount::{How, unmount};

use crate::lock::lock;
