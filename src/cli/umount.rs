//! `hdrive umount`: takes a mount away, needs neither the store nor its owner.

use super::args::Umount;
use super::exit::{Exit, Fail, Result};
use crate::fs::{How, unmount};

pub fn run(args: &Umount) -> Result {
    let how = if args.lazy { How::Lazy } else { How::Clean };
    unmount(&args.mountpoint, how).or_exit(Exit::Mount)
}
