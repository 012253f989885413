//! `[[route]]`: what is published again, where.

use std::collections::BTreeMap;

use hookbot_routers::{Preset, Route};
use serde::Deserialize;

use super::Texts;

/// A route as a file says it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RouteTable {
    /// What the route is called: in logs and metrics, below `/unsafe/parked/`, and in the data
    /// folder, where its place is kept. Letters, digits, `-`, `_` and `.`; needed.
    pub name: String,

    /// The topic it reads, or a prefix ending in `/` for everything below it; or a list of these.
    /// Needed, but for a preset.
    #[cfg_attr(test, schemars(with = "OneOrMore"))]
    pub from: Texts,

    /// An expression; only messages that make it true are routed.
    pub when: Option<String>,

    /// The topic to publish to, a template; or a list of these. Needed, but for a preset.
    #[cfg_attr(test, schemars(with = "OneOrMore"))]
    pub to: Texts,

    /// What to publish, a template. Without it, the message's own body, with its headers.
    pub body: Option<String>,

    /// Headers to publish with, templates by name. They replace those of the message that have the
    /// same name; with a `body`, the message's are not published at all.
    pub headers: BTreeMap<String, String>,

    /// Whether the route also takes what anybody has published below `/unsafe/` and nobody has
    /// verified.
    pub unverified: bool,

    /// What the route does, instead of `to`, `body` and `headers`. `"github"`: what `--router
    /// github` does. It reads `/unsafe/github.com/`, and needs a source there with `provider =
    /// "github"`, or else the secret that GitHub signs with.
    pub preset: Option<PresetName>,
}

/// What a preset is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PresetName {
    /// GitHub's.
    Github,
}

/// How the reference calls [`Texts`].
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is a schema alone")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<RouteTable> for Route {
    fn from(table: RouteTable) -> Self {
        let headers = table.headers.into_iter();
        Self {
            name: table.name,
            from: table.from.0,
            when: table.when,
            to: table.to.0,
            body: table.body,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            unverified: table.unverified,
            preset: table.preset.map(|PresetName::Github| Preset::Github),
        }
    }
}
