//! What the network thread has to do with a port of the gateway: it passes on that one is wanted, and has it looked at whether
//! others can send to us once the gateway was asked.

use super::gateway::{self, Gateway};
use super::{Driver, FAREWELL};
use crate::swarm::port_mapping::PortMappingStatus;
use std::time::{Duration, Instant};

/// The first look whether others can send to us waits so long for the gateway to open a port: most have by then, and where
/// there are many nodes there is a second look as soon as it has.
const OPENING: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn map_port(&mut self, wanted: bool, now: Instant) {
        if wanted && self.gateway.is_none() {
            let bound = self.sockets.local_addr();
            match bound.and_then(|bound| Gateway::start(bound, self.inbox.clone())) {
                Ok(gateway) => self.gateway = Some(gateway),
                Err(error) => tracing::warn!(%error, "no thread for the port mapping"),
            }
        }
        let Some(gateway) = &mut self.gateway else { return };
        gateway.want(wanted);
        if gateway.status == PortMappingStatus::Asking && wanted {
            self.swarm.await_port_mapping(now + OPENING);
        }
    }

    pub(super) fn port_mapping_changed(&mut self, status: PortMappingStatus, now: Instant) {
        let Some(gateway) = &mut self.gateway else { return };
        gateway.status = status;
        match status {
            PortMappingStatus::Mapped(mapping) => {
                self.swarm.port_mapping_is_known(Some(mapping.external), now);
            }
            PortMappingStatus::Not(_) => self.swarm.port_mapping_is_known(None, now),
            PortMappingStatus::Off | PortMappingStatus::Asking => {}
        }
    }

    /// How it stands; the end of a lease on the ordinary clock.
    pub(super) fn port_mapping(&mut self) -> PortMappingStatus {
        let mut status = self.gateway.as_ref().map_or_else(Default::default, |known| known.status);
        if let PortMappingStatus::Mapped(mapping) = &mut status {
            mapping.until = mapping.until.map(|until| self.clock.ordinary(until));
        }
        status
    }

    /// Until when the gateway has time to hear that we stop, which is over by `by`. None if it knows, or had its time.
    pub(super) fn gateway_had_its_time(&self, by: Instant, now: Instant) -> Option<Instant> {
        let at = by + gateway::REMOVED - FAREWELL;
        let knows = self.gateway.as_ref().is_none_or(|g| g.status == PortMappingStatus::Off);
        (!knows && at > now).then_some(at)
    }
}
