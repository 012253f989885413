//! By what a provider's second attempt at a delivery is known.

use hookbot_protocol::Headers;

use crate::form;
use crate::json;
use crate::provider::Provider;
use crate::request::Request;
use crate::scheme::Scheme;

impl Scheme {
    /// What this provider calls the delivery, if it does, in its headers or in its body.
    ///
    /// Where one delivery carries several events, it is the first one's id.
    #[must_use]
    pub fn delivery_id(&self, request: &Request) -> Option<String> {
        let headers = |names: &[&str]| {
            let found = names.iter().find_map(|name| request.header(name).ok());
            found.filter(|id| !id.is_empty()).map(str::to_owned)
        };
        let field = |path| json::find(request.body, path);
        let Some(provider) = self.provider else {
            let own = self.signatures.iter().find_map(|own| own.id.as_deref());
            let own = own.and_then(|name| headers(&[name]));
            return own.or_else(|| delivery_id(request.headers).map(str::to_owned));
        };
        match provider {
            Provider::Github => headers(&["x-github-delivery"]),
            Provider::Gitlab => headers(&["webhook-id", "idempotency-key", "x-gitlab-event-uuid"]),
            Provider::Bitbucket => headers(&["x-request-uuid", "x-request-id"]),
            Provider::Jira => headers(&["x-atlassian-webhook-identifier"]),
            Provider::Gitea => headers(&["x-gitea-delivery", "x-github-delivery"]),
            Provider::Forgejo => headers(&[
                "x-forgejo-delivery",
                "x-gitea-delivery",
                "x-github-delivery",
            ]),
            Provider::Gogs => headers(&["x-gogs-delivery", "x-github-delivery"]),
            Provider::Stripe | Provider::Circleci | Provider::Discord => field("id"),
            Provider::Slack => field("event_id"),
            Provider::Shopify => headers(&["x-shopify-event-id", "x-shopify-webhook-id"]),
            // A call's or a message's own id is the same in each of its deliveries.
            Provider::Twilio => headers(&["i-twilio-idempotency-token"]),
            Provider::Mandrill => {
                let events = form::value(request.body, "mandrill_events")?;
                json::find(events.as_bytes(), "0._id")
            }
            Provider::Trello => field("action.id"),
            Provider::StandardWebhooks => headers(&["webhook-id"]),
            Provider::Svix => headers(&["svix-id", "webhook-id"]),
            Provider::Sendgrid => field("0.sg_event_id"),
            Provider::Pagerduty => field("event.id"),
            Provider::Zoom => headers(&["x-zm-trackingid"]),
            Provider::Linear => headers(&["linear-delivery"]),
            Provider::Sentry => headers(&["request-id"]),
            Provider::AwsSns => field("MessageId"),
            Provider::MicrosoftGraph => field("value.0.id"),
            Provider::Pusher | Provider::X | Provider::Dropbox | Provider::Meta => None,
        }
    }
}

/// What the sender calls this delivery, if it does: the first of the providers' headers that is
/// there and is text.
///
/// It says nothing of who sent it: two providers may use the same id, and anybody may send any.
#[must_use]
pub fn delivery_id(headers: &Headers) -> Option<&str> {
    let text = |value| {
        str::from_utf8(value)
            .ok()
            .filter(|id: &&str| !id.is_empty())
    };
    // Which of the names have been seen; of each, the first value counts.
    let (mut seen, mut best) = ([false; NAMES.len()], None);
    for (name, value) in headers.iter() {
        let Some(rank) = NAMES.iter().position(|own| *own == name) else {
            continue;
        };
        let is_first = !std::mem::replace(&mut seen[rank], true);
        if is_first
            && best.is_none_or(|(other, _)| rank < other)
            && let Some(id) = text(value)
        {
            best = Some((rank, id));
        }
    }
    // Many servers number their requests in this one; only from Sentry is it a delivery's.
    let sentry = || {
        headers
            .get("sentry-hook-resource")
            .and_then(|_| headers.get("request-id"))
            .and_then(|value| str::from_utf8(value).ok())
    };
    best.map(|(_, id)| id).or_else(sentry)
}

/// In the order in which they count: a forge that imitates another sends both headers.
const NAMES: [&str; 14] = [
    "x-github-delivery",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "x-gogs-delivery",
    "idempotency-key",
    "webhook-id",
    "svix-id",
    "x-gitlab-event-uuid",
    "x-request-uuid",
    "x-atlassian-webhook-identifier",
    "x-shopify-event-id",
    "x-shopify-webhook-id",
    "linear-delivery",
    "x-event-id",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_asked_in_its_own_words_only() {
        let headers = [("x-github-delivery", "1"), ("svix-id", "2")];
        let headers: Headers = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        let request = Request {
            method: "POST",
            url: "https://h/",
            headers: &headers,
            body: br#"{"id":"3","event_id":4,"event":{"id":"5"},"action":{"id":"6"}}"#,
        };
        for (provider, id) in [
            (Provider::Github, Some("1")),
            (Provider::Svix, Some("2")),
            (Provider::Stripe, Some("3")),
            (Provider::Slack, Some("4")),
            (Provider::Pagerduty, Some("5")),
            (Provider::Trello, Some("6")),
            (Provider::Linear, None),
            (Provider::Meta, None),
        ] {
            let found = Scheme::from(provider).delivery_id(&request);
            assert_eq!(found.as_deref(), id, "{provider}");
        }
    }

    #[test]
    fn the_first_header_that_names_a_delivery_counts() {
        for (headers, id) in [
            (&[("x-github-delivery", "1")][..], Some("1")),
            (
                &[("x-gitea-delivery", "2"), ("x-github-delivery", "1")],
                Some("1"),
            ),
            (&[("x-github-delivery", ""), ("webhook-id", "3")], Some("3")),
            (
                &[("x-github-delivery", "\u{fffd}"), ("svix-id", "4")],
                Some("\u{fffd}"),
            ),
            (&[("request-id", "5")], None),
            (
                &[("request-id", "5"), ("sentry-hook-resource", "issue")],
                Some("5"),
            ),
            (&[("host", "h")], None),
            (&[], None),
        ] {
            let headers = headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes()));
            let headers: Headers = headers.collect();
            assert_eq!(delivery_id(&headers), id, "{headers:?}");
        }
        let mut headers = Headers::default();
        headers.push("x-github-delivery", b"\xff");
        assert_eq!(delivery_id(&headers), None);
    }
}
