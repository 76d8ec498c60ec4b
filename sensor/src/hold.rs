//! Records that wait until it is known what container they are of: kept as bytes, in the order in which they came, within
//! bounds. Pure: it has no clock and judges nothing.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// How long the first record of a container waits. A runtime of a busy node answers after seconds (each sandbox is a
/// write to its database), and a rule of a namespace can't fire for an event without facts: told late is better than not.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What records wait for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Facts about the container with this full id.
    Container(Box<str>),
    /// What the cgroup with this id is.
    Cgroup(u64),
}

/// Bounds of what waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes, over all keys.
    pub bytes: usize,
    /// Most records, over all keys.
    pub records: usize,
    /// How long a key's first record waits, in nanoseconds.
    pub patience_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 20, records: 1 << 16, patience_ns: PATIENCE.as_nanos() as u64 }
    }
}

/// A record that waits.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Where it stands in the order of arrival.
    number: u64,
    /// The CPU that it was made on.
    pub cpu: u16,
    /// The record.
    pub bytes: Box<[u8]>,
}

/// Records of one key, oldest first.
#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Held>,
    deadline_ns: u64,
}

/// All that waits.
#[derive(Debug, Default)]
pub struct Hold {
    limits: Limits,
    queues: HashMap<Key, Queue>,
    records: usize,
    bytes: usize,
    arrived: u64,
}

impl Hold {
    /// Nothing, with these bounds.
    #[cfg(test)]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// How many records wait.
    pub fn records(&self) -> usize {
        self.records
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether anything waits for this.
    pub fn waits(&self, key: &Key) -> bool {
        self.queues.contains_key(key)
    }

    /// Keeps a record. `true` when it is the first that waits for this.
    pub fn push(&mut self, key: Key, bytes: &[u8], cpu: u16, now_ns: u64) -> bool {
        let deadline_ns = now_ns.saturating_add(self.limits.patience_ns);
        let queue = self.queues.entry(key).or_insert_with(|| Queue { deadline_ns, ..Queue::default() });
        self.arrived += 1;
        queue.records.push_back(Held { number: self.arrived, cpu, bytes: bytes.into() });
        self.records += 1;
        self.bytes += bytes.len();
        queue.records.len() == 1
    }

    /// What must be released for the bounds to hold: that which waits longest.
    pub fn surplus(&self) -> Option<Key> {
        let full = self.bytes > self.limits.bytes || self.records > self.limits.records;
        let oldest = |queue: &Queue| queue.records.front().map_or(u64::MAX, |held| held.number);
        self.queues.iter().filter(|_| full).min_by_key(|(_, queue)| oldest(queue)).map(|(key, _)| key.clone())
    }

    /// Something whose time is over.
    pub fn expired(&self, now_ns: u64) -> Option<Key> {
        self.queues.iter().find(|(_, queue)| queue.deadline_ns <= now_ns).map(|(key, _)| key.clone())
    }

    /// Anything that waits.
    pub fn any(&self) -> Option<Key> {
        self.queues.keys().next().cloned()
    }

    /// When the next time is over.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.queues.values().map(|queue| queue.deadline_ns).min()
    }

    /// Releases what waits for this, oldest first.
    pub fn take(&mut self, key: &Key) -> VecDeque<Held> {
        let records = self.queues.remove(key).unwrap_or_default().records;
        self.records -= records.len();
        self.bytes -= records.iter().map(|held| held.bytes.len()).sum::<usize>();
        records
    }

    /// What waited for one thing waits for another from now on, each record in its place. `true` when nothing waited for
    /// the other before.
    pub fn turn(&mut self, from: &Key, to: Key) -> bool {
        let Some(mut queue) = self.queues.remove(from) else { return false };
        match self.queues.get_mut(&to) {
            None => {
                self.queues.insert(to, queue);
                true
            }
            Some(other) => {
                other.deadline_ns = other.deadline_ns.min(queue.deadline_ns);
                other.records.append(&mut queue.records);
                other.records.make_contiguous().sort_by_key(|held| held.number);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn container(id: u8) -> Key {
        Key::Container(format!("c{id}").into())
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let mut hold = Hold::new(Limits { bytes: 8, ..Limits::default() });
        assert!(hold.push(container(1), &[0; 4], 0, 0));
        assert!(hold.push(container(2), &[0; 4], 0, 0));
        assert!(!hold.push(container(2), &[0; 4], 0, 0));
        assert_eq!(hold.surplus(), Some(container(1)));
        assert_eq!(hold.take(&container(1)).len(), 1);
        assert_eq!(hold.surplus(), None);
    }

    #[test]
    fn the_first_record_sets_the_time() {
        let mut hold = Hold::new(Limits { patience_ns: 10, ..Limits::default() });
        hold.push(container(1), b"a", 0, 5);
        hold.push(container(1), b"b", 0, 12);
        assert_eq!((hold.deadline_ns(), hold.expired(14), hold.expired(15)), (Some(15), None, Some(container(1))));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        PushCgroup(u8),
        Turn(u8),
        Release(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..4u8).prop_map(Step::Push),
            3 => (0..4u8).prop_map(Step::PushCgroup),
            1 => (0..4u8).prop_map(Step::Turn),
            1 => (0..4u8).prop_map(Step::Release),
        ]
    }

    proptest! {
        /// Cgroup n belongs to container n % 2: what comes out of a container came in in this order, once each.
        #[test]
        fn nothing_is_lost_doubled_or_overtaken(steps in proptest::collection::vec(step(), 0..200)) {
            let mut hold = Hold::new(Limits { bytes: 100, records: 40, ..Limits::default() });
            let mut out: Vec<u64> = Vec::new();
            let mut per_queue: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let mut pushed = 0u64;
            let mut release = |hold: &mut Hold, key: Key, out: &mut Vec<u64>| {
                let numbers: Vec<u64> = hold
                    .take(&key)
                    .into_iter()
                    .map(|held| u64::from_le_bytes((*held.bytes).try_into().expect("eight bytes")))
                    .collect();
                per_queue.entry(format!("{key:?}")).or_default().extend(&numbers);
                out.extend(numbers);
            };
            let owner = |cgroup: u8| container(cgroup % 2);
            for step in steps {
                match step {
                    Step::Push(id) => {
                        hold.push(container(id), &pushed.to_le_bytes(), 0, 0);
                        pushed += 1;
                    }
                    Step::PushCgroup(id) => {
                        hold.push(Key::Cgroup(u64::from(id)), &pushed.to_le_bytes(), 0, 0);
                        pushed += 1;
                    }
                    Step::Turn(id) => {
                        hold.turn(&Key::Cgroup(u64::from(id)), owner(id));
                    }
                    Step::Release(id) => release(&mut hold, container(id), &mut out),
                }
                while let Some(key) = hold.surplus() {
                    release(&mut hold, key, &mut out);
                }
                prop_assert!(hold.bytes <= 100 && hold.records <= 40);
            }
            while let Some(key) = hold.any() {
                release(&mut hold, key, &mut out);
            }
            prop_assert!(hold.is_empty() && hold.bytes == 0 && hold.records == 0);
            out.sort_unstable();
            prop_assert_eq!(out, (0..pushed).collect::<Vec<_>>());
        }

        /// A container's records come out as they came in, also those that waited for their cgroup first.
        #[test]
        fn turned_records_keep_their_place(cgroups in proptest::collection::vec(proptest::option::of(0..3u64), 1..60)) {
            let mut hold = Hold::default();
            for (number, cgroup) in cgroups.iter().enumerate() {
                let key = cgroup.map_or_else(|| container(0), Key::Cgroup);
                hold.push(key, &number.to_le_bytes(), 0, 0);
            }
            for cgroup in 0..3 {
                hold.turn(&Key::Cgroup(cgroup), container(0));
            }
            let out: Vec<_> =
                hold.take(&container(0)).into_iter().map(|held| usize::from_le_bytes((*held.bytes).try_into().expect("eight"))).collect();
            prop_assert_eq!(out, (0..cgroups.len()).collect::<Vec<_>>());
        }
    }
}
