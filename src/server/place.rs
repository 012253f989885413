//! How far a router has got, kept from one run to the next.
//!
//! A place belongs to a router's name and filter, whatever else has changed about the router.

use hookbot_protocol::{Cursor, Filter};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use super::State;
use crate::state_file::StateFile;

/// What the place of a router is called that reads with this filter.
pub(super) fn file_name(name: &str, filter: &Filter) -> String {
    let filter = utf8_percent_encode(filter.as_str(), NON_ALPHANUMERIC);
    format!("router-{name}-{filter}")
}

/// How far a router has got, on disk if the log is.
pub(super) struct Place {
    pub(super) name: String,
    file: Option<StateFile>,
    kept: Option<Cursor>,
}

impl Place {
    pub(super) fn of(state: &State, name: String) -> Self {
        let folder = state.settings.data_dir.as_deref();
        Self {
            file: folder.map(|folder| StateFile::new(&folder.join(&name))),
            name,
            kept: None,
        }
    }

    /// Where it is, if it has ever been anywhere.
    pub(super) fn load(&mut self) -> anyhow::Result<Option<Cursor>> {
        if self.kept.is_none() {
            let text = self.file.as_ref().map(StateFile::load).transpose()?;
            self.kept = text.flatten().map(|text| text.parse()).transpose()?;
        }
        Ok(self.kept)
    }
}

/// Keeps those places that are not the ones kept last. One that can't be is kept when it has moved.
pub(super) async fn keep(places: Vec<(&mut Place, Cursor)>) {
    // It does not panic; without an answer, the program ends.
    let _ = begin_to_keep(places).await;
}

/// As [`keep`], beside other work: the disk takes its time.
pub(super) fn begin_to_keep(places: Vec<(&mut Place, Cursor)>) -> JoinHandle<()> {
    let mut files = Vec::new();
    for (place, cursor) in places {
        if place.kept.replace(cursor) != Some(cursor) {
            files.extend(place.file.clone().map(|file| (file, cursor)));
        }
    }
    spawn_blocking(move || {
        for (file, cursor) in files {
            if let Err(error) = file.store(&cursor.to_string()) {
                warn!("a router's place is not kept: {error:#}");
            }
        }
    })
}
