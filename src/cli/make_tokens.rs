//! `hookbot make-tokens`: a token, or a URL with it, for each path.

use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;
use hookbot_protocol::{Key, Name, Scope};

use super::Failure;
use crate::config::{KeyArgs, Span};

/// Prints a URL with its token for each path, one a line.
///
/// A path that ends in a slash gets a token for everything below it. Only the path counts: the
/// same token is good on every host and with every query.
#[derive(Debug, Args)]
pub(super) struct MakeTokensArgs {
    /// Paths such as /pub/deploys or /sub/deploys/, or whole URLs, whose host and query are kept.
    #[arg(required = true, value_name = "URI")]
    uris: Vec<String>,

    /// Print the tokens alone.
    #[arg(long)]
    bare: bool,

    /// What a path is put behind.
    #[arg(short = 'U', long, env = "HOOKBOT_URL_BASE", value_name = "URL")]
    #[arg(default_value = "http://localhost:8080")]
    url_base: String,

    /// How long the tokens are good for, for example 30d; without it they are good for ever.
    #[arg(long, value_name = "TIME", conflicts_with = "sha1")]
    expires: Option<Span>,

    /// What the tokens are called in the server's log and counters, and in a list of revoked
    /// ones: letters, digits, - and _. Everybody who has a token can read its name.
    #[arg(long, value_name = "NAME", conflicts_with = "sha1")]
    name: Option<Name>,

    /// Make the tokens of the Go program, for servers that run with --accept-sha1.
    #[arg(long)]
    sha1: bool,
}

pub(super) fn run(keys: &KeyArgs, args: &MakeTokensArgs) -> Result<(), Failure> {
    let key = keys.key()?;
    let base = Uri::parse(&args.url_base);
    if base.scheme.is_empty() || base.authority.is_empty() {
        let error = anyhow!(
            "--url-base {:?} is not a URL such as https://example.com",
            args.url_base
        );
        return Err(Failure::Usage(error));
    }
    for text in &args.uris {
        let uri = Uri::parse(text);
        let scope =
            Scope::parse(uri.path).with_context(|| format!("cannot make a token for {text:?}"));
        let scope = scope.map_err(Failure::Usage)?;
        let token = mint(&key, &scope, args);
        let line = if args.bare {
            token
        } else {
            uri.with_token(&base, &scope, &token)
        };
        super::output::line(&line)?;
    }
    Ok(())
}

fn mint(key: &Key, scope: &Scope, args: &MakeTokensArgs) -> String {
    let at = args.expires.map(|Span(span)| expiry(span));
    let token = match (&args.name, at) {
        _ if args.sha1 => key.mint_sha1(scope),
        (Some(name), at) => key.mint_named(scope, name, at),
        (None, None) => key.mint(scope),
        (None, Some(at)) => key.mint_expiring(scope, at),
    };
    token.expose()
}

/// The first whole second after `span` from now, counted since 1970.
fn expiry(span: Duration) -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let end = now.saturating_add(span);
    end.as_secs() + u64::from(end.subsec_nanos() > 0)
}

/// The parts of a URL, or of a path, as they were typed.
struct Uri<'a> {
    scheme: &'a str,
    /// Host and port.
    authority: &'a str,
    path: &'a str,
    /// The query and the fragment, with what is before them.
    rest: &'a str,
}

impl<'a> Uri<'a> {
    fn parse(text: &'a str) -> Self {
        let (scheme, authority, rest) = match text.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                (scheme, &rest[..end], &rest[end..])
            }
            _ => ("", "", text),
        };
        // A token in a URL that is given is replaced.
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let (path, rest) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        Self {
            scheme,
            authority,
            path,
            rest,
        }
    }

    /// The URL to use, with the token as its user.
    fn with_token(&self, base: &Self, scope: &Scope, token: &str) -> String {
        let or_base = |own: &'a str, base: &'a str| if own.is_empty() { base } else { own };
        let secure = matches!(or_base(self.scheme, base.scheme), "https" | "wss");
        let path = scope.as_str();
        let own = path.strip_prefix("/unsafe").unwrap_or(path);
        let subscribes = own.starts_with("/sub") || own.starts_with("/answer");
        let scheme = match (subscribes, secure) {
            (true, true) => "wss",
            (true, false) => "ws",
            (false, true) => "https",
            (false, false) => "http",
        };
        let authority = or_base(self.authority, base.authority);
        format!(
            "{scheme}://{token}@{authority}{}{}",
            scope.encoded(),
            self.rest
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_printed_as_the_go_program_prints_them() {
        for (base, uri, printed) in [
            (
                "http://localhost:8080",
                "/pub/a",
                "http://T@localhost:8080/pub/a",
            ),
            (
                "http://localhost:8080",
                "/sub/a",
                "ws://T@localhost:8080/sub/a",
            ),
            ("https://h", "/sub/a/", "wss://T@h/sub/a/"),
            ("https://h", "/unsafe/sub/a", "wss://T@h/unsafe/sub/a"),
            ("https://h", "/unsafe/pub/a", "https://T@h/unsafe/pub/a"),
            ("https://h", "/a/b", "https://T@h/a/b"),
            ("wss://h", "/pub/a", "https://T@h/pub/a"),
            ("http://h", "/sub/a/?recursive", "ws://T@h/sub/a/?recursive"),
            (
                "http://h",
                "https://other:1/sub/a?x=1#y",
                "wss://T@other:1/sub/a?x=1#y",
            ),
            (
                "http://h",
                "https://old@other/pub/a",
                "https://T@other/pub/a",
            ),
            ("http://h/base", "/pub/a b", "http://T@h/pub/a%20b"),
            ("http://h", "/pub/ü(1)+2", "http://T@h/pub/%C3%BC%281%29+2"),
        ] {
            let uri = Uri::parse(uri);
            let scope = Scope::parse(uri.path).unwrap();
            assert_eq!(uri.with_token(&Uri::parse(base), &scope, "T"), printed);
        }
    }
}
