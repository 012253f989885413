//! A message as conditions and templates see it.

use std::sync::{Arc, OnceLock};

use hookbot_protocol::{Headers, Message, Offset, Publication, event};
use minijinja::value::{Enumerator, Object, ObjectExt, Value};

use crate::absent::or_absent;
use crate::json;

/// The names that conditions and templates may use, and what they are.
pub const NAMES: [(&str, &str); 11] = [
    ("topic", "the topic it was published on"),
    (
        "method",
        "the HTTP method it came by; empty where a route published a new body",
    ),
    (
        "query",
        "the query: `query.a` is the first parameter `a`, decoded, and `{{ query }}` what was sent",
    ),
    (
        "headers",
        "the headers: `headers[\"x-github-event\"]` is the first one of this name, in any case",
    ),
    ("address", "the sender's address"),
    ("body", "the body's JSON, if it is that"),
    ("text", "the body, if it is UTF-8"),
    (
        "attributes",
        "what the broker has found out about the message",
    ),
    (
        "verified_by",
        "who has signed it, if a source has verified that",
    ),
    ("offset", "its place in the log"),
    (
        "time",
        "when the log took it: RFC 3339, UTC, with milliseconds",
    ),
];

/// Whether messages have something of this name.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.iter().any(|(known, _)| *known == name)
}

/// A message. Its body is parsed when somebody asks for it, once for everybody who has this.
#[derive(Debug)]
pub struct View {
    publication: Publication,
    offset: Offset,
    time: std::time::SystemTime,
    body: OnceLock<Option<Value>>,
}

impl View {
    /// Looks at a message.
    #[must_use]
    pub fn new(message: &Message) -> Arc<Self> {
        Arc::new(Self {
            publication: message.publication.clone(),
            offset: message.offset,
            time: message.time,
            body: OnceLock::new(),
        })
    }

    fn named(self: &Arc<Self>, name: &str) -> Option<Value> {
        let Publication {
            topic,
            method,
            address,
            body,
            attributes,
            ..
        } = &self.publication;
        let table = |what| Value::from_object(Table(self.clone(), what));
        match name {
            "topic" => Some(topic.as_str().into()),
            "method" => Some((**method).into()),
            "address" => Some((**address).into()),
            "query" => Some(Value::from_object(Query(self.clone()))),
            "headers" => Some(table(What::Headers)),
            "attributes" => Some(table(What::Attributes)),
            "verified_by" => attributes.get("verified_by").map(text),
            "body" => self.body.get_or_init(|| json::parse(body).ok()).clone(),
            "text" => str::from_utf8(body).ok().map(Value::from),
            "offset" => Some(self.offset.0.into()),
            "time" => Some(event::rfc3339(self.time).into()),
            _ => None,
        }
    }
}

impl Object for View {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        // The engine asks here for its own functions first.
        if is_known(key) {
            or_absent(self.named(key))
        } else {
            None
        }
    }
}

/// Headers, or what else has their form.
#[derive(Debug)]
struct Table(Arc<View>, What);

#[derive(Debug, Clone, Copy)]
enum What {
    Headers,
    Attributes,
}

impl Table {
    fn headers(&self) -> &Headers {
        let Self(view, what) = self;
        match what {
            What::Headers => &view.publication.headers,
            What::Attributes => &view.publication.attributes,
        }
    }
}

impl Object for Table {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    /// The first value; the case of the name does not matter, as it does not in HTTP.
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let mut all = self.headers().iter();
        let found = all.find(|(name, _)| name.eq_ignore_ascii_case(key));
        or_absent(found.map(|(_, value)| text(value)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| {
            let names = this.headers().iter().map(|(name, _)| Value::from(name));
            Box::new(names.collect::<Vec<_>>().into_iter())
        })
    }
}

/// The query: its parameters, decoded, and as it was sent where it is printed.
#[derive(Debug)]
struct Query(Arc<View>);

impl Query {
    fn parameters(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.0.publication.query.as_bytes())
    }
}

impl Object for Query {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let found = self.parameters().find(|(name, _)| name == key);
        or_absent(found.map(|(_, value)| Value::from(&*value)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| {
            let names = this.parameters().map(|(name, _)| Value::from(&*name));
            Box::new(names.collect::<Vec<_>>().into_iter())
        })
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.publication.query)
    }
}

/// Text where it is that, else bytes.
fn text(value: &[u8]) -> Value {
    str::from_utf8(value).map_or_else(|_| Value::from_bytes(value.to_vec()), Value::from)
}
