//! What the server counts. Never by topic, path or token: their number has no bound. Sources are
//! as many as there are in the rules, and names of tokens are counted up to a bound.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hookbot_broker::Broker;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

use super::deliveries::Board;
use super::log_metrics::LogMetrics;
use super::rules::Rulebook;
use super::source_metrics::SourceMetrics;
use super::token_uses::TokenUses;

/// Everything that is counted, and how it is shown.
pub(super) struct Metrics {
    registry: Registry,
    /// Messages published, without a token and with one.
    publishes: [Counter; 2],
    published_bytes: Counter,
    duplicates: Counter,
    refusals: Family<Refused, Counter>,
    pub(super) deliveries: Counter,
    subscribers: Family<Connected, Gauge>,
    pub(super) resumes: Counter,
    pub(super) gaps: Counter,
    routed: Family<By, Counter>,
    parked: Family<By, Counter>,
    not_routed: Family<By, Counter>,
    pub(super) config_reloads: Counter,
    pub(super) config_reload_failures: Counter,
    calls: Family<Ended, Counter>,
    calls_in_flight: Gauge,
    responders: Gauge,
}

/// Whether a message was published with a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Space {
    trusted: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Answer {
    Yes,
    No,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

/// Which router; whoever runs the server has named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    router: String,
}

impl By {
    fn router(name: &str) -> Self {
        let router = name.to_owned();
        Self { router }
    }
}

/// How a subscriber gets its messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connected {
    by: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Way {
    Websocket,
    EventStream,
}

impl Metrics {
    pub(super) fn new(
        broker: Broker,
        book: Arc<ArcSwap<Rulebook>>,
        token_uses: &TokenUses,
        deliveries: Board,
    ) -> Self {
        let mut registry = Registry::with_prefix("hookbot");
        let own = &mut registry;
        let publishes: Family<Space, Counter> = new(own, "publishes", "Messages published");
        let by_trust = [Answer::No, Answer::Yes];
        let metrics = Self {
            publishes: by_trust.map(|trusted| publishes.get_or_create_owned(&Space { trusted })),
            published_bytes: new(own, "published_bytes", "Bytes of their bodies"),
            duplicates: new(
                own,
                "duplicates",
                "Deliveries that had been published before",
            ),
            refusals: new(own, "refusals", "Requests refused"),
            deliveries: new(
                own,
                "deliveries",
                "Messages handed to subscribers' connections",
            ),
            subscribers: new(own, "subscribers", "Subscribers connected"),
            resumes: new(
                own,
                "resumes",
                "Subscriptions that began at a place in the log",
            ),
            gaps: new(own, "gaps", "Subscribers that missed messages"),
            routed: new(own, "routed", "Messages that a router has published"),
            parked: new(
                own,
                "parked",
                "Messages that a router could not route and has put aside",
            ),
            not_routed: new(
                own,
                "not_routed",
                "Messages that a router did not trust or understand",
            ),
            config_reloads: new(
                own,
                "config_reloads",
                "Changes of the configuration that were taken",
            ),
            config_reload_failures: new(
                own,
                "config_reload_failures",
                "Changes of the configuration that were wrong and not taken",
            ),
            calls: new(own, "calls", "Calls that are over"),
            calls_in_flight: new(own, "calls_in_flight", "Calls that are not over"),
            responders: new(own, "responders", "Responders connected"),
            registry: Registry::default(),
        };
        token_uses.register(&mut registry);
        registry.register_collector(Box::new(LogMetrics(broker)));
        registry.register_collector(Box::new(SourceMetrics(book)));
        registry.register_collector(Box::new(deliveries));
        Self {
            registry,
            ..metrics
        }
    }

    pub(super) fn published(&self, is_trusted: bool, is_duplicate: bool, bytes: usize) {
        if is_duplicate {
            self.duplicates.inc();
            return;
        }
        self.publishes[usize::from(is_trusted)].inc();
        self.published_bytes.inc_by(bytes as u64);
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&Refused { reason }).inc();
    }

    pub(super) fn routed(&self, router: &str) {
        self.routed.get_or_create(&By::router(router)).inc();
    }

    pub(super) fn parked(&self, router: &str) {
        self.parked.get_or_create(&By::router(router)).inc();
    }

    pub(super) fn not_routed(&self, router: &str) {
        self.not_routed.get_or_create(&By::router(router)).inc();
    }

    /// Everything, as Prometheus reads it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A metric that is shown by this name.
fn new<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// A subscriber that is counted as long as this lives.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(metrics: &Metrics, by: Way) -> Self {
        let gauge = metrics.subscribers.get_or_create(&Connected { by }).clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// How a call has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// How a call may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of the answer is with the caller.
    Answered,
    /// The caller has hung up, or its body has ended early.
    HungUp,
    /// The answer began, and the responder was lost.
    Cut,
    /// There was no answer in time, or it stood still.
    Timeout,
    /// The responder was lost.
    Failed,
    /// Nobody was there.
    NoResponder,
    /// Nobody was there, and the call was published.
    Published,
    /// All responders had enough to do.
    Busy,
    TooLarge,
    /// It was not let in.
    Refused,
}

impl Outcome {
    /// A word for it, to count by.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::HungUp => "hung_up",
            Self::Cut => "cut",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::NoResponder => "no_responder",
            Self::Published => "published",
            Self::Busy => "busy",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
        }
    }
}

/// A call that is in flight as long as this lives, and counted by its outcome then.
pub(super) struct CallCount {
    /// Unless somebody says otherwise, the caller has hung up.
    pub(super) outcome: Outcome,
    calls: Family<Ended, Counter>,
    in_flight: Gauge,
}

impl CallCount {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let in_flight = metrics.calls_in_flight.clone();
        in_flight.inc();
        Self {
            outcome: Outcome::HungUp,
            calls: metrics.calls.clone(),
            in_flight,
        }
    }
}

impl Drop for CallCount {
    fn drop(&mut self) {
        self.in_flight.dec();
        let outcome = self.outcome.word();
        self.calls.get_or_create(&Ended { outcome }).inc();
    }
}

/// A responder that is counted as long as this lives.
pub(super) struct Responding(Gauge);

impl Responding {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let gauge = metrics.responders.clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Responding {
    fn drop(&mut self) {
        self.0.dec();
    }
}
