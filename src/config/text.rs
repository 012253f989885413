//! Settings that a file writes as text: what a flag takes, a file takes too.

use std::fmt::Display;
use std::str::FromStr;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de};

/// Reads a value the way a flag does.
pub(super) fn parsed<'de, T, D>(reader: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(reader)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

/// Reads a size the way a flag does.
pub(super) fn size<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<ByteSize>, D::Error> {
    let text = String::deserialize(reader)?;
    let wrong = |_| de::Error::custom("expected a size such as 500KiB, 10MiB or 1GiB");
    text.parse().map(Some).map_err(wrong)
}

/// Reads one text, or a list of them.
pub(super) fn texts<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    Texts::deserialize(reader).map(|Texts(texts)| texts)
}

/// One text, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> de::Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}
