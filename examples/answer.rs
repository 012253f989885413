//! Answers calls without a service of its own behind it.
//!
//! ```sh
//! cargo run --example answer ws://TOKEN@localhost:8080/answer/greetings
//! curl http://OTHER_TOKEN@localhost:8080/call/greetings/ada
//! ```
//!
//! The URL may come from `HOOKBOT_URL` instead, which keeps its token out of the process list. It
//! reconnects for ever, and on Ctrl-C ends what is open.

use std::convert::Infallible;

use anyhow::{Context, Result};
use bytes::Bytes;
use hookbot_tunnel::{Endpoint, Responder};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1);
    let url = url.or_else(|| std::env::var("HOOKBOT_URL").ok());
    let endpoint = Endpoint::new(&url.context("usage: answer URL")?)?;

    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            // Without Ctrl-C it goes on for ever.
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let responder = Responder::new(endpoint);
    let service = service_fn(greet);
    responder
        .run(service, stop, |event| eprintln!("{event}"))
        .await?;
    Ok(())
}

/// Greets whoever the path names.
async fn greet(call: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = call.uri().path().trim_matches('/');
    let name = if name.is_empty() { "world" } else { name };
    Ok(Response::new(format!("Hello, {name}!\n").into()))
}
