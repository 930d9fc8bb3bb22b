//! What mount(8) types, from a terminal or from fstab, becomes what a person would: `hdrive mount --daemon`.
//!
//! | who | types |
//! |---|---|
//! | mount(8), for the type `hdrive` | `mount.hdrive SPEC POINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]` |
//! | mount.fuse3(8), for the type `fuse.hdrive` | `hdrive SPEC POINT -o OPTIONS` |
//!
//! Flags of hdrive's own that a mount may need are options there: `store=DIR`, for one, as nobody has a home at a start.

use super::args::Cli;
use crate::fs::{MountOptions, split_options};
use clap::CommandFactory;
use std::ffi::OsString;
use std::path::Path;

/// Names under which mount(8) looks for a program.
const NAMES: [&str; 2] = ["mount.hdrive", "mount.fuse.hdrive"];
/// Options that are flags of [`super::args::Mount`] or [`super::args::Global`].
const FLAGS: [&str; 6] = ["store", "at", "read-timeout", "cache-memory", "bootstrap", "local"];

/// What stands for the words that were typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A command line of ours.
    Words(Vec<OsString>),
    /// Only the attempt was asked for (`mount -f`).
    Nothing,
}

/// Reads the command line of this process.
pub fn typed(words: Vec<OsString>) -> Typed {
    let name = words.first().map(Path::new).and_then(Path::file_name);
    let is_helper = name.is_some_and(|name| NAMES.iter().any(|known| name == *known));
    if is_helper || is_from_fuse(&words) { Asked::read(words).typed() } else { Typed::Words(words) }
}

/// No person types it so: the command is missing.
fn is_from_fuse(words: &[OsString]) -> bool {
    let [_, spec, point, flag, _] = words else { return false };
    let mut command = Cli::command();
    command.build();
    flag == "-o"
        && Path::new(point).is_absolute()
        && !spec.as_encoded_bytes().starts_with(b"-")
        && command.find_subcommand(spec).is_none()
}

/// What mount(8) asks for.
#[derive(Default)]
struct Asked {
    /// The drive and the mount point.
    places: Vec<OsString>,
    options: Vec<String>,
    /// Options that are unknown are no error.
    sloppy: bool,
    fake: bool,
}

impl Asked {
    fn read(words: Vec<OsString>) -> Self {
        let mut asked = Self::default();
        let mut words = words.into_iter().skip(1);
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            let Some(flags) = text.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
                asked.places.push(word);
                continue;
            };
            for (at, flag) in flags.char_indices() {
                match flag {
                    's' => asked.sloppy = true,
                    'f' => asked.fake = true,
                    // These have a value: the rest of the word, or the next one.
                    'o' | 't' | 'N' => {
                        let rest = flags[at + 1..].to_string();
                        let value = match rest.is_empty() {
                            true => words.next().unwrap_or_default().to_string_lossy().into_owned(),
                            false => rest,
                        };
                        if flag == 'o' {
                            asked.options.extend(split_options(&value).map(String::from));
                        }
                        break;
                    }
                    // It tells nothing that concerns a mount.
                    _ => {}
                }
            }
        }
        asked
    }

    fn typed(self) -> Typed {
        if self.fake {
            return Typed::Nothing;
        }
        let mut words: Vec<OsString> = ["hdrive", "mount", "--daemon"].map(OsString::from).into();
        let mut rest = Vec::new();
        // mount(8) knows by it what is mounted already.
        if let Some(drive) = self.places.first().and_then(|drive| drive.to_str())
            && !drive.contains(',')
        {
            rest.push(format!("fsname={drive}"));
        }
        for option in self.options {
            match flag(&option) {
                Some(flag) => words.push(flag.into()),
                None if self.sloppy && !is_known(&option) => {}
                None => rest.push(option),
            }
        }
        words.push("-o".into());
        words.push(rest.join(",").into());
        words.push("--".into());
        words.extend(self.places);
        Typed::Words(words)
    }
}

/// The flag of ours that an option names.
fn flag(option: &str) -> Option<String> {
    let (name, value) = option.split_once('=')?;
    let name = name.replace('_', "-");
    FLAGS.contains(&name.as_str()).then(|| format!("--{name}={value}"))
}

fn is_known(option: &str) -> bool {
    !matches!(MountOptions::default().apply(option), Ok(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_mount_types_is_what_a_person_would() {
        for (typed_by_mount, by_a_person) in [
            (
                "/sbin/mount.hdrive key /mnt/a -o rw,noexec,_netdev",
                "hdrive mount --daemon -o fsname=key,rw,noexec,_netdev -- key /mnt/a",
            ),
            (
                "mount.hdrive key /mnt -n -v -o ro,store=/var/lib/hdrive,read_timeout=5s -t hdrive",
                "hdrive mount --daemon --store=/var/lib/hdrive --read-timeout=5s -o fsname=key,ro -- key /mnt",
            ),
            (
                "mount.fuse.hdrive key /mnt -svo rw,fsname=x,frob=1,x-systemd.automount",
                "hdrive mount --daemon -o fsname=key,rw,fsname=x,x-systemd.automount -- key /mnt",
            ),
            (
                "hdrive key /mnt -o rw,dev,suid,at=7",
                "hdrive mount --daemon --at=7 -o fsname=key,rw,dev,suid -- key /mnt",
            ),
        ] {
            let Typed::Words(found) = typed(words(typed_by_mount)) else { panic!() };
            assert_eq!(found, words(by_a_person));
            assert!(Cli::typed(found).is_ok());
        }
        assert_eq!(typed(words("mount.hdrive key /mnt -f -o rw")), Typed::Nothing);
    }

    #[test]
    fn what_a_person_types_stays() {
        for text in [
            "hdrive",
            "hdrive mount key /mnt",
            "hdrive mount /mnt -o ro",
            "hdrive help /mnt -o ro",
            "hdrive key /mnt",
            "hdrive key mnt -o ro",
            "hdrive --quiet /mnt -o ro",
        ] {
            assert_eq!(typed(words(text)), Typed::Words(words(text)), "{text}");
        }
    }
}
