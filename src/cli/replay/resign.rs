//! With which secret old messages are signed anew.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hookbot_forward::resign::Resigner;
use hookbot_signatures::Provider;

use crate::config::{Secret, without_newline};

/// How old messages are signed anew.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signatures")]
pub(super) struct ResignArgs {
    /// Sign each message anew, as this provider would do it now, so that a receiver that refuses
    /// what is old takes it.
    #[arg(long, value_name = "PROVIDER", value_parser = providers(), requires = "secret")]
    resign: Option<Provider>,

    /// The secret to sign with: env:NAME, file:PATH, or the secret itself, which others may then
    /// see among the processes.
    #[arg(long, requires = "resign")]
    secret: Option<Secret>,
}

impl ResignArgs {
    /// Who signs what is sent to `url`.
    pub(super) fn resigner(&self, url: &str) -> anyhow::Result<Option<Resigner>> {
        let (Some(provider), Some(secret)) = (self.resign, &self.secret) else {
            return Ok(None);
        };
        let text = secret.expose();
        let bytes = if let Some(name) = text.strip_prefix("env:") {
            let value = std::env::var_os(name).map(OsString::into_vec);
            value.with_context(|| format!("{name} is not set in the environment"))?
        } else if let Some(file) = text.strip_prefix("file:") {
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
            without_newline(bytes)
        } else {
            text.as_bytes().to_vec()
        };
        let secret = hookbot_signatures::Secret::new(bytes)?;
        Ok(Some(Resigner::new(provider, secret, url)))
    }
}

fn providers() -> impl TypedValueParser<Value = Provider> {
    let names = PossibleValuesParser::new(Provider::all().map(Provider::name));
    names.try_map(|name| name.parse())
}
