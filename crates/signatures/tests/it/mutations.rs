//! Every vector verifies, and nothing that differs from it does.

use hookbot_signatures::{CannotSign, Refusal, Secret};

use crate::vectors::{Covers, Signs, Vector, vectors};

#[test]
fn every_vector_verifies_and_its_secret_is_usable() {
    for vector in vectors() {
        let name = vector.name();
        let matched = vector.verify(&[&vector.secret], vector.at);
        let matched = matched.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(matched.secret, 0, "{name}");
        assert!(matched.signed_at.is_none_or(|at| at == vector.at), "{name}");
        assert!(
            vector.window.is_none() || matched.signed_at.is_some(),
            "{name}"
        );
        for secret in [&vector.secret, &vector.other] {
            let secret = Secret::new(&**secret).unwrap();
            assert_eq!(vector.scheme.accepts(&secret), Ok(()), "{name}");
        }
    }
}

#[test]
fn the_secret_that_matches_is_told_among_several() {
    for vector in vectors() {
        let Vector {
            secret, other, at, ..
        } = &vector;
        for (secrets, place) in [
            (&[&**other, secret][..], 1),
            (&[other, other, secret, other], 2),
            (&[secret, secret], 0),
            (&["@", secret], 1),
        ] {
            let matched = vector.verify(secrets, *at);
            assert_eq!(
                matched.map(|own| own.secret),
                Ok(place),
                "{}",
                vector.name()
            );
        }
    }
}

#[test]
fn another_secret_or_none_is_refused() {
    for vector in vectors() {
        let Vector {
            secret, other, at, ..
        } = &vector;
        let longer = format!("{secret}x");
        let shorter = &secret[..secret.len() - 1];
        let mut wrong = vec![vec![], vec![&**other], vec![other, other]];
        // A certificate is still one with a byte behind it.
        if !secret.starts_with("-----") {
            wrong.push(vec![&*longer]);
            wrong.extend((!shorter.is_empty()).then(|| vec![shorter]));
        }
        for secrets in wrong {
            let result = vector.verify(&secrets, *at);
            assert_eq!(
                result,
                Err(Refusal::NoMatch),
                "{} {secrets:?}",
                vector.name()
            );
        }
    }
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    for vector in vectors() {
        let body = match vector.covers {
            Covers::Body | Covers::BodyAndUrl => 0..vector.body.len(),
            Covers::Nothing => 0..0,
            Covers::Part(part) => {
                let mut windows = vector.body.windows(part.len());
                let at = windows.position(|window| window == part.as_bytes());
                let at = at.expect("the part is in the body");
                at..at + part.len()
            }
        };
        for at in body {
            let mut changed = vector.clone();
            changed.body[at] ^= 1;
            refused(&changed, &format!("byte {at} of the body"));
        }
        let url = if vector.covers == Covers::BodyAndUrl {
            vector.url.len()
        } else {
            0
        };
        for at in 0..url {
            let mut changed = vector.clone();
            flip(&mut changed.url, at);
            refused(&changed, &format!("byte {at} of the URL"));
        }
        for header in 0..vector.headers.len() {
            for at in 0..vector.headers[header].1.len() {
                let mut changed = vector.clone();
                flip(&mut changed.headers[header].1, at);
                refused(&changed, &format!("byte {at} of header {header}"));
            }
        }
    }
}

#[test]
fn a_body_that_is_cut_or_grows_is_refused() {
    let covered = |vector: &Vector| matches!(vector.covers, Covers::Body | Covers::BodyAndUrl);
    for vector in vectors().into_iter().filter(covered) {
        let mut changed = vector.clone();
        changed.body.pop();
        refused(&changed, "cut");
        let mut changed = vector.clone();
        changed.body.push(b'x');
        refused(&changed, "grown");
        let mut changed = vector.clone();
        changed.body.clear();
        refused(&changed, "empty");
    }
}

#[test]
fn without_one_of_its_headers_it_is_refused() {
    for vector in vectors() {
        for at in 0..vector.headers.len() {
            let mut changed = vector.clone();
            let (name, _) = changed.headers.remove(at);
            let result = changed.verify(&[&changed.secret], changed.at);
            let Err(Refusal::Missing(missing)) = result else {
                panic!("{} without {name}: {result:?}", vector.name());
            };
            assert!(missing.split(" or ").any(|own| own == name), "{missing}");
        }
    }
}

#[test]
fn with_one_of_its_headers_twice_it_is_refused() {
    for vector in vectors() {
        for (name, value) in &vector.headers {
            for (place, value) in [(0, "x"), (0, value), (vector.headers.len(), "x")] {
                let mut changed = vector.clone();
                changed
                    .headers
                    .insert(place, (name.clone(), value.to_owned()));
                let result = changed.verify(&[&changed.secret], changed.at);
                assert_eq!(
                    result,
                    Err(Refusal::Repeated(name.clone())),
                    "{}",
                    vector.name()
                );
            }
        }
    }
}

#[test]
fn a_header_that_is_no_text_or_empty_is_refused() {
    for vector in vectors() {
        for at in 0..vector.headers.len() {
            let mut changed = vector.clone();
            changed.headers[at].1.clear();
            refused(&changed, "empty");
            let secrets = [Secret::new(&*vector.secret).unwrap()];
            let headers = vector
                .headers
                .iter()
                .enumerate()
                .map(|(own, (name, value))| {
                    (
                        &**name,
                        if own == at {
                            &b"\xff"[..]
                        } else {
                            value.as_bytes()
                        },
                    )
                });
            let headers = headers.collect();
            let result = vector.with(|request| {
                let request = hookbot_signatures::Request {
                    headers: &headers,
                    ..request
                };
                vector.scheme.verify(&secrets, &request, vector.at)
            });
            assert_eq!(
                result,
                Err(Refusal::Malformed(vector.headers[at].0.clone()))
            );
        }
    }
}

#[test]
fn what_is_outside_of_its_window_is_refused_and_says_on_which_side() {
    for vector in vectors() {
        let (name, at) = (vector.name(), vector.at);
        let verify = |now| vector.verify(&[&vector.secret], now).map(|own| own.secret);
        let Some(tolerance) = vector.window else {
            assert_eq!(verify(0), Ok(0), "{name}");
            assert_eq!(verify(u64::MAX), Ok(0), "{name}");
            continue;
        };
        assert_eq!(verify(at + tolerance), Ok(0), "{name}");
        assert_eq!(verify(at - tolerance), Ok(0), "{name}");
        let beyond = tolerance + 1;
        let (age, ahead) = (beyond, beyond);
        assert_eq!(
            verify(at + beyond),
            Err(Refusal::TooOld { age, tolerance }),
            "{name}"
        );
        assert_eq!(
            verify(at - beyond),
            Err(Refusal::TooNew { ahead, tolerance }),
            "{name}"
        );
        assert!(matches!(verify(0), Err(Refusal::TooNew { .. })), "{name}");
        assert!(
            matches!(verify(u64::MAX), Err(Refusal::TooOld { .. })),
            "{name}"
        );

        let open = vector.scheme.clone().with_tolerance(None).unwrap();
        let open = Vector {
            scheme: open,
            ..vector.clone()
        };
        let matched = open.verify(&[&open.secret], u64::MAX);
        assert_eq!(matched.map(|own| own.secret), Ok(0), "{name}");
    }
}

#[test]
fn signing_gives_what_the_provider_would_have_sent() {
    for vector in vectors() {
        let name = vector.name();
        let signer = vector.signer.as_ref().unwrap_or(&vector.secret);
        let signer = Secret::new(&**signer).unwrap();
        let signed = vector.with(|request| vector.scheme.sign(&signer, &request, vector.at));
        if vector.signs == Signs::Not {
            let error = signed.unwrap_err();
            assert!(!matches!(error, CannotSign::Request(_)), "{name}: {error}");
            continue;
        }
        let mut signed = signed.unwrap_or_else(|error| panic!("{name}: {error}"));
        for (header, _) in &signed {
            assert!(
                vector.scheme.headers().any(|own| own == header),
                "{name} {header}"
            );
        }
        let own = Vector {
            headers: signed.clone(),
            ..vector.clone()
        };
        let matched = own.verify(&[&own.secret], own.at);
        assert_eq!(matched.map(|own| own.secret), Ok(0), "{name}");
        if vector.signs == Signs::Same {
            let mut sent = vector.headers.clone();
            sent.sort();
            signed.sort();
            assert_eq!(signed, sent, "{name}");
        }
    }
}

#[test]
fn no_refusal_tells_a_secret_or_a_signature() {
    for vector in vectors() {
        let signed = vector.headers.iter().map(|(_, value)| &**value);
        let hidden = signed.chain([&*vector.secret]);
        let is_hidden = |text: &&str| text.len() > 6 && text.contains(char::is_alphabetic);
        let hidden: Vec<_> = hidden.filter(is_hidden).collect();
        let mut changed = vector.clone();
        changed.body.push(b'x');
        let mut refusals = vec![
            vector.verify(&[&vector.other], vector.at),
            vector.verify(&[&vector.secret], 0),
            changed.verify(&[&vector.secret], vector.at),
        ];
        changed.headers.clear();
        refusals.push(changed.verify(&[&vector.secret], vector.at));
        for refusal in refusals.into_iter().filter_map(Result::err) {
            let text = format!("{refusal} {refusal:?}");
            assert!(!hidden.iter().any(|hidden| text.contains(hidden)), "{text}");
        }
    }
}

fn flip(text: &mut String, at: usize) {
    let mut bytes = std::mem::take(text).into_bytes();
    bytes[at] ^= 1;
    *text = String::from_utf8(bytes).expect("another ASCII character");
}

fn refused(vector: &Vector, change: &str) {
    let result = vector.verify(&[&vector.secret], vector.at);
    assert!(result.is_err(), "{}: {change}", vector.name());
}
