//! JSON as templates see it: what a payload may cost is bounded before anybody looks at it.

use std::cell::Cell;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt, ObjectRepr, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::absent::or_absent;

/// Parses a text that is one JSON value, of at most [`MAX_VALUES`] values and of the depth that
/// serde_json allows.
pub(crate) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let left = Cell::new(MAX_VALUES);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Node { left: &left }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// How many values one text may hold. `[[],[],…` takes thirty times its own length.
const MAX_VALUES: u32 = 1 << 20;

/// An object, its fields in their order; of two with one name the last one counts.
#[derive(Debug)]
struct Fields {
    fields: Vec<(Value, Value)>,
    /// The order of the names, where there are too many to look at each.
    sorted: Box<[u32]>,
}

impl Fields {
    fn new(fields: Vec<(Value, Value)>) -> Self {
        let mut sorted = Vec::new();
        if fields.len() > FEW {
            sorted.extend(0..u32::try_from(fields.len()).unwrap_or(u32::MAX));
            sorted.sort_by_key(|at| name(&fields, *at));
        }
        Self {
            fields,
            sorted: sorted.into(),
        }
    }

    fn find(&self, key: &str) -> Option<&Value> {
        if self.sorted.is_empty() {
            let mut fields = self.fields.iter().rev();
            return fields
                .find(|(name, _)| name.as_str() == Some(key))
                .map(|(_, value)| value);
        }
        let end = self
            .sorted
            .partition_point(|at| name(&self.fields, *at) <= key);
        let at = *self.sorted.get(end.checked_sub(1)?)?;
        let (_, value) = self.fields.get(at as usize)?;
        (name(&self.fields, at) == key).then_some(value)
    }
}

/// The name of the field at a place; there is one at every place that is asked for.
fn name(fields: &[(Value, Value)], at: u32) -> &str {
    let field = fields.get(at as usize);
    field
        .and_then(|(name, _)| name.as_str())
        .unwrap_or_default()
}

/// So many names are looked at one by one.
const FEW: usize = 16;

impl Object for Fields {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        or_absent(self.find(key).cloned())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| Box::new(this.fields.iter().map(|(name, _)| name.clone())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.fields.len())
    }
}

/// A list.
#[derive(Debug)]
struct Items(Vec<Value>);

impl Object for Items {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let item = key.as_usize().and_then(|at| self.0.get(at));
        or_absent(item.cloned())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

/// One value that is still to be read.
#[derive(Clone, Copy)]
struct Node<'a> {
    left: &'a Cell<u32>,
}

impl Node<'_> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left
            .set(left.ok_or_else(|| E::custom("too many values"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.count()?;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::from_object(Items(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = entries.next_key_seed(Name)? {
            fields.push((name, entries.next_value_seed(self)?));
        }
        Ok(Value::from_object(Fields::new(fields)))
    }
}

/// The name of a field.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Value, E> {
        Ok(name.into())
    }
}
