//! Bodies of calls on their way, each of which can be given up.
//!
//! Hyper sends a body in a task of its own. Once the answer has begun, that task hears of nothing
//! but the responder's windows: while those are shut it waits, whoever has hung up meanwhile, and
//! HTTP/2 has no word for that as long as it waits.

use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static SENDING: CancellationToken;
}

/// Asked by a body while it is polled: what ends the task that sends it, and with it the call, if
/// its answer was dropped, too. A body is polled outside of one as well, where hyper sees how far it
/// gets at once.
#[must_use]
pub fn sending() -> Option<CancellationToken> {
    SENDING.try_with(CancellationToken::clone).ok()
}

/// Runs hyper's tasks, each of which can be ended from inside.
#[derive(Debug, Clone)]
pub(crate) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let end = CancellationToken::new();
        let task = SENDING.scope(end.clone(), task);
        tokio::spawn(end.run_until_cancelled_owned(task));
    }
}
