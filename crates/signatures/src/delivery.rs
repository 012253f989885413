//! By what a provider's second attempt at a delivery is known.

use hookbot_protocol::Headers;

/// What the sender calls this delivery, if it does: the first of the providers' headers that is
/// there and is text.
///
/// It says nothing of who sent it: two providers may use the same id, and anybody may send any.
#[must_use]
pub fn delivery_id(headers: &Headers) -> Option<&str> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| str::from_utf8(value).ok())
    };
    let found = NAMES
        .iter()
        .find_map(|name| text(name).filter(|id| !id.is_empty()));
    // Many servers number their requests in this one; only from Sentry is it a delivery's.
    let sentry = || {
        headers
            .get("sentry-hook-resource")
            .and_then(|_| text("request-id"))
    };
    found.or_else(sentry)
}

/// In the order in which they count: a forge that imitates another sends both headers.
const NAMES: [&str; 14] = [
    "x-github-delivery",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "x-gogs-delivery",
    "idempotency-key",
    "webhook-id",
    "svix-id",
    "x-gitlab-event-uuid",
    "x-request-uuid",
    "x-atlassian-webhook-identifier",
    "x-shopify-event-id",
    "x-shopify-webhook-id",
    "linear-delivery",
    "x-event-id",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_header_that_names_a_delivery_counts() {
        for (headers, id) in [
            (&[("x-github-delivery", "1")][..], Some("1")),
            (
                &[("x-gitea-delivery", "2"), ("x-github-delivery", "1")],
                Some("1"),
            ),
            (&[("x-github-delivery", ""), ("webhook-id", "3")], Some("3")),
            (
                &[("x-github-delivery", "\u{fffd}"), ("svix-id", "4")],
                Some("\u{fffd}"),
            ),
            (&[("request-id", "5")], None),
            (
                &[("request-id", "5"), ("sentry-hook-resource", "issue")],
                Some("5"),
            ),
            (&[("host", "h")], None),
            (&[], None),
        ] {
            let headers = headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes()));
            let headers: Headers = headers.collect();
            assert_eq!(delivery_id(&headers), id, "{headers:?}");
        }
        let mut headers = Headers::default();
        headers.push("x-github-delivery", b"\xff");
        assert_eq!(delivery_id(&headers), None);
    }
}
