//! Asks the scheduler for short turns.

use std::mem::size_of;

/// How long a turn of the calling thread should be.
const SLICE_NS: u64 = 100_000;

/// Has the calling thread run soon after it wakes up, rather than long: it gets no more of a CPU than before, but whoever
/// runs does not finish a turn of milliseconds first, in which rings fill up. Linux 6.12 and later do so; others go on as
/// they did.
pub fn run_soon() {
    // SAFETY: every member is an integer, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into memory that is ours; 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } != 0 {
        return;
    }
    // Real-time threads are left as whoever made them so wanted it.
    if attributes.sched_policy == libc::SCHED_OTHER as u32 {
        attributes.sched_runtime = SLICE_NS;
        // SAFETY: the kernel reads `attributes.size` bytes, as much as it has just filled. A refusal changes nothing.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}
