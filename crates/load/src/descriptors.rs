//! How many connections this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

/// Descriptors for everything but connections.
const SPARE: u64 = 64;

/// As many connections as there may be, once the soft limit is raised to the hard one.
pub(crate) fn available() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // What counts is the limit that there is afterwards.
    let _ = setrlimit(Resource::Nofile, raised);
    let current = getrlimit(Resource::Nofile).current;
    current.unwrap_or(u64::MAX).saturating_sub(SPARE)
}

/// Sees to it that there may be so many.
///
/// # Errors
///
/// When there may not: fewer than were asked for would be another measurement.
pub(crate) fn need(connections: u64) -> Result<(), Failure> {
    let available = available();
    if connections > available {
        return Err(Failure::Usage(format!(
            "{connections} connections, and this process may have {available}: see ulimit -Hn"
        )));
    }
    Ok(())
}
