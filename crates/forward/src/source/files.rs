//! Saved messages, one after the other.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::task::spawn_blocking;

use super::{Given, Source, Trouble};
use crate::connector::chain;
use crate::saved::Saved;

/// Saved messages, in this order. Each is read when it is its turn.
#[derive(Debug, Clone)]
pub struct Files(pub Vec<Saved>);

impl Source for Files {
    fn name(&self) -> &str {
        "files"
    }

    /// There are no places: it always begins with the first.
    fn open(&self, _: Option<&str>) -> BoxStream<'static, Given> {
        let read = async |saved: Saved| {
            let read = spawn_blocking(move || saved.read()).await;
            match read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
                Ok(message) => Given::Message(Box::new(message), None),
                Err(error) => Given::Trouble(Trouble::Missing(chain(&error))),
            }
        };
        stream::iter(self.0.clone()).then(read).boxed()
    }
}
