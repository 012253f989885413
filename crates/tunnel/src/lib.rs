//! Calls and their answers: HTTP/2 over one WebSocket, both ends.
//!
//! A responder dials out to a broker, at `/answer/<topic>`, and answers what callers ask the broker
//! for at `/call/<topic>`: from behind any firewall, many calls at a time, each streamed both ways.
//!
//! ```no_run
//! use hookbot_tunnel::{Endpoint, Responder, Target, TargetSettings};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint::new("wss://TOKEN@hooks.example.com/answer/shop")?;
//! let target = Target::new("http://localhost:3000", TargetSettings::default())?;
//! let responder = Responder::new(endpoint);
//! responder.run(target, CancellationToken::new(), |event| println!("{event}")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Instead of a [`Target`], any service of hyper's answers calls as well. A [`Line`] is the
//! broker's end.
//!
//! The rule a reader would get wrong: all callers share one connection, and do not know each other.
//! Whatever one of them does, or leaves undone, must cost the others nothing; `tuning` says how.

mod body;
mod headers;
mod line;
mod relay;
mod responder;
mod sending;
mod stream;
mod target;
mod tuning;

pub use body::Lean;
pub use headers::{has_word, strip_hop_by_hop};
pub use hookbot_listen::Endpoint;
pub use line::{BoxError, CallBody, CallError, Line, Upkeep};
pub use relay::relay;
pub use responder::{Event, Responder};
pub use sending::sending;
pub use target::{Answer, Target, TargetError, TargetSettings, Unanswered};
pub use tuning::{KeepAlive, MAX_CALLS};

/// The subprotocol that a responder asks for.
pub const TUNNEL_V1: &str = "hookbot.tunnel.v1";

/// Tells a responder where its calls come from.
pub const CALL_URL: http::HeaderName = http::HeaderName::from_static("hookbot-call-url");

/// The words that a broker knows, of those that are sent as text between the bytes of a tunnel.
pub const WORDS: http::HeaderName = http::HeaderName::from_static("hookbot-words");

/// A responder's word for: no new calls, and the broker ends the connection once it has all the
/// answers. HTTP/2's own, GOAWAY, names the last call that will be answered, and one that is just
/// on its way may be behind it.
pub const LEAVING: &str = "leaving";

/// The status with which a target has refused to become something else than HTTP, where it was one
/// that HTTP/2 takes for a promise: a success.
pub const REAL_STATUS: http::HeaderName = http::HeaderName::from_static("hookbot-status");
