//! Prints the messages of a subscription as they come, and reconnects for ever.
//!
//! ```sh
//! cargo run --example listen ws://TOKEN@localhost:8080/sub/deploys/
//! ```
//!
//! The URL may come from `HOOKBOT_URL` instead, which keeps its token out of the process list.

use anyhow::{Context, Result};
use hookbot_listen::{Endpoint, retrying_watch};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1);
    let url = url.or_else(|| std::env::var("HOOKBOT_URL").ok());
    let endpoint = Endpoint::new(&url.context("give a URL, or set HOOKBOT_URL")?)?;
    eprintln!("listening to {endpoint}");

    let mut messages = retrying_watch(endpoint);
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => {
                let text = String::from_utf8_lossy(&message.payload);
                println!("{}: {text}", message.topic);
            }
            // A wrong token does not become right by trying again.
            Err(error) if error.is_refusal() => return Err(error.into()),
            // Once the connection is back, what came meanwhile comes first.
            Err(error) => eprintln!("{:#}, reconnecting", anyhow::Error::from(error)),
        }
    }
    Ok(())
}
