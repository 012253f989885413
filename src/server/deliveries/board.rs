//! The deliveries that there are now, for those who look at them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::report::DeliveryReport;
use super::tally::{Figures, Tally};

/// A delivery as others see it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) topic: String,
    /// Without what may be secret in it.
    pub(super) url: String,
    pub(super) tally: Arc<Tally>,
}

/// What is delivered, by name.
#[derive(Clone, Default)]
pub(in crate::server) struct Board(Arc<Mutex<Vec<Entry>>>);

impl Board {
    /// How each delivery is doing, in the order of the file.
    pub(in crate::server) fn reports(&self) -> Vec<DeliveryReport> {
        self.lock().iter().map(DeliveryReport::new).collect()
    }

    /// Puts up these and no others.
    pub(super) fn replace(&self, entries: Vec<Entry>) {
        *self.lock() = entries;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Board {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let entries = self.lock().clone();
        if entries.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.tally.figures()))
            .collect();
        let counters: [(&str, &str, fn(&Figures) -> u64); 5] = [
            ("delivered", "Messages that a service has taken", |own| {
                own.delivered
            }),
            (
                "delivery_failures",
                "Attempts to deliver a message that failed",
                |own| own.failed,
            ),
            ("delivery_parked", "Messages that were put aside", |own| {
                own.parked
            }),
            (
                "delivery_skipped",
                "Messages that were not to be delivered",
                |own| own.skipped,
            ),
            (
                "delivery_forbidden",
                "Connections that were not made, for where they led",
                |own| own.forbidden,
            ),
        ];
        for (name, help, read) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (delivery, figures) in &all {
                let labels = [("delivery", *delivery)];
                ConstCounter::new(read(figures)).encode(family.encode_family(&labels)?)?;
            }
        }
        let now = SystemTime::now();
        let gauges: [(&str, &str, &dyn Fn(&Figures) -> f64); 2] = [
            (
                "delivery_lag_seconds",
                "How long the oldest message that is read and not delivered has been in the log",
                &|own| own.lag(now).as_secs_f64(),
            ),
            (
                "delivery_up",
                "Whether the service is offered every message: 0 while it is left alone",
                &|own| f64::from(u8::from(own.state.is_up())),
            ),
        ];
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (delivery, figures) in &all {
                let labels = [("delivery", *delivery)];
                ConstGauge::new(read(figures)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Board(..)")
    }
}
