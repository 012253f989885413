//! The arguments of `hookbot forward`, and of `hookbot client` with gosmee's names for them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, anyhow};
use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use hookbot_forward::source::channel::ChannelKind;
use hookbot_forward::{ScriptOptions, Selection, Settings, Tool};
use tracing::Level;

use super::takers::{CommandArgs, TargetArgs};
use crate::cli::Failure;
use crate::cli::gosmee::CONFIG_HINT;
use crate::config::Span;

/// Delivers messages to HTTP services and commands, each until it takes them.
///
/// What arrives is what was sent: method, query, headers and every byte of the body, so that a
/// provider's signature still verifies. A target that is down gets everything once it is back, in
/// order; one that refuses a message does not hold up the next, see hookbot dead.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub(in crate::cli) struct ForwardArgs {
    /// Where messages come from: wss://TOKEN@example.com/sub/github/, or the channel of a smee or
    /// gosmee server, such as https://smee.io/abc.
    #[arg(index = 1, required = false, required_unless_present = "new_url")]
    #[arg(default_value_if("new_url", ArgPredicate::IsPresent, ""))]
    pub(super) source: String,

    /// Where they go: http://localhost:3000/hook, unix:/run/app.sock, unix:/run/app.sock:/hook.
    /// With several, none waits for another.
    #[arg(index = 2, required_unless_present_any = ["exec", "save", "new_url"])]
    pub(super) targets: Vec<String>,

    #[command(flatten)]
    pub(super) choice: Choice,

    #[command(flatten)]
    pub(super) target: TargetArgs,

    /// How often a message that fails is offered again before it is put aside. Without, for as
    /// long as it takes.
    #[arg(
        long,
        alias = "target-retries",
        env = "HOOKBOT_RETRIES",
        value_name = "N"
    )]
    #[arg(help_heading = "Delivery")]
    pub(super) retries: Option<u32>,

    /// How many messages are on offer to a target at once. With --order-by those that have it in common
    /// stay in order; without it, none are.
    #[arg(long, default_value = "1", value_name = "N", help_heading = "Delivery")]
    pub(super) concurrency: NonZeroUsize,

    /// Messages for which this has the same value stay in order, for example body.repository.id.
    #[arg(
        long,
        value_name = "EXPRESSION",
        requires = "concurrency",
        help_heading = "Delivery"
    )]
    pub(super) order_by: Option<String>,

    /// Where the place and dead letters are kept; by default in the system's folder for state.
    #[arg(
        long,
        env = "HOOKBOT_FORWARD_STATE",
        value_name = "FOLDER",
        help_heading = "Delivery"
    )]
    pub(super) state: Option<PathBuf>,

    /// Keep no place: begin with what comes next, and lose what is refused.
    #[arg(long, help_heading = "Delivery")]
    pub(super) no_state: bool,

    /// The first time, begin behind this cursor, or with the oldest message there is (start).
    #[arg(
        long,
        value_name = "CURSOR",
        conflicts_with = "since",
        help_heading = "Delivery"
    )]
    pub(super) after: Option<String>,

    /// The first time, begin with what was published since then, such as 10m ago.
    #[arg(long, value_name = "TIME", help_heading = "Delivery")]
    pub(super) since: Option<String>,

    /// How long a delivery that has begun may take when this is told to stop.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        help_heading = "Delivery"
    )]
    pub(super) grace: Span,

    /// Run this with the shell for each message: the body on its standard input and in
    /// $HOOKBOT_PAYLOAD_FILE. Until it exits with 0 it is run again, as a target is tried.
    #[arg(
        long,
        value_name = "COMMAND",
        env = "HOOKBOT_EXEC",
        help_heading = "Commands"
    )]
    pub(super) exec: Option<String>,

    /// Run it for this kind of event only; may be repeated.
    #[arg(long, short = 'E', value_name = "EVENT", alias = "exec-on-events")]
    #[arg(help_heading = "Commands", requires = "exec")]
    pub(super) exec_on: Vec<String>,

    /// How many of them run at once.
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Commands")]
    pub(super) exec_concurrency: NonZeroUsize,

    #[command(flatten)]
    pub(super) command: CommandArgs,

    /// Keep each message in this folder, with a script that sends it again.
    #[arg(
        long,
        short = 's',
        value_name = "FOLDER",
        alias = "saveDir",
        help_heading = "Commands"
    )]
    pub(super) save: Option<PathBuf>,

    /// Have these scripts call HTTPie rather than curl.
    #[arg(long, help_heading = "Commands")]
    pub(super) httpie: bool,

    /// Send nothing to the targets: only --exec and --save.
    #[arg(long, short = 'n', alias = "noReplay", help_heading = "Commands")]
    pub(super) no_replay: bool,

    /// Print one JSON object a line for all that happens.
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,

    /// Print nothing of what goes well.
    #[arg(long, short, conflicts_with = "json", help_heading = "Output")]
    pub(super) quiet: bool,

    /// Write this file once everything that is published from now on is forwarded.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) ready_file: Option<PathBuf>,

    /// Answer HTTP here: 200 while the source is heard, else 503.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "HOOKBOT_HEALTH",
        help_heading = "Output"
    )]
    pub(super) health: Option<SocketAddr>,

    /// Stop after so many messages; that one of them was put aside is a failure.
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub(super) count: Option<u64>,

    /// Stop after this time; not having had --count messages by then is a failure.
    #[arg(long, value_name = "TIME", help_heading = "Output")]
    pub(super) within: Option<Span>,

    /// What the source is.
    #[arg(long, value_enum, default_value_t, help_heading = "Source")]
    pub(super) source_kind: SourceKind,

    /// The key that a gosmee channel's events are encrypted for, as gosmee keygen writes it.
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    pub(super) encryption_key_file: Option<PathBuf>,

    /// A header for the source, for example 'X-Team: infra'; may be repeated.
    #[arg(
        long = "source-header",
        value_name = "NAME: VALUE",
        help_heading = "Source"
    )]
    pub(super) source_headers: Vec<String>,

    /// Forward what is below /unsafe/, where anybody may publish: says that targets check what
    /// they get.
    #[arg(long, help_heading = "Source")]
    pub(super) unsafe_is_ok: bool,

    #[command(flatten)]
    gosmee: Gosmee,
}

/// Which messages, and in what form.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(in crate::cli) struct Choice {
    /// Only messages that fulfil this condition, for example 'body.action == "opened"': Jinja over
    /// topic, method, headers, query and body.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,

    /// Only this kind of event, such as push or issues.opened; may be repeated.
    #[arg(long = "event", value_name = "EVENT")]
    pub(in crate::cli) events: Vec<String>,

    /// Not this kind of event; may be repeated.
    #[arg(long = "ignore-event", short = 'I', value_name = "EVENT")]
    ignored: Vec<String>,

    /// Send what this Jinja template makes of a message in place of its body, or the template in a
    /// file: @FILE. A signature is of the old body.
    #[arg(long, value_name = "TEMPLATE|@FILE")]
    transform: Option<String>,
}

/// What gosmee has, and is called otherwise here or is nothing to choose.
#[derive(Debug, Args)]
struct Gosmee {
    /// Print a new channel's URL, of the server that SOURCE is.
    #[arg(long, short = 'u', hide = true)]
    new_url: bool,
    /// The last event's id, as gosmee has written it. Places are kept in its folder.
    #[arg(long, hide = true, value_name = "FILE")]
    resume_state_file: Option<PathBuf>,
    #[arg(long, short = 'F', hide = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, short = 'o', hide = true, value_name = "pretty|json")]
    output: Option<String>,
    #[arg(long, hide = true)]
    health_port: Option<u16>,
    #[arg(long, hide = true)]
    local_debug_url: Option<String>,
    #[arg(long, hide = true)]
    nocolor: bool,
    /// There is no such limit here.
    #[arg(long, hide = true)]
    sse_buffer_size: Option<u64>,
    /// smee's stream has events of one kind.
    #[arg(long, short = 'c', hide = true)]
    channel: Option<String>,
    /// Where `RUST_LOG` says nothing.
    #[arg(long, hide = true)]
    log_level: Option<Level>,
}

/// What a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SourceKind {
    /// A subscription if the URL is that of one, else a channel.
    #[default]
    Auto,
    /// A subscription to a hookbot server.
    Hookbot,
    /// A channel of a smee server.
    Smee,
    /// A channel of a gosmee server.
    Gosmee,
}

impl SourceKind {
    /// What a channel speaks.
    pub(super) fn channel(self) -> ChannelKind {
        match self {
            Self::Auto | Self::Hookbot => ChannelKind::Auto,
            Self::Smee => ChannelKind::Smee,
            Self::Gosmee => ChannelKind::Gosmee,
        }
    }
}

const USAGE: &str = "\
hookbot forward [OPTIONS] SOURCE TARGET...
       hookbot forward [OPTIONS] SOURCE [TARGET...] --exec COMMAND
       hookbot forward [OPTIONS] SOURCE [TARGET...] --save FOLDER";

const EXAMPLES: &str = "\
Examples:
  hookbot forward wss://TOKEN@example.com/sub/github/acme http://localhost:3000/hook
  hookbot forward --event push --exec ./deploy wss://TOKEN@example.com/sub/github/
  hookbot forward --concurrency 16 --order-by body.repository.id wss://TOKEN@example.com/sub/ \\
      http://one.internal/ http://two.internal/
  hookbot forward https://smee.io/abc http://localhost:8080
  hookbot dead list";

impl ForwardArgs {
    /// Refuses what no type could.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.gosmee.config.is_some() {
            let error = anyhow!("a configuration file of gosmee is not read: {CONFIG_HINT}");
            return Err(Failure::Usage(error));
        }
        if self.no_replay && self.exec.is_none() && self.save.is_none() {
            let error = anyhow!("with --no-replay there has to be --exec or --save");
            return Err(Failure::Usage(error));
        }
        if let Some(output) = &self.gosmee.output
            && !matches!(&**output, "pretty" | "json")
        {
            return Err(Failure::Usage(anyhow!("--output is pretty or json")));
        }
        Ok(())
    }

    pub(super) fn is_json(&self) -> bool {
        self.json || self.gosmee.output.as_deref() == Some("json")
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Where health is told: at the first of these that can be had.
    pub(super) fn health_addresses(&self) -> Vec<SocketAddr> {
        match (self.health, self.gosmee.health_port) {
            (Some(address), _) => vec![address],
            (None, None | Some(0)) => Vec::new(),
            (None, Some(port)) => vec![
                (Ipv6Addr::UNSPECIFIED, port).into(),
                (Ipv4Addr::UNSPECIFIED, port).into(),
            ],
        }
    }

    pub(super) fn wants_new_channel(&self) -> bool {
        self.gosmee.new_url
    }

    /// Where places are kept, if that was said.
    pub(super) fn state_folder(&self) -> Option<&Path> {
        let beside = || self.gosmee.resume_state_file.as_deref()?.parent();
        self.state.as_deref().or_else(beside)
    }

    /// Where a channel begins the first time.
    pub(super) fn first_place(&self) -> Result<Option<String>, Failure> {
        if let Some(id) = &self.after {
            return place(id).map(Some);
        }
        let Some(file) = &self.gosmee.resume_state_file else {
            return Ok(None);
        };
        match fs::read_to_string(file) {
            Ok(text) if text.trim().is_empty() => Ok(None),
            Ok(text) => place(text.trim()).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let file = file.display();
                Err(Failure::Usage(anyhow!("cannot read {file}: {error}")))
            }
        }
    }

    /// What is logged where `RUST_LOG` does not say.
    pub(in crate::cli) fn log_level(&self) -> Option<Level> {
        self.gosmee.log_level
    }

    /// Whether no output may be coloured.
    pub(in crate::cli) fn is_colourless(&self) -> bool {
        self.gosmee.nocolor
    }

    pub(super) fn script_options(&self) -> ScriptOptions {
        let mut options = ScriptOptions::default();
        if let Some(local) = &self.gosmee.local_debug_url {
            options.local.clone_from(local);
        }
        if self.httpie {
            options.tool = Tool::Httpie;
        }
        options
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            concurrency: self.concurrency.get(),
            retries: self.retries,
            grace: self.grace.0,
            count: self.count,
            ..Settings::default()
        }
    }

    /// Which messages somebody gets who wants these events.
    pub(super) fn selection(&self, events: &[String]) -> Result<Selection, Failure> {
        self.in_order(self.choice.selection(events)?)
    }

    /// The same, with every body as it was sent.
    pub(super) fn selection_as_sent(&self, events: &[String]) -> Result<Selection, Failure> {
        self.in_order(self.choice.as_sent(events)?)
    }

    fn in_order(&self, selection: Selection) -> Result<Selection, Failure> {
        match &self.order_by {
            Some(key) => selection
                .key(key)
                .map_err(|error| Failure::Usage(anyhow::Error::from(error).context("--order-by"))),
            None => Ok(selection),
        }
    }
}

impl Choice {
    /// What is chosen, of these events.
    pub(in crate::cli) fn selection(&self, events: &[String]) -> Result<Selection, Failure> {
        let selection = self.as_sent(events)?;
        let Some(template) = &self.transform else {
            return Ok(selection);
        };
        let text = match template.strip_prefix('@') {
            None => template.clone(),
            Some(file) => fs::read_to_string(file)
                .with_context(|| format!("cannot read {file}"))
                .map_err(Failure::Usage)?,
        };
        selection.transform(&text).map_err(usage)
    }

    /// The same, with every body as it was sent.
    fn as_sent(&self, events: &[String]) -> Result<Selection, Failure> {
        let selection = Selection::default().events(events).ignore(&self.ignored);
        match &self.filter {
            Some(filter) => selection.filter(filter).map_err(usage),
            None => Ok(selection),
        }
    }
}

/// An event's id that a server can go on from: two numbers, as Redis makes them.
fn place(text: &str) -> Result<String, Failure> {
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    match text.split_once('-') {
        Some((time, count)) if is_number(time) && is_number(count) => Ok(text.to_owned()),
        _ => Err(Failure::Usage(anyhow!(
            "{text:?} is no place in a channel: that is an event's id, such as 1769862600007-0"
        ))),
    }
}

fn usage(error: hookbot_forward::selection::Invalid) -> Failure {
    Failure::Usage(error.into())
}
