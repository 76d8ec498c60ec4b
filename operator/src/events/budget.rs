//! How much may be written: token buckets for the cluster, each namespace and each node.
//!
//! What is urgent may use a bucket up, the rest leaves it a reserve. Pure: time is an argument.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, time::Duration};

/// Part of a bucket that only urgent writes may use.
const RESERVE: f64 = 0.2;
/// Part of the cluster's bucket that changes of Events may use, lest new Events find it empty.
const RENEWALS: f64 = 0.6;
/// Buckets of one kind that are kept. Full ones are forgotten first: a new one is the same.
const MAX_BUCKETS: usize = 16_384;

/// A rate, and what may come at once after a quiet time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Writes per second in the long run.
    pub per_second: f64,
    /// Writes at once.
    pub burst: u32,
}

/// How many Events are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budgets {
    /// All writes of this process.
    pub controller: Rate,
    /// New and changed Events in each namespace.
    pub namespace: Rate,
    /// New Events about what happened on each node.
    pub node: Rate,
}

impl Default for Budgets {
    /// A third of what the heartbeats of a thousand nodes cost the API server.
    fn default() -> Self {
        Self {
            controller: Rate { per_second: 25.0, burst: 200 },
            namespace: Rate { per_second: 5.0, burst: 50 },
            node: Rate { per_second: 0.5, burst: 25 },
        }
    }
}

/// How deep a write may reach into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A new Event about an alert of priority Critical or above: to the ground.
    Urgent,
    /// A change of an Event, or the announcement that some were suppressed: to half the reserve.
    Renewal,
    /// Any other new Event: to the reserve.
    Routine,
}

/// Which bucket was empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// That of the node.
    Node,
    /// That of the namespace.
    Namespace,
    /// That of the cluster.
    Controller,
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// When `tokens` was right. In the future while the bucket is closed.
    at: Duration,
}

impl Bucket {
    fn full(rate: Rate, now: Duration) -> Self {
        Self { tokens: f64::from(rate.burst), at: now }
    }

    fn refill(&mut self, rate: Rate, now: Duration) {
        let Some(passed) = now.checked_sub(self.at) else { return };
        self.tokens = (self.tokens + passed.as_secs_f64() * rate.per_second).min(f64::from(rate.burst));
        self.at = now;
    }

    fn has(&mut self, rate: Rate, class: Class, now: Duration) -> bool {
        self.refill(rate, now);
        let burst = f64::from(rate.burst);
        let part = match class {
            Class::Urgent => 0.0,
            Class::Renewal => RESERVE / 2.0,
            Class::Routine => RESERVE,
        };
        // A bucket of one token has no room for a reserve.
        let floor = (burst * part).min((burst - 1.0).max(0.0));
        self.tokens >= floor + 1.0
    }

    fn take(&mut self) {
        self.tokens -= 1.0;
    }
}

/// Buckets of one kind, made when they are first needed.
#[derive(Debug)]
struct Buckets<K>(HashMap<K, Bucket, ahash::RandomState>);

impl<K: Hash + Eq + Borrow<str> + for<'a> From<&'a str>> Buckets<K> {
    fn bucket(&mut self, key: &str, rate: Rate, now: Duration) -> Option<&mut Bucket> {
        if !self.0.contains_key(key) {
            if self.0.len() >= MAX_BUCKETS {
                self.0.retain(|_, bucket| {
                    bucket.refill(rate, now);
                    bucket.tokens < f64::from(rate.burst)
                });
                if self.0.len() >= MAX_BUCKETS {
                    return None;
                }
            }
            self.0.insert(K::from(key), Bucket::full(rate, now));
        }
        self.0.get_mut(key)
    }

    fn has(&mut self, key: &str, rate: Rate, class: Class, now: Duration) -> bool {
        self.bucket(key, rate, now).is_some_and(|bucket| bucket.has(rate, class, now))
    }

    fn take(&mut self, key: &str) {
        if let Some(bucket) = self.0.get_mut(key) {
            bucket.take();
        }
    }
}

/// All buckets.
#[derive(Debug)]
pub struct Budget {
    rates: Budgets,
    controller: Bucket,
    renewals: Bucket,
    namespaces: Buckets<Box<str>>,
    nodes: Buckets<Box<str>>,
}

fn renewals(controller: Rate) -> Rate {
    let burst = (f64::from(controller.burst) * RENEWALS).max(1.0);
    // Not negative, and not more than a u32: `as` cannot go wrong.
    Rate { per_second: controller.per_second * RENEWALS, burst: burst as u32 }
}

impl Budget {
    /// Full buckets.
    pub fn new(rates: Budgets, now: Duration) -> Self {
        Self {
            rates,
            controller: Bucket::full(rates.controller, now),
            renewals: Bucket::full(renewals(rates.controller), now),
            namespaces: Buckets(HashMap::default()),
            nodes: Buckets(HashMap::default()),
        }
    }

    /// Other rates from now on. What is in the buckets stays, up to their new size.
    pub fn set(&mut self, rates: Budgets) {
        self.rates = rates;
    }

    /// Takes what a new Event costs, or takes nothing and says which bucket lacks it. `node` is left out for Events
    /// about many nodes, `namespace` for those about what is in none.
    pub fn create(
        &mut self,
        class: Class,
        node: Option<&str>,
        namespace: Option<&str>,
        now: Duration,
    ) -> Result<(), Empty> {
        if let Some(node) = node
            && !self.nodes.has(node, self.rates.node, class, now)
        {
            return Err(Empty::Node);
        }
        if let Some(namespace) = namespace
            && !self.namespaces.has(namespace, self.rates.namespace, class, now)
        {
            return Err(Empty::Namespace);
        }
        if !self.controller.has(self.rates.controller, class, now) {
            return Err(Empty::Controller);
        }
        if let Some(node) = node {
            self.nodes.take(node);
        }
        if let Some(namespace) = namespace {
            self.namespaces.take(namespace);
        }
        self.controller.take();
        Ok(())
    }

    /// Takes what a change of an Event costs, if it is there.
    pub fn renew(&mut self, namespace: Option<&str>, now: Duration) -> bool {
        let class = Class::Renewal;
        let there = self.renewals.has(renewals(self.rates.controller), Class::Urgent, now)
            && self.controller.has(self.rates.controller, class, now)
            && namespace.is_none_or(|namespace| self.namespaces.has(namespace, self.rates.namespace, class, now));
        if there {
            self.renewals.take();
            self.controller.take();
            if let Some(namespace) = namespace {
                self.namespaces.take(namespace);
            }
        }
        there
    }

    /// Takes what has been used beyond what was planned: the bucket may owe it.
    pub fn charge(&mut self, requests: u32) {
        self.controller.tokens -= f64::from(requests);
    }

    /// The API server asked for a pause: the cluster's bucket is empty until then.
    pub fn pause(&mut self, until: Duration) {
        self.controller = Bucket { tokens: self.controller.tokens.min(0.0), at: until.max(self.controller.at) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget() -> Budget {
        Budget::new(Budgets::default(), Duration::ZERO)
    }

    fn burst(budget: &mut Budget, class: Class, now: Duration) -> usize {
        (0..1000).take_while(|_| budget.create(class, None, None, now).is_ok()).count()
    }

    #[test]
    fn a_fifth_is_kept_for_what_is_urgent() {
        let mut budget = budget();
        assert_eq!(burst(&mut budget, Class::Routine, Duration::ZERO), 160);
        assert!(budget.renew(None, Duration::ZERO), "a change reaches further");
        assert_eq!(burst(&mut budget, Class::Urgent, Duration::ZERO), 39);
        assert_eq!(burst(&mut budget, Class::Urgent, SECOND), 25);
    }

    #[test]
    fn changes_leave_room_for_new_events() {
        let mut budget = budget();
        let renewed = (0..1000).take_while(|_| budget.renew(None, Duration::ZERO)).count();
        assert_eq!(renewed, 120);
        assert_eq!(burst(&mut budget, Class::Routine, Duration::ZERO), 40);
        let renewed = (0..1000).take_while(|_| budget.renew(None, SECOND)).count();
        assert_eq!(renewed, 15, "of 25");
    }

    #[test]
    fn what_one_bucket_refuses_costs_the_others_nothing() {
        let mut budget = budget();
        let results: Vec<_> =
            (0..100).map(|_| budget.create(Class::Routine, Some("n"), Some("ns"), Duration::ZERO)).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
        assert_eq!(results.last(), Some(&Err(Empty::Node)));
        let other = (0..100).take_while(|i| {
            let node = i.to_string();
            budget.create(Class::Routine, Some(&node), Some("ns"), Duration::ZERO).is_ok()
        });
        assert_eq!(other.count(), 20, "forty of the namespace's fifty, less what the first node took");
        assert_eq!(budget.create(Class::Routine, Some("m"), Some("ns"), Duration::ZERO), Err(Empty::Namespace));
        assert_eq!(burst(&mut budget, Class::Routine, Duration::ZERO), 120);
    }

    #[test]
    fn a_pause_empties_the_bucket_until_it_ends() {
        let mut budget = budget();
        budget.pause(10 * SECOND);
        assert_eq!(burst(&mut budget, Class::Urgent, 9 * SECOND), 0);
        assert_eq!(burst(&mut budget, Class::Urgent, 11 * SECOND), 25);
    }

    #[test]
    fn a_bucket_of_one_has_no_reserve() {
        let one = Rate { per_second: 1.0, burst: 1 };
        let mut budget = Budget::new(Budgets { controller: one, ..Budgets::default() }, Duration::ZERO);
        assert_eq!(burst(&mut budget, Class::Routine, Duration::ZERO), 1);
        assert!(budget.renew(None, SECOND));
    }

    #[test]
    fn buckets_of_many_nodes_do_not_pile_up() {
        let mut budget = budget();
        for i in 0..40_000_u32 {
            let now = Duration::from_millis(u64::from(i));
            let _ = budget.create(Class::Urgent, Some(&i.to_string()), None, now);
            assert!(budget.nodes.0.len() <= MAX_BUCKETS);
        }
    }
}
