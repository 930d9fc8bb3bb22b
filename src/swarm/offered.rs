//! Whether the owner has a use for a connection: it offers to end those for which it has none.

use std::time::{Duration, Instant};

/// The owner offers a connection without a use again and again, every 15 s. After a longer pause it had one.
const OFFERS_END: Duration = Duration::from_secs(30);

/// When the owner first, and last, offered to end a connection since it was last of use.
#[derive(Default)]
pub struct Offered(Option<(Instant, Instant)>);

impl Offered {
    /// One more offer. Answers how long the connection has been of no use.
    pub fn again(&mut self, now: Instant) -> Duration {
        let first = self.0.filter(|(_, last)| now < *last + OFFERS_END).map_or(now, |(at, _)| at);
        self.0 = Some((first, now));
        now - first
    }

    pub fn is_recent(&self, now: Instant) -> bool {
        self.0.is_some_and(|(_, last)| now < last + OFFERS_END)
    }
}
