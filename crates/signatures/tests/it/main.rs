//! Whole requests, through the public API alone: what providers have published, all that must not
//! verify beside it, and what is signed here.

mod handshakes;
mod mutations;
mod round_trip;
mod rules;
mod vectors;
