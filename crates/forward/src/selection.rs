//! Which messages a target gets, in what form, and which of them are in order.

use std::fmt;
use std::time::SystemTime;

use hookbot_protocol::{Offset, Publication, Topic};
use hookbot_routers::{Condition, Kind, Template, View};

use crate::message::Message;

/// What a target wants of the messages of a source.
#[derive(Debug, Default)]
pub struct Selection {
    filter: Option<Condition>,
    events: Vec<String>,
    ignored: Vec<String>,
    transform: Option<Template>,
    key: Option<Template>,
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Selected {
    /// It is to be offered, in order with those of the same key.
    Wanted(Box<Message>, Option<String>),
    /// The target does not want it.
    Skipped,
    /// It should be offered, perhaps, and that can't be told or done.
    Unfit(Box<Message>, String),
}

impl Selection {
    /// Only messages that fulfil this condition: Jinja over the same names as a route's `when`.
    ///
    /// # Errors
    ///
    /// When it is no condition.
    pub fn filter(mut self, source: &str) -> Result<Self, Invalid> {
        let condition = Condition::compile(source);
        self.filter = Some(condition.map_err(|reason| Invalid::new("filter", reason))?);
        Ok(self)
    }

    /// Only these kinds of events; see [`Message::is_event`].
    #[must_use]
    pub fn events(mut self, names: &[String]) -> Self {
        self.events = names.to_vec();
        self
    }

    /// Not these kinds of events.
    #[must_use]
    pub fn ignore(mut self, names: &[String]) -> Self {
        self.ignored = names.to_vec();
        self
    }

    /// What this template makes of a message is its body. Signatures are of the old one.
    ///
    /// # Errors
    ///
    /// When it is no template.
    pub fn transform(mut self, source: &str) -> Result<Self, Invalid> {
        let template = Template::compile(source, Kind::Body);
        self.transform = Some(template.map_err(|reason| Invalid::new("transform", reason))?);
        Ok(self)
    }

    /// Messages for which this expression has the same value are in order; those without a value
    /// are in order, too.
    ///
    /// # Errors
    ///
    /// When it is no expression.
    pub fn key(mut self, source: &str) -> Result<Self, Invalid> {
        let template = Template::compile(&format!("{{{{ {source} }}}}"), Kind::Line);
        self.key = Some(template.map_err(|reason| Invalid::new("key", reason))?);
        Ok(self)
    }

    /// Whether a body has to be taken apart, which takes a while where it is large.
    pub(crate) fn is_work(&self) -> bool {
        self.filter.is_some() || self.transform.is_some() || self.key.is_some()
    }

    /// Decides about a message.
    pub(crate) fn select(&self, mut message: Box<Message>) -> Selected {
        let is_one_of = |names: &[String]| names.iter().any(|name| message.is_event(name));
        if (!self.events.is_empty() && !is_one_of(&self.events)) || is_one_of(&self.ignored) {
            return Selected::Skipped;
        }
        if !self.is_work() {
            return Selected::Wanted(message, None);
        }
        let view = View::new(&logged(&message));
        match self.filter.as_ref().map(|filter| filter.holds(&view)) {
            Some(Ok(false)) => return Selected::Skipped,
            Some(Err(reason)) => return Selected::Unfit(message, format!("the filter: {reason}")),
            Some(Ok(true)) | None => {}
        }
        let key = self.key.as_ref().map(|key| key.render(&view));
        // Without a value, it is one of those without.
        let key = key.map(Result::unwrap_or_default);
        match self
            .transform
            .as_ref()
            .map(|template| template.render(&view))
        {
            None => {}
            Some(Err(reason)) => {
                return Selected::Unfit(message, format!("the transformation: {reason}"));
            }
            Some(Ok(body)) => {
                message.payload = body.into();
                let headers = &mut message.event.headers;
                headers.retain(|(name, _)| name != "content-encoding");
            }
        }
        Selected::Wanted(message, key)
    }
}

/// The message as a log has it, which is what conditions and templates know.
fn logged(message: &Message) -> hookbot_protocol::Message {
    let event = &message.event;
    let topic = Topic::parse(&event.topic).unwrap_or_else(|_| foreign());
    let attributes = event.attributes.iter().map(|(name, value)| {
        let text = value.as_str().map(str::to_owned);
        (name.as_str(), text.unwrap_or_else(|| value.to_string()))
    });
    let mut publication = Publication {
        method: event.method.as_str().into(),
        query: event.query.as_str().into(),
        address: event.address.as_str().into(),
        headers: message.headers(),
        ..Publication::new(topic, message.payload.clone())
    };
    for (name, text) in attributes {
        publication.attributes.push(name, text.as_bytes());
    }
    let offset = event
        .cursor
        .rsplit_once('.')
        .and_then(|(_, text)| text.parse().ok());
    let time = event.time.parse::<jiff::Timestamp>();
    hookbot_protocol::Message::new(
        publication,
        Offset(offset.unwrap_or_default()),
        time.map_or(SystemTime::UNIX_EPOCH, SystemTime::from),
    )
}

/// What stands for the topic of a source that has other names.
fn foreign() -> Topic {
    Topic::parse("foreign").expect("it is a topic")
}

/// An expression or a template that is none.
#[derive(Debug, thiserror::Error)]
#[error("the {what} is not valid: {reason}")]
pub struct Invalid {
    what: &'static str,
    reason: String,
}

impl Invalid {
    fn new(what: &'static str, reason: String) -> Self {
        Self { what, reason }
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wanted(..) => "wanted",
            Self::Skipped => "skipped",
            Self::Unfit(_, reason) => reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;

    fn issue(payload: &'static [u8]) -> Box<Message> {
        let mut message = test_message(&[("x-github-event", "issues")], payload);
        message.event.query = "a=1".to_owned();
        Box::new(message)
    }

    fn select(selection: &Selection) -> Selected {
        selection.select(issue(br#"{"action":"opened","repository":{"id":7}}"#))
    }

    #[test]
    fn a_filter_and_event_names_choose() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        for (wanted, selection) in [
            (true, Selection::default()),
            (
                true,
                Selection::default()
                    .filter(r#"body.action == "opened" and topic == "a/b""#)
                    .unwrap(),
            ),
            (
                false,
                Selection::default()
                    .filter("body.action == 'closed'")
                    .unwrap(),
            ),
            (
                false,
                Selection::default().filter("body.nope.nope > 1").unwrap(),
            ),
            (
                true,
                Selection::default()
                    .filter("query.a == '1' and headers['X-GitHub-Event']")
                    .unwrap(),
            ),
            (
                true,
                Selection::default().events(&names(&["push", "issues"])),
            ),
            (
                true,
                Selection::default().events(&names(&["issues.opened"])),
            ),
            (
                false,
                Selection::default().events(&names(&["issues.closed"])),
            ),
            (false, Selection::default().ignore(&names(&["issues"]))),
            (true, Selection::default().ignore(&names(&["push"]))),
        ] {
            let selected = select(&selection);
            assert_eq!(
                matches!(selected, Selected::Wanted(..)),
                wanted,
                "{selection:?}"
            );
        }
    }

    #[test]
    fn a_transformation_makes_the_body_and_a_key_the_lane() {
        let selection = Selection::default()
            .transform(r#"{"id":{{ body.repository.id }}}"#)
            .and_then(|selection| selection.key("body.repository.id"))
            .unwrap();
        let Selected::Wanted(message, key) = select(&selection) else {
            panic!("it is wanted");
        };
        assert_eq!(
            (&*message.payload, key.as_deref()),
            (&br#"{"id":7}"#[..], Some("7"))
        );
        let unfit = selection.select(issue(b"no JSON"));
        assert!(matches!(unfit, Selected::Unfit(..)), "{unfit}");
        let selection = Selection::default().key("body.repository.id").unwrap();
        let keyless = selection.select(issue(b"no JSON"));
        assert!(matches!(keyless, Selected::Wanted(_, Some(key)) if key.is_empty()));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for error in [
            Selection::default().filter("body.").unwrap_err(),
            Selection::default().filter("bodi.action").unwrap_err(),
            Selection::default().transform("{{ body").unwrap_err(),
            Selection::default().key("nope").unwrap_err(),
        ] {
            assert!(error.to_string().contains("is not valid: "), "{error}");
        }
    }
}
