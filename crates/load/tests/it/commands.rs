//! Each command has its figures, and finds nothing wrong with a broker that does nothing wrong.

use crate::real::RealBroker;
use crate::{figure, load, only};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_loop_delivers_all_that_was_acknowledged() {
    let broker = RealBroker::start().await;
    let line = "fanout --subscribers 6 --publishers 3 --topics 2 --duration 100ms --pipeline 4";
    let report = load(&format!("{line} --rounds 2 {}", broker.arguments())).await;
    assert!(report.is_clean(), "{}", report.to_json());
    let rounds: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    for round in rounds["rounds"].as_array().unwrap() {
        let count = |name: &str| round[0][name].as_u64().unwrap();
        assert!(count("acknowledged") > 0);
        // Each topic has half of the subscribers.
        assert_eq!(count("deliveries"), count("acknowledged") * 3);
    }
    let row = &report.rows()[0];
    for name in [
        "publish_p99_us",
        "e2e_p999_us",
        "server_us_per_delivery",
        "server_us_per_publish",
        "rss_after_kib",
        "anon_before_kib",
        "deliveries_per_s",
    ] {
        assert!(figure(row, name) > 0.0, "{name}");
    }
    for name in ["refused", "unanswered", "unsent", "cut_off"] {
        assert_eq!(figure(row, name), 0.0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_publishes_what_its_schedule_says() {
    let broker = RealBroker::start().await;
    let line = "fanout --subscribers 4 --publishers 3 --rate 1000 --duration 100ms --size 42";
    let report = load(&format!("{line} {}", broker.arguments())).await;
    assert!(report.is_clean(), "{}", report.to_json());
    assert_eq!(figure(&only(&report), "acknowledged"), 100.0);
    assert_eq!(figure(&only(&report), "deliveries"), 400.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_need_no_subscribers() {
    let broker = RealBroker::start().await;
    for more in ["", "--pipeline 8", "--rate 500", "--size 200000 --topics 3"] {
        let line = format!("publish --connections 4 --duration 50ms {more}");
        let report = load(&format!("{line} {}", broker.arguments())).await;
        assert!(figure(&only(&report), "acknowledged") > 0.0, "{more}");
        assert_eq!(figure(&only(&report), "refused"), 0.0, "{more}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_subscribers_get_a_broadcast_and_a_burst() {
    let broker = RealBroker::start().await;
    let line = "idle --subscribers 30 --burst 5 --settle 1ms";
    let report = load(&format!("{line} {}", broker.arguments())).await;
    assert!(report.is_clean(), "{}", report.to_json());
    let row = only(&report);
    for name in [
        "connect_per_s",
        "broadcast_ms",
        "broadcast_e2e_max_us",
        "burst_e2e_p50_us",
    ] {
        assert!(figure(&row, name) > 0.0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_measured_alone_and_beside_those_that_stall() {
    let broker = RealBroker::start().await;
    let line = "slow --subscribers 3 --stalled 4 --rate 400 --duration 100ms --size 20000";
    let report = load(&format!("{line} {}", broker.arguments())).await;
    assert!(report.is_clean(), "{}", report.to_json());
    let row = only(&report);
    assert_eq!(figure(&row, "alone_deliveries"), 120.0);
    assert_eq!(figure(&row, "beside_deliveries"), 120.0);
    assert!(figure(&row, "beside_e2e_p50_us") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_come_back_miss_nothing() {
    let broker = RealBroker::start().await;
    let line = "resume --subscribers 4 --times 5 --topics 2 --rate 1000 --duration 200ms";
    let report = load(&format!("{line} {}", broker.arguments())).await;
    assert!(report.is_clean(), "{}", report.to_json());
    let row = only(&report);
    assert_eq!(figure(&row, "deliveries"), 400.0);
    assert_eq!(figure(&row, "gaps"), 0.0);
    assert!(figure(&row, "resumed") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growth_has_a_row_for_each_number() {
    let broker = RealBroker::start().await;
    let line = "growth --subscribers 1,3 --topics 1,20 --duration 30ms";
    let report = load(&format!("{line} {}", broker.arguments())).await;
    assert!(report.is_clean(), "{}", report.to_json());
    let rows = report.rows();
    assert_eq!(rows.len(), 4);
    assert!(
        rows.iter()
            .all(|row| figure(row, "server_us_per_publish") > 0.0)
    );
    // A title, the names, and the rows.
    assert_eq!(report.to_text().lines().count(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_floor_needs_no_server() {
    let report = load("floor --subscribers 3 --duration 20ms").await;
    for name in ["nodelay_us_per_write", "nagle_us_per_write"] {
        assert!(figure(&only(&report), name) > 0.0, "{name}");
    }
}
