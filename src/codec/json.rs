//! JSON objects taken apart without losing a byte: each field's value stays the text it was written as.
//!
//! Drive entries carry what other programs put into them, numbers beyond 2^53 and odd escapes included.
//! Whoever changes one field of an entry must give the others back as they were, so nothing here goes
//! through a tree of values.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Calls `each` with name and text of every field, in order. False if `text` is no JSON object, in which
/// case some fields may have been told before.
pub fn fields<'a>(text: &'a str, each: impl FnMut(&str, &'a str)) -> bool {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Fields(each)).is_ok() && json.end().is_ok()
}

/// The text of a field; of one that is there twice the last.
pub fn field<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let mut found = None;
    fields(text, |name, value| {
        if name == wanted {
            found = Some(value);
        }
    });
    found
}

/// A string; `None` for anything else, lone surrogates included.
pub fn string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

/// A number without a fraction, from 0 to 2^53 - 1, however it is written (`1e3` is one).
pub fn uint(text: &str) -> Option<u64> {
    let n = match text.parse::<u64>() {
        Ok(n) => n,
        Err(_) => {
            let n = number(text)?;
            (n >= 0.0 && n.fract() == 0.0 && n < super::MAX_INT as f64).then_some(n as u64)?
        }
    };
    (n <= super::MAX_INT).then_some(n)
}

/// A number.
pub fn number(text: &str) -> Option<f64> {
    serde_json::from_str(text).ok()
}

/// A string as JSON text, escaped as `JSON.stringify` does.
pub fn quote(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

/// The object `text` with field `name` set to the JSON `value`, or taken out; everything else verbatim and
/// in its order. `None` when no field is left. Anything but an object counts as an empty one.
pub fn with_field(text: &str, name: &str, value: Option<&str>) -> Option<String> {
    let mut parts = Vec::new();
    let mut value = value;
    let is_object = fields(text, |field, old| {
        if field != name {
            parts.push(format!("{}:{old}", quote(field)));
        } else if let Some(new) = value.take() {
            parts.push(format!("{}:{new}", quote(field)));
        }
    });
    if !is_object {
        parts.clear();
    }
    if let Some(new) = value {
        parts.push(format!("{}:{new}", quote(name)));
    }
    (!parts.is_empty()).then(|| format!("{{{}}}", parts.join(",")))
}

struct Fields<F>(F);

impl<'de, F: FnMut(&str, &'de str)> Visitor<'de> for Fields<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let value: &'de RawValue = map.next_value()?;
            (self.0)(&name, value.get());
        }
        Ok(())
    }
}

/// A field name, borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.into())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Option<Vec<(String, String)>> {
        let mut out = Vec::new();
        fields(text, |name, value| out.push((name.into(), value.into()))).then_some(out)
    }

    #[test]
    fn values_stay_as_they_were_written() {
        let text = r#"{"a": 1.50e1 ,"b\n":{"x":[ 1,  2]},"c":12345678901234567890123}"#;
        let own = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>())
        };
        let want =
            own(&[("a", "1.50e1"), ("b\n", r#"{"x":[ 1,  2]}"#), ("c", "12345678901234567890123")]);
        assert_eq!(pairs(text), want);
        for text in ["", "[]", "1", "{", r#"{"a":1} x"#, r#"{"a"}"#] {
            assert_eq!(pairs(text), None, "{text}");
        }
    }

    #[test]
    fn a_field_is_set_changed_and_taken_out() {
        let set = |text, name, value| with_field(text, name, value).unwrap_or_default();
        assert_eq!(set("null", "a", Some("1")), r#"{"a":1}"#);
        let two = r#"{"a":1,"b":2.0}"#;
        assert_eq!(set(two, "a", Some("3")), r#"{"a":3,"b":2.0}"#);
        assert_eq!(set(two, "c", Some("3")), r#"{"a":1,"b":2.0,"c":3}"#);
        assert_eq!(set(two, "a", None), r#"{"b":2.0}"#);
        assert_eq!(with_field(r#"{"a":1}"#, "a", None), None);
    }

    #[test]
    fn integers_are_exact_or_none() {
        assert_eq!(uint("9007199254740991"), Some(super::super::MAX_INT));
        for (text, want) in [("0", Some(0)), ("1e3", Some(1000)), ("2.0", Some(2))] {
            assert_eq!(uint(text), want);
        }
        for text in ["-1", "1.5", "9007199254740992", "1e300", "\"1\"", "null", "true"] {
            assert_eq!(uint(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,60}") {
            let _ = (pairs(&text), uint(&text), string(&text));
        }

        #[test]
        fn quoting_round_trips(text in any::<String>()) {
            prop_assert_eq!(string(&quote(&text)), Some(text));
        }
    }
}
