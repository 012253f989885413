//! The server that is running in a folder, for the commands that ask it.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::sync::mpsc;

use super::Failure;
use super::remote::block_on;
use crate::config::data_dir;
use crate::server::admin::{Line, Question, ask};

/// Which server is asked.
#[derive(Debug, Args)]
pub(super) struct RunningArgs {
    /// The server's folder.
    #[arg(long, env = "HOOKBOT_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

impl RunningArgs {
    /// The server's folder.
    pub(super) fn folder(&self) -> Result<PathBuf, Failure> {
        Ok(data_dir(self.data_dir.as_deref())?)
    }

    /// Asks a question, and hands over each line of the answer.
    pub(super) fn ask(
        &self,
        question: &Question,
        mut show: impl FnMut(Line) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let folder = self.folder()?;
        block_on(async {
            let (out, mut lines) = mpsc::channel(64);
            let asking = async {
                let asked = ask(&folder, question, &out).await;
                drop(out);
                asked.with_context(|| format!("cannot ask the server in {}", folder.display()))
            };
            let showing = async {
                while let Some(line) = lines.recv().await {
                    match line {
                        Line::Error(error) => return Err(anyhow!(error).into()),
                        line => show(line)?,
                    }
                }
                Ok(())
            };
            let (asked, shown) = tokio::join!(asking, showing);
            if asked?.is_none() {
                let error = anyhow!("no server is running in {}", folder.display());
                return Err(Failure::Unreachable(error));
            }
            shown
        })
    }
}
