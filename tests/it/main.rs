//! What hookbot does as a whole, over real sockets on loopback.
//!
//! One type's rules are tested at the bottom of its file; here are the behaviours that cross
//! rooms, a file each. Other programs' clients are in `tests/clients`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod addresses;
#[path = "../../crates/backfill/tests/it/stand_in.rs"]
#[allow(dead_code, reason = "another test needs the rest")]
mod api_stand_in;
mod backfill;
mod backfill_reconcile;
mod bad_frames;
mod bad_requests;
mod call_failures;
mod call_rights;
mod call_upgrades;
mod callers;
mod calls;
mod canaries;
mod channel_calls;
mod channel_limits;
mod channels;
mod commands;
mod configuration;
mod corpus;
mod dead;
mod deliver;
mod event_streams;
mod events;
mod fan_out;
mod floods;
mod foreign_channels;
mod forward;
mod forward_command;
mod forward_faults;
mod forward_stage;
mod forward_ways;
mod gosmee;
mod handshakes;
mod isolation;
mod limits;
mod listening;
mod log_command;
mod many_subscribers;
mod metrics;
mod paths;
mod program;
mod providers;
mod publishing;
mod rates;
mod replay;
mod responders;
mod revocation;
mod rotation;
mod route_changes;
mod routes;
mod routing;
mod save;
mod security;
mod shutdown;
mod signatures;
mod slow_clients;
mod source_command;
mod sources;
mod stream;
mod support;
mod target;
mod tls;
mod tokens;
mod tunnel_command;
mod tunnel_leaving;
mod tunnel_model;
mod tunnel_traps;
