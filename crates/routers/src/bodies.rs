//! Bodies that were parsed lately, so that rules that look at one message share the work.
//!
//! Parsing is most of what a rule costs, and rules that read one topic come to a message shortly
//! one after the other. Parsed, a body is several times as large, so only the last few are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use minijinja::value::Value;

use crate::json;

/// The JSON of the last bodies; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Bodies(Arc<Mutex<Lately>>);

#[derive(Debug, Default)]
struct Lately {
    bodies: VecDeque<Arc<Body>>,
    bytes: usize,
}

#[derive(Debug)]
struct Body {
    /// Held, its place in memory is nobody else's, and so tells bodies apart.
    text: Bytes,
    json: OnceLock<Option<Value>>,
}

impl Bodies {
    /// Drops all of them, for when there is nothing to do.
    pub fn forget(&self) {
        *self.lately() = Lately::default();
    }

    /// The JSON of a body, if it is that.
    pub(crate) fn json(&self, text: &Bytes) -> Option<Value> {
        let parse = || json::parse(text).ok();
        if text.len() > LARGE {
            return parse();
        }
        // Parsed without the lock, and waited for by whoever else wants it.
        let body = self.body(text);
        body.json.get_or_init(parse).clone()
    }

    fn body(&self, text: &Bytes) -> Arc<Body> {
        let mut lately = self.lately();
        let is_it = |body: &&Arc<Body>| {
            body.text.as_ptr() == text.as_ptr() && body.text.len() == text.len()
        };
        if let Some(body) = lately.bodies.iter().rev().find(is_it) {
            return body.clone();
        }
        while lately.bodies.len() >= MAX_BODIES || lately.bytes + text.len() > MAX_BYTES {
            let Some(oldest) = lately.bodies.pop_front() else {
                break;
            };
            lately.bytes -= oldest.text.len();
        }
        let body = Arc::new(Body {
            text: text.clone(),
            json: OnceLock::new(),
        });
        lately.bytes += text.len();
        lately.bodies.push_back(body.clone());
        body
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lately().bodies.len()
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The largest body that is kept, in bytes.
const LARGE: usize = 64 << 10;

/// How many bodies are kept.
const MAX_BODIES: usize = 64;

/// How many bytes they have together before they are parsed. Parsed, JSON as it is common takes
/// five to ten times as much, and the worst thirty times.
const MAX_BYTES: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_parsed_once_as_long_as_it_is_kept() {
        let bodies = Bodies::default();
        let text = Bytes::from(vec![b'1'; 3]);
        assert_eq!(bodies.json(&text), Some(Value::from(111)));
        let first = bodies.body(&text);
        assert!(first.json.get().is_some());
        let again = bodies.clone().body(&text.clone());
        assert!(Arc::ptr_eq(&first, &again));
        // One that only reads the same is another message's.
        for other in [Bytes::copy_from_slice(&text), text.slice(..2)] {
            assert!(bodies.body(&other).json.get().is_none());
        }
        bodies.forget();
        assert!(bodies.body(&text).json.get().is_none());
        assert_eq!(bodies.json(&Bytes::from_static(b"no JSON")), None);
    }

    #[test]
    fn few_are_kept() {
        let bodies = Bodies::default();
        for size in [1, 10_000, LARGE, LARGE + 1] {
            for _ in 0..100 {
                bodies.json(&Bytes::from(vec![b' '; size]));
            }
            let lately = bodies.lately();
            let bytes: usize = lately.bodies.iter().map(|body| body.text.len()).sum();
            assert_eq!(bytes, lately.bytes);
            assert!(bytes <= MAX_BYTES && lately.bodies.len() <= MAX_BODIES);
        }
    }
}
