//! Gateways that are played, on addresses of loopback that are theirs alone. Nothing leaves this machine.

use super::*;
use crate::swarm::port_mapping::{By, How, LEASE, pcp, upnp};
use std::net::Ipv4Addr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const PORT: u16 = 40_000;
const OWN: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PUBLIC: [u8; 4] = [20, 0, 0, 1];

/// Orders that were given to a gateway.
type Given = Arc<Mutex<Vec<String>>>;

fn given(to: &Given) -> Vec<String> {
    crate::lock::lock(to).clone()
}

/// One for each test, as all have the same ports.
fn place(test: u8) -> Place {
    Place { gateway: Ipv4Addr::new(127, 88, test, 1), own: OWN }
}

fn play<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("an end") })
}

async fn ask_it(place: Place) -> Result<Held, NotMapped> {
    ask_there(Some(place), PORT, None, &Maybe::default()).await
}

/// Answers what comes to the port of PCP and NAT-PMP.
async fn hear(place: Place, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + 'static) {
    let socket = UdpSocket::bind((place.gateway, pcp::PORT)).await.unwrap();
    let mut buf = [0; 2000];
    loop {
        let (len, from) = socket.recv_from(&mut buf).await.unwrap();
        if let Some(answer) = answer(&buf[..len]) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

fn granted_by_pcp(asked: &[u8], lifetime: u32) -> Vec<u8> {
    let mut answer = asked.to_vec();
    answer[1] |= 0x80;
    answer[4..8].copy_from_slice(&lifetime.to_be_bytes());
    answer[8..24].fill(0);
    answer[56..60].copy_from_slice(&PUBLIC);
    answer
}

/// What speaks NAT-PMP alone.
fn granted_by_nat_pmp(asked: &[u8]) -> Option<Vec<u8>> {
    let time = [0, 0, 0, 9];
    Some(match asked {
        [0, 0] => [&[0, 0x80, 0, 0], &time[..], &PUBLIC].concat(),
        [0, 1, _, _, ports @ ..] => [&[0, 0x81, 0, 0], &time[..], ports].concat(),
        [2, ..] => [&[0, 0x81, 0, 1], &time[..]].concat(),
        _ => return None,
    })
}

/// A gateway of UPnP: says where its description is, and answers each order in turn, the last answer again and again.
async fn offer(place: Place, description: &str, answers: Vec<&'static str>, orders: Given) {
    let web = TcpListener::bind((place.gateway, 0)).await.unwrap();
    let at = web.local_addr().unwrap();
    let search = UdpSocket::bind((place.gateway, upnp::PORT)).await.unwrap();
    let mut answers = answers.into_iter();
    let mut answer = answers.next().unwrap_or_default();
    let mut buf = [0; 2000];
    loop {
        tokio::select! {
            came = search.recv_from(&mut buf) => {
                let (_, from) = came.unwrap();
                let found = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{at}/root.xml\r\n\r\n");
                search.send_to(found.as_bytes(), from).await.unwrap();
            }
            came = web.accept() => {
                let (mut stream, _) = came.unwrap();
                let order = order(&mut stream).await;
                let body = match order.starts_with("GET /root.xml ") {
                    true => description.to_string(),
                    false if order.contains("GetExternalIPAddress") => {
                        "<NewExternalIPAddress>20.0.0.1</NewExternalIPAddress>".to_string()
                    }
                    false => {
                        crate::lock::lock(&orders).push(order);
                        let body = answer.to_string();
                        answer = answers.next().unwrap_or(answer);
                        body
                    }
                };
                let status = if body.contains("errorCode") { "500 Error" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        }
    }
}

/// A whole request.
async fn order(stream: &mut TcpStream) -> String {
    let (mut text, mut buf) = (String::new(), [0; 4096]);
    loop {
        let len = stream.read(&mut buf).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buf[..len]));
        let whole = match text.split_once("\r\n\r\n") {
            Some((head, _)) if head.starts_with("GET") => true,
            Some((_, body)) => body.contains("</s:Envelope>"),
            None => false,
        };
        if whole || len == 0 {
            return text;
        }
    }
}

fn description(control: &str) -> String {
    format!(
        "<root><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
         <controlURL>{control}</controlURL></service></serviceList></device></root>"
    )
}

const YES: &str = "<u:AddPortMappingResponse></u:AddPortMappingResponse>";
const CONFLICT: &str = "<errorCode>718</errorCode>";
const PERMANENT: &str = "<errorCode>725</errorCode>";
const INVALID: &str = "<errorCode>402</errorCode>";
const NO: &str = "<errorCode>606</errorCode>";

/// What becomes of a mapping at a gateway that answers so, and what it was asked: the port outside, and for how long.
fn at_gateway(test: u8, answers: &[&'static str]) -> (Result<Held, NotMapped>, Vec<(u16, u64)>) {
    let (orders, answers) = (Given::default(), answers.to_vec());
    let held = play(async {
        let text = description("/ctl");
        tokio::select! {
            held = ask_it(place(test)) => held,
            () = offer(place(test), &text, answers, orders.clone()) => unreachable!(),
        }
    });
    let number = |order: &str, name: &str| {
        let text = order.split(&format!("<{name}>")).nth(1)?.split('<').next()?;
        text.parse::<u64>().ok()
    };
    let asked = given(&orders).into_iter().map(|order| {
        let order = order.as_str();
        assert!(
            order.contains(&format!("<NewInternalClient>{OWN}</NewInternalClient>")),
            "{order}"
        );
        let port = number(order, "NewExternalPort").unwrap() as u16;
        (port, number(order, "NewLeaseDuration").unwrap())
    });
    (held, asked.collect())
}

#[test]
fn a_gateway_of_pcp_grants_a_port_and_is_told_when_it_is_over() {
    let here = place(1);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let heard_too = heard.clone();
    let answer = move |asked: &[u8]| {
        crate::lock::lock(&heard_too).push(asked.to_vec());
        Some(granted_by_pcp(asked, 600))
    };
    let held = play(async {
        tokio::select! {
            () = hear(here, answer) => unreachable!(),
            held = async {
                let held = ask_it(here).await;
                ask::remove(held.as_ref().unwrap()).await;
                held
            } => held.unwrap(),
        }
    });
    assert_eq!(held.external, SocketAddrV4::new(PUBLIC.into(), PORT));
    assert_eq!(held.lifetime, Some(Duration::from_secs(600)));
    let heard = crate::lock::lock(&heard);
    let lifetimes: Vec<_> = heard.iter().map(|asked| asked[4..8].to_vec()).collect();
    assert_eq!(lifetimes, [3600u32.to_be_bytes().to_vec(), vec![0; 4]]);
    assert_eq!(heard[0][24..36], heard[1][24..36], "the nonce");
}

#[test]
fn a_gateway_that_speaks_nat_pmp_alone_is_asked_in_that() {
    let here = place(2);
    let held = play(async {
        tokio::select! {
            () = hear(here, granted_by_nat_pmp) => unreachable!(),
            held = ask_it(here) => held.unwrap(),
        }
    });
    assert_eq!(held.how, How::NatPmp);
    assert_eq!(
        (held.external, held.lifetime),
        (SocketAddrV4::new(PUBLIC.into(), PORT), Some(LEASE))
    );
}

#[test]
fn a_gateway_of_upnp_is_asked_again_in_other_words_where_it_has_its_ways() {
    let hour = LEASE.as_secs();
    let (held, asked) = at_gateway(3, &[YES]);
    let held = held.unwrap();
    assert_eq!(asked, [(PORT, hour)]);
    assert_eq!(
        (held.external, held.lifetime),
        (SocketAddrV4::new(PUBLIC.into(), PORT), Some(LEASE))
    );
    for (test, limits) in [(4, PERMANENT), (5, INVALID)] {
        let (held, asked) = at_gateway(test, &[limits, YES]);
        assert_eq!((asked, held.unwrap().lifetime), (vec![(PORT, hour), (PORT, 0)], None));
    }
    let (held, asked) = at_gateway(6, &[CONFLICT, PERMANENT, YES]);
    let other = held.unwrap().external.port();
    assert!(other >= 1024 && other != PORT);
    assert_eq!(asked, [(PORT, hour), (other, hour), (other, 0)]);
}

#[test]
fn a_gateway_that_refuses_is_believed_soon() {
    let by_upnp = |gateway, code| Err(NotMapped::Refused { gateway, by: By::Upnp, code });
    for (test, answer, code, most) in
        [(7, NO, 606, 1), (8, CONFLICT, 718, 5), (9, INVALID, 402, 2), (10, PERMANENT, 725, 2)]
    {
        let (held, asked) = at_gateway(test, &[answer]);
        assert_eq!((held, asked.len()), (by_upnp(place(test).gateway, code), most));
    }
}

#[test]
fn nobody_but_the_gateway_is_asked_whatever_it_says() {
    let foreign = std::net::TcpListener::bind("127.88.11.9:0").unwrap();
    foreign.set_nonblocking(true).unwrap();
    let at = foreign.local_addr().unwrap();
    let here = place(11);
    for (n, text) in [description(&format!("http://{at}/ctl")), "x".repeat(200_000), String::new()]
        .into_iter()
        .enumerate()
    {
        let orders = Given::default();
        let held = play(async {
            tokio::select! {
                held = ask_it(here) => held,
                () = offer(here, &text, vec![YES], orders.clone()) => unreachable!(),
            }
        });
        assert_eq!((n, held), (n, Err(NotMapped::Nonsense(here.gateway))));
        assert_eq!(given(&orders), [""; 0]);
    }
    assert!(foreign.accept().is_err(), "somebody else was asked");
}

#[test]
fn a_gateway_that_never_ends_what_it_says_is_left() {
    let here = place(12);
    let started = Instant::now();
    let held = play(async {
        let drip = async {
            let web = TcpListener::bind((here.gateway, 0)).await.unwrap();
            let at = web.local_addr().unwrap();
            let search = UdpSocket::bind((here.gateway, upnp::PORT)).await.unwrap();
            let mut buf = [0; 2000];
            let (_, from) = search.recv_from(&mut buf).await.unwrap();
            let found = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{at}/root.xml\r\n\r\n");
            search.send_to(found.as_bytes(), from).await.unwrap();
            let (mut stream, _) = web.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            held = ask_it(here) => held,
            () = drip => unreachable!(),
        }
    });
    assert_eq!(held, Err(NotMapped::Nonsense(here.gateway)));
    assert!(started.elapsed() < ASKED, "{:?}", started.elapsed());
}

#[test]
fn who_needs_the_port_no_more_gives_it_back_and_hears_that_it_is_over() {
    let here = place(13);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (heard_too, told) = (heard.clone(), Arc::new(Mutex::new(Vec::new())));
    let answer = move |asked: &[u8]| {
        crate::lock::lock(&heard_too).push(asked[7] != 0x00 || asked[6] != 0x00);
        Some(granted_by_pcp(asked, 600))
    };
    play(async {
        let (orders, given) = mpsc::unbounded_channel();
        orders.send(Order::Want(true)).unwrap();
        let told_too = told.clone();
        let tell = move |status| {
            if matches!(status, PortMappingStatus::Mapped(_)) {
                let _ = orders.send(Order::Want(false));
            }
            crate::lock::lock(&told_too).push(status);
        };
        let over = async {
            while !crate::lock::lock(&told).contains(&PortMappingStatus::Off) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = hear(here, answer) => unreachable!(),
            () = run(given, PORT, move || Some(here), tell) => {}
            () = over => {}
        }
    });
    let told = crate::lock::lock(&told);
    assert!(matches!(told[..], [PortMappingStatus::Mapped(_), PortMappingStatus::Off]), "{told:?}");
    assert_eq!(*crate::lock::lock(&heard), [true, false], "for an hour, then for no time");
}

#[test]
fn a_gateway_that_is_deaf_at_the_end_holds_nobody_up() {
    let here = place(14);
    let ended = play(async {
        let (orders, given) = mpsc::unbounded_channel();
        orders.send(Order::Want(true)).unwrap();
        let orders = Mutex::new(Some(orders));
        let ended = Mutex::new(None);
        let tell = |status| {
            if matches!(status, PortMappingStatus::Mapped(_)) {
                *crate::lock::lock(&ended) = Some(Instant::now());
                crate::lock::lock(&orders).take();
            }
        };
        let answer = |asked: &[u8]| (asked[6] != 0).then(|| granted_by_pcp(asked, 600));
        tokio::select! {
            () = hear(here, answer) => unreachable!(),
            () = run(given, PORT, move || Some(here), tell) => {}
        }
        let ended = crate::lock::lock(&ended).expect("it was mapped");
        ended.elapsed()
    });
    assert!(ended < Duration::from_secs(5), "{ended:?}");
}

/// A gateway of UPnP that says so often where its description is; what is asked there.
async fn point(place: Place, other: Option<Ipv4Addr>, asked: Given) {
    let web = TcpListener::bind((place.gateway, 0)).await.unwrap();
    let at = web.local_addr().unwrap();
    let search = UdpSocket::bind((place.gateway, upnp::PORT)).await.unwrap();
    let from_elsewhere = UdpSocket::bind((other.unwrap_or(place.gateway), 0)).await.unwrap();
    let mut buf = [0; 2000];
    loop {
        tokio::select! {
            came = search.recv_from(&mut buf) => {
                let (_, from) = came.unwrap();
                for n in 0..50 {
                    let found = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{at}/{n}.xml\r\n\r\n");
                    from_elsewhere.send_to(found.as_bytes(), from).await.unwrap();
                }
            }
            came = web.accept() => {
                let (mut stream, _) = came.unwrap();
                let order = order(&mut stream).await;
                crate::lock::lock(&asked).push(order);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
            }
        }
    }
}

#[test]
fn what_others_say_of_the_gateway_and_its_ever_new_descriptions_are_not_followed() {
    // The gateway itself, and another machine of the network.
    for (test, other, most) in [(61, None, 3), (62, Some(Ipv4Addr::new(127, 88, 62, 2)), 0)] {
        let asked = Given::default();
        let outcome = play(async {
            tokio::select! {
                outcome = ask_it(place(test)) => outcome,
                () = point(place(test), other, asked.clone()) => unreachable!(),
            }
        });
        assert!(outcome.is_err(), "{outcome:?}");
        let asked = given(&asked).len();
        assert!(asked <= most && (asked > 0) == (most > 0), "{test}: {asked}");
    }
}
