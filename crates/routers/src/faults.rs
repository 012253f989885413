//! Everything that is wrong with a route, so that nobody has to mend one thing to hear of the next.

use std::fmt;
use std::ops::Range;

use hookbot_protocol::{Filter, Topic};

use crate::draft::{Draft, own_topic};
use crate::github::Github;
use crate::route::{Fault, Part, Preset, Route};
use crate::rule::What;
use crate::template::{Condition, Kind, Template, literal, reason};

/// What is wrong with a route, so far.
#[derive(Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// `value`, unless something is wrong.
    pub(crate) fn unless_any<T>(self, value: Option<T>) -> Result<T, Vec<Fault>> {
        value.filter(|_| self.0.is_empty()).ok_or(self.0)
    }

    fn add(&mut self, part: Part, range: Option<Range<usize>>, message: impl fmt::Display) {
        let message = message.to_string();
        self.0.push(Fault {
            part,
            range,
            message,
        });
    }

    pub(crate) fn name(&mut self, name: &str) -> Option<Topic> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            let expected = "a name is 1 to 64 letters, digits, `-`, `_` or `.`";
            self.add(Part::Name, None, expected);
            return None;
        }
        let topic = Topic::parse(&format!("/unsafe/parked/{name}"));
        topic
            .map_err(|error| self.add(Part::Name, None, error))
            .ok()
    }

    pub(crate) fn from(&mut self, route: &Route) -> Vec<Filter> {
        if route.from.is_empty() {
            match route.preset {
                Some(Preset::Github) => return Github::reads(),
                None => self.add(
                    Part::From(0),
                    None,
                    "a route reads something: `from` is missing",
                ),
            }
        }
        let mut filters = Vec::new();
        for (at, text) in route.from.iter().enumerate() {
            match Filter::parse(text) {
                Ok(filter) => filters.push(filter),
                Err(error) => self.add(Part::From(at), None, error),
            }
        }
        filters
    }

    pub(crate) fn when(&mut self, route: &Route) -> Option<Condition> {
        let when = route.when.as_deref()?;
        self.compile(Part::When, Condition::new(when))
    }

    fn compile<T>(&mut self, part: Part, compiled: Result<T, minijinja::Error>) -> Option<T> {
        compiled
            .map_err(|error| {
                // The engine knows the whole of an expression only.
                let range = error.range().filter(|range| !range.is_empty());
                self.add(part, range, reason(&error));
            })
            .ok()
    }

    pub(crate) fn github(&mut self, route: &Route, secret: Option<&[u8]>) -> What {
        let fixed = "preset = \"github\" says itself what is published";
        for at in 0..route.to.len() {
            self.add(Part::To(at), None, fixed);
        }
        if route.body.is_some() {
            self.add(Part::Body, None, fixed);
        }
        for (name, _) in &route.headers {
            self.add(Part::Header(name.clone()), None, fixed);
        }
        let github = secret.map(Github::new).transpose();
        What::Github(github.unwrap_or_else(|error| {
            self.add(Part::Preset, None, error);
            None
        }))
    }

    pub(crate) fn templates(&mut self, route: &Route) -> What {
        if route.to.is_empty() {
            let missing = "a route publishes somewhere: `to` is missing";
            self.add(Part::To(0), None, missing);
        }
        let mut to = Vec::new();
        for (at, source) in route.to.iter().enumerate() {
            let part = Part::To(at);
            if let (topic, false) = literal(source.trim())
                && let Err(error) = own_topic(topic)
            {
                self.add(part.clone(), None, error);
            }
            to.extend(self.compile(part, Template::new(source, Kind::Line)));
        }
        let body = route.body.as_deref();
        let body = body.and_then(|body| self.compile(Part::Body, Template::new(body, Kind::Body)));
        let body = body.map(Box::new);
        let mut headers = Vec::new();
        for (name, source) in &route.headers {
            let part = Part::Header(name.clone());
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_of_a_name) {
                self.add(
                    part.clone(),
                    None,
                    "not the name of a header, in lower case",
                );
            }
            let value = self.compile(part, Template::new(source, Kind::Line));
            headers.extend(value.map(|value| (name.clone(), value)));
        }
        What::Draft(Draft { to, body, headers })
    }
}

/// Whether a header's name may have this byte, in lower case.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The longest name of a rule or a header, in bytes.
const MAX_NAME: usize = 64;
