//! Forwarding: messages delivered to HTTP targets until they take them.
//!
//! A [`Message`] is what a sender published; a [`Target`] is the service it is for. Sending is
//! [`Target::send`], once: what is done about a target that does not take a message is somebody
//! else's business.
//!
//! The rule a reader would get wrong: what arrives is what was sent. Method, query, headers with
//! their repeats, and above all the body's bytes pass as they are, because a provider's signature
//! is of just those.

pub mod connector;
pub mod message;
pub mod pace;
pub mod replay;
pub mod resign;
pub mod save;
pub mod saved;
pub mod script;
pub mod source;

pub mod exec;
mod headers;
mod reply;
pub mod taker;
pub mod target;
pub mod tls;

mod breaker;
pub mod forwarder;
pub mod letters;
mod offering;
pub mod place;
pub mod selection;
pub mod store;
pub mod told;
mod url;
mod window;

pub use exec::{Exec, ExecSettings};
pub use forwarder::{Forwarder, Settings, Summary};
pub use letters::Letters;
pub use message::Message;
pub use place::Place;
pub use reply::{Reply, SendError};
pub use save::{SaveError, Saver};
pub use saved::{Saved, SavedError};
pub use script::{ScriptOptions, Tool};
pub use selection::Selection;
pub use source::{Given, Source, Trouble};
pub use store::{Pair, Store};
pub use taker::{Answer, Taker, Verdict};
pub use target::{Target, TargetSettings};
pub use told::{Tell, Told};
