//! Hands filters to the kernel: see [`abi::filter`] for what they mean.

use std::collections::BTreeMap;

use abi::{
    filter::{Filter, PREFIX_BYTES, PREFIXES},
    record::kind,
    syscalls::SYSCALLS,
};
use aya::maps::{
    Array, MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};

/// The filters of all rows, and the path sets that they share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// By name of the system call.
    pub rows: Vec<(&'static str, Filter)>,
    /// System calls without a filter whose every record is urgent.
    pub urgent: Vec<&'static str>,
    /// Path sets by prefix; the value of a prefix includes the sets of every shorter one.
    pub prefixes: Vec<(Vec<u8>, u64)>,
}

/// A filter in the form of the map.
type Words = [u64; Filter::WORDS];

/// The maps.
pub struct FilterMaps {
    filters: Array<MapData, Words>,
    prefixes: LpmTrie<MapData, [u8; PREFIX_BYTES], u64>,
    stored: BTreeMap<Vec<u8>, u64>,
    on: Vec<(u32, Filter)>,
    urgent: Vec<u32>,
}

impl FilterMaps {
    pub(super) fn new(filters: Array<MapData, Words>, prefixes: LpmTrie<MapData, [u8; PREFIX_BYTES], u64>) -> Self {
        Self { filters, prefixes, stored: BTreeMap::new(), on: Vec::new(), urgent: Vec::new() }
    }

    /// Lets everything pass. When this returns, no program is at work with a filter any more.
    pub fn clear(&mut self) -> Result<(), MapError> {
        if self.on.is_empty() {
            return Ok(());
        }
        for (index, filter) in self.on.drain(..) {
            // The clauses stay: a program that has read the switch may still be looking at them.
            self.filters.set(index, words(&Filter { enabled: 0, ..filter }), 0)?;
        }
        wait_for_programs();
        Ok(())
    }

    /// Puts filters into effect. Everything passes while the path sets are exchanged.
    ///
    /// What both sets have is left alone: while an element is changed, a kernel that has the programs as tracepoints of perf
    /// does not call them (docs/kernels.md, Linux 7.0).
    pub fn set(&mut self, filters: &Filters) -> Result<(), MapError> {
        self.clear()?;
        for index in self.urgent.drain(..) {
            self.filters.set(index, words(&Filter::OFF), 0)?;
        }
        for name in &filters.urgent {
            let Some(index) = index_of(name) else { continue };
            self.filters.set(index, words(&Filter { urgent: 1, ..Filter::OFF }), 0)?;
            self.urgent.push(index);
        }
        if filters.prefixes.len() > PREFIXES as usize {
            // More paths than the map holds: no filter is the right filter.
            return Ok(());
        }
        let wanted: BTreeMap<&[u8], u64> =
            filters.prefixes.iter().map(|(prefix, sets)| (prefix.as_slice(), *sets)).collect();
        let stale: Vec<Vec<u8>> =
            self.stored.keys().filter(|prefix| !wanted.contains_key(prefix.as_slice())).cloned().collect();
        for prefix in stale {
            self.prefixes.remove(&key(&prefix))?;
            self.stored.remove(&prefix);
        }
        for (prefix, sets) in wanted {
            if self.stored.get(prefix) != Some(&sets) {
                self.prefixes.insert(&key(prefix), sets, 0)?;
                self.stored.insert(prefix.to_vec(), sets);
            }
        }
        for (name, filter) in &filters.rows {
            let Some(index) = index_of(name) else { continue };
            // The clauses first, the switch afterwards: the programs never see a filter that is half written.
            self.filters.set(index, words(&Filter { enabled: 0, ..*filter }), 0)?;
            self.filters.set(index, words(filter), 0)?;
            self.on.push((index, *filter));
        }
        Ok(())
    }
}

/// Where the filter of a system call stands in the map.
fn index_of(name: &str) -> Option<u32> {
    let row = SYSCALLS.iter().position(|row| row.name == name)?;
    Some(u32::from(kind::FIRST_SYSCALL) + row as u32)
}

/// Waits until every program that runs now has ended: programs run inside of RCU read sections, and this is a grace
/// period (membarrier(2), `MEMBARRIER_CMD_GLOBAL`).
fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no memory involved.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0;
    if failed {
        // Kernels with nohz_full CPUs refuse it. A program takes microseconds; this is a thousand times as long.
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn key(prefix: &[u8]) -> Key<[u8; PREFIX_BYTES]> {
    let mut bytes = [0; PREFIX_BYTES];
    let len = prefix.len().min(PREFIX_BYTES);
    bytes[..len].copy_from_slice(&prefix[..len]);
    Key::new(8 * len as u32, bytes)
}

/// The struct as the map's words, in the order of its fields.
fn words(filter: &Filter) -> Words {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let mut words = Vec::with_capacity(Filter::WORDS);
    words.push(pair(filter.enabled, filter.clauses));
    words.push(pair(filter.suffixes, filter.urgent));
    for clause in &filter.clause {
        words.push(pair(clause.needs, clause.urgent));
        words.push(clause.paths);
    }
    for suffix in &filter.suffix {
        words.extend([suffix.value, suffix.mask, suffix.paths]);
    }
    std::array::from_fn(|i| words.get(i).copied().unwrap_or(0))
}
