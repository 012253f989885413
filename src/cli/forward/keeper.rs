//! A folder as one who takes messages.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hookbot_forward::{Answer, Message, Saver, Taker, Verdict};

/// Keeps every message.
pub(super) struct Keeper {
    saver: Saver,
    name: String,
}

impl Keeper {
    pub(super) fn new(saver: Saver, folder: &Path) -> Self {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        Self {
            saver,
            name: format!("save:{}", folder.display()),
        }
    }
}

impl Taker for Keeper {
    fn name(&self) -> &str {
        &self.name
    }

    fn offer<'a>(&'a self, message: &'a Message, _: u32) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let begin = Instant::now();
            let (verdict, text) = match self.saver.save(message).await {
                Ok(file) => (Verdict::Taken, file.display().to_string()),
                Err(error) => (Verdict::NotNow, format!("{:#}", anyhow::Error::from(error))),
            };
            Answer {
                verdict,
                code: None,
                text,
                retry_after: None,
                duration: begin.elapsed().max(Duration::from_nanos(1)),
            }
        })
    }
}
