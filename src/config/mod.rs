//! Settings as meant: what flags, environment and files come to, once they are read.
//!
//! A flag wins over the environment. Secrets never print; see [`Secret`].

mod data_dir;
mod keys;
mod retain;
mod span;

pub use data_dir::{NoDataDir, data_dir};
pub(crate) use keys::without_newline;
pub use keys::{KeyArgs, KeyError, Secret};
pub use retain::{Retain, RetainError};
pub use span::{Span, SpanError};
