//! How a request of ours ends, and what follows from it (see `ending.rs`).
//!
//! | outcome | the peer's pace | the peer | what was asked for |
//! |---|---|---|---|
//! | [`Outcome::Answered`] | an answer | | is here |
//! | [`Outcome::Refused`] | an answer | is not asked for it again | is asked of others |
//! | [`Outcome::Useless`] | an answer | | is asked again, of anybody |
//! | [`Outcome::Overdue`] | waits on | is not asked for the upgrade again | is asked of others |
//! | [`Outcome::Hopeless`] | no answer | is told, and may be tried once more | is asked again, of anybody |
//! | [`Outcome::Recalled`] | no answer | is told | nobody wants it from this peer |
//! | [`Outcome::Lost`] | gone with it | is gone | is asked of others |

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It brought what it was to bring.
    Answered,
    /// The peer did not give what it had offered.
    Refused,
    /// There is an answer, and it is of no use to us: nobody is to blame.
    Useless,
    /// Nobody waits for the answer any more. It is still welcome: the request stays in the table.
    Overdue,
    /// It was overdue and nothing came for very long.
    Hopeless,
    /// We want no answer any more.
    Recalled,
    /// The channel is gone.
    Lost,
}
