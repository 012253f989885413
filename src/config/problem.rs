//! What is wrong with a file, shown where it is wrong.

use std::fmt;
use std::ops::Range;

use super::excerpt::{Excerpt, excerpt};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which bytes of the file.
    pub place: Range<usize>,
    /// What is wrong with them.
    pub message: String,
    /// What was perhaps meant.
    pub hint: Option<String>,
}

impl Problem {
    /// Something wrong with these bytes.
    #[must_use]
    pub fn new(place: Range<usize>, message: impl fmt::Display) -> Self {
        Self {
            place,
            message: message.to_string(),
            hint: None,
        }
    }
}

/// Why a table is not what it is for, and which of its keys says so.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) key: &'static str,
    pub(super) message: String,
}

/// Everything that is wrong with a file. It prints with the lines in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    file: String,
    text: String,
    problems: Vec<Problem>,
}

impl Problems {
    /// What is wrong with `text`, in the order of its lines.
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place.start);
        problems.dedup();
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            problems,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// Each with its line and column, on one line for a log.
    #[must_use]
    pub fn brief(&self) -> String {
        let each = self.problems.iter().map(|problem| {
            let Place { line, column, .. } = self.place(problem);
            format!("{}:{line}:{column}: {}", self.file, problem.message)
        });
        each.collect::<Vec<_>>().join("; ")
    }

    fn place(&self, problem: &Problem) -> Place<'_> {
        let mut start = problem.place.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[begin..];
        let source = rest.lines().next().unwrap_or_default();
        let excerpt = excerpt(&self.text, begin, &problem.message);
        let indent = source.get(..start - begin).unwrap_or(source);
        let end = problem
            .place
            .end
            .clamp(start, begin + source.len().max(start - begin));
        // How long it is what is left out is not shown either.
        let end = match excerpt.is_cut {
            true => end.min(begin + excerpt.shown.len()),
            false => end,
        };
        let marked = self.text.get(start..end).unwrap_or_default();
        Place {
            line: before.matches('\n').count() + 1,
            column: indent.chars().count() + 1,
            excerpt,
            indent,
            width: marked.chars().count().max(1),
        }
    }
}

/// Where a problem is, as people count.
struct Place<'a> {
    line: usize,
    column: usize,
    excerpt: Excerpt<'a>,
    indent: &'a str,
    width: usize,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            let place = self.place(problem);
            let margin = " ".repeat(place.line.to_string().len());
            // Tabs stay, so that the marks stand below what they mark.
            let indent = place.indent.chars();
            let indent: String = indent
                .map(|char| if char == '\t' { '\t' } else { ' ' })
                .collect();
            let shown = place.excerpt.shown.chars();
            let source: String = shown.filter(is_shown).collect();
            let rest = if place.excerpt.is_cut { " ..." } else { "" };
            let between = if number == 0 { "" } else { "\n" };
            writeln!(f, "{between}{}", problem.message)?;
            writeln!(
                f,
                "{margin}--> {}:{}:{}",
                self.file, place.line, place.column
            )?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{} | {source}{rest}", place.line)?;
            write!(f, "{margin} | {indent}{}", "^".repeat(place.width))?;
            match &problem.hint {
                Some(hint) => writeln!(f, " {hint}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Whether a character may go to a terminal.
fn is_shown(char: &char) -> bool {
    *char == '\t' || !char.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_with_the_line_that_it_is_in() {
        let text = "[[source]]\nsecrets = 'hush'\n";
        assert_eq!(
            shown(text, 21..27),
            "wrong\n --> f:2:11\n  |\n2 | secrets = ...\n  |           ^ so\n"
        );
        assert_eq!(
            shown(text, 11..18),
            "wrong\n --> f:2:1\n  |\n2 | secrets = ...\n  | ^^^^^^^ so\n"
        );
    }

    fn shown(text: &str, place: Range<usize>) -> String {
        let problem = Problem {
            hint: Some("so".to_owned()),
            ..Problem::new(place, "wrong")
        };
        Problems::new("f", text, vec![problem]).to_string()
    }

    #[test]
    fn a_problem_is_shown_below_its_line() {
        assert_eq!(
            shown("[[route]]\n\tü = 22\n", 16..18),
            "wrong\n --> f:2:6\n  |\n2 | \tü = 22\n  | \t    ^^ so\n"
        );
    }

    #[test]
    fn whatever_the_place_it_is_one_in_the_file() {
        let text = "a\nü\r\n\n";
        for start in 0..text.len() + 3 {
            for end in start..text.len() + 3 {
                let shown = shown(text, start..end);
                assert_eq!(shown.lines().count(), 5, "{start}..{end}: {shown}");
            }
        }
        assert_eq!(shown("", 0..0), "wrong\n --> f:1:1\n  |\n1 | \n  | ^ so\n");
    }
}
