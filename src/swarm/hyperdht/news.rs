//! What the rpc node tells, and whom of us it is for.

use super::HyperDht;
use super::event::DhtEvent;
use super::records::Records;
use crate::swarm::dht_rpc::RpcEvent;
use crate::swarm::socket::SocketId;
use std::net::IpAddr;
use std::time::Instant;

impl HyperDht {
    pub(super) fn on_rpc_event(&mut self, event: RpcEvent, now: Instant) {
        match event {
            RpcEvent::Bootstrapped => {
                let nodes = self.nodes();
                self.net.events.push_back(DhtEvent::Bootstrapped { nodes });
            }
            RpcEvent::Persistent(id) => {
                self.records.get_or_insert_with(|| Records::new(self.net.config.unix_ms, now));
                let address = self.net.open_address();
                self.net.events.push_back(DhtEvent::Persistent { id, address });
            }
            RpcEvent::Ephemeral => self.records = None,
            RpcEvent::Access(access) => self.net.events.push_back(DhtEvent::Access(access)),
            RpcEvent::Moved => {
                self.net.events.push_back(DhtEvent::Moved);
                self.refresh_announcers(now);
            }
            RpcEvent::ProbeOver => self.net.retired.push(SocketId::PROBE),
            RpcEvent::Released => {
                for server in self.servers.values_mut() {
                    server.announcer.released(&mut self.net, now);
                }
            }
            RpcEvent::WokeUp => {
                self.net.events.push_back(DhtEvent::WokeUp);
                self.refresh_announcers(now);
            }
            RpcEvent::Met => {
                self.net.events.push_back(DhtEvent::Met);
                self.refresh_announcers(now);
            }
            RpcEvent::Health { online, degraded } => {
                self.net.events.push_back(DhtEvent::Health { online, degraded });
            }
            RpcEvent::Request(incoming) => self.on_request(&incoming, now),
            RpcEvent::Response { id, reply } => {
                if let Some(owner) = self.net.finish_request(id) {
                    self.on_answer(owner, Some(&reply), now);
                }
            }
            RpcEvent::Timeout { id } => {
                if let Some(owner) = self.net.finish_request(id) {
                    self.on_answer(owner, None, now);
                }
            }
            RpcEvent::QueryReply { query, reply } => self.on_query_reply(query, &reply, now),
            RpcEvent::QueryDone { query, closest } => self.on_query_done(query, closest, now),
        }
    }

    /// The main socket writes to a host, past us.
    pub fn wrote_to(&mut self, host: IpAddr) {
        if let IpAddr::V4(host) = host {
            self.net.rpc.wrote_to(host);
        }
    }
}
