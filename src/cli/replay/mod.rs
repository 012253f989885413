//! `hookbot replay`: messages once more, from files or from a server's log; and, by a provider's
//! name, from what it says it has sent.

mod backfill;
mod github;
mod gitlab;
mod resign;
mod send;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hookbot_forward::saved;
use hookbot_forward::source::files::Files;
use hookbot_forward::source::past::{Past, PastError};

use self::send::{SendArgs, block_on, send};
use super::Failure;
use super::forward::{prefix, subscription};

/// Sends messages again: saved ones, those of a server's log, or a provider's deliveries.
///
/// Messages go one after the other, in the order in which they came. It fails where one was not
/// taken.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[command(subcommand)]
    provider: Option<Provider>,

    /// Folders or files that --save has written, here or in gosmee; or the URL of a subscription,
    /// with where to begin: its log is sent up to now. Last, where to send them: an HTTP service,
    /// or what of a hookbot server is below /pub/.
    #[arg(required = true, value_name = "FROM... TARGET")]
    typed: Vec<String>,

    #[command(flatten)]
    send: SendArgs,

    /// A header for the source, for example 'X-Team: infra'; may be repeated.
    #[arg(
        long = "source-header",
        value_name = "NAME: VALUE",
        help_heading = "Source"
    )]
    source_headers: Vec<String>,

    /// Replay what is below /unsafe/, where anybody may publish: says that targets check what they
    /// get.
    #[arg(long, help_heading = "Source")]
    unsafe_is_ok: bool,
}

/// Whose API is asked for its deliveries: a file each in this folder.
#[derive(Debug, Subcommand)]
enum Provider {
    Github(Box<github::GithubReplayArgs>),
    Gitlab(Box<gitlab::GitlabReplayArgs>),
}

const USAGE: &str = "\
hookbot replay [OPTIONS] FROM... TARGET
       hookbot replay github [OPTIONS] OWNER[/REPO] [HOOK_ID] TARGET
       hookbot replay gitlab [OPTIONS] PROJECT [HOOK_ID] TARGET";

const EXAMPLES: &str = "\
Examples:
  hookbot replay saved/ http://localhost:3000/hook
  hookbot replay --event push --since 2h saved/ http://localhost:3000/hook
  hookbot replay --resign stripe --secret env:STRIPE_SECRET saved/ http://localhost:3000/hook
  hookbot replay 'wss://TOKEN@example.com/sub/stripe?since=2h' http://localhost:3000/hook
  hookbot replay --pace original saved/ https://TOKEN@example.com/pub/stripe";

impl ReplayArgs {
    /// Whether it is a provider that is asked what it has sent.
    pub(super) fn asks_a_provider(&self) -> bool {
        self.provider.is_some()
    }
}

pub(super) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    match &args.provider {
        Some(Provider::Github(args)) => return github::run(args),
        Some(Provider::Gitlab(args)) => return gitlab::run(args),
        None => {}
    }
    let [from @ .., target] = &*args.typed else {
        return Ok(());
    };
    let target = |prefix| args.send.target.target(target, prefix);
    let is_url = |from: &String| from.contains("://");
    match from {
        [] => Err(Failure::Usage(anyhow!(
            "say both what to send and where to send it"
        ))),
        [url] if is_url(url) => block_on(async {
            let target = target(prefix(url))?;
            let past = past(args, url).await?;
            send(past, target, &args.send, args.send.span_behind()).await
        }),
        all if all.iter().any(is_url) => Err(Failure::Usage(anyhow!(
            "a URL stands alone: replay several one after the other"
        ))),
        paths => {
            let found = saved::find(paths).map_err(|error| Failure::Usage(error.into()))?;
            let target = target(String::new())?;
            block_on(send(Files(found), target, &args.send, args.send.span()))
        }
    }
}

/// What a server's log has of a subscription, up to now.
async fn past(args: &ReplayArgs, url: &str) -> Result<Past, Failure> {
    let endpoint = |url: &str| {
        let ca = args.send.target.ca.as_deref();
        subscription(url, &args.source_headers, args.unsafe_is_ok, ca)
    };
    let next = without_beginning(url);
    let from = match args.send.since() {
        Some(time) => endpoint(&next)?.since(&time.to_string()),
        None if next == url => {
            return Err(Failure::Usage(anyhow!(
                "say from when on: --since 2h, or ?after=start behind the URL for everything"
            )));
        }
        None => endpoint(url)?,
    };
    let past = Past::upto_now(&endpoint(&next)?, from).await;
    past.map_err(|error| match error {
        PastError::Listen(error) => error.into(),
        error => Failure::Unreachable(error.into()),
    })
}

/// A subscription's URL without where it begins.
fn without_beginning(url: &str) -> String {
    let Some((start, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let is_beginning = |pair: &&str| pair.starts_with("since=") || pair.starts_with("after=");
    let rest: Vec<_> = query
        .split('&')
        .filter(|pair| !is_beginning(pair))
        .collect();
    if rest.is_empty() {
        return start.to_owned();
    }
    format!("{start}?{}", rest.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_taken_out_and_nothing_else() {
        for (url, rest) in [
            ("ws://h/sub/a", "ws://h/sub/a"),
            ("ws://h/sub/a?since=2h", "ws://h/sub/a"),
            (
                "ws://h/sub/a?x=1&after=start&token=t",
                "ws://h/sub/a?x=1&token=t",
            ),
            ("ws://h/sub/a?sincerely=2h", "ws://h/sub/a?sincerely=2h"),
        ] {
            assert_eq!(without_beginning(url), rest);
        }
    }
}
