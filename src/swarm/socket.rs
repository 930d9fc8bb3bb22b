//! A UDP socket as the machines know it: the driver has it, they have its number.

/// One UDP socket of the driver, by number. A number is never given twice. The driver binds a socket when something is
/// first sent from it, and closes it when the machine says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

impl SocketId {
    /// The socket that announces, answers and carries streams.
    pub const MAIN: Self = Self(0);
}
