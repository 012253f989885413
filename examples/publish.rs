//! Publishes each line of standard input as one message, all over one connection.
//!
//! ```sh
//! seq 3 | cargo run --example publish http://TOKEN@localhost:8080/pub/deploys/site
//! ```
//!
//! The URL may come from `HOOKBOT_URL` instead, which keeps its token out of the process list.

use anyhow::{Context, Result};
use hookbot_listen::{Endpoint, Publisher};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1);
    let url = url.or_else(|| std::env::var("HOOKBOT_URL").ok());
    let endpoint = Endpoint::new(&url.context("give a URL, or set HOOKBOT_URL")?)?;
    eprintln!("publishing to {endpoint}");

    let mut publisher = Publisher::new(endpoint);
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        // An error leaves open whether the server has the message. Publishing it again is right
        // where twice is better than never.
        let published = publisher.publish(line).await?;
        // A publisher without a token is not told the message's place.
        println!("{}", published.cursor.as_deref().unwrap_or("OK"));
    }
    Ok(())
}
