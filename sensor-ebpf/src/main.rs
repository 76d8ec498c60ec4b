//! The kernel programs: what is attached, and nothing else.
//!
//! `sys_exit` is attached once; it tail-calls the program in the slot of the system call's number, and an empty slot
//! is a system call that no loaded rule asks about. The programs behind the slots are stamped out of the table in
//! [`abi::syscalls`]. Exec, fork and exit have hooks of their own, which are always attached.
//!
//! Every program ends in one of three ways: the record was handed over, a counter says why not, or the event was not
//! meant for it (a thread's fork, the sensor's own call, a map that cannot be missing).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, macro_metavar_expr, macro_metavar_expr_concat)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod collect;
mod compat;
mod data;
mod descriptor;
mod descriptors;
mod filter;
mod hook;
mod kernel;
mod maps;
mod process;
mod record;
mod rings;
mod task;
mod walk;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::maps::SYSCALLS;

/// Bit of system call numbers of the x32 interface (`__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 0x4000_0000;

/// Every system call of every process comes through here: read the number, jump.
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the index is checked by the kernel; the call returns only when the slot is empty.
    unsafe { SYSCALLS.tail_call(&ctx, hook::number(&ctx) & !X32_BIT) };
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never verified: a reachable panic makes the program unloadable, which is what we want.
    loop {}
}

/// GPL: the helpers that read kernel memory ask for it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
