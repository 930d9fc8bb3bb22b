//! As much of HTTP/1.1 as it takes to ask a gateway: one request, one answer, then the connection ends.

use std::net::{Ipv4Addr, SocketAddrV4};

/// A description of a gateway has 5 to 30 KB.
pub const MAX_ANSWER: usize = 128 << 10;
const MAX_HEAD: usize = 8 << 10;
/// A longer path is not one of a gateway.
const MAX_PATH: usize = 512;

/// Where at a gateway. There is no other host in it on purpose: nobody else is ever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub at: SocketAddrV4,
    path: String,
}

impl Url {
    /// None for everything that is not at `gateway`, by its number.
    pub fn parse(text: &str, gateway: Ipv4Addr) -> Option<Self> {
        let text = text.trim();
        let scheme = text.get(..7)?;
        let rest = text.get(7..).filter(|_| scheme.eq_ignore_ascii_case("http://"))?;
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (ip, port) = host.split_once(':').unwrap_or((host, "80"));
        let (ip, port): (Ipv4Addr, u16) = (ip.parse().ok()?, port.parse().ok()?);
        let at = SocketAddrV4::new(ip, port);
        (ip == gateway && port != 0).then(|| Self { at, path: String::new() })?.with(path)
    }

    /// What `text` means where this is the base.
    pub fn join(&self, text: &str) -> Option<Self> {
        let text = text.trim();
        if text.contains("://") {
            return Self::parse(text, *self.at.ip());
        }
        let folder = self.path.rfind('/').and_then(|at| self.path.get(..=at)).unwrap_or("/");
        match text.starts_with('/') {
            true => self.with(text),
            false => self.with(&format!("{folder}{text}")),
        }
    }

    fn with(&self, path: &str) -> Option<Self> {
        // A line of its own in the request would be a header of somebody else's.
        let plain = path.len() <= MAX_PATH && path.bytes().all(|b| b.is_ascii_graphic());
        plain.then(|| Self { at: self.at, path: path.to_string() })
    }

    pub fn get(&self) -> String {
        let Self { at, path } = self;
        format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")
    }

    /// `action` is what SOAP calls the header of its method.
    pub fn post(&self, action: &str, body: &str) -> String {
        let (Self { at, path }, len) = (self, body.len());
        format!(
            "POST {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
             Content-Length: {len}\r\nSOAPAction: \"{action}\"\r\n\r\n{body}"
        )
    }
}

/// An answer that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// How far an answer is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    More,
    Done(Answer),
    /// No answer, or more than it may be.
    Bad,
}

/// Reads what has come; `ended` if nothing more comes.
pub fn read(bytes: &[u8], ended: bool) -> Progress {
    let more = || if ended { Progress::Bad } else { Progress::More };
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Progress::Bad } else { more() };
    };
    let (Some(head), Some(body)) = (bytes.get(..end), bytes.get(end + 4..)) else {
        return Progress::Bad;
    };
    let head = String::from_utf8_lossy(head);
    let Some(status) = status(&head) else { return Progress::Bad };
    let done = |body: &[u8]| {
        let body = String::from_utf8_lossy(body).into_owned();
        Progress::Done(Answer { status, body })
    };
    if header(&head, "transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
        return match chunks(body) {
            Ok(Some(body)) => done(&body),
            Ok(None) => more(),
            Err(()) => Progress::Bad,
        };
    }
    match header(&head, "content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length > MAX_ANSWER => Progress::Bad,
        Some(Ok(length)) => body.get(..length).map_or_else(more, done),
        Some(Err(_)) => Progress::Bad,
        None if ended => done(body),
        None => Progress::More,
    }
}

fn status(head: &str) -> Option<u16> {
    let mut words = head.lines().next()?.split_ascii_whitespace();
    words.next()?.starts_with("HTTP/1.").then(|| words.next()?.parse().ok())?
}

/// The value of a header, of an answer of SSDP too.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The pieces of a body, put together; none if some are missing.
fn chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut whole = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let line = rest.get(..end).and_then(|line| std::str::from_utf8(line).ok()).ok_or(())?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(drop)?;
        if size > MAX_ANSWER {
            return Err(());
        }
        let start = end + 2;
        if size == 0 {
            return Ok(Some(whole));
        }
        let Some(piece) = rest.get(start..start + size) else { return Ok(None) };
        whole.extend_from_slice(piece);
        let Some(after) = rest.get(start + size + 2..) else { return Ok(None) };
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    #[test]
    fn a_url_leads_to_the_gateway_and_nowhere_else() {
        let parse = |text| Url::parse(text, GATEWAY);
        let url = parse("http://192.168.1.1:5000/upnp/root.xml").unwrap();
        assert_eq!((url.at.port(), url.path.as_str()), (5000, "/upnp/root.xml"));
        assert_eq!(parse(" HTTP://192.168.1.1 ").unwrap().at.port(), 80);
        assert_eq!(url.join("/ctl").unwrap().path, "/ctl");
        assert_eq!(url.join("ctl?x=1").unwrap().path, "/upnp/ctl?x=1");
        assert_eq!(url.join("http://192.168.1.1:81/c").unwrap().at.port(), 81);
        for foreign in [
            "http://192.168.1.2/",
            "http://127.0.0.1:5000/",
            "http://192.168.1.1.example.org/",
            "http://192.168.1.1@20.0.0.1/",
            "http://20.0.0.1:80@192.168.1.1/",
            "http://gateway.local/",
            "http://[::1]/",
            "https://192.168.1.1/",
            "file:///etc/passwd",
            "http://192.168.1.1:0/",
            "http://192.168.1.1:70000/",
            "http://192.168.1.1/a b",
            "http://192.168.1.1/a\r\nHost: x",
            "http://192.168.1.1/ä",
            "",
        ] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
        assert_eq!(url.join("http://20.0.0.1/ctl"), None);
        assert_eq!(url.join("//20.0.0.1/ctl").unwrap().at.ip(), &GATEWAY);
        assert_eq!(url.join(&"x".repeat(MAX_PATH + 1)), None);
    }

    #[test]
    fn an_answer_is_read_however_it_says_where_it_ends() {
        let done = |status, body: &str| Progress::Done(Answer { status, body: body.into() });
        let long = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello and more";
        assert_eq!(read(long, false), done(200, "hello"));
        assert_eq!(read(&long[..40], false), Progress::More);
        assert_eq!(read(&long[..40], true), Progress::Bad);
        let open = b"HTTP/1.0 500 No\r\nServer: x\r\n\r\nwhy";
        assert_eq!(read(open, false), Progress::More);
        assert_eq!(read(open, true), done(500, "why"));
        let pieces =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n";
        assert_eq!(read(pieces, false), done(200, "hello"));
        assert_eq!(read(&pieces[..60], false), Progress::More);
    }

    #[test]
    fn what_is_no_answer_or_too_much_is_refused() {
        for bad in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        ] {
            assert_eq!(read(bad, false), Progress::Bad, "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(read(&vec![b'x'; MAX_HEAD + 1], false), Progress::Bad);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(bytes: Vec<u8>, text: String, ended: bool) {
            let _ = read(&bytes, ended);
            let framed = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", bytes.as_slice()].concat();
            let _ = read(&framed, ended);
            let _ = Url::parse(&text, GATEWAY);
            let _ = Url::parse(&format!("http://192.168.1.1{text}"), GATEWAY);
        }
    }
}
