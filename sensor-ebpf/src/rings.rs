//! What an io_uring opens, connects and creates: no system call, so `sys_exit` is never reached. The programs hang on the
//! kernel functions that do these operations, or on the tracepoint of completed operations, and send records of the system
//! calls that would have done the same.
//!
//! The text that was passed as a path is gone when an operation ends: the kernel's own path stands for it. Everything
//! that the sensor adds to records of system calls when a rule asks (working directory, other descriptors) is left out.
//!
//! These programs can be preempted, so each has a scratch of its own. The one on the tracepoint has that of an open: the driver
//! attaches either it or the others.

use abi::{
    control::{RING_BULK, RING_URGENT},
    loss::KernelCounter,
    offsets::MISSING,
    record::{fd_flag, flag, kind, tag},
    syscalls::Row,
};
use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit},
    programs::{BtfTracePointContext, FEntryContext, FExitContext},
};

use crate::{
    descriptor::{self, Tags, layer},
    filter,
    kernel::{Ptr, probe},
    maps::count,
    off,
    record::{Hook, Record},
    task, walk,
};

/// `enum io_uring_op` (include/uapi/linux/io_uring.h).
mod operation {
    pub const CONNECT: u8 = 16;
    pub const OPENAT: u8 = 18;
    pub const OPENAT2: u8 = 28;
    pub const SOCKET: u8 = 45;
}

/// What an operation says when it is not over: it will be tried again.
const EAGAIN: i32 = -11;
const EINPROGRESS: i64 = -115;

/// Tags of the parameters of `openat` and `openat2` in the table of system calls, as far as they have the same.
mod open {
    pub const FD: u64 = 0;
    pub const DIRFD: u64 = 1;
    pub const FLAGS: u64 = 3;
    pub const MODE: u64 = 4;
}

/// One operation.
#[derive(Clone, Copy)]
struct Request {
    /// Address of the `struct io_kiocb`.
    address: u64,
    operation: u8,
}

impl Request {
    #[inline(always)]
    fn new(address: u64) -> Self {
        Self { address, operation: probe(address + off!(ring_opcode)) }
    }

    #[inline(always)]
    fn opens(self) -> bool {
        self.operation == operation::OPENAT || self.operation == operation::OPENAT2
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: u64) -> T {
        probe(self.address + offset)
    }

    #[inline(always)]
    fn result(self) -> i32 {
        self.get(off!(ring_result))
    }
}

/// A file was opened, or could not be: `io_openat2(req, issue_flags)`; `openat` is done by it, too.
#[fexit(function = "io_openat2")]
pub fn ring_open(ctx: FExitContext) -> i32 {
    let ended: i32 = ctx.arg(2);
    let request = Request::new(ctx.arg(0));
    // What goes to a place of the ring's own table, which has no descriptor, is told by `ring_open_direct`.
    let place: u32 = request.get(off!(ring_open_slot));
    if ended == 0 && (place == 0 || request.result() < 0) {
        send(Hook::RingOpen, |hook| opened(hook, request));
    }
    0
}

/// A file goes to a place of the ring's own table: `io_fixed_fd_install(req, issue_flags, file, slot)`.
#[fentry(function = "io_fixed_fd_install")]
pub fn ring_open_direct(ctx: FEntryContext) -> i32 {
    let request = Request::new(ctx.arg(0));
    let file: u64 = ctx.arg(2);
    if request.opens() {
        send(Hook::RingOpenDirect, |hook| open_of(hook, request, file, 0));
    }
    0
}

/// A socket was connected, is being connected, or could not be: `io_connect(req, issue_flags)`. A connection that takes
/// time is told when it begins, with `EINPROGRESS`, as of a socket that does not block: nobody need wait for its end.
#[fexit(function = "io_connect")]
pub fn ring_connect(ctx: FExitContext) -> i32 {
    let ended: i32 = ctx.arg(2);
    let request = Request::new(ctx.arg(0));
    let has_begun = off!(ring_connecting) != MISSING && request.get::<u8>(off!(ring_connecting)) != 0;
    match (ended, has_begun) {
        (0, false) => send(Hook::RingConnect, |hook| connected(hook, request, i64::from(request.result()))),
        (EAGAIN, true) => send(Hook::RingConnect, |hook| connected(hook, request, EINPROGRESS)),
        _ => {}
    }
    0
}

/// A socket was created, or could not be: `io_socket(req, issue_flags)`.
#[fexit(function = "io_socket")]
pub fn ring_socket(ctx: FExitContext) -> i32 {
    let ended: i32 = ctx.arg(2);
    let request = Request::new(ctx.arg(0));
    if ended == 0 {
        send(Hook::RingSocket, |hook| created(hook, request));
    }
    0
}

/// Something is completed: `io_uring_complete(ctx, req, …)`, the form since Linux 5.19, which the driver looks for. What no
/// operation completed has no `req`: its number reads as that of an operation that does nothing.
#[btf_tracepoint(function = "io_uring_complete")]
pub fn ring_complete(ctx: BtfTracePointContext) -> i32 {
    if off!(ring_result) == MISSING {
        return 0;
    }
    let request = Request::new(ctx.arg(1));
    let is_watched =
        request.opens() || request.operation == operation::CONNECT || request.operation == operation::SOCKET;
    if is_watched {
        send(Hook::RingOpen, |hook| match request.operation {
            operation::CONNECT => connected(hook, request, i64::from(request.result())),
            operation::SOCKET => created(hook, request),
            _ => opened(hook, request),
        });
    }
    0
}

/// Has a record made, says who did it, and hands it over. The kernel may use threads of its own for a ring, which belong to
/// the process: the process goes by the name of its leader.
#[inline(always)]
fn send(hook: Hook, make: impl FnOnce(Hook) -> Option<()>) {
    let task = Ptr::current();
    if task::is_own(task) || make(hook).is_none() {
        return;
    }
    if let Some(mut record) = Record::resume(hook) {
        task::identify(&mut record, task);
        task::name_by_leader(&mut record, task);
        record.send();
    }
}

#[inline(always)]
fn begin(hook: Hook, row: Row, result: i64) -> Option<Record> {
    let mut record = Record::begin(hook, RING_BULK, kind::FIRST_SYSCALL + row as u16, result)?;
    record.state().flags |= u64::from(flag::RING);
    Some(record)
}

#[inline(always)]
fn opened(hook: Hook, request: Request) -> Option<()> {
    let result = request.result();
    let place: u32 = request.get(off!(ring_open_slot));
    let file = if result >= 0 && place == 0 { descriptor::open_file(Ptr::current(), result).unwrap_or(0) } else { 0 };
    open_of(hook, request, file, i64::from(result))
}

#[inline(always)]
fn open_of(hook: Hook, request: Request, file: u64, result: i64) -> Option<()> {
    let extended = request.operation == operation::OPENAT2;
    let row = if extended { Row::openat2 } else { Row::openat };
    let kind = kind::FIRST_SYSCALL + row as u16;
    let [flags, mode, resolve]: [u64; 3] = request.get(off!(ring_open_how));
    // Any path may be meant.
    let mut urgent = false;
    if let Some(filter) = filter::of(kind) {
        let early = filter::early(filter, filter::properties(flags, result));
        if early.drops() {
            count(kind, KernelCounter::Filtered);
            return None;
        }
        urgent = early.urgent(u64::MAX);
    }
    let mut record = begin(hook, row, result)?;
    if urgent {
        record.state().class = u64::from(RING_URGENT);
    }
    let inode: u64 = if file == 0 { 0 } else { probe(file + off!(file_inode)) };
    let sb: u64 = if inode == 0 { 0 } else { probe(inode + off!(inode_sb)) };
    let (dev, ino): (u32, u64) =
        if inode == 0 { (0, 0) } else { (probe(sb + off!(sb_dev)), probe(inode + off!(inode_ino))) };
    record.int(open::FD, result as u64);
    record.int(open::DIRFD, i64::from(request.get::<i32>(off!(ring_open_dir))) as u64);
    record.int(open::FLAGS, flags & 0xffff_ffff | facts(file, inode, sb) << 32);
    record.int(open::MODE, mode & 0xffff_ffff);
    let mut next = open::MODE + 1;
    if extended {
        record.int(next, resolve);
        next += 1;
    }
    record.int(next, u64::from(task::encode_device(dev >> 20, dev & 0xf_ffff)));
    record.int(next + 1, ino);
    if file != 0 && record.room() {
        walk::write(&mut record, descriptor::path_of(file, tag::REALPATH, 0));
    }
    Some(())
}

/// [`fd_flag`] bits of the file that was opened.
#[inline(always)]
fn facts(file: u64, inode: u64, sb: u64) -> u64 {
    if file == 0 {
        return 0;
    }
    layer(inode, sb) | if descriptor::was_created(file) { u64::from(fd_flag::CREATED) } else { 0 }
}

#[inline(always)]
fn connected(hook: Hook, request: Request, result: i64) -> Option<()> {
    let mut record = begin(hook, Row::connect, result)?;
    record.int(0, result as u64);
    let tags = Tags { facts: tag::FD, path: tag::REALPATH, socket_path: tag::SOCKET_PATH };
    descriptor::describe(&mut record, request.get(off!(ring_file)), tags);
    Some(())
}

#[inline(always)]
fn created(hook: Hook, request: Request) -> Option<()> {
    let result = i64::from(request.result());
    let mut record = begin(hook, Row::socket, result)?;
    let [domain, of_type, protocol, flags]: [u32; 4] = request.get(off!(ring_socket));
    record.int(0, result as u64);
    record.int(1, u64::from(domain));
    record.int(2, u64::from(of_type));
    record.int(3, u64::from(protocol));
    record.int(4, u64::from(of_type | flags));
    Some(())
}
