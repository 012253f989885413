//! Backfill: what a provider has sent lately, asked of its API.
//!
//! GitHub and GitLab remember for some days what they have sent by a webhook, and whether it was
//! taken. A [`Hook`] lists these attempts; [`Delivery::group`] puts together those of one delivery;
//! [`Hook::content`] tells what was sent, and [`Proof`] what became of its signature.
//!
//! The rule a reader would get wrong: an API shows a payload as JSON, not as the bytes that were
//! sent and signed. [`Content::resent`] tries the form that GitHub sends, and says whether the
//! signature is of it; nothing is claimed that was not checked.
//!
//! Everything is waited for: limits as long as the provider says, failures for half a minute. No
//! token goes to a host that it was not given for, and none is printed.

mod account;
mod api;
mod credential;
mod delivery;
mod error;
mod github;
mod gitlab;
mod headers;
mod hook;
mod link;
mod resent;
mod verdict;
mod wire;

pub use account::{Account, Provider};
pub use api::{Api, Wait};
pub use credential::{AppKey, Credential};
pub use delivery::{Attempt, Content, Delivery};
pub use error::Error;
pub use hook::{Hook, HookEntry};
pub use resent::{Proof, Resent, Signing};
