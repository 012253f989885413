//! One measurement: its settings, and its figures.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::ledger::Tally;

/// One measurement: its settings, and its figures.
#[derive(Debug, Default, Clone)]
pub struct Row {
    settings: Vec<(&'static str, String)>,
    figures: Vec<Figure>,
    refused: BTreeMap<u16, u64>,
    clean: bool,
}

/// A number with a name, which says its unit.
#[derive(Debug, Clone)]
struct Figure {
    name: String,
    value: f64,
    across: Across,
}

/// What several rounds make of a figure.
#[derive(Debug, Clone, Copy)]
enum Across {
    Median,
    /// For what should be zero: a median would hide one bad round.
    Sum,
}

impl Row {
    /// Without figures yet.
    pub(crate) fn new(settings: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self {
            settings: settings.into_iter().collect(),
            clean: true,
            ..Self::default()
        }
    }

    /// Adds settings.
    pub(crate) fn settings(&mut self, settings: impl IntoIterator<Item = (&'static str, String)>) {
        self.settings.extend(settings);
    }

    /// Adds a figure; one that is not a number is unknown.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.add(name.into(), value, Across::Median);
    }

    /// Adds a count of something that should not happen.
    pub(crate) fn fault(&mut self, name: &str, count: u64) {
        self.add(name.to_owned(), count as f64, Across::Sum);
    }

    fn add(&mut self, name: String, value: f64, across: Across) {
        self.figures.push(Figure {
            name,
            value,
            across,
        });
    }

    /// Adds the usual points of a histogram of nanoseconds, in microseconds.
    pub(crate) fn waits(&mut self, name: &str, waits: &Histogram<u64>) {
        let us = |value: u64| {
            if waits.is_empty() {
                f64::NAN
            } else {
                value as f64 / 1e3
            }
        };
        for (point, part) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            self.figure(
                format!("{name}_{point}_us"),
                us(waits.value_at_quantile(part)),
            );
        }
        self.figure(format!("{name}_max_us"), us(waits.max()));
    }

    /// Adds what was refused, by status.
    pub(crate) fn refused(&mut self, refused: &BTreeMap<u16, u64>) {
        self.fault("refused", refused.values().sum());
        for (status, count) in refused {
            *self.refused.entry(*status).or_default() += count;
        }
    }

    /// Adds what was lost, repeated, disordered or damaged. Any of it makes the run a failure.
    pub(crate) fn tally(&mut self, tally: &Tally) {
        self.fault("lost", tally.lost);
        self.fault("duplicates", tally.duplicates);
        self.fault("reordered", tally.reordered);
        self.fault("damaged", tally.damaged);
        self.clean &= tally.is_clean();
    }

    /// The value of a figure.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.name == name)?;
        Some(figure.value)
    }

    /// As an object of JSON.
    pub(crate) fn to_json(&self) -> Value {
        let settings = self.settings.iter().map(|(name, value)| {
            let number = value.parse::<f64>().map(number);
            ((*name).to_owned(), number.unwrap_or_else(|_| json!(value)))
        });
        let figures = self.figures.iter();
        let figures = figures.map(|figure| (figure.name.clone(), number(figure.value)));
        let mut object: Map<_, _> = settings.chain(figures).collect();
        if !self.refused.is_empty() {
            let refused = self.refused.iter();
            let refused = refused.map(|(status, count)| (status.to_string(), json!(count)));
            object.insert("refusals".to_owned(), refused.collect::<Map<_, _>>().into());
        }
        object.into()
    }

    /// What its rounds make of it: medians, and sums of what should be zero.
    pub(crate) fn across(rounds: &[&Self]) -> Self {
        let mut all = rounds
            .first()
            .map_or_else(Self::default, |row| (*row).clone());
        for (place, figure) in all.figures.iter_mut().enumerate() {
            let values = rounds.iter().filter_map(|row| row.figures.get(place));
            let values: Vec<_> = values.map(|figure| figure.value).collect();
            figure.value = match figure.across {
                Across::Median => median(values),
                Across::Sum => values.iter().sum(),
            };
        }
        for other in rounds.iter().skip(1) {
            for (status, count) in &other.refused {
                *all.refused.entry(*status).or_default() += count;
            }
            all.clean &= other.clean;
        }
        all
    }

    /// Whether nothing was lost, repeated, disordered or damaged.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean
    }

    /// Its settings, as they are given.
    pub(crate) fn title(&self) -> String {
        let settings = self.settings.iter();
        settings
            .map(|(name, value)| format!(" {name}={value}"))
            .collect()
    }

    /// Names and values of its figures.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&str, String)> {
        let figures = self.figures.iter();
        figures.map(|figure| (figure.name.as_str(), shown(figure.value)))
    }

    /// Names of its columns.
    pub(crate) fn names(&self) -> Vec<String> {
        let settings = self.settings.iter().map(|(name, _)| (*name).to_owned());
        let figures = self.figures.iter().map(|figure| figure.name.clone());
        settings.chain(figures).collect()
    }

    /// Its columns.
    pub(crate) fn cells(&self) -> Vec<String> {
        let settings = self.settings.iter().map(|(_, value)| value.clone());
        settings
            .chain(self.figures().map(|(_, value)| value))
            .collect()
    }

    /// How often each status refused something.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (u16, u64)> {
        self.refused.iter().map(|(status, count)| (*status, *count))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (_, _) if values.is_empty() => f64::NAN,
        (middle, 1) => values[middle],
        (middle, _) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Three digits behind the point are more than any of it is exact to.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn number(value: f64) -> Value {
    let value = rounded(value);
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        // What is no number becomes null.
        json!(value)
    }
}

fn shown(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    rounded(value).to_string()
}
