//! Forms and queries, decoded to bytes: text that is not UTF-8 is signed as it is.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The pairs of an `application/x-www-form-urlencoded` text, in order.
pub(crate) fn pairs(form: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    form.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let mut half = || decode(halves.next().unwrap_or_default());
            (half(), half())
        })
}

/// The one value of `name`, if it is text.
pub(crate) fn value(form: &[u8], name: &str) -> Option<String> {
    let mut values = pairs(form).filter(|(own, _)| **own == *name.as_bytes());
    match (values.next(), values.next()) {
        (Some((_, value)), None) => String::from_utf8(value.into_owned()).ok(),
        _ => None,
    }
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if text.contains(&b'+') {
        let spaced: Vec<_> = text
            .iter()
            .map(|byte| if *byte == b'+' { b' ' } else { *byte })
            .collect();
        return percent_decode(&spaced).collect::<Vec<_>>().into();
    }
    percent_decode(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded_once_and_to_bytes() {
        let form = b"a=1+2%2B3&&b&=c&d=%25ff%ff=e&a=";
        let decoded: Vec<_> = pairs(form)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let expected: [(&[u8], &[u8]); 5] = [
            (b"a", b"1 2+3"),
            (b"b", b""),
            (b"", b"c"),
            (b"d", b"%ff\xff=e"),
            (b"a", b""),
        ];
        assert!(
            decoded
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .eq(expected)
        );
        assert_eq!(value(form, "b").as_deref(), Some(""));
        for absent in ["a", "d", "x"] {
            assert_eq!(value(form, absent), None, "{absent}");
        }
    }
}
