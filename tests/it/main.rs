//! What hookbot does as a whole, over real sockets on loopback.
//!
//! One type's rules are tested at the bottom of its file; here are the behaviours that cross
//! rooms, a file each. Other programs' clients are in `tests/clients`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod addresses;
mod bad_frames;
mod bad_requests;
mod call_rights;
mod callers;
mod calls;
mod canaries;
mod configuration;
mod corpus;
mod event_streams;
mod events;
mod fan_out;
mod floods;
mod foreign_channels;
mod isolation;
mod limits;
mod listening;
mod log_command;
mod many_subscribers;
mod metrics;
mod paths;
mod program;
mod publishing;
mod rates;
mod revocation;
mod rotation;
mod routes;
mod routing;
mod save;
mod security;
mod shutdown;
mod slow_clients;
mod source_command;
mod sources;
mod support;
mod tls;
mod tokens;
mod tunnel_command;
mod tunnel_model;
mod tunnel_traps;
