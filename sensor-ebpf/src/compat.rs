//! 32-bit calls on a 64-bit kernel: from the number that they have there to the program that records them.
//!
//! Numbers collide, so a program may be hit by a 32-bit call that is another one. Whoever is hit first puts the arguments
//! into the scratch and jumps to the program behind the 32-bit number, which knows by `routed` that it is the right one.
//! `socketcall`, by which most 32-bit programs use the network, is taken apart here as well.

use abi::syscalls::SOCKETCALL_ACCEPT;
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    hook,
    kernel::{Ptr, probe_user},
    maps::COMPAT_SYSCALLS,
    off,
    record::{Hook, Record},
    task,
};

/// Numbers of the calls behind `socketcall`'s (include/uapi/linux/net.h): 32-bit numbers, and 0 for what has none.
/// `send` and `recv` are `sendto` and `recvfrom` without an address.
const SOCKET_CALLS: [u16; 21] = [
    0,
    359,
    361,
    362,
    363,
    SOCKETCALL_ACCEPT as u16,
    367,
    368,
    360,
    369,
    371,
    369,
    371,
    373,
    366,
    365,
    370,
    372,
    364,
    337,
    345,
];

/// How many arguments each of them has.
const SOCKET_ARGUMENTS: [u8; 21] = [0, 3, 3, 3, 2, 3, 3, 3, 4, 4, 4, 6, 6, 2, 5, 5, 3, 3, 4, 5, 4];

/// Sits in the slots of native numbers that only matter as 32-bit numbers.
#[btf_tracepoint(function = "sys_exit")]
pub fn compat_gate(ctx: BtfTracePointContext) -> i32 {
    if task::in_compat_call(Ptr::current()) {
        is_routed(&ctx);
    }
    0
}

/// Whether the running program is the one for the 32-bit call that its task is in. If not, jumps to that program; when
/// nobody traces the call, comes back with `false`.
#[inline(always)]
pub fn is_routed(ctx: &BtfTracePointContext) -> bool {
    let Some(mut record) = Record::resume(Hook::Syscall) else { return false };
    let state = record.state();
    if state.routed != 0 {
        state.routed = 0;
        return true;
    }
    let regs = hook::registers(ctx);
    if off!(regs_compat0) == abi::offsets::MISSING {
        return false;
    }
    state.arguments = [
        u64::from(regs.typed::<u32>(off!(regs_compat0))),
        u64::from(regs.typed::<u32>(off!(regs_compat1))),
        u64::from(regs.typed::<u32>(off!(regs_compat2))),
        u64::from(regs.typed::<u32>(off!(regs_compat3))),
        u64::from(regs.typed::<u32>(off!(regs_compat4))),
        u64::from(regs.typed::<u32>(off!(regs_compat5))),
    ];
    state.routed = 1;
    let number: u32 = regs.typed(off!(regs_nr));
    // SAFETY: the index is checked by the kernel; the call returns only when the slot is empty.
    unsafe { COMPAT_SYSCALLS.tail_call(ctx, number) };
    record.state().routed = 0;
    false
}

/// `socketcall(call, arguments)`: jumps to the program of the call that it stands for.
#[btf_tracepoint(function = "sys_exit")]
pub fn socketcall(ctx: BtfTracePointContext) -> i32 {
    if !is_routed(&ctx) {
        return 0;
    }
    let Some(mut record) = Record::resume(Hook::Syscall) else { return 0 };
    let [call, list, ..] = record.state().arguments;
    let index = (call & 31) as usize;
    if call >= SOCKET_CALLS.len() as u64 || index >= SOCKET_CALLS.len() {
        return 0;
    }
    let (number, count) = (SOCKET_CALLS[index], SOCKET_ARGUMENTS[index]);
    for i in 0..abi::record::ARGUMENTS {
        let value = if i < usize::from(count) { probe_user::<u32>(list + 4 * i as u64).unwrap_or_default() } else { 0 };
        record.state().arguments[i] = u64::from(value);
    }
    record.state().routed = 1;
    // SAFETY: as in `is_routed`.
    unsafe { COMPAT_SYSCALLS.tail_call(&ctx, u32::from(number)) };
    record.state().routed = 0;
    0
}
