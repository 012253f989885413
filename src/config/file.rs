//! The configuration file: TOML, taken whole or not at all.
//!
//! A table has a type of its own, and what it may say is the type's fields: they are what is read,
//! what is offered when a key is misspelt, and what the reference lists. Another table is another
//! field of [`Config`], and another arm where the tables are told apart.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use hookbot_protocol::Filter;
use hookbot_routers::{Cycle, Fault, Part, Route, Router, Rule};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::server::NetworksError;

use super::problem::{Flaw, Problem, Problems};
use super::route_table::RouteTable;
use super::server_table::ServerTable;
use super::source_table::SourceTableError;
use super::{DeliverTable, DeliverTableError, LimitsTable, SourceTable, TokensTable, table};

/// What a file says, checked.
#[derive(Debug, Default)]
pub struct Config {
    /// `[server]`.
    pub server: ServerTable,
    /// `[limits]`.
    pub limits: LimitsTable,
    /// `[tokens]`.
    pub tokens: TokensTable,
    /// `[[source]]`, in their order, whose secrets have not been looked for.
    pub sources: Vec<SourceTable>,
    /// `[[route]]`, in their order.
    pub routes: Vec<Rule>,
    /// `[[deliver]]`, in their order, whose secrets have not been looked for.
    pub deliveries: Vec<DeliverTable>,
}

impl Config {
    /// Reads and checks a file. The secret is what the preset for GitHub verifies with; a check
    /// needs none.
    ///
    /// # Errors
    ///
    /// When it can't be read; else everything that is wrong with it.
    pub fn load(file: &Path, github: Option<&[u8]>) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let bytes = fs::read(file).map_err(|source| ConfigError::Read {
            file: name.clone(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let problem = Problem::new(at..at + 1, "a byte that is no UTF-8");
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            Problems::new(&name, &text, vec![problem])
        })?;
        Ok(Self::parse(&name, &text, github)?)
    }

    /// Topics that this rule reads, on which nobody can know what is GitHub's though it has to: it
    /// has no secret, and no source is for them.
    #[must_use]
    pub fn unverified(&self, rule: &Rule) -> Option<Filter> {
        let mut topics = rule.topics().into_iter().filter(|_| rule.lacks_secret());
        topics.find(|topics| {
            let mut sources = self.sources.iter();
            !sources.any(|source| source.verifies_github(topics))
        })
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; after a mistake in the TOML itself, only that.
    pub fn parse(file: &str, text: &str, github: Option<&[u8]>) -> Result<Self, Problems> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<_> = errors
            .iter()
            .map(|error| Problem::new(error.span().unwrap_or_default(), error.message()))
            .collect();
        let mut config = Self::default();
        if problems.is_empty() {
            for (key, value) in root.get_ref().iter() {
                match (&**key.get_ref(), value.get_ref()) {
                    (name @ ("server" | "limits" | "tokens"), DeValue::Table(table)) => {
                        let table = Spanned::new(value.span(), table.clone());
                        match name {
                            "server" => config.server = table::read(&table, &mut problems),
                            "limits" => config.limits = limits(&table, &mut problems),
                            _ => config.tokens = table::read(&table, &mut problems),
                        }
                    }
                    (name @ ("server" | "limits" | "tokens"), _) => {
                        let message = format!("`{name}` is a table: write [{name}]");
                        problems.push(Problem::new(value.span(), message));
                    }
                    ("source", DeValue::Array(list)) => {
                        config.sources = sources(list.iter(), &mut problems);
                    }
                    ("source", _) => problems.push(Problem::new(
                        key.span(),
                        "there may be many sources: write [[source]]",
                    )),
                    ("route", DeValue::Array(list)) => {
                        config.routes = routes(text, list.iter(), github, &mut problems);
                    }
                    ("route", _) => problems.push(Problem::new(
                        key.span(),
                        "there may be many routes: write [[route]]",
                    )),
                    ("deliver", DeValue::Array(list)) => {
                        config.deliveries = deliveries(list.iter(), &mut problems);
                    }
                    ("deliver", _) => problems.push(Problem::new(
                        key.span(),
                        "there may be many deliveries: write [[deliver]]",
                    )),
                    (name, _) => problems.push(stray(key.span(), name)),
                }
            }
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Problems::new(file, text, problems))
        }
    }
}

/// The tables that a file may have.
pub(super) const TABLES: [&str; 6] = ["server", "limits", "tokens", "source", "route", "deliver"];

/// A key outside of all tables.
fn stray(place: Range<usize>, name: &str) -> Problem {
    let fields = [
        ("server", table::field_names::<ServerTable>()),
        ("limits", table::field_names::<LimitsTable>()),
        ("tokens", table::field_names::<TokensTable>()),
    ];
    let owner = fields.iter().find(|(_, fields)| fields.contains(&name));
    if let Some((table, _)) = owner {
        return Problem {
            hint: Some(format!("it belongs below [{table}]")),
            ..Problem::new(place, format!("unknown key `{name}`"))
        };
    }
    table::unknown(place, name, &TABLES)
}

/// The limits, with the lists of addresses that are in the file itself.
fn limits(table: &Spanned<DeTable<'_>>, problems: &mut Vec<Problem>) -> LimitsTable {
    let limits: LimitsTable = table::read(table, problems);
    let flaws = limits.flaws().map(|(key, at, error)| {
        let place = table::place(table.get_ref(), key, Some(at));
        Problem::new(place.unwrap_or_else(|| table.span()), error)
    });
    problems.extend(flaws);
    limits
}

/// Every source, each checked alone, and then whether two contradict each other.
fn sources<'a, 'i: 'a>(
    list: impl Iterator<Item = &'a Spanned<DeValue<'i>>>,
    problems: &mut Vec<Problem>,
) -> Vec<SourceTable> {
    let mut sources: Vec<SourceTable> = Vec::new();
    for item in list {
        let check = |source: &_| SourceTable::shape(source).err();
        let Some((source, place)) = checked(item, "a source is a table", check, problems) else {
            continue;
        };
        if sources.iter().any(|other| other.topic == source.topic) {
            let message = format!("there is another source for `{}`", source.topic);
            problems.push(Problem::new(place("topic"), message));
        } else if sources.iter().any(|other| other.name() == source.name()) {
            let message = format!("there is another source `{}`", source.name());
            problems.push(Problem::new(place("name"), message));
        }
        sources.push(source);
    }
    sources
}

/// Every delivery, each checked alone, and then whether two have one name.
fn deliveries<'a, 'i: 'a>(
    list: impl Iterator<Item = &'a Spanned<DeValue<'i>>>,
    problems: &mut Vec<Problem>,
) -> Vec<DeliverTable> {
    let mut deliveries: Vec<DeliverTable> = Vec::new();
    for item in list {
        let check = |delivery: &_| DeliverTable::shape(delivery).err();
        let Some((delivery, place)) = checked(item, "a delivery is a table", check, problems)
        else {
            continue;
        };
        let name = delivery.name();
        if deliveries.iter().any(|other| other.name() == name) {
            let message = format!("there is another delivery `{name}`: give this one a name");
            problems.push(Problem::new(place("name"), message));
        }
        deliveries.push(delivery);
    }
    deliveries
}

/// Reads and checks one table of a list. Also gives what tells the place of a key in it.
fn checked<'a, 'i, T: DeserializeOwned + Default>(
    item: &'a Spanned<DeValue<'i>>,
    expected: &str,
    flaw: fn(&T) -> Option<Flaw>,
    problems: &mut Vec<Problem>,
) -> Option<(T, impl Fn(&str) -> Range<usize> + use<'a, 'i, T>)> {
    let DeValue::Table(keys) = item.get_ref() else {
        problems.push(Problem::new(item.span(), expected));
        return None;
    };
    let place = |key: &str| table::place(keys, key, None).unwrap_or_else(|| item.span());
    let before = problems.len();
    let read: T = table::read(&Spanned::new(item.span(), keys.clone()), problems);
    if problems.len() > before {
        // What could not be read is not what is missing.
        return None;
    }
    if let Some(flaw) = flaw(&read) {
        problems.push(Problem::new(place(flaw.key), flaw.message));
    }
    Some((read, place))
}

/// Every route, each checked alone, and then whether they lead in circles.
fn routes<'a, 'i: 'a>(
    text: &str,
    list: impl Iterator<Item = &'a Spanned<DeValue<'i>>>,
    github: Option<&[u8]>,
    problems: &mut Vec<Problem>,
) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut places = Vec::new();
    for item in list {
        let DeValue::Table(table) = item.get_ref() else {
            problems.push(Problem::new(item.span(), "a route is a table"));
            continue;
        };
        let said = Said {
            text,
            begin: item.span(),
            table,
        };
        let before = problems.len();
        let table = Spanned::new(item.span(), table.clone());
        let route = Route::from(table::read::<RouteTable>(&table, problems));
        let is_whole = problems.len() == before;
        let has = |part: &Part| match part {
            Part::Name => !route.name.is_empty(),
            Part::From(_) => !route.from.is_empty(),
            Part::To(_) => !route.to.is_empty(),
            _ => true,
        };
        match Rule::new(route.clone(), github) {
            Ok(rule) => {
                if rules.iter().any(|other| other.name() == rule.name()) {
                    let message = format!("there is another route `{}`", rule.name());
                    problems.push(Problem::new(said.place(&Part::Name), message));
                }
                rules.push(rule);
                places.push(said.place(&Part::To(0)));
            }
            // What could not be read is not what is missing.
            Err(faults) => problems.extend(
                faults
                    .iter()
                    .filter(|fault| is_whole || has(&fault.part))
                    .map(|fault| said.problem(fault)),
            ),
        }
    }
    for cycle in Cycle::find(&rules.iter().collect::<Vec<_>>()) {
        let place = cycle.rules.first().and_then(|at| places.get(*at));
        problems.push(Problem::new(place.cloned().unwrap_or_default(), cycle));
    }
    rules
}

/// A route as it stands in the file.
struct Said<'a, 'i> {
    text: &'a str,
    begin: Range<usize>,
    table: &'a DeTable<'i>,
}

impl Said<'_, '_> {
    fn problem(&self, fault: &Fault) -> Problem {
        let place = self.place(&fault.part);
        let precise = fault.range.clone();
        let precise = precise.and_then(|range| inside(self.text, place.clone(), range));
        Problem::new(precise.unwrap_or(place), &fault.message)
    }

    /// Where a part is said, or else where the route begins.
    fn place(&self, part: &Part) -> Range<usize> {
        let place = |key, item| table::place(self.table, key, item);
        let place = match part {
            Part::Name => place("name", None),
            Part::From(at) => place("from", Some(*at)),
            Part::When => place("when", None),
            Part::To(at) => place("to", Some(*at)),
            Part::Body => place("body", None),
            Part::Preset => place("preset", None),
            Part::Header(name) => self.header(name).or_else(|| place("headers", None)),
        };
        place.unwrap_or_else(|| self.begin.clone())
    }

    fn header(&self, name: &str) -> Option<Range<usize>> {
        let DeValue::Table(headers) = self.table.get("headers")?.get_ref() else {
            return None;
        };
        let mut headers = headers.iter();
        let found = headers.find(|(key, _)| key.get_ref().eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.span())
    }
}

/// Bytes of a string in the file, if they are written there as they are meant: an escape is longer
/// than what it stands for.
fn inside(text: &str, place: Range<usize>, range: Range<usize>) -> Option<Range<usize>> {
    let written = text.get(place.clone())?;
    let quotes = ["\"\"\"\n", "\"\"\"", "'''\n", "'''", "\"", "'"];
    let open = quotes.iter().find(|quote| written.starts_with(**quote))?;
    let is_literal = written.starts_with('\'') || !written.contains('\\');
    let begin = place.start + open.len();
    let precise = begin + range.start..begin + range.end;
    (is_literal && precise.end <= place.end).then_some(precise)
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {file}")]
    Read {
        /// Which one.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{0}")]
    Wrong(#[from] Problems),
    /// A route reads what nothing verifies.
    #[error(
        "route `{route}` reads {topics}, where no [[source]] has `provider = \"github\"`: add one, or set HOOKBOT_GITHUB_SECRET to the secret GitHub signs with"
    )]
    NoSecret {
        /// Which one.
        route: String,
        /// What it reads.
        topics: Filter,
    },
    /// A source lacks a secret or a list of addresses.
    #[error("{0}")]
    Source(#[from] SourceTableError),
    /// A delivery lacks a secret, a header or a certificate.
    #[error("{0}")]
    Delivery(#[from] DeliverTableError),
    /// A list of addresses can't be had.
    #[error("[limits]: {0}")]
    Addresses(#[from] NetworksError),
    /// A route is called as a router is that runs anyway.
    #[error("route `{route}` has the name of a router that --router runs")]
    Taken {
        /// Which one.
        route: String,
    },
}

impl ConfigError {
    /// What is wrong, on one line.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Wrong(problems) => problems.brief(),
            Self::Read { source, .. } => format!("{self}: {source}"),
            Self::NoSecret { .. }
            | Self::Source(_)
            | Self::Delivery(_)
            | Self::Addresses(_)
            | Self::Taken { .. } => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        Config::parse("f", text, None).unwrap_err().brief()
    }

    /// One byte less, or one more, at each place but in the secrets themselves.
    #[test]
    fn no_secret_is_shown_whatever_is_wrong_with_a_file() {
        let text = r#"
[tokens]
deny = ["ada", "CANARY1"]
[[source]]
topic = "/unsafe/a"
provider = "meta"
secrets = [
  "CANARY2==",
  "env:A",
]
verify_token = "CANARY3"
[[source]]
topic = "/unsafe/b"
provider = "github"
secrets = "CANARY4"
[[deliver]]
topic = "a"
url = "https://u:CANARY5@example.com"
secrets = "whsec_CANARY6="
headers = { Authorization = "Bearer CANARY7" }
[[deliver]]
topic = "b"
url = "https://example.com"
[deliver.headers]
Authorization = "CANARY8"
"#;
        assert!(Config::parse("f", text, None).is_ok());
        let (mut wrong, mut shown) = (0, 0);
        for at in 0..text.len() {
            let near = text.get(at.saturating_sub(7)..at + 7).unwrap_or_default();
            let is_in_secret = near.contains("CANARY");
            for new in [
                "", "\"", "'", "\n", "=", "[", "]", "{", ",", "#", ".", "7", " x ",
            ] {
                let rest = at + usize::from(new.is_empty());
                if is_in_secret && !matches!(new, "\"" | "\n") {
                    continue;
                }
                let changed = [&text[..at], new, &text[rest..]].concat();
                let Err(problems) = Config::parse("f", &changed, None) else {
                    continue;
                };
                wrong += 1;
                for output in [problems.to_string(), problems.brief()] {
                    shown += usize::from(output.contains("topic = \"/unsafe/"));
                    assert!(!output.contains("CANARY"), "{changed}\n\n{output}");
                }
            }
        }
        assert!(wrong > 1_000 && shown > 50, "{wrong} wrong, {shown} shown");
    }

    #[test]
    fn a_good_file_is_what_it_says() {
        let text = r#"
            [server]
            max_body = "1MiB"
            unsafe_rate = 10
            origins = ["https://example.com"]
            retain = "7d,1GiB"

            [[route]]
            name = "branches"
            from = "/unsafe/github.com/"
            when = 'body.ref.startswith("refs/heads/")'
            to = "github.com/repo/{{ body.repository.full_name }}/branch/{{ body.ref[11:] }}"

            [[route]]
            name = "copy"
            from = ["a", "b/"]
            to = ["c", "d/{{ topic }}"]
            body = "{{ text }}"
            headers = { X-From = "{{ topic }}" }
            unverified = true

            [[route]]
            name = "github"
            preset = "github"
        "#;
        let config = Config::parse("f", text, Some(b"secret")).unwrap();
        assert_eq!(config.server.unsafe_rate.unwrap().get(), 10);
        assert_eq!(config.server.origins, ["https://example.com"]);
        let copy = config.routes[1].route();
        assert_eq!(copy.to, ["c", "d/{{ topic }}"]);
        assert_eq!(
            copy.headers,
            [("x-from".to_owned(), "{{ topic }}".to_owned())]
        );
        assert!(!config.routes[2].lacks_secret());
        let checked = Config::parse("f", text, None).unwrap();
        assert!(checked.routes[2].lacks_secret());
        assert!(Config::parse("f", "", None).unwrap().routes.is_empty());
    }

    #[test]
    fn the_preset_for_github_needs_a_secret_or_a_source_that_verifies() {
        let unverified = |source: &str, from: &str, secret| {
            let route = format!("[[route]]\nname = 'r'\npreset = 'github'\nfrom = {from}\n");
            let config = Config::parse("f", &(route + source), secret).unwrap();
            config
                .unverified(&config.routes[0])
                .map(|topics| topics.to_string())
        };
        let source = |topic: &str, more: &str| {
            format!("[[source]]\ntopic = '{topic}'\nsecrets = 's'\n{more}")
        };
        let github = "provider = 'github'\n";
        let (here, below) = ("'/unsafe/github.com/'", "'/unsafe/github.com/org/a'");
        let both = "['/unsafe/github.com/', 'in/']";
        for (source, from, expected) in [
            (source("/unsafe/github.com/", github), here, None),
            (source("/unsafe/github.com/org/a", github), here, None),
            (source("/unsafe/github.com/", github), below, None),
            (
                source("/unsafe/", &format!("{github}promote = 'in/'")),
                "'in/x'",
                None,
            ),
            (
                source("/unsafe/github.com/", &format!("{github}promote = 'in/'")),
                here,
                Some("/unsafe/github.com/"),
            ),
            (source("/unsafe/github.com/", github), both, Some("in/")),
            (
                source("/unsafe/github.com/", "provider = 'gitea'"),
                here,
                Some("/unsafe/github.com/"),
            ),
            (String::new(), here, Some("/unsafe/github.com/")),
        ] {
            let found = unverified(&source, from, None);
            assert_eq!(found.as_deref(), expected, "{source} {from}");
            assert_eq!(unverified(&source, from, Some(b"s")), None);
        }
    }

    #[test]
    fn each_mistake_is_told_with_its_line_and_column() {
        let route = "[[route]]\nname = 'x'\n";
        for (text, expected) in [
            ("[server]\nmax_bodie = 1", "f:2:1: unknown key `max_bodie`"),
            ("[server]\nmax_body = 'x'", "f:2:12: "),
            ("[server]\nmax_body = true", "f:2:12: expected a text"),
            ("[server]\nunsafe_rate = 0", "f:2:15: "),
            ("[server]\ngrace = '5'", "f:2:9: expected a length of time"),
            ("max_body = '1MiB'", "f:1:1: unknown key `max_body`"),
            ("server = 1", "f:1:10: `server` is a table"),
            ("tokens = 1", "f:1:10: `tokens` is a table"),
            (
                "max_subscribers = 1",
                "f:1:1: unknown key `max_subscribers`",
            ),
            (
                "[limits]\ntoken_rate = '1'",
                "f:2:14: expected a number for",
            ),
            (
                "[limits]\ntrusted_proxy = '1'",
                "f:2:1: unknown key `trusted_proxy`",
            ),
            (
                "[tokens]\ndeny = ['a b']",
                "f:2:8: entry 1: expected a token",
            ),
            ("[source]", "f:1:2: there may be many sources"),
            ("[[source]]", "f:1:1: a source is for a topic"),
            ("[[source]]\ntopic = 'a//b'", "f:2:9: a topic must not"),
            (
                "[[source]]\ntopic = 'a'\nprovider = 'github'",
                "f:3:12: a provider takes",
            ),
            (
                "[[source]]\ntopic = 'a'\nsecret = 's'",
                "f:3:1: unknown key `secret`",
            ),
            (
                "[[source]]\ntopic = 'a'\nreply = { code = 1 }",
                "f:3:11: unknown key `code`",
            ),
            (
                "[[source]]\ntopic = 'a'\nprovider = 'githb'",
                "f:3:12: unknown provider `githb`: did you mean `github`?",
            ),
            (
                "[[source]]\ntopic = 'a'\nprovider = 'generic'\nsecrets = 'env:A'\nsignature = { header = 'X', encoding = 'hexx' }",
                "f:5:40: unknown `hexx`: did you mean `hex`?",
            ),
            (
                "[[source]]\ntopic = 'a'\nprovider = 'generic'\nsecrets = 'env:A'\nsignature = { header = 'X', id_header = 'a b', template = '{id}{body}' }",
                "f:5:41: \"a b\" is not the name of a header",
            ),
            (
                "[[source]]\ntopic = 'a'\nprovider = 'github'\nsecrets = 'env:A'\nverify_token = 'env:B'",
                "f:5:16: only the provider `meta` has a `verify_token`",
            ),
            (
                "[[source]]\ntopic = 'a'\ncontent_types = ['text/*', 'json']",
                "f:3:17: `json` is no type such as",
            ),
            (
                "[limits]\ntrusted_proxies = ['unix', '10.0.0.0/33']",
                "f:2:28: \"10.0.0.0/33\" is neither an address",
            ),
            (
                "[limits]\ndeny_addresses = 'unix'",
                "f:2:18: \"unix\" is neither",
            ),
            (
                "[server]\npublic_url = 'h.example'",
                "f:2:14: expected a URL such as",
            ),
            (
                "[[source]]\ntopic = 'a'\nprovider = 'discord'\nsecrets = ['env:A', 'hush']",
                "f:4:11: literal 2 is not of the form that discord gives out",
            ),
            (
                "[limits]\nmax_subscribers = -1",
                "f:2:19: expected a number, 0 or more",
            ),
            (
                "[server]\nmax_body = '1 gig'",
                "f:2:12: expected a size such as",
            ),
            (
                "[tokens]\ndeny = { a = 'b' }",
                "f:2:8: expected a text or a list of texts",
            ),
            (
                "[[source]]\ntopic = 'a'\n[[source]]\ntopic = 'a'",
                "f:4:9: there is another",
            ),
            (
                "[[deliver]]\ntopic = 'a'\nurll = 'b'",
                "f:3:1: unknown key `urll`",
            ),
            (
                "[[deliver]]\ntopic = 'a'\nurl = 'http://10.0.0.1/'",
                "f:3:7: 10.0.0.1 is private: add it to `allow`",
            ),
            (
                "[[deliver]]\ntopic = 'a'\nurl = 'http://x/'\n[[deliver]]\ntopic = 'a'\nurl = 'http://x/'",
                "f:4:1: there is another delivery `x-",
            ),
            ("[[deliver]]", "f:1:1: a delivery reads a topic"),
            ("[deliver]", "f:1:2: there may be many deliveries"),
            ("deliver = [1]", "f:1:12: a delivery is a table"),
            ("[route]", "f:1:2: there may be many routes"),
            ("route = [1]", "f:1:10: a route is a table"),
            ("[server\na = 1", "f:1:8: "),
            ("a = 1\na = 2", "f:2:1: "),
            ("[[route]]", "f:1:1: a name is"),
            (
                &format!("{route}to = 'b'"),
                "f:1:1: a route reads something",
            ),
            (
                &format!("{route}from = 'b'"),
                "f:1:1: a route publishes somewhere",
            ),
            (
                &format!("{route}from = ['a', '//']\nto = 'b'"),
                "f:3:14: a topic must not",
            ),
            (
                &format!("{route}from = 'a'\nto = ['b', 'c/{{{{ x']"),
                "f:4:",
            ),
            (
                &format!("{route}from = 'a'\nto = 'b'\nwhen = 'body.a ='"),
                "f:5:",
            ),
            (
                &format!("{route}from = 'a'\nto = 'a'"),
                "f:4:6: route `x` publishes what it reads",
            ),
            (
                &format!("{route}from = 'a'\nto = 'b'\n{route}from = 'a'\nto = 'c'"),
                "f:6:8: there is another route `x`",
            ),
            ("[[route]]\npreset = 'gitlab'", "f:2:10: expected `github`"),
        ] {
            let found = problems(text);
            assert!(found.starts_with(expected), "{text}\n{found}");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let text = concat!(
            "[server]\nmax_bodi = 1\ngrace = 'x'\n",
            "[[route]]\nname = 'a b'\nfrm = 'a'\nwhen = 'bdy.x'\nto = '{{ body.x|nope }}'\n",
            "[[route]]\nname = 'x'\nfrom = 'x'\nto = 'y'\n",
            "[[route]]\nname = 'y'\nfrom = 'y'\nto = 'x'",
        );
        let shown = Config::parse("f", text, None).unwrap_err().to_string();
        for expected in [
            "did you mean `max_body`?",
            "expected a length of time",
            "1 to 64 letters",
            "did you mean `from`?",
            "there is no `bdy`",
            "unknown filter",
            "route `x` feeds `y` feeds `x`: a circle",
        ] {
            assert!(shown.contains(expected), "{expected}\n{shown}");
        }
        assert!(!shown.contains("a route reads something"), "{shown}");
    }

    #[test]
    fn a_fault_in_a_template_is_shown_where_it_is() {
        let marked = |to: &str| {
            let text = format!("[[route]]\nname = 'x'\nfrom = 'a'\nto = {to}");
            let shown = Config::parse("f", &text, None).unwrap_err().to_string();
            let line = shown.lines().nth(3).unwrap().to_owned();
            let marks = shown.lines().nth(4).unwrap().to_owned();
            let marked = line.chars().zip(marks.chars());
            let marked = marked.filter(|(_, mark)| *mark == '^');
            marked.map(|(char, _)| char).collect::<String>()
        };
        assert_eq!(marked("'b/{{ body.x|nope }}'"), "nope");
        // With an escape in it, the whole of it.
        let escaped = r#""b\u002F{{ body.x|nope }}""#;
        assert_eq!(marked(escaped), escaped);
    }

    #[test]
    fn no_text_breaks_the_reader() {
        let text = "[server]\nmax_body='1MiB'\n[[route]]\nname='ü'\nfrom=['a']\nto=\"{{ b\"\n";
        for (at, _) in text.char_indices() {
            for with in ["", "[", "'", "\"", "=", "\n", "{{", "ü", "\0"] {
                for rest in ["", &text[at..]] {
                    let cut = format!("{}{with}{rest}", &text[..at]);
                    if let Err(problems) = Config::parse("f", &cut, None) {
                        assert!(!problems.to_string().is_empty());
                    }
                }
            }
        }
    }
}
