//! Bytes as text, four characters for three: the alphabet with `+` and `/`, padded, as JavaScript's `Buffer` writes it.
//!
//! Decoding takes only what encoding gives: no line breaks, no other alphabet, no bits that mean nothing.
//!
//! Source: RFC 4648, section 4

pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let missing = 3 - three.len();
        let n = three.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)) << (8 * missing);
        out.extend([18, 12, 6, 0].iter().take(4 - missing).map(|shift| digit(n >> shift)));
        out.extend(std::iter::repeat_n('=', missing));
    }
    out
}

pub fn decode(text: &str) -> Option<Vec<u8>> {
    let padded = text.as_bytes();
    if !padded.len().is_multiple_of(4) {
        return None;
    }
    let digits = padded.strip_suffix(b"==").or_else(|| padded.strip_suffix(b"="));
    let digits = digits.unwrap_or(padded);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for four in digits.chunks(4) {
        let mut n = 0;
        for digit in four {
            n = n << 6 | value(*digit)?;
        }
        n <<= 6 * (4 - four.len());
        let bytes = four.len() - 1;
        if n & (0xff_ffff >> (8 * bytes)) != 0 {
            return None;
        }
        out.extend(n.to_be_bytes().iter().skip(1).take(bytes));
    }
    Some(out)
}

fn digit(n: u32) -> char {
    let n = (n & 63) as u8;
    char::from(match n {
        0..26 => b'A' + n,
        26..52 => b'a' + (n - 26),
        52..62 => b'0' + (n - 52),
        62 => b'+',
        _ => b'/',
    })
}

fn value(digit: u8) -> Option<u32> {
    let n = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(n.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_written_as_the_standard_says() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(encode(&[0xfb, 0xff, 0xbf]), "+/+/");
        for text in ["Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm9-", "é=="] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn a_text_that_is_taken_is_what_would_be_written(text in "[A-D+/=]{0,9}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
