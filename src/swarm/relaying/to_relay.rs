//! The way to a relay, which may get lost as any other: our NAT forgets it, or the relay begins anew.
//!
//! A relay follows whoever speaks to it from elsewhere. So where a stream hears nothing through a relay something is said to
//! the relay itself. One that does not acknowledge it is *mute*: it has forgotten us, and what waits for it to pair asks anew
//! over another control connection. The old one stays for streams that go through it, until it times out.

use super::{Stage, Swarm};
use std::time::Instant;

impl Swarm {
    /// Whether the relay behind a control connection has forgotten us.
    pub(in crate::swarm) fn is_mute(&mut self, control: u32, now: Instant) -> bool {
        let control = self.controls.table.by_stream(control).filter(|control| control.is_open());
        let stream = control.map(|control| control.id.stream());
        stream.is_some_and(|stream| self.is_unheeded(stream, now))
    }

    /// A stream waits for its relay to pair. If that is mute, whoever waits there asks anew.
    pub(super) fn look_after_relay(&mut self, stream: u32, now: Instant) {
        let stage = self.relayed.get(&stream).map(|relayed| relayed.stage);
        let Some(Stage::Asked { control }) = stage else { return };
        if !self.is_mute(control, now) {
            return;
        }
        tracing::debug!(control, "the relay is mute");
        let asked = |stage: Stage| matches!(stage, Stage::Asked { control: of } if of == control);
        let waiting: Vec<u32> =
            self.relayed.iter().filter(|(_, r)| asked(r.stage)).map(|(s, _)| *s).collect();
        for relayed in self.relayed.values_mut().filter(|relayed| asked(relayed.stage)) {
            relayed.stage = Stage::Waiting;
        }
        if !self.needs_control(control) {
            self.end_control(control, "the relay is mute", now);
        }
        for stream in waiting {
            self.ask_relay(stream, now);
        }
    }

    /// A stream hears nothing: if it has a relay that is to notice where we are.
    pub(in crate::swarm) fn speak_to_relay(&mut self, stream: u32, now: Instant) {
        let stage = self.relayed.get(&stream).map(|relayed| relayed.stage);
        if let Some(Stage::Paired { control, .. }) = stage {
            self.keep_alive(control, now);
        }
    }
}
