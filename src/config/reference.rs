//! The tables of `docs/configuration.md`, made from the types that are read.
//!
//! `HOOKBOT_UPDATE=1 cargo test --lib config::reference` writes them anew.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::{Args, Command};
use hookbot_routers::NAMES;
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::file::{Config, TABLES};
use super::route_table::RouteTable;
use super::server_table::ServerTable;
use super::table::field_names;
use super::{DeliverTable, LimitsTable, SignatureTable, SourceTable, TokensTable};

/// A type's fields with their descriptions, in their order.
fn fields<T: JsonSchema + DeserializeOwned>() -> Vec<(&'static str, Value)> {
    let schema = schema_for!(T).to_value();
    let property = |name: &&'static str| (*name, schema["properties"][*name].clone());
    field_names::<T>().iter().map(property).collect()
}

/// A field's description, on one line of a table.
fn description(schema: &Value) -> String {
    let text = schema["description"].as_str();
    let text = text.expect("a field without a doc comment");
    text.replace('\n', " ").replace('|', "\\|")
}

/// What a field's value is.
fn kind(schema: &Value) -> &'static str {
    let is = |kind: &str| {
        let own = &schema["type"];
        own == kind || own.as_array().is_some_and(|own| own.contains(&kind.into()))
    };
    match () {
        () if is("boolean") => "true or false",
        () if is("integer") => "a number",
        () if is("array") => "a list",
        () if is("object") => "a table",
        () if is("string") => "a text",
        () => "a text or a list",
    }
}

/// A table whose keys are flags as well, most of them.
fn with_flags<T: Args + JsonSchema + DeserializeOwned>() -> String {
    let command = T::augment_args(Command::new("serve"));
    let mut table = "| key | value | flag | |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, schema) in fields::<T>() {
        let description = description(&schema);
        let mut flags = command.get_arguments();
        let Some(flag) = flags.find(|flag| flag.get_id() == name) else {
            let kind = kind(&schema);
            let _ = writeln!(table, "| `{name}` | {kind} | | {description} |");
            continue;
        };
        let values = flag.get_value_names().unwrap_or_default();
        let kind = match values.first().map(|value| value.as_str()) {
            Some("TIME") => "a time, `\"10s\"`",
            Some("SIZE") => "a size, `\"10MiB\"`",
            Some("RATE") => "a rate, `\"100/s\"`",
            _ => kind(&schema),
        };
        let long = flag.get_long().expect("a long one");
        let env = flag.get_env().map(|env| env.to_string_lossy());
        let env = env.map_or_else(String::new, |env| format!(", `{env}`"));
        let _ = writeln!(
            table,
            "| `{name}` | {kind} | `--{long}`{env} | {description} |"
        );
    }
    table
}

/// A table whose keys are nowhere else.
fn without_flags<T: JsonSchema + DeserializeOwned>() -> String {
    let mut table = "| key | value | |\n| --- | --- | --- |\n".to_owned();
    for (name, schema) in fields::<T>() {
        let kind = match name {
            "preset" => "`\"github\"`",
            "from" if fields::<T>().iter().any(|(name, _)| *name == "url") => {
                "`\"now\"` or `\"start\"`"
            }
            "path_mode" => "`\"drop\"` or `\"keep\"`",
            "on_fail" => "`\"reject\"` or `\"quarantine\"`",
            "fallback" => "`\"fail\"` or `\"publish\"`",
            "signature" | "reply" => "a table",
            _ => kind(&schema),
        };
        let _ = writeln!(table, "| `{name}` | {kind} | {} |", description(&schema));
    }
    table
}

fn names() -> String {
    let mut table = "| name | |\n| --- | --- |\n".to_owned();
    for (name, what) in NAMES {
        let _ = writeln!(table, "| `{name}` | {what} |");
    }
    table
}

/// The page, with its tables made anew.
fn renewed(page: &str) -> String {
    let mut renewed = page.to_owned();
    for (mark, table) in [
        ("server", with_flags::<ServerTable>()),
        ("limits", with_flags::<LimitsTable>()),
        ("tokens", with_flags::<TokensTable>()),
        ("source", without_flags::<SourceTable>()),
        ("signature", without_flags::<SignatureTable>()),
        ("route", without_flags::<RouteTable>()),
        ("deliver", without_flags::<DeliverTable>()),
        ("names", names()),
    ] {
        let begin = format!("<!-- {mark} -->\n");
        let (before, rest) = renewed.split_once(&begin).expect("a mark");
        let (_, after) = rest.split_once("<!-- end -->").expect("its end");
        renewed = format!("{before}{begin}\n{table}\n<!-- end -->{after}");
    }
    renewed
}

fn file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")
}

#[test]
fn the_reference_says_what_is_read() {
    let page = fs::read_to_string(file()).unwrap();
    let renewed = renewed(&page);
    if std::env::var_os("HOOKBOT_UPDATE").is_some() {
        fs::write(file(), renewed).unwrap();
        return;
    }
    assert!(
        page == renewed,
        "docs/configuration.md is behind: HOOKBOT_UPDATE=1 cargo test --lib config::reference"
    );
    for table in TABLES {
        let is_there = ["[", "[["]
            .iter()
            .any(|open| page.contains(&format!("`{open}{table}]")));
        assert!(is_there, "{table}");
    }
}

#[test]
fn the_examples_of_the_reference_are_good() {
    let page = fs::read_to_string(file()).unwrap();
    let examples: Vec<_> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() > 2);
    for example in examples {
        if let Err(problems) = Config::parse("example", example, None) {
            panic!("{problems}");
        }
    }
}

/// What the page says of the defaults is what they are.
#[test]
fn every_default_that_is_told_is_the_servers() {
    use crate::server::Settings;
    use hookbot_protocol::{Key, Keys};
    let defaults = Settings::new(Keys::new(Key::new(b"k").unwrap()));
    let size = |bytes: usize| format!("{}MiB", bytes >> 20);
    let time = |time: std::time::Duration| format!("{}s", time.as_secs());
    let fields = fields::<ServerTable>();
    for (name, default) in [
        ("max_body", size(defaults.max_body)),
        ("max_in_flight", size(defaults.max_in_flight)),
        ("unsafe_rate", defaults.unsafe_rate.to_string()),
        ("grace", time(defaults.grace)),
        ("body_timeout", time(defaults.body_timeout)),
        ("ping_interval", time(defaults.ping_interval)),
        ("write_timeout", time(defaults.write_timeout)),
    ] {
        let (_, schema) = fields.iter().find(|(own, _)| *own == name).unwrap();
        let told = description(schema);
        let told_default = format!("{default} by default");
        assert!(
            told.contains(&told_default),
            "{name}: {told}, not {told_default}"
        );
    }
}
