//! Why a log can't be opened.

use std::io;
use std::path::PathBuf;

/// Why a folder can't be opened as a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("the log in {} is in use by another process", folder.display())]
    InUse {
        /// Which folder.
        folder: PathBuf,
    },
    /// A later version of the program wrote it.
    #[error("the log has format version {version}, which a newer hookbot wrote; this one reads 1")]
    Newer {
        /// What it says.
        version: u32,
    },
    /// Something that was acknowledged is damaged or gone. Nothing has been changed; opening
    /// with [`crate::Options::repair`] gives the damaged messages up and keeps all others.
    #[error("the log is damaged: {0}")]
    Damaged(Located),
    /// The disk refuses.
    #[error("cannot use {file}")]
    Io {
        /// Which file.
        file: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Where there is damage, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, byte {at}: {what}")]
pub struct Located {
    /// The file in the log's folder.
    pub file: String,
    /// The place in the file.
    pub at: u64,
    /// What is wrong there.
    pub what: String,
}

impl OpenError {
    pub(crate) fn corrupt(file: impl Into<String>, at: u64, what: impl ToString) -> Self {
        Self::Damaged(Located {
            file: file.into(),
            at,
            what: what.to_string(),
        })
    }

    pub(crate) fn io(file: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { file, source }
    }
}
