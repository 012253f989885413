use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::forward_stage::{Act, Service, Stage, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_fails_and_a_forwarder_that_is_killed_lose_nothing_and_keep_the_order() {
    const COUNT: usize = 60;
    const KILLS: usize = 4;
    let stage = Stage::new().await;
    // Nobody listens at first.
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    // By number: how often it came and its answer was lost.
    let lost = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let losses = lost.clone();
    let service = Service::new(move |seen| {
        let act = match fastrand::u32(0..100) {
            0..40 => Act::Answer(*fastrand::choice(&[500, 503, 429, 408]).unwrap()),
            40..44 => Act::HangUp,
            44 => Act::Hang,
            _ => return Act::Answer(200),
        };
        *losses
            .lock()
            .unwrap()
            .entry(seen.text().to_owned())
            .or_default() += 1;
        act
    });

    let url = format!("http://{address}/hook");
    let mut running = stage
        .forward("/sub/a/", &["--timeout", "300ms", "--quiet", &url])
        .await;
    let mut published = 0;
    for kill in 0..=KILLS {
        while published < COUNT * (kill + 1) / (KILLS + 1) {
            stage.publish("a/b", &published.to_string()).await;
            published += 1;
        }
        if kill == 0 {
            // Two attempts, and then it is there.
            sleep(Duration::from_millis(600)).await;
            let listener = TcpListener::bind(address).await.unwrap();
            tokio::spawn(service.clone().listen(listener));
        }
        if kill < KILLS {
            let before = service.seen().len();
            service.wait_for(before + 8).await;
            running.kill();
            running = stage
                .forward("/sub/a/", &["--timeout", "300ms", "--quiet", &url])
                .await;
        }
    }
    let all = || -> BTreeSet<String> {
        service
            .seen()
            .iter()
            .map(|one| one.text().to_owned())
            .collect()
    };
    until(
        || all().len() == COUNT,
        || format!("{} of {COUNT} came", all().len()),
    )
    .await;
    let last = (COUNT - 1).to_string();
    let is_done = || {
        let came = service
            .seen()
            .iter()
            .filter(|one| one.text() == last)
            .count();
        came > lost.lock().unwrap().get(&last).copied().unwrap_or_default()
    };
    until(is_done, || "the last one is not taken".to_owned()).await;

    let mut known = BTreeMap::<String, usize>::new();
    let mut firsts = Vec::new();
    for seen in service.seen().iter() {
        let times = known.entry(seen.text().to_owned()).or_default();
        *times += 1;
        if *times == 1 {
            firsts.push(seen.text().parse::<usize>().unwrap());
        }
    }
    assert!(
        firsts.iter().copied().eq(0..COUNT),
        "out of order: {firsts:?}"
    );
    let lost = lost.lock().unwrap();
    let repeats = known.iter().map(|(number, times)| {
        let lost = lost.get(number).copied().unwrap_or_default();
        assert!(*times > lost, "{number} was never taken");
        times - 1 - lost
    });
    let repeats: usize = repeats.sum();
    assert!(
        repeats <= KILLS,
        "{repeats} came again whose answer was not lost"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_target_does_not_hold_up_another() {
    let stage = Stage::new().await;
    let (good, good_url) = Service::start(|_| Act::Answer(200)).await;
    let (hanging, hanging_url) = Service::start(|_| Act::Hang).await;
    let _running = stage.forward("/sub/a/", &[&hanging_url, &good_url]).await;
    for number in 0..200 {
        stage.publish("a/b", &number.to_string()).await;
    }
    let seen = good.wait_for(200).await;
    assert!(
        seen.iter()
            .enumerate()
            .all(|(number, one)| one.text() == number.to_string())
    );
    assert_eq!(hanging.wait_for(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_gone_ends_it_with_a_code_of_its_own() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(410)).await;
    let running = stage.forward("/sub/a/", &[&url]).await;
    stage.publish("a/b", "1").await;
    let (code, _, err) = running.ended().await;
    assert_eq!(code, Some(9), "{err}");
    assert!(err.contains("every target has answered 410 Gone"), "{err}");
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_the_first_start_is_never_missed() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| Act::Answer(200)).await;
    stage.publish("a/b", "before").await;
    // It has never had a message when it is killed.
    stage.forward("/sub/a/", &[&url]).await.kill();
    stage.publish("a/b", "meanwhile").await;
    let _running = stage.forward("/sub/a/", &[&url]).await;
    stage.publish("a/b", "after").await;
    let seen = service.wait_for(2).await;
    let bodies: Vec<_> = seen.iter().map(|one| one.text()).collect();
    assert_eq!(bodies, ["meanwhile", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_what_has_begun_and_repeats_nothing() {
    let stage = Stage::new().await;
    let (service, url) = Service::start(|_| {
        std::thread::sleep(Duration::from_millis(100));
        Act::Answer(200)
    })
    .await;
    let mut running = stage.forward("/sub/a/", &[&url]).await;
    for number in 0..5 {
        stage.publish("a/b", &number.to_string()).await;
    }
    service.wait_for(1).await;
    running.terminate();
    let (code, out, err) = running.ended().await;
    assert_eq!(code, Some(0), "{err}");
    let done = service.seen().len();
    assert!(done < 5 && out.lines().count() == done, "{done}: {out}");
    let _running = stage.forward("/sub/a/", &[&url]).await;
    let seen = service.wait_for(5).await;
    assert!(
        seen.iter()
            .enumerate()
            .all(|(number, one)| one.text() == number.to_string())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_may_not_deliver_the_same() {
    let stage = Stage::new().await;
    let (_, url) = Service::start(|_| Act::Answer(200)).await;
    let _running = stage.forward("/sub/a/", &[&url]).await;
    let output = stage.run(&["forward", &stage.url("/sub/a/"), &url]).await;
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("another process is at work"), "{err}");
}
