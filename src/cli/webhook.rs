//! A provider's request as it is typed: whose it is, with which secrets, and what is in it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hookbot_protocol::Headers;
use hookbot_signatures::{Algorithm, Encoding, Generic, Provider, Request, Scheme, Secret};

use super::{Failure, input};
use crate::config::{Span, without_newline};

/// One request.
#[derive(Debug, Args)]
pub(super) struct WebhookArgs {
    /// Who signs it, or "generic" with rules of your own.
    #[arg(value_parser = providers())]
    provider: Who,

    /// A variable of the environment that holds a secret; may be repeated.
    #[arg(long, value_name = "NAME", required_unless_present = "secret_file")]
    secret_env: Vec<String>,

    /// A file that holds a secret; a last newline does not count; may be repeated.
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,

    /// A header of the request, for example -H 'X-GitHub-Event: push'; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// The URL that the provider posts to, as it was typed into its settings.
    #[arg(long)]
    url: Option<String>,

    /// The method.
    #[arg(long, default_value = "POST")]
    method: String,

    /// The body; - is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    body: PathBuf,

    /// What time it is, in RFC 3339 or in seconds since 1970, instead of now.
    #[arg(long, value_name = "TIME")]
    at: Option<Instant>,

    /// How far the time of a signature may be from now, instead of what the provider says.
    #[arg(long, value_name = "TIME")]
    tolerance: Option<Span>,

    /// For aws-sns: a topic to believe, instead of those of every Amazon account; may be repeated.
    #[arg(long, value_name = "ARN")]
    topic: Vec<String>,

    #[command(flatten)]
    rules: RulesArgs,
}

/// How a provider signs that is not known here.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rules for generic")]
struct RulesArgs {
    /// The header that holds the signature.
    #[arg(long, value_name = "NAME")]
    signature_header: Option<String>,

    /// How the signature is made.
    #[arg(long, value_parser = algorithms(), requires = "signature_header")]
    #[arg(default_value_t = Algorithm::HmacSha256)]
    algorithm: Algorithm,

    /// What the signature is written in.
    #[arg(long, value_parser = encodings(), requires = "signature_header")]
    #[arg(default_value_t = Encoding::Hex)]
    encoding: Encoding,

    /// What is before it, for example sha256=
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        requires = "signature_header"
    )]
    prefix: String,

    /// What the secret is written in.
    #[arg(long, value_parser = encodings(), requires = "signature_header")]
    #[arg(default_value_t = Encoding::Text)]
    key_encoding: Encoding,

    /// What is signed, of {id}, {timestamp}, {method}, {url}, {body} and {form}.
    #[arg(long, value_name = "TEXT", default_value = "{body}")]
    #[arg(requires = "signature_header")]
    template: String,

    /// The header that holds the time, in seconds since 1970.
    #[arg(long, value_name = "NAME", requires = "signature_header")]
    timestamp_header: Option<String>,

    /// The header that holds the delivery's id.
    #[arg(long, value_name = "NAME", requires = "signature_header")]
    id_header: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Who {
    Known(Provider),
    Generic,
}

/// Seconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Instant(u64);

/// What was typed, as it is meant.
pub(super) struct Webhook {
    pub(super) scheme: Scheme,
    pub(super) secrets: Vec<Secret>,
    /// Where each secret is from.
    pub(super) sources: Vec<String>,
    pub(super) now: u64,
    method: String,
    url: String,
    headers: Headers,
    body: Vec<u8>,
}

impl Webhook {
    pub(super) fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
        }
    }
}

impl WebhookArgs {
    pub(super) fn webhook(&self) -> Result<Webhook, Failure> {
        let scheme = self.scheme().map_err(Failure::Usage)?;
        if scheme.signs_url() && self.url.is_none() {
            let error = anyhow!("{scheme} signs the URL, too: give it with --url");
            return Err(Failure::Usage(error));
        }
        let (sources, secrets) = self.secrets().map_err(Failure::Usage)?.into_iter().unzip();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = || since.unwrap_or_default().as_secs();
        Ok(Webhook {
            scheme,
            secrets,
            sources,
            now: self.at.map_or_else(now, |Instant(at)| at),
            method: self.method.to_ascii_uppercase(),
            url: self.url.clone().unwrap_or_default(),
            headers: self.headers().map_err(Failure::Usage)?,
            body: input::read(&self.body)?,
        })
    }

    fn scheme(&self) -> anyhow::Result<Scheme> {
        let rules = &self.rules;
        let scheme = match (self.provider, &rules.signature_header) {
            (Who::Known(provider), None) => Scheme::from(provider),
            (Who::Known(provider), Some(_)) => {
                return Err(anyhow!(
                    "the rules of {provider} are known: say generic instead"
                ));
            }
            (Who::Generic, None) => return Err(anyhow!("generic takes a --signature-header")),
            (Who::Generic, Some(header)) => Scheme::try_from(Generic {
                algorithm: rules.algorithm,
                encoding: rules.encoding,
                prefix: rules.prefix.clone(),
                key_encoding: rules.key_encoding,
                template: rules.template.clone(),
                timestamp_header: rules.timestamp_header.clone(),
                id_header: rules.id_header.clone(),
                ..Generic::new(header)
            })?,
        };
        if !self.topic.is_empty() && scheme.provider() != Some(Provider::AwsSns) {
            return Err(anyhow!("{scheme} has no --topic"));
        }
        let scheme = scheme.with_topics(self.topic.clone());
        match self.tolerance {
            None => Ok(scheme),
            Some(Span(tolerance)) => Ok(scheme.with_tolerance(Some(tolerance))?),
        }
    }

    /// Each secret, with where it is from: first those of the environment.
    fn secrets(&self) -> anyhow::Result<Vec<(String, Secret)>> {
        let from_env = self.secret_env.iter().map(|name| {
            let text = std::env::var_os(name);
            let text = text.with_context(|| format!("{name} is not set in the environment"));
            (format!("env:{name}"), text.map(OsString::into_vec))
        });
        let from_files = self.secret_file.iter().map(|file| {
            let name = file.display();
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {name}"));
            (format!("file:{name}"), bytes.map(without_newline))
        });
        let all = from_env.chain(from_files).map(|(source, bytes)| {
            let secret = Secret::new(bytes?).with_context(|| source.clone())?;
            Ok((source, secret))
        });
        all.collect()
    }

    fn headers(&self) -> anyhow::Result<Headers> {
        let mut headers = Headers::default();
        for header in &self.headers {
            // The value may be what must not be seen.
            let pair = header
                .split_once(':')
                .filter(|(name, _)| name.len() < MAX_NAME);
            let (name, value) = pair.context("a --header is not of the form NAME: VALUE")?;
            headers.push(&name.trim().to_ascii_lowercase(), value.trim().as_bytes());
        }
        Ok(headers)
    }
}

/// As long as a header's name may be.
const MAX_NAME: usize = 1_024;

fn providers() -> impl TypedValueParser<Value = Who> {
    let names = Provider::all().map(Provider::name).chain(["generic"]);
    let names = PossibleValuesParser::new(names);
    names.map(|name| name.parse().map_or(Who::Generic, Who::Known))
}

fn algorithms() -> impl TypedValueParser<Value = Algorithm> {
    let names = PossibleValuesParser::new(Algorithm::all().map(Algorithm::name));
    names.try_map(|name| name.parse())
}

fn encodings() -> impl TypedValueParser<Value = Encoding> {
    let names = PossibleValuesParser::new(Encoding::all().map(Encoding::name));
    names.try_map(|name| name.parse())
}

impl FromStr for Instant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text.parse().ok();
        let time = || {
            let time: jiff::Timestamp = text.parse().ok()?;
            u64::try_from(time.as_second()).ok()
        };
        let time = seconds.or_else(time).map(Self);
        time.ok_or("expected a time such as 2026-11-26T12:00:00Z, or seconds since 1970")
    }
}
