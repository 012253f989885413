//! What kind of event a delivery tells of.

use std::borrow::Cow;

use crate::form;
use crate::json;
use crate::provider::Provider;
use crate::request::Request;
use crate::scheme::Scheme;

impl Scheme {
    /// What the provider calls this kind of event, if it says so; with the action behind a dot
    /// where it has both, as in `issues.opened`.
    ///
    /// Most of these are headers, and no part of what is signed.
    #[must_use]
    pub fn event_type(&self, request: &Request) -> Option<String> {
        let header = |names: &[&str]| {
            let found = names.iter().find_map(|name| request.header(name).ok());
            found.filter(|kind| !kind.is_empty()).map(str::to_owned)
        };
        let field = |path: &str| json::find(request.body, path);
        let acted = |kind: Option<String>| {
            let kind = kind?;
            Some(match json::find(&json_of(request.body), "action") {
                Some(action) => format!("{kind}.{action}"),
                None => kind,
            })
        };
        match self.provider? {
            Provider::Github => acted(header(&["x-github-event"])),
            Provider::Gitea => acted(header(&["x-gitea-event", "x-github-event"])),
            Provider::Forgejo => acted(header(&[
                "x-forgejo-event",
                "x-gitea-event",
                "x-github-event",
            ])),
            Provider::Gogs => acted(header(&["x-gogs-event", "x-github-event"])),
            Provider::Gitlab => header(&["x-gitlab-event"]).or_else(|| field("object_kind")),
            Provider::Bitbucket => header(&["x-event-key"]),
            Provider::Jira => field("webhookEvent"),
            Provider::Stripe | Provider::StandardWebhooks => field("type"),
            // Interactions have a number, webhook events a name as well.
            Provider::Discord => field("event.type").or_else(|| field("type")),
            Provider::Svix => field("type").or_else(|| field("eventType")),
            Provider::Slack => slack(request.body),
            Provider::Shopify => header(&["x-shopify-topic"]),
            Provider::Twilio => ["EventType", "CallStatus", "MessageStatus", "SmsStatus"]
                .iter()
                .find_map(|name| form::value(request.body, name)),
            Provider::Mandrill => {
                let events = form::value(request.body, "mandrill_events")?;
                json::find(events.as_bytes(), "0.event")
            }
            Provider::Trello => field("action.type"),
            Provider::Pusher => field("events.0.name"),
            Provider::Sendgrid => field("0.event"),
            Provider::Pagerduty => field("event.event_type"),
            Provider::Zoom => field("event"),
            Provider::Linear => acted(header(&["linear-event"]).or_else(|| field("type"))),
            Provider::Sentry => acted(header(&["sentry-hook-resource"])),
            Provider::Circleci => header(&["circleci-event-type"]).or_else(|| field("type")),
            Provider::AwsSns => field("Type"),
            Provider::Meta => field("object"),
            Provider::MicrosoftGraph => field("value.0.changeType"),
            Provider::X | Provider::Dropbox => None,
        }
    }
}

/// The JSON that a body is, or that is in its form.
fn json_of(body: &[u8]) -> Cow<'_, [u8]> {
    let is_form = body.starts_with(b"payload=");
    let payload = is_form.then(|| form::value(body, "payload")).flatten();
    payload.map_or(Cow::Borrowed(body), |json| json.into_bytes().into())
}

/// Slack posts events as JSON, interactions as JSON in a form, and commands as a form.
fn slack(body: &[u8]) -> Option<String> {
    let json = json_of(body);
    match json::find(&json, "type") {
        Some(kind) if kind == "event_callback" => json::find(&json, "event.type").or(Some(kind)),
        Some(kind) => Some(kind),
        None => form::value(body, "command"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_says_in_its_own_place_what_happened() {
        for (provider, headers, body, kind) in [
            ("github", &[("x-github-event", "push")][..], "{}", "push"),
            (
                "github",
                &[("x-github-event", "issues")],
                r#"{"action":"opened"}"#,
                "issues.opened",
            ),
            (
                "github",
                &[("x-github-event", "issues")],
                "payload=%7B%22action%22%3A%22opened%22%7D",
                "issues.opened",
            ),
            (
                "forgejo",
                &[("x-github-event", "push"), ("x-forgejo-event", "create")],
                "",
                "create",
            ),
            ("gitlab", &[], r#"{"object_kind":"push"}"#, "push"),
            (
                "gitlab",
                &[("x-gitlab-event", "Push Hook")],
                "",
                "Push Hook",
            ),
            (
                "bitbucket",
                &[("x-event-key", "repo:push")],
                "",
                "repo:push",
            ),
            ("jira", &[], r#"{"webhookEvent":"issue"}"#, "issue"),
            (
                "stripe",
                &[],
                r#"{"type":"charge.failed"}"#,
                "charge.failed",
            ),
            (
                "slack",
                &[],
                r#"{"type":"event_callback","event":{"type":"app_mention"}}"#,
                "app_mention",
            ),
            ("slack", &[], "token=x&command=%2Fdeploy", "/deploy"),
            (
                "slack",
                &[],
                "payload=%7B%22type%22%3A%22block_actions%22%7D",
                "block_actions",
            ),
            ("twilio", &[], "CallStatus=ringing", "ringing"),
            (
                "mandrill",
                &[],
                "mandrill_events=%5B%7B%22event%22%3A%22send%22%7D%5D",
                "send",
            ),
            (
                "trello",
                &[],
                r#"{"action":{"type":"updateCard"}}"#,
                "updateCard",
            ),
            ("discord", &[], r#"{"type":2}"#, "2"),
            (
                "discord",
                &[],
                r#"{"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}"#,
                "ENTITLEMENT_CREATE",
            ),
            ("sendgrid", &[], r#"[{"event":"dropped"}]"#, "dropped"),
            (
                "linear",
                &[("linear-event", "Issue")],
                r#"{"action":"create","type":"Issue"}"#,
                "Issue.create",
            ),
        ] {
            let provider: Provider = provider.parse().unwrap();
            let headers = headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes()))
                .collect();
            let request = Request {
                method: "POST",
                url: "https://h/",
                headers: &headers,
                body: body.as_bytes(),
            };
            let found = Scheme::from(provider).event_type(&request);
            assert_eq!(found.as_deref(), Some(kind), "{provider} {body}");
        }
    }
}
