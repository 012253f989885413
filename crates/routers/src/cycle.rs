//! Routes that lead back to where they began.
//!
//! Seen is what is certain: a route whose topics begin with what another one reads feeds it. What
//! a template makes of a message is not known before there is one; such circles are cut later, see
//! [`Hops`](crate::hops::Hops).

use std::fmt;

use crate::rule::Rule;

/// Rules of which each one publishes what the next one reads, and the last what the first reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// The rules, by their place among those that were asked about.
    pub rules: Vec<usize>,
    names: Vec<String>,
}

impl Cycle {
    /// One cycle for each group of rules that has any.
    #[must_use]
    pub fn find(rules: &[&Rule]) -> Vec<Self> {
        let next: Vec<Vec<usize>> = rules
            .iter()
            .map(|rule| {
                let fed = rules.iter().enumerate();
                fed.filter(|(_, other)| rule.feeds(other))
                    .map(|(at, _)| at)
                    .collect()
            })
            .collect();
        let mut in_one = vec![false; rules.len()];
        let mut cycles = Vec::new();
        for start in 0..rules.len() {
            if in_one[start] {
                continue;
            }
            if let Some(cycle) = way_back(&next, start) {
                cycle.iter().for_each(|at| in_one[*at] = true);
                let names = cycle.iter().map(|at| rules[*at].name().to_owned());
                cycles.push(Self {
                    names: names.collect(),
                    rules: cycle,
                });
            }
        }
        cycles
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.names[..] {
            [name] => write!(f, "route `{name}` publishes what it reads"),
            names => {
                let way = names.join("` feeds `");
                let first = names.first().map_or("", String::as_str);
                write!(f, "route `{way}` feeds `{first}`: a circle")
            }
        }
    }
}

/// The shortest way from `start` to itself.
fn way_back(next: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; next.len()];
    let mut found = std::collections::VecDeque::from([start]);
    while let Some(at) = found.pop_front() {
        for to in &next[at] {
            if *to == start {
                let mut way = vec![at];
                let mut at = at;
                while let Some(before) = came_from[at].filter(|_| at != start) {
                    way.push(before);
                    at = before;
                }
                way.reverse();
                return Some(way);
            }
            if came_from[*to].is_none() {
                came_from[*to] = Some(at);
                found.push_back(*to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;

    /// What circles there are among routes from one topic to others.
    fn cycles(routes: &[(&str, &str)]) -> Vec<Vec<usize>> {
        let rule = |(at, (from, to)): (usize, &(&str, &str))| {
            let route = Route {
                name: format!("r{at}"),
                from: vec![(*from).to_owned()],
                to: to.split(' ').map(str::to_owned).collect(),
                ..Route::default()
            };
            Rule::new(route, None).unwrap()
        };
        let rules: Vec<_> = routes.iter().enumerate().map(rule).collect();
        let rules: Vec<_> = rules.iter().collect();
        Cycle::find(&rules)
            .into_iter()
            .map(|each| each.rules)
            .collect()
    }

    #[test]
    fn a_route_that_feeds_itself_is_seen_however_long_the_way() {
        for (routes, expected) in [
            (&[("a", "a")][..], &[&[0][..]][..]),
            (&[("a/", "a/b")], &[&[0]]),
            (&[("a/", "a/{{topic}}")], &[&[0]]),
            (&[("a/", "x a/{{topic}}")], &[&[0]]),
            (&[("/", "a/{{topic}}")], &[&[0]]),
            (&[("/unsafe/", "/unsafe/x")], &[&[0]]),
            (&[("a/", "b/{{topic}}"), ("b/", "a/x")], &[&[0, 1]]),
            (
                &[("a/", "b"), ("x", "y"), ("b", "c/{{topic}}"), ("c/", "a/x")],
                &[&[0, 2, 3]],
            ),
            (&[("a", "a"), ("b", "b")], &[&[0], &[1]]),
            // None, or none that is certain.
            (&[("a/", "b/x")], &[]),
            (&[("a/", "b/{{topic}}"), ("b/", "c/x")], &[]),
            (&[("a", "a/b")], &[]),
            (&[("a/", "a")], &[]),
            (&[("a/", "ab")], &[]),
            (&[("/", "/unsafe/x")], &[]),
            (&[("/unsafe/", "unsafes/x")], &[]),
            (&[("a/", "{{topic}}")], &[]),
            (&[("a/b/", "a/{{topic}}")], &[]),
            (&[("a/b", "a/b{{topic}}")], &[]),
        ] {
            assert_eq!(cycles(routes), expected, "{routes:?}");
        }
    }

    #[test]
    fn a_circle_is_told_by_the_names_of_its_routes() {
        let name = |names: &[&str]| Cycle {
            rules: Vec::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let alone = name(&["a"]).to_string();
        assert_eq!(alone, "route `a` publishes what it reads");
        let three = name(&["a", "b", "c"]).to_string();
        assert_eq!(three, "route `a` feeds `b` feeds `c` feeds `a`: a circle");
    }
}
