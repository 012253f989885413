//! What may be shown of a line that something is wrong with. Others may read what a check prints,
//! and a file may have secrets in it.
//!
//! A value is shown where its key is known, in its table, to hold none, and in routes, since what
//! they have is published. Of every other line at most the key is, if it is a known one or is named
//! anyway: where a quote is missing, what looks like a key may be half of a secret.

use super::table::field_names;
use super::{
    DeliverTable, LimitsTable, ReplyTable, ServerTable, SignatureTable, SourceTable, TokensTable,
};

/// A line, as far as it may be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excerpt<'a> {
    pub(super) shown: &'a str,
    /// Whether something of it is left out.
    pub(super) is_cut: bool,
}

/// The line of `text` that begins at this byte, and of which `message` says what is wrong.
pub(super) fn excerpt<'a>(text: &'a str, begin: usize, message: &str) -> Excerpt<'a> {
    let line = text[begin..].lines().next().unwrap_or_default();
    let table = text[..begin].lines().rev().find_map(header);
    let table = table.unwrap_or_default();
    let fields = fields(table);
    let end = match key(line) {
        _ if header(line).is_some() || table.starts_with("route") => line.len(),
        // Where a line break is missing, another key follows.
        Some(key)
            if fields.contains(&key.trim())
                && !SECRET.contains(&key.trim())
                && !SECRET.iter().any(|name| line[key.len()..].contains(name)) =>
        {
            line.len()
        }
        Some(key)
            if fields.contains(&key.trim()) || message.contains(&format!("`{}`", key.trim())) =>
        {
            key.len() + 1
        }
        _ => 0,
    };
    Excerpt {
        shown: &line[..end],
        is_cut: !line[end..].trim().is_empty(),
    }
}

/// What a line names between brackets, if it is the beginning of a table.
fn header(line: &str) -> Option<&str> {
    let before = line.split('#').next().unwrap_or_default();
    let name = before.trim().strip_prefix('[')?;
    let name = name.trim_start_matches('[').trim_end_matches(']').trim();
    name.chars().all(is_bare).then_some(name)
}

/// A line's key, with the space around it.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let is_one = !key.trim().is_empty() && key.trim().chars().all(is_bare);
    is_one.then_some(key)
}

fn is_bare(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.')
}

/// The keys that a table may have.
fn fields(table: &str) -> &'static [&'static str] {
    match table {
        "server" => field_names::<ServerTable>(),
        "limits" => field_names::<LimitsTable>(),
        "tokens" => field_names::<TokensTable>(),
        "source" => field_names::<SourceTable>(),
        "source.signature" => field_names::<SignatureTable>(),
        "source.reply" => field_names::<ReplyTable>(),
        "deliver" => field_names::<DeliverTable>(),
        _ => &[],
    }
}

/// The keys whose values may be secrets, or have one in them.
const SECRET: [&str; 5] = ["deny", "headers", "secrets", "url", "verify_token"];

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use serde::de::DeserializeOwned;

    #[test]
    fn a_value_is_shown_where_it_can_be_no_secret() {
        for (text, shown) in [
            ("[[source]]\ntopic = 'a//b'", "topic = 'a//b'"),
            ("[[source]]\n\n secrets = 'hush'", " secrets ="),
            ("[[source]]\nverify_token = 7", "verify_token ="),
            ("[[source]]\nsecrets = [\n  'hush',", ""),
            ("[[source]]\nsecrets = [\n  hush,", ""),
            ("[[source]]\nsecrets = '\nhush=='", ""),
            ("[[source]]\nsecrets 'hush'", ""),
            ("[[source]]\nsecrets: hush", ""),
            ("[[source]]\n'secrets' = 'hush'", ""),
            ("[[source]]\nsource.secrets = 'hush'", ""),
            ("[[source]]\n[source.signature]\nheader = 1", "header = 1"),
            ("[[source]]\nprovider = 'x'secrets = 'hush'", "provider ="),
            ("[[source", "[[source"),
            ("[['hush']", ""),
            ("[[source]] # those\ntopic = 1", "topic = 1"),
            ("[tokens]\ndeny = ['hush']", "deny ="),
            ("[[deliver]]\nkey = 'a ='", "key = 'a ='"),
            ("[[deliver]]\nurl = 'https://u:hush@h'", "url ="),
            ("[[deliver]]\n[deliver.headers]\nA = 'hush'", ""),
            ("source = [{ secrets = 'hush' }]", ""),
            ("secrets = 'hush'", ""),
            ("[[route]]\nwhen = '''\nbody.x ==", "body.x =="),
        ] {
            let begin = text.rfind('\n').map_or(0, |at| at + 1);
            let excerpt = excerpt(text, begin, "wrong");
            assert_eq!(excerpt.shown, shown, "{text}");
            assert_eq!(excerpt.is_cut, shown.len() < text.len() - begin, "{text}");
        }
        let text = "[server]\nkey = 'hush'";
        assert_eq!(excerpt(text, 9, "unknown key `key`").shown, "key =");
        assert_eq!(excerpt(text, 9, "no key").shown, "");
    }

    /// A field whose name or description speaks of secrets is one of those that are kept back.
    #[test]
    fn every_key_that_may_have_a_secret_is_known() {
        fn check<T: JsonSchema + DeserializeOwned>() {
            let schema = schemars::schema_for!(T).to_value();
            for name in field_names::<T>() {
                let text = &schema["properties"][*name]["description"];
                let text = text.as_str().unwrap().to_lowercase();
                let speaks = ["a secret", "secrets", "file:path", "password before"];
                let is_one = speaks.iter().any(|word| text.contains(word));
                let is_known = SECRET.contains(name) || NONE.contains(name);
                assert!(!is_one || is_known, "{name}: {text}");
            }
        }
        /// Addresses may be in a file, too; and one speaks of what is signed with a secret.
        const NONE: [&str; 4] = ["addresses", "allow_addresses", "sign", "trusted_proxies"];
        check::<ServerTable>();
        check::<LimitsTable>();
        check::<TokensTable>();
        check::<SourceTable>();
        check::<SignatureTable>();
        check::<ReplyTable>();
        check::<DeliverTable>();
    }
}
