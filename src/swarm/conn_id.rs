//! What a connection is called: here, in what the owner is told, and in what he asks for.

/// Names a connection for the life of the process.
///
/// The low half is the number of its UDX stream, so that no second table is needed; the high half
/// counts up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl ConnId {
    pub(super) fn stream(self) -> u32 {
        self.0 as u32
    }
}
