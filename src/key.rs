//! The 32-byte names of things, and the forms in which people write them.
//!
//! Each kind of name is a type of its own, so that a discovery key is never used where a core key is
//! meant. Text forms: z-base-32 (52 characters, what we print), hex (64), and both inside `hyper://` or
//! `pear://` links.
//!
//! Source: hypercore-id-encoding, z32, pear-link

mod address;

pub use address::Address;

use crate::crypto::hash;
use std::fmt;
use std::net::SocketAddrV4;
use std::str::FromStr;

/// Eight hex digits, enough to tell keys apart in a log.
pub fn short(bytes: &[u8; 32]) -> String {
    bytes.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes of a hex string of even length.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}

macro_rules! name32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }
        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&z32(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), short(&self.0))
            }
        }
    };
}

name32!(
    /// The key of a core: its manifest's hash, or the signer's public key for a compat core.
    CoreKey
);
name32!(
    /// What a core is announced and paired under; derived from its [`CoreKey`].
    DiscoveryKey
);
name32!(
    /// An Ed25519 public key: a peer's identity.
    PublicKey
);
name32!(
    /// What peers meet under in the DHT: for a drive, the discovery key of its first core.
    Topic
);
name32!(
    /// A DHT node's id, the hash of its address, or a target in that space.
    NodeId
);

impl CoreKey {
    pub fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey(hash::discovery_key(&self.0))
    }
}

impl From<DiscoveryKey> for Topic {
    fn from(key: DiscoveryKey) -> Self {
        Self(key.0)
    }
}

const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// The z-base-32 form: 52 characters, big-endian groups of five bits.
pub fn z32(bytes: &[u8; 32]) -> String {
    z32_of(bytes)
}

/// The same of any number of bytes; the bits that fill the last character up are zero.
fn z32_of(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut acc, mut bits) = (0u32, 0);
    for &b in bytes {
        acc = acc << 8 | u32::from(b);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(ALPHABET[(acc >> bits & 31) as usize] as char);
        }
    }
    if bits > 0 {
        out.push(ALPHABET[(acc << (5 - bits) & 31) as usize] as char);
    }
    out
}

/// The bytes of such a text.
fn unz32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut acc, mut bits) = (0u32, 0);
    for c in text.chars() {
        let value = ALPHABET.iter().position(|&a| a as char == c)?;
        acc = (acc << 5 | value as u32) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((acc >> bits) as u8);
        }
    }
    // Less than a character may be left, of zeros.
    (bits < 5 && acc & ((1 << bits) - 1) == 0).then_some(bytes)
}

/// Characters of a key in z-base-32. With hints it begins with the same.
const BARE: usize = 52;

/// Why a text is not a key. Each message says what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key has 52 z-base-32 or 64 hex characters, or more with hints; this has {0}")]
    Length(usize),
    #[error(
        "its first {BARE} characters are a key, and what follows are broken hints (it has {0} characters): copy all of it, \
         or only those {BARE}"
    )]
    Hints(usize),
    #[error("such a key has 52 z-base-32 or 64 hex characters, and no hints; this has {0}")]
    Bare(usize),
    #[error("character {position} of the key is '{found}': a {form} key is made of {alphabet}")]
    Character { position: usize, found: char, form: &'static str, alphabet: &'static str },
    #[error("{0}: a link is pear://[FORK.LENGTH.]KEY[/PATH] or hyper://KEY[/PATH]")]
    Link(String),
}

/// The 32 bytes of a key in z-base-32 or hex.
pub fn parse_key(text: &str) -> Result<[u8; 32], KeyError> {
    let wrong = |i: usize, found, form, alphabet| KeyError::Character {
        position: i + 1,
        found,
        form,
        alphabet,
    };
    match text.chars().count() {
        64 => {
            if let Some((i, c)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
                return Err(wrong(i, c, "hex", "0-9 and a-f"));
            }
            let bytes = unhex(text).unwrap_or_default();
            bytes.try_into().map_err(|_| KeyError::Length(text.len()))
        }
        52 => {
            let mut bytes = Vec::with_capacity(33);
            let (mut acc, mut bits) = (0u32, 0);
            for (i, c) in text.chars().enumerate() {
                let letters = match c.is_uppercase() {
                    true => "ybndrfg8ejkmcpqxot1uwisza345h769, in lower case",
                    false => "ybndrfg8ejkmcpqxot1uwisza345h769",
                };
                let value = ALPHABET
                    .iter()
                    .position(|&a| a as char == c)
                    .ok_or_else(|| wrong(i, c, "z-base-32", letters))?;
                acc = (acc << 5 | value as u32) & 0xfff;
                bits += 5;
                if bits >= 8 {
                    bits -= 8;
                    bytes.push((acc >> bits) as u8);
                }
            }
            bytes.truncate(32);
            bytes.try_into().map_err(|_| KeyError::Length(52))
        }
        n => Err(KeyError::Length(n)),
    }
}

impl FromStr for CoreKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse_key(text).map(Self)
    }
}

/// [`parse_key`] of what is no drive's, where hints say nothing.
pub fn parse_bare_key(text: &str) -> Result<[u8; 32], KeyError> {
    parse_key(text).map_err(|error| match error {
        KeyError::Length(n) => KeyError::Bare(n),
        error => error,
    })
}

impl FromStr for PublicKey {
    type Err = KeyError;
    /// Space around it is left away: of a list a person writes some between keys.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        parse_bare_key(text.trim()).map(Self)
    }
}

/// A key as a person wrote it, with what a link may add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveLink {
    pub key: CoreKey,
    /// Where somebody may be found who has it, as the key itself says.
    pub nodes: Vec<SocketAddrV4>,
    /// The core fork a `pear://` link names.
    pub fork: Option<u64>,
    /// The version (core length) a link names; 0 means "latest" and is read as none.
    pub version: Option<u64>,
    /// The path behind the key, without its leading slash; empty when there is none.
    pub path: String,
}

impl FromStr for DriveLink {
    type Err = KeyError;

    /// Behind a bare key everything is the path, character by character. Only a link has a query, a fragment,
    /// `%20` for a space, and a version in its path.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let Some(rest) = link_body(text) else {
            let (key, path) = text.split_once('/').unwrap_or((text, ""));
            let path = path.trim_matches('/').to_string();
            let Address { key, nodes } = key.parse()?;
            return Ok(Self { key, nodes, fork: None, version: None, path });
        };
        let rest = rest.split(['?', '#']).next().unwrap_or(rest);
        let (host, mut path) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some((key, version)) = host.split_once('+') {
            return Err(KeyError::Link(format!("a version is written pear://0.{version}.{key}")));
        }
        let parts: Vec<&str> = host.split('.').collect();
        let number = |s: &str| match s {
            "" => Ok(0),
            _ => s.parse().map_err(|_| KeyError::Link(format!("'{s}' is not a number"))),
        };
        let (fork, mut length, key) = match parts[..] {
            [key] => (None, 0, key),
            [fork, length, key] | [fork, length, key, _] => {
                (Some(number(fork)?), number(length)?, key)
            }
            _ => return Err(KeyError::Link(format!("'{host}' has {} parts", parts.len()))),
        };
        if let Some(rest) = path.strip_prefix("$/version/") {
            let (n, behind) = rest.split_once('/').unwrap_or((rest, ""));
            length = number(n)?;
            path = behind;
        }
        let Address { key, nodes } = key.parse()?;
        Ok(Self {
            key,
            nodes,
            fork,
            version: (length > 0).then_some(length),
            path: percent_decoded(path.trim_matches('/'))?,
        })
    }
}

/// What follows `hyper://` or `pear://`; none for a text that is no link.
fn link_body(text: &str) -> Option<&str> {
    ["hyper://", "pear://"].iter().find_map(|scheme| text.strip_prefix(scheme))
}

/// Whether a text is a link, and so never the name of a drive.
pub fn is_link(text: &str) -> bool {
    link_body(text).is_some()
}

/// `a%20b` as `a b`.
fn percent_decoded(text: &str) -> Result<String, KeyError> {
    let wrong = || KeyError::Link(format!("'{text}' has a '%' that is no character of UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
        bytes.push((high << 4 | low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn z32_and_hex_round_trip(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(parse_key(&z32(&bytes)), Ok(bytes));
            prop_assert_eq!(parse_key(&hex(&bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_parses_or_errs(text in "\\PC{0,80}") {
            let _ = text.parse::<DriveLink>();
        }
    }

    #[test]
    fn keys_are_read_as_by_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/drive.json");
        let vectors: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let ids = &vectors["ids"];
        let key: CoreKey = ids["key"].as_str().unwrap().parse().unwrap();
        assert_eq!(key.to_string(), ids["z32"].as_str().unwrap());
        for case in ids["decode"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            let found = text.parse::<DriveLink>().ok().map(|link| hex(&link.key.0));
            // Links with a version, and those of the other scheme, are taken here and not there.
            let ours = text.starts_with("hyper://") || text.starts_with("pear://0.12.");
            let want = if ours { Some(hex(&key.0)) } else { case[1].as_str().map(str::to_owned) };
            assert_eq!(found, want, "{text}");
        }
    }

    #[test]
    fn links_give_key_version_and_path() {
        let key = z32(&[7; 32]);
        let link: DriveLink = format!("pear://2.41.{key}/a/b?x#y").parse().unwrap();
        assert_eq!((link.fork, link.version, link.path.as_str()), (Some(2), Some(41), "a/b"));
        let link: DriveLink = format!("hyper://{key}/$/version/9/c").parse().unwrap();
        assert_eq!((link.version, link.path.as_str()), (Some(9), "c"));
        assert_eq!(link.key, CoreKey([7; 32]));
    }

    #[test]
    fn a_link_is_decoded_and_what_stands_behind_a_bare_key_is_not() {
        let key = z32(&[7; 32]);
        let path = |text: String| text.parse::<DriveLink>().map(|link| (link.version, link.path));
        for literal in ["what?", "#old", "a%20b", "a?b#c", "$/version/9/c", "http://x", "50%"] {
            assert_eq!(path(format!("{key}/{literal}")), Ok((None, literal.into())), "{literal}");
        }
        for (typed, meant) in [("a%20b?x", "a b"), ("%C3%bc#y", "ü"), ("a%3F%23", "a?#")] {
            for scheme in ["hyper", "pear"] {
                let text = format!("{scheme}://{key}/{typed}");
                assert_eq!(path(text), Ok((None, meant.into())), "{typed}");
            }
        }
        for wrong in ["50%", "%f", "%zz", "%ff"] {
            assert!(path(format!("hyper://{key}/{wrong}")).is_err(), "{wrong}");
        }
        assert!(path(format!("{key}?x")).is_err() && path(format!("http://{key}")).is_err());
    }

    #[test]
    fn a_wrong_character_is_named_with_its_place() {
        let mut text = z32(&[7; 32]);
        text.replace_range(4..5, "0");
        let error = parse_key(&text).unwrap_err().to_string();
        assert!(error.contains("character 5") && error.contains("'0'"), "{error}");
        let error = parse_key(&z32(&[7; 32]).to_uppercase()).unwrap_err().to_string();
        assert!(error.ends_with("in lower case"), "{error}");
    }

    #[test]
    fn a_wrong_length_says_what_is_accepted() {
        assert!(parse_key("abc").unwrap_err().to_string().contains("52 z-base-32 or 64 hex"));
    }

    #[test]
    fn a_version_behind_a_plus_is_told_how_it_is_written() {
        let key = CoreKey([7; 32]);
        let error = format!("hyper://{key}+2").parse::<DriveLink>().unwrap_err().to_string();
        assert!(error.contains(&format!("pear://0.2.{key}")), "{error}");
        let written = format!("pear://0.2.{key}").parse::<DriveLink>().unwrap();
        assert_eq!((written.key, written.version), (key, Some(2)));
    }
}
