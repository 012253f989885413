//! The service at the end of a delivery: what goes there is signed, and how it answers is noted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use hookbot_forward::{Answer, Message, Taker, Target, Verdict};

use super::signer::Signer;
use super::tally::Tally;

/// A target, as deliveries go there.
pub(super) struct Service {
    pub(super) target: Target,
    pub(super) signer: Option<Signer>,
    pub(super) tally: Arc<Tally>,
}

impl Service {
    /// The message as it is signed for this attempt.
    fn sign(&self, signer: &Signer, message: &Message) -> Result<Message, String> {
        let url = self.target.uri(message);
        let url = url.map_err(|error| error.to_string())?.to_string();
        let signed = signer.sign(message, &url, now());
        signed.map_err(|error| error.to_string())
    }
}

impl Taker for Service {
    fn name(&self) -> &str {
        self.target.name()
    }

    fn offer<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let answer = match &self.signer {
                None => self.target.offer(message, attempt).await,
                Some(signer) => match self.sign(signer, message) {
                    Ok(signed) => self.target.offer(&signed, attempt).await,
                    Err(text) => Answer {
                        verdict: Verdict::Never,
                        code: None,
                        text,
                        retry_after: None,
                        duration: Duration::ZERO,
                    },
                },
            };
            self.tally.note(&answer);
            answer
        })
    }
}

/// In seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
