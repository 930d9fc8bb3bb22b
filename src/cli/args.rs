//! What can be typed: subcommands and flags. Parsing only; nothing here touches the system.

mod amounts;
mod global;
mod typed;

pub use amounts::Kept;
pub use global::Global;

use super::doctor::Doctor;
use super::moment::Moment;
use crate::swarm::RelayLimits;
use amounts::{kept, rate, rest, size, some_duration, some_size};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  hdrive share ~/photos                 share a folder; prints its key
  hdrive mount KEY /mnt/photos          the same folder on another machine
  hdrive get KEY/2024/june.jpg .        one file, without a mount
  hdrive demo                           the whole story on this machine, no network

The manual page hdrive(1) has the rest.";

/// Mounts a peer-to-peer drive as a folder. A key is all it takes: no server, no account.
#[derive(Debug, Parser)]
#[command(name = "hdrive", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Subcommand, Serialize, Deserialize)]
pub enum Command {
    /// Mounts a drive as a folder
    Mount(Mount),
    /// Shares a folder as a drive and follows its changes
    Share(Share),
    /// Unmounts a drive
    Umount(Umount),
    /// Makes an empty drive
    Create(Create),
    /// Lists a folder of a drive
    Ls(Ls),
    /// Prints a file of a drive
    Cat(Cat),
    /// Downloads a file or a folder; a second call resumes
    Get(Get),
    /// Puts a file or a folder into a drive of this store
    Put(Put),
    /// Removes a file or a folder from a drive of this store
    Rm(Rm),
    /// Shows a drive: key, version, lengths, peers, bytes here
    Info(Info),
    /// Holds whole drives and serves them: an always-on peer
    Seed(Seed),
    /// Lists the versions of a drive: when each came and what it changed
    Log(Log),
    /// Frees the space of contents that no kept version of a drive names
    Gc(Gc),
    /// Removes a drive and its bytes from this store
    Forget(Forget),
    /// Shows what runs on this store: mounts, drives, peers, DHT
    Status(Status),
    /// Runs a DHT node for a private network
    Dht(Dht),
    /// Passes on packets of peers that have no direct way to each other
    Relay(Relay),
    /// Shows the whole story on this machine, with no network
    Demo(Demo),
    /// Tries what a mount needs here, and says what to change
    Doctor(Doctor),
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Mount {
    /// Key (z-base-32, hex, with hints), hyper:// or pear:// link, or local name
    pub key: String,
    /// Empty folder to mount on
    pub mountpoint: PathBuf,
    /// Mount this version of the drive, or the one of this time; it never changes
    #[arg(long, value_name = "VERSION|TIME")]
    pub at: Option<Moment>,
    /// Return as soon as it is mounted
    #[arg(long)]
    pub daemon: bool,
    /// Options as mount(8) passes them
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Let other users of this machine in
    #[arg(long)]
    pub allow_other: bool,
    /// Longest wait of a read for a peer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = some_duration)]
    pub read_timeout: Duration,
    /// Memory for blocks in front of the disk
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = some_size)]
    pub cache_memory: u64,
    /// With -o rw, publish an open file when it was left alone for this
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = rest)]
    pub publish_after: Duration,
    #[command(flatten)]
    pub secret: Secret,
}

/// The key that drives opened with it are encrypted with.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Secret {
    /// Encryption key of the drive, 64 hex or 52 z-base-32 characters
    #[arg(long, value_name = "KEY", env = "HDRIVE_ENCRYPTION_KEY", hide_env_values = true)]
    pub encryption_key: Option<String>,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Share {
    /// Folder to share
    pub folder: PathBuf,
    /// Local name of the drive [default: the folder's path]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Leave out what matches, in the words of .gitignore; may be given again
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Share what is mounted inside the folder too
    #[arg(long)]
    pub cross_mounts: bool,
    /// Print the key with hints where this peer can be found
    #[arg(long)]
    pub hint: bool,
    /// Take the folder as it is, though another was shared before or nothing is in it
    #[arg(long)]
    pub replace: bool,
    /// Tell what would be shared, and share nothing
    #[arg(long, conflicts_with = "daemon")]
    pub dry_run: bool,
    /// Return as soon as it can be found, or after 10 s
    #[arg(long)]
    pub daemon: bool,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Umount {
    pub mountpoint: PathBuf,
    /// Unmount now, even if files are open; it ends when the last is closed
    #[arg(long)]
    pub lazy: bool,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Create {
    /// Local name of the new drive
    pub name: String,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Ls {
    /// KEY or KEY/path
    pub target: String,
    /// Sizes, modes and times too
    #[arg(short = 'l', long)]
    pub long: bool,
    /// Everything below as well
    #[arg(short = 'r', long)]
    pub recursive: bool,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Cat {
    /// KEY/path
    pub target: String,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Get {
    /// KEY or KEY/path
    pub target: String,
    /// Where to put it; into it, if it is a folder; - for standard output [default: its own name, here]
    pub destination: Option<PathBuf>,
    /// Replace files that differ
    #[arg(long)]
    pub force: bool,
    /// Whether the destination was a folder before the first try, once somebody has looked: another try must not take for
    /// a folder of the user what the first one made.
    #[arg(skip)]
    pub into_folder: Option<bool>,
    /// What is taken away from the rights of what is made.
    #[arg(skip)]
    pub umask: u32,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Put {
    /// KEY or KEY/path; a drive made by create or share
    pub target: String,
    /// File or folder to put; - for standard input
    pub source: PathBuf,
    /// Of a folder, leave out what matches, in the words of .gitignore; may be given again
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Of a folder, put what is mounted inside it too
    #[arg(long)]
    pub cross_mounts: bool,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Rm {
    /// KEY/path
    pub target: String,
    /// Remove a folder and everything below
    #[arg(short = 'r', long)]
    pub recursive: bool,
    /// With -r, remove everything in the drive if no path is given
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Info {
    /// Key, link or local name
    pub key: String,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Seed {
    /// Keys, links or local names
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<String>,
    /// Hold all past versions too, not only what the current one names
    #[arg(long)]
    pub history: bool,
    /// Return as soon as they are followed
    #[arg(long)]
    pub daemon: bool,
    /// Pass on no packets of peers that have no direct way to each other
    #[arg(long)]
    pub no_relay: bool,
    #[command(flatten)]
    pub relaying: RelayRates,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Log {
    /// Key, link or local name
    pub key: String,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Gc {
    /// Keys, links or local names [default: every drive of the store]
    #[arg(value_name = "DRIVE")]
    pub drives: Vec<String>,
    /// What stays readable: so many of the newest versions (3), or those of a time (7d)
    #[arg(long, value_name = "N|TIME", default_value = "1", value_parser = kept)]
    pub keep: Kept,
    /// Only tell what would be freed
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub secret: Secret,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Forget {
    /// Key, link or local name
    pub drive: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Status {}

fn bind(text: &str) -> Result<SocketAddrV4, String> {
    let wrong = |_| "an IPv4 address with a port is meant, ADDR:PORT".to_string();
    text.parse().map_err(wrong)
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Dht {
    /// Address and UDP port other nodes reach this one at
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:49737", value_parser = bind)]
    pub bind: SocketAddrV4,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Relay {
    #[command(flatten)]
    pub limits: RelayRates,
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct RelayRates {
    /// Bytes a second passed on for one peer
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = rate)]
    pub relay_rate: u64,
    /// Bytes a second passed on for all of them
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = rate)]
    pub relay_total: u64,
}

impl RelayRates {
    pub fn limits(&self) -> RelayLimits {
        RelayLimits { customer: self.relay_rate, total: self.relay_total }
    }
}

#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Demo {
    /// Bytes of the largest file it shares
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub size: u64,
}

impl Command {
    /// Whether something that was typed is a path from the current folder on.
    pub fn starts_here(&self) -> bool {
        match self {
            Self::Mount(args) => args.mountpoint.is_relative(),
            Self::Share(args) => args.folder.is_relative(),
            Self::Put(args) => args.source.is_relative() && !args.reads_stdin(),
            Self::Get(args) => {
                args.to_stdout().is_none()
                    && args.destination.as_ref().is_none_or(|to| to.is_relative())
            }
            _ => false,
        }
    }
}

impl Get {
    /// What prints it, if the destination is standard output.
    pub fn to_stdout(&self) -> Option<Cat> {
        let is_stdout = self.destination.as_ref().is_some_and(|to| to.as_os_str() == "-");
        is_stdout.then(|| Cat { target: self.target.clone(), secret: self.secret.clone() })
    }

    /// Notes what counts where it was typed.
    pub fn note(&mut self, umask: u32) {
        self.umask = umask;
    }
}

impl Seed {
    /// Takes each drive that was typed twice once.
    pub(in crate::cli) fn name_once(&mut self) {
        let mut seen = HashSet::new();
        self.keys.retain(|key| seen.insert(key.clone()));
    }
}

impl Put {
    /// Whether the source is standard input.
    pub fn reads_stdin(&self) -> bool {
        ["-", "/dev/stdin"].iter().any(|name| self.source.as_os_str() == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
