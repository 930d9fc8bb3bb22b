//! What mount(8) types, from a terminal or from fstab, becomes what a person would: `hdrive mount --daemon`.
//!
//! | who | types |
//! |---|---|
//! | mount(8), for the type `hdrive` | `mount.hdrive SPEC POINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]` |
//! | mount.fuse3(8), for the type `fuse.hdrive` | `hdrive SPEC POINT -o OPTIONS` |
//!
//! Flags of hdrive's own that a mount may need are options there: `store=DIR`, for one, as nobody has a home at a start.
//! mount(8) adds what a person types to what stands in fstab: of an option that is there twice the last counts. Only of
//! what others are to be asked (`bootstrap=`, `relay=`, `peer=`) there may be several, since a comma parts options.

use super::args::Cli;
use super::mount::REMOUNT;
use crate::fs::{MountOptions, split_options};
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue};
use std::ffi::OsString;
use std::path::Path;

/// Names under which mount(8) looks for a program.
const NAMES: [&str; 2] = ["mount.hdrive", "mount.fuse.hdrive"];
/// Options that are flags of [`super::args::Mount`] or [`super::args::Global`].
const FLAGS: [&str; 10] = [
    "store",
    "at",
    "read-timeout",
    "cache-memory",
    "publish-after",
    "bootstrap",
    "local",
    "port",
    "relay",
    "peer",
];
/// The same without a value.
const SWITCHES: [&str; 3] = ["no-lan", "port-mapping", "no-port-mapping"];
/// Flags that may be given again.
const SEVERAL: [&str; 3] = ["bootstrap", "relay", "peer"];

/// What stands for the words that were typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A command line of ours.
    Words(Vec<OsString>),
    /// The same, made of what mount(8) typed.
    Made(Vec<OsString>),
    /// Only the attempt was asked for (`mount -f`).
    Nothing,
}

/// Reads the command line of this process.
pub fn typed(words: Vec<OsString>) -> Typed {
    let name = words.first().map(Path::new).and_then(Path::file_name);
    let is_helper = name.is_some_and(|name| NAMES.iter().any(|known| name == *known));
    if is_helper || is_from_fuse(&words) { Asked::read(words).typed() } else { Typed::Words(words) }
}

/// What is wrong with a command line that was made here, in the words that were typed.
pub fn as_option(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let flag = match error.get(kind) {
            // `--name <VALUE>`
            Some(ContextValue::String(flag)) => {
                flag.strip_prefix("--").and_then(|f| f.split(' ').next())
            }
            _ => None,
        };
        if let Some(name) = flag.filter(|name| FLAGS.contains(name)) {
            let option = format!("-o {}", name.replace('-', "_"));
            error.insert(kind, ContextValue::String(option));
        }
    }
    error
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
        let mut flags: Vec<(String, Option<String>)> = Vec::new();
        for option in self.options {
            match flag(&option) {
                Some((name, value)) => {
                    // The last counts, but a comma parts options, so that several nodes are as many options.
                    flags.retain(|(known, _)| *known != name || SEVERAL.contains(&name.as_str()));
                    flags.push((name, value));
                }
                None if self.sloppy && !is_known(&option) => {}
                None => rest.push(option),
            }
        }
        words.extend(flags.iter().map(|(name, value)| match value {
            Some(value) => format!("--{name}={value}").into(),
            None => format!("--{name}").into(),
        }));
        words.push("-o".into());
        words.push(rest.join(",").into());
        words.push("--".into());
        words.extend(self.places);
        Typed::Made(words)
    }
}

/// The flag of ours that an option names, and its value.
fn flag(option: &str) -> Option<(String, Option<String>)> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (option, None),
    };
    let name = name.replace('_', "-");
    let known = if value.is_some() { &FLAGS[..] } else { &SWITCHES[..] };
    known.contains(&name.as_str()).then_some((name, value))
}

fn is_known(option: &str) -> bool {
    // Without a word it would become a mount of its own.
    option == REMOUNT || !matches!(MountOptions::default().apply(option), Ok(false))
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
            (
                "mount.hdrive key /mnt -o at=7,read_timeout=5s,read-timeout=9s,store=/a,at=8,store=/b",
                "hdrive mount --daemon --read-timeout=9s --at=8 --store=/b -o fsname=key -- key /mnt",
            ),
            (
                "mount.hdrive key /mnt -o bootstrap=10.0.0.1:1,at=7,bootstrap=10.0.0.2:1",
                "hdrive mount --daemon --bootstrap=10.0.0.1:1 --at=7 --bootstrap=10.0.0.2:1 -o fsname=key -- key /mnt",
            ),
            (
                "mount.hdrive key /mnt -o peer=a:1,no_lan,peer=[::1]:2,no-lan",
                "hdrive mount --daemon --peer=a:1 --peer=[::1]:2 --no-lan -o fsname=key -- key /mnt",
            ),
            (
                "mount.hdrive key /mnt -o no_port_mapping,port_mapping",
                "hdrive mount --daemon --no-port-mapping --port-mapping -o fsname=key -- key /mnt",
            ),
            (
                "mount.hdrive key /mnt -s -o remount,frob",
                "hdrive mount --daemon -o fsname=key,remount -- key /mnt",
            ),
        ] {
            let Typed::Made(found) = typed(words(typed_by_mount)) else { panic!() };
            assert_eq!(found, words(by_a_person));
            assert!(Cli::typed(found).is_ok());
        }
        assert_eq!(typed(words("mount.hdrive key /mnt -f -o rw")), Typed::Nothing);
    }

    #[test]
    fn every_flag_that_a_mount_may_need_is_an_option() {
        // In a file that everybody may read a key is out of place; the rest concerns a person at a terminal, or has
        // another name among options.
        let others = [
            "json",
            "quiet",
            "verbose",
            "trust-store",
            "daemon",
            "encryption-key",
            "allow-other",
            "o",
            "help",
        ];
        let command = Cli::command();
        let mount = command.find_subcommand("mount").unwrap();
        for flag in command.get_arguments().chain(mount.get_arguments()) {
            let Some(name) = flag.get_long() else { continue };
            let known = FLAGS.contains(&name) || SWITCHES.contains(&name);
            assert!(known != others.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_of_the_option() {
        for (option, told) in [
            ("read_timeout=soon", "'soon' for '-o read_timeout'"),
            ("read-timeout=", "'-o read_timeout'"),
            ("local=here", "'here' for '-o local'"),
            ("at=x", "'x' for '-o at'"),
            ("peer=x", "'x' for '-o peer'"),
            ("relay=x", "'x' for '-o relay'"),
            ("local=127.0.0.1:1,port=1", "'-o local' cannot be used with '-o port'"),
        ] {
            let typed = typed(words(&format!("mount.hdrive key /mnt -o {option}")));
            let Typed::Made(made) = typed else { panic!() };
            let said = as_option(Cli::typed(made).unwrap_err()).render().to_string();
            assert!(said.contains(told) && !said.contains("--read-timeout"), "{option}: {said}");
        }
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
