//! When the gateway is asked, in virtual time.

use super::*;
use crate::sim::epoch;

const PLACE: Place =
    Place { gateway: Ipv4Addr::new(192, 168, 1, 1), own: Ipv4Addr::new(192, 168, 1, 7) };
const MINUTE: Duration = Duration::from_secs(60);

fn held(lifetime: Option<Duration>) -> Held {
    let external = SocketAddrV4::new([20, 0, 0, 1].into(), 40_000);
    Held { place: PLACE, internal_port: 40_000, external, lifetime, how: How::NatPmp }
}

fn wanted(now: Instant) -> Mapper {
    let mut mapper = Mapper::default();
    assert_eq!((mapper.status(), mapper.poll_task(now)), (PortMappingStatus::Off, None));
    mapper.want(true, now);
    assert_eq!(mapper.status(), PortMappingStatus::Asking);
    assert_eq!(mapper.poll_task(now), Some(Task::Ask(None)));
    assert_eq!((mapper.poll_task(now), mapper.poll_timeout()), (None, None), "one at a time");
    mapper
}

/// When it asks next, which is done in vain.
fn asks_at(mapper: &mut Mapper, start: Instant) -> Duration {
    loop {
        let at = mapper.poll_timeout().unwrap();
        if let Some(Task::Ask(_)) = mapper.poll_task(at) {
            mapper.asked(Err(NotMapped::Silent(PLACE.gateway)), at);
            return at - start;
        }
    }
}

#[test]
fn a_lease_is_renewed_at_half_of_its_life_and_looked_after_every_few_minutes() {
    let mut now = epoch();
    let mut mapper = wanted(now);
    for (life, pause) in [(60, 5), (6, 3), (120, 5)] {
        mapper.asked(Ok(held(Some(life * MINUTE))), now);
        let PortMappingStatus::Mapped(mapping) = mapper.status() else { panic!("a mapping") };
        assert_eq!(mapping.until, Some(now + life * MINUTE));
        assert_eq!(mapper.poll_timeout(), Some(now + pause * MINUTE));
        now += pause * MINUTE;
        assert_eq!(mapper.poll_task(now), Some(Task::Ask(Some(held(Some(life * MINUTE))))));
    }
}

/// The router starts again, which takes it two minutes; nothing tells us.
#[test]
fn a_router_that_was_restarted_is_asked_again_within_minutes() {
    let start = epoch();
    let mut mapper = wanted(start);
    mapper.asked(Ok(held(Some(60 * MINUTE))), start);
    let (down, up) = (start + 4 * MINUTE, start + 6 * MINUTE);
    let (mut now, mut mapped_at) = (start, None);
    while mapped_at.is_none() {
        now = mapper.poll_timeout().unwrap();
        if let Some(Task::Ask(_)) = mapper.poll_task(now) {
            let silent = now >= down && now < up;
            let answer =
                if silent { Err(NotMapped::Silent(PLACE.gateway)) } else { Ok(held(None)) };
            mapper.asked(answer, now);
            mapped_at = (now >= up).then_some(now);
        }
    }
    assert!(mapped_at.is_some_and(|at| at <= up + 2 * MINUTE), "{:?}", now - up);
}

#[test]
fn who_makes_us_believe_that_the_network_changes_has_the_router_asked_now_and_then() {
    let start = epoch();
    let mut mapper = wanted(start);
    mapper.asked(Ok(held(None)), start);
    let mut asked = Vec::new();
    for second in 0..60 {
        let now = start + second * SETTLING;
        mapper.network_changed(now);
        if let Some(Task::Ask(_)) = mapper.poll_task(now) {
            mapper.asked(Ok(held(None)), now);
            asked.push(second);
        }
    }
    assert_eq!(asked, [1, 16, 31, 46]);
}

#[test]
fn leases_of_no_time_or_all_time_keep_nobody_busy() {
    let now = epoch();
    let mut mapper = wanted(now);
    mapper.asked(Ok(held(Some(Duration::from_secs(1)))), now);
    assert_eq!(mapper.poll_task(now + Duration::from_secs(1)), None);
    assert_eq!(mapper.status(), PortMappingStatus::Asking, "it is over");
    assert_eq!(mapper.poll_timeout(), Some(now + SHORTEST_PAUSE));
    let mut mapper = wanted(now);
    mapper.asked(Ok(held(Some(Duration::from_secs(u32::MAX.into())))), now);
    assert_eq!(mapper.poll_timeout(), Some(now + CHECK));
}

#[test]
fn a_renewal_that_fails_is_tried_again_and_the_mapping_counts_until_it_is_over() {
    let start = epoch();
    let mut mapper = wanted(start);
    mapper.asked(Ok(held(Some(64 * MINUTE))), start);
    let mut tries = Vec::new();
    while matches!(mapper.status(), PortMappingStatus::Mapped(_)) {
        tries.push(asks_at(&mut mapper, start));
    }
    assert_eq!(tries[..5], [5, 6, 8, 12, 17].map(|n| n * MINUTE));
    assert!(tries.len() < 22, "{tries:?}");
    assert_eq!(mapper.status(), PortMappingStatus::Not(NotMapped::Silent(PLACE.gateway)));
}

#[test]
fn a_gateway_that_does_not_answer_is_left_alone_for_longer_each_time() {
    let start = epoch();
    let mut mapper = wanted(start);
    mapper.asked(Err(NotMapped::NoGateway), start);
    assert_eq!(mapper.status(), PortMappingStatus::Not(NotMapped::NoGateway));
    let mut last = Duration::ZERO;
    let pauses: Vec<u64> = (0..9)
        .map(|_| {
            let at = asks_at(&mut mapper, start);
            (at - std::mem::replace(&mut last, at)).as_secs() / 60
        })
        .collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    // Another network, another gateway; and what is in hand counts as long as it is not refuted.
    let now = start + last;
    mapper.network_changed(now);
    assert_eq!(asks_at(&mut mapper, now), SETTLING);
    assert_eq!(asks_at(&mut mapper, now + SETTLING), MINUTE);
}

#[test]
fn what_changes_while_it_is_asked_is_asked_again() {
    let now = epoch();
    let mut mapper = wanted(now);
    mapper.network_changed(now);
    mapper.asked(Ok(held(Some(60 * MINUTE))), now);
    assert_eq!(mapper.poll_timeout(), Some(now + SETTLING));
}

#[test]
fn what_nobody_wants_any_more_is_removed() {
    let now = epoch();
    let mut mapper = wanted(now);
    mapper.asked(Ok(held(None)), now);
    let PortMappingStatus::Mapped(mapping) = mapper.status() else { panic!("a mapping") };
    assert_eq!(mapping.until, None);
    mapper.want(false, now);
    assert!(!mapper.is_over());
    assert_eq!(mapper.poll_task(now), Some(Task::Remove(held(None))));
    mapper.removed(now);
    assert!(mapper.is_over() && mapper.poll_timeout().is_none());
    // Wanted again meanwhile.
    let mut mapper = wanted(now);
    mapper.asked(Ok(held(None)), now);
    mapper.want(false, now);
    assert!(matches!(mapper.poll_task(now), Some(Task::Remove(_))));
    mapper.want(true, now);
    mapper.removed(now);
    assert_eq!(mapper.poll_task(now), Some(Task::Ask(None)));
}

#[test]
fn what_may_have_been_granted_when_asking_was_broken_off_is_removed_too() {
    let now = epoch();
    let mut mapper = wanted(now);
    mapper.want(false, now);
    assert!(mapper.is_in_vain() && !mapper.is_over());
    mapper.broken_off(Some(held(None)), now);
    assert_eq!(mapper.poll_task(now), Some(Task::Remove(held(None))));
    let mut mapper = wanted(now);
    mapper.want(false, now);
    mapper.broken_off(None, now);
    assert!(mapper.is_over());
}

#[test]
fn what_a_gateway_keeps_for_good_is_asked_for_again_and_removed_whenever() {
    let start = epoch();
    let mut mapper = wanted(start);
    mapper.asked(Ok(held(None)), start);
    assert_eq!(asks_at(&mut mapper, start), CHECK);
    for _ in 0..20 {
        asks_at(&mut mapper, start);
    }
    mapper.want(false, start);
    assert_eq!(mapper.poll_task(start + 100 * LEASE), Some(Task::Remove(held(None))));
}

#[test]
fn only_a_gateway_on_a_private_network_of_ours_is_asked() {
    let may = |own: [u8; 4], gateway: [u8; 4], prefix| {
        Place { own: own.into(), gateway: gateway.into() }.may_be_asked(prefix)
    };
    assert!(may([192, 168, 1, 7], [192, 168, 1, 1], 24));
    assert!(may([10, 1, 2, 3], [10, 200, 0, 1], 8));
    assert!(may([100, 64, 0, 2], [100, 64, 0, 1], 30));
    assert!(!may([20, 0, 0, 7], [20, 0, 0, 1], 24), "a public address");
    assert!(!may([192, 168, 1, 7], [20, 0, 0, 1], 24), "a public gateway");
    assert!(!may([20, 0, 0, 7], [192, 168, 1, 1], 0));
    assert!(!may([192, 168, 1, 7], [192, 168, 2, 1], 24), "another network");
    assert!(!may([192, 168, 1, 7], [192, 168, 1, 7], 24), "ourselves");
    assert!(!may([127, 0, 0, 1], [127, 0, 0, 2], 8), "loopback");
}
