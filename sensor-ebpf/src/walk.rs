//! Paths as the kernel sees them: from a dentry to the root, across mounts.
//!
//! `bpf_d_path` is refused in these hooks, so dentries and mounts are walked by hand. One walk is all that the verifier
//! of older kernels accepts in a program; therefore it is a program of its own, which tail-calls itself until every
//! pending path of the record is appended.

use abi::{
    control::slot,
    loss::KernelCounter,
    record::{BlockHeader, PATH_COMPONENTS, RECORD_LIMIT, TEXT_MAX, status},
};
use aya_ebpf::{macros::btf_tracepoint, maps::ProgramArray, programs::BtfTracePointContext};

use crate::{
    descriptors,
    kernel::{Ptr, mask, probe},
    maps::{EXEC_HELPERS, SYSCALLS, count},
    off,
    record::{Hook, PENDING, PendingPath, Record},
    task,
};

/// Appends the next path of a system call's record.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_walk(ctx: BtfTracePointContext) -> i32 {
    append(&ctx, Hook::Syscall, &SYSCALLS);
    0
}

/// Appends the next path of an exec record.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec_walk(ctx: BtfTracePointContext) -> i32 {
    append(&ctx, Hook::Exec, &EXEC_HELPERS);
    0
}

/// Says who made a system call, then goes on to the paths.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_identify(ctx: BtfTracePointContext) -> i32 {
    if let Some(mut record) = Record::resume(Hook::Syscall) {
        task::identify(&mut record, Ptr::current());
        descriptors::finish(&ctx, record, &SYSCALLS);
    }
    0
}

/// Sends a finished record, or hands it to the walker when paths are pending.
#[inline(always)]
pub fn finish(ctx: &BtfTracePointContext, mut record: Record, helpers: &ProgramArray) {
    if record.state().pending == 0 {
        return record.send();
    }
    // SAFETY: the index is checked by the kernel; the call returns only when the slot is empty.
    unsafe { helpers.tail_call(ctx, slot::WALK) };
    count(record.state().kind as u16, KernelCounter::NoHelper);
}

#[inline(always)]
fn append(ctx: &BtfTracePointContext, hook: Hook, helpers: &ProgramArray) {
    let Some(mut record) = Record::resume(hook) else { return };
    let state = record.state();
    let index = mask::<{ PENDING as i32 - 1 }>(state.walked) as usize;
    // SAFETY: the index is masked to the length of the array.
    let path = unsafe { core::ptr::read_volatile(state.paths.as_ptr().add(index)) };
    state.walked += 1;
    if record.room() {
        write(&mut record, path);
    }
    let state = record.state();
    if state.walked < state.pending {
        // SAFETY: as in `finish`.
        unsafe { helpers.tail_call(ctx, slot::WALK) };
        count(record.state().kind as u16, KernelCounter::NoHelper);
    } else {
        record.send();
    }
}

const NAME_MAX: u64 = 255;
const POSITION_MASK: i32 = RECORD_LIMIT as i32 - 1;

struct Walk {
    dentry: u64,
    mount: Mount,
    root_dentry: u64,
    root_mount: u64,
}

/// The three members of `struct mount` that lead on, read at once where they are neighbours.
#[derive(Clone, Copy)]
struct Mount {
    address: u64,
    parent: u64,
    point: u64,
    root: u64,
}

impl Mount {
    #[inline(always)]
    fn read(address: u64) -> Self {
        let neighbours = off!(mount_point) == off!(mount_parent) + 8
            && off!(mount_mnt) + off!(vfsmount_root) == off!(mount_parent) + 16;
        let [parent, point, root] = if neighbours {
            probe::<[u64; 3]>(address + off!(mount_parent))
        } else {
            [
                probe(address + off!(mount_parent)),
                probe(address + off!(mount_point)),
                probe(address + off!(mount_mnt) + off!(vfsmount_root)),
            ]
        };
        Self { address, parent, point, root }
    }
}

/// Appends a path.
#[inline(always)]
pub fn write(record: &mut Record, path: PendingPath) {
    let at = mask::<POSITION_MASK>(record.state().position);
    let fs = Ptr::current().ptr(off!(task_fs));
    let (root_dentry, root_mount) = if path.stop_at_root != 0 && !fs.is_null() {
        let mnt: u64 = fs.get(off!(fs_root) + off!(path_mnt));
        (fs.get(off!(fs_root) + off!(path_dentry)), mnt.wrapping_sub(off!(mount_mnt)))
    } else {
        (0, 0)
    };
    let start = at + BlockHeader::SIZE as u64;
    record.state().cursor = start;
    record.state().status = u64::from(status::TRUNCATED);
    let mut walk = Walk {
        dentry: path.dentry,
        mount: Mount::read(path.mnt.wrapping_sub(off!(mount_mnt))),
        root_dentry,
        root_mount,
    };
    for _ in 0..PATH_COMPONENTS {
        if !walk.step(record, start) {
            break;
        }
    }
    let (len, state) = (record.state().cursor - start, record.state().status as u8);
    record.close(at, path.tag & 0xff, state, len & 0xffff);
}

/// The walk is over.
#[inline(always)]
fn end(record: &mut Record, status: u8) -> bool {
    record.state().status = u64::from(status);
    false
}

impl Walk {
    /// One component, or one mount upwards; `false` at the end.
    #[inline(always)]
    fn step(&mut self, record: &mut Record, start: u64) -> bool {
        if self.dentry == self.root_dentry && self.mount.address == self.root_mount {
            return end(record, status::OK);
        }
        let top = self.dentry == self.mount.root;
        // What is mounted nowhere (a copy made by open_tree, a folder that was lazily unmounted) can be a part of its file
        // system. Its names there are told then: "/" would hide which file it is.
        if top && self.mount.parent != self.mount.address {
            self.dentry = self.mount.point;
            self.mount = Mount::read(self.mount.parent);
            return true;
        }
        let neighbours =
            off!(dentry_name) == off!(dentry_parent) + 8 && off!(qstr_hash_len) == 0 && off!(qstr_name) == 8;
        let [parent, hash_len, name] = if neighbours {
            probe::<[u64; 3]>(self.dentry + off!(dentry_parent))
        } else {
            [
                probe(self.dentry + off!(dentry_parent)),
                probe(self.dentry + off!(dentry_name) + off!(qstr_hash_len)),
                probe(self.dentry + off!(dentry_name) + off!(qstr_name)),
            ]
        };
        let cursor = record.state().cursor;
        if parent == self.dentry && (top || cursor != start) {
            // The root of a file system: what there is of the path has been written.
            return end(record, status::OK);
        }
        if cursor - start > TEXT_MAX as u64 - NAME_MAX - 1 || cursor >= RECORD_LIMIT as u64 {
            return end(record, status::TRUNCATED);
        }
        let len = mask::<{ NAME_MAX as i32 }>(hash_len >> 32);
        let at = mask::<POSITION_MASK>(cursor);
        // SAFETY: `at` is masked; the buffer ends more than a name behind the mask.
        unsafe { core::ptr::write_volatile(record.at(at), len as u8) };
        record.kernel_bytes(at + 1, len, name);
        record.state().cursor = at + 1 + len;
        if parent == self.dentry {
            // Its own parent but no mount's root: memfd, anonymous inode, pipe.
            return end(record, status::PSEUDO);
        }
        self.dentry = parent;
        true
    }
}
