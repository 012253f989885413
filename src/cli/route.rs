//! `hookbot route test`: what the routes of a file would do with an event.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use hookbot_protocol::event::HeaderText;
use hookbot_protocol::{Cursor, Headers, Message, Offset, Publication, Topic};
use hookbot_routers::{Outcome, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, GlobalArgs, input, output};
use crate::config::Config;

/// Looks at the routes of a configuration file.
#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    #[command(subcommand)]
    command: RouteCommand,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// Tell what each route would do with events, and publish nothing.
    ///
    /// Reads events as `hookbot listen --json` and `hookbot log read` print them. Only `topic` is
    /// needed; `attributes` may be there, too.
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct TestArgs {
    /// The configuration file.
    file: PathBuf,

    /// Take events for verified by this provider.
    #[arg(long, value_name = "PROVIDER")]
    verified_by: Option<String>,

    /// Print JSON, an object for each route and event.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &GlobalArgs, args: &RouteArgs) -> Result<(), Failure> {
    let RouteCommand::Test(args) = &args.command;
    let secret = global.github_secret.as_ref();
    let config = Config::load(&args.file, secret.map(|secret| secret.expose().as_bytes()))?;
    let events = input::read(Path::new("-"))?;
    for event in serde_json::Deserializer::from_slice(&events).into_iter::<Event>() {
        let event = event.context("not an event").map_err(Failure::Usage)?;
        let mut message = event.message().map_err(Failure::Usage)?;
        if let Some(provider) = &args.verified_by {
            let attributes = &mut message.publication.attributes;
            attributes.push("verified_by", provider.as_bytes());
        }
        for rule in &config.routes {
            let outcome = Router::route(rule, &message);
            let lines = match args.json {
                true => vec![in_json(rule.name(), &outcome).to_string()],
                false => in_words(rule.name(), &outcome),
            };
            lines.iter().try_for_each(|line| output::line(line))?;
        }
    }
    Ok(())
}

/// An event as it is printed elsewhere; what is missing is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    cursor: String,
    topic: String,
    time: String,
    method: Box<str>,
    query: Box<str>,
    address: Box<str>,
    headers: Vec<(String, HeaderText)>,
    attributes: Vec<(String, HeaderText)>,
    body: String,
    body_base64: Option<String>,
}

impl Event {
    fn message(self) -> anyhow::Result<Message> {
        let topic = Topic::parse(&self.topic).context("the event has no `topic`")?;
        let body = match &self.body_base64 {
            Some(body) => STANDARD.decode(body).context("`body_base64` is broken")?,
            None => self.body.into_bytes(),
        };
        let time = self.time.parse::<jiff::Timestamp>().map(SystemTime::from);
        let cursor = self.cursor.parse::<Cursor>().map(|cursor| cursor.offset);
        let publication = Publication {
            method: self.method,
            query: self.query,
            address: self.address,
            headers: table(&self.headers)?,
            attributes: table(&self.attributes)?,
            ..Publication::new(topic, body)
        };
        // Without them, the message is published now, as the first one.
        let time = time.unwrap_or_else(|_| SystemTime::now());
        Ok(Message::new(publication, cursor.unwrap_or(Offset(1)), time))
    }
}

fn table(pairs: &[(String, HeaderText)]) -> anyhow::Result<Headers> {
    let mut headers = Headers::default();
    for (name, value) in pairs {
        let value = value.bytes();
        let value = value.with_context(|| format!("the base64 of `{name}` is broken"))?;
        headers.push(&name.to_ascii_lowercase(), &value);
    }
    Ok(headers)
}

fn in_words(name: &str, outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Published(publications) => publications
            .iter()
            .map(|publication| {
                let body = printable(&publication.body);
                format!("{name}: publishes on {}: {body}", publication.topic)
            })
            .collect(),
        Outcome::NotMatched(why) => vec![format!("{name}: does nothing, {why}")],
        Outcome::Refused(error) => vec![format!("{name}: refuses it: {error}")],
        Outcome::Parked(publication, error) => {
            vec![format!(
                "{name}: parks it on {}: {error}",
                publication.topic
            )]
        }
    }
}

/// A body as it is, if it is one line of text.
fn printable(body: &[u8]) -> String {
    match str::from_utf8(body) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => body.escape_ascii().to_string(),
    }
}

fn in_json(name: &str, outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Published(publications) => {
            let publications: Vec<_> = publications.iter().map(publication).collect();
            json!({ "route": name, "outcome": "published", "publications": publications })
        }
        Outcome::NotMatched(why) => {
            json!({ "route": name, "outcome": "not_matched", "reason": why.to_string() })
        }
        Outcome::Refused(error) => {
            json!({ "route": name, "outcome": "refused", "reason": error.to_string() })
        }
        Outcome::Parked(parked, error) => json!({
            "route": name,
            "outcome": "parked",
            "reason": error.to_string(),
            "publications": [publication(parked)],
        }),
    }
}

fn publication(publication: &Publication) -> Value {
    let table = |headers: &Headers| -> Vec<(String, HeaderText)> {
        let headers = headers.iter();
        headers
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    };
    let mut json = json!({
        "topic": publication.topic.as_str(),
        "headers": table(&publication.headers),
        "attributes": table(&publication.attributes),
    });
    match str::from_utf8(&publication.body) {
        Ok(body) => json["body"] = body.into(),
        Err(_) => json["body_base64"] = STANDARD.encode(&publication.body).into(),
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_listened_to_is_the_message_again() {
        let event: Event = serde_json::from_str(
            r#"{"cursor":"b20153ee7da8bd5d.7","topic":"a/b","time":"1970-01-01T00:00:01.500Z",
                "method":"POST","query":"q=1","address":"[::1]:9","unknown":[],
                "headers":[["X-A","1"],["x-b",{"base64":"/w=="}]],"body_base64":"/wA="}"#,
        )
        .unwrap();
        let message = event.message().unwrap();
        assert_eq!(message.offset, Offset(7));
        let since = message.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_millis(), 1_500);
        let Publication { headers, body, .. } = &message.publication;
        assert!(headers.iter().eq([("x-a", &b"1"[..]), ("x-b", b"\xff")]));
        assert_eq!(body, &b"\xff\0"[..]);
        for wrong in [r#"{"body":"x"}"#, r#"{"topic":"a","body_base64":"?"}"#] {
            let event: Event = serde_json::from_str(wrong).unwrap();
            assert!(event.message().is_err(), "{wrong}");
        }
    }
}
