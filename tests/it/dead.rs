use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::forward_stage::{Act, Service, Stage};

fn text(output: &Output) -> (Option<i32>, String) {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_put_aside_and_delivered_when_that_is_asked_for() {
    let stage = Stage::new().await;
    let status = Arc::new(AtomicU16::new(422));
    let own = status.clone();
    let (service, url) = Service::start(move |seen| match seen.body.as_slice() {
        b"good" => Act::Answer(200),
        _ => Act::Answer(own.load(Ordering::Relaxed)),
    })
    .await;
    let url = format!("{url}?key=s3cret");
    let running = stage.forward("/sub/a/", &["--count", "3", &url]).await;
    for body in ["bad \u{fc}", "good", "worse"] {
        stage.publish("a/b", body).await;
    }
    let (code, out, _) = running.ended().await;
    assert_eq!(code, Some(1), "that messages were put aside is a failure");
    assert!(
        out.contains("422") && out.contains("put aside as dead letter 1"),
        "{out}"
    );

    let (code, list) = text(&stage.run(&["dead", "list"]).await);
    assert_eq!((code, list.lines().count()), (Some(0), 3), "{list}");
    assert!(
        !list.contains("s3cret") && list.contains("key=***"),
        "{list}"
    );
    let (_, list) = text(&stage.run(&["dead", "list", "--json"]).await);
    let letter: serde_json::Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    assert_eq!((&letter["id"], &letter["code"]), (&1.into(), &422.into()));
    assert!(!list.contains("s3cret"), "{list}");
    let (_, shown) = text(&stage.run(&["dead", "show", "1"]).await);
    assert!(shown.ends_with("\n\nbad \u{fc}\n"), "{shown}");

    let (code, _) = text(&stage.run(&["dead", "retry", "1"]).await);
    assert_eq!(code, Some(1), "it is still refused");
    status.store(200, Ordering::Relaxed);
    let (code, _) = text(&stage.run(&["dead", "retry", "1", "7"]).await);
    assert_eq!(code, Some(2), "there is no letter 7");
    let (code, out) = text(&stage.run(&["dead", "retry", "1"]).await);
    assert_eq!(code, Some(0), "{out}");
    let seen = service.seen().last().unwrap().clone();
    assert_eq!(
        (seen.text(), seen.header("hookbot-attempt")),
        ("bad \u{fc}", Some("2"))
    );
    assert!(seen.line.contains("key=s3cret"), "{}", seen.line);

    let (code, out) = text(&stage.run(&["dead", "drop", "--all"]).await);
    assert_eq!((code, &*out), (Some(0), "1 dropped\n"));
    let (_, list) = text(&stage.run(&["dead", "list"]).await);
    assert_eq!(list, "");
    assert_eq!(service.seen().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_chosen_by_target() {
    let stage = Stage::new().await;
    let (_, one) = Service::start(|_| Act::Answer(400)).await;
    let (other, two) = Service::start(|_| Act::Answer(400)).await;
    let running = stage
        .forward("/sub/a/", &["--count", "1", &one, &two])
        .await;
    stage.publish("a/b", "x").await;
    running.ended().await;
    let (code, _) = text(&stage.run(&["dead", "show", "1"]).await);
    assert_eq!(code, Some(2), "both have a letter 1");
    let (code, _) = text(&stage.run(&["dead", "drop", "1"]).await);
    assert_eq!(code, Some(2), "both have a letter 1, and it is kept");
    let port = two.split(['/', ':']).nth(4).unwrap();
    let (code, _) = text(
        &stage
            .run(&["dead", "drop", "1", "--target-url", port])
            .await,
    );
    assert_eq!(code, Some(0));
    let (_, list) = text(&stage.run(&["dead", "list", "--json"]).await);
    assert_eq!(list.lines().count(), 1);
    assert!(!list.contains(port), "{list}");

    let (code, _) = text(&stage.run(&["dead", "retry", "--all", "--to", &two]).await);
    assert_eq!(code, Some(1));
    assert_eq!(other.seen().len(), 2, "it was sent where it was told to");
}
