//! Exec, fork and exit: the three hooks from which the sensor keeps its process table.

use abi::{
    control::{RING_STATE, want},
    offsets::MISSING,
    record::{BlockHeader, ExecFacts, RECORD_LIMIT, exe_flag, kind, status, tag},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    collect::wants,
    descriptor::layer,
    descriptors, hook,
    kernel::{Ptr, mask, probe},
    maps::EXEC_HELPERS,
    off,
    record::{Hook, PendingPath, Record},
    task,
};

const POSITION_MASK: i32 = RECORD_LIMIT as i32 - 1;

/// Soft limit of open files: `rlim[RLIMIT_NOFILE].rlim_cur`.
const RLIMIT_NOFILE: u64 = 7 * 16;

/// A program was executed. `sched_process_exec(task, old_pid, bprm)` runs in the task, after the point of no return.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let task = Ptr::current();
    let Some(mut record) = Record::begin(Hook::Exec, RING_STATE, kind::EXEC, 0) else { return 0 };
    task::identify(&mut record, task);
    let mm = task.ptr(off!(task_mm));
    if mm.is_null() {
        return 0;
    }
    record.user_area(u64::from(tag::ARGS), mm.get(off!(mm_arg_start)), mm.get(off!(mm_arg_end)));
    if wants() & want::ENV != 0 {
        record.user_area(u64::from(tag::ENV), mm.get(off!(mm_env_start)), mm.get(off!(mm_env_end)));
    }
    record.kernel_text(u64::from(tag::FILENAME), hook::filename(&ctx));
    cgroup_path(&mut record, task);
    executable(&mut record, task, mm);
    working_directory(&mut record, task);
    descriptors::finish(&ctx, record, &EXEC_HELPERS);
    0
}

/// What is executed: facts of the inode, and its path.
#[inline(always)]
fn executable(record: &mut Record, task: Ptr, mm: Ptr) {
    let file = mm.ptr(off!(mm_exe_file));
    if file.is_null() {
        return;
    }
    let inode = file.ptr(off!(file_inode));
    let signal = task.ptr(off!(task_signal));
    let mut facts = ExecFacts {
        ino: inode.get(off!(inode_ino)),
        ctime: 0,
        mtime: 0,
        fdlimit: signal.get(off!(signal_rlim) + RLIMIT_NOFILE),
        pgft_maj: task.get(off!(task_maj_flt)),
        pgft_min: task.get(off!(task_min_flt)),
        vm_pages: mm.get(off!(mm_total_vm)),
        flags: layer(inode.address(), inode.get(off!(inode_sb))),
    };
    if off!(inode_ctime_sec) != MISSING && off!(inode_ctime_nsec) != MISSING {
        facts.ctime = time(inode.get(off!(inode_ctime_sec)), inode.get(off!(inode_ctime_nsec)));
    }
    if off!(inode_mtime_sec) != MISSING && off!(inode_mtime_nsec) != MISSING {
        facts.mtime = time(inode.get(off!(inode_mtime_sec)), inode.get(off!(inode_mtime_nsec)));
    }
    if writable(task, inode) {
        facts.flags |= exe_flag::WRITABLE;
    }
    record.value(u64::from(tag::EXEC), facts);
    record.want_path(PendingPath {
        dentry: file.get(off!(file_path) + off!(path_dentry)),
        mnt: file.get(off!(file_path) + off!(path_mnt)),
        tag: u64::from(tag::EXEPATH),
        stop_at_root: 0,
    });
}

#[inline(always)]
fn time(seconds: u64, nanoseconds: u32) -> u64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::from(nanoseconds))
}

/// Whether the user who runs it could write to the executable: by mode bits, ownership or capability, unless the file
/// system or the inode forbids it.
#[inline(always)]
fn writable(task: Ptr, inode: Ptr) -> bool {
    const S_IWUSR: u16 = 0o200;
    const S_IWGRP_OTH: u16 = 0o022;
    const CAP_DAC_OVERRIDE: u64 = 1 << 1;
    const CAP_FOWNER: u64 = 1 << 3;
    const SB_RDONLY: u64 = 1;
    const S_IMMUTABLE: u32 = 8;
    let sb = inode.ptr(off!(inode_sb));
    if sb.get::<u64>(off!(sb_flags)) & SB_RDONLY != 0 || inode.get::<u32>(off!(inode_flags)) & S_IMMUTABLE != 0 {
        return false;
    }
    let mode: u16 = inode.get(off!(inode_mode));
    let owner: u32 = inode.get(off!(inode_uid));
    let cred = task.ptr(off!(task_cred));
    let user: u32 = cred.get(off!(cred_fsuid));
    let capabilities: u64 = cred.get(off!(cred_cap_effective));
    capabilities & (CAP_DAC_OVERRIDE | CAP_FOWNER) != 0
        || mode & S_IWGRP_OTH != 0
        || mode & S_IWUSR != 0 && owner == user
}

#[inline(always)]
fn working_directory(record: &mut Record, task: Ptr) {
    let fs = task.ptr(off!(task_fs));
    if fs.is_null() {
        return;
    }
    record.want_path(PendingPath {
        dentry: fs.get(off!(fs_pwd) + off!(path_dentry)),
        mnt: fs.get(off!(fs_pwd) + off!(path_mnt)),
        tag: u64::from(tag::CWD),
        stop_at_root: 1,
    });
}

/// Most components of a cgroup path; a container's is rarely longer than eight.
const CGROUP_COMPONENTS: u64 = 16;

/// Appends the names from the task's cgroup to the root of its hierarchy, leaf first.
#[inline(always)]
fn cgroup_path(record: &mut Record, task: Ptr) {
    let Some(node) = task::cgroup(task) else { return };
    if !record.room() {
        return;
    }
    let at = mask::<POSITION_MASK>(record.state().position);
    let start = at + BlockHeader::SIZE as u64;
    record.state().cursor = start;
    record.state().status = u64::from(status::TRUNCATED);
    let mut node = node.address();
    for _ in 0..CGROUP_COMPONENTS {
        let parent: u64 = probe(node + off!(kernfs_parent));
        if parent == 0 {
            record.state().status = u64::from(status::OK);
            break;
        }
        let cursor = mask::<POSITION_MASK>(record.state().cursor);
        let Some(len) = record.kernel_name(cursor + 1, probe(node + off!(kernfs_name))) else { break };
        // SAFETY: the cursor is masked, inside the buffer.
        unsafe { core::ptr::write_volatile(record.at(cursor), len as u8) };
        record.state().cursor = cursor + 1 + len;
        node = parent;
    }
    let (len, status) = (record.state().cursor - start, record.state().status as u8);
    record.close(at, u64::from(tag::CGROUP), status, len & 0xffff);
}

/// A process was created. `sched_process_fork(parent, child)` runs in the parent, before the child can run; threads are
/// no processes.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let child = Ptr::new(ctx.arg(1));
    if child.get::<u32>(off!(task_pid)) != child.get::<u32>(off!(task_tgid)) {
        return 0;
    }
    if let Some(mut record) = Record::begin(Hook::Fork, RING_STATE, kind::FORK, 0) {
        task::identify(&mut record, child);
        let creator = Ptr::new(ctx.arg(0)).ptr(off!(task_leader));
        let tgid: u32 = creator.get(off!(task_tgid));
        if tgid != child.ptr(off!(task_real_parent)).get::<u32>(off!(task_tgid)) {
            let start: u64 = creator.get(off!(task_start));
            record.value(u64::from(tag::CREATOR), [u64::from(tgid), start]);
        }
        record.send();
    }
    0
}

/// A process ended: its last thread left. `sched_process_exit(task)` runs in every thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_: BtfTracePointContext) -> i32 {
    let task = Ptr::current();
    let live: i32 = task.ptr(off!(task_signal)).get(off!(signal_live));
    if live != 0 {
        return 0;
    }
    let code: i32 = task.get(off!(task_exit_code));
    if let Some(mut record) = Record::begin(Hook::Exit, RING_STATE, kind::EXIT, i64::from(code)) {
        task::identify(&mut record, task);
        record.send();
    }
    0
}
