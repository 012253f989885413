//! Microsoft Graph's notifications, which repeat a secret in the body instead of being signed.

use std::fmt;

use serde::Deserialize;
use serde::de::{Error, SeqAccess, Visitor};

use crate::algorithm::Algorithm;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::signature::Signed;

/// Whose of `secrets` all notifications in the body repeat.
pub(crate) fn verify(secrets: &[Secret], body: &[u8]) -> Result<Signed, Refusal> {
    let batch: Batch = serde_json::from_slice(body).map_err(|_| Refusal::MalformedBody)?;
    let states = [batch.value.0.into_bytes()];
    let is_own = |secret: &Secret| Algorithm::Token.verifies(secret.expose(), &[], &states);
    let secret = secrets.iter().position(is_own).ok_or(Refusal::NoMatch)?;
    Ok(Signed { secret, at: None })
}

#[derive(Deserialize)]
struct Batch {
    value: State,
}

#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "clientState")]
    client_state: String,
}

/// The one that all notifications have. Reading it takes no more memory for more of them.
struct State(String);

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = State;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("notifications with one client state")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<State, A::Error> {
                let first: Option<Notification> = seq.next_element()?;
                let state = first
                    .ok_or_else(|| A::Error::invalid_length(0, &self))?
                    .client_state;
                while let Some(next) = seq.next_element::<Notification>()? {
                    // Both came with the request, so this tells nothing of a secret.
                    if next.client_state != state {
                        return Err(A::Error::custom("two client states"));
                    }
                }
                Ok(State(state))
            }
        }

        deserializer.deserialize_seq(All)
    }
}
