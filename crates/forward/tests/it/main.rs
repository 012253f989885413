//! What a forwarder does with a source and a taker, under a clock that the tests move.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod insisting;
mod model;
mod stage;
