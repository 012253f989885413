//! Fields that a condition asks for and a message does not have.
//!
//! Jinja orders what is undefined below every number and text, so `body.size < 100` would hold
//! where there is no size. A condition that holds is therefore asked a second time with a value in
//! the place of what is absent that is above all of them, and has to hold both times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::value::{Object, Value};
use minijinja::{Error, State};

/// What is known of the fields that were asked for and are not there.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    is_asked_for: AtomicBool,
    is_above: AtomicBool,
}

impl Absent {
    /// The value of a field, or what stands for it.
    pub(crate) fn or(&self, value: Option<Value>) -> Option<Value> {
        if value.is_some() {
            return value;
        }
        self.is_asked_for.store(true, Ordering::Relaxed);
        let is_above = self.is_above.load(Ordering::Relaxed);
        is_above.then(above)
    }

    /// Whether anything was asked for in vain.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.is_asked_for.load(Ordering::Relaxed)
    }

    /// From now on, puts a value in the place of what is absent that is above every other.
    pub(crate) fn put_above(&self, is_above: bool) {
        self.is_above.store(is_above, Ordering::Relaxed);
    }
}

/// An empty mapping, and mappings are above numbers and texts. Whatever is asked of it, it is
/// again.
#[derive(Debug)]
struct Above;

fn above() -> Value {
    Value::from_object(Above)
}

impl Object for Above {
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(above())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        _: &str,
        _: &[Value],
    ) -> Result<Value, Error> {
        Ok(above())
    }
}

/// Whether a value is that of a field that is not there.
pub(crate) fn is_absent(value: &Value) -> bool {
    value.is_undefined() || value.downcast_object_ref::<Above>().is_some()
}
