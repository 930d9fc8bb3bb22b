//! `--bootstrap`: the nodes to enter the DHT by, as they are typed.

use super::args::Global;
use super::exit::{Exit, Fail, Result};
use crate::swarm::driver::BootstrapNode;

/// The nodes that were named; none if there are none, or only empty names. They need not have an address yet.
pub fn named(global: &Global) -> Result<Vec<BootstrapNode>> {
    let names = global.bootstrap.iter().flatten().map(|name| name.trim());
    let nodes = names.filter(|name| !name.is_empty()).map(str::parse::<BootstrapNode>);
    nodes.collect::<std::result::Result<_, _>>().or_exit(Exit::Usage)
}
