//! The deliveries that there are now, for those who look at them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use hookbot_forward::{Letters, Taker, Verdict};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::report::{DeliveryReport, DeliveryState, Retried};
use super::service::Service;
use super::tally::{Figures, Tally};

/// A delivery as others see it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) topic: String,
    /// Without what may be secret in it.
    pub(super) url: String,
    pub(super) tally: Arc<Tally>,
    pub(super) aside: Option<Aside>,
    /// Wakes it where the service wanted no more.
    pub(super) resumed: Arc<Notify>,
}

/// What a delivery has put aside, and who would take it.
#[derive(Clone)]
pub(super) struct Aside {
    pub(super) letters: Letters,
    pub(super) service: Arc<Service>,
}

/// What is delivered, by name.
#[derive(Clone, Default)]
pub(in crate::server) struct Board(Arc<Mutex<Vec<Entry>>>);

impl Board {
    /// How each delivery is doing, in the order of the file.
    pub(in crate::server) fn reports(&self) -> Vec<DeliveryReport> {
        self.lock().iter().map(DeliveryReport::new).collect()
    }

    /// Has the delivery of this name go on that has ended because its service wanted no more.
    pub(in crate::server) fn resume(&self, delivery: &str) -> Result<(), String> {
        let entries = self.lock();
        let entry = entries.iter().find(|entry| entry.name == delivery);
        let Some(Entry { tally, resumed, .. }) = entry else {
            return Err(format!("there is no delivery {delivery}"));
        };
        let Figures { state, place, .. } = tally.figures();
        if state != DeliveryState::Gone {
            return Err(format!("{delivery} has not ended"));
        }
        tally.begin(place);
        resumed.notify_one();
        Ok(())
    }

    /// Offers a message again, once, that the delivery of this name has put aside. One that is
    /// taken is not aside any longer.
    pub(in crate::server) async fn retry(
        &self,
        delivery: &str,
        id: u64,
    ) -> Result<Retried, String> {
        let aside = {
            let entries = self.lock();
            let entry = entries.iter().find(|entry| entry.name == delivery);
            entry.and_then(|entry| entry.aside.clone())
        };
        let Some(Aside { letters, service }) = aside else {
            return Err(format!("there is no delivery {delivery} at work"));
        };
        let read = letters.clone();
        let read = spawn_blocking(move || read.read(id)).await;
        let (letter, message) = match read {
            Ok(read) => read.map_err(|error| error.to_string())?,
            Err(error) => return Err(error.to_string()),
        };
        let answer = service
            .offer(&message, letter.attempts.saturating_add(1))
            .await;
        let is_taken = answer.verdict == Verdict::Taken;
        if is_taken {
            letters.remove(id).map_err(|error| error.to_string())?;
        }
        Ok(Retried {
            id,
            is_taken,
            text: answer.text,
        })
    }

    /// Puts up these and no others.
    pub(super) fn replace(&self, entries: Vec<Entry>) {
        *self.lock() = entries;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A metric: its name, what it is, and how it is read.
type Row<T> = (&'static str, &'static str, fn(&Figures, SystemTime) -> T);

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
        let now = SystemTime::now();
        let counters: [Row<u64>; 6] = [
            (
                "delivered",
                "Messages that a service has taken",
                |own, _| own.delivered,
            ),
            (
                "delivery_failures",
                "Attempts to deliver a message that failed",
                |own, _| own.failed,
            ),
            (
                "delivery_parked",
                "Messages that were put aside",
                |own, _| own.parked,
            ),
            (
                "delivery_skipped",
                "Messages that were not to be delivered",
                |own, _| own.skipped,
            ),
            (
                "delivery_forbidden",
                "Connections that were not made, for where they led",
                |own, _| own.forbidden,
            ),
            (
                "delivery_gaps",
                "Times that messages were no longer kept when their turn came",
                |own, _| own.gaps,
            ),
        ];
        for (name, help, read) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (delivery, figures) in &all {
                let labels = [("delivery", *delivery)];
                let metric = ConstCounter::new(read(figures, now));
                metric.encode(family.encode_family(&labels)?)?;
            }
        }
        let gauges: [Row<f64>; 2] = [
            (
                "delivery_lag_seconds",
                "How long the oldest message that is read and not delivered has been in the log",
                |own, now| own.lag(now).as_secs_f64(),
            ),
            (
                "delivery_up",
                "Whether the service is offered every message: 0 while it is left alone",
                |own, _| f64::from(u8::from(own.state.is_up())),
            ),
        ];
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (delivery, figures) in &all {
                let labels = [("delivery", *delivery)];
                let metric = ConstGauge::new(read(figures, now));
                metric.encode(family.encode_family(&labels)?)?;
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
