//! With which secret old messages are signed anew.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hookbot_forward::resign::Resigner;
use hookbot_signatures::Provider;

use crate::cli::provider::SecretPlace;

/// How old messages are signed anew.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signatures")]
pub(super) struct ResignArgs {
    /// Sign each message anew, as this provider would do it now, so that a receiver that refuses
    /// what is old takes it.
    #[arg(long, value_name = "PROVIDER", value_parser = providers(), requires = "secret")]
    resign: Option<Provider>,

    /// The secret to sign with, as env:NAME or file:PATH.
    #[arg(long, value_name = "env:NAME", requires = "resign")]
    secret: Option<SecretPlace>,
}

impl ResignArgs {
    /// Who signs what is sent to `url`.
    pub(super) fn resigner(&self, url: &str) -> anyhow::Result<Option<Resigner>> {
        let (Some(provider), Some(secret)) = (self.resign, &self.secret) else {
            return Ok(None);
        };
        Ok(Some(Resigner::new(provider, secret.read()?, url)?))
    }
}

fn providers() -> impl TypedValueParser<Value = Provider> {
    let names = PossibleValuesParser::new(Provider::all().map(Provider::name));
    names.try_map(|name| name.parse())
}
