//! Who may punch at a time, of those for whom it takes many datagrams or sockets.

use super::messages::Firewall;

/// At a time, of all that we do: those for whom ports are tried, 200 datagrams a second each for some seconds, and those for
/// whom many sockets are open. Others wait for their turn, where the reference turns them away.
const MAX_TRYING: usize = 8;
const MAX_FROM_MANY: usize = 2;

/// How many there are.
#[derive(Debug, Default)]
pub struct Turns {
    pub trying: usize,
    pub from_many: usize,
}

impl Turns {
    /// Whether one more has to wait.
    pub fn is_full(&self, ours: Firewall, theirs: Firewall) -> bool {
        theirs == Firewall::Random && self.trying >= MAX_TRYING
            || ours == Firewall::Random && self.from_many >= MAX_FROM_MANY
    }
}
