//! A shell script that sends one saved message again, with curl or with `HTTPie`.
//!
//! Everything that a sender chose is hostile: it is quoted for the shell, and what no request may
//! hold is left out. The body never gets into the script: it is the file beside it, by the same
//! name.

use hookbot_protocol::HOP_BY_HOP;
use http::header::{HeaderName, HeaderValue};
use http::{Method, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::message::Message;

/// What sends the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tool {
    /// curl, which sends every header and body as it is.
    #[default]
    Curl,
    /// `HTTPie`, which people read more easily. It does not know headers that are not UTF-8, which
    /// are left out.
    Httpie,
}

/// What a script is made with, besides the message.
#[derive(Debug, Clone)]
pub struct ScriptOptions {
    /// Where it sends to when nobody says otherwise; with `None`, to `local`.
    pub target: Option<String>,
    /// What its `-l` means where the environment does not say.
    pub local: String,
    /// What sends.
    pub tool: Tool,
}

impl Default for ScriptOptions {
    fn default() -> Self {
        Self {
            target: None,
            local: "http://localhost:8080".to_owned(),
            tool: Tool::default(),
        }
    }
}

impl ScriptOptions {
    /// The script for a message whose body is in the file that is called as the script is, with
    /// `.body` for `.sh`.
    #[must_use]
    pub fn script(&self, message: &Message) -> Vec<u8> {
        let mut script = Vec::new();
        let target = self.target.as_ref().unwrap_or(&self.local);
        for (name, value) in [("target", target), ("local", &self.local)] {
            let value = quoted(value.as_bytes());
            script.extend([name.as_bytes(), b"=", &value, b"\n"].concat());
        }
        let mut script = [START.as_bytes(), &script, OPTIONS.as_bytes()].concat();
        let query = utf8_percent_encode(&message.event.query, NOT_IN_A_QUERY).to_string();
        if !query.is_empty() {
            let query = quoted(query.as_bytes());
            script.extend([b"query=", &*query, b"\n", QUERY.as_bytes()].concat());
        }
        let method = Method::from_bytes(message.event.method.as_bytes()).unwrap_or(Method::POST);
        script.extend(match self.tool {
            Tool::Curl => curl(&method, message),
            Tool::Httpie => httpie(&method, message),
        });
        script
    }
}

fn curl(method: &Method, message: &Message) -> Vec<u8> {
    let headers = sendable(message);
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut header = |text: Vec<u8>| words.push([b"--header ", &*quoted(&text)].concat());
    for (name, value) in &headers {
        // Without a value, a colon would take the header out.
        header(match value.as_bytes() {
            b"" => format!("{name};").into_bytes(),
            value => [name.as_str().as_bytes(), b": ", value].concat(),
        });
    }
    for own in [
        header::ACCEPT,
        header::CONTENT_TYPE,
        header::EXPECT,
        header::USER_AGENT,
    ] {
        if headers.iter().all(|(name, _)| *name != own) {
            header(format!("{own}:").into_bytes());
        }
    }
    words.push(match *method {
        // Another way of asking for it has curl wait for a body that never comes.
        Method::HEAD => b"--head".to_vec(),
        _ => [b"--request ", &*quoted(method.as_str().as_bytes())].concat(),
    });
    if has_body(method, message) {
        words.push(b"--data-binary \"@$body\"".to_vec());
    }
    let command: &[u8] = b"exec curl --silent --show-error --include \"$fail\" $verbose \\\n    \
        --globoff --path-as-is";
    words.insert(0, command.to_vec());
    words.push(b"--url \"$url\"\n".to_vec());
    [CURL_FAIL.as_bytes(), &words.join(&b" \\\n    "[..])].concat()
}

fn httpie(method: &Method, message: &Message) -> Vec<u8> {
    let headers = sendable(message);
    let mut words = vec![
        b"exec http --check-status $verbose".to_vec(),
        quoted(method.as_str().as_bytes()),
        b"\"$url\"".to_vec(),
    ];
    for (name, value) in &headers {
        // The space keeps an @ or a = from meaning a file or JSON.
        words.push(match str::from_utf8(value.as_bytes()) {
            Ok("") => quoted(format!("{name};").as_bytes()),
            Ok(value) => quoted(format!("{name}: {value}").as_bytes()),
            // It would send nothing at all.
            Err(_) => continue,
        });
    }
    for own in [header::ACCEPT, header::ACCEPT_ENCODING, header::USER_AGENT] {
        if headers.iter().all(|(name, _)| *name != own) {
            words.push(quoted(format!("{own}:").as_bytes()));
        }
    }
    let input: &[u8] = if has_body(method, message) {
        b"<\"$body\"\n"
    } else {
        b"--ignore-stdin\n"
    };
    words.push(input.to_vec());
    words.join(&b" \\\n    "[..])
}

/// Whether there is something to send, or at least a method that is expected to.
fn has_body(method: &Method, message: &Message) -> bool {
    match *method {
        Method::HEAD => false,
        Method::GET | Method::DELETE | Method::OPTIONS => !message.payload.is_empty(),
        _ => true,
    }
}

/// The headers that a request can have and that are not the connection's, in order.
fn sendable(message: &Message) -> Vec<(HeaderName, HeaderValue)> {
    let headers = message.event.headers.iter();
    let parsed = headers.filter_map(|(name, value)| {
        let name: HeaderName = name.parse().ok()?;
        Some((name, HeaderValue::from_bytes(&value.bytes()?).ok()?))
    });
    parsed
        .filter(|(name, _)| {
            let name = name.as_str();
            !HOP_BY_HOP.contains(&name) && !NOT_SENT.contains(&name)
        })
        .collect()
}

/// One word of the shell.
fn quoted(text: &[u8]) -> Vec<u8> {
    // Neither a URL that was typed nor a header that parsed has a NUL in it.
    let quoter = shlex::bytes::Quoter::new().allow_nul(true);
    quoter.quote(text).unwrap_or_default().into_owned()
}

/// What is made anew for each connection, besides what is always about one.
const NOT_SENT: [&str; 5] = [
    "accept-encoding",
    "content-length",
    "expect",
    "host",
    "trailer",
];

/// What ends a query or a request line.
const NOT_IN_A_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'#');

const START: &str = "\
#!/bin/sh
# Sends one saved webhook again, its body byte for byte. -h tells more.
set -eu
# What follows is bytes, whatever the locale.
LC_ALL=C
export LC_ALL
";

const OPTIONS: &str = r#"service=${HOOKBOT_DEBUG_SERVICE:-${GOSMEE_DEBUG_SERVICE:-}}
url=${service:-$target}
verbose=
usage() {
    cat <<END
usage: $0 [-l | -t URL | URL] [-v]
  -l, --local       send to \$HOOKBOT_DEBUG_SERVICE, or else to $local
  -t, --target URL  send to this URL, which may also stand alone
  -v, --verbose     show the request, too
  -h, --help        show this
Without a URL it is sent to \$HOOKBOT_DEBUG_SERVICE, or else to where it went first.
END
}
while [ $# -gt 0 ]; do
    case $1 in
        -l | --local) url=${service:-$local} ;;
        -t | --target)
            [ $# -gt 1 ] || { usage >&2; exit 2; }
            url=$2
            shift
            ;;
        -v | --verbose) verbose=--verbose ;;
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        *) url=$1 ;;
    esac
    shift
done
body=${0%.sh}.body
if [ ! -r "$body" ]; then
    echo "$0: cannot read $body, which has to be beside this script" >&2
    exit 1
fi
"#;

const QUERY: &str = r#"url=${url%%#*}
case $url in
    *\?*) url=$url\&$query ;;
    *) url=$url\?$query ;;
esac
"#;

const CURL_FAIL: &str = "\
# curl before 7.76 can't show the body of a refusal.
fail=--fail-with-body
curl \"$fail\" --version >/dev/null 2>&1 || fail=--fail
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use proptest::prelude::*;
    use std::process::Command;

    fn text(message: &Message) -> String {
        String::from_utf8(ScriptOptions::default().script(message)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_quoted_word_is_the_same_word_to_every_shell(
            words in prop::collection::vec(prop::collection::vec(1..=255_u8, 0..40), 1..20)
        ) {
            for shell in ["sh", "dash", "bash"] {
                let mut script = b"printf '%s\\0'".to_vec();
                for word in &words {
                    script.push(b' ');
                    script.extend(quoted(word));
                }
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), &script).unwrap();
                let Ok(output) = Command::new(shell).arg(file.path()).output() else {
                    continue;
                };
                let expected: Vec<u8> = words.iter().flat_map(|word| [&word[..], b"\0"].concat()).collect();
                prop_assert_eq!(output.stdout, expected, "{}", shell);
            }
        }
    }

    #[test]
    fn what_no_request_may_hold_is_left_out() {
        let script = text(&test_message(
            &[
                ("x-a", "1"),
                ("x-bad", "a\r\nx-smuggled: 1"),
                ("x-nul", "a\0b"),
                ("bad name", "1"),
                ("-o", "file"),
                ("host", "hooks.example.com"),
                ("content-length", "99"),
                ("transfer-encoding", "chunked"),
            ],
            b"x",
        ));
        assert!(script.contains("--header 'x-a: 1'"), "{script}");
        assert!(script.contains("--header '-o: file'"), "{script}");
        for part in [
            "smuggled",
            "x-nul",
            "bad name",
            "hooks.example",
            "99",
            "chunked",
        ] {
            assert!(!script.contains(part), "{part} in {script}");
        }
    }

    #[test]
    fn curl_adds_no_header_of_its_own() {
        let script = text(&test_message(&[("accept", "*/*"), ("x-empty", "")], b"x"));
        for header in [
            "'accept: */*'",
            "content-type:",
            "expect:",
            "user-agent:",
            "'x-empty;'",
        ] {
            assert!(script.contains(&format!("--header {header} ")), "{script}");
        }
        assert!(!script.contains("--header accept:"), "{script}");
    }

    #[test]
    fn a_method_without_a_body_sends_none() {
        for (method, payload, data) in [
            ("", "", true),
            ("POST", "", true),
            ("GET", "", false),
            ("GET", "x", true),
            ("HEAD", "x", false),
            ("bad method", "x", true),
        ] {
            let mut message = test_message(&[], payload.as_bytes());
            message.event.method = method.to_owned();
            let script = text(&message);
            assert_eq!(script.contains("--data-binary"), data, "{method}");
            assert_eq!(script.contains("--head "), method == "HEAD", "{method}");
            assert!(!script.contains("bad method"));
        }
    }

    #[test]
    fn no_value_means_a_file_to_httpie() {
        let options = ScriptOptions {
            tool: Tool::Httpie,
            ..ScriptOptions::default()
        };
        let message = test_message(&[("x-a", "@/etc/passwd"), ("x-b", "=1"), ("x-c", "")], b"");
        let script = String::from_utf8(options.script(&message)).unwrap();
        for word in ["'x-a: @/etc/passwd'", "'x-b: =1'", "'x-c;'"] {
            assert!(script.contains(word), "{script}");
        }
    }
}
