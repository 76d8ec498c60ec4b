//! System calls that the sensor never makes are refused by the kernel (seccomp).
//!
//! A list of what is refused, not of what is allowed: libraries change the calls that they make from version to version,
//! and a sensor that dies of an update protects nobody. What is refused is what someone needs who runs code in the
//! sensor: to execute something (also code that he brings: no memory becomes executable), to touch other processes, to
//! change mounts, namespaces or modules, and to reach BPF programs and maps of others.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Why calls are not refused.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// The filter could not be built.
    #[error("no filter can be built for this machine")]
    Build(#[source] seccompiler::BackendError),
    /// The kernel did not take it.
    #[error("the kernel does not take the filter")]
    Install(#[source] seccompiler::Error),
}

/// Calls that fail with EPERM whatever their arguments are.
const REFUSED: &[libc::c_long] = &[
    // Execution.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_personality,
    libc::SYS_memfd_create,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel and the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_mknodat,
    // Becoming someone else.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The same, where only x86-64 has them.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_uselib,
    libc::SYS_mknod,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Calls that fail as if the kernel did not have them: libraries then take others, whose arguments can be looked at.
const UNKNOWN: &[libc::c_long] = &[libc::SYS_clone3];

/// Commands of bpf(2) that the sensor uses on what is its own (`enum bpf_cmd` of `include/uapi/linux/bpf.h`): maps, by
/// descriptor (0-4, 21, 22, 24-27), loading of programs and types (5, 18), attaching and detaching (17, 28, 34), and what
/// it asks about its own (15). Not among them: descriptors of what others have loaded, pinning, test runs.
const BPF_COMMANDS: [u64; 17] = [0, 1, 2, 3, 4, 5, 15, 17, 18, 21, 22, 24, 25, 26, 27, 28, 34];

/// Refuses the calls to this thread and to all that it will start.
pub fn refuse() -> Result<(), CallsError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(CallsError::Build)?;
    let refused = program(arch, rules().map_err(CallsError::Build)?, libc::EPERM)?;
    let unknown = UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    let unknown = program(arch, unknown, libc::ENOSYS)?;
    [unknown, refused]
        .iter()
        .try_for_each(|filter| seccompiler::apply_filter_all_threads(filter))
        .map_err(CallsError::Install)
}

fn program(
    arch: TargetArch,
    rules: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, CallsError> {
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(CallsError::Build)?;
    let filter: BpfProgram = filter.try_into().map_err(CallsError::Build)?;
    Ok(NO_X32.into_iter().chain(filter).collect())
}

/// In front of each filter: calls of the x32 interface are the same calls under other numbers, so none of them passes.
const NO_X32: [sock_filter; 3] = {
    const X32: u32 = 0x4000_0000;
    const fn step(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
        sock_filter { code: code as u16, jt, jf, k }
    }
    [
        // The number of the call: the first word of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
};

/// Calls with the conditions under which they are refused; none: always.
fn rules() -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let when = |argument, op, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?])
    };
    let executable = libc::PROT_EXEC as u64;
    let mut rules: BTreeMap<_, _> = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![when(2, MaskedEq(executable), executable)?]);
    }
    // Threads, no processes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![when(0, MaskedEq(thread), 0)?]);
    // Signals to itself: what abort(3) does.
    rules.insert(libc::SYS_tgkill, vec![when(0, Ne, u64::from(std::process::id()))?]);
    let commands: Result<Vec<_>, _> = (0..BPF_LAST)
        .filter(|command| !BPF_COMMANDS.contains(command))
        .map(|command| when(0, Eq, command))
        .chain([when(0, SeccompCmpOp::Ge, BPF_LAST)])
        .collect();
    rules.insert(libc::SYS_bpf, commands?);
    Ok(rules)
}

/// Commands from here on did not exist when this was written.
const BPF_LAST: u64 = 40;

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    use super::*;

    /// Whether a page can be had with these rights.
    fn maps(rights: ProtFlags) -> bool {
        let page = std::num::NonZeroUsize::new(4096).expect("not zero");
        // SAFETY: a new mapping at an address of the kernel's choice, given back at once.
        unsafe { mmap_anonymous(None, page, rights, MapFlags::MAP_PRIVATE).and_then(|at| munmap(at, 4096)).is_ok() }
    }

    /// Filters cannot be taken back, so each case has a thread of its own, and what is tried must not be needed by others.
    fn confined<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
        let run = move || {
            let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a machine with filters");
            let filter = program(arch, rules().expect("rules"), libc::EPERM).expect("a filter");
            seccompiler::apply_filter(&filter).expect("a kernel with seccomp");
            act()
        };
        thread::spawn(run).join().expect("the case ends")
    }

    #[test]
    fn nothing_is_executed() {
        let error = confined(|| Command::new("/bin/true").spawn().map(drop).expect_err("refused"));
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn no_memory_becomes_executable_but_threads_start() {
        let (mapped, threads) = confined(|| {
            let mapped = [ProtFlags::PROT_READ, ProtFlags::PROT_READ | ProtFlags::PROT_EXEC].map(maps);
            (mapped, thread::spawn(|| 7).join().expect("a thread"))
        });
        assert_eq!((mapped, threads), ([true, false], 7));
    }

    #[test]
    fn other_processes_get_no_signal() {
        let other = nix::unistd::Pid::parent();
        let refused = confined(move || nix::sys::signal::kill(other, None));
        assert_eq!(refused, Err(nix::errno::Errno::EPERM));
    }
}
