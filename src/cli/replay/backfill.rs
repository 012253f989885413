//! What a provider remembers, listed or sent once more: the same for each provider.

use std::collections::HashMap;

use anyhow::anyhow;
use clap::Args;
use hookbot_backfill::{Attempt, Delivery, Hook};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::warn;

use crate::cli::listing::{as_json, entry, row, shown};
use crate::cli::provider::{SigningArgs, WhichArgs, settle};
use crate::cli::remote::{RemoteArgs, block_on};
use crate::cli::resend::{Outcome, Resender};
use crate::cli::{Failure, output};
use crate::config::Span;

/// What to do with deliveries, and with which.
#[derive(Debug, Args)]
pub(super) struct BackfillArgs {
    /// List the webhooks.
    #[arg(long, short_alias = 'L', conflicts_with_all = ["list_deliveries", "redeliver", "follow"])]
    list_hooks: bool,

    /// List the deliveries, and send nothing.
    #[arg(long, short_alias = 'D', conflicts_with_all = ["redeliver", "follow"])]
    list_deliveries: bool,

    /// Have the provider itself send them again, to where the webhook posts and signed by it.
    #[arg(long, conflicts_with_all = ["secret", "follow"])]
    redeliver: bool,

    /// Go on with new ones as they come; without --since, with nothing but those.
    #[arg(long)]
    follow: bool,

    /// How often --follow asks.
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "follow")]
    interval: Span,

    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,

    /// Those that no attempt succeeded for.
    #[arg(long, help_heading = "Deliveries")]
    failed: bool,

    #[command(flatten)]
    which: WhichArgs,

    #[command(flatten)]
    signing: SigningArgs,

    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// Does with the webhook's deliveries what is asked for.
pub(super) fn backfill(
    mut hook: Hook,
    typed: &[String],
    args: &BackfillArgs,
) -> Result<(), Failure> {
    let needs_target = !(args.list_hooks || args.list_deliveries || args.redeliver);
    let target = match (typed, needs_target) {
        ([target], true) => Some(target),
        ([], false) => None,
        ([], true) => {
            return Err(Failure::Usage(anyhow!(
                "say where to send to, behind the webhook"
            )));
        }
        ([_, extra, ..], true) | ([extra, ..], false) => {
            // It may be a URL with a token, out of its place.
            let error = match extra.contains("://") {
                true => anyhow!("{} is one argument too many", shown(extra)),
                false => anyhow!("there is one argument too many"),
            };
            return Err(Failure::Usage(error));
        }
    };
    let signing = args.signing.signing()?;
    block_on(async {
        if args.list_hooks {
            return list_hooks(&mut hook, args.json).await;
        }
        let resender = target
            .map(|url| Resender::new(url, signing, &args.remote))
            .transpose()?;
        settle(&mut hook).await?;
        let mut run = Run {
            args,
            hook,
            resender,
            known: Known::default(),
            tally: Tally::default(),
        };
        if args.follow {
            return run.follow().await;
        }
        let since = args.which.since();
        for delivery in run.fresh(since).await? {
            run.deal_with(&delivery).await?;
        }
        run.end()
    })
}

async fn list_hooks(hook: &mut Hook, json: bool) -> Result<(), Failure> {
    for found in hook.siblings().await? {
        let text = if json {
            json!({
                "id": found.id,
                "url": shown(&found.url),
                "events": found.events,
                "active": found.is_active,
            })
            .to_string()
        } else {
            entry(&found)
        };
        output::line(&text)?;
    }
    Ok(())
}

/// A command at work.
struct Run<'a> {
    args: &'a BackfillArgs,
    hook: Hook,
    /// Where to send to, if anything is sent from here.
    resender: Option<Resender>,
    known: Known,
    tally: Tally,
}

/// How many deliveries became what.
#[derive(Default)]
struct Tally {
    done: usize,
    refused: usize,
    lost: usize,
}

impl Run<'_> {
    /// The deliveries since then that were not seen before and are meant.
    async fn fresh(&mut self, since: Option<Timestamp>) -> Result<Vec<Delivery>, Failure> {
        let is_old = |attempt: &Attempt| {
            self.known.attempts.contains_key(&attempt.id)
                || attempt
                    .at
                    .is_some_and(|at| since.is_some_and(|since| at < since))
        };
        let attempts = self.hook.attempts(is_old).await?;
        let mut deliveries = self.known.take(attempts);
        deliveries.retain(|delivery| {
            self.args.which.wants(delivery) && !(self.args.failed && delivery.succeeded())
        });
        Ok(deliveries)
    }

    /// Asks for new deliveries until somebody stops it.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut since = self.args.which.since();
        if since.is_none() {
            // What is new is told by the provider's clock, not by ours.
            let mut newest = None;
            let noting = |attempt: &Attempt| {
                newest = newest.max(attempt.at);
                self.known.attempts.insert(attempt.id, Timestamp::now());
                true
            };
            self.hook.attempts(noting).await?;
            since = newest;
        }
        let Span(interval) = self.args.interval;
        let asking = humantime::format_duration(interval);
        anstream::eprintln!("following: asking every {asking}, until Ctrl-C");
        loop {
            match self.fresh(since).await {
                Ok(deliveries) => {
                    for delivery in deliveries {
                        self.insist(&delivery).await?;
                    }
                }
                Err(Failure::Unreachable(error)) => warn!("{error:#}; going on"),
                Err(failure) => return Err(failure),
            }
            sleep(interval).await;
        }
    }

    /// Deals with a delivery once target and provider can be reached.
    async fn insist(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        let Span(interval) = self.args.interval;
        loop {
            match self.deal_with(delivery).await {
                Err(Failure::Unreachable(error)) => warn!("{error:#}; trying again"),
                done => return done,
            }
            sleep(interval).await;
        }
    }

    async fn deal_with(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        if self.args.list_deliveries {
            self.tally.done += 1;
            return self.tell(delivery, None);
        }
        let Some(resender) = &mut self.resender else {
            return self.redeliver(delivery).await;
        };
        let outcome = resender.resend(&mut self.hook, delivery).await?;
        if let Outcome::Unreachable(reason) = outcome {
            let at = delivery.at().map(|at| format!(" of {at}"));
            let (id, at) = (delivery.id(), at.unwrap_or_default());
            let error = anyhow!("{reason}; {id}{at} and what is newer was not sent");
            return Err(Failure::Unreachable(error));
        }
        self.tell(delivery, Some(&outcome))?;
        match outcome {
            Outcome::Taken { .. } => self.tally.done += 1,
            Outcome::Lost(_) => self.tally.lost += 1,
            // A target that takes nothing at all has another reason than the delivery.
            Outcome::Refused { status, reason, .. } if self.tally.done == 0 => {
                let error = anyhow!("the target refused with {status}: {reason}");
                return Err(Failure::Refused(error));
            }
            _ => self.tally.refused += 1,
        }
        Ok(())
    }

    async fn redeliver(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        match self.hook.redeliver(delivery).await {
            Ok(()) => {
                self.tally.done += 1;
                self.tell(delivery, None)
            }
            // Where others were taken, it is this one that is too old or gone.
            Err(error) if self.tally.done > 0 && error.is_of_one_delivery() => {
                self.tally.lost += 1;
                self.tell(delivery, Some(&Outcome::Lost(error.to_string())))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, delivery: &Delivery, outcome: Option<&Outcome>) -> Result<(), Failure> {
        let what = match (outcome, self.args.redeliver) {
            (None, true) => "asked for again".to_owned(),
            (None, false) => delivery.last().status.clone(),
            (Some(outcome), _) => outcome.to_string(),
        };
        if !self.args.json {
            return output::line(&row(delivery, &what));
        }
        let mut object = as_json(delivery);
        object.extend(outcome.map(Outcome::fields).unwrap_or_default());
        output::line(&Value::from(object).to_string())
    }

    fn end(&self) -> Result<(), Failure> {
        let Tally {
            done,
            refused,
            lost,
        } = self.tally;
        let what = match (&self.resender, self.args.redeliver) {
            (Some(_), _) => "sent",
            (None, true) => "asked for again",
            (None, false) => "deliveries",
        };
        match (refused, lost) {
            (0, 0) => {
                anstream::eprintln!("{done} {what}");
                Ok(())
            }
            (0, lost) => Err(anyhow!("{done} {what}, {lost} lost").into()),
            (refused, lost) => Err(Failure::Refused(anyhow!(
                "{done} {what}, {refused} refused, {lost} lost"
            ))),
        }
    }
}

/// What was seen so far, and when, for as long as a provider may list it.
#[derive(Default)]
struct Known {
    attempts: HashMap<u64, Timestamp>,
    deliveries: HashMap<String, Timestamp>,
}

impl Known {
    /// Notes these attempts, and gives the deliveries that are not known yet, oldest first.
    fn take(&mut self, attempts: Vec<Attempt>) -> Vec<Delivery> {
        let now = Timestamp::now();
        let is_fresh = |at: &Timestamp| now.duration_since(*at) < REMEMBERED;
        self.attempts.retain(|_, at| is_fresh(at));
        self.deliveries.retain(|_, at| is_fresh(at));
        self.attempts
            .extend(attempts.iter().map(|attempt| (attempt.id, now)));
        let mut deliveries = Delivery::group(attempts);
        deliveries.retain(|one| self.deliveries.insert(one.id().to_owned(), now).is_none());
        deliveries
    }
}

/// Longer than any provider remembers a delivery.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(8 * 24);
