//! Deliveries that change while messages are on their way.

use hookbot_protocol::{Publication, Topic};

use super::{deliver, has, in_memory, publish, reload, with};
use crate::metrics::{metrics, value};
use crate::support::TestServer;
use crate::target::Target;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_loses_nothing_repeats_nothing_and_leaves_the_others_alone() {
    let (mut changing, mut same) = (Target::start().await, Target::start().await);
    let (first, second) = (changing.url("/"), same.url("/"));
    let both = |number: u32| {
        let more = format!("headers = {{ X-Number = '{number}' }}");
        deliver("changing", "in/", &first, &more) + &deliver("same", "in/", &second, "")
    };
    let (folder, server) = with(&both(0)).await;
    let broker = server.broker.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..1_000 {
            let topic = Topic::parse("in/x").unwrap();
            let publication = Publication::new(topic, number.to_string());
            broker.publish(publication).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for number in 1..=15 {
        reload(&server, folder.path(), &both(number)).await;
    }
    publishing.await.unwrap();
    reload(&server, folder.path(), &both(99)).await;
    publish(&server, "in/x", 1_000..1_001).await;
    let mut last = 0;
    for number in 0..=1_000 {
        let asked = changing.next().await;
        has(&asked, number);
        let own: u32 = asked.header("x-number").unwrap().parse().unwrap();
        assert!(own >= last);
        last = own;
        has(&same.next().await, number);
    }
    assert_eq!(last, 99);
    assert!(changing.try_next().is_none() && same.try_next().is_none());
}

#[tokio::test]
async fn one_that_is_taken_out_and_put_back_goes_on_where_it_was() {
    let target = Target::start().await;
    let config = deliver("d", "in/", &target.url("/"), "");
    let (folder, server) = with(&config).await;
    take_out_and_put_back(target, &config, folder, server).await;
}

#[tokio::test]
async fn so_it_does_where_nothing_is_on_disk() {
    let target = Target::start().await;
    let config = deliver("d", "in/", &target.url("/"), "");
    let (folder, server) = in_memory(&config).await;
    take_out_and_put_back(target, &config, folder, server).await;
}

async fn take_out_and_put_back(
    mut target: Target,
    config: &str,
    folder: tempfile::TempDir,
    server: TestServer,
) {
    publish(&server, "in/x", 0..3).await;
    for number in 0..3 {
        has(&target.next().await, number);
    }
    reload(&server, folder.path(), "").await;
    publish(&server, "in/x", 3..6).await;
    reload(&server, folder.path(), "[[deliver]]").await;
    reload(&server, folder.path(), config).await;
    for number in 3..6 {
        has(&target.next().await, number);
    }
    // Another name begins anew, with what is published from now on or with everything.
    let others = deliver("now", "in/", &target.url("/now"), "")
        + &deliver("start", "in/", &target.url("/start"), "from = 'start'");
    reload(&server, folder.path(), &others).await;
    publish(&server, "in/x", 6..7).await;
    let mut lines = Vec::new();
    while lines.len() < 8 {
        let asked = target.next().await;
        lines.push(format!("{} {}", asked.line, asked.text()));
    }
    lines.sort();
    let expected = (0..7).map(|number| format!("POST /start HTTP/1.1 {number}"));
    let mut expected: Vec<_> = expected.collect();
    expected.insert(0, "POST /now HTTP/1.1 6".to_owned());
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_wrong_file_changes_nothing() {
    let mut target = Target::start().await;
    let config = deliver("d", "in/", &target.url("/old"), "");
    let (folder, server) = with(&config).await;
    let new = config.replace("/old", "/new");
    for wrong in [
        new.replace("allow", "alow"),
        new.replace("127.0.0.1'\npause", "10.0.0.1'\npause"),
        format!("{new}secrets = 'env:HOOKBOT_NO_SUCH_SECRET'"),
        format!("{new}when = '{{'"),
        format!("{new}ca = '/no/such.pem'"),
    ] {
        reload(&server, folder.path(), &wrong).await;
        publish(&server, "in/x", 0..1).await;
        assert!(target.next().await.line.contains("/old"), "{wrong}");
    }
    let failures = "hookbot_config_reload_failures_total";
    assert_eq!(value(&metrics(&server).await, failures), Some(5.0));
    reload(&server, folder.path(), &new).await;
    publish(&server, "in/x", 0..1).await;
    assert!(target.next().await.line.contains("/new"));
}
