//! What a condition sees of a message, and what it makes of what it does not see.

use super::samples::holds;

#[test]
fn a_condition_sees_everything_that_is_known_of_a_message() {
    for when in [
        r#"topic == "in/x""#,
        r#"method == "POST" and query.a == "1" and query.b == "x y""#,
        r#"headers["x-event"] == "push" and headers["X-Event"] == "push""#,
        r#""x-event" in headers and "y" not in headers"#,
        "body.n == 3 and body.list|length == 2 and body.list[-1] == none and body.list[0] == 1",
        r#"text.startswith("{") and offset == 7 and time == "1970-01-01T00:00:00.000Z""#,
        "verified_by is undefined and attributes.verified_by is undefined",
        "body.nope|default(3) == 3 and body.nope is undefined",
    ] {
        assert!(holds(when, r#"{"n":3,"list":[1,null]}"#), "{when}");
    }
}

#[test]
fn what_is_not_there_is_false_whatever_is_done_with_it() {
    for when in [
        "body.nope",
        "body.nope.deeper[3].still",
        r#"body.nope.startswith("refs/")"#,
        r#"body.nope == "x""#,
        r#""x" in body.nope"#,
        "body.nope > 3",
        "body.nope < 3",
        "3 > body.nope",
        "body.nope.deeper <= 3",
        "not body.nope < 3 and body.nope < 3",
        r#"body.nope < "x""#,
        "body.nope|length > 0",
        "body.nope|int > 0",
        "body.nope + 1 == 2",
        "headers.nope or query.nope or verified_by",
        "body.n.nope.nope",
        "body.n.nope|length > 0",
        "body.n.nope < 3",
        "'x'.nope.startswith('x')",
    ] {
        for body in [r#"{"n":1}"#, "not JSON", "", "[]", "null"] {
            assert!(!holds(when, body), "{when} {body}");
        }
    }
    for when in [
        "not body.nope",
        "body.nope or body.n == 1",
        r#"body.nope.startswith("x") or body.n < 2"#,
        "body.nope is undefined and body.n < 2",
        "body.nope|default(1) < 2",
    ] {
        assert!(holds(when, r#"{"n":1}"#), "{when}");
    }
    // A control: these hold where it is there.
    for when in ["body.n < 3", "body.n > 0", "body.n|int > 0"] {
        assert!(holds(when, r#"{"n":1}"#), "{when}");
    }
}
