//! The tokens a request presents, and what the server keeps of a request once they are known.
//!
//! A token may come in four places. What verified as ours is never stored or shown; what did
//! not is the sender's own business and passes.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot_protocol::{DenyList, Grant, HOP_BY_HOP, Headers, Keys, Name, Path, Token};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::verified::Verified;

/// What the request may do, and which of its credentials are tokens of ours.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// What the best of its tokens allows; `None` without a good one.
    pub(super) grant: Option<Grant>,
    /// That token.
    pub(super) token: Option<Token>,
    /// Every good token came by Basic, so a browser may have sent it by itself.
    pub(super) only_basic: bool,
    /// The good tokens, in every spelling in which the request may repeat them.
    spellings: Vec<String>,
    in_authorization: bool,
}

/// A header for tokens, where a proxy eats `Authorization`.
const HOOKBOT_TOKEN: HeaderName = HeaderName::from_static("hookbot-token");

/// The query's name for a token.
const TOKEN: &str = "token";

/// How many of a query's tokens are tried: each costs time, and nobody needs more.
const MAX_TRIED: usize = 4;

/// What tokens are tried against.
#[derive(Clone, Copy)]
pub(super) struct Trial<'a> {
    pub(super) path: &'a Path,
    pub(super) keys: &'a Keys,
    /// Tokens that these keys were asked about before.
    pub(super) verified: &'a Verified,
    /// Lists of tokens that are good no longer.
    pub(super) denied: [&'a DenyList; 2],
    /// In seconds since 1970.
    pub(super) now: u64,
}

impl Trial<'_> {
    /// The token, if it is good for the path.
    fn passed(&self, text: &str) -> Option<(Token, Grant)> {
        let path = self.path.as_str();
        let is_in_time = |grant: &Grant| grant.expires.is_none_or(|at| self.now < at);
        let known = self.verified.find(path, text);
        let (token, grant) = match known.filter(|(_, grant)| is_in_time(grant)) {
            Some(known) => known,
            None => {
                let token: Token = text.parse().ok()?;
                let grant = self.keys.grants(self.path, &token, self.now)?;
                self.verified.keep(path, text, &token, grant);
                (token, grant)
            }
        };
        let is_denied = self.denied.iter().any(|list| list.denies(&token));
        (!is_denied).then_some((token, grant))
    }
}

impl Access {
    /// Tries the credentials of a request.
    pub(super) fn new(request: &Parts, trial: Trial) -> Self {
        let mut access = Self {
            only_basic: true,
            ..Self::default()
        };
        let text = |name| {
            request
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        if let Some((basic, sent, token)) = text(AUTHORIZATION).and_then(from_authorization)
            && access.try_token(&token, sent, trial)
        {
            access.in_authorization = true;
            access.only_basic &= basic;
        }
        if let Some(token) = text(HOOKBOT_TOKEN)
            && access.try_token(token, token, trial)
        {
            access.only_basic = false;
        }
        let in_query = query_pairs(request.uri.query()).filter_map(token_in);
        for (sent, token) in in_query.take(MAX_TRIED) {
            if access.try_token(&token, sent, trial) {
                access.only_basic = false;
            }
        }
        access
    }

    /// Tries a token, which was sent in this spelling.
    fn try_token(&mut self, token: &str, sent: &str, trial: Trial) -> bool {
        let Some((passed, grant)) = trial.passed(token) else {
            return false;
        };
        let basic = STANDARD.encode(format!("{token}:"));
        self.spellings
            .extend([token.to_owned(), sent.to_owned(), basic]);
        // No end is the latest end.
        let end = |grant: Grant| grant.expires.unwrap_or(u64::MAX);
        if self.grant.is_none_or(|other| end(other) < end(grant)) {
            self.grant = Some(grant);
            self.token = Some(passed);
        }
        true
    }

    /// What the token is called, if it has a name.
    pub(super) fn token_name(&self) -> Option<Name> {
        self.token.as_ref()?.name().cloned()
    }

    /// The query as it was sent, without our token.
    pub(super) fn kept_query(&self, query: Option<&str>) -> String {
        let ours =
            |pair: &&str| token_in(pair).is_some_and(|(_, token)| self.spellings.contains(&token));
        let kept: Vec<_> = query_pairs(query).filter(|pair| !ours(pair)).collect();
        let masked = self.masked(kept.join("&").as_bytes()).into_owned();
        String::from_utf8_lossy(&masked).into_owned()
    }

    /// The headers that are kept with a message: those for the receiver, as they were sent.
    pub(super) fn kept_headers(&self, request: &Parts) -> Headers {
        let mut kept = Headers::default();
        let nominated = nominated(request);
        for (name, value) in &request.headers {
            let ours = name == AUTHORIZATION && self.in_authorization;
            let text = name.as_str();
            let is_dropped = HOP_BY_HOP.contains(&text) || NOT_KEPT.contains(&text);
            if ours || is_dropped || nominated.iter().any(|other| other == text) {
                continue;
            }
            kept.push(text, &self.masked(value.as_bytes()));
        }
        kept
    }

    /// The headers that a call is passed on with: all that the caller sent but our token.
    pub(super) fn passed_headers(&self, request: &Parts) -> HeaderMap {
        let mut passed = HeaderMap::with_capacity(request.headers.len() + 8);
        for (name, value) in &request.headers {
            let ours = name == HOOKBOT_TOKEN || (name == AUTHORIZATION && self.in_authorization);
            if ours {
                continue;
            }
            let value = match self.masked(value.as_bytes()) {
                Cow::Borrowed(_) => value.clone(),
                // What a header could hold before, it can hold with stars in it.
                Cow::Owned(masked) => {
                    HeaderValue::try_from(masked).unwrap_or_else(|_| value.clone())
                }
            };
            passed.append(name, value);
        }
        passed
    }

    /// Puts `***` for a token of ours, as `Referer` and a proxy's headers may repeat the URL.
    fn masked<'a>(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        self.spellings
            .iter()
            .fold(value.into(), |value: Cow<'_, [u8]>, spelling| {
                let spelling = spelling.as_bytes();
                let Some(at) = find(&value, spelling) else {
                    return value;
                };
                let (mut masked, mut rest) = (Vec::new(), &value[..]);
                let mut next = Some(at);
                while let Some(at) = next {
                    masked.extend_from_slice(&rest[..at]);
                    masked.extend_from_slice(b"***");
                    rest = &rest[at + spelling.len()..];
                    next = find(rest, spelling);
                }
                masked.extend_from_slice(rest);
                masked.into()
            })
    }
}

/// Where `wanted`, which is not empty, begins in `value`.
fn find(value: &[u8], wanted: &[u8]) -> Option<usize> {
    value
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// The token behind `Basic` or `Bearer`, as it was sent and decoded; whether it was the former.
fn from_authorization(value: &str) -> Option<(bool, &str, String)> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((false, rest, rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let user = decoded.split_once(':').map_or(&*decoded, |(user, _)| user);
    Some((true, rest, user.to_owned()))
}

/// Whether what `Authorization` says has the form of a token of ours, whatever it is good for.
pub(super) fn is_like_ours(authorization: &[u8]) -> bool {
    let text = str::from_utf8(authorization).ok();
    let token = text.and_then(from_authorization);
    token.is_some_and(|(_, _, token)| token.parse::<Token>().is_ok())
}

/// The `name=value` pairs of a query, as they were sent.
fn query_pairs(query: Option<&str>) -> impl Iterator<Item = &str> {
    query.into_iter().flat_map(|query| query.split('&'))
}

/// The value of a pair called `token`, as it was sent and decoded.
fn token_in(pair: &str) -> Option<(&str, String)> {
    let (name, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
    let sent = pair.split_once('=').map_or("", |(_, sent)| sent);
    (name == TOKEN && !sent.is_empty()).then(|| (sent, value.into_owned()))
}

/// The headers that `Connection` declares to be for this hop only (RFC 9110, section 7.6.1).
fn nominated(request: &Parts) -> Vec<String> {
    let values = request.headers.get_all(http::header::CONNECTION).iter();
    let names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    names.map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// What is not kept either: credentials that are meant for us or for a proxy, and what says how
/// the body was framed.
const NOT_KEPT: [&str; 3] = [
    "cookie",
    // Whoever sends it means us, also where the token is for something else.
    "hookbot-token",
    "trailer",
];

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::{Key, Scope};
    use http::Request;

    fn keys() -> Keys {
        Keys::new(Key::new(b"secret").unwrap())
    }

    fn token(scope: &str) -> String {
        keys()
            .current()
            .mint(&Scope::parse(scope).unwrap())
            .expose()
    }

    fn access(request: http::request::Builder) -> (Access, Parts) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let path = Path::parse(parts.uri.path()).unwrap();
        let nothing = DenyList::default();
        let trial = Trial {
            path: &path,
            keys: &keys(),
            verified: &Verified::new(),
            denied: [&nothing; 2],
            now: 0,
        };
        (Access::new(&parts, trial), parts)
    }

    fn basic(user: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:")))
    }

    #[test]
    fn a_token_is_found_in_each_of_its_places() {
        let good = token("/pub/a");
        let at = |name, value: String| Request::post("/pub/a").header(name, value);
        for (request, only_basic) in [
            (at("authorization", basic(&good)), true),
            (at("authorization", format!("Bearer {good}")), false),
            (at("AUTHORIZATION", format!("bearer  {good} ")), false),
            (at("hookbot-token", good.clone()), false),
            (Request::post(format!("/pub/a?x=1&token={good}")), false),
            (Request::post(format!("/pub/a?%74oken={good}")), false),
        ] {
            let (access, _) = access(request);
            let grant = access.grant.unwrap();
            assert_eq!(grant.expires, None);
            assert_eq!(access.only_basic, only_basic);
        }
        for value in ["", "Basic", "Basic !", "Digest x", "Bearer x"] {
            let (access, _) = access(at("authorization", value.to_owned()));
            assert_eq!(access.grant, None, "{value:?}");
        }
    }

    #[test]
    fn only_what_is_ours_is_taken_out() {
        let good = token("/pub/");
        let uri = format!("/pub/a?a=1&token=theirs&token={good}&b=%20");
        let request = Request::post(&uri)
            .header("authorization", "Bearer theirs")
            .header("hookbot-token", &good)
            .header("x-a", "1")
            .header("referer", format!("https://example.com{uri}"))
            .header("x-a", "2")
            .header("connection", "keep-alive, X-Hop")
            .header("x-hop", "1")
            .header("cookie", "c=1")
            .header("te", "trailers");
        let (access, parts) = access(request);
        assert_eq!(
            access.kept_query(parts.uri.query()),
            "a=1&token=theirs&b=%20"
        );
        let kept = access.kept_headers(&parts);
        let kept: Vec<_> = kept
            .iter()
            .map(|(name, value)| (name, str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(
            kept,
            [
                ("authorization", "Bearer theirs"),
                ("x-a", "1"),
                ("x-a", "2"),
                (
                    "referer",
                    "https://example.com/pub/a?a=1&token=theirs&token=***&b=%20"
                ),
            ]
        );
    }

    #[test]
    fn our_token_is_masked_however_the_request_repeats_it() {
        let good = token("/pub/");
        let encoded = good.replacen(&good[..1], &format!("%{:02x}", good.as_bytes()[0]), 1);
        let uri = format!("/pub/a?token={encoded}&cb={good}&next=https://h/?token={encoded}");
        let referer = [b"https://h/?token=", good.as_bytes(), b"&c=\xe9"].concat();
        let request = Request::post(&uri)
            .header("x-original-uri", &uri)
            .header("x-forwarded-authorization", basic(&good))
            .header("referer", HeaderValue::from_bytes(&referer).unwrap())
            .header("hookbot-token", token("/sub/elsewhere"));
        let (access, parts) = access(request);
        assert_eq!(
            access.kept_query(parts.uri.query()),
            "cb=***&next=https://h/?token=***"
        );
        let kept = access.kept_headers(&parts);
        let kept: Vec<_> = kept.iter().collect();
        assert_eq!(
            kept,
            [
                (
                    "x-original-uri",
                    &b"/pub/a?token=***&cb=***&next=https://h/?token=***"[..]
                ),
                ("x-forwarded-authorization", b"Basic ***"),
                ("referer", b"https://h/?token=***&c=\xe9"),
            ]
        );
    }

    #[test]
    fn of_two_tokens_the_one_that_lasts_longer_counts() {
        let keys = keys();
        let scope = Scope::parse("/sub/a").unwrap();
        let until = |at| keys.current().mint_expiring(&scope, at).expose();
        let request = Request::get(format!("/sub/a?token={}&token={}", until(20), until(10)));
        let expires = |request| access(request).0.grant.unwrap().expires;
        assert_eq!(expires(request), Some(20));
        let request = Request::get(format!("/sub/a?token={}", until(20)))
            .header("hookbot-token", token("/sub/a"));
        assert_eq!(expires(request), None);
    }
}
