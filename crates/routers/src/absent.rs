//! Fields that a condition asks for and a message does not have.
//!
//! Jinja orders what is undefined below every number and text, so `body.size < 100` would hold
//! where there is no size. A condition that holds is therefore asked a second time with a value in
//! the place of what is absent that is above all of them, and has to hold both times.
//!
//! What is known of it belongs to an evaluation, and that to its thread from beginning to end;
//! the values that are asked belong to everybody.

use std::cell::Cell;
use std::sync::Arc;

use minijinja::value::{Object, Value};
use minijinja::{Error, State};

thread_local! {
    static IS_ASKED_FOR: Cell<bool> = const { Cell::new(false) };
    static IS_ABOVE: Cell<bool> = const { Cell::new(false) };
}

/// The value of a field, or what stands for it.
pub(crate) fn or_absent(value: Option<Value>) -> Option<Value> {
    if value.is_some() {
        return value;
    }
    IS_ASKED_FOR.set(true);
    IS_ABOVE.get().then(above)
}

/// Whether anything was asked for in vain since [`begin`].
pub(crate) fn is_asked_for() -> bool {
    IS_ASKED_FOR.get()
}

/// Begins an evaluation, whatever has become of the one before.
pub(crate) fn begin() {
    IS_ASKED_FOR.set(false);
    IS_ABOVE.set(false);
}

/// From now on, puts a value in the place of what is absent that is above every other.
pub(crate) fn put_above(is_above: bool) {
    IS_ABOVE.set(is_above);
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
