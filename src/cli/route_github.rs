//! `hookbot route-github`: the router in a process of its own, next to any server.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use clap::Args;
use hookbot_listen::{Endpoint, Publisher, retrying_watch};
use hookbot_protocol::{Message, Offset, Publication, Scope, Topic};
use hookbot_routers::Github;
use tracing::{info, warn};

use super::listen::UNSAFE_IS_OK;
use super::remote::{RemoteArgs, block_on};
use super::{Failure, GlobalArgs};

/// Verifies what GitHub posts and publishes it again, one topic a branch.
///
/// Listens to the monitor URL and publishes to the same server below github.com/repo/. Needs the
/// server's key, to make the tokens, and the secret that GitHub signs with.
#[derive(Debug, Args)]
pub(super) struct RouteGithubArgs {
    /// What to listen to, for example wss://TOKEN@example.com/unsafe/sub/github.com/.
    #[arg(short = 'u', long, value_name = "URL")]
    monitor_url: String,

    /// The Origin to send; "samehost" is that of the monitor URL.
    #[arg(long, env = "HOOKBOT_ORIGIN", default_value = "samehost")]
    origin: String,

    #[command(flatten)]
    remote: RemoteArgs,
}

pub(super) fn run(global: &GlobalArgs, args: &RouteGithubArgs) -> Result<(), Failure> {
    let router = github(global)?;
    let key = global.keys.key()?;
    let (monitor, base) = (monitor(args)?, base(&args.monitor_url)?);
    let token = key.mint(&Scope::parse("/pub/github.com/repo/").map_err(anyhow::Error::from)?);
    let publisher = args
        .remote
        .endpoint(&format!("{base}/pub/github.com/repo"))?;
    let publisher = publisher.header("Authorization", &format!("Bearer {}", token.expose()))?;
    match block_on(route(router, monitor, Publisher::new(publisher))) {
        // There is no other end.
        Err(Failure::Interrupted) => Ok(()),
        done => done,
    }
}

/// The router, if there is a secret: without one it would trust everybody.
pub(super) fn github(global: &GlobalArgs) -> Result<Github, Failure> {
    let missing = || {
        let error =
            "the github router needs the secret GitHub signs with: set HOOKBOT_GITHUB_SECRET";
        Failure::Usage(anyhow!(error))
    };
    let secret = global.github_secret.as_ref().ok_or_else(missing)?;
    Github::new(secret.expose().as_bytes()).map_err(|_| missing())
}

async fn route(router: Github, monitor: Endpoint, mut publisher: Publisher) -> Result<(), Failure> {
    info!(%monitor, "routing");
    let mut messages = retrying_watch(monitor);
    while let Some(received) = messages.next().await {
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                let then = if error.is_passing() {
                    "going on"
                } else {
                    "reconnecting"
                };
                warn!("{:#}; {then}", anyhow::Error::from(error));
                continue;
            }
        };
        let Ok(topic) = Topic::parse(&received.topic) else {
            warn!(topic = received.topic, "not a topic");
            continue;
        };
        let mut publication = Publication::new(topic, received.payload);
        // Where the server tells how a message was sent, GitHub's headers are among that.
        for (name, value) in received.event.iter().flat_map(|event| &event.headers) {
            publication
                .headers
                .push(name, &value.bytes().unwrap_or_default());
        }
        let message = Message::new(publication, Offset::default(), SystemTime::now());
        match router.route(&message) {
            Ok(publications) => {
                for publication in publications {
                    publish(&mut publisher, publication).await;
                }
            }
            Err(error) => warn!(topic = %message.topic(), %error, "not routed"),
        }
    }
    Ok(())
}

/// Publishes, and tries again for a while where that may help.
async fn publish(publisher: &mut Publisher, publication: Publication) {
    let topic = &publication.topic;
    let path = Scope::publishing(topic).encoded();
    for pause in [500, 1_000, 2_000, 4_000, 8_000, 0].map(Duration::from_millis) {
        match publisher.publish_to(&path, publication.body.clone()).await {
            Ok(_) => return info!(%topic, "routed"),
            Err(error) if pause.is_zero() || error.is_refusal() => {
                return tracing::error!(%topic, "not published: {:#}", anyhow::Error::from(error));
            }
            Err(error) => {
                warn!(%topic, "{:#}; trying again in {pause:?}", anyhow::Error::from(error))
            }
        }
        tokio::time::sleep(pause).await;
    }
}

fn monitor(args: &RouteGithubArgs) -> Result<Endpoint, Failure> {
    let origin = match &*args.origin {
        "samehost" => base(&args.monitor_url)?,
        origin => origin.to_owned(),
    };
    let monitor = args.remote.endpoint(&args.monitor_url)?;
    let monitor = monitor.header("Origin", &origin)?;
    let (name, value) = UNSAFE_IS_OK;
    Ok(monitor.header(name, value)?)
}

/// Scheme, host and port of the server, for HTTP.
fn base(url: &str) -> Result<String, Failure> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Failure::Usage(anyhow!(
            "--monitor-url is not a URL such as wss://example.com/unsafe/sub/github.com/"
        )));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let scheme = if matches!(scheme, "wss" | "https") {
        "https"
    } else {
        "http"
    };
    Ok(format!("{scheme}://{host}"))
}
