//! Routers: a message in, messages out.
//!
//! A router subscribes to topics, looks at each message and says what to publish because of it.
//! It opens no socket and owns no queue: whoever runs it, in the server or in a process of its
//! own, does the reading and the publishing.
//!
//! The rule a reader would get wrong: what a router publishes is trusted where what it reads may
//! not be. Anybody may publish below `/unsafe/`, so a router that reads there verifies every
//! message before it believes a single field of it.
//!
//! ```
//! use std::time::SystemTime;
//!
//! use hookbot_protocol::{Message, Offset, Publication, Topic};
//! use hookbot_routers::{Github, RouteError};
//!
//! let github = Github::new(b"the webhook's secret")?;
//! let topic = Topic::parse("/unsafe/github.com/org/acme")?;
//! let mut publication = Publication::new(topic, "{}");
//! publication.headers.push("x-github-event", b"push");
//!
//! let message = Message::new(publication, Offset(1), SystemTime::now());
//! assert!(matches!(github.route(&message), Err(RouteError::Unsigned)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod outcome;
mod router;

mod github;
mod signature;

mod absent;
mod cycle;
mod draft;
mod faults;
mod hops;
mod json;
mod parked;
mod route;
mod rule;
mod template;
mod view;

pub use cycle::Cycle;
pub use github::Github;
pub use hookbot_signatures::EmptySecret;
pub use outcome::{Outcome, Unmatched};
pub use route::{Fault, Part, Preset, Route};
pub use router::{RouteError, Router};
pub use rule::Rule;
pub use template::{Condition, Kind, Template};
pub use view::{NAMES, View};

#[cfg(test)]
mod tests {
    mod conditions;
    mod payloads;
    pub(crate) mod samples;
}
