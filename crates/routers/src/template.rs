//! Conditions and templates: Jinja, with bounds.
//!
//! Whatever a payload holds, an evaluation ends: the engine has a budget of work and memory, a
//! limit of its recursion, and no loop that is not over something finite.
//!
//! A field that is not there is false in a condition. In a template it is an error: text with a
//! hole in it would be a wrong topic.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{
    Environment, Error, ErrorKind, Expression, Output, State, UndefinedBehavior, escape_formatter,
};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::absent::{self, is_absent};
use crate::view::{NAMES, View, is_known};

/// An expression that a message fulfils or does not.
#[derive(Debug)]
pub struct Condition {
    expression: Expression<'static, 'static>,
    /// The same where nothing may be undefined.
    strict: Expression<'static, 'static>,
    source: String,
    /// Only what is ordered needs a second look, see [`crate::absent`].
    orders: bool,
}

impl Condition {
    /// Checks an expression.
    ///
    /// # Errors
    ///
    /// With the reason, when it is none or names what no message has.
    pub fn compile(source: &str) -> Result<Self, String> {
        Self::new(source).map_err(|error| reason_in(&error, source))
    }

    pub(crate) fn new(source: &str) -> Result<Self, Error> {
        let expression = CONDITIONS.compile_expression_owned(source.to_owned())?;
        known(expression.undeclared_variables(false))?;
        expression.eval(()).map(drop).or_else(unless_by_nature)?;
        Ok(Self {
            expression,
            strict: STRICT.compile_expression_owned(source.to_owned())?,
            source: source.to_owned(),
            orders: source.contains(['<', '>']),
        })
    }

    /// Whether the message fulfils it.
    ///
    /// # Errors
    ///
    /// With the reason, when that can't be told.
    pub fn holds(&self, view: &Arc<View>) -> Result<bool, String> {
        let holds = self.try_holds(view);
        holds.map_err(|error| reason_in(&error, &self.source))
    }

    fn try_holds(&self, view: &Arc<View>) -> Result<bool, Error> {
        absent::begin();
        let message = Value::from_dyn_object(view.clone());
        let holds = match self.expression.eval(message.clone()) {
            Ok(value) => value.is_true(),
            Err(error) => !self.is_for_lack(&message, error)?,
        };
        if !holds || !self.orders {
            return Ok(holds);
        }
        absent::put_above(true);
        let holds = self.strict.eval(message.clone());
        absent::put_above(false);
        match holds {
            Ok(value) => Ok(value.is_true()),
            Err(error) => Ok(!self.is_for_lack(&message, error)?),
        }
    }

    /// Whether it failed because of something that is not there; else the error again. What can't
    /// be done with a value can't be done with what is missing.
    fn is_for_lack(&self, message: &Value, error: Error) -> Result<bool, Error> {
        match error.kind() {
            ErrorKind::OutOfFuel => Err(error),
            ErrorKind::UndefinedError => Ok(true),
            _ if absent::is_asked_for() => Ok(true),
            // A text or a number has no fields that could tell; the engine names the kinds that it
            // can't bring together.
            _ if error
                .detail()
                .is_some_and(|detail| detail.contains("undefined")) =>
            {
                Ok(true)
            }
            _ => match self.strict.eval(message.clone()) {
                Err(strict) if strict.kind() == ErrorKind::UndefinedError => Ok(true),
                _ => Err(error),
            },
        }
    }
}

/// Text that a message fills in.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    kind: Kind,
}

/// What a template's text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A topic or a header: every value in it has to be text, a number or a truth.
    Line,
    /// A body.
    Body,
}

impl Template {
    /// Checks a template.
    ///
    /// # Errors
    ///
    /// With the reason, when it is none or names what no message has.
    pub fn compile(source: &str, kind: Kind) -> Result<Self, String> {
        Self::new(source, kind).map_err(|error| reason_in(&error, source))
    }

    pub(crate) fn new(source: &str, kind: Kind) -> Result<Self, Error> {
        let mut environment = TEMPLATES.clone();
        environment.set_formatter(match kind {
            Kind::Line => print_in_line,
            Kind::Body => print_in_body,
        });
        environment.add_template_owned(NAME, source.to_owned())?;
        let template = environment.get_template(NAME)?;
        known(template.undeclared_variables(false))?;
        // The same text where nothing is strict, so that an unknown filter is found behind a
        // field that is not there.
        let mut dry = CONDITIONS.clone();
        dry.add_template_owned(NAME, source.to_owned())?;
        let dry = dry.get_template(NAME)?.render(());
        dry.map(drop).or_else(unless_by_nature)?;
        Ok(Self { environment, kind })
    }

    /// The text for a message.
    ///
    /// # Errors
    ///
    /// With the reason, when there is none.
    pub fn render(&self, view: &Arc<View>) -> Result<String, String> {
        absent::begin();
        let template = self.environment.get_template(NAME);
        let template = template.map_err(|error| reason(&error))?;
        let text = template.render(Value::from_dyn_object(view.clone()));
        let text = text.map_err(|error| reason_in(&error, template.source()))?;
        let limit = match self.kind {
            Kind::Line => MAX_LINE,
            Kind::Body => MAX_BODY,
        };
        if text.len() > limit {
            return Err(format!("more than {limit} bytes"));
        }
        Ok(text)
    }
}

/// What a template begins with whatever the message is, and whether there is more to it.
pub(crate) fn literal(source: &str) -> (&str, bool) {
    let end = ["{{", "{%", "{#"]
        .into_iter()
        .filter_map(|begin| source.find(begin))
        .min();
    match end {
        Some(end) => (&source[..end], true),
        None => (source, false),
    }
}

/// What the engine says, short and on one line: it may quote the message.
pub(crate) fn reason(error: &Error) -> String {
    let text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    let text = text.chars().filter(|char| !char.is_control());
    text.take(MAX_REASON).collect()
}

/// As [`reason`], with the part of the source that it is about, if that is known.
fn reason_in(error: &Error, source: &str) -> String {
    let part = error.range().and_then(|range| source.get(range));
    match part.filter(|part| !part.is_empty() && part.len() <= MAX_REASON) {
        Some(part) => format!("{} in `{part}`", reason(error)),
        None => reason(error),
    }
}

/// In characters.
const MAX_REASON: usize = 300;

/// What there is to work with: about as many steps, and 64 times as many bytes.
const FUEL: u64 = 1 << 20;

/// How deep an evaluation nests.
const DEPTH: usize = 100;

/// The longest topic or header, in bytes.
const MAX_LINE: usize = 8 << 10;

/// The longest body, in bytes.
const MAX_BODY: usize = 25 << 20;

/// A template is the only one of its environment.
const NAME: &str = "template";

static TEMPLATES: LazyLock<Environment<'static>> =
    LazyLock::new(|| environment(UndefinedBehavior::SemiStrict));

static CONDITIONS: LazyLock<Environment<'static>> =
    LazyLock::new(|| conditions(UndefinedBehavior::Chainable));

static STRICT: LazyLock<Environment<'static>> =
    LazyLock::new(|| conditions(UndefinedBehavior::SemiStrict));

fn conditions(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = environment(undefined);
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        if value.is_undefined() {
            return Ok(Value::UNDEFINED);
        }
        unknown_method_callback(state, value, method, arguments)
    });
    environment.add_test("defined", |value: Value| !is_absent(&value));
    environment.add_test("undefined", |value: Value| is_absent(&value));
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment
}

fn environment(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(undefined);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    environment.set_debug(false);
    // With it, a loop could nest values as deep as it is long, and dropping those takes as much
    // stack.
    environment.remove_global("namespace");
    // It would show what a message holds in a place where nobody expects that.
    environment.remove_global("debug");
    environment
}

/// As Jinja's own, for everything that stands for what is absent.
fn default(value: Value, other: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let or_false: Option<bool> = options.get("boolean")?;
    options.assert_all_used()?;
    let is_missing = is_absent(&value) || (or_false == Some(true) && !value.is_true());
    Ok(if is_missing {
        other.unwrap_or_else(|| "".into())
    } else {
        value
    })
}

/// Prints what belongs into a topic or a header, and refuses everything else.
fn print_in_line(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let detail = format!("{} is neither text nor a number", value.kind());
            Err(Error::new(ErrorKind::InvalidOperation, detail))
        }
        _ => print_in_body(out, state, value),
    }
}

/// Prints text as it is, and everything else as JSON has it, where Jinja would print Python.
fn print_in_body(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            let json = serde_json::to_string(value).map_err(|error| {
                Error::new(ErrorKind::BadSerialization, "no JSON").with_source(error)
            })?;
            out.write_str(&json).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// Refuses names that no message has.
fn known(names: HashSet<String>) -> Result<(), Error> {
    let is_good = |name: &str| is_known(name) || FUNCTIONS.contains(&name);
    let mut unknown: Vec<_> = names.into_iter().filter(|name| !is_good(name)).collect();
    unknown.sort();
    let Some(name) = unknown.first() else {
        return Ok(());
    };
    let all = NAMES.map(|(name, _)| name).join(", ");
    let detail = format!("there is no `{name}`, only {all}");
    Err(Error::new(ErrorKind::UndefinedError, detail))
}

/// What else may be named.
const FUNCTIONS: [&str; 3] = ["range", "dict", "loop"];

/// Of what a message without anything makes go wrong, only what no message could make right.
fn unless_by_nature(error: Error) -> Result<(), Error> {
    match error.kind() {
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
            Err(error)
        }
        _ => Ok(()),
    }
}
