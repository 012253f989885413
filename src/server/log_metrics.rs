//! What the log tells of itself, read when somebody looks.

use std::fmt;

use hookbot_broker::Broker;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads the figures of a broker and its log.
pub(super) struct LogMetrics(pub(super) Broker);

impl Collector for LogMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Self(broker) = self;
        let bounds = broker.bounds();
        let mut gauge =
            |name, help, value: u64| single(&mut encoder, name, help, &ConstGauge::new(value));
        gauge(
            "catching_up",
            "Subscriptions that read the log",
            broker.catching_up() as u64,
        )?;
        gauge(
            "log_first_offset",
            "The oldest message's offset",
            bounds.first.0,
        )?;
        gauge(
            "log_next_offset",
            "The next message's offset",
            bounds.next.0,
        )?;
        gauge(
            "log_writable",
            "Whether the log takes messages",
            broker.is_writable().into(),
        )?;
        let Some(stats) = broker.log().stats() else {
            return Ok(());
        };
        gauge(
            "log_queued_bytes",
            "Bytes that wait to be written",
            stats.queued_bytes as u64,
        )?;
        let lanes = [("safe", stats.safe), ("unsafe", stats.r#unsafe)];
        let messages = lanes.map(|(topics, lane)| (topics, lane.messages));
        let bytes = lanes.map(|(topics, lane)| (topics, lane.bytes));
        let segments = lanes.map(|(topics, lane)| (topics, lane.segments as u64));
        by_topics(&mut encoder, "log_messages", "Messages kept", messages)?;
        by_topics(&mut encoder, "log_bytes", "Bytes on disk", bytes)?;
        by_topics(&mut encoder, "log_segments", "Files they are in", segments)?;

        let commits = stats.commits;
        let mut counter =
            |name, help, value| single(&mut encoder, name, help, &ConstCounter::new(value));
        counter(
            "log_failed_commits",
            "Batches that could not be written",
            commits.failed,
        )?;
        counter(
            "log_failed_reads",
            "Reads that met a damaged message",
            stats.failed_reads,
        )?;
        let mut histogram = |name, help, sum, buckets: Vec<_>| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram);
            metric?.encode_histogram::<NoLabelSet>(sum, commits.batches, &buckets, None)
        };
        let times = buckets(&commits.by_time, |micros| micros * 1e-6);
        // Fewer messages than the power.
        let sizes = buckets(&commits.by_size, |messages| messages - 1.0);
        histogram(
            "log_commit_seconds",
            "Time to write and sync a batch",
            commits.time.as_secs_f64(),
            times,
        )?;
        histogram(
            "log_commit_messages",
            "Messages in a batch",
            commits.messages as f64,
            sizes,
        )
    }
}

impl fmt::Debug for LogMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogMetrics(..)")
    }
}

fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn by_topics(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: [(&str, u64); 2],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (topics, value) in values {
        family
            .encode_family(&[("topics", topics)])?
            .encode_gauge(&value)?;
    }
    Ok(())
}

/// Counts by powers of two, with their upper bounds; the last has none.
fn buckets(counts: &[u64], bound: impl Fn(f64) -> f64) -> Vec<(f64, u64)> {
    let last = counts.len() - 1;
    let bound = |power: usize| match i32::try_from(power) {
        Ok(exponent) if power < last => bound(2_f64.powi(exponent)),
        _ => f64::INFINITY,
    };
    counts
        .iter()
        .enumerate()
        .map(|(power, count)| (bound(power), *count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_log::{DiskLog, Options};
    use hookbot_protocol::{Publication, Topic};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_log_on_disk_shows_its_size_and_its_commits() {
        let folder = tempfile::tempdir().unwrap();
        let log = DiskLog::open(folder.path(), Options::default()).unwrap();
        let (broker, _) = Broker::new(Arc::new(log));
        for _ in 0..3 {
            let publication = Publication::new(Topic::parse("t").unwrap(), "body");
            broker.publish(publication).await.unwrap();
        }
        let mut registry = Registry::default();
        registry.register_collector(Box::new(LogMetrics(broker)));
        // A commit is counted a moment after it is acknowledged.
        let text = loop {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            if text.contains("log_commit_seconds_count 3") {
                break text;
            }
        };
        for line in [
            "log_messages{topics=\"safe\"} 3",
            "log_messages{topics=\"unsafe\"} 0",
            "log_segments{topics=\"safe\"} 1",
            "log_next_offset 4",
            "log_failed_commits_total 0",
            "log_commit_seconds_count 3",
            "log_commit_messages_sum 3.0",
            "log_commit_messages_bucket{le=\"+Inf\"} 3",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
    }
}
