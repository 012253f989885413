//! What providers say, over real HTTP, with a stand-in for their APIs.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod app;
mod clock;
mod failures;
mod github;
mod gitlab;
mod limits;
mod stand_in;
