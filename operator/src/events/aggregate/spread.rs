//! Which rules match too many different things on one node to have an Event about each.

use std::{collections::HashMap, time::Duration};

use crate::events::object::SeriesId;

/// Different things of one rule on one node that have Events of their own, within [`PERIOD`].
const MAX_SERIES: usize = 50;
const PERIOD: Duration = Duration::from_secs(600);
/// Pairs of rule and node that are watched.
const MAX_PAIRS: usize = 16_384;

#[derive(Debug)]
struct Seen {
    since: Duration,
    /// The first half of an identity is enough to tell a few dozen apart.
    ids: Vec<u64>,
}

/// What each rule has matched on each node.
#[derive(Debug, Default)]
pub(super) struct Spread {
    pairs: HashMap<u64, Seen, ahash::RandomState>,
    hasher: ahash::RandomState,
}

impl Spread {
    /// Notes that a rule matched something on a node that has no series yet. Gives whether it is one too many.
    pub fn is_too_wide(&mut self, rule: (&str, &str), node: &str, id: SeriesId, now: Duration) -> bool {
        let pair = self.hasher.hash_one((rule, node));
        if !self.pairs.contains_key(&pair) && self.pairs.len() >= MAX_PAIRS {
            self.pairs.retain(|_, seen| now < seen.since.saturating_add(PERIOD));
            if self.pairs.len() >= MAX_PAIRS {
                return false;
            }
        }
        let seen = self.pairs.entry(pair).or_insert_with(|| Seen { since: now, ids: Vec::new() });
        if now >= seen.since.saturating_add(PERIOD) {
            *seen = Seen { since: now, ids: Vec::new() };
        }
        let id = self.hasher.hash_one(id);
        if seen.ids.contains(&id) {
            return false;
        }
        if seen.ids.len() >= MAX_SERIES {
            return true;
        }
        seen.ids.push(id);
        false
    }
}
