//! The mounted filesystem: fuse → filesystem → volume → drive.
pub mod volume;
