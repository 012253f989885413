//! What a run found: for people, as one line of JSON, and as a row to plot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write as _};
use std::path::Path;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::ledger::Tally;

/// The rounds of one command.
#[derive(Debug)]
pub struct Report {
    command: &'static str,
    label: String,
    rounds: Vec<Vec<Row>>,
}

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

    fn to_json(&self) -> Value {
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
}

impl Report {
    /// Of these rounds, which all have the same rows.
    pub(crate) fn new(command: &'static str, label: &str, rounds: Vec<Vec<Row>>) -> Self {
        Self {
            command,
            label: label.to_owned(),
            rounds,
        }
    }

    /// Whether nothing was lost, repeated, disordered or damaged in any round.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rounds.iter().flatten().all(|row| row.clean)
    }

    /// Each measurement as its rounds make it: medians, and sums of what should be zero.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let first = self.rounds.first().map_or(&[][..], Vec::as_slice);
        let rows = (0..first.len()).map(|at| {
            let rounds: Vec<_> = self.rounds.iter().filter_map(|rows| rows.get(at)).collect();
            let mut row = first[at].clone();
            for (place, figure) in row.figures.iter_mut().enumerate() {
                let values = rounds.iter().filter_map(|row| row.figures.get(place));
                let values: Vec<_> = values.map(|figure| figure.value).collect();
                figure.value = match figure.across {
                    Across::Median => median(values),
                    Across::Sum => values.iter().sum(),
                };
            }
            for other in &rounds[1..] {
                for (status, count) in &other.refused {
                    *row.refused.entry(*status).or_default() += count;
                }
                row.clean &= other.clean;
            }
            row
        });
        rows.collect()
    }

    /// One line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let objects = |rows: &[Row]| rows.iter().map(Row::to_json).collect::<Vec<_>>();
        let rounds: Vec<_> = self.rounds.iter().map(|rows| objects(rows)).collect();
        json!({
            "command": self.command,
            "label": self.label,
            "clean": self.is_clean(),
            "median": objects(&self.rows()),
            "rounds": rounds,
        })
        .to_string()
    }

    /// A table for people: figures below each other, with each round; of many rows, side by side.
    #[must_use]
    pub fn to_text(&self) -> String {
        let rows = self.rows();
        let mut text = String::new();
        if let [row] = rows.as_slice() {
            let settings = row.settings.iter();
            let settings = settings.map(|(name, value)| format!(" {name}={value}"));
            let settings: String = settings.collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}{settings}", self.command);
            let mut lines = vec![vec![String::new()]];
            if self.rounds.len() > 1 {
                lines[0].extend((1..=self.rounds.len()).map(|round| format!("round {round}")));
            }
            lines[0].push("all".to_owned());
            for (place, figure) in row.figures.iter().enumerate() {
                let mut line = vec![figure.name.clone()];
                if self.rounds.len() > 1 {
                    let rounds = self.rounds.iter().map(|rows| &rows[0].figures[place]);
                    line.extend(rounds.map(|figure| shown(figure.value)));
                }
                line.push(shown(figure.value));
                lines.push(line);
            }
            text += &aligned(&lines);
        } else {
            let _ = writeln!(text, "{}", self.command);
            let mut lines: Vec<Vec<_>> = rows.iter().map(cells).collect();
            lines.splice(0..0, rows.first().map(names));
            text += &aligned(&lines);
        }
        for (status, count) in rows.iter().flat_map(|row| &row.refused) {
            let _ = writeln!(text, "refused with {status}: {count}");
        }
        text
    }

    /// Appends each measurement to a file of tab-separated values, below a header.
    ///
    /// # Errors
    ///
    /// When the file can't be written, or has other columns.
    pub fn append_to(&self, file: &Path) -> Result<(), Failure> {
        let failed = |cause| Failure::Local("cannot write the table", cause);
        let rows = self.rows();
        let Some(first) = rows.first() else {
            return Ok(());
        };
        let header = ["command".to_owned(), "label".to_owned()];
        let header = [&header[..], &names(first)].concat().join("\t");
        let mut options = OpenOptions::new();
        let opened = options.read(true).append(true).create(true).open(file);
        let mut table = opened.map_err(failed)?;
        let mut before = String::new();
        table.read_to_string(&mut before).map_err(failed)?;
        table.seek(io::SeekFrom::End(0)).map_err(failed)?;
        let mut text = String::new();
        match before.lines().next() {
            None => text = format!("{header}\n"),
            Some(own) if own == header => {}
            Some(_) => {
                let why = "it is a table of something else";
                return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
        }
        for row in &rows {
            let cells = cells(row).join("\t");
            let _ = writeln!(text, "{}\t{}\t{cells}", self.command, self.label);
        }
        table.write_all(text.as_bytes()).map_err(failed)
    }
}

fn names(row: &Row) -> Vec<String> {
    let settings = row.settings.iter().map(|(name, _)| (*name).to_owned());
    let figures = row.figures.iter().map(|figure| figure.name.clone());
    settings.chain(figures).collect()
}

fn cells(row: &Row) -> Vec<String> {
    let settings = row.settings.iter().map(|(_, value)| value.clone());
    let figures = row.figures.iter().map(|figure| shown(figure.value));
    settings.chain(figures).collect()
}

/// Columns as wide as they need to be, the first to the left and the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            let _ = if column == 0 {
                write!(text, "{cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        text.push('\n');
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rate: f64, lost: u64) -> Row {
        let mut row = Row::new([("shape", "hookbot".to_owned()), ("size", "64".to_owned())]);
        row.figure("rate", rate);
        row.figure("unknown", f64::NAN);
        row.tally(&Tally {
            lost,
            ..Tally::default()
        });
        row.refused(&BTreeMap::from([(503, 2)]));
        row
    }

    fn report() -> Report {
        let rounds = [(3.0, 0), (1.0, 5), (2.5, 0)];
        let rounds = rounds.map(|(rate, lost)| vec![row(rate, lost)]);
        Report::new("fanout", "own", rounds.to_vec())
    }

    #[test]
    fn rounds_make_medians_and_no_bad_round_is_hidden() {
        let report = report();
        let rows = report.rows();
        assert_eq!(rows[0].value("rate"), Some(2.5));
        assert_eq!(rows[0].value("lost"), Some(5.0));
        assert_eq!(rows[0].value("refused"), Some(6.0));
        assert!(!report.is_clean());
        assert!(Report::new("fanout", "", vec![vec![row(1.0, 0)]]).is_clean());
    }

    #[test]
    fn json_is_one_line_with_everything() {
        let json = report().to_json();
        assert!(!json.contains('\n'));
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["clean"], false);
        assert_eq!(value["median"][0]["rate"], 2.5);
        assert_eq!(value["median"][0]["size"], 64);
        assert_eq!(value["median"][0]["unknown"], Value::Null);
        assert_eq!(value["median"][0]["refusals"]["503"], 6);
        assert_eq!(value["rounds"][1][0]["lost"], 5);
    }

    #[test]
    fn a_table_gets_one_header_and_nothing_of_another_kind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("table.tsv");
        report().append_to(&file).unwrap();
        report().append_to(&file).unwrap();
        let table = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("command\tlabel\tshape\tsize\trate\tunknown\tlost"));
        assert!(lines[1].starts_with("fanout\town\thookbot\t64\t2.5\t-\t5"));
        assert_eq!(lines[1], lines[2]);
        let mut other = row(1.0, 0);
        other.figure("more", 1.0);
        let other = Report::new("fanout", "", vec![vec![other]]);
        assert_eq!(other.append_to(&file).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn people_see_every_round() {
        let text = report().to_text();
        assert!(text.starts_with("fanout shape=hookbot size=64\n"));
        let rate = text.lines().find(|line| line.starts_with("rate")).unwrap();
        let cells: Vec<_> = rate.split_whitespace().collect();
        assert_eq!(cells, ["rate", "3", "1", "2.5", "2.5"]);
        assert!(text.contains("refused with 503: 6"));
    }
}
