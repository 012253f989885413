//! Delivers messages to HTTP targets, until they take them.

pub mod message;
pub mod save;
pub mod saved;
pub mod script;

pub use message::Message;
pub use save::{SaveError, Saver};
pub use saved::{Saved, SavedError};
pub use script::{ScriptOptions, Tool};
