//! A UDP socket as the machines know it: the driver has it, they have its number.

/// One UDP socket of the driver, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u8);

impl SocketId {
    /// The socket that announces, answers and carries streams.
    pub const MAIN: Self = Self(0);
}
