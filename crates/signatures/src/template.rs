//! What is signed, with holes for what each request brings.

use std::borrow::Cow;

use crate::form;
use crate::request::Request;

/// Pieces, in order.
#[derive(Debug, Clone)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// What the provider calls the delivery.
    Id,
    /// When it was signed, as it was written.
    Timestamp,
    Method,
    Url,
    Body,
    /// The body's form: each name and its value, sorted, with nothing between them.
    Form,
    /// The same without repeats, as Twilio signs it.
    UniqueForm,
}

impl Template {
    /// Reads `v0:{timestamp}:{body}`; a brace that is meant is doubled.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            let inside = rest.split_once('}').filter(|_| brace == "{");
            let (name, behind) = inside.ok_or(TemplateError::Brace)?;
            let named = NAMES.iter().find(|(_, own)| *own == name);
            let (piece, _) = named.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece.clone());
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    pub(crate) fn has(&self, piece: &Piece) -> bool {
        self.0.contains(piece)
    }

    /// The message that is signed, in pieces.
    pub(crate) fn fill<'a>(
        &'a self,
        request: &Request<'a>,
        id: &'a str,
        timestamp: &'a str,
    ) -> Vec<Cow<'a, [u8]>> {
        let fill = |piece: &'a Piece| match piece {
            Piece::Text(text) => text.as_bytes().into(),
            Piece::Id => id.as_bytes().into(),
            Piece::Timestamp => timestamp.as_bytes().into(),
            Piece::Method => request.method.as_bytes().into(),
            Piece::Url => request.url.as_bytes().into(),
            Piece::Body => request.body.into(),
            Piece::Form => joined(&sorted(request.body)).into(),
            Piece::UniqueForm => {
                let mut pairs = sorted(request.body);
                pairs.dedup();
                joined(&pairs).into()
            }
        };
        self.0.iter().map(fill).collect()
    }
}

type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

fn sorted(body: &[u8]) -> Vec<Pair<'_>> {
    let mut pairs: Vec<_> = form::pairs(body).collect();
    pairs.sort();
    pairs
}

fn joined(pairs: &[Pair<'_>]) -> Vec<u8> {
    let halves = pairs.iter().flat_map(|(name, value)| [&**name, &**value]);
    halves.flatten().copied().collect()
}

const NAMES: [(Piece, &str); 7] = [
    (Piece::Id, "id"),
    (Piece::Timestamp, "timestamp"),
    (Piece::Method, "method"),
    (Piece::Url, "url"),
    (Piece::Body, "body"),
    (Piece::Form, "form"),
    (Piece::UniqueForm, "unique_form"),
];

/// Why a template can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("a brace has no other one; write two where one is meant")]
    Brace,
    #[error(
        "there is no {{{0}}}, only {{id}}, {{timestamp}}, {{method}}, {{url}}, {{body}} and {{form}}"
    )]
    Unknown(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::Headers;

    #[test]
    fn holes_are_filled_and_doubled_braces_are_text() {
        let request = Request {
            method: "POST",
            url: "https://h/x",
            headers: &Headers::default(),
            body: b"b=2&a=%31&b=2&b=1",
        };
        for (template, filled) in [
            ("v0:{timestamp}:{body}", "v0:7:b=2&a=%31&b=2&b=1"),
            ("{id}.{method}{url}", "i.POSThttps://h/x"),
            ("{form}", "a1b1b2b2"),
            ("{unique_form}", "a1b1b2"),
            ("{{{id}}}{{", "{i}{"),
            ("", ""),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(
                template.fill(&request, "i", "7").concat(),
                filled.as_bytes()
            );
        }
        for (wrong, error) in [
            ("{", TemplateError::Brace),
            ("}", TemplateError::Brace),
            ("{id", TemplateError::Brace),
            ("a}b", TemplateError::Brace),
            ("{}", TemplateError::Unknown(String::new())),
            ("{Body}", TemplateError::Unknown("Body".to_owned())),
        ] {
            assert_eq!(Template::parse(wrong).unwrap_err(), error, "{wrong}");
        }
    }
}
