//! Settings as meant: what flags, environment and files come to, once they are read.
//!
//! A flag wins over the environment, and that over the file. Secrets never print; see [`Secret`].

mod data_dir;
mod deliver_table;
mod deliver_url;
mod excerpt;
mod file;
mod keys;
mod limits_table;
mod problem;
mod public_url;
#[cfg(test)]
mod reference;
mod retain;
mod route_table;
mod secret_text;
mod server_table;
mod source_table;
mod span;
mod table;
mod text;
mod tokens_table;

pub(crate) use data_dir::state_dir;
pub use data_dir::{NoDataDir, data_dir};
pub use deliver_table::{DeliverTable, DeliverTableError, FromName, PathModeName};
pub use file::{Config, ConfigError};
pub(crate) use keys::without_newline;
pub use keys::{KeyArgs, KeyError, Secret};
pub use limits_table::LimitsTable;
pub use problem::{Problem, Problems};
pub use public_url::{PublicUrl, PublicUrlError};
pub use retain::{Retain, RetainError};
pub use route_table::{PresetName, RouteTable};
pub use server_table::ServerTable;
pub use source_table::{OnFailName, ReplyTable, SignatureTable, SourceTable, SourceTableError};
pub use span::{Span, SpanError};
pub use text::Texts;
pub use tokens_table::TokensTable;
