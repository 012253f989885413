//! What a provider has sent, as it remembers it: attempts, and the deliveries that they are of.

use std::collections::HashMap;

use bytes::Bytes;
use jiff::Timestamp;

/// One attempt to deliver something, as a provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The provider's own number for it.
    pub id: u64,
    /// What all attempts of a delivery have in common, and what is in its headers: GitHub's
    /// `X-GitHub-Delivery`, GitLab's `Idempotency-Key`.
    pub delivery: String,
    /// When it was; GitLab does not tell before version 18.
    pub at: Option<Timestamp>,
    /// What happened, such as `push` or `issues.opened`.
    pub event: String,
    /// What came of it, in the provider's words.
    pub status: String,
    /// Whether the receiver took it.
    pub succeeded: bool,
    /// Whether it repeats an earlier one.
    pub is_repeated: bool,
    /// What was sent, where the list itself has it.
    pub(crate) content: Option<Content>,
}

/// What was sent, as far as the provider remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The request's headers, in the provider's order.
    pub headers: Vec<(String, String)>,
    /// The payload: the JSON text as the API has it, which need not be what was sent byte by byte.
    pub payload: Bytes,
}

/// One delivery with all that is known of its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Oldest first; never empty.
    attempts: Vec<Attempt>,
}

impl Delivery {
    /// Puts attempts, newest first as providers list them, together by delivery: oldest delivery
    /// first, by its first attempt.
    #[must_use]
    pub fn group(attempts: Vec<Attempt>) -> Vec<Self> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut deliveries: Vec<(Option<Timestamp>, Self)> = Vec::new();
        let mut last = None;
        for attempt in attempts.into_iter().rev() {
            // One without a time is as old as the one before it in the list.
            last = attempt.at.or(last);
            match places.get(&attempt.delivery) {
                Some(place) => deliveries[*place].1.attempts.push(attempt),
                None => {
                    places.insert(attempt.delivery.clone(), deliveries.len());
                    let attempts = vec![attempt];
                    deliveries.push((last, Self { attempts }));
                }
            }
        }
        // The lists are not quite in order where attempts took their time.
        deliveries.sort_by_key(|(at, _)| *at);
        deliveries
            .into_iter()
            .map(|(_, delivery)| delivery)
            .collect()
    }

    fn first(&self) -> &Attempt {
        &self.attempts[0]
    }

    /// The newest attempt.
    #[must_use]
    pub fn last(&self) -> &Attempt {
        &self.attempts[self.attempts.len() - 1]
    }

    /// What it is called, in its headers too.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.first().delivery
    }

    /// What happened, such as `push` or `issues.opened`.
    #[must_use]
    pub fn event(&self) -> &str {
        &self.first().event
    }

    /// When it was first tried, as far as the list goes back.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.first().at
    }

    /// Whether any attempt succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.succeeded)
    }

    /// Whether the first attempt is older than the list.
    #[must_use]
    pub fn began_earlier(&self) -> bool {
        self.first().is_repeated
    }

    /// Whether it is of this kind: `issues` stands for all `issues.…`.
    #[must_use]
    pub fn is_a(&self, event: &str) -> bool {
        let rest = self.event().strip_prefix(event);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The attempts whose content is worth asking for: what was taken before what was not, and
    /// the newest first.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Attempt> {
        let taken = |wanted: bool| {
            let newest_first = self.attempts.iter().rev();
            newest_first.filter(move |attempt| attempt.succeeded == wanted)
        };
        taken(true).chain(taken(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(id: u64, delivery: &str, second: Option<i64>, succeeded: bool) -> Attempt {
        Attempt {
            id,
            delivery: delivery.to_owned(),
            at: second.map(|second| Timestamp::from_second(second).unwrap()),
            event: "issues.opened".to_owned(),
            status: String::new(),
            succeeded,
            is_repeated: false,
            content: None,
        }
    }

    #[test]
    fn attempts_become_deliveries_oldest_first_and_each_once() {
        let deliveries = Delivery::group(vec![
            attempt(6, "a", Some(60), false),
            attempt(5, "c", Some(50), true),
            attempt(4, "a", Some(40), true),
            attempt(3, "b", None, false),
            attempt(2, "a", Some(20), false),
            attempt(1, "d", Some(30), false),
        ]);
        let ids: Vec<_> = deliveries.iter().map(Delivery::id).collect();
        assert_eq!(ids, ["a", "b", "d", "c"]);
        let first = &deliveries[0];
        assert!(first.succeeded() && !deliveries[1].succeeded());
        let order: Vec<_> = first.candidates().map(|attempt| attempt.id).collect();
        assert_eq!(order, [4, 6, 2]);
        assert_eq!((first.last().id, first.at().unwrap().as_second()), (6, 20));
    }

    #[test]
    fn a_kind_of_event_stands_for_its_actions() {
        let delivery = &Delivery::group(vec![attempt(1, "a", None, true)])[0];
        for (kind, is_a) in [
            ("issues", true),
            ("issues.opened", true),
            ("issue", false),
            ("issues.open", false),
        ] {
            assert_eq!(delivery.is_a(kind), is_a, "{kind}");
        }
    }
}
