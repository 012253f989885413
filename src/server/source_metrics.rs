//! What came by each source, read when somebody looks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::rules::Rulebook;

/// Reads the figures of the sources that there are now.
pub(super) struct SourceMetrics(pub(super) Arc<ArcSwap<Rulebook>>);

impl fmt::Debug for SourceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceMetrics")
    }
}

impl Collector for SourceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let book = self.0.load_full();
        if book.gates().next().is_none() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "source_requests",
            "Requests to a source that were not refused before they were looked at",
            None,
            MetricType::Counter,
        )?;
        for gate in book.gates() {
            let tally = &gate.tally;
            for (outcome, figure) in [
                ("verified", &tally.verified),
                ("rejected", &tally.rejected),
                ("quarantined", &tally.quarantined),
                ("answered", &tally.answered),
                ("unverified", &tally.unverified),
            ] {
                let labels = [("source", gate.source.name.as_str()), ("outcome", outcome)];
                ConstCounter::new(read(figure)).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "source_secret_uses",
            "Messages whose signature was made with this secret",
            None,
            MetricType::Counter,
        )?;
        for gate in book.gates() {
            for (secret, uses) in gate.source.secrets.iter().zip(&gate.uses) {
                let labels = [
                    ("source", gate.source.name.as_str()),
                    ("secret", secret.label.as_str()),
                ];
                ConstCounter::new(read(&uses.number)).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "source_secret_last_use_seconds",
            "When this secret last matched, in seconds since 1970; 0 for never",
            None,
            MetricType::Gauge,
        )?;
        for gate in book.gates() {
            for (secret, uses) in gate.source.secrets.iter().zip(&gate.uses) {
                let labels = [
                    ("source", gate.source.name.as_str()),
                    ("secret", secret.label.as_str()),
                ];
                ConstGauge::new(read(&uses.last)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn read(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}
