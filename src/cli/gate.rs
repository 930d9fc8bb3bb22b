//! The moment at which a change is made, or called off: never both.
//!
//! A command that was told to stop must know whether its change was made by then. Whoever makes it passes the
//! gate right before; whoever calls it off shuts the gate. The first of them wins.

use std::sync::atomic::{AtomicU8, Ordering};

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const SHUT: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Gate(AtomicU8);

impl Gate {
    /// From here on the change is made. False if it was called off.
    pub fn pass(&self) -> bool {
        self.decide(PASSED)
    }

    /// From here on the change will not be made. False if it is being made, or was.
    pub fn shut(&self) -> bool {
        self.decide(SHUT)
    }

    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::SeqCst) == SHUT
    }

    fn decide(&self, to: u8) -> bool {
        match self.0.compare_exchange(OPEN, to, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(decided) => decided == to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_first_decides() {
        let gate = Gate::default();
        assert!(!gate.is_shut() && gate.pass() && gate.pass() && !gate.shut() && !gate.is_shut());
        let gate = Gate::default();
        assert!(gate.shut() && gate.shut() && !gate.pass() && gate.is_shut());
    }
}
