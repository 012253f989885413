//! Bodies that were parsed lately, so that rules that look at one message share the work.
//!
//! Parsing is most of what a rule costs, and rules that read one topic come to a message shortly
//! one after the other. Parsed, a body is several times as large, so only the last few are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hookbot_protocol::Offset;
use minijinja::value::Value;

use crate::json;

/// The JSON of the last bodies in one log; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Bodies(Arc<Mutex<Lately>>);

#[derive(Debug, Default)]
struct Lately {
    bodies: VecDeque<Arc<Body>>,
    bytes: usize,
}

#[derive(Debug)]
struct Body {
    /// Whose it is. Who catches up has another copy of the same message.
    offset: Offset,
    bytes: usize,
    json: OnceLock<Option<Value>>,
}

impl Bodies {
    /// Drops all of them, for when there is nothing to do.
    pub fn forget(&self) {
        *self.lately() = Lately::default();
    }

    /// The JSON of the body of the message at this offset, if it is that.
    pub(crate) fn json(&self, offset: Offset, text: &[u8]) -> Option<Value> {
        let parse = || json::parse(text).ok();
        if text.len() > LARGE {
            return parse();
        }
        // Parsed without the lock, and waited for by whoever else wants it.
        let body = self.body(offset, text.len());
        body.json.get_or_init(parse).clone()
    }

    fn body(&self, offset: Offset, bytes: usize) -> Arc<Body> {
        let mut lately = self.lately();
        let mut bodies = lately.bodies.iter().rev();
        if let Some(body) = bodies.find(|body| body.offset == offset) {
            return body.clone();
        }
        while lately.bodies.len() >= MAX_BODIES || lately.bytes + bytes > MAX_BYTES {
            let Some(oldest) = lately.bodies.pop_front() else {
                break;
            };
            lately.bytes -= oldest.bytes;
        }
        let body = Arc::new(Body {
            offset,
            bytes,
            json: OnceLock::new(),
        });
        lately.bytes += bytes;
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
        assert_eq!(bodies.json(Offset(1), b"111"), Some(Value::from(111)));
        // What is kept is told by the wrong text, which nobody looks at again.
        assert_eq!(bodies.clone().json(Offset(1), b"2"), Some(Value::from(111)));
        assert_eq!(
            bodies.json(Offset(2), b"111").as_ref(),
            Some(&Value::from(111))
        );
        bodies.forget();
        assert_eq!(bodies.json(Offset(1), b"2"), Some(Value::from(2)));
        assert_eq!(bodies.json(Offset(3), b"no JSON"), None);
    }

    #[test]
    fn few_are_kept() {
        let bodies = Bodies::default();
        for size in [1, 10_000, LARGE, LARGE + 1] {
            for number in 0..100 {
                bodies.json(Offset(number), &vec![b' '; size]);
            }
            let lately = bodies.lately();
            let bytes: usize = lately.bodies.iter().map(|body| body.bytes).sum();
            assert_eq!(bytes, lately.bytes);
            assert!(bytes <= MAX_BYTES && lately.bodies.len() <= MAX_BODIES);
        }
    }
}
