//! One node, alone with what strangers send it: each check of an address, an id and a silence.

use super::message::{Message, error, internal};
use super::*;
use crate::sim::epoch;
use rand::SeedableRng;

const SECOND: Duration = Duration::from_secs(1);
/// Private, reserved, known to be bad, and without a port: none can be a node of the public network.
const UNUSABLE: [&str; 4] =
    ["192.168.1.5:4000", "224.0.0.1:4000", "150.136.142.116:4000", "8.1.2.3:0"];

fn addr(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

fn host(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new((0x0801_0000 + n).into(), 4000)
}

/// A node of the public network that has looked around, in vain.
fn rpc(persistent: bool, now: Instant) -> Rpc {
    let config = RpcConfig { bootstrap: vec![], persistent, address: None, allow_bogons: false };
    let mut rpc = Rpc::new(config, StdRng::seed_from_u64(1), now);
    assert!(rpc.is_bootstrapped());
    sent(&mut rpc);
    rpc
}

/// The requests that left.
fn sent(rpc: &mut Rpc) -> Vec<Request> {
    let sent = std::iter::from_fn(|| rpc.poll_transmit());
    let request = |t: Transmit| match Message::decode(&t.bytes) {
        Ok(Message::Request(request)) => Some(request),
        _ => None,
    };
    sent.filter_map(request).collect()
}

fn request(to: SocketAddrV4, id: Option<NodeId>) -> Request {
    let (internal, command) = (true, internal::PING);
    Request { tid: 7, to, id, token: None, internal, command, target: None, value: None }
}

fn ping_from(rpc: &mut Rpc, from: SocketAddrV4, id: NodeId, now: Instant) {
    let data = request(addr("9.9.9.9:9"), Some(id)).encode();
    assert!(rpc.handle_datagram(SocketId::MAIN, from, &data, now));
}

fn answer(
    rpc: &mut Rpc,
    asked: &Request,
    id: Option<NodeId>,
    closer: &[SocketAddrV4],
    now: Instant,
) {
    let (closer, to) = (closer.to_vec(), addr("9.9.9.9:9"));
    let response = Response { tid: asked.tid, to, id, token: None, closer, error: 0, value: None };
    rpc.handle_datagram(SocketId::MAIN, asked.to, &response.encode(), now);
}

/// Runs its timers for a time, and answers the requests to those that live.
fn run(rpc: &mut Rpc, now: &mut Instant, time: Duration, lives: impl Fn(&SocketAddrV4) -> bool) {
    let end = *now + time;
    loop {
        for asked in sent(rpc).iter().filter(|asked| lives(&asked.to)) {
            answer(rpc, asked, Some(node_id(asked.to)), &[], *now);
        }
        match rpc.poll_timeout().filter(|at| *at <= end) {
            Some(at) => *now = at.max(*now),
            None => break,
        }
        rpc.handle_timeout(*now);
    }
    *now = end;
}

#[test]
fn a_request_is_from_a_node_only_under_the_id_of_its_address() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    ping_from(&mut rpc, host(1), node_id(host(2)), now);
    assert_eq!(rpc.table().len(), 0);
    let mut foreign = request(host(9), Some(node_id(host(2))));
    (foreign.internal, foreign.command) = (false, 3);
    rpc.handle_datagram(SocketId::MAIN, host(1), &foreign.encode(), now);
    foreign.id = Some(node_id(host(1)));
    rpc.handle_datagram(SocketId::MAIN, host(1), &foreign.encode(), now);
    let ids: Vec<_> = std::iter::from_fn(|| rpc.poll_event())
        .filter_map(|e| if let RpcEvent::Request(incoming) = e { Some(incoming.id) } else { None })
        .collect();
    assert_eq!(ids, [None, Some(node_id(host(1)))]);
    assert!(rpc.table().get(&node_id(host(1))).is_some());
    assert_eq!(rpc.table().len(), 1);
}

#[test]
fn an_answer_is_from_a_node_only_under_the_id_of_its_address() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    for (id, counts) in [(node_id(host(2)), false), (node_id(host(1)), true)] {
        rpc.request(Ask::ping(host(1)), now);
        let asked = sent(&mut rpc).remove(0);
        answer(&mut rpc, &asked, Some(id), &[], now);
        let told = std::iter::from_fn(|| rpc.poll_event()).find_map(|event| match event {
            RpcEvent::Response { reply, .. } => Some(reply.id),
            _ => None,
        });
        assert_eq!(told, Some(counts.then_some(id)));
        assert_eq!(rpc.table().len(), usize::from(counts));
    }
}

#[test]
fn addresses_that_no_node_can_have_do_not_enter_the_table() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    for from in UNUSABLE.map(addr) {
        ping_from(&mut rpc, from, node_id(from), now);
    }
    assert_eq!(rpc.table().len(), 0);
}

#[test]
fn addresses_that_no_node_can_have_are_not_asked() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    ping_from(&mut rpc, host(1), node_id(host(1)), now);
    sent(&mut rpc);
    rpc.query(QuerySpec::new(3, NodeId([7; 32])), now);
    let asked = sent(&mut rpc).remove(0);
    let mut closer: Vec<_> = UNUSABLE.into_iter().map(addr).collect();
    closer.push(host(2));
    answer(&mut rpc, &asked, Some(node_id(host(1))), &closer, now);
    // By the query, whether it can reach us unasked, and whether it is there at all.
    let next: Vec<_> = sent(&mut rpc).iter().map(|request| request.to).collect();
    assert_eq!(next, [host(2); 3]);
}

#[test]
fn what_requests_say_of_our_address_is_not_believed() {
    let mut now = epoch();
    let mut rpc = rpc(true, now);
    // Thirty nodes, or somebody in their names, ping us and say where we are.
    for n in 0..30 {
        ping_from(&mut rpc, host(n), node_id(host(n)), now);
    }
    run(&mut rpc, &mut now, SECOND, |_| false);
    assert_eq!((rpc.nat().host(), rpc.id()), (None, None));
    // What those say that we asked is.
    run(&mut rpc, &mut now, 600 * SECOND, |_| true);
    let ours = addr("9.9.9.9:9");
    assert_eq!((rpc.address(), rpc.id()), (Some(ours), Some(node_id(ours))));
}

#[test]
fn answers_that_nobody_asked_for_say_nothing() {
    let now = epoch();
    let mut rpc = rpc(true, now);
    rpc.request(Ask::ping(host(1)), now);
    let asked = sent(&mut rpc).remove(0);
    for n in 2..40 {
        let false_tid = Request { tid: asked.tid.wrapping_add(n), ..asked.clone() };
        answer(&mut rpc, &false_tid, Some(node_id(host(1))), &[], now);
        let other_host = Request { to: host(n.into()), ..asked.clone() };
        answer(&mut rpc, &other_host, Some(node_id(host(n.into()))), &[], now);
    }
    assert_eq!((rpc.table().len(), rpc.nat().host()), (0, None));
}

#[test]
fn a_node_that_falls_silent_leaves_the_table_and_others_stay() {
    let mut now = epoch();
    let mut rpc = rpc(false, now);
    for n in 0..K as u32 + 4 {
        ping_from(&mut rpc, host(n), node_id(host(n)), now);
    }
    // Pings alone: a refresh, as there is one too where nodes are few, would find it out as well.
    rpc.upkeep_without_refresh();
    run(&mut rpc, &mut now, 1500 * SECOND, |to| *to != host(3));
    assert_eq!(rpc.table().len(), K + 3);
    assert!(rpc.table().get(&node_id(host(3))).is_none());
}

#[test]
fn a_node_that_answers_no_query_leaves_the_table() {
    let mut now = epoch();
    let mut rpc = rpc(false, now);
    for n in 0..3 {
        ping_from(&mut rpc, host(n), node_id(host(n)), now);
    }
    sent(&mut rpc);
    rpc.query(QuerySpec { retries: 1, ..QuerySpec::new(3, NodeId([7; 32])) }, now);
    run(&mut rpc, &mut now, 3 * SECOND, |to| *to != host(1));
    assert!(rpc.table().get(&node_id(host(1))).is_none());
    assert_eq!(rpc.table().len(), 2);
}

/// Addresses whose ids share no leading bit with `id`: all of one row.
fn one_row(id: &NodeId, count: usize) -> Vec<SocketAddrV4> {
    let far = |addr: &SocketAddrV4| (node_id(*addr).0[0] ^ id.0[0]) & 0x80 != 0;
    (0..).map(host).filter(far).take(count).collect()
}

#[test]
fn in_a_full_row_a_newcomer_takes_the_place_of_a_silent_node_only() {
    for silent in [false, true] {
        let mut now = epoch();
        let mut rpc = rpc(false, now);
        let row = one_row(rpc.table().id(), K + 1);
        for from in &row[..K] {
            ping_from(&mut rpc, *from, node_id(*from), now);
        }
        rpc.upkeep_without_refresh();
        run(&mut rpc, &mut now, 6 * SECOND, |_| true);
        let newcomer = row[K];
        ping_from(&mut rpc, newcomer, node_id(newcomer), now);
        let asked: Vec<_> = sent(&mut rpc).iter().map(|request| request.to).collect();
        assert_eq!(asked.len(), 1, "one of the row is asked whether it is there");
        let old = asked[0];
        assert!(row[..K].contains(&old));
        assert!(rpc.table().get(&node_id(newcomer)).is_none(), "not before it is known");
        if silent {
            run(&mut rpc, &mut now, 5 * SECOND, |to| *to != old);
        } else {
            // The ping is sent again, and answered.
            run(&mut rpc, &mut now, 5 * SECOND, |_| true);
        }
        assert_eq!(rpc.table().get(&node_id(newcomer)).is_some(), silent);
        assert_eq!(rpc.table().get(&node_id(old)).is_some(), !silent);
        assert_eq!(rpc.table().len(), K);
    }
}

#[test]
fn queries_wait_for_room_instead_of_counting_nodes_as_dead() {
    let mut now = epoch();
    let mut rpc = rpc(false, now);
    for n in 0..15 {
        ping_from(&mut rpc, host(n), node_id(host(n)), now);
    }
    sent(&mut rpc);
    let queries = 1000;
    for n in 0..queries {
        let target = NodeId(crate::crypto::hash::hash(&[&[n as u8, (n >> 8) as u8]]));
        rpc.query(QuerySpec::new(3, target), now);
    }
    assert!(rpc.inflight() <= MAX_INFLIGHT / 4);
    run(&mut rpc, &mut now, 300 * SECOND, |_| true);
    let found = std::iter::from_fn(|| rpc.poll_event()).filter_map(|event| match event {
        RpcEvent::QueryDone { closest, .. } => Some(closest.len()),
        _ => None,
    });
    assert_eq!(found.filter(|n| *n == 15).count(), queries);
    assert_eq!(rpc.table().len(), 15);
}

/// Answers everything as `run` does, but as seen from elsewhere.
fn run_at(rpc: &mut Rpc, now: &mut Instant, time: Duration, seen_at: SocketAddrV4) {
    let end = *now + time;
    loop {
        for asked in sent(rpc) {
            let response = Response {
                tid: asked.tid,
                to: seen_at,
                id: Some(node_id(asked.to)),
                token: None,
                closer: vec![],
                error: 0,
                value: None,
            };
            rpc.handle_datagram(SocketId::MAIN, asked.to, &response.encode(), *now);
        }
        match rpc.poll_timeout().filter(|at| *at <= end) {
            Some(at) => *now = at.max(*now),
            None => break,
        }
        rpc.handle_timeout(*now);
    }
    *now = end;
}

#[test]
fn a_full_node_whose_network_changes_takes_the_id_of_its_new_address_within_a_minute() {
    let mut now = epoch();
    let mut rpc = rpc(true, now);
    for n in 0..10 {
        ping_from(&mut rpc, host(n), node_id(host(n)), now);
    }
    let (old, new) = (addr("9.9.9.9:9"), addr("7.7.7.7:7"));
    run_at(&mut rpc, &mut now, 3600 * SECOND, old);
    assert_eq!(rpc.id(), Some(node_id(old)));
    rpc.network_changed(now);
    run_at(&mut rpc, &mut now, 60 * SECOND, new);
    assert_eq!((rpc.address(), rpc.id()), (Some(new), Some(node_id(new))));
}

#[test]
fn the_first_node_of_a_network_is_told_its_new_address() {
    let now = epoch();
    let first = Some(addr("127.0.0.1:9"));
    let config =
        RpcConfig { bootstrap: vec![], persistent: true, address: first, allow_bogons: true };
    let mut rpc = Rpc::new(config, StdRng::seed_from_u64(1), now);
    assert_eq!(rpc.id(), Some(node_id(addr("127.0.0.1:9"))));
    rpc.set_address(addr("10.0.0.7:9"), now);
    assert_eq!(rpc.id(), Some(node_id(addr("10.0.0.7:9"))));
    let told = std::iter::from_fn(|| rpc.poll_event());
    assert!(told.filter(|e| matches!(e, RpcEvent::Persistent(_))).count() == 2);
}

#[test]
fn only_answers_show_that_a_node_is_there() {
    let now = epoch();
    let mut rpc = rpc(true, now);
    let oldest = |rpc: &Rpc| rpc.table().oldest_first().next().map(|n| (n.addr, n.pinged, n.seen));
    for n in [1, 2, 1] {
        ping_from(&mut rpc, host(n), node_id(host(n)), now);
    }
    assert_eq!(oldest(&rpc), Some((host(1), 0, 0)));
    sent(&mut rpc);
    rpc.request(Ask::ping(host(1)), now);
    let asked = sent(&mut rpc).remove(0);
    answer(&mut rpc, &asked, Some(node_id(host(1))), &[], now);
    assert_eq!(oldest(&rpc).unwrap().0, host(2));
    assert!(rpc.table().get(&node_id(host(1))).unwrap().seen > 0);
}

#[test]
fn a_request_with_a_token_of_another_host_comes_to_nothing() {
    let now = epoch();
    let mut rpc = rpc(true, now);
    let token = |from: SocketAddrV4, token: Option<[u8; 32]>, rpc: &mut Rpc| {
        let mut request = request(addr("9.9.9.9:9"), None);
        (request.internal, request.command, request.token) = (false, 2, token);
        request.target = Some(NodeId([1; 32]));
        rpc.handle_datagram(SocketId::MAIN, from, &request.encode(), now);
        let answered =
            std::iter::from_fn(|| rpc.poll_transmit()).find_map(|t| {
                match Message::decode(&t.bytes) {
                    Ok(Message::Response(response)) => Some((response.error, response.token)),
                    _ => None,
                }
            });
        let told = std::iter::from_fn(|| rpc.poll_event())
            .filter(|e| matches!(e, RpcEvent::Request(_)))
            .count();
        (answered, told)
    };
    let (Some((error, Some(good))), 0) = token(host(1), Some([7; 32]), &mut rpc) else {
        panic!("a refusal with the right token");
    };
    assert_eq!(error, error::INVALID_TOKEN);
    assert_eq!(token(host(1), Some(good), &mut rpc).1, 1);
    assert_eq!(token(host(2), Some(good), &mut rpc).1, 0);
}

#[test]
fn a_machine_that_slept_knows_it() {
    let mut now = epoch();
    let mut rpc = rpc(true, now);
    let woke = |rpc: &mut Rpc| {
        std::iter::from_fn(|| rpc.poll_event()).any(|e| matches!(e, RpcEvent::WokeUp))
    };
    run(&mut rpc, &mut now, 60 * SECOND, |_| true);
    assert!(!woke(&mut rpc));
    now += 60 * SECOND;
    rpc.handle_timeout(now);
    assert!(woke(&mut rpc));
}

/// Lets strangers ask `rpc` for something internal, with a value.
fn asked(rpc: &mut Rpc, from: SocketAddrV4, command: u64, value: Vec<u8>, now: Instant) {
    let request = Request { command, value: Some(value), ..request(addr("9.9.9.9:9"), None) };
    rpc.handle_datagram(SocketId::MAIN, from, &request.encode(), now);
}

#[test]
fn delayed_answers_are_given_within_a_bound_of_time_and_number() {
    let mut now = epoch();
    let mut rpc = rpc(false, now);
    let answers = |rpc: &mut Rpc| std::iter::from_fn(|| rpc.poll_transmit()).count();
    let ask = |rpc: &mut Rpc, n: u32, ms: u32| {
        asked(rpc, host(n), internal::DELAYED_PING, ms.to_le_bytes().to_vec(), now);
    };
    ask(&mut rpc, 0, 10_001);
    ask(&mut rpc, 1, 10_000);
    (2..500).for_each(|n| ask(&mut rpc, n, 1000));
    assert_eq!(answers(&mut rpc), 0, "not before their time");
    now += SECOND;
    rpc.handle_timeout(now);
    assert_eq!(answers(&mut rpc), 255);
    now += 9 * SECOND;
    rpc.handle_timeout(now);
    assert_eq!(answers(&mut rpc), 1);
    now += SECOND;
    rpc.handle_timeout(now);
    assert_eq!(answers(&mut rpc), 0, "one asked for too late an answer");
}

#[test]
fn hints_that_nodes_are_down_make_us_ask_a_few_of_them_and_each_once() {
    let mut now = epoch();
    let mut rpc = rpc(false, now);
    for n in 0..30 {
        ping_from(&mut rpc, host(n), node_id(host(n)), now);
    }
    run(&mut rpc, &mut now, 10 * SECOND, |_| true);
    let known: Vec<_> =
        (0..30).map(host).filter(|a| rpc.table.get_mut(&node_id(*a)).is_some()).collect();
    assert!(known.len() > 15, "{}", known.len());
    let hint = |rpc: &mut Rpc, down: &SocketAddrV4| {
        let mut value = Vec::new();
        crate::codec::net::put_ipv4(&mut value, down);
        asked(rpc, host(99), internal::DOWN_HINT, value, now);
    };
    (0..5).for_each(|_| hint(&mut rpc, &known[0]));
    assert_eq!(sent(&mut rpc).len(), 1);
    known.iter().for_each(|down| hint(&mut rpc, down));
    assert_eq!(sent(&mut rpc).len(), 9, "ten checks at a time");
}

/// Bytes sent to a host that asks and asks, and requests to it.
fn asks_and_asks(rpc: &mut Rpc, host: SocketAddrV4, now: Instant) -> (usize, Vec<Request>) {
    let (mut bytes, mut requests) = (0, Vec::new());
    for n in 0..60_000u32 {
        let from = SocketAddrV4::new(*host.ip(), 1 + n as u16);
        asked(rpc, from, internal::PING, vec![], now);
        for transmit in std::iter::from_fn(|| rpc.poll_transmit()) {
            bytes += transmit.bytes.len();
            if let Ok(Message::Request(request)) = Message::decode(&transmit.bytes) {
                requests.push(request);
            }
        }
    }
    (bytes, requests)
}

#[test]
fn a_host_that_asks_and_asks_is_not_sent_more_than_its_budget() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    // Somebody who is asked in vain to show that he is there.
    let (bytes, requests) = asks_and_asks(&mut rpc, host(0), now);
    assert!((20_000..=25 * 1024).contains(&bytes), "{bytes}");
    let [request] = &requests[..] else { panic!("{}", requests.len()) };
    // And one who shows it.
    answer(&mut rpc, request, None, &[], now);
    // An answer of ten bytes takes six times as much on the way.
    let (bytes, _) = asks_and_asks(&mut rpc, host(0), now + 4 * SECOND);
    assert!((35_000..=256 * 1024 / 5).contains(&bytes), "{bytes}");
}

#[test]
fn whoever_brings_back_a_token_has_shown_that_he_is_there() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    let token = Some(rpc.tokens.issue(host(0).ip()));
    let data = Request { token, ..request(addr("9.9.9.9:9"), None) }.encode();
    rpc.handle_datagram(SocketId::MAIN, host(0), &data, now);
    let forged = Request { token: Some([1; 32]), ..request(addr("9.9.9.9:9"), None) }.encode();
    rpc.handle_datagram(SocketId::MAIN, host(1), &forged, now);
    sent(&mut rpc);
    assert!(asks_and_asks(&mut rpc, host(0), now).0 > 35_000);
    assert!(asks_and_asks(&mut rpc, host(1), now).0 < 26_000);
}

/// In whose names ever it is asked, few of them are asked back.
#[test]
fn a_flood_in_the_names_of_many_makes_us_ask_a_few() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    let mut back = 0;
    for n in 0..200_000u32 {
        asked(&mut rpc, host(n % 200), internal::PING, vec![], now);
        back += sent(&mut rpc).len();
    }
    assert_eq!(back, 8);
}

#[test]
fn so_many_requests_are_under_way_and_no_more() {
    let now = epoch();
    let mut rpc = rpc(false, now);
    (0..5000).for_each(|n| {
        rpc.request(Ask::ping(host(n)), now);
    });
    assert_eq!(rpc.inflight(), MAX_INFLIGHT);
    let refused = std::iter::from_fn(|| rpc.poll_event());
    let refused = refused.filter(|event| matches!(event, RpcEvent::Timeout { .. })).count();
    assert_eq!(refused, 5000 - MAX_INFLIGHT);
}
