//! Which pages elsewhere may read event streams (WHATWG Fetch, section 3.2).

use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use super::State;
use super::reply::{Reply, line};

/// The answer to a browser that asks whether a page elsewhere may read events.
pub(super) fn preflight(state: &State, headers: &HeaderMap) -> Option<Reply> {
    let mut reply = line(StatusCode::NO_CONTENT, "");
    state.allow_origin(headers, reply.headers_mut()).then(|| {
        let allowed = HeaderValue::from_static(
            "authorization, hookbot-token, last-event-id, x-hookbot-unsafe-is-ok",
        );
        reply
            .headers_mut()
            .insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        reply
    })
}

impl State {
    /// Lets pages of a configured origin read the reply; whether this one is.
    pub(super) fn allow_origin(&self, request: &HeaderMap, reply: &mut HeaderMap) -> bool {
        let Some(allowed) = &self.settings.cors_origin else {
            return false;
        };
        let Some(origin) = request
            .get(ORIGIN)
            .filter(|origin| allowed == "*" || *origin == allowed)
        else {
            return false;
        };
        reply.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        reply.insert(VARY, HeaderValue::from_static("origin"));
        true
    }
}
