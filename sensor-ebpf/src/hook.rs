//! What a hook hands over, in each of its two forms.
//!
//! The programs are compiled once, as typed tracepoints (`tp_btf`): the context is an array of the tracepoint's arguments.
//! Where the kernel may preempt those, the driver loads the same programs as tracepoints of perf; their context is the record
//! that perf would write (`events/…/format` in tracefs; the driver compares it with the offsets here). Which of the two it is
//! stands in the settings, so that the verifier sees only one of each pair of arms.
//!
//! Words of the context are loaded by a single instruction each: the compiler could make one load with a computed address
//! out of both arms, which the verifier refuses, or move a load out of its arm.

use core::arch::asm;

use abi::control::setting;
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    programs::BtfTracePointContext,
};

use crate::{
    kernel::{Ptr, setting},
    off,
};

/// Whether the programs are tracepoints of perf.
#[inline(always)]
fn perf() -> bool {
    setting(setting::PERF) != 0
}

/// Eight bytes of the context, at an offset that is a multiple of eight.
#[inline(always)]
fn word<const OFFSET: i32>(ctx: &BtfTracePointContext) -> u64 {
    let value: u64;
    // SAFETY: one load from the context, whose bounds the verifier checks.
    unsafe {
        asm!("{0} = *(u64 *)({1} + {2})", out(reg) value, in(reg) ctx.as_ptr(), const OFFSET, options(readonly, nostack));
    }
    value
}

/// Number of the system call that ends.
#[inline(always)]
pub fn number(ctx: &BtfTracePointContext) -> u32 {
    if perf() { word::<8>(ctx) as u32 } else { Ptr::new(word::<0>(ctx) as *const _).typed(off!(regs_nr)) }
}

/// User registers of the system call that ends.
#[inline(always)]
pub fn registers(ctx: &BtfTracePointContext) -> Ptr {
    if perf() {
        // SAFETY: both helpers return what belongs to the running task, of which there is always one.
        Ptr::new(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const _)
    } else {
        Ptr::new(word::<0>(ctx) as *const _)
    }
}

/// Result of the system call that ends.
#[inline(always)]
pub fn result(ctx: &BtfTracePointContext) -> i64 {
    if perf() { word::<16>(ctx) as i64 } else { word::<8>(ctx) as i64 }
}

/// Address of the name by which a program was executed.
#[inline(always)]
pub fn filename(ctx: &BtfTracePointContext) -> u64 {
    if perf() {
        let place: u64;
        // SAFETY: as in `word`; `__data_loc`, where in the record the name is, has four bytes.
        unsafe {
            asm!("{0} = *(u32 *)({1} + 8)", out(reg) place, in(reg) ctx.as_ptr(), options(readonly, nostack));
        }
        ctx.as_ptr() as u64 + (place & 0xffff)
    } else {
        Ptr::new(word::<16>(ctx) as *const _).get(off!(bprm_filename))
    }
}
