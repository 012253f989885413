//! What hookbot speaks: topics, filters, paths, tokens, messages and frames.
//!
//! Everything here is parsing and encoding. Nothing opens a socket, reads a clock or knows of
//! HTTP, so each rule is read and tested alone. Input becomes a typed value once, at the edge;
//! code behind the edge takes a [`Topic`] or a [`Path`] and has nothing left to check.
//!
//! The rule a reader would get wrong: a token is made for the *decoded* path, and a request path
//! is decoded exactly once, by [`Path::parse`]. Two spellings that reach the same topic need the
//! same token, because they are the same value.
//!
//! ```
//! use hookbot_protocol::{Key, Keys, Path, Scope};
//!
//! let key = Key::new(b"correct horse battery staple")?;
//! let token = key.mint(&Scope::parse("/pub/deploys/")?);
//!
//! let path = Path::parse("/pub/deploys/site")?;
//! assert!(Keys::new(key).grants(&path, &token, 0).is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod call;
mod cursor;
mod deny_list;
mod envelope;
pub mod event;
mod filter;
mod fingerprint;
mod frame;
mod headers;
mod key;
mod message;
mod name;
mod path;
mod token;
mod topic;

pub use call::Call;
pub use cursor::{Cursor, CursorError, Epoch, Offset};
pub use deny_list::{Denied, DeniedError, DenyList, DenyListError};
pub use envelope::{Envelope, EnvelopeError};
pub use filter::{Filter, FilterError};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use frame::{Form, encode, encode_text, split_prefixed};
pub use headers::{HOP_BY_HOP, Headers};
pub use key::{DerivedKey, EmptyKey, Grant, Key, Keys};
pub use message::{Format, Message, Publication};
pub use name::{Name, NameError};
pub use path::{Endpoint, Path, PathError, Scope};
pub use token::{MalformedToken, Token};
pub use topic::{Topic, TopicError};
