//! Who did it: the header of a record and the line of parents, read from a task at the moment of the event.

use abi::{
    control::setting,
    offsets::MISSING,
    record::{ANCESTORS, Ancestor, FRONT, Header, flag},
};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;

use crate::{
    kernel::{Ptr, mask, probe, setting},
    maps::control,
    off,
    record::Record,
};

/// Indices in `signal_struct.pids` (`enum pid_type`).
const PIDTYPE_TGID: u64 = 1;
const PIDTYPE_PGID: u64 = 2;
const PIDTYPE_SID: u64 = 3;

/// `TS_COMPAT` in `thread_info.status`: the task is in a 32-bit system call.
const TS_COMPAT: u32 = 2;

/// Whether a task is in a 32-bit system call.
#[inline(always)]
pub fn in_compat_call(task: Ptr) -> bool {
    if setting(setting::COMPAT) == 0 || off!(task_status) == MISSING {
        return false;
    }
    task.get::<u32>(off!(task_status)) & TS_COMPAT != 0
}

/// Whether the event is the sensor's own, or another sensor's.
#[inline(always)]
pub fn is_own(task: Ptr) -> bool {
    let process = task.get::<u32>(off!(task_tgid));
    // SAFETY: the page is shared with the sensor, which stores whole words.
    let fellow = control().map_or(0, |control| unsafe { core::ptr::read_volatile(&raw const (*control).fellow) });
    u64::from(process) == setting(setting::OWN_TGID) || process == fellow
}

/// Puts header and ancestors in front of a record: the last step before it is sent, the same for every event, so that
/// it is verified once per hook and not once per system call.
#[inline(always)]
pub fn identify(record: &mut Record, task: Ptr) {
    let leader = task.ptr(off!(task_leader));
    ancestors(record, leader);
    let state = record.state();
    let count = mask::<31>(state.cursor);
    if count > ANCESTORS as u64 {
        return;
    }
    let start = mask::<1023>((FRONT - Header::SIZE) as u64 - count * Ancestor::SIZE as u64);
    state.start = start;
    let (kind, flags, result) = (state.kind as u16, state.flags as u16, state.result);
    let list = (&raw const state.ancestors) as u64;
    record.kernel_bytes(start + Header::SIZE as u64, count * Ancestor::SIZE as u64, list);

    let header = record.header_at(start);
    header.kind = kind;
    header.flags = flags;
    header.ancestors = count as u32;
    header.ret = result;
    // SAFETY: no arguments, no memory.
    header.time = unsafe { bpf_ktime_get_boot_ns() };
    header.start = leader.get(off!(task_start));
    header.cgroup = cgroup(task).map_or(0, |kn| kn.get(off!(kernfs_id)));
    header.tgid = task.get(off!(task_tgid));
    header.tid = task.get(off!(task_pid));
    header.comm = task.get(off!(task_comm));
    credentials(header, task);
    sessions(header, task);
}

/// Puts the name of the process's first thread in place of the thread's own.
#[inline(always)]
pub fn name_by_leader(record: &mut Record, task: Ptr) {
    let start = mask::<1023>(record.state().start);
    if start <= (FRONT - Header::SIZE) as u64 {
        record.header_at(start).comm = task.ptr(off!(task_leader)).get(off!(task_comm));
    }
}

#[inline(always)]
fn credentials(header: &mut Header, task: Ptr) {
    let cred = task.ptr(off!(task_cred));
    header.uid = cred.get(off!(cred_euid));
    header.gid = cred.get(off!(cred_egid));
    header.cap_effective = cred.get(off!(cred_cap_effective));
    header.cap_permitted = cred.get(off!(cred_cap_permitted));
    header.cap_inheritable = cred.get(off!(cred_cap_inheritable));
    header.loginuid = if off!(task_loginuid) == MISSING { u32::MAX } else { task.get(off!(task_loginuid)) };
}

/// Terminal, session and process group, with the ids that the task's own pid namespace knows.
#[inline(always)]
fn sessions(header: &mut Header, task: Ptr) {
    let signal = task.ptr(off!(task_signal));
    header.tty = terminal(signal);

    let tid = task.ptr(off!(task_thread_pid));
    let level: u32 = tid.get(off!(pid_level));
    let tgid = signal.ptr(off!(signal_pids) + 8 * PIDTYPE_TGID);
    let pgid = signal.ptr(off!(signal_pids) + 8 * PIDTYPE_PGID);
    let sid = signal.ptr(off!(signal_pids) + 8 * PIDTYPE_SID);
    header.pgid = number(pgid, 0);
    header.sid = number(sid, 0);
    if level == 0 {
        header.vtid = header.tid;
        header.vpid = header.tgid;
        header.vpgid = header.pgid;
        header.vsid = header.sid;
    } else {
        header.vtid = number(tid, level);
        header.vpid = number(tgid, level);
        header.vpgid = number(pgid, level);
        header.vsid = number(sid, level);
    }
}

/// The number of a `struct pid` in the namespace of a level.
#[inline(always)]
fn number(pid: Ptr, level: u32) -> u32 {
    if pid.is_null() {
        return 0;
    }
    if level == 0 {
        return pid.get(off!(pid_numbers));
    }
    probe(pid.address() + off!(pid_numbers) + u64::from(level & 31) * off!(upid_size))
}

/// The controlling terminal as `new_encode_dev` writes it (include/linux/kdev_t.h), the form of /proc/PID/stat.
#[inline(always)]
fn terminal(signal: Ptr) -> u32 {
    let tty = signal.ptr(off!(signal_tty));
    if tty.is_null() {
        return 0;
    }
    let driver = tty.ptr(off!(tty_driver));
    if driver.is_null() {
        return 0;
    }
    let index: u32 = tty.get(off!(tty_index));
    let major: u32 = driver.get(off!(tty_driver_major));
    let minor: u32 = driver.get::<u32>(off!(tty_driver_minor_start)).wrapping_add(index);
    encode_device(major, minor)
}

/// `new_encode_dev`.
#[inline(always)]
pub fn encode_device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The task's node in the hierarchy that the driver chose.
#[inline(always)]
pub fn cgroup(task: Ptr) -> Option<Ptr> {
    if off!(task_cgroups) == MISSING || off!(kernfs_parent) == MISSING {
        return None;
    }
    let set = task.ptr(off!(task_cgroups));
    let subsys = setting(setting::CGROUP_SUBSYS);
    let group = if subsys == MISSING {
        set.ptr(off!(css_set_default))
    } else {
        set.ptr(off!(css_set_subsys) + 8 * subsys).ptr(off!(css_cgroup))
    };
    Some(group.ptr(off!(cgroup_kn)))
}

/// Lists the line of parents in the scratch; `cursor` holds their number.
#[inline(always)]
fn ancestors(record: &mut Record, leader: Ptr) {
    let state = record.state();
    state.cursor = 0;
    let mut process = leader;
    for i in 0..ANCESTORS {
        process = process.ptr(off!(task_real_parent)).ptr(off!(task_leader));
        let tgid: u32 = process.get(off!(task_tgid));
        if tgid == 0 {
            return;
        }
        let start = process.get(off!(task_start));
        let comm = process.get(off!(task_comm));
        state.ancestors[i] = Ancestor { tgid, reserved: 0, start, comm };
        state.cursor += 1;
    }
    state.flags |= u64::from(flag::MORE_ANCESTORS);
}
