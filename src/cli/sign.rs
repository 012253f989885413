//! `hookbot sign`: a request as a provider would have signed it.

use clap::Args;

use super::webhook::WebhookArgs;
use super::{Failure, output};

/// Prints the headers with which a provider would have sent a body.
///
/// One header a line, as curl takes them: hookbot sign github --secret-env SECRET --body FILE |
/// curl -H @- --data-binary @FILE URL. With several secrets it is the first that signs. Where the
/// provider signs with a private key, that key is the secret.
#[derive(Debug, Args)]
pub(super) struct SignArgs {
    #[command(flatten)]
    webhook: WebhookArgs,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SignArgs) -> Result<(), Failure> {
    let webhook = args.webhook.webhook()?;
    let secret = &webhook.secrets[0];
    let signed = webhook.scheme.sign(secret, &webhook.request(), webhook.now);
    let headers = signed.map_err(|error| Failure::Usage(error.into()))?;
    if args.json {
        return output::line(&serde_json::json!({ "headers": headers }).to_string());
    }
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"));
    output::line(&lines.collect::<Vec<_>>().join("\n"))
}
