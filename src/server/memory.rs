//! How much memory the process takes, looked at now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

/// Whether there is memory left for anything new.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<AtomicBool>);

impl Memory {
    /// Whether nothing new should be let in.
    pub(super) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Compares what the process takes with `limit`, in bytes, until dropped.
    pub(super) async fn watch(self, limit: u64) {
        loop {
            let Some(taken) = resident() else {
                return warn!("this system does not tell how much memory is taken");
            };
            let is_short = taken > limit;
            if is_short != self.0.swap(is_short, Ordering::Relaxed) {
                if is_short {
                    warn!(taken, limit, "no memory to spare: nothing new is let in");
                } else {
                    info!(taken, limit, "there is memory again");
                }
            }
            sleep(PERIOD).await;
        }
    }
}

/// What the process takes, in bytes (proc(5), statm).
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

const PERIOD: Duration = Duration::from_millis(200);
