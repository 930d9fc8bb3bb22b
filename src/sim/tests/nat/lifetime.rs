//! How long a box lets in, and what becomes of a port afterwards.

use super::*;

#[test]
fn a_mapping_lives_while_something_goes_out_and_longer_once_something_came_back() {
    let cfg = NatConfig { lifetime: 60 * SECOND, unanswered: 20 * SECOND, ..NatConfig::port() };
    for (answered, secs, alive) in
        [(false, 18, true), (false, 21, false), (true, 55, true), (true, 61, false)]
    {
        let mut lab = Lab::behind(&[cfg], 1);
        let a = lab.a;
        let out = lab.seen(a, 0, 0);
        if answered {
            assert_eq!(lab.hears(0, out), Some(a));
        }
        // Just before its end something goes out again; what comes in later does not count.
        lab.net.run((if answered { 57 } else { 18 }) * SECOND);
        lab.seen(a, 0, 0);
        lab.net.run((secs - 1) / 2 * SECOND);
        if answered {
            assert_eq!(lab.hears(0, out), Some(a));
            lab.net.run(((secs - 1).div_ceil(2) - 1) * SECOND);
        } else {
            lab.net.run((secs - 1).div_ceil(2) * SECOND);
        }
        assert_eq!(lab.hears(0, out).is_some(), alive, "{answered} {secs}");
        // To another server it has not spoken, however old the mapping is.
        assert_eq!(lab.hears(2, out), None);
        assert_eq!(lab.seen(a, 0, 0), out);
    }
}

#[test]
fn who_was_sent_nothing_for_long_is_let_in_no_more_while_others_keep_the_mapping() {
    let cfg = NatConfig { lifetime: 60 * SECOND, unanswered: 20 * SECOND, ..NatConfig::port() };
    let mut lab = Lab::behind(&[cfg], 1);
    let a = lab.a;
    let out = lab.seen(a, 0, 0);
    assert_eq!(lab.hears(0, out), Some(a));
    for _ in 0..7 {
        lab.net.run(9 * SECOND);
        assert_eq!(lab.seen(a, 0, 2), out);
    }
    assert_eq!([0, 2].map(|by| lab.hears(by, out)), [None, Some(a)]);
    // It begins anew: nothing has come back.
    assert_eq!(lab.seen(a, 0, 0), out);
    lab.net.run(25 * SECOND);
    assert_eq!([0, 2].map(|by| lab.hears(by, out)), [None, Some(a)]);
}

#[test]
fn a_mapping_that_has_gone_leaves_its_port_to_others_and_its_owner_gets_another() {
    let cfg = NatConfig { lifetime: 60 * SECOND, unanswered: 20 * SECOND, ..NatConfig::full() };
    let mut lab = Lab::behind(&[cfg], 1);
    let (a, b) = (lab.a, lab.neighbour(4000));
    let first = lab.seen(a, 0, 0);
    lab.net.run(30 * SECOND);
    assert_eq!(lab.hears(1, first), None);
    assert_eq!((lab.seen(b, 0, 0), lab.hears(1, first)), (first, Some(b)));
    let second = lab.seen(a, 0, 0);
    assert_ne!(second, first);
    assert_eq!([first, second].map(|out| lab.hears(1, out)), [Some(b), Some(a)]);

    // All gone, the first comes back to its own port; another takes the one that it had meanwhile.
    lab.net.run(70 * SECOND);
    assert_eq!(lab.seen(a, 0, 0), first);
    let c = lab.neighbour(second.port());
    assert_eq!([lab.seen(c, 0, 0), lab.seen(a, 0, 0)], [second, first]);
    assert_eq!([first, second].map(|out| lab.hears(1, out)), [Some(a), Some(c)]);
}

#[test]
fn a_box_that_was_switched_off_lets_nobody_in_before_something_goes_out() {
    for (cfg, same) in [(NatConfig::full(), true), (NatConfig::sym(), false)] {
        let mut lab = Lab::behind(&[cfg], 1);
        let a = lab.a;
        let out = lab.seen(a, 0, 0);
        lab.net.nat(lab.realm).forget();
        assert_eq!(lab.hears(0, out), None);
        let again = lab.seen(a, 0, 0);
        assert_eq!((again == out, lab.hears(0, again)), (same, Some(a)));
    }
}

#[test]
fn a_full_box_drops_what_wants_out() {
    let mut nat = Nat::new(EXTERNAL.into(), NatConfig::port());
    let (mut net, remote) = (Net::<Probe>::new(LinkConfig::default(), 1), server(0));
    let now = net.now;
    for port in 1024..=u16::MAX {
        assert_eq!(
            nat.outbound(at(INNER, port), remote, now, &mut net.rng),
            Some(at(EXTERNAL, port))
        );
    }
    let late = at([192, 168, 1, 3], 4000);
    assert_eq!(nat.outbound(late, remote, now, &mut net.rng), None);
    let soon = now + nat.cfg.unanswered;
    assert_eq!(nat.outbound(late, remote, soon, &mut net.rng), Some(at(EXTERNAL, 4000)));
}
