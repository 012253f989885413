//! Headers as an API shows them: a JSON object.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Names and values in the order of the text. One that is neither text nor number is left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeaderMap(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for HeaderMap {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = HeaderMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of headers")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<HeaderMap, M::Error> {
                let mut headers = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    match value {
                        Value::String(text) => headers.push((name, text)),
                        Value::Number(number) => headers.push((name, number.to_string())),
                        _ => {}
                    }
                }
                Ok(HeaderMap(headers))
            }
        }

        reader.deserialize_map(Pairs)
    }
}
