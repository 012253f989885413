//! A provider's API as it is typed: whose webhooks, with which token, and which deliveries.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow};
use clap::Args;
use hookbot_backfill::{
    Account, Api, AppKey, Credential, Delivery, Error, Hook, Provider, Signing,
};
use hookbot_signatures::Secret;
use jiff::Timestamp;
use tracing::warn;

use super::Failure;
use super::listing::entry;
use super::remote::RemoteArgs;
use super::when::When;
use crate::config::without_newline;

/// GitHub's API.
#[derive(Debug, Args)]
#[command(next_help_heading = "GitHub")]
pub(super) struct GithubArgs {
    /// A file with the token, which otherwise is in GITHUB_TOKEN or GH_TOKEN. It has to be one
    /// that may read webhooks.
    #[arg(long, value_name = "FILE", conflicts_with = "app_id")]
    token_file: Option<PathBuf>,

    /// Ask as this GitHub App about its own webhook: the app's id or client id.
    #[arg(long, value_name = "ID", requires = "app_key")]
    app_id: Option<String>,

    /// The app's private key, PEM, as GitHub gives it out.
    #[arg(long, value_name = "FILE", requires = "app_id")]
    app_key: Option<PathBuf>,

    /// Where the API is, for example https://github.example.com/api/v3.
    #[arg(long, value_name = "URL", env = "GITHUB_API_URL")]
    #[arg(default_value = "https://api.github.com")]
    api_url: String,
}

/// GitLab's API.
#[derive(Debug, Args)]
#[command(next_help_heading = "GitLab")]
pub(super) struct GitlabArgs {
    /// Ask about the webhooks of this group, not of a project.
    #[arg(long)]
    group: Option<String>,

    /// A file with the token, which otherwise is in GITLAB_TOKEN. It has to have the scope api.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Where the API is, for example https://gitlab.example.com/api/v4.
    #[arg(long, value_name = "URL", env = "CI_API_V4_URL")]
    #[arg(default_value = "https://gitlab.com/api/v4")]
    api_url: String,
}

/// Which deliveries are meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Deliveries")]
pub(super) struct WhichArgs {
    /// Those since this time, such as 2h or 2026-01-31T12:00:00Z, rather than all that the
    /// provider remembers.
    #[arg(long, alias = "time-since", short_alias = 'T', value_name = "TIME")]
    since: Option<When>,

    /// Those of this kind, such as issues, issues.opened or 'Push Hook'; may be repeated.
    #[arg(long, value_name = "NAME")]
    event: Vec<String>,
}

/// How signatures are checked and made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signatures")]
pub(super) struct SigningArgs {
    /// The webhook's secret, as env:NAME or file:PATH, to check signatures with; may be repeated.
    #[arg(long, value_name = "env:NAME")]
    secret: Vec<SecretPlace>,

    /// Sign what is sent anew, with the first --secret.
    #[arg(long, requires = "secret")]
    resign: bool,
}

impl GithubArgs {
    /// The webhook that is meant, and what is typed behind it.
    pub(super) fn hook<'a>(
        &self,
        typed: &'a [String],
        remote: &RemoteArgs,
    ) -> Result<(Hook, &'a [String]), Failure> {
        let (account, typed) = match (&self.app_id, typed) {
            (Some(_), typed) => (Account::App, typed),
            (None, [name, typed @ ..]) => {
                // It may be a URL with a token, out of its place.
                let wrong = || usage("the first argument is neither OWNER/REPO nor OWNER");
                (Account::on_github(name).ok_or_else(wrong)?, typed)
            }
            (None, []) => return Err(usage("say whose webhook: OWNER/REPO, OWNER, or --app-id")),
        };
        let credential = match (&self.app_id, &self.app_key) {
            (Some(id), Some(file)) => {
                let key = AppKey::new(id, &read(file)?);
                let key = key.with_context(|| file.display().to_string());
                Credential::App(Box::new(key.map_err(Failure::Usage)?))
            }
            _ => token(self.token_file.as_deref(), &["GITHUB_TOKEN", "GH_TOKEN"])?,
        };
        let (id, typed) = match &account {
            Account::App => (None, typed),
            _ => number(typed),
        };
        let api = api(Provider::Github, &self.api_url, credential, remote)?;
        Ok((Hook::new(api, account, id), typed))
    }
}

impl GitlabArgs {
    /// The webhook that is meant, and what is typed behind it.
    pub(super) fn hook<'a>(
        &self,
        typed: &'a [String],
        remote: &RemoteArgs,
    ) -> Result<(Hook, &'a [String]), Failure> {
        let (account, typed) = match (&self.group, typed) {
            (Some(group), typed) => (Account::Group(group.clone()), typed),
            (None, [name, typed @ ..]) if !name.contains("://") => {
                (Account::Project(name.clone()), typed)
            }
            _ => {
                return Err(usage(
                    "say whose webhook: a project's path or number, or --group",
                ));
            }
        };
        let credential = token(self.token_file.as_deref(), &["GITLAB_TOKEN"])?;
        let (id, typed) = number(typed);
        let api = api(Provider::Gitlab, &self.api_url, credential, remote)?;
        Ok((Hook::new(api, account, id), typed))
    }
}

/// The webhook's number, if that is what comes next.
fn number(typed: &[String]) -> (Option<u64>, &[String]) {
    match typed {
        [first, rest @ ..] => match first.parse() {
            Ok(id) => (Some(id), rest),
            Err(_) => (None, typed),
        },
        [] => (None, typed),
    }
}

fn api(
    provider: Provider,
    url: &str,
    credential: Credential,
    remote: &RemoteArgs,
) -> Result<Api, Failure> {
    let mut api = Api::new(provider, url, credential)?;
    if let Some(pem) = remote.ca()? {
        api = api.trust(&pem)?;
    }
    if api.is_exposed() {
        warn!("others can read the token on its way: the URL of {provider}'s API is not https");
    }
    Ok(api)
}

fn token(file: Option<&Path>, names: &[&str]) -> Result<Credential, Failure> {
    let found = match file {
        Some(file) => Some(read(file)?),
        None => names
            .iter()
            .find_map(std::env::var_os)
            .map(OsString::into_vec),
    };
    let missing = || usage(&format!("no token: set {} or give --token-file", names[0]));
    let text = String::from_utf8(found.ok_or_else(missing)?);
    let text = text.map_err(|_| usage("the token is not text"))?;
    Ok(Credential::Token(text.trim().to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    bytes.map_err(Failure::Usage)
}

/// Sees to it that one webhook is meant: where there is only one, it need not be said which.
pub(super) async fn settle(hook: &mut Hook) -> Result<(), Failure> {
    if hook.id().is_some() || *hook.account() == Account::App {
        return Ok(());
    }
    let all = hook.siblings().await?;
    let account = hook.account();
    match &all[..] {
        [] => Err(Failure::Refused(anyhow!("{account} has no webhook"))),
        [one] => {
            hook.choose(one.id);
            Ok(())
        }
        several => {
            let lines: Vec<_> = several.iter().map(entry).collect();
            let lines = lines.join("\n  ");
            Err(usage(&format!(
                "{account} has several webhooks; say which one by its number:\n  {lines}"
            )))
        }
    }
}

impl WhichArgs {
    /// From when on.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since.map(|When(time)| time)
    }

    /// Whether a delivery is of a kind that is meant.
    ///
    /// GitHub's ping says that the webhook is there; it is no event, and servers answer it
    /// themselves. It has to be asked for by name.
    pub(super) fn wants(&self, delivery: &Delivery) -> bool {
        match &self.event[..] {
            [] => delivery.event() != "ping",
            kinds => kinds.iter().any(|kind| delivery.is_a(kind)),
        }
    }
}

impl SigningArgs {
    pub(super) fn signing(&self) -> Result<Signing, Failure> {
        let secrets = self.secret.iter().map(SecretPlace::read);
        Ok(Signing {
            secrets: secrets
                .collect::<anyhow::Result<_>>()
                .map_err(Failure::Usage)?,
            resign: self.resign,
        })
    }
}

/// Where a secret is.
#[derive(Debug, Clone)]
pub(super) enum SecretPlace {
    Env(String),
    File(PathBuf),
}

impl FromStr for SecretPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("env", name)) => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) => Ok(Self::File(path.into())),
            _ => Err("expected env:NAME or file:PATH; others can read what is typed here"),
        }
    }
}

impl SecretPlace {
    /// The secret itself.
    pub(super) fn read(&self) -> anyhow::Result<Secret> {
        let bytes = match self {
            Self::Env(name) => std::env::var_os(name)
                .map(OsString::into_vec)
                .with_context(|| format!("{name} is not set in the environment"))?,
            Self::File(file) => {
                let bytes = std::fs::read(file);
                without_newline(bytes.with_context(|| format!("cannot read {}", file.display()))?)
            }
        };
        Ok(Secret::new(bytes)?)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Url(_) | Error::Token | Error::Key(_) | Error::Ca(_) => {
                Self::Usage(error.into())
            }
            Error::Refused { .. } => Self::Refused(error.into()),
            Error::Unavailable { .. } | Error::Limited { .. } => Self::Unreachable(error.into()),
            error => Self::Other(error.into()),
        }
    }
}

fn usage(reason: &str) -> Failure {
    Failure::Usage(anyhow!(reason.to_owned()))
}
