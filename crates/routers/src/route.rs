//! What a file says of a route.

/// A route as its file says it. [`Rule`](crate::Rule) is what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// What it is called: in logs, in metrics, and below `/unsafe/parked/`.
    pub name: String,
    /// Topics, or prefixes ending in `/`.
    pub from: Vec<String>,
    /// An expression.
    pub when: Option<String>,
    /// Templates of topics.
    pub to: Vec<String>,
    /// A template of what is published instead of the body.
    pub body: Option<String>,
    /// Names, and templates of values.
    pub headers: Vec<(String, String)>,
    /// Whether it is also for messages below `/unsafe/` that nobody has verified.
    pub unverified: bool,
    /// What the rule does, where that is not said by templates.
    pub preset: Option<Preset>,
}

/// A rule that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// What [`Github`](crate::Github) does.
    Github,
}

/// Which part of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Its name.
    Name,
    /// One of the topics that it reads.
    From(usize),
    /// Its condition.
    When,
    /// One of the topics that it publishes to.
    To(usize),
    /// The template of the body.
    Body,
    /// The template of this header, or its name.
    Header(String),
    /// Its preset.
    Preset,
}

/// What is wrong with a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Where it is wrong.
    pub part: Part,
    /// Which bytes of that part, where that is known.
    pub range: Option<std::ops::Range<usize>>,
    /// What is wrong with it.
    pub message: String,
}
