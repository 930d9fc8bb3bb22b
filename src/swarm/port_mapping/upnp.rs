//! The messages of UPnP that ask a gateway for a mapping: SSDP to find its description, the description to find where it
//! takes orders, SOAP to give them.
//!
//! Of XML no more is understood than where the text of a named element stands. What a gateway writes decides which of three
//! known services is used, at which path, and a number; nothing of it gets into a request but that path.

use super::http::{self, Answer, Url};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where devices are looked for, by multicast and at the gateway itself.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), PORT);
pub const PORT: u16 = 1900;
/// What is looked for there: gateways of both versions, and what some of those answer to alone.
pub const TARGETS: [&str; 3] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
];
/// Services of a description that are tried.
pub const MAX_SERVICES: usize = 4;

/// What can map ports, the best first.
const KINDS: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// Errors that say what to try instead.
pub const INVALID_ARGS: u32 = 402;
pub const CONFLICT: u32 = 718;
pub const ONLY_PERMANENT: u32 = 725;

/// Where a gateway takes orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    kind: &'static str,
    control: Url,
}

/// A question to everybody, or to the gateway alone.
pub fn search(target: &str) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {GROUP}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
    )
}

/// Where the description is, as the gateway answers to that.
pub fn location(answer: &[u8], gateway: Ipv4Addr) -> Option<Url> {
    let answer = std::str::from_utf8(answer).ok()?;
    let found = answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200");
    Url::parse(http::header(answer, "location").filter(|_| found)?, gateway)
}

/// What a description, read from `at`, has to offer.
pub fn services(description: &str, at: &Url) -> Vec<Service> {
    let base = element(description, "URLBase").and_then(|base| at.join(base));
    let base = base.as_ref().unwrap_or(at);
    let mut found = Vec::new();
    for service in description.split("<service>").skip(1) {
        let service = service.split("</service>").next().unwrap_or_default();
        let kind = element(service, "serviceType");
        let kind = KINDS.iter().position(|known| kind == Some(known));
        let control = element(service, "controlURL").map(|url| url.replace("&amp;", "&"));
        if let (Some(rank), Some(control)) = (kind, control.and_then(|url| base.join(&url)))
            && let Some(kind) = KINDS.get(rank)
        {
            found.push((rank, Service { kind, control }));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, service)| service).take(MAX_SERVICES).collect()
}

/// A port to be mapped.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub own: Ipv4Addr,
    pub port: u16,
    pub external: u16,
    /// In seconds; 0 for good.
    pub lease: u64,
}

impl Service {
    pub fn at(&self) -> SocketAddrV4 {
        self.control.at
    }

    pub fn add(&self, wish: &Wish) -> String {
        let Wish { own, port, external, lease } = wish;
        self.order(
            "AddPortMapping",
            &format!(
                "<NewRemoteHost></NewRemoteHost><NewExternalPort>{external}</NewExternalPort>\
                 <NewProtocol>UDP</NewProtocol><NewInternalPort>{port}</NewInternalPort>\
                 <NewInternalClient>{own}</NewInternalClient><NewEnabled>1</NewEnabled>\
                 <NewPortMappingDescription>hdrive</NewPortMappingDescription>\
                 <NewLeaseDuration>{lease}</NewLeaseDuration>"
            ),
        )
    }

    pub fn remove(&self, external: u16) -> String {
        self.order(
            "DeletePortMapping",
            &format!(
                "<NewRemoteHost></NewRemoteHost><NewExternalPort>{external}</NewExternalPort>\
                 <NewProtocol>UDP</NewProtocol>"
            ),
        )
    }

    pub fn address(&self) -> String {
        self.order("GetExternalIPAddress", "")
    }

    fn order(&self, method: &str, arguments: &str) -> String {
        let kind = self.kind;
        let body = format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{method} xmlns:u=\"{kind}\">{arguments}</u:{method}></s:Body></s:Envelope>\r\n"
        );
        self.control.post(&format!("{kind}#{method}"), &body)
    }
}

/// What became of an order: the number of the error, if the gateway named one.
pub fn outcome(answer: &Answer) -> Result<(), Option<u32>> {
    match answer.status {
        200 => Ok(()),
        _ => Err(element(&answer.body, "errorCode").and_then(|code| code.parse().ok())),
    }
}

/// What it answers to [`Service::address`].
pub fn external_address(answer: &Answer) -> Option<Ipv4Addr> {
    element(&answer.body, "NewExternalIPAddress")?.parse().ok()
}

/// The text of the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    xml.split('<').find_map(|piece| {
        let rest = piece.strip_prefix(name)?;
        let (attributes, text) = rest.split_once('>')?;
        let ends = attributes.is_empty() || attributes.starts_with(char::is_whitespace);
        ends.then(|| text.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn at() -> Url {
        Url::parse("http://192.168.1.1:5000/a/root.xml", GATEWAY).unwrap()
    }

    /// With the elements that those of miniupnpd have, among others.
    fn description(base: &str, kind: &str, control: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\r\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\">{base}<device><serviceList>\
             <service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
             <controlURL>/ctl/L3F</controlURL></service></serviceList><deviceList><device><serviceList><service>\r\n\
             <serviceType> {kind} </serviceType><serviceId>x</serviceId>\r\n<controlURL>{control}</controlURL>\
             <eventSubURL>/evt</eventSubURL></service></serviceList></device></deviceList></device></root>"
        )
    }

    #[test]
    fn a_gateway_is_found_by_its_answer() {
        let answer =
            b"HTTP/1.1 200 OK\r\nST: x\r\nLocation: http://192.168.1.1:5000/root.xml\r\n\r\n";
        assert_eq!(
            location(answer, GATEWAY),
            Url::parse("http://192.168.1.1:5000/root.xml", GATEWAY)
        );
        assert_eq!(location(answer, [192, 168, 1, 2].into()), None, "said by somebody else");
        assert_eq!(
            location(b"NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n", GATEWAY),
            None
        );
        assert_eq!(location(b"\xff\xfe", GATEWAY), None);
    }

    #[test]
    fn its_services_are_found_where_they_are_at_the_gateway() {
        let found = |base, kind, control| {
            let found = services(&description(base, kind, control), &at());
            found.first().map(|service| (service.kind, service.add(&WISH)))
        };
        let (kind, order) = found("", KINDS[1], "/ctl/IPConn?a=1&amp;b=2").unwrap();
        assert_eq!(kind, KINDS[1]);
        assert!(
            order.starts_with("POST /ctl/IPConn?a=1&b=2 HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n")
        );
        let base = "<URLBase>http://192.168.1.1:80/b/</URLBase>";
        assert!(
            found(base, KINDS[2], "c")
                .unwrap()
                .1
                .starts_with("POST /b/c HTTP/1.1\r\nHost: 192.168.1.1:80")
        );
        assert_eq!(found("", KINDS[0], "http://20.0.0.1/ctl"), None);
        assert_eq!(found("", "urn:schemas-upnp-org:service:Evil:1", "/ctl"), None);
        let elsewhere = "<URLBase>http://20.0.0.1/</URLBase>";
        let (_, order) = found(elsewhere, KINDS[0], "/ctl").unwrap();
        assert!(order.contains("Host: 192.168.1.1:5000\r\n"));
    }

    const WISH: Wish =
        Wish { own: Ipv4Addr::new(192, 168, 1, 7), port: 40_000, external: 40_001, lease: 3600 };

    #[test]
    fn the_best_service_comes_first_and_there_are_few() {
        let many: String = (0..100)
            .map(|n| {
                let kind = KINDS[2 - n % 3];
                format!("<service><serviceType>{kind}</serviceType><controlURL>/{n}</controlURL></service>")
            })
            .collect();
        let found = services(&many, &at());
        assert_eq!(found.len(), MAX_SERVICES);
        assert!(found.iter().all(|service| service.kind == KINDS[0]));
    }

    #[test]
    fn orders_and_what_becomes_of_them_are_read() {
        let service = services(&description("", KINDS[1], "/c"), &at()).remove(0);
        let order = service.add(&WISH);
        for part in [
            "SOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"",
            "<NewExternalPort>40001</NewExternalPort><NewProtocol>UDP</NewProtocol><NewInternalPort>40000</NewInternalPort>",
            "<NewInternalClient>192.168.1.7</NewInternalClient>",
            "<NewLeaseDuration>3600</NewLeaseDuration>",
        ] {
            assert!(order.contains(part), "{part} in {order}");
        }
        let body = order.split("\r\n\r\n").nth(1).unwrap();
        assert!(order.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(service.remove(9).contains("<NewExternalPort>9</NewExternalPort>"));

        let answer = |status, body: &str| Answer { status, body: body.into() };
        assert_eq!(outcome(&answer(200, "")), Ok(()));
        let fault =
            "<s:Fault><detail><UPnPError><errorCode>725</errorCode></UPnPError></detail></s:Fault>";
        assert_eq!(outcome(&answer(500, fault)), Err(Some(ONLY_PERMANENT)));
        assert_eq!(outcome(&answer(404, "<errorCode>x</errorCode>")), Err(None));
        let told = "<u:X><NewExternalIPAddress dt=\"s\">20.0.0.1</NewExternalIPAddress></u:X>";
        assert_eq!(external_address(&answer(200, told)), Some([20, 0, 0, 1].into()));
        assert_eq!(external_address(&answer(200, "<NewExternalIPAddressX>20.0.0.1<")), None);
    }

    proptest! {
        #[test]
        fn whatever_a_gateway_writes_is_read_or_not(text: String, bytes: Vec<u8>) {
            let _ = services(&text, &at());
            let _ = services(&description(&text, KINDS[0], &text), &at());
            let _ = location(&bytes, GATEWAY);
            for service in services(&description("", KINDS[1], &text), &at()) {
                prop_assert_eq!(*service.at().ip(), GATEWAY);
            }
        }
    }
}
