//! How many alerts of a rule are sent in how much time: `spec.throttle` of a rule resource.
//!
//! Time is the events' own, so that a burst that is judged late is throttled as if it were judged at once. The table of
//! keys is bounded; what finds no room in it passes, for an alert too many is better than one too few.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

use event::fields::{Field, Subject};
use rules::{filter::names::Catalogue, output::Template};
use tracing::warn;

/// Most keys that are remembered for one resource.
const KEYS: usize = 16_384;

/// The throttle of one resource.
pub struct Throttle {
    per_key: u32,
    interval_ns: u64,
    key: Template,
    /// The event loop alone takes this lock.
    windows: Mutex<HashMap<u64, Window>>,
    hasher: RandomState,
}

struct Window {
    began_ns: u64,
    alerts: u32,
}

impl Throttle {
    /// At most `per_key` alerts of one rule whose `key` fields are equal in `interval_ns`. `None` when a field of the key
    /// does not exist.
    pub fn new(per_key: u32, interval_ns: u64, key: &[String], catalogue: Catalogue) -> Option<Self> {
        let text: String = key.iter().map(|field| format!("%{field}\u{1f}")).collect();
        let key = Template::parse(&text, catalogue).ok()?;
        Some(Self { per_key, interval_ns, key, windows: Mutex::default(), hasher: RandomState::new() })
    }

    /// The throttle of a resource; none when it has none, or when its key names a field that does not exist.
    pub fn of(spec: Option<&api::rule::Throttle>, resource: &str, catalogue: Catalogue) -> Option<Self> {
        let spec = spec?;
        let interval = u64::try_from(spec.interval.duration().as_nanos()).unwrap_or(u64::MAX);
        let made = Self::new(spec.per_key, interval, &spec.key, catalogue);
        if made.is_none() {
            warn!(resource, "the key of a throttle names a field that does not exist: alerts are not throttled");
        }
        made
    }

    /// Whether an alert of this rule about this event may be sent; counts it if so.
    pub fn passes<'a>(&self, rule: usize, subject: &impl Subject<'a>) -> bool {
        let key = self.hasher.hash_one((rule, self.key.render(subject)));
        let now = subject.time_ns();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= KEYS && !windows.contains_key(&key) {
            windows.retain(|_, window| now.abs_diff(window.began_ns) < self.interval_ns);
            if windows.len() >= KEYS {
                return true;
            }
        }
        let window = windows.entry(key).or_insert(Window { began_ns: now, alerts: 0 });
        // Also when the clock was set back: waiting until it is there again could take for ever.
        if now.abs_diff(window.began_ns) >= self.interval_ns {
            *window = Window { began_ns: now, alerts: 0 };
        }
        let passes = window.alerts < self.per_key;
        window.alerts += u32::from(passes);
        passes
    }

    /// The fields of the key.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.key.fields().into_iter().map(|(field, _)| field)
    }
}

#[cfg(test)]
mod tests {
    use event::{
        decode::Record,
        event::Event,
        state::{Host, Limits, State},
        testing::Encoder,
        value::Arena,
    };

    use super::*;

    /// Whether an open of this file at this second passes.
    fn passes(throttle: &Throttle, rule: usize, file: &str, second: u64) -> bool {
        let bytes = Encoder::syscall("openat").time(second * 1_000_000_000).text("name", file).encode();
        let record = Record::decode(&bytes).expect("a record");
        let (state, arena) = (State::new(Limits::default(), Host::default()), Arena::new());
        let event = Event::new(&record, &state, &arena, 1).expect("an event");
        throttle.passes(rule, &event)
    }

    #[test]
    fn alerts_with_one_key_share_an_interval() {
        let key = ["evt.arg.name".to_owned()];
        let throttle = Throttle::new(2, 60_000_000_000, &key, Catalogue::default()).expect("a field");
        let seconds = [0, 1, 2, 59, 60, 61, 62].map(|second| passes(&throttle, 0, "/a", second));
        assert_eq!(seconds, [true, true, false, false, true, true, false]);
        assert!(passes(&throttle, 0, "/b", 2), "another key");
        assert!(passes(&throttle, 1, "/a", 2), "another rule");
        assert!(Throttle::new(1, 1, &["no.field".to_owned()], Catalogue::default()).is_none());
    }

    #[test]
    fn a_clock_that_is_set_back_or_forth_begins_a_new_interval() {
        let throttle = Throttle::new(1, 60_000_000_000, &[], Catalogue::default()).expect("no field");
        let seconds = [86_400, 86_401, 100, 101, 90_000, 90_001].map(|second| passes(&throttle, 0, "/a", second));
        assert_eq!(seconds, [true, false, true, false, true, false]);
    }
}
