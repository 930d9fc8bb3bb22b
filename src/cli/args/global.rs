//! Flags that every command takes.

use crate::key::PublicKey;
use crate::swarm::driver::PeerAddress;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::net::SocketAddrV4;
use std::path::PathBuf;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Directory that holds the drives [default: $XDG_DATA_HOME/hdrive or ~/.local/share/hdrive]
    #[arg(
        long,
        global = true,
        env = "HDRIVE_STORE",
        value_name = "DIR",
        hide_env_values = true,
        // Empty as well: `--store "$DIR"` in a script.
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub store: Option<PathBuf>,

    /// DHT nodes to start from, host:port, separated by commas [default: the public ones]
    #[arg(
        long,
        global = true,
        env = "HDRIVE_BOOTSTRAP",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub bootstrap: Option<Vec<String>>,

    /// Local address and UDP port of this peer [default: 0.0.0.0, any free port]
    #[arg(
        long,
        global = true,
        env = "HDRIVE_LOCAL",
        value_name = "ADDR:PORT",
        hide_env_values = true
    )]
    pub local: Option<SocketAddrV4>,

    /// Relay to go through where there is no direct way; may be given again
    #[arg(
        long,
        global = true,
        env = "HDRIVE_RELAY",
        value_name = "KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub relay: Vec<PublicKey>,

    /// Does not look for peers on the local networks, nor answer them
    #[arg(
        long,
        global = true,
        env = "HDRIVE_NO_LAN",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub no_lan: bool,

    /// Asks the router for a UDP port that leads here (UPnP, PCP, NAT-PMP), as seed and relay do
    #[arg(long, global = true, overrides_with = "no_port_mapping")]
    pub port_mapping: bool,

    /// Asks no router for anything
    #[arg(
        long,
        global = true,
        overrides_with = "port_mapping",
        env = "HDRIVE_NO_PORT_MAPPING",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub no_port_mapping: bool,

    /// UDP port of this peer, one that a router forwards [default: any free one]
    #[arg(
        long,
        global = true,
        env = "HDRIVE_PORT",
        value_name = "PORT",
        hide_env_values = true,
        conflicts_with = "local",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub port: Option<u16>,

    /// Where somebody may be who has the drive: asked there as well, without the DHT; may be given again
    #[arg(
        long = "peer",
        global = true,
        env = "HDRIVE_PEER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub peers: Vec<PeerAddress>,

    /// Adds to drives although the store looks like an older copy of itself
    #[arg(long, global = true)]
    pub trust_store: bool,

    /// Answers and results as JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,

    /// Tells more on stderr; twice for every packet
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Tells only errors and warnings on stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl Global {
    /// Whether a port of the router is wanted, if that was said. What is typed counts before what a variable says.
    pub fn port_mapping(&self) -> Option<bool> {
        match (self.port_mapping, self.no_port_mapping) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}
