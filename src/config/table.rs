//! One table of a file, read so that everything that is wrong with it is found at once.

use std::ops::Range;

use serde::de::{self, DeserializeOwned};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::problem::Problem;

/// Reads a table, of which no key may be missing in `T`; whatever is wrong is added to `problems`
/// and left out. A type that is read like this has a default for each of its fields.
pub(super) fn read<T: DeserializeOwned + Default>(
    table: &Spanned<DeTable<'_>>,
    problems: &mut Vec<Problem>,
) -> T {
    let known = field_names::<T>();
    let mut good = DeTable::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref();
        if !known.contains(&&**name) {
            problems.push(unknown(key.span(), name, known));
            continue;
        }
        // Alone, so that the next one is looked at as well.
        let alone = DeTable::from_iter([(key.clone(), value.clone())]);
        match T::deserialize(Deserializer::from(Spanned::new(table.span(), alone))) {
            Ok(_) => {
                good.insert(key.clone(), value.clone());
            }
            Err(error) => {
                let place = error.span().unwrap_or_else(|| value.span());
                problems.push(in_words(place, error.message()));
            }
        }
    }
    // Each of what is left has been read before.
    T::deserialize(Deserializer::from(Spanned::new(table.span(), good))).unwrap_or_default()
}

/// What is wrong with a value, in the words of those who write files, and without the value: it may
/// be a secret.
fn in_words(place: Range<usize>, message: &str) -> Problem {
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return Problem::new(place, message);
    };
    if let Some(name) = found.strip_prefix("unknown field ") {
        // Each name is between two of these.
        let known: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        return unknown(place, name.trim_matches('`'), &known);
    }
    let expected = match expected {
        "a string" | "path string" => "a text",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "u16" | "u32" | "u64" | "usize" => "a number, 0 or more",
        "a nonzero u32" => "a number, 1 or more",
        other if other == "a map" || other.starts_with("struct ") => "a table",
        other => other,
    };
    Problem::new(place, format!("expected {expected}"))
}

/// A key that nobody knows, with the one that was perhaps meant.
pub(super) fn unknown(place: Range<usize>, name: &str, known: &[&str]) -> Problem {
    Problem {
        hint: Some(meant(name, known)),
        ..Problem::new(place, format!("unknown key `{name}`"))
    }
}

/// Which name was perhaps meant, or else which there are.
pub(super) fn meant(name: &str, known: &[&str]) -> String {
    let close = known
        .iter()
        .map(|known| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), known),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= known.len().max(4) / 3 + 1)
        .min_by_key(|(distance, _)| *distance);
    match close {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("there are {}", known.join(", ")),
    }
}

/// Where the value of a key is, or one of the values in its list; `a.b` is `b` in the table `a`.
pub(super) fn place(table: &DeTable<'_>, key: &str, item: Option<usize>) -> Option<Range<usize>> {
    if let Some((outer, inner)) = key.split_once('.') {
        let outer = table.get(outer)?;
        let DeValue::Table(table) = outer.get_ref() else {
            return Some(outer.span());
        };
        return place(table, inner, item).or_else(|| Some(outer.span()));
    }
    let value = table.get(key)?;
    match (value.get_ref(), item) {
        (DeValue::Array(list), Some(at)) => Some(list.get(at)?.span()),
        _ => Some(value.span()),
    }
}

/// The names of a type's fields, in the order in which it has them.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It reads nothing; what it is asked for is all that is wanted.
    let _ = T::deserialize(Names(&mut names));
    names
}

/// Finds out which fields it is asked for.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> serde::Deserializer<'de> for Names<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only structs have fields"))
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
