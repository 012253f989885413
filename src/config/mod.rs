//! Settings as meant: what flags, environment and files come to, once they are read.
//!
//! A flag wins over the environment. Secrets never print; see [`Secret`].

mod keys;
mod span;

pub use keys::{KeyArgs, KeyError, Secret};
pub use span::{Span, SpanError};
