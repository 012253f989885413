//! Calls, answers, hang-ups and lost connections in any order, beside a model that knows what each
//! caller may see: its own answer, whole; or that it failed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::callers::{Answers, AnyBody, caller, data, fed, request, serves, wait_for};
use crate::support::{PATIENCE, TestServer};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A call of so many bytes, answered in so many pieces after so many milliseconds, and given
    /// up by its caller after so many, if at all.
    Call {
        length: usize,
        pieces: u32,
        wait: u64,
        patience: Option<u64>,
    },
    /// The responder is killed, and another one comes.
    Kill,
    /// It is told to stop, and another one comes.
    Stop,
    /// One more responder comes.
    Join,
    /// Nothing, for so many milliseconds.
    Rest(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = (
        0..200_000_usize,
        1..5_u32,
        0..20_u64,
        any::<bool>(),
        0..30_u64,
    );
    let call = call.prop_map(|(length, pieces, wait, is_patient, patience)| Step::Call {
        length,
        pieces,
        wait,
        patience: (!is_patient).then_some(patience),
    });
    let step = prop_oneof![
        12 => call,
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
        1 => Just(Step::Join),
        2 => (0..15_u64).prop_map(Step::Rest),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a call with this number and length says, and is told.
fn content(number: usize, length: usize) -> Bytes {
    let mark = format!("<{number}>");
    mark.bytes().cycle().take(length.max(mark.len())).collect()
}

/// Answers with the body turned round, in pieces.
async fn turned(request: Request<Incoming>) -> Result<Response<AnyBody>, Infallible> {
    let header = |name: &str| request.headers()[name].to_str().unwrap().parse().unwrap();
    let (pieces, wait): (u64, u64) = (header("x-pieces"), header("x-wait"));
    let (sender, body) = fed();
    let Ok(collected) = request.into_body().collect().await else {
        // The caller has given up, and sees nothing of this.
        return Ok(Response::new(body));
    };
    let mut bytes = collected.to_bytes().to_vec();
    bytes.reverse();
    tokio::spawn(async move {
        let size = bytes
            .len()
            .div_ceil(usize::try_from(pieces).unwrap())
            .max(1);
        for piece in bytes.chunks(size) {
            sleep(Duration::from_millis(wait)).await;
            if sender.send(data(piece.to_vec())).await.is_err() {
                return;
            }
        }
    });
    Ok(Response::new(body))
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// With this error, or cut off so that it was seen.
    Failed(String),
    GivenUp,
}

async fn one_call(
    server: Arc<TestServer>,
    number: usize,
    length: usize,
    (pieces, wait): (u32, u64),
    patience: Option<u64>,
) -> End {
    let sent = content(number, length);
    let asked = request(&server, "POST", &format!("/call/t/{number}"))
        .header("x-pieces", pieces)
        .header("x-wait", wait)
        .body(crate::callers::whole(sent.clone()))
        .unwrap();
    let calling = async {
        let mut requests = caller(&server).await;
        let answer = match requests.send_request(asked).await {
            Ok(answer) => answer,
            Err(error) => return End::Failed(error.to_string()),
        };
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            assert_eq!(status, StatusCode::BAD_GATEWAY, "call {number}");
            return End::Failed(crate::callers::text(answer.into_body()).await);
        }
        let mut expected = sent.to_vec();
        expected.reverse();
        let mut got = Vec::new();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    // What came before is still this caller's own.
                    assert!(expected.starts_with(&got), "call {number}");
                    return End::Failed(format!("after {} bytes: {error}", got.len()));
                }
            };
            got.extend_from_slice(&frame.into_data().unwrap());
        }
        assert!(
            got == expected,
            "call {number}: {} of {} bytes",
            got.len(),
            expected.len()
        );
        End::Answered
    };
    let patience = patience.map_or(PATIENCE, Duration::from_millis);
    let is_patient = patience == PATIENCE;
    match timeout(patience, calling).await {
        Ok(end) => end,
        Err(_) if is_patient => panic!("call {number} has no end"),
        Err(_) => End::GivenUp,
    }
}

async fn responder(server: &TestServer) -> Answers {
    serves(server, "/answer/t", service_fn(turned), |own| own).await
}

async fn run(steps: Vec<Step>) {
    let server = Arc::new(TestServer::start().await);
    let mut all = vec![responder(&server).await];
    let mut calls = JoinSet::new();
    let mut is_calm = true;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Call {
                length,
                pieces,
                wait,
                patience,
            } => {
                let server = server.clone();
                calls.spawn(one_call(server, number, length, (pieces, wait), patience));
            }
            Step::Kill => {
                is_calm = false;
                all.remove(0).running.abort();
                all.push(responder(&server).await);
            }
            Step::Stop => {
                // It ends what it has; for what comes there has to be another.
                all.push(responder(&server).await);
                let mut first = all.remove(0);
                first.stop.cancel();
                tokio::spawn(async move { drop((&mut first.running).await) });
            }
            Step::Join => all.push(responder(&server).await),
            Step::Rest(ms) => sleep(Duration::from_millis(ms)).await,
        }
    }
    let ends = calls.join_all().await;
    let is_failed = |end: &&End| matches!(end, End::Failed(_));
    let failed: Vec<_> = ends.iter().filter(is_failed).collect();
    // Nobody is lost where nobody was killed.
    assert!(!is_calm || failed.is_empty(), "for no reason: {failed:?}");
    wait_for(&server, "hookbot_calls_in_flight", 0).await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("HOOKBOT_TEST_LONG").is_some() { 200 } else { 12 },
        max_shrink_iters: 50,
        ..ProptestConfig::default()
    })]
    #[test]
    fn whatever_happens_a_caller_sees_its_own_answer_whole_or_that_it_failed(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}
