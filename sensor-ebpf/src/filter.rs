//! Decides early that no loaded rule can match an open call; see [`abi::filter`] for what is asked.

use core::{ffi::c_void, ptr};

use abi::filter::{CLAUSES, Clause, Filter, PATH_SCAN, PREFIX_BYTES, SUFFIXES, Suffix, need};
use aya_ebpf::helpers::generated::bpf_map_lookup_elem;

use crate::{
    maps::{FILTERS, prefixes},
    record::Record,
};

/// The [`need`] bits of an open call.
#[inline(always)]
pub fn properties(flags: u64, result: i64) -> u32 {
    const O_CREAT: u64 = 0o100;
    const O_TRUNC: u64 = 0o1000;
    let access = match flags & 3 {
        0 => need::READ,
        1 => need::WRITE,
        2 => need::READ | need::WRITE,
        // Neither reading nor writing is permitted to the descriptor; Falco calls it neither.
        _ => 0,
    };
    let creat = if flags & O_CREAT != 0 { need::CREAT } else { 0 };
    let trunc = if flags & O_TRUNC != 0 { need::TRUNC } else { 0 };
    access | creat | trunc | if result < 0 { need::FAILURE } else { need::SUCCESS }
}

/// What is known before the path has been read.
#[derive(Clone, Copy)]
pub struct Early {
    /// Not 0: a rule may match whatever the path is.
    any: u64,
    /// Not 0: one of high priority may.
    urgent: u64,
    /// Path sets that make a rule possible.
    paths: u64,
    /// Those that make one of high priority possible.
    urgent_paths: u64,
}

impl Early {
    /// No filter: everything passes.
    pub const PASS: Self = Self { any: 1, urgent: 0, paths: 0, urgent_paths: 0 };

    /// Whether no rule can match.
    #[inline(always)]
    pub fn drops(self) -> bool {
        self.any | self.paths == 0
    }

    /// Whether the path makes a difference.
    #[inline(always)]
    pub fn asks_path(self) -> bool {
        self.any == 0 || self.urgent == 0 && self.urgent_paths != 0
    }

    /// Whether a rule can match a path that may be in these sets.
    #[inline(always)]
    pub fn admits(self, sets: u64) -> bool {
        self.any != 0 || sets & self.paths != 0
    }

    /// Whether one of high priority can.
    #[inline(always)]
    pub fn urgent(self, sets: u64) -> bool {
        self.urgent != 0 || sets & self.urgent_paths != 0
    }
}

/// Whether every record of this kind is urgent.
#[inline(always)]
pub fn all_urgent(kind: u16) -> bool {
    // SAFETY: as in `of`.
    FILTERS
        .get_ptr(u32::from(kind))
        .is_some_and(|filter| unsafe { ptr::read_volatile(&raw const (*filter).urgent) } != 0)
}

/// The filter of a record kind, if there is one.
#[inline(always)]
pub fn of(kind: u16) -> Option<*const Filter> {
    let filter = FILTERS.get_ptr(u32::from(kind))?;
    // SAFETY: the element outlives the program; the sensor replaces it as a whole, and a torn read only matters in
    // `enabled`, which is switched off first.
    let enabled = unsafe { ptr::read_volatile(&raw const (*filter).enabled) };
    if enabled == 0 { None } else { Some(filter) }
}

/// Judges by result and flags.
#[inline(always)]
pub fn early(filter: *const Filter, properties: u32) -> Early {
    let mut found = Early { any: 0, urgent: 0, paths: 0, urgent_paths: 0 };
    for i in 0..CLAUSES {
        // SAFETY: `i` is below the length of the array; as in `of`.
        let (count, clause) = unsafe {
            (
                ptr::read_volatile(&raw const (*filter).clauses),
                ptr::read_volatile((&raw const (*filter).clause).cast::<Clause>().add(i)),
            )
        };
        if i as u32 >= count {
            break;
        }
        if properties & clause.needs == clause.needs {
            // Sums rather than branches: paths through the program that differ in them are one to the verifier.
            let urgent = u64::from(clause.urgent);
            let anywhere = u64::from(clause.paths == 0);
            found.any |= anywhere;
            found.urgent |= anywhere & urgent;
            found.paths |= clause.paths;
            found.urgent_paths |= clause.paths & urgent.wrapping_neg();
        }
    }
    found
}

/// The sets that a path may be in: all of them in case of doubt. `text` is the masked position of its first byte in the
/// record, `len` its length.
#[inline(always)]
pub fn sets(filter: *const Filter, record: &mut Record, text: u64, len: u64) -> u64 {
    if len as usize >= PATH_SCAN || len < 8 || !normal(record, text, len) {
        return u64::MAX;
    }
    let mut sets = prefix_bits(record, text);
    let end = record.word_before(text + len);
    if end >> 56 == u64::from(b'/') {
        return u64::MAX;
    }
    for i in 0..SUFFIXES {
        // SAFETY: as in `early`.
        let (count, suffix) = unsafe {
            (
                ptr::read_volatile(&raw const (*filter).suffixes),
                ptr::read_volatile((&raw const (*filter).suffix).cast::<Suffix>().add(i)),
            )
        };
        if i as u32 >= count {
            break;
        }
        if (end ^ suffix.value) & suffix.mask == 0 {
            sets |= suffix.paths;
        }
    }
    sets
}

/// The bits of the longest prefix. The key is built in place: the reserved half of the block's header, the four bytes in
/// front of the text, takes the length.
#[inline(always)]
fn prefix_bits(record: &mut Record, text: u64) -> u64 {
    let key = record.at(text - 4);
    // SAFETY: `text` is masked and lies behind the eight bytes of a block header; the key is shorter than the rest of
    // the buffer.
    unsafe {
        ptr::write_volatile(key.cast::<u32>(), 8 * PREFIX_BYTES as u32);
        let value = bpf_map_lookup_elem(prefixes(), key.cast::<c_void>()).cast::<u64>();
        // The reserved half of the block's header again.
        ptr::write_volatile(key.cast::<u32>(), 0);
        if value.is_null() { 0 } else { ptr::read_volatile(value) }
    }
}

/// Whether a path is free of `//`, `/.` and `./`. Eight bytes at a time.
#[inline(always)]
fn normal(record: &mut Record, text: u64, len: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // Highest bit set in each byte of `x` that is zero (and perhaps in bytes above it).
    let zeros = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let (mut slash_before, mut dot_before) = (0u64, 0u64);
    for i in 0..PATH_SCAN as u64 / 8 {
        if 8 * i >= len {
            break;
        }
        // SAFETY: `text` is masked and 8-aligned, and the buffer goes on for more than `PATH_SCAN` bytes.
        let word = unsafe { ptr::read_volatile(record.at(text + 8 * i).cast::<u64>()) };
        let slashes = zeros(word ^ (ONES * u64::from(b'/')));
        let dots = zeros(word ^ (ONES * u64::from(b'.')));
        let after_slash = slashes << 8 | slash_before;
        let after_dot = dots << 8 | dot_before;
        if after_slash & (dots | slashes) | after_dot & slashes != 0 {
            return false;
        }
        (slash_before, dot_before) = (slashes >> 56, dots >> 56);
    }
    true
}
