//! The thread that asks the gateway for a port: it waits for the gateway, and for what is wanted of it.
//!
//! What is asked when is decided by [`Mapper`]. The network thread is told how that stands, and waits for none of it.

mod ask;
mod route;
#[cfg(test)]
mod tests;

use super::clock::Clock;
use super::inbox::{Command, Inbox};
use crate::swarm::port_mapping::{Held, Mapper, NotMapped, Place, PortMappingStatus, Task};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A gateway that takes longer for all that is asked of it is not waited for.
const ASKED: Duration = Duration::from_secs(20);
/// The same when a mapping is given back, at the end of a process maybe.
pub const REMOVED: Duration = Duration::from_millis(900);

enum Order {
    Want(bool),
    /// Interfaces or addresses are other ones.
    Changed,
}

/// What the network thread has in hand.
pub struct Gateway {
    orders: mpsc::UnboundedSender<Order>,
    pub status: PortMappingStatus,
}

impl Gateway {
    /// Starts the thread, for a main socket bound to `bound`. Nothing is asked before it is [wanted](Self::want).
    pub fn start(bound: SocketAddrV4, inbox: Arc<Inbox>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (orders, given) = mpsc::unbounded_channel();
        let tell = move |status| inbox.push(Command::PortMapping(status));
        let find = move || route::place(bound);
        let run = move || runtime.block_on(run(given, bound.port(), find, tell));
        crate::threads::spawn("gateway", run)?;
        Ok(Self { orders, status: PortMappingStatus::Off })
    }

    pub fn want(&mut self, wanted: bool) {
        if wanted && self.status == PortMappingStatus::Off {
            self.status = PortMappingStatus::Asking;
        }
        let _ = self.orders.send(Order::Want(wanted));
    }

    pub fn network_changed(&self) {
        let _ = self.orders.send(Order::Changed);
    }
}

/// What may have been granted when asking is broken off.
type Maybe = RefCell<Option<Held>>;

/// Until nobody can give orders any more.
async fn run<T>(
    mut orders: mpsc::UnboundedReceiver<Order>,
    port: u16,
    find: impl Fn() -> Option<Place>,
    tell: impl Fn(PortMappingStatus) -> T,
) {
    let (mut mapper, mut clock) = (Mapper::default(), Clock::new());
    let mut told = PortMappingStatus::Off;
    let mut open = true;
    while open || !mapper.is_over() {
        match mapper.poll_task(clock.now()) {
            Some(Task::Ask(renews)) => {
                let maybe = Maybe::default();
                let asking = ask_there(find(), port, renews, &maybe);
                let outcome = {
                    tokio::pin!(asking);
                    loop {
                        tokio::select! {
                            outcome = &mut asking => break Some(outcome),
                            order = orders.recv(), if open => {
                                open = obey(order, &mut mapper, clock.now());
                                if mapper.is_in_vain() {
                                    break None;
                                }
                            }
                        }
                    }
                };
                match outcome {
                    Some(outcome) => mapper.asked(outcome, clock.now()),
                    None => mapper.broken_off(maybe.into_inner(), clock.now()),
                }
            }
            Some(Task::Remove(held)) => {
                if timeout(REMOVED, ask::remove(&held)).await.is_err() {
                    tracing::debug!(gateway = %held.place.gateway, "the router did not hear the end");
                }
                mapper.removed(clock.now());
            }
            None => {
                let status = mapper.status();
                if status != told {
                    log(told, status);
                    tell(status);
                    told = status;
                }
                let now = clock.now();
                let wait = mapper.poll_timeout().map(|at| at.saturating_duration_since(now));
                tokio::select! {
                    order = orders.recv(), if open => {
                        open = obey(order, &mut mapper, clock.now());
                    }
                    () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                }
            }
        }
    }
    if told != PortMappingStatus::Off {
        tell(PortMappingStatus::Off);
    }
}

/// Follows an order; the end of them is one as well. Answers whether more may come.
fn obey(order: Option<Order>, mapper: &mut Mapper, now: Instant) -> bool {
    match order {
        Some(Order::Want(wanted)) => mapper.want(wanted, now),
        Some(Order::Changed) => mapper.network_changed(now),
        None => mapper.want(false, now),
    }
    order.is_some()
}

async fn ask_there(
    place: Option<Place>,
    port: u16,
    renews: Option<Held>,
    maybe: &Maybe,
) -> Result<Held, NotMapped> {
    let Some(place) = place else { return Err(NotMapped::NoGateway) };
    let renews = renews.filter(|held| held.place == place);
    let asked = timeout(ASKED, ask::ask(place, port, renews.as_ref(), maybe)).await;
    asked.unwrap_or(Err(NotMapped::Silent(place.gateway)))
}

/// Tells when it begins to work, or ends to.
fn log(before: PortMappingStatus, now: PortMappingStatus) {
    match (before, now) {
        (PortMappingStatus::Mapped(before), PortMappingStatus::Mapped(now))
            if before.external == now.external && before.gateway == now.gateway => {}
        (_, PortMappingStatus::Mapped(now)) => {
            let (gateway, port, by) = (now.gateway, now.external.port(), now.by);
            tracing::info!(
                "port mapping: UDP port {port} of the router {gateway} leads here, it says ({by})"
            );
        }
        (_, PortMappingStatus::Not(why)) => tracing::info!("port mapping: none, {why}"),
        _ => {}
    }
}
