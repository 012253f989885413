//! A token opens only what its key minted it for.
//!
//! The input is a raw path, a line break, and the text of a token.

#![no_main]

use std::sync::LazyLock;

use hookbot_protocol::{Key, Keys, Path, Scope, Token};
use libfuzzer_sys::fuzz_target;

/// The seeds hold tokens of this key.
static KEY: LazyLock<Key> = LazyLock::new(|| Key::new(b"fuzz").expect("not empty"));

fuzz_target!(|input: &str| {
    let (path, text) = input.split_once('\n').unwrap_or(("/pub/a", input));
    let Ok(token) = text.parse::<Token>() else {
        return;
    };
    assert_eq!(token.expose(), text);

    let Ok(path) = Path::parse(path) else {
        return;
    };
    let keys = Keys::new(KEY.clone()).accepting_sha1(true);
    let Some(grant) = keys.grants(&path, &token, NOW) else {
        return;
    };
    assert!(grant.expires.is_none_or(|at| NOW < at));
    let is_minted = path.granting().any(|scope| {
        let scope = Scope::parse(&scope.replace('%', "%25").replace('?', "%3F"));
        let scope = scope.expect("what grants is a scope");
        token
            == match grant.expires {
                at if token.name().is_some() => {
                    let name = token.name().expect("it has one");
                    KEY.mint_named(&scope, name, at)
                }
                Some(at) => KEY.mint_expiring(&scope, at),
                None if text.len() == 40 => KEY.mint_sha1(&scope),
                None => KEY.mint(&scope),
            }
    });
    assert!(is_minted, "{path:?} by {text}");

    let strict = Keys::new(KEY.clone());
    assert_eq!(
        strict.grants(&path, &token, NOW).is_some(),
        text.len() != 40
    );
});

const NOW: u64 = 1_000;
