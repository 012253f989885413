//! Listen to a hookbot server, and publish to one.
//!
//! [`watch`] connects once and gives the messages of a subscription as a stream:
//!
//! ```no_run
//! use hookbot_listen::{Endpoint, watch};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), hookbot_listen::Error> {
//! let endpoint = Endpoint::new("wss://TOKEN@hooks.example.com/sub/deploys/")?;
//! let mut messages = watch(&endpoint).await?;
//! while let Some(message) = messages.next().await {
//!     let message = message?;
//!     println!("{}: {} bytes", message.topic, message.payload.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`retrying_watch`] keeps at it: it reconnects for ever, and what went wrong comes as items
//! between the messages. A server that gives events is asked for everything since the last
//! message, and what it has no more is an [`Error::Gap`]; with one that does not, each error item
//! marks a place where messages may be missing.
//!
//! ```no_run
//! use hookbot_listen::{Endpoint, retrying_watch};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), hookbot_listen::Error> {
//! let endpoint = Endpoint::new("wss://TOKEN@hooks.example.com/sub/deploys/site")?;
//! let mut messages = retrying_watch(endpoint);
//! while let Some(message) = messages.next().await {
//!     match message {
//!         Ok(message) => println!("{}", String::from_utf8_lossy(&message.payload)),
//!         // A wrong token does not become right by trying again.
//!         Err(error) if error.is_refusal() => return Err(error),
//!         Err(error) => eprintln!("{error}, reconnecting"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`publish`] posts one message, and returns once the server has it in its log. A [`Publisher`]
//! keeps the connection for the next one.
//!
//! ```no_run
//! use hookbot_listen::{Endpoint, publish};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), hookbot_listen::Error> {
//! let endpoint = Endpoint::new("https://TOKEN@hooks.example.com/pub/deploys/site")?;
//! let published = publish(&endpoint, "v1.2.3").await?;
//! println!("published at {:?}", published.cursor);
//! # Ok(())
//! # }
//! ```
//!
//! Messages are read by a task of their own, which keeps the connection alive and notices a
//! server that is gone, so these functions need a Tokio runtime with time and I/O. It reads only
//! while there is room for a few more messages: a consumer that stops taking them slows the
//! server down, and is not taken for a dead connection.
//!
//! Nothing here prints a token, neither an [`Endpoint`] nor an [`Error`].

mod connect;
pub mod dial;
mod endpoint;
mod error;
mod feed;
mod message;
mod publish;
mod retry;
mod socket;
#[cfg(test)]
mod test_server;
mod watch;

pub use endpoint::Endpoint;
pub use error::Error;
pub use message::Message;
pub use publish::{Published, Publisher, publish};
pub use retry::{RetryingMessages, retrying_watch};
pub use socket::{Upgraded, upgrade};
pub use watch::{Messages, watch};
