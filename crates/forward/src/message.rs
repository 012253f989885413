//! A message on its way to a target: what was sent, and what is known of it.

use bytes::Bytes;
use hookbot_protocol::Headers;
use hookbot_protocol::event::Event;
use hookbot_signatures::{Provider, Request, Scheme, delivery_id};

/// A message, wherever it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How it was sent, and its place: `cursor` is empty where the source has no places.
    pub event: Event,
    /// Its bytes, as they were sent.
    pub payload: Bytes,
}

impl From<hookbot_listen::Message> for Message {
    /// A server that gives no events tells only the topic; the rest is empty then.
    fn from(message: hookbot_listen::Message) -> Self {
        let hookbot_listen::Message {
            topic,
            payload,
            event,
        } = message;
        let event = event.map_or_else(|| bare(topic), |event| *event);
        Self { event, payload }
    }
}

/// An event of which nothing is known but its topic.
fn bare(topic: String) -> Event {
    Event {
        cursor: String::new(),
        topic,
        time: String::new(),
        method: String::new(),
        query: String::new(),
        address: String::new(),
        headers: Vec::new(),
        attributes: std::collections::BTreeMap::new(),
    }
}

impl Message {
    /// What its provider calls this kind of event, such as `push` or `issues.opened`.
    ///
    /// The provider is the one that the server has verified, else the one whose headers are
    /// there. It is no proof of anything.
    #[must_use]
    pub fn event_type(&self) -> Option<String> {
        let headers = self.headers();
        let scheme = Scheme::from(self.provider(&headers)?);
        scheme.event_type(&self.request(&headers))
    }

    /// Whether this is such an event: `issues.opened`, every `issues`, or what scripts written for
    /// gosmee call it, see [`Self::plain_event`].
    #[must_use]
    pub fn is_event(&self, name: &str) -> bool {
        let is_named = |kind: String| {
            let general = kind.split_once('.').map_or(&*kind, |(general, _)| general);
            name == kind || name == general
        };
        self.event_type().is_some_and(is_named) || self.plain_event().is_some_and(is_named)
    }

    /// The event as one plain word, which gosmee makes of the headers of forges: `Push Hook` is
    /// `push_hook`, and of `pr:opened` only `pr` is left.
    #[must_use]
    pub fn plain_event(&self) -> Option<String> {
        let text = FORGES.iter().find_map(|name| self.header(name))?;
        let text = text.to_lowercase().replace([' ', '/'], "_");
        let is_plain = |char: char| char.is_alphanumeric() || char == '_';
        let word: String = text
            .chars()
            .skip_while(|char| !is_plain(*char))
            .take_while(|char| is_plain(*char))
            .collect();
        Some(word).filter(|word| !word.is_empty())
    }

    /// What the sender calls this delivery.
    #[must_use]
    pub fn delivery_id(&self) -> Option<String> {
        let headers = self.headers();
        let known = self.provider(&headers).map(Scheme::from);
        known
            .and_then(|scheme| scheme.delivery_id(&self.request(&headers)))
            .or_else(|| delivery_id(&headers).map(str::to_owned))
    }

    /// The first value of a header, which must be asked for in lower case, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let mut headers = self.event.headers.iter();
        let (_, value) = headers.find(|(own, _)| own == name)?;
        String::from_utf8(value.bytes()?).ok()
    }

    /// The method to send it with: that of its sender, or `POST` where it had none.
    #[must_use]
    pub fn method(&self) -> &str {
        match self.event.method.as_str() {
            "" => "POST",
            method => method,
        }
    }

    /// The headers as the broker's other rooms know them.
    pub(crate) fn headers(&self) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in &self.event.headers {
            if let Some(value) = value.bytes() {
                headers.push(name, &value);
            }
        }
        headers
    }

    fn provider(&self, headers: &Headers) -> Option<Provider> {
        let verified = self.event.attributes.get("verified_by");
        let verified = verified.and_then(|name| name.as_str()?.parse().ok());
        verified.or_else(|| {
            let mut signs = SIGNS.iter();
            let found = signs.find(|(name, _)| headers.get(name).is_some());
            found.map(|(_, provider)| *provider)
        })
    }

    fn request<'a>(&'a self, headers: &'a Headers) -> Request<'a> {
        Request {
            method: self.method(),
            url: "",
            headers,
            body: &self.payload,
        }
    }
}

/// Where forges say what happened, in gosmee's order.
const FORGES: [&str; 5] = [
    "x-github-event",
    "x-gitlab-event",
    "x-gitea-event",
    "x-forgejo-event",
    "x-event-key",
];

/// Headers by which a provider is known; a forge that imitates another comes first.
const SIGNS: [(&str, Provider); 20] = [
    ("x-forgejo-event", Provider::Forgejo),
    ("x-gitea-event", Provider::Gitea),
    ("x-gogs-event", Provider::Gogs),
    ("x-github-event", Provider::Github),
    ("x-gitlab-event", Provider::Gitlab),
    ("x-event-key", Provider::Bitbucket),
    ("x-atlassian-webhook-identifier", Provider::Jira),
    ("stripe-signature", Provider::Stripe),
    ("x-slack-signature", Provider::Slack),
    ("x-shopify-topic", Provider::Shopify),
    ("x-twilio-signature", Provider::Twilio),
    ("x-mandrill-signature", Provider::Mandrill),
    ("x-trello-webhook", Provider::Trello),
    ("x-zm-signature", Provider::Zoom),
    ("linear-event", Provider::Linear),
    ("sentry-hook-resource", Provider::Sentry),
    ("circleci-event-type", Provider::Circleci),
    ("x-amz-sns-message-type", Provider::AwsSns),
    ("svix-id", Provider::Svix),
    ("webhook-id", Provider::StandardWebhooks),
];

#[cfg(test)]
pub(crate) fn test_message(headers: &[(&str, &str)], payload: &[u8]) -> Message {
    let mut event = bare("a/b".to_owned());
    event.headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().into()))
        .collect();
    Message {
        event,
        payload: payload.to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_that_was_verified_counts_before_the_headers_that_are_there() {
        let headers = [("x-github-event", "issues"), ("x-github-delivery", "d1")];
        let mut message = test_message(&headers, br#"{"action":"opened","type":"t","id":"i"}"#);
        assert_eq!(message.event_type().as_deref(), Some("issues.opened"));
        assert_eq!(message.delivery_id().as_deref(), Some("d1"));
        let verified = ("verified_by".to_owned(), "stripe".into());
        message.event.attributes.extend([verified]);
        assert_eq!(message.event_type().as_deref(), Some("t"));
        assert_eq!(message.delivery_id().as_deref(), Some("i"));
    }

    #[test]
    fn an_event_is_known_by_each_of_its_names() {
        for (header, value, body, names) in [
            (
                "x-github-event",
                "issues",
                r#"{"action":"opened"}"#,
                &["issues", "issues.opened"][..],
            ),
            (
                "x-gitlab-event",
                "Push Hook",
                "",
                &["Push Hook", "push_hook"],
            ),
            ("x-event-key", "pr:opened", "", &["pr:opened", "pr"]),
        ] {
            let message = test_message(&[(header, value)], body.as_bytes());
            for name in names {
                assert!(message.is_event(name), "{name}");
            }
            assert!(
                !message.is_event("push") && !message.is_event(""),
                "{value}"
            );
        }
    }

    #[test]
    fn of_a_server_without_events_the_topic_is_known() {
        let message = Message::from(hookbot_listen::Message {
            topic: "a".to_owned(),
            payload: Bytes::from_static(b"x"),
            event: None,
        });
        assert_eq!((&*message.event.topic, message.method()), ("a", "POST"));
        assert_eq!((message.event_type(), message.delivery_id()), (None, None));
    }
}
