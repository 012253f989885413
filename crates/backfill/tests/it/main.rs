//! What providers say, over real HTTP, with a stand-in for their APIs.
#![allow(clippy::unwrap_used)]

mod app;
mod clock;
mod failures;
mod github;
mod gitlab;
mod limits;
mod stand_in;
