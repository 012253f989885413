//! How webhook providers prove who they are, and what they say besides.
//!
//! Bytes and headers in, a verdict out: no I/O, and the clock is an argument. A signature is of
//! raw bytes, so nothing is parsed before it is right, except where fields are what is signed.
//! Signatures are compared as bytes, in constant time. Which provider a request is from is the
//! caller's setting, never guessed from the headers that happen to be there.
//!
//! The rule a reader would get wrong: of several headers that may prove something, the best one
//! that is there decides alone, and one that is there twice decides nothing.
//!
//! ```
//! use hookbot_protocol::Headers;
//! use hookbot_signatures::{Provider, Refusal, Request, Scheme, Secret};
//!
//! let scheme = Scheme::from(Provider::Github);
//! let secrets = [Secret::new("the new one")?, Secret::new("the old one")?];
//! let (none, mut headers) = (Headers::default(), Headers::default());
//! let mut request = Request {
//!     method: "POST",
//!     url: "https://hooks.example.com/",
//!     headers: &none,
//!     body: br#"{"zen":"Design for failure."}"#,
//! };
//!
//! for (name, value) in scheme.sign(&secrets[1], &request, 0)? {
//!     headers.push(&name, value.as_bytes());
//! }
//! request.headers = &headers;
//! assert_eq!(scheme.verify(&secrets, &request, 0)?.secret, 1);
//! assert_eq!(scheme.verify(&secrets[..1], &request, 0), Err(Refusal::NoMatch));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
mod client_state;
mod delivery;
mod event;
mod form;
mod generic;
mod handshake;
mod json;
mod provider;
mod public_key;
mod refusal;
mod request;
mod scheme;
mod secret;
mod signature;
pub mod sns;
mod template;
mod twilio;

pub use algorithm::{Algorithm, Encoding, UnknownName};
pub use delivery::delivery_id;
pub use generic::{Generic, GenericError};
pub use handshake::Answer;
pub use provider::{Provider, UnknownProvider};
pub use refusal::Refusal;
pub use request::Request;
pub use scheme::{Match, NoTimestamp, Scheme, UnusableSecret};
pub use secret::{EmptySecret, Secret};
pub use signature::CannotSign;
