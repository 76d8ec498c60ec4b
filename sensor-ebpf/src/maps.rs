//! Every map and global, with its owner and its size.

use core::ffi::c_void;

use abi::{
    control::{Control, MAX_CPUS, RING_CLASSES, SHARES as SHARE_COUNT, setting, slot},
    filter::{Filter, PREFIX_BYTES, PREFIXES},
    loss::{COUNTERS as COUNTER_WORDS, KernelCounter},
    offsets::Offsets,
    record::kind,
};
use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{ArrayOfMaps, RingBuf},
    helpers::generated::bpf_get_smp_processor_id,
    macros::{btf_map, map},
    maps::{Array, LpmTrie, PerCpuArray, ProgramArray},
};

use crate::record::Scratch;

/// Written by the driver before load, then frozen: constants to the verifier.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::UNRESOLVED);

/// Words of [`abi::control::setting`]; as [`OFFSETS`].
#[unsafe(no_mangle)]
pub static SETTINGS: Global<[u64; setting::COUNT]> = Global::new([0; setting::COUNT]);

/// Programs by system call number; the driver fills the slots that rules need. Holds [`slot::WALK`] too.
#[map]
pub static SYSCALLS: ProgramArray = ProgramArray::with_max_entries(slot::COUNT, 0);

/// The same programs by 32-bit system call number.
#[map]
pub static COMPAT_SYSCALLS: ProgramArray = ProgramArray::with_max_entries(slot::COUNT, 0);

/// Record kinds of calls without a row: by native number, then by 32-bit number; 0 for others.
#[map]
pub static GENERIC_KINDS: Array<u32> = Array::with_max_entries(2 * slot::NUMBERS, 0);

/// Helpers of the exec program: a program array serves one hook only.
#[map]
pub static EXEC_HELPERS: ProgramArray = ProgramArray::with_max_entries(slot::COUNT, 0);

/// Where records are built: one element per hook, because a hook's programs never interrupt themselves on a CPU
/// (the kernel counts that as a recursion miss) but may interrupt each other.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(crate::record::HOOKS, 0);

/// Counters: for each CPU one element per record kind, see [`KernelCounter`]. The driver sets how many CPUs there are, and reads
/// them by mmap.
#[map]
static COUNTERS: Array<[u64; COUNTER_WORDS]> = Array::with_max_entries(kind::MAX, BPF_F_MMAPABLE);

/// How many records the processes of a bucket have sent in the current window: the window in the high half of a word, the
/// count in the low one.
#[map]
pub static SHARES: PerCpuArray<u64> = PerCpuArray::with_max_entries(SHARE_COUNT, 0);

/// Shared with the sensor by mmap.
#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Rings of each CPU, made by the driver in the size that it wants.
#[btf_map]
pub static RINGS: ArrayOfMaps<RingBuf<u8, 4096>, { (MAX_CPUS * RING_CLASSES) as usize }> = ArrayOfMaps::new();

/// Filters of open calls, by record kind.
#[map]
pub static FILTERS: Array<Filter> = Array::with_max_entries(kind::FIRST_SYSCALL as u32 + SYSCALLS_ROWS, 0);

const SYSCALLS_ROWS: u32 = abi::syscalls::SYSCALLS.len() as u32;

/// Prefixes of paths; see [`abi::filter`].
#[map]
static PATH_PREFIXES: LpmTrie<[u8; PREFIX_BYTES], u64> = LpmTrie::with_max_entries(PREFIXES, BPF_F_NO_PREALLOC);

/// The map of prefixes, for a look-up with a key that is built in place.
#[inline(always)]
pub fn prefixes() -> *mut c_void {
    (&raw const PATH_PREFIXES).cast_mut().cast()
}

/// Adds one to a counter of a record kind.
#[inline(always)]
pub fn count(kind: u16, counter: KernelCounter) {
    // SAFETY: no arguments, no memory.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(counters) = COUNTERS.get_ptr_mut(cpu * kind::MAX + u32::from(kind)) {
        // SAFETY: the element belongs to this CPU, and `index()` is below the length of the array.
        unsafe { (*counters)[counter.index() & (COUNTER_WORDS - 1)] += 1 };
    }
}

/// The shared page.
#[inline(always)]
pub fn control() -> Option<*mut Control> {
    CONTROL.get_ptr_mut(0)
}
