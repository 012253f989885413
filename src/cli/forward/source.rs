//! What the source's URL means.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use hookbot_forward::Source;
use hookbot_forward::source::channel::Channel;
use hookbot_forward::source::hookbot::Hookbot;
use hookbot_forward::source::sealed::ChannelKey;
use hookbot_listen::Endpoint;
use hookbot_protocol::{self as protocol, Filter, Path};

use super::arguments::{ForwardArgs, SourceKind};
use super::takers::header;
use crate::cli::Failure;
use crate::cli::listen::UNSAFE_IS_OK;

/// The source of a URL.
pub(super) fn open(args: &ForwardArgs) -> Result<Arc<dyn Source>, Failure> {
    if is_subscription(args) {
        return Ok(Arc::new(Hookbot::new(endpoint(args)?)));
    }
    let channel = channel(args)?;
    let Some(file) = &args.encryption_key_file else {
        return Ok(Arc::new(channel));
    };
    if channel.is_smees() {
        return Err(Failure::Usage(anyhow!(
            "--encryption-key-file is for channels of gosmee servers"
        )));
    }
    let key = || -> anyhow::Result<_> { Ok(ChannelKey::parse(&std::fs::read(file)?)?) };
    let key = key().with_context(|| format!("cannot use the key in {}", file.display()));
    Ok(Arc::new(channel.key(key.map_err(Failure::Usage)?)))
}

/// The channel, or where the source names only a server, that.
pub(super) fn channel(args: &ForwardArgs) -> Result<Channel, Failure> {
    let settings = args.target.for_channel(&args.source_headers)?;
    let channel = Channel::new(&args.source, args.source_kind.channel(), settings);
    let channel = channel.context("the source can't be used");
    channel.map_err(Failure::Usage)
}

/// The place where forwarding begins the first time, if the source does not know it.
pub(super) fn first_place(args: &ForwardArgs) -> Result<Option<String>, Failure> {
    if is_subscription(args) {
        return Ok(None);
    }
    if args.since.is_some() {
        return Err(Failure::Usage(anyhow!(
            "--since is for subscriptions: a channel knows no times"
        )));
    }
    args.first_place()
}

/// Whether the URL is that of a subscription: by its scheme, its token, or its path.
fn is_subscription(args: &ForwardArgs) -> bool {
    match args.source_kind {
        SourceKind::Hookbot => true,
        SourceKind::Smee | SourceKind::Gosmee => false,
        SourceKind::Auto => {
            let url = args.source.to_ascii_lowercase();
            let is_http = url.starts_with("http://") || url.starts_with("https://");
            let authority = url.split('/').nth(2).unwrap_or_default();
            !is_http || authority.contains('@') || url.contains("/sub/") || url.contains("token=")
        }
    }
}

fn endpoint(args: &ForwardArgs) -> Result<Endpoint, Failure> {
    let ca = args.target.ca.as_deref();
    let endpoint = subscription(&args.source, &args.source_headers, args.unsafe_is_ok, ca)?;
    Ok(match (&args.after, &args.since) {
        (Some(cursor), _) => endpoint.after(cursor),
        (None, Some(time)) => endpoint.since(time),
        (None, None) => endpoint,
    })
}

/// The subscription at a URL, asked for with these headers, trusting a server that the certificates
/// in this file vouch for.
pub(in crate::cli) fn subscription(
    url: &str,
    headers: &[String],
    unsafe_is_ok: bool,
    ca: Option<&FilePath>,
) -> Result<Endpoint, Failure> {
    let mut endpoint = Endpoint::new(url)?;
    let usage = |error: hookbot_listen::Error| Failure::Usage(error.into());
    for text in headers {
        let (name, value) = header(text)?;
        endpoint = endpoint.header(name, value).map_err(usage)?;
    }
    if unsafe_is_ok {
        let (name, value) = UNSAFE_IS_OK;
        endpoint = endpoint.header(name, value)?;
    }
    if let Some(file) = ca {
        let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        endpoint = endpoint.ca(&pem.map_err(Failure::Usage)?).map_err(usage)?;
    }
    Ok(endpoint)
}

/// What the topics of a subscription begin with, so that what is below it can be told; nothing
/// for what is no subscription.
pub(in crate::cli) fn prefix(url: &str) -> String {
    let uri: Option<http::Uri> = url.parse().ok();
    let path = uri.and_then(|uri| Path::parse(uri.path()).ok());
    match path.as_ref().map(Path::endpoint) {
        Some(protocol::Endpoint::Subscribe(filter) | protocol::Endpoint::Combined(filter)) => {
            match filter {
                // Nothing is below a topic.
                Filter::Topic(topic) => format!("{topic}/"),
                Filter::Prefix(_) => match filter.as_str() {
                    "/" => String::new(),
                    prefix => prefix.to_owned(),
                },
            }
        }
        _ => String::new(),
    }
}
