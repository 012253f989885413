//! hookbot: one binary between everything that sends webhooks and everything that wants to hear
//! them.
//!
//! The program is [`cli`], how it is told what to do is [`config`], and [`server`] is what runs.
//! The rules are in the crates below: `hookbot-protocol`, `hookbot-log`, `hookbot-broker` and
//! `hookbot-routers` know nothing of HTTP and sockets.

pub mod cli;
pub mod config;
pub mod server;
mod state_file;
