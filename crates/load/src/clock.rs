//! The one clock of a run.
//!
//! Send times travel in payloads, so both ends must read the same clock: nanoseconds since this
//! process first asked.

use std::sync::OnceLock;
use std::time::Instant;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds on a clock that never goes back.
pub(crate) fn now() -> u64 {
    let elapsed = ORIGIN.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
