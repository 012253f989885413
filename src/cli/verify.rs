//! `hookbot verify`: whether a provider signed a request.

use anyhow::anyhow;
use clap::Args;

use super::webhook::WebhookArgs;
use super::{Failure, output};

/// Tells whether a request is from the provider that it says it is from.
///
/// Takes the request's headers as arguments and its body, byte by byte as it was sent, from
/// standard input. Prints which secret matched, by its number and where it is from. Ends with 3
/// where none does.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    webhook: WebhookArgs,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let webhook = args.webhook.webhook()?;
    for (secret, source) in webhook.secrets.iter().zip(&webhook.sources) {
        let usable = webhook.scheme.accepts(secret);
        usable.map_err(|error| Failure::Usage(anyhow!("{source}: {error}")))?;
    }
    let request = webhook.request();
    let verified = webhook
        .scheme
        .verify(&webhook.secrets, &request, webhook.now);
    let matched = match verified {
        Ok(matched) => matched,
        Err(refusal) => {
            if args.json {
                let reason = refusal.to_string();
                let refused = serde_json::json!({ "verified": false, "reason": reason });
                output::line(&refused.to_string())?;
            }
            return Err(Failure::Refused(anyhow!("not verified: {refusal}")));
        }
    };
    let (number, source) = (matched.secret + 1, &webhook.sources[matched.secret]);
    if !args.json {
        return output::line(&format!("verified with secret {number}, {source}"));
    }
    let verified = serde_json::json!({
        "verified": true,
        "secret": number,
        "source": source,
        "signed_at": matched.signed_at,
        "event": webhook.scheme.event_type(&request),
        "delivery": webhook.scheme.delivery_id(&request),
    });
    output::line(&verified.to_string())
}
