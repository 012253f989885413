//! What a run found: for people, as one line of JSON, and as a row to plot.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write as _};
use std::path::Path;

use serde_json::json;

use crate::failure::Failure;
use crate::row::Row;

/// The rounds of one command.
#[derive(Debug)]
pub struct Report {
    command: &'static str,
    label: String,
    rounds: Vec<Vec<Row>>,
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
        self.rounds.iter().flatten().all(Row::is_clean)
    }

    /// Each measurement as its rounds make it: medians, and sums of what should be zero.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let count = self.rounds.first().map_or(0, Vec::len);
        let rounds = |at: usize| self.rounds.iter().filter_map(move |rows| rows.get(at));
        (0..count)
            .map(|at| Row::across(&rounds(at).collect::<Vec<_>>()))
            .collect()
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
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}{}", self.command, row.title());
            let several = self.rounds.len() > 1;
            let mut lines = vec![vec![String::new()]];
            lines.extend(row.figures().map(|(name, _)| vec![name.to_owned()]));
            let mut column = |name: String, row: &Row| {
                let values = row.figures().map(|(_, value)| value);
                for (line, cell) in lines.iter_mut().zip(std::iter::once(name).chain(values)) {
                    line.push(cell);
                }
            };
            for (number, rows) in self.rounds.iter().enumerate().filter(|_| several) {
                column(format!("round {}", number + 1), &rows[0]);
            }
            column("all".to_owned(), row);
            text += &aligned(&lines);
        } else {
            let _ = writeln!(text, "{}", self.command);
            let names = rows.first().map(Row::names);
            let lines: Vec<_> = names
                .into_iter()
                .chain(rows.iter().map(Row::cells))
                .collect();
            text += &aligned(&lines);
        }
        for (status, count) in rows.iter().flat_map(Row::refusals) {
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
        let header = [&header[..], &first.names()].concat().join("\t");
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
            let cells = row.cells().join("\t");
            let _ = writeln!(text, "{}\t{}\t{cells}", self.command, self.label);
        }
        table.write_all(text.as_bytes()).map_err(failed)
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;
    use crate::ledger::Tally;

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
