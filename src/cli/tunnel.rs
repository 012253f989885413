//! `hookbot tunnel`: calls answered by a service on this machine.

mod inspect;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Args;
use hookbot_forward::{Saver, ScriptOptions};
use hookbot_protocol::{Endpoint as Leads, Path};
use hookbot_tunnel::{
    Answer, Endpoint, Event, REAL_STATUS, Responder, Target, TargetSettings, Unanswered,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::inspect::Inspected;
use super::listen::UNSAFE_IS_OK;
use super::{Failure, output};
use crate::config::Span;

/// Answers calls with a service on this machine, or one that it can reach.
///
/// Callers ask https://example.com/call/TOPIC, with a token for that path, and everything below it;
/// the service answers, from behind whatever firewall, as if they had asked it. The URL stays the
/// same however often this is started, and several may answer on one topic.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TunnelArgs {
    /// Where calls come from, for example wss://TOKEN@example.com/answer/shop.
    url: String,

    /// The service: http://localhost:3000, a URL with a path or https, or unix:/run/app.sock.
    target: String,

    /// A header for the service, for example 'X-Team: infra', in place of the caller's of that
    /// name; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// The Host that the service sees, in place of its own. The caller's is in X-Forwarded-Host.
    #[arg(long, value_name = "HOST")]
    host_header: Option<String>,

    /// Put this before the path of each call.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    path_prefix: String,

    /// How long the service may take to begin its answer. Without it, as long as the server waits.
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,

    /// Take at most so many calls at a time; further ones are answered with 503.
    #[arg(long, value_name = "N", default_value_t = hookbot_tunnel::MAX_CALLS as u32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=hookbot_tunnel::MAX_CALLS as i64))]
    max_concurrent: u32,

    /// How long open calls may take to end once this is told to stop.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    grace: Span,

    /// Believe whatever certificate the service has.
    #[arg(long)]
    insecure: bool,

    /// Certificates to trust besides the system's, PEM; for the server, too.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// A header to send to the server when connecting; may be repeated.
    #[arg(
        long = "server-header",
        env = "HOOKBOT_HEADER",
        value_name = "NAME: VALUE"
    )]
    server_headers: Vec<String>,

    /// Answer below /unsafe/, where anybody may call: says that the service checks what it gets.
    #[arg(long)]
    unsafe_is_ok: bool,

    /// Save each call in this folder, as `forward --save` does messages: of bodies the first 4 MiB.
    #[arg(long, value_name = "FOLDER")]
    inspect: Option<PathBuf>,

    /// Print one JSON object a call, and one when connected.
    #[arg(long)]
    json: bool,

    /// Make this file, with the URL for callers in it, once calls get through.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  hookbot tunnel wss://TOKEN@example.com/answer/shop http://localhost:3000
  hookbot tunnel --json --ready-file ready $(hookbot make-tokens /answer/shop) unix:/run/app.sock
  curl -d '{}' $(hookbot make-tokens /call/shop)     # for callers: another token, another path";

pub(super) fn run(args: &TunnelArgs) -> Result<(), Failure> {
    let endpoint = args.endpoint()?;
    let target = Target::new(&args.target, args.settings()?);
    let target = target.map_err(|error| Failure::Usage(error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start")?;
    let done = runtime.block_on(answer(args, endpoint, target));
    // A name that is being looked up, and the like, is nothing to wait for.
    runtime.shutdown_background();
    done
}

async fn answer(args: &TunnelArgs, endpoint: Endpoint, target: Target) -> Result<(), Failure> {
    if let Some(file) = &args.ready_file {
        // What an earlier run has left says nothing of this one.
        let _ = fs::remove_file(file);
    }
    let stop = CancellationToken::new();
    tokio::spawn(heed_signals(stop.clone())?);
    let saver = args.inspect.as_deref().map(|folder| {
        let options = ScriptOptions {
            target: Some(args.target.clone()),
            ..ScriptOptions::default()
        };
        Saver::new(folder, options)
    });
    let report = Arc::new(Report {
        json: args.json,
        saver: saver.transpose().context("cannot save")?,
    });
    let service = {
        let report = report.clone();
        service_fn(move |call| {
            let (target, report) = (target.clone(), report.clone());
            async move { Ok::<_, std::convert::Infallible>(report.answer(&target, call).await) }
        })
    };
    let responder = Responder::new(endpoint)
        .max_concurrent(args.max_concurrent)
        .grace(args.grace.0);
    let mut is_ready = false;
    let tell = |event| {
        if let Event::Connected { call_url } = &event
            && let Some(file) = args.ready_file.as_deref().filter(|_| !is_ready)
        {
            is_ready = true;
            if let Err(error) = fs::write(file, format!("{call_url}\n")) {
                warn!(file = %file.display(), %error, "cannot say that it is ready");
            }
        }
        report.tell(&event);
    };
    responder.run(service, stop, tell).await?;
    Ok(())
}

impl TunnelArgs {
    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let usage = |error: hookbot_listen::Error| Failure::Usage(error.into());
        let mut endpoint = Endpoint::new(&self.url)?;
        for text in &self.server_headers {
            let (name, value) = header(text)?;
            endpoint = endpoint.header(name, value).map_err(usage)?;
        }
        self.check_path(&endpoint)?;
        if self.unsafe_is_ok {
            let (name, value) = UNSAFE_IS_OK;
            endpoint = endpoint.header(name, value).map_err(usage)?;
        }
        if let Some(pem) = self.pem()? {
            endpoint = endpoint.ca(&pem).map_err(usage)?;
        }
        Ok(endpoint)
    }

    /// Refuses what no server would ever agree to.
    fn check_path(&self, endpoint: &Endpoint) -> Result<(), Failure> {
        let url: Result<Uri, _> = endpoint.public_url().parse();
        let path = url.ok().and_then(|url| Path::parse(url.path()).ok());
        let path = path.filter(|path| matches!(path.endpoint(), Leads::Answer(_)));
        let reason = match path {
            None => "the path of the server's URL has to be /answer/TOPIC",
            Some(path) if path.is_unsafe() && !self.unsafe_is_ok => {
                "anybody may call what answers below /unsafe/; allow that with --unsafe-is-ok"
            }
            Some(_) => return Ok(()),
        };
        Err(Failure::Usage(anyhow!(reason)))
    }

    fn settings(&self) -> Result<TargetSettings, Failure> {
        let mut settings = TargetSettings {
            path_prefix: self.path_prefix.clone(),
            timeout: self.timeout.map(|Span(time)| time),
            ..TargetSettings::default()
        };
        if let Some(host) = &self.host_header {
            let value = HeaderValue::try_from(host).context("--host-header is no host");
            settings.host = Some(value.map_err(Failure::Usage)?);
        }
        for text in &self.headers {
            let (name, value) = header(text)?;
            let parsed: Result<HeaderName, _> = name.parse();
            let name = parsed.with_context(|| format!("{name:?} is not a header's name"));
            let value = HeaderValue::try_from(value).context("a header has a control character");
            let pair = (
                name.map_err(Failure::Usage)?,
                value.map_err(Failure::Usage)?,
            );
            settings.headers.push(pair);
        }
        settings.tls.insecure = self.insecure;
        if let Some(pem) = self.pem()? {
            let trusted = settings.tls.trust(&pem).context("cannot use --ca");
            trusted.map_err(Failure::Usage)?;
        }
        Ok(settings)
    }

    fn pem(&self) -> Result<Option<Vec<u8>>, Failure> {
        let read = self.ca.as_ref().map(|file| {
            let read = fs::read(file);
            read.with_context(|| format!("cannot read {}", file.display()))
        });
        read.transpose().map_err(Failure::Usage)
    }
}

/// Takes `Name: value` apart.
fn header(text: &str) -> Result<(&str, &str), Failure> {
    let parts = text.split_once(':');
    let parts = parts.map(|(name, value)| (name.trim(), value.trim()));
    // It is not repeated: it may be a secret without its colon.
    parts.ok_or_else(|| Failure::Usage(anyhow!("a header is of the form NAME: VALUE")))
}

/// Stops at the first signal, at once at the second.
fn heed_signals(stop: CancellationToken) -> Result<impl Future<Output = ()>, Failure> {
    let on = |kind| signal(kind).context("cannot listen to signals");
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(130);
            }
            stop.cancel();
        }
    })
}

/// Tells what happens, on standard output.
struct Report {
    json: bool,
    saver: Option<Saver>,
}

impl Report {
    fn tell(&self, event: &Event) {
        match event {
            Event::Connected { call_url } if self.json => {
                print(&serde_json::json!({ "connected": call_url }).to_string());
            }
            Event::Connected { call_url } => print(&format!("answering calls to {call_url}")),
            Event::Lost { .. } => warn!("{event}"),
        }
    }

    /// Has the target answer, with a line about it.
    async fn answer(&self, target: &Target, call: Request<Incoming>) -> Response<Answer> {
        let is_upgrade = call.extensions().get::<Protocol>().is_some();
        let mut line = Line {
            report: self,
            method: method(call.method(), is_upgrade).to_string(),
            path: call.uri().path().to_owned(),
            status: None,
            reason: None,
            began: Instant::now(),
        };
        let answer = match &self.saver {
            None => target.answer(call).await,
            Some(saver) => {
                let (parts, body) = call.into_parts();
                let body = Inspected::new(saver.clone(), &parts, body);
                target.answer(Request::from_parts(parts, body)).await
            }
        };
        // Those of HTTP/2 stand for something else where a connection is to become something else.
        let real = answer.headers().get(REAL_STATUS).filter(|_| is_upgrade);
        line.status = Some(match answer.status().as_u16() {
            200 if is_upgrade => 101,
            status => real
                .and_then(|real| real.to_str().ok()?.parse().ok())
                .unwrap_or(status),
        });
        let reason = answer.extensions().get::<Unanswered>();
        line.reason = reason.map(|Unanswered(reason)| reason.clone());
        answer
    }
}

/// What is said of a call once its answer begins, or once it is taken back.
struct Line<'a> {
    report: &'a Report,
    method: String,
    path: String,
    status: Option<u16>,
    /// Why it was not the service that answered, if it was not.
    reason: Option<String>,
    began: Instant,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let ms = (self.began.elapsed().as_secs_f64() * 1e4).round() / 10.0;
        let Self {
            method,
            path,
            status,
            reason,
            ..
        } = self;
        if self.report.json {
            let mut line = serde_json::json!({
                "method": method, "path": path, "status": status, "ms": ms,
            });
            if let Some(reason) = reason {
                line["error"] = reason.as_str().into();
            }
            return print(&line.to_string());
        }
        let status = status.map_or_else(|| "given up".to_owned(), |status| status.to_string());
        let reason = reason.as_ref().map(|reason| format!(": {reason}"));
        let reason = reason.unwrap_or_default();
        print(&format!("{method} {path} {status} {ms} ms{reason}"));
    }
}

/// The method that a call had when its caller sent it: HTTP/2 asks for upgrades by another.
fn method(own: &Method, is_upgrade: bool) -> &Method {
    if is_upgrade { &Method::GET } else { own }
}

/// Prints a line; that it can't be is no reason not to answer.
fn print(line: &str) {
    if let Err(error) = output::line(line) {
        warn!("{error}");
    }
}
