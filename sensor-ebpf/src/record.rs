//! The record under construction: per-CPU memory with a position, and the hand-over to the ring.
//!
//! Positions are masked where they are used: the verifier accepts a write only when it sees the bound. A masked position
//! that wrapped would corrupt the record, so [`Scratch::room`] is asked first.

use core::{ffi::c_void, ptr};

use abi::{
    control::{
        MAX_CPUS, RING_BULK, RING_CLASSES, RING_STATE, RING_URGENT, SHARE, SHARES as SHARES_COUNT, WINDOW_SHIFT,
    },
    loss::KernelCounter,
    record::{
        ANCESTORS, ARGS_MAX, ARGUMENTS, Ancestor, BlockHeader, FRONT, Header, RECORD_LIMIT, RECORD_MAX, TEXT_MAX, flag,
        status,
    },
};
use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
        bpf_probe_read_user, bpf_probe_read_user_str, bpf_ringbuf_discard, bpf_ringbuf_output, bpf_ringbuf_query,
        bpf_ringbuf_reserve,
    },
};

use crate::{
    filter,
    kernel::mask,
    maps::{RINGS, SCRATCH, SHARES, control, count},
};

/// A path that a helper program will append.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingPath {
    /// Address of the dentry.
    pub dentry: u64,
    /// Address of the vfsmount.
    pub mnt: u64,
    /// Tag of the block.
    pub tag: u64,
    /// 1: end at the task's root; 0: at the root of its mount namespace.
    pub stop_at_root: u64,
}

/// How many paths one record can have; a power of two.
pub const PENDING: usize = 8;

/// One element of map `SCRATCH`.
///
/// What the verifier need not know stands here rather than in registers: a value loaded from memory is unknown to it, so
/// that paths through the program that differ only in that value are checked once.
#[repr(C)]
pub struct Scratch {
    /// Where the record begins in `bytes`: the front is right-aligned to [`FRONT`].
    pub start: u64,
    /// Where the next block begins.
    pub position: u64,
    /// A position or count that a loop moves.
    pub cursor: u64,
    /// Length of the text that was appended last; 0 when it could not be read.
    pub text_len: u64,
    /// Status of the block under construction.
    pub status: u64,
    /// Result of the call.
    pub result: i64,
    /// Kind of the record.
    pub kind: u64,
    /// Bits of [`flag`].
    pub flags: u64,
    /// Paths to append.
    pub pending: u64,
    /// Paths appended so far.
    pub walked: u64,
    /// Standard descriptors described so far.
    pub described: u64,
    /// Descriptors looked at so far, for the list of kinds.
    pub listed: u64,
    /// Index of the ring class.
    pub class: u64,
    /// Of a 32-bit call: [`crate::compat`] has put its arguments here and jumped to the program of its number.
    pub routed: u64,
    /// Arguments of a 32-bit call.
    pub arguments: [u64; ARGUMENTS],
    /// The paths.
    pub paths: [PendingPath; PENDING],
    /// Ancestors, parent first, until their number is known.
    pub ancestors: [Ancestor; ANCESTORS],
    /// The record.
    pub bytes: [u8; RECORD_MAX],
}

/// Hook that a scratch belongs to: index in map `SCRATCH`.
#[derive(Clone, Copy)]
pub enum Hook {
    /// `sys_exit`.
    Syscall,
    /// `sched_process_exec`.
    Exec,
    /// `sched_process_fork`.
    Fork,
    /// `sched_process_exit`.
    Exit,
    /// `io_openat2`; or, where functions cannot be hooked, `io_uring_complete`.
    RingOpen,
    /// `io_fixed_fd_install`.
    RingOpenDirect,
    /// `io_connect`.
    RingConnect,
    /// `io_socket`.
    RingSocket,
}

/// How many hooks there are.
pub const HOOKS: u32 = Hook::RingSocket as u32 + 1;

const POSITION_MASK: i32 = RECORD_LIMIT as i32 - 1;
const FRONT_MASK: i32 = 1023;
const _: () = assert!(FRONT <= FRONT_MASK as usize);
const ARGS_MASK: i32 = 2 * ARGS_MAX as i32 - 1;
const BLOCK: u64 = BlockHeader::SIZE as u64;

/// Handle to the scratch of this CPU.
#[derive(Clone, Copy)]
pub struct Record(*mut Scratch);

impl Record {
    /// Begins a record; the sensor learns who did it from [`crate::task::identify`], the last step.
    #[inline(always)]
    pub fn begin(hook: Hook, class: u32, kind: u16, result: i64) -> Option<Self> {
        let mut record = Self::resume(hook)?;
        let state = record.state();
        state.position = FRONT as u64;
        state.result = result;
        state.kind = u64::from(kind);
        state.flags = 0;
        state.pending = 0;
        state.walked = 0;
        state.described = 0;
        state.listed = 0;
        state.class = u64::from(class);
        Some(record)
    }

    /// The scratch of a hook, as it was left.
    #[inline(always)]
    pub fn resume(hook: Hook) -> Option<Self> {
        SCRATCH.get_ptr_mut(hook as u32).map(Self)
    }

    /// The bookkeeping in front of the record.
    #[inline(always)]
    pub fn state(&mut self) -> &mut Scratch {
        // SAFETY: the pointer came from the map and is not null; the element belongs to this CPU, and a hook's program
        // does not interrupt itself.
        unsafe { &mut *self.0 }
    }

    /// The header at a masked, 8-aligned position.
    #[inline(always)]
    pub fn header_at(&mut self, at: u64) -> &mut Header {
        // SAFETY: the position leaves room for a header; every bit pattern is one.
        unsafe { &mut *self.at(at).cast::<Header>() }
    }

    /// Address of a byte of the record. `at` must be masked.
    #[inline(always)]
    pub fn at(&mut self, at: u64) -> *mut u8 {
        // SAFETY: stays in the element: the verifier checks every use against the bound of `at`.
        unsafe { (&raw mut (*self.0).bytes).cast::<u8>().add(at as usize) }
    }

    /// Whether another block may begin; marks the record as incomplete when not.
    #[inline(always)]
    pub fn room(&mut self) -> bool {
        if self.state().position < RECORD_LIMIT as u64 {
            return true;
        }
        self.state().flags |= u64::from(flag::INCOMPLETE);
        false
    }

    /// Start of the next block, bounded.
    #[inline(always)]
    fn start(&mut self) -> u64 {
        mask::<POSITION_MASK>(self.state().position)
    }

    /// Writes the header of the block at `at` and moves behind the block. `len` is at most 64 KiB.
    #[inline(always)]
    pub fn close(&mut self, at: u64, tag: u64, status: u8, len: u64) {
        let word = tag | u64::from(status) << 8 | len << 16;
        // SAFETY: `at` is masked by the caller and 8-aligned.
        unsafe { ptr::write_volatile(self.at(at).cast::<u64>(), word) };
        self.state().position = at + BLOCK + ((len + 7) & !7);
    }

    /// Appends an empty block that says why it is empty.
    #[inline(always)]
    pub fn absent(&mut self, tag: u64, status: u8) {
        if self.room() {
            let at = self.start();
            self.close(at, tag, status, 0);
        }
    }

    /// Appends an integer.
    #[inline(always)]
    pub fn int(&mut self, tag: u64, value: u64) {
        self.value(tag, value);
    }

    /// Appends a plain value whose size is a multiple of 8.
    #[inline(always)]
    pub fn value<T: Copy>(&mut self, tag: u64, value: T) {
        if !self.room() {
            return;
        }
        let at = self.start();
        // SAFETY: `at` is masked and 8-aligned, and the buffer ends more than any `T` used behind the mask.
        unsafe { ptr::write_volatile(self.at(at + BLOCK).cast::<T>(), value) };
        self.close(at, tag, status::OK, size_of::<T>() as u64);
    }

    /// Begins a block with a plain value, to be filled where it is: on the stack there is little room. What was there is
    /// what the value begins with.
    #[inline(always)]
    pub fn begin_value<T: Copy>(&mut self) -> Option<(u64, &'static mut T)> {
        if !self.room() {
            return None;
        }
        let at = self.start();
        // SAFETY: as in `value`; every `T` used is made of integers. The memory outlives the program, and only the program
        // of this hook on this CPU uses it.
        Some((at, unsafe { &mut *self.at(at + BLOCK).cast::<T>() }))
    }

    /// Ends that block.
    #[inline(always)]
    pub fn end_value<T: Copy>(&mut self, at: u64, tag: u64) {
        self.close(at, tag, status::OK, size_of::<T>() as u64);
    }

    /// Appends a string of the traced program. Returns its first byte.
    #[inline(always)]
    pub fn user_text(&mut self, tag: u64, address: u64) -> Option<u8> {
        if address == 0 {
            self.absent(tag, status::NULL);
            return None;
        }
        if !self.room() {
            return None;
        }
        let at = self.start();
        let text = self.at(at + BLOCK);
        // SAFETY: the helper writes at most `TEXT_MAX` bytes, which lie in the buffer for every masked `at`.
        let read = unsafe { bpf_probe_read_user_str(text.cast(), TEXT_MAX as u32, address as *const c_void) };
        self.text_read(at, tag, read)
    }

    /// The position at which the next block's content will stand.
    #[inline(always)]
    pub fn next_content(&mut self) -> u64 {
        self.start() + BLOCK
    }

    /// The eight bytes before a position, the last in the highest byte.
    #[inline(always)]
    pub fn word_before(&mut self, end: u64) -> u64 {
        let at = mask::<{ 2 * RECORD_LIMIT as i32 - 1 }>(end - 8);
        if at > RECORD_LIMIT as u64 {
            return 0;
        }
        let mut word = 0u64;
        for i in 0..8 {
            // SAFETY: `at` was bounded right here.
            let byte = unsafe { ptr::read_volatile(self.at(at + i)) };
            word |= u64::from(byte) << (8 * i);
        }
        word
    }

    /// Appends a string of the kernel.
    #[inline(always)]
    pub fn kernel_text(&mut self, tag: u64, address: u64) -> Option<u8> {
        if !self.room() {
            return None;
        }
        let at = self.start();
        let text = self.at(at + BLOCK);
        // SAFETY: as in `user_text`.
        let read = unsafe { bpf_probe_read_kernel_str(text.cast(), TEXT_MAX as u32, address as *const c_void) };
        self.text_read(at, tag, read)
    }

    /// Closes a string block after the helper said how much it read, its NUL included.
    #[inline(always)]
    fn text_read(&mut self, at: u64, tag: u64, read: i64) -> Option<u8> {
        if read <= 0 {
            self.state().text_len = 0;
            self.close(at, tag, status::FAULT, 0);
            return None;
        }
        let len = mask::<{ 2 * TEXT_MAX as i32 - 1 }>(read as u64);
        let state = if len >= TEXT_MAX as u64 { status::TRUNCATED } else { status::OK };
        // SAFETY: the first byte of the text, inside the buffer.
        let first = unsafe { ptr::read_volatile(self.at(at + BLOCK)) };
        self.close(at, tag, state, len - 1);
        self.state().text_len = len - 1;
        Some(first)
    }

    /// Appends user memory from `start` to `end`, at most [`ARGS_MAX`] bytes.
    #[inline(always)]
    pub fn user_area(&mut self, tag: u64, start: u64, end: u64) {
        self.user_data(tag, start, end.wrapping_sub(start), ARGS_MAX as u64);
    }

    /// Appends `whole` bytes of user memory, at most `limit` of them, which is at most [`ARGS_MAX`].
    #[inline(always)]
    pub fn user_data(&mut self, tag: u64, start: u64, whole: u64, limit: u64) {
        if !self.room() {
            return;
        }
        let at = self.start();
        let len = mask::<ARGS_MASK>(if whole > limit { limit } else { whole });
        if len > ARGS_MAX as u64 {
            return;
        }
        let area = self.at(at + BLOCK);
        // SAFETY: at most `ARGS_MAX` bytes, which lie in the buffer for every masked `at`.
        let failed = unsafe { bpf_probe_read_user(area.cast(), len as u32, start as *const c_void) };
        if failed != 0 {
            self.close(at, tag, status::FAULT, 0);
        } else {
            let state = if whole > limit { status::TRUNCATED } else { status::OK };
            self.close(at, tag, state, len);
        }
    }

    /// Begins a block that is put together of several pieces of user memory; [`Record::piece`] adds them.
    #[inline(always)]
    pub fn begin_pieces(&mut self) -> Option<u64> {
        if !self.room() {
            return None;
        }
        let at = self.start();
        self.state().cursor = at + BLOCK;
        self.state().status = u64::from(status::OK);
        Some(at)
    }

    /// Adds `len` bytes to a block that has `limit` bytes at most; whether there is room for more.
    #[inline(always)]
    pub fn piece(&mut self, at: u64, address: u64, len: u64, limit: u64) -> bool {
        let cursor = self.state().cursor;
        let done = cursor.wrapping_sub(at + BLOCK);
        if done >= limit {
            return false;
        }
        let left = limit - done;
        let size = mask::<ARGS_MASK>(if len > left { left } else { len });
        if size > ARGS_MAX as u64 {
            return false;
        }
        let bytes = self.at(mask::<{ 2 * RECORD_LIMIT as i32 - 1 }>(cursor));
        if cursor > RECORD_LIMIT as u64 {
            return false;
        }
        // SAFETY: at most `ARGS_MAX` bytes, which lie in the buffer behind every position up to the limit.
        let failed = unsafe { bpf_probe_read_user(bytes.cast(), size as u32, address as *const c_void) };
        if failed != 0 {
            self.state().status = u64::from(status::FAULT);
            return false;
        }
        self.state().cursor = cursor + size;
        if len > left {
            self.state().status = u64::from(status::TRUNCATED);
            return false;
        }
        true
    }

    /// Ends a block of pieces.
    #[inline(always)]
    pub fn end_pieces(&mut self, at: u64, tag: u64) {
        let len = (self.state().cursor - at - BLOCK) & 0xffff;
        let status = self.state().status as u8;
        self.close(at, tag, status, len);
    }

    /// Appends up to 128 bytes of user memory (a socket address).
    #[inline(always)]
    pub fn user_bytes(&mut self, tag: u64, address: u64, len: u64) {
        if address == 0 {
            self.absent(tag, status::NULL);
            return;
        }
        if !self.room() {
            return;
        }
        let at = self.start();
        let len = mask::<127>(if len > 127 { 127 } else { len });
        let bytes = self.at(at + BLOCK);
        // SAFETY: at most 127 bytes, inside the buffer.
        let failed = unsafe { bpf_probe_read_user(bytes.cast(), len as u32, address as *const c_void) };
        if failed != 0 {
            self.close(at, tag, status::FAULT, 0);
        } else {
            self.close(at, tag, status::OK, len);
        }
    }

    /// Appends the strings that an array of user pointers names, NUL-separated: the argument vector of a failed exec.
    #[inline(always)]
    pub fn user_strings(&mut self, tag: u64, array: u64, wide: bool) {
        if !self.room() {
            return;
        }
        let at = self.start();
        self.state().cursor = at + BLOCK;
        self.state().status = u64::from(status::OK);
        for i in 0..64u64 {
            let pointer = if wide {
                crate::kernel::probe_user::<u64>(array + 8 * i)
            } else {
                crate::kernel::probe_user::<u32>(array + 4 * i).map(u64::from)
            };
            let Some(pointer) = pointer else {
                self.state().status = u64::from(status::FAULT);
                break;
            };
            if pointer == 0 {
                break;
            }
            let cursor = self.state().cursor;
            if cursor >= RECORD_LIMIT as u64 || cursor - at > ARGS_MAX as u64 {
                self.state().status = u64::from(status::TRUNCATED);
                break;
            }
            let text = self.at(mask::<POSITION_MASK>(cursor));
            // SAFETY: at most `TEXT_MAX` bytes, which lie in the buffer for every masked position.
            let read = unsafe { bpf_probe_read_user_str(text.cast(), TEXT_MAX as u32, pointer as *const c_void) };
            if read <= 0 {
                self.state().status = u64::from(status::FAULT);
                break;
            }
            self.state().cursor = cursor + read as u64;
        }
        let len = (self.state().cursor - at - BLOCK) & 0xffff;
        let status = self.state().status as u8;
        self.close(at, tag, status, len);
    }

    /// Copies kernel memory to a masked position.
    #[inline(always)]
    pub fn kernel_bytes(&mut self, at: u64, len: u64, address: u64) {
        let bytes = self.at(at);
        // SAFETY: callers bound `at` and `len` by masks.
        unsafe { bpf_probe_read_kernel(bytes.cast(), len as u32, address as *const c_void) };
    }

    /// Copies a name of the kernel, at most 255 bytes, to a masked position; its length without NUL.
    #[inline(always)]
    pub fn kernel_name(&mut self, at: u64, address: u64) -> Option<u64> {
        let bytes = self.at(at);
        // SAFETY: at most 256 bytes; callers mask `at`, and the buffer ends more than that behind the mask.
        let read = unsafe { bpf_probe_read_kernel_str(bytes.cast(), 256, address as *const c_void) };
        if read <= 0 { None } else { Some(mask::<511>(read as u64) - 1) }
    }

    /// Asks for a path to be appended before the record is sent.
    #[inline(always)]
    pub fn want_path(&mut self, path: PendingPath) {
        let state = self.state();
        if state.pending < PENDING as u64 {
            let index = mask::<{ PENDING as i32 - 1 }>(state.pending) as usize;
            // SAFETY: the index is masked to the length of the array.
            unsafe { ptr::write_volatile(state.paths.as_mut_ptr().add(index), path) };
            state.pending += 1;
        } else {
            state.flags |= u64::from(flag::INCOMPLETE);
        }
    }

    /// Hands the record to the sensor.
    #[inline(always)]
    pub fn send(&mut self) {
        let state = self.state();
        let kind = state.kind as u16;
        let start = mask::<FRONT_MASK>(state.start);
        let len = mask::<{ (2 * RECORD_LIMIT - 1) as i32 }>(state.position.wrapping_sub(start));
        if start > FRONT as u64 || len > (RECORD_MAX - FRONT) as u64 || len == 0 {
            return count(kind, KernelCounter::TooLarge);
        }
        // SAFETY: no arguments; always the CPU we run on.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let mut class = self.state().class as u32 & 3;
        if class == RING_BULK && filter::all_urgent(kind) {
            class = RING_URGENT;
        }
        let Some(ring) = RINGS.get((cpu & (MAX_CPUS - 1)) * RING_CLASSES + class) else {
            return count(kind, KernelCounter::NoRing);
        };
        let ring: *mut c_void = ptr::from_ref(ring).cast_mut().cast();
        let time = self.header_at(start).time;
        if class != RING_STATE && greedy(ring, time) {
            return count(kind, KernelCounter::Backoff);
        }
        // Once more, right here and alone: together with the test for zero it becomes one comparison of `len - 1`, from which
        // the verifiers before Linux 6.18 learn nothing about `len`.
        let len = mask::<{ (2 * RECORD_LIMIT - 1) as i32 }>(len);
        if len > (RECORD_MAX - FRONT) as u64 {
            return count(kind, KernelCounter::TooLarge);
        }
        // SAFETY: `len` is within the buffer; the ring came from the map.
        let full = unsafe { bpf_ringbuf_output(ring, self.at(start).cast(), len, u64::from(BPF_RB_NO_WAKEUP)) };
        if full != 0 {
            count(kind, KernelCounter::RingFull);
        } else {
            count(kind, KernelCounter::Sent);
        }
        wake(ring);
    }
}

/// Whether a record is to be given up so that those of other processes find room: its process has had its share of this
/// window, and the ring is three quarters full. Most records cost one look at the bucket.
#[inline(always)]
fn greedy(ring: *mut c_void, time: u64) -> bool {
    const BPF_RB_AVAIL_DATA: u64 = 0;
    const BPF_RB_RING_SIZE: u64 = 1;
    // SAFETY: no arguments.
    let process = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let bucket = (process.wrapping_mul(0x9e37_79b1) >> 16) & (SHARES_COUNT - 1);
    let Some(share) = SHARES.get_ptr_mut(bucket) else { return false };
    let window = (time >> WINDOW_SHIFT) << 32;
    // SAFETY: the element belongs to this CPU.
    let before = unsafe { ptr::read_volatile(share) };
    let sent = if before & !0xffff_ffff == window { before & 0xffff_ffff } else { 0 };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(share, window | (sent + 1)) };
    if sent < SHARE {
        return false;
    }
    // SAFETY: the ring came from the map.
    let (waiting, size) =
        unsafe { (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA), bpf_ringbuf_query(ring, BPF_RB_RING_SIZE)) };
    waiting > size - size / 4
}

/// Wakes the sensor if it has said that it sleeps. A wake-up costs microseconds, a record tens of nanoseconds; so the
/// flag is looked at after the record is in the ring, and whoever finds it set takes it down.
#[inline(always)]
fn wake(ring: *mut c_void) {
    let Some(control) = control() else { return };
    // SAFETY: the element outlives the program; the sensor writes the same word, and a lost race costs one wake-up.
    let asleep = unsafe { &raw mut (*control).asleep };
    // SAFETY: as above.
    if unsafe { ptr::read_volatile(asleep) } == 0 {
        return;
    }
    // SAFETY: as above. A discarded reservation carries the wake-up; without room for one, the next record tries again.
    unsafe {
        ptr::write_volatile(asleep, 0);
        let empty = bpf_ringbuf_reserve(ring, 8, 0);
        if empty.is_null() {
            ptr::write_volatile(asleep, 1);
        } else {
            bpf_ringbuf_discard(empty, u64::from(BPF_RB_FORCE_WAKEUP));
        }
    }
}
