//! The arguments of `hookbot forward`, and of `hookbot client` with gosmee's names for them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use hookbot_forward::source::channel::ChannelKind;
use hookbot_forward::{ScriptOptions, Selection, Settings, Tool};

use super::delivery::{CommandArgs, TargetArgs};
use crate::cli::Failure;
use crate::config::Span;

/// Delivers messages to HTTP services and commands, each until it takes them.
///
/// What arrives is what was sent: method, query, headers and every byte of the body, so that a
/// provider's signature still verifies. A target that is down gets everything once it is back, in
/// order; one that refuses a message does not hold up the next, see hookbot dead.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct ForwardArgs {
    /// Where messages come from: wss://TOKEN@example.com/sub/github/, or the channel of a smee or
    /// gosmee server, such as https://smee.io/abc.
    pub(super) source: String,

    /// Where they go: http://localhost:3000/hook, unix:/run/app.sock, unix:/run/app.sock:/hook.
    /// With several, none waits for another.
    #[arg(required_unless_present_any = ["exec", "save"])]
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
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Delivery")]
    pub(super) concurrency: usize,

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
    #[arg(alias = "resume-state-file")]
    pub(super) state: Option<PathBuf>,

    /// Keep no place: begin with what comes next, and lose what is refused.
    #[arg(long, conflicts_with = "state", help_heading = "Delivery")]
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
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Commands")]
    pub(super) exec_concurrency: usize,

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
    #[arg(
        long,
        value_name = "FILE",
        env = "GOSMEE_ENCRYPTION_KEY_FILE",
        help_heading = "Source"
    )]
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

/// What gosmee calls what is called otherwise here.
#[derive(Debug, Args)]
struct Gosmee {
    #[arg(long, short = 'o', hide = true, value_name = "pretty|json")]
    output: Option<String>,
    #[arg(long, hide = true)]
    health_port: Option<u16>,
    #[arg(long, hide = true)]
    httpie: bool,
    #[arg(long, hide = true)]
    local_debug_url: Option<String>,
    /// Colour is only for terminals, and `NO_COLOR` is heeded.
    #[arg(long, hide = true)]
    nocolor: bool,
    /// There is no such limit here.
    #[arg(long, hide = true)]
    sse_buffer_size: Option<u64>,
    /// smee's stream has events of one kind.
    #[arg(long, short = 'c', hide = true)]
    channel: Option<String>,
    /// `RUST_LOG` chooses what is logged.
    #[arg(long, hide = true)]
    log_level: Option<String>,
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

    pub(super) fn health_address(&self) -> Option<SocketAddr> {
        let port = self.gosmee.health_port.filter(|port| *port > 0);
        self.health
            .or_else(|| port.map(|port| (Ipv4Addr::UNSPECIFIED, port).into()))
    }

    pub(super) fn script_options(&self) -> ScriptOptions {
        let mut options = ScriptOptions::default();
        if let Some(local) = &self.gosmee.local_debug_url {
            options.local.clone_from(local);
        }
        if self.gosmee.httpie {
            options.tool = Tool::Httpie;
        }
        options
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            concurrency: self.concurrency,
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
            Some(key) => selection.key(key).map_err(usage),
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
            Some(file) => std::fs::read_to_string(file)
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

fn usage(error: hookbot_forward::selection::Invalid) -> Failure {
    Failure::Usage(error.into())
}
