//! `hdrive umount`: takes a mount away, needs neither the store nor its owner.

use super::args::Umount;
use super::exit::{Exit, Failure, Result};
use crate::fs::{How, MountError, unmount};

pub fn run(args: &Umount) -> Result {
    let how = if args.lazy { How::Lazy } else { How::Clean };
    unmount(&args.mountpoint, how).map_err(|error| match error {
        MountError::Missing(path) => {
            Failure::new(Exit::NotFound, format_args!("{} does not exist", path.display()))
        }
        MountError::NotMounted(_) => Failure::new(Exit::NotFound, error),
        error => Failure::new(Exit::Mount, error),
    })
}
