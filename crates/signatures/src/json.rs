//! One value out of a JSON text, in memory that does not grow with the text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The text or whole number at `path`, names with dots between them; `0` is an array's first.
pub(crate) fn find(json: &[u8], path: &str) -> Option<String> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let found = Seek(Some(path)).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    found
}

/// What remains of a path; `None` at its end.
struct Seek<'p>(Option<&'p str>);

impl<'p> Seek<'p> {
    /// The next name, and what remains behind it.
    fn step(&self) -> Option<(&'p str, Self)> {
        let path = self.0?;
        Some(match path.split_once('.') {
            Some((name, rest)) => (name, Self(Some(rest))),
            None => (path, Self(None)),
        })
    }

    fn here(&self, value: impl ToString) -> Option<String> {
        self.0.is_none().then(|| value.to_string())
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match self.step() {
                Some((name, rest)) if name == key => found = map.next_value_seed(rest)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let found = match self.step() {
            Some(("0", rest)) => seq.next_element_seed(rest)?.flatten(),
            _ => None,
        };
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.here(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.here(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.here(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_text_or_a_whole_number_and_nothing_else() {
        let json =
            br#"{"a":{"b":["c",{"d":1}]},"n":-7,"f":1.5,"t":true,"z":null,"a.b":"no","":"e"}"#;
        for (path, found) in [
            ("a.b.0", Some("c")),
            ("n", Some("-7")),
            ("", Some("e")),
            ("a", None),
            ("a.b", None),
            ("a.b.1", None),
            ("a.b.0.d", None),
            ("f", None),
            ("t", None),
            ("z", None),
            ("q", None),
        ] {
            assert_eq!(find(json, path).as_deref(), found, "{path}");
        }
        assert_eq!(find(b"[{\"a\":1},{\"a\":2}]", "0.a").as_deref(), Some("1"));
        assert_eq!(find(b"{\"a\":1,\"a\":2}", "a").as_deref(), Some("2"));
        for broken in ["", "{", "{\"a\":1}x", "{\"a\":1,}", "a"] {
            assert_eq!(find(broken.as_bytes(), "a"), None, "{broken}");
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(find(deep.as_bytes(), "0.0"), None);
        let deep = format!("{{\"x\":{deep}");
        assert_eq!(find(deep.as_bytes(), "a"), None);
    }
}
