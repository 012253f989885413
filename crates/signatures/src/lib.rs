//! What webhook providers put in their headers.
//!
//! Bytes and headers in, a finding out; no I/O, no clock.

mod delivery;

pub use delivery::delivery_id;
