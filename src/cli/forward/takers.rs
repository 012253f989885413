//! How targets and commands are reached, for all commands that deliver.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use hookbot_forward::target::{HostHeader, PathMode};
use hookbot_forward::{ExecSettings, Target, TargetSettings};
use http::{HeaderName, HeaderValue};

use crate::cli::Failure;
use crate::config::{Span, SpanError};

/// How a target is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Targets")]
pub(in crate::cli) struct TargetArgs {
    /// What becomes of the topic: nothing, or what is below the subscription's prefix is appended
    /// to the target's path.
    #[arg(long, value_enum, default_value_t)]
    path_mode: PathChoice,

    /// The Host that targets see, in place of their own; `original` is the sender's.
    #[arg(long, value_name = "HOST")]
    host_header: Option<String>,

    /// A header for the targets, for example 'X-Team: infra', in place of the sender's of that
    /// name; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// How long a target may take to answer.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds)]
    #[arg(alias = "target-connection-timeout")]
    timeout: Span,

    /// Believe whatever certificate a target has.
    #[arg(long, alias = "insecure-skip-tls-verify")]
    insecure: bool,

    /// Certificates to trust besides the system's, PEM; for the source, too.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) ca: Option<PathBuf>,

    /// The certificate chain to show to targets that ask for one, PEM.
    #[arg(long, value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,

    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum PathChoice {
    /// The target's URL is meant exactly.
    #[default]
    Drop,
    /// The rest of the topic is appended.
    Keep,
}

impl TargetArgs {
    /// The target of a URL, for messages of a subscription to this prefix.
    pub(in crate::cli) fn target(&self, url: &str, prefix: String) -> Result<Target, Failure> {
        let path = match self.path_mode {
            PathChoice::Drop => PathMode::Drop,
            PathChoice::Keep => PathMode::Keep { below: prefix },
        };
        Target::new(url, self.settings(path)?).map_err(|error| Failure::Usage(error.into()))
    }

    fn settings(&self, path: PathMode) -> Result<TargetSettings, Failure> {
        let mut settings = TargetSettings {
            path,
            host: match self.host_header.as_deref() {
                None => HostHeader::Target,
                Some("original") => HostHeader::Original,
                Some(host) => HostHeader::Fixed(value(host)?),
            },
            headers: headers(&self.headers)?,
            timeout: self.timeout.0,
            ..TargetSettings::default()
        };
        settings.tls.insecure = self.insecure;
        let unfit = |file: &Path| format!("cannot use {}", file.display());
        if let Some(file) = &self.ca {
            let trusted = settings.tls.trust(&read(file)?);
            trusted
                .with_context(|| unfit(file))
                .map_err(Failure::Usage)?;
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.cert_key) {
            let identified = settings.tls.identify(&read(cert)?, &read(key)?);
            let context = || format!("{} with {}", unfit(cert), key.display());
            identified.with_context(context).map_err(Failure::Usage)?;
        }
        Ok(settings)
    }

    /// How a channel is reached: as a target is, without what is for targets alone.
    pub(super) fn for_channel(&self, own: &[String]) -> Result<TargetSettings, Failure> {
        let settings = self.settings(PathMode::Drop)?;
        Ok(TargetSettings {
            host: HostHeader::Target,
            headers: headers(own)?,
            ..settings
        })
    }
}

/// How a command is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Commands")]
pub(in crate::cli) struct CommandArgs {
    /// A variable of this environment that commands get, besides PATH, HOME and the like; may be
    /// repeated.
    #[arg(
        long,
        value_name = "NAME",
        alias = "exec-env-vars",
        env = "HOOKBOT_EXEC_ENV"
    )]
    #[arg(value_delimiter = ',')]
    exec_env: Vec<String>,

    /// How long a command may take before it is killed, with all that it has started.
    #[arg(long, value_name = "TIME")]
    exec_timeout: Option<Span>,
}

impl CommandArgs {
    pub(in crate::cli) fn settings(&self, prints_to_stderr: bool) -> ExecSettings {
        ExecSettings {
            timeout: self.exec_timeout.map(|Span(span)| span),
            variables: self.exec_env.clone(),
            prints_to_stderr,
        }
    }
}

/// A length of time; a number alone counts seconds, as gosmee has it.
fn seconds(text: &str) -> Result<Span, SpanError> {
    match text.parse() {
        Ok(seconds @ 1..) => Ok(Span(Duration::from_secs(seconds))),
        _ => text.parse(),
    }
}

/// Takes `Name: value` apart.
pub(in crate::cli) fn header(text: &str) -> Result<(&str, &str), Failure> {
    let parts = text.split_once(':');
    let parts = parts.map(|(name, value)| (name.trim(), value.trim()));
    // It is not repeated: it may be a secret without its colon.
    parts.ok_or_else(|| Failure::Usage(anyhow!("a header is of the form NAME: VALUE")))
}

fn headers(texts: &[String]) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let mut headers = Vec::new();
    for text in texts {
        let (name, text) = header(text)?;
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.with_context(|| format!("{name:?} is not a header's name"));
        headers.push((parsed.map_err(Failure::Usage)?, value(text)?));
    }
    Ok(headers)
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    let value = HeaderValue::try_from(text).context("a header's value has a control character");
    value.map_err(Failure::Usage)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let content = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    content.map_err(Failure::Usage)
}
