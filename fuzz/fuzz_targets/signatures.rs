//! No request makes a provider's rules panic, and what they sign verifies as it was signed.
//!
//! The first line chooses the provider by name, then come headers up to an empty line, each a name
//! and a value with a colon between them, then the body. The header `query` is the URL's query.

#![no_main]

use hookbot_protocol::Headers;
use hookbot_signatures::{Provider, Request, Scheme, Secret, sns};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let provider = str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let Ok(provider) = provider.parse::<Provider>() else {
        return;
    };
    let mut rest = lines.next().unwrap_or_default();
    let mut headers = Headers::default();
    let mut query = "";
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        match str::from_utf8(&line[..colon]) {
            Ok("query") => query = str::from_utf8(&line[colon + 1..]).unwrap_or_default(),
            Ok(name) if name.len() < 100 => headers.push(name, &line[colon + 1..]),
            _ => {}
        }
    }
    let scheme = Scheme::from(provider);
    let secrets = SECRETS.map(|text| Secret::new(text).expect("not empty"));
    let url = format!("https://h/p?{query}");
    for method in ["POST", "GET", "HEAD"] {
        let request = Request {
            method,
            url: &url,
            headers: &headers,
            body: rest,
        };
        let _ = scheme.verify(&secrets, &request, NOW);
        let _ = scheme.handshake(&secrets, &request, NOW);
        let _ = scheme.event_type(&request);
        let _ = scheme.delivery_id(&request);
        let _ = sns::certificate_url(rest);
        for (place, secret) in secrets.iter().enumerate() {
            let Ok(signed) = scheme.sign(secret, &request, NOW) else {
                continue;
            };
            let signed = signed.iter();
            let headers = signed.map(|(name, value)| (&**name, value.as_bytes()));
            let headers = headers.collect();
            let request = Request {
                headers: &headers,
                ..request
            };
            let verified = scheme.verify(&secrets, &request, NOW);
            // A private key is not what verifies, and Linear's time is in the body.
            if !matches!(provider, Provider::Discord | Provider::Linear) {
                let verified = verified.map(|matched| matched.secret);
                assert_eq!(verified, Ok(place), "{provider}");
            }
        }
    }
});

/// One of each form. The private keys of others are not among them.
const SECRETS: [&str; 4] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
];

const NOW: u64 = 1_700_000_000;
