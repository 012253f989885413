//! Requests whose signatures others have made, or that were computed by another program.

use std::time::Duration;

use hookbot_protocol::Headers;
use hookbot_signatures::{
    Algorithm, Encoding, Generic, Match, Provider, Refusal, Request, Scheme, Secret,
};

/// A request that verifies.
#[derive(Clone)]
pub(crate) struct Vector {
    pub(crate) scheme: Scheme,
    pub(crate) secret: String,
    /// A secret of the same form that did not sign it.
    pub(crate) other: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// What the provider signs with, where the secret is a public key.
    pub(crate) signer: Option<String>,
    /// When it was signed.
    pub(crate) at: u64,
    /// How far the time may be from then, both ways.
    pub(crate) window: Option<u64>,
    pub(crate) covers: Covers,
    pub(crate) signs: Signs,
}

/// What changes of the request are noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Covers {
    /// Those of the body.
    Body,
    /// Those of the body and of the URL.
    BodyAndUrl,
    /// Those of one part of the body.
    Part(&'static str),
    /// None: whoever knows the secret may send anything.
    Nothing,
}

/// What signing the same request with the same secret gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signs {
    /// These headers.
    Same,
    /// Others, which verify as well.
    Other,
    /// An error: the secret is a public key.
    Not,
}

impl Vector {
    fn new(
        provider: &str,
        secret: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Self {
        let provider: Provider = provider.parse().expect("a provider's name");
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Self {
            scheme: provider.into(),
            secret: secret.into(),
            other: "another secret".into(),
            signer: None,
            url: "https://hooks.example.com/pub/topic".into(),
            headers: headers.collect(),
            body: body.into(),
            at: 1_700_000_000,
            window: None,
            covers: Covers::Body,
            signs: Signs::Same,
        }
    }

    fn url(self, url: &str) -> Self {
        Self {
            url: url.into(),
            covers: Covers::BodyAndUrl,
            ..self
        }
    }

    fn within(self, window: u64, at: u64) -> Self {
        Self {
            at,
            window: Some(window),
            ..self
        }
    }

    fn at(self, at: u64) -> Self {
        Self { at, ..self }
    }

    fn other(self, other: &str) -> Self {
        Self {
            other: other.into(),
            ..self
        }
    }

    fn signer(self, signer: &str) -> Self {
        Self {
            signer: Some(signer.into()),
            ..self
        }
    }

    fn signs(self, signs: Signs) -> Self {
        Self { signs, ..self }
    }

    fn covers(self, covers: Covers) -> Self {
        Self { covers, ..self }
    }

    fn scheme(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    pub(crate) fn name(&self) -> String {
        let body: String = String::from_utf8_lossy(&self.body)
            .chars()
            .take(40)
            .collect();
        format!("{} {body:?} {:?}", self.scheme, self.headers)
    }

    pub(crate) fn verify(&self, secrets: &[&str], now: u64) -> Result<Match, Refusal> {
        let secret = |text: &&str| Secret::new(*text).expect("not empty");
        let secrets: Vec<_> = secrets.iter().map(secret).collect();
        self.with(|request| self.scheme.verify(&secrets, &request, now))
    }

    /// Gives the request to `see`.
    pub(crate) fn with<T>(&self, see: impl FnOnce(Request) -> T) -> T {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (&**name, value.as_bytes()));
        let headers: Headers = headers.collect();
        see(Request {
            method: "POST",
            url: &self.url,
            headers: &headers,
            body: &self.body,
        })
    }
}

pub(crate) fn vectors() -> Vec<Vector> {
    [published(), by_others(), computed(), own_rules()].concat()
}

const EVERYBODY: &str = "It's a Secret to Everybody";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_WHSEC: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const ED25519: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const ED25519_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const OTHER_ED25519: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
const TWILIO: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const TWILIO_FORM: &str = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";

/// From the provider's own documentation, or the tests of its own libraries.
fn published() -> Vec<Vector> {
    let github = |secret, signature, body: &str| {
        Vector::new(
            "github",
            secret,
            &[("x-hub-signature-256", signature)],
            body,
        )
    };
    let atlassian = |provider| {
        let signature = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9";
        Vector::new(
            provider,
            EVERYBODY,
            &[("x-hub-signature", signature)],
            "Hello World!",
        )
    };
    let twilio = |url, signature, body: &str| {
        let signature = ("x-twilio-signature", signature);
        Vector::new("twilio", "12345", &[signature], body).url(url)
    };
    let standard = |provider, prefix: &str| {
        let header = |name| format!("{prefix}-{name}");
        let headers = [
            (&*header("id"), "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (&*header("timestamp"), "1614265330"),
            (
                &*header("signature"),
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ];
        Vector::new(provider, WHSEC, &headers, r#"{"test": 2432232314}"#)
            .within(300, 1_614_265_330)
            .other(OTHER_WHSEC)
    };
    let circleci = |secret, signature, body: &str| {
        Vector::new(
            "circleci",
            secret,
            &[("circleci-signature", signature)],
            body,
        )
    };
    vec![
        // GitHub, "Validating webhook deliveries"; then octokit/webhooks-methods.js.
        github(
            EVERYBODY,
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            "Hello, World!",
        ),
        github(
            "mysecret",
            "sha256=e3eccac34c43c7dc1cbb905488b1b81347fcc700a7b025697a9d07862256023f",
            "{\n  \"foo\": \"bar\"\n}\n",
        ),
        github(
            "development",
            "sha256=9dacf9003316b09be07df56d86a2d0d6872e42a1e6c72c3bad9ff915a7c5603e",
            "{\n  \"foo\": \"Foo\\n\\u001B[34mbar: ♥♥♥♥♥♥♥♥\\nthis-is-lost\\u001B[0m\\u001B[2K\"\n}\n",
        ),
        github(
            "development",
            "sha256=87316067e2011fae39998b18c46a14d83b3e7c3ffdd88fb2ee5afb7d11288e60",
            "{\n  \"foo\": \"\\\\u001b\"\n}\n",
        ),
        // Atlassian, on securing webhooks.
        atlassian("bitbucket"),
        atlassian("jira"),
        // Slack, "Verifying requests from Slack", and slackapi/python-slack-sdk.
        Vector::new(
            "slack",
            "8f742231b10e8888abcd99yyyzzz85a5",
            &[
                ("x-slack-request-timestamp", "1531420618"),
                (
                    "x-slack-signature",
                    "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                ),
            ],
            "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
            &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
            &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com\
            %2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
            &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        )
        .within(300, 1_531_420_618),
        // twilio/twilio-python, test_request_validator.
        twilio(TWILIO, "RSOYDt4T1cUTdK1PDd93/VVr8B8=", TWILIO_FORM),
        twilio(
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            "kvajT1Ptam85bY51eRf/AJRuM3w=",
            TWILIO_FORM,
        )
        .signs(Signs::Other),
        twilio(
            "https://mycompany.com:443/myapp.php?foo=1&bar=2",
            "kvajT1Ptam85bY51eRf/AJRuM3w=",
            TWILIO_FORM,
        ),
        twilio(
            "https://mycompany.com:443/myapp.php?foo=1&bar=2",
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
            TWILIO_FORM,
        )
        .signs(Signs::Other),
        twilio(
            "http://mycompany.com/myapp.php?foo=1&bar=2",
            "0ZXoZLH/DfblKGATFgpif+LLRf4=",
            TWILIO_FORM,
        )
        .signs(Signs::Other),
        twilio(
            "http://mycompany.com:1234/myapp.php?foo=1&bar=2",
            "Zmvh+3yNM1Phv2jhDCwEM3q5ebU=",
            TWILIO_FORM,
        ),
        twilio(
            TWILIO,
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
            "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
        ),
        twilio(
            &format!(
                "{TWILIO}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
            ),
            "a9nBmqA0ju/hNViExpshrM61xv4=",
            r#"{"property": "value", "boolean": true}"#,
        ),
        // pusher/pusher-http-go, webhook_test.
        Vector::new(
            "pusher",
            "secret",
            &[(
                "x-pusher-signature",
                "2677ad3e7c090b2fa2c0fb13020d66d5420879b8316eb356a2d60fb9073bc778",
            )],
            r#"{"hello":"world"}"#,
        ),
        // standard-webhooks/standard-webhooks, libraries/javascript.
        standard("standard-webhooks", "webhook"),
        standard("svix", "svix"),
        standard("svix", "webhook").signs(Signs::Other),
        // sendgrid/sendgrid-python, test_eventwebhook.
        Vector::new(
            "sendgrid",
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
            &[
                (
                    "x-twilio-email-event-webhook-signature",
                    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=",
                ),
                ("x-twilio-email-event-webhook-timestamp", "1600112502"),
            ],
            "[{\"email\":\"hello@world.com\",\"event\":\"dropped\",\"reason\":\"Bounced Address\",\"sg_event_id\":\"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA\",\"sg_message_id\":\"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0\",\"smtp-id\":\"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>\",\"timestamp\":1600112492}]\r\n",
        )
        .other("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKhJLwfw4reHUNZkk/Bbdip8Pne2wWTnZ9JNuAdLFBNVTaOfIxl78m6qFmubCN++vnQkd0PPAwl+2rF1ARsVx+A==")
        .at(1_600_112_502)
        .signs(Signs::Not),
        // PagerDuty/go-pagerduty, webhookv3_test.
        Vector::new(
            "pagerduty",
            "lDQHScfUeXUKaQRNF+8XIiDKZ7XX3itBAYzwU0TARw8lJqRnkKl2iB1anSb0Z+IK",
            &[(
                "x-pagerduty-signature",
                "v1=0c0b9495b893a39e70d1fea2fe11fbe0a825f88b9f67846f6cc07dd2bc5476cd",
            )],
            include_bytes!("../data/pagerduty.json"),
        ),
        // CircleCI, "Validate webhooks".
        circleci(
            "secret",
            "v1=734cc62f32841568f45715aeb9f4d7891324e6d948e4c6c60c0621cdac48623a",
            "hello world",
        ),
        circleci(
            "another-secret",
            "v1=daa220016c8f29a8b214fbfc3671aeec2145cfb1e6790184ffb38b6d0425fa00",
            "lalala",
        ),
        circleci(
            "hunter123",
            "v1=9be2242094a9a8c00c64306f382a7f9d691de910b4a266f67bd314ef18ac49fa",
            "an-important-request-payload",
        ),
        circleci(
            "secret",
            "v1=773ba44693c7553d6ee20f61ea5d2757a9a4f4a44d2841ae4e95b52e4cd62db4",
            "foo",
        ),
    ]
}

/// From the tests of other projects.
fn by_others() -> Vec<Vector> {
    vec![
        // frain-dev/convoy, verifier_test.
        Vector::new(
            "shopify",
            "Convoy",
            &[(
                "x-shopify-hmac-sha256",
                "16FUVH58NeMcTIIOICN2UJOcPTTa4TbjCndXymGrtM8=",
            )],
            "Test Payload Body",
        ),
        Vector::new(
            "github",
            "Convoy",
            &[(
                "x-hub-signature-256",
                "sha256=d7a154547e7c35e31c4c820e20237650939c3d34dae136e30a7757ca61abb4cf",
            )],
            "Test Payload Body",
        ),
    ]
}

/// By OpenSSL and Python from what the provider documents, as it publishes no example that could
/// be computed again.
fn computed() -> Vec<Vector> {
    let forge = |provider, header, prefix| {
        let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        Vector::new(
            provider,
            EVERYBODY,
            &[(header, &*format!("{prefix}{hex}"))],
            "Hello, World!",
        )
    };
    let sha1 = |provider| {
        let signature = "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59";
        Vector::new(
            provider,
            EVERYBODY,
            &[("x-hub-signature", signature)],
            "Hello, World!",
        )
        .signs(Signs::Other)
    };
    let sns = |body: &'static [u8], key: &str| {
        let sns = Vector::new("aws-sns", key, &[], body)
            .other(include_str!("../data/sns-other-certificate.pem"))
            .signs(Signs::Not);
        let topic = "arn:aws:sns:us-west-2:123456789012:MyTopic".to_owned();
        let scheme = sns
            .scheme
            .clone()
            .with_topics(vec!["arn:other".to_owned(), topic]);
        let hour = Some(Duration::from_secs(3_600));
        sns.scheme(scheme.with_tolerance(hour).expect("it has a time"))
            .within(3_600, 1_700_000_000)
    };
    let certificate = include_str!("../data/sns-certificate.pem");
    let key = include_str!("../data/sns-public-key.pem");
    vec![
        sha1("github"),
        forge("gitea", "x-gitea-signature", ""),
        forge("gitea", "x-hub-signature-256", "sha256=").signs(Signs::Other),
        sha1("gitea"),
        forge("forgejo", "x-forgejo-signature", ""),
        forge("forgejo", "x-gitea-signature", "").signs(Signs::Other),
        forge("forgejo", "x-hub-signature-256", "sha256=").signs(Signs::Other),
        sha1("forgejo"),
        forge("gogs", "x-gogs-signature", ""),
        Vector::new("gitlab", "s", &[("x-gitlab-token", "s")], "{}").covers(Covers::Nothing),
        Vector::new(
            "gitlab",
            WHSEC,
            &[
                ("webhook-id", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
                ("webhook-timestamp", "1776000000"),
                ("webhook-signature", "v1,klQZjN4/SGSCtsAJwkQq/mDUl+J0n2Sump7jWp6qhME="),
            ],
            r#"{"object_kind":"push"}"#,
        )
        .within(300, 1_776_000_000),
        Vector::new(
            "stripe",
            "whsec_test_secret",
            &[(
                "stripe-signature",
                "t=1614265330,v1=e135cdbed3dda004bf8a2fb350f2541d299393c770e0b9e6e319dc595e9072aa",
            )],
            r#"{"id":"evt_1"}"#,
        )
        .within(300, 1_614_265_330),
        Vector::new(
            "mandrill",
            "mandrill_key",
            &[("x-mandrill-signature", "Fb4Ckn7HtXDCdZL9FotHhqYKrOM=")],
            "mandrill_events=%5B%7B%22event%22%3A%22send%22%7D%5D",
        )
        .url("https://hooks.example.com/pub/mandrill"),
        Vector::new(
            "trello",
            "trello_secret",
            &[("x-trello-webhook", "wjP1Ozuot/jnnlZRvIwlvnLgvFE=")],
            r#"{"action":{"type":"updateCard"}}"#,
        )
        .url("https://hooks.example.com/pub/trello"),
        // With the algorithm of Twilio's shared keys, by twilio-python.
        Vector::new(
            "twilio",
            "12345",
            &[("x-twilio-signature", "033hgUJA9M/hXIZsYjwkerEP/DBm35nEri5FhCYjA5s=")],
            TWILIO_FORM,
        )
        .url(TWILIO)
        .signs(Signs::Other),
        // The key is that of RFC 8032, test 1.
        Vector::new(
            "discord",
            ED25519,
            &[
                (
                    "x-signature-ed25519",
                    "1695961a47c91a1ec033b819b7e87e3dbc583dd0cee6d1fd0216f58ac87b6228ae531ddbf91fb7bc28d7edf7f08604da16f54624f38a6bc0614e4dc13cd47f0f",
                ),
                ("x-signature-timestamp", "1700000000"),
            ],
            r#"{"type":1}"#,
        )
        .within(300, 1_700_000_000)
        .other(OTHER_ED25519)
        .signer(ED25519_SEED),
        Vector::new(
            "zoom",
            "zoom_secret",
            &[
                ("x-zm-request-timestamp", "1700000000"),
                (
                    "x-zm-signature",
                    "v0=82ab08e9ce8677cc243a618f1aec7e4377081b89ff6d348694053e77416b3682",
                ),
            ],
            r#"{"event":"meeting.started"}"#,
        )
        .within(300, 1_700_000_000),
        Vector::new(
            "linear",
            "lin_wh_secret",
            &[(
                "linear-signature",
                "91e919dc0fd99df1cae12efef1ca08b082cfa523f101b572ec14ed98863fdf35",
            )],
            r#"{"action":"create","type":"Issue","webhookTimestamp":1700000000000}"#,
        )
        .within(60, 1_700_000_000),
        Vector::new(
            "sentry",
            "sentry_client_secret",
            &[(
                "sentry-hook-signature",
                "0db442c3dd2b0c5a450deddee6de0c5443c4a462e936eb4f28e1297216c5f813",
            )],
            r#"{"action":"created","data":{}}"#,
        ),
        Vector::new(
            "dropbox",
            "dropbox_secret",
            &[("x-dropbox-signature", "d9ad73d2563372235d3921ffc42be7b3150bfba62298c973f45dcae8b758a07c")],
            r#"{"list_folder":{"accounts":["dbid:AAH4"]},"delta":{"users":[12345678]}}"#,
        ),
        Vector::new(
            "x",
            "cs",
            &[("x-twitter-webhooks-signature", "sha256=SCrUXMw6UY2FVLSoXJe/9MtN5I4aoL9iDAw4l2Lo0hE=")],
            r#"{"for_user_id":"1"}"#,
        ),
        Vector::new(
            "meta",
            "app_secret",
            &[("x-hub-signature-256", "sha256=22d3988d1017c437ea81a89d41e2d3266c00a508cffdb23f8ad8746d232d77e9")],
            r#"{"object":"page","entry":[]}"#,
        ),
        sns(include_bytes!("../data/sns-notification-1.json"), certificate)
            .covers(Covers::Part("Hello\\nworld")),
        sns(include_bytes!("../data/sns-notification-2.json"), certificate)
            .covers(Covers::Part("My First Message")),
        sns(include_bytes!("../data/sns-notification-2.json"), key)
            .covers(Covers::Part("arn:aws:sns:us-west-2:123456789012:MyTopic")),
        sns(include_bytes!("../data/sns-confirmation-2.json"), certificate)
            .covers(Covers::Part("2336412f37")),
        // Nothing is signed here, so that anything could have been made up.
        Vector::new(
            "microsoft-graph",
            "state",
            &[],
            r#"{"value":[{"clientState":"state","id":"1"},{"clientState":"state","id":"2"}]}"#,
        )
        .covers(Covers::Part(r#""clientState":"state""#))
        .signs(Signs::Not),
    ]
}

/// The rules of providers above, said in settings.
fn own_rules() -> Vec<Vector> {
    let [published, computed] = [published(), computed()];
    let like = |name: &str| {
        let all = published.iter().chain(&computed);
        let found = all.clone().find(|own| own.scheme.to_string() == name);
        found.expect("a vector of this provider").clone()
    };
    let minutes = Some(Duration::from_secs(300));
    let slack = Generic {
        prefix: "v0=".to_owned(),
        template: "v0:{timestamp}:{body}".to_owned(),
        timestamp_header: Some("X-Slack-Request-Timestamp".to_owned()),
        tolerance: minutes,
        ..Generic::new("X-Slack-Signature")
    };
    let mut secret_in_base64 = like("standard-webhooks");
    for secret in [&mut secret_in_base64.secret, &mut secret_in_base64.other] {
        *secret = secret.replace("whsec_", "");
    }
    let standard = Generic {
        encoding: Encoding::Base64,
        prefix: "v1,".to_owned(),
        key_encoding: Encoding::Base64,
        template: "{id}.{timestamp}.{body}".to_owned(),
        timestamp_header: Some("Webhook-Timestamp".to_owned()),
        id_header: Some("Webhook-Id".to_owned()),
        tolerance: minutes,
        ..Generic::new("Webhook-Signature")
    };
    let mandrill = Generic {
        algorithm: Algorithm::HmacSha1,
        encoding: Encoding::Base64,
        template: "{url}{form}".to_owned(),
        ..Generic::new("X-Mandrill-Signature")
    };
    let discord = Generic {
        algorithm: Algorithm::Ed25519,
        key_encoding: Encoding::Hex,
        template: "{timestamp}{body}".to_owned(),
        timestamp_header: Some("X-Signature-Timestamp".to_owned()),
        tolerance: minutes,
        ..Generic::new("X-Signature-Ed25519")
    };
    let token = Generic {
        algorithm: Algorithm::Token,
        encoding: Encoding::Text,
        ..Generic::new("X-Gitlab-Token")
    };
    let rules = [
        (like("slack"), slack),
        (secret_in_base64, standard),
        (like("mandrill"), mandrill),
        (like("discord"), discord),
        (like("gitlab"), token),
    ];
    let said = |(vector, rules): (Vector, Generic)| {
        vector.scheme(Scheme::try_from(rules).expect("rules that hold"))
    };
    rules.map(said).into()
}
