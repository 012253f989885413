//! Whose webhooks are understood, and by which rules each one signs.

use std::fmt;
use std::str::FromStr;

use crate::algorithm::{Algorithm, Encoding};
use crate::signature::{KeyForm, Signature, Syntax, Timestamp};
use crate::template::Template;

/// Who sends webhooks. Each variant names where its rules are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// GitHub: "Validating webhook deliveries".
    Github,
    /// GitLab: "Webhooks", with a secret token or a signing token. Where a signature came, the
    /// plain token does not count.
    Gitlab,
    /// Bitbucket, Cloud and Data Center: "Manage webhooks".
    Bitbucket,
    /// Jira: "Webhooks", with a secret.
    Jira,
    /// Gitea: "Webhooks".
    Gitea,
    /// Forgejo: "Webhooks".
    Forgejo,
    /// Gogs: "Webhooks".
    Gogs,
    /// Stripe: "Verify webhook signatures manually".
    Stripe,
    /// Slack: "Verifying requests from Slack".
    Slack,
    /// Shopify: "Verify the origin of a webhook".
    Shopify,
    /// Twilio: "Webhooks security".
    Twilio,
    /// Mandrill: "How to authenticate webhook requests".
    Mandrill,
    /// Trello: "Webhook signatures".
    Trello,
    /// Pusher Channels: "Webhooks", "Security".
    Pusher,
    /// Whoever follows the Standard Webhooks specification.
    StandardWebhooks,
    /// Svix: "Verifying webhooks manually".
    Svix,
    /// Discord: "Interactions overview", "Validating security request headers", and "Webhook
    /// events".
    Discord,
    /// SendGrid: "Event webhook security features".
    Sendgrid,
    /// PagerDuty: "Webhook signatures", for webhooks of version 3.
    Pagerduty,
    /// Zoom: "Validate your webhook endpoint".
    Zoom,
    /// Linear: "Webhooks", "Securing webhooks".
    Linear,
    /// Sentry: "Integration platform webhooks".
    Sentry,
    /// `CircleCI`: "Validate webhooks".
    Circleci,
    /// X: "Securing webhooks".
    X,
    /// Dropbox: "Webhooks".
    Dropbox,
    /// Amazon SNS: "Verifying the signatures of Amazon SNS messages". The secret is the
    /// certificate that a message names, or its public key.
    AwsSns,
    /// Meta: "Getting started with webhooks", for Facebook, Instagram and WhatsApp.
    Meta,
    /// Microsoft Graph: "Receive change notifications through webhooks". Nothing is signed: the
    /// secret is the `clientState` that each notification repeats.
    MicrosoftGraph,
}

impl Provider {
    /// All of them, in the order in which they are documented.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(provider, _)| *provider)
    }

    /// What it is called where it is configured.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = NAMES.iter().find(|(own, _)| *own == self);
        named.map_or("", |(_, name)| name)
    }

    /// The headers that may prove it, the best first; none where the proof is in the body.
    ///
    /// The first one that came decides: a weaker one does not make good for it.
    pub(crate) fn signatures(self) -> Vec<Signature> {
        match self {
            Self::Github => vec![
                hex("x-hub-signature-256", "sha256="),
                sha1(hex("x-hub-signature", "sha1=")),
            ],
            Self::Gitlab => {
                let signing = standard("webhook");
                let token = Signature {
                    algorithm: Algorithm::Token,
                    encoding: Encoding::Text,
                    ..hex("x-gitlab-token", "")
                };
                vec![
                    Signature {
                        key: KeyForm::WhsecOrPlain,
                        ..signing
                    },
                    token,
                ]
            }
            Self::Bitbucket | Self::Jira => vec![hex("x-hub-signature", "sha256=")],
            Self::Gitea => like_github("x-gitea-signature"),
            Self::Forgejo => {
                let mut signatures = like_github("x-forgejo-signature");
                signatures.insert(1, hex("x-gitea-signature", ""));
                signatures
            }
            Self::Gogs => like_github("x-gogs-signature"),
            Self::Stripe => vec![Signature {
                syntax: Syntax::Pairs("v1"),
                timestamp: Some(Timestamp::Pair("t")),
                template: template("{timestamp}.{body}"),
                ..hex("stripe-signature", "")
            }],
            Self::Slack => vec![timed(
                hex("x-slack-signature", "v0="),
                "x-slack-request-timestamp",
                "v0:{timestamp}:{body}",
            )],
            Self::Zoom => vec![timed(
                hex("x-zm-signature", "v0="),
                "x-zm-request-timestamp",
                "v0:{timestamp}:{body}",
            )],
            Self::Shopify => vec![base64("x-shopify-hmac-sha256", "")],
            Self::X => vec![base64("x-twitter-webhooks-signature", "sha256=")],
            Self::Twilio => {
                // Those made with a shared key are longer, and called the same.
                let with_key = over(base64("x-twilio-signature", ""), "{url}{unique_form}");
                vec![sha1(with_key.clone()), with_key]
            }
            Self::Mandrill => vec![over(
                sha1(base64("x-mandrill-signature", "")),
                "{url}{form}",
            )],
            Self::Trello => vec![over(sha1(base64("x-trello-webhook", "")), "{body}{url}")],
            Self::Pusher => vec![dated(hex("x-pusher-signature", ""), "time_ms")],
            Self::Linear => vec![dated(hex("linear-signature", ""), "webhookTimestamp")],
            Self::Sentry => vec![hex("sentry-hook-signature", "")],
            Self::Dropbox => vec![hex("x-dropbox-signature", "")],
            Self::Meta => vec![hex("x-hub-signature-256", "sha256=")],
            Self::Pagerduty => vec![Signature {
                syntax: Syntax::Pairs("v1"),
                ..hex("x-pagerduty-signature", "")
            }],
            Self::Circleci => vec![Signature {
                syntax: Syntax::Pairs("v1"),
                ..hex("circleci-signature", "")
            }],
            Self::StandardWebhooks => both_versions("webhook"),
            Self::Svix => [both_versions("svix"), both_versions("webhook")].concat(),
            Self::Discord => vec![Signature {
                algorithm: Algorithm::Ed25519,
                key: KeyForm::Encoded(Encoding::Hex),
                ..timed(
                    hex("x-signature-ed25519", ""),
                    "x-signature-timestamp",
                    "{timestamp}{body}",
                )
            }],
            Self::Sendgrid => vec![Signature {
                algorithm: Algorithm::EcdsaP256,
                key: KeyForm::PublicKey,
                ..timed(
                    base64("x-twilio-email-event-webhook-signature", ""),
                    "x-twilio-email-event-webhook-timestamp",
                    "{timestamp}{body}",
                )
            }],
            Self::AwsSns | Self::MicrosoftGraph => Vec::new(),
        }
    }

    /// How far, in seconds, the signed time may be from now, where the provider says so.
    ///
    /// SendGrid and Discord leave it to the receiver. Discord's requests are answered at once or
    /// never; SendGrid tries again for a day, and says nothing of a new time.
    pub(crate) fn tolerance(self) -> Option<u64> {
        match self {
            Self::Gitlab
            | Self::Stripe
            | Self::Slack
            | Self::Zoom
            | Self::StandardWebhooks
            | Self::Svix
            | Self::Discord => Some(300),
            Self::Linear => Some(60),
            _ => None,
        }
    }
}

/// HMAC-SHA256 of the body in hex, behind a prefix: what most of them do.
fn hex(header: &str, prefix: &str) -> Signature {
    Signature {
        header: header.to_owned(),
        syntax: Syntax::Prefix(prefix.to_owned()),
        encoding: Encoding::Hex,
        algorithm: Algorithm::HmacSha256,
        key: KeyForm::Plain,
        id: None,
        timestamp: None,
        template: template("{body}"),
    }
}

fn base64(header: &str, prefix: &str) -> Signature {
    Signature {
        encoding: Encoding::Base64,
        ..hex(header, prefix)
    }
}

fn sha1(signature: Signature) -> Signature {
    Signature {
        algorithm: Algorithm::HmacSha1,
        ..signature
    }
}

fn over(signature: Signature, text: &str) -> Signature {
    Signature {
        template: template(text),
        ..signature
    }
}

fn timed(signature: Signature, header: &str, text: &str) -> Signature {
    Signature {
        timestamp: Some(Timestamp::Header(header.to_owned())),
        ..over(signature, text)
    }
}

fn dated(signature: Signature, field: &'static str) -> Signature {
    Signature {
        timestamp: Some(Timestamp::Body(field)),
        ..signature
    }
}

/// A header of its own, and those of GitHub for receivers that know nothing else.
fn like_github(header: &str) -> Vec<Signature> {
    let mut signatures = vec![hex(header, "")];
    signatures.extend(Provider::Github.signatures());
    signatures
}

/// The symmetric signatures of Standard Webhooks.
fn standard(prefix: &str) -> Signature {
    let header = |name| format!("{prefix}-{name}");
    Signature {
        syntax: Syntax::Versions("v1"),
        key: KeyForm::Whsec,
        id: Some(header("id")),
        ..timed(
            base64(&header("signature"), ""),
            &header("timestamp"),
            "{id}.{timestamp}.{body}",
        )
    }
}

/// The same, and those with public keys.
fn both_versions(prefix: &str) -> Vec<Signature> {
    let asymmetric = Signature {
        syntax: Syntax::Versions("v1a"),
        algorithm: Algorithm::Ed25519,
        key: KeyForm::Whpk,
        ..standard(prefix)
    };
    vec![standard(prefix), asymmetric]
}

fn template(text: &str) -> Template {
    Template::parse(text).expect("a constant template")
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        let named = NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(own, _)| *own).ok_or(UnknownProvider)
    }
}

/// There is no provider of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider of this name")]
pub struct UnknownProvider;

const NAMES: [(Provider, &str); 28] = [
    (Provider::Github, "github"),
    (Provider::Gitlab, "gitlab"),
    (Provider::Bitbucket, "bitbucket"),
    (Provider::Jira, "jira"),
    (Provider::Gitea, "gitea"),
    (Provider::Forgejo, "forgejo"),
    (Provider::Gogs, "gogs"),
    (Provider::Stripe, "stripe"),
    (Provider::Slack, "slack"),
    (Provider::Shopify, "shopify"),
    (Provider::Twilio, "twilio"),
    (Provider::Mandrill, "mandrill"),
    (Provider::Trello, "trello"),
    (Provider::Pusher, "pusher"),
    (Provider::StandardWebhooks, "standard-webhooks"),
    (Provider::Svix, "svix"),
    (Provider::Discord, "discord"),
    (Provider::Sendgrid, "sendgrid"),
    (Provider::Pagerduty, "pagerduty"),
    (Provider::Zoom, "zoom"),
    (Provider::Linear, "linear"),
    (Provider::Sentry, "sentry"),
    (Provider::Circleci, "circleci"),
    (Provider::X, "x"),
    (Provider::Dropbox, "dropbox"),
    (Provider::AwsSns, "aws-sns"),
    (Provider::Meta, "meta"),
    (Provider::MicrosoftGraph, "microsoft-graph"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_read_as_it_is_written() {
        for provider in Provider::all() {
            assert_eq!(provider.to_string().parse(), Ok(provider));
            let _ = provider.signatures();
        }
        for text in ["", "GitHub", "generic", "github "] {
            assert_eq!(text.parse::<Provider>(), Err(UnknownProvider));
        }
    }
}
