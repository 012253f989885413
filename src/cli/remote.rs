//! The server at the other end, for the commands that are its clients.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use hookbot_listen::Endpoint;

use super::Failure;

/// How to reach a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct RemoteArgs {
    /// A header to send along, for example -H 'X-Team: infra'; may be repeated.
    #[arg(
        short = 'H',
        long = "header",
        env = "HOOKBOT_HEADER",
        value_name = "NAME: VALUE"
    )]
    headers: Vec<String>,

    /// Certificates to trust besides the system's, PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl RemoteArgs {
    /// The endpoint that `url` means, with these headers and certificates.
    pub(super) fn endpoint(&self, url: &str) -> Result<Endpoint, Failure> {
        let mut endpoint = Endpoint::new(url)?;
        for (name, value) in self.headers()? {
            endpoint = endpoint.header(name, value).map_err(usage)?;
        }
        if let Some(pem) = self.ca()? {
            endpoint = endpoint.ca(&pem).map_err(usage)?;
        }
        Ok(endpoint)
    }

    /// The headers to send along.
    pub(super) fn headers(&self) -> Result<Vec<(&str, &str)>, Failure> {
        let pairs = self.headers.iter().map(|header| {
            let pair = header.split_once(':');
            let pair = pair.map(|(name, value)| (name.trim(), value.trim()));
            pair.ok_or_else(|| {
                let error = anyhow!("--header {header:?} is not of the form NAME: VALUE");
                Failure::Usage(error)
            })
        });
        pairs.collect()
    }

    /// The certificates to trust besides the system's, PEM.
    pub(super) fn ca(&self) -> Result<Option<Vec<u8>>, Failure> {
        let read = |file: &PathBuf| {
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let pem = self.ca.as_ref().map(read).transpose();
        pem.map_err(Failure::Usage)
    }
}

fn usage(error: hookbot_listen::Error) -> Failure {
    Failure::Usage(error.into())
}

/// Runs a command's work on this thread, unless somebody presses Ctrl-C before it is done.
pub(super) fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("cannot start")?.block_on(async {
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    })
}
