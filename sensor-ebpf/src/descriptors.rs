//! Descriptors that the event is not about, for rules that ask: what 0, 1 and 2 are, and of which kinds the others are.
//!
//! They are read from the task's table when the event happens. Programs of their own do it, on the way to the walker, so
//! that the verifier checks them once per hook; without a rule that asks nobody comes by. The slot of the kinds is empty for
//! execs, which are about no descriptor.

use abi::{
    control::{slot, want},
    record::{BlockHeader, KINDS_MAX, OpenFd, RECORD_LIMIT, STANDARD_FDS, TEXT_MAX, status, tag},
};
use aya_ebpf::{macros::btf_tracepoint, maps::ProgramArray, programs::BtfTracePointContext};

use crate::{
    collect::wants,
    descriptor::{AF_INET, AF_INET6, S_IFMT, S_IFSOCK, Table, Tags, describe, open_file, table},
    kernel::{Ptr, mask, probe},
    maps::{EXEC_HELPERS, SYSCALLS},
    off,
    record::{Hook, Record},
    walk,
};

const S_IFDIR: u32 = 0o040_000;
const POSITION_MASK: i32 = RECORD_LIMIT as i32 - 1;

/// Describes the next standard descriptor of who made a system call.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_standard(ctx: BtfTracePointContext) -> i32 {
    standard(&ctx, Hook::Syscall, &SYSCALLS);
    0
}

/// Describes the next standard descriptor of who executed something.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec_standard(ctx: BtfTracePointContext) -> i32 {
    standard(&ctx, Hook::Exec, &EXEC_HELPERS);
    0
}

/// Appends the kinds of all descriptors of who made a system call.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_kinds(ctx: BtfTracePointContext) -> i32 {
    kinds(&ctx);
    0
}

/// Goes on behind what the event itself says. Where the slot is still empty, or the kernel's limit of tail calls is reached, the
/// record goes without what would have been appended.
#[inline(always)]
pub fn finish(ctx: &BtfTracePointContext, record: Record, helpers: &ProgramArray) {
    if wants() & want::STANDARD != 0 {
        // SAFETY: the index is checked by the kernel; the call returns only when nothing was called.
        unsafe { helpers.tail_call(ctx, slot::STANDARD) };
    }
    finish_kinds(ctx, record, helpers);
}

#[inline(always)]
fn finish_kinds(ctx: &BtfTracePointContext, record: Record, helpers: &ProgramArray) {
    if wants() & want::KINDS != 0 {
        // SAFETY: as above.
        unsafe { helpers.tail_call(ctx, slot::KINDS) };
    }
    walk::finish(ctx, record, helpers);
}

#[inline(always)]
fn standard(ctx: &BtfTracePointContext, hook: Hook, helpers: &ProgramArray) {
    let Some(mut record) = Record::resume(hook) else { return };
    let fd = mask::<3>(record.state().described);
    record.state().described = fd + 1;
    if let Some(file) = open_file(Ptr::current(), fd as i32) {
        let of = |tag: u8| tag.wrapping_add(fd as u8);
        let tags =
            Tags { facts: of(tag::STANDARD), path: of(tag::STANDARD_PATH), socket_path: of(tag::STANDARD_SOCKET_PATH) };
        describe(&mut record, file, tags);
    }
    if fd + 1 < STANDARD_FDS as u64 {
        // SAFETY: as in `finish`.
        unsafe { helpers.tail_call(ctx, slot::STANDARD) };
    }
    finish_kinds(ctx, record, helpers);
}

/// How many descriptors the list gets in one run of its program, which runs until it has seen all.
const TURN: u64 = 64;
const _: () = assert!(KINDS_MAX as u64 % TURN == 0 && KINDS_MAX * OpenFd::SIZE <= TEXT_MAX);

#[inline(always)]
fn kinds(ctx: &BtfTracePointContext) {
    let Some(mut record) = Record::resume(Hook::Syscall) else { return };
    if record.room() && list(&mut record) {
        // SAFETY: as in `finish`.
        unsafe { SYSCALLS.tail_call(ctx, slot::KINDS) };
    }
    walk::finish(ctx, record, &SYSCALLS);
}

/// Adds the next descriptors to the list; whether there are more. The block is closed with the last of them.
#[inline(always)]
fn list(record: &mut Record) -> bool {
    let at = mask::<POSITION_MASK>(record.state().position);
    let start = at + BlockHeader::SIZE as u64;
    let first = mask::<{ KINDS_MAX as i32 - 1 }>(record.state().listed);
    if first == 0 {
        record.state().cursor = start;
        record.state().status = u64::from(status::OK);
    }
    let table = table(Ptr::current()).unwrap_or(Table { files: 0, len: 0 });
    for i in 0..TURN / 4 {
        let fd = first + 4 * i;
        // The length of a table is a multiple of 64.
        if fd >= u64::from(table.len) {
            break;
        }
        // Most places are empty: four at once. A loop in the loop would be laid out in a way that Linux 5.10 and 6.1 refuse.
        let [a, b, c, d]: [u64; 4] = probe(table.files + 8 * fd);
        put(record, fd, a);
        put(record, fd + 1, b);
        put(record, fd + 2, c);
        put(record, fd + 3, d);
    }
    record.state().listed = first + TURN;
    let status = record.state().status;
    if first + TURN < KINDS_MAX as u64 && first + TURN < u64::from(table.len) && status == u64::from(status::OK) {
        return true;
    }
    let len = record.state().cursor - start;
    record.close(at, u64::from(tag::KINDS), status as u8, len & 0xffff);
    false
}

/// Adds one descriptor, if it is open and there is room.
#[inline(always)]
fn put(record: &mut Record, fd: u64, file: u64) {
    if file == 0 {
        return;
    }
    let cursor = record.state().cursor;
    if cursor >= RECORD_LIMIT as u64 {
        record.state().status = u64::from(status::TRUNCATED);
        return;
    }
    let entry = record.at(mask::<POSITION_MASK>(cursor)).cast::<OpenFd>();
    // SAFETY: the position is masked and 8-aligned; behind the mask there is room for an entry.
    unsafe { core::ptr::write_volatile(entry, kind(fd as u32, file)) };
    record.state().cursor = cursor + OpenFd::SIZE as u64;
}

/// What tells the kind of an open file.
#[inline(always)]
fn kind(fd: u32, file: u64) -> OpenFd {
    let inode: u64 = probe(file + off!(file_inode));
    let mode: u16 = probe(inode + off!(inode_mode));
    let mut open = OpenFd { fd, mode, family: 0, name: [0; 16] };
    match u32::from(mode) & S_IFMT {
        S_IFSOCK => open.family = family(probe(probe::<u64>(file + off!(file_private)) + off!(socket_sk))),
        S_IFDIR => {}
        _ => {
            let dentry: u64 = probe(file + off!(file_path) + off!(path_dentry));
            // Its own parent: it has no path, but a name.
            if probe::<u64>(dentry + off!(dentry_parent)) == dentry {
                open.name = probe(probe::<u64>(dentry + off!(dentry_name) + off!(qstr_name)));
            }
        }
    }
    open
}

/// Address family of a socket, IPv4 where an IPv6 socket is used for it.
#[inline(always)]
fn family(sk: u64) -> u16 {
    let family: u16 = probe(sk + off!(sock_family));
    if family == AF_INET6 && off!(sock_local6) != abi::offsets::MISSING {
        // `::ffff:a.b.c.d`.
        let [front, zero, mark]: [u32; 3] = probe(sk + off!(sock_local6));
        if front | zero == 0 && mark == 0xffff_0000 {
            return AF_INET;
        }
    }
    family
}
