//! Flags: from the kernel's numbers to Falco's, and from those to names.
//!
//! Falco numbers most flags anew (its `PPM_*` values), and rules may compare those numbers with `evt.rawarg.flags`. So a
//! raw value is translated first, and named by the table of its set afterwards.

mod table;

use abi::record::{exe_flag, fd_flag};

use crate::{
    params::{FlagSet, ParamType},
    text::Text,
};

/// Falco's open flags. Source: driver/ppm_events_public.h.
pub mod open {
    /// Open for reading.
    pub const RDONLY: u64 = 1;
    /// Open for writing.
    pub const WRONLY: u64 = 2;
    /// Create the file if it does not exist.
    pub const CREAT: u64 = 1 << 2;
    /// Close on exec.
    pub const CLOEXEC: u64 = 1 << 12;
    /// Must be a directory.
    pub const DIRECTORY: u64 = 1 << 10;
    /// An unnamed file in a directory.
    pub const TMPFILE: u64 = 1 << 13;
    /// The call created the file.
    pub const CREATED: u64 = 1 << 14;
    /// The file lies in the upper layer of an overlay file system.
    pub const UPPER_LAYER: u64 = 1 << 15;
    /// It lies in a lower layer.
    pub const LOWER_LAYER: u64 = 1 << 16;
}

/// The names of a set, with Falco's values, in the order of the text; `None` while they are not written down.
pub const fn names(set: FlagSet) -> Option<&'static [(&'static str, u64)]> {
    table::names(set)
}

/// Raw bits and Falco's, side by side.
type Bits = [(u64, u64)];

/// x86 numbers; aarch64 differs in four of them, see [`open_flags`].
const OPEN_BITS: &Bits = &[
    (0o100, open::CREAT),
    (0o200, 1 << 5),    // O_EXCL
    (0o1000, 1 << 8),   // O_TRUNC
    (0o2000, 1 << 3),   // O_APPEND
    (0o4000, 1 << 6),   // O_NONBLOCK
    (0o10_000, 1 << 4), // O_DSYNC
    (0o2_000_000, open::CLOEXEC),
];

#[cfg(not(target_arch = "aarch64"))]
const O_DIRECT: u64 = 0o40_000;
#[cfg(not(target_arch = "aarch64"))]
const O_LARGEFILE: u64 = 0o100_000;
#[cfg(not(target_arch = "aarch64"))]
const O_DIRECTORY: u64 = 0o200_000;
#[cfg(target_arch = "aarch64")]
const O_DIRECT: u64 = 0o200_000;
#[cfg(target_arch = "aarch64")]
const O_LARGEFILE: u64 = 0o400_000;
#[cfg(target_arch = "aarch64")]
const O_DIRECTORY: u64 = 0o40_000;
/// `O_SYNC` without the `O_DSYNC` that it implies.
const SYNC: u64 = 0o4_000_000;
/// `O_TMPFILE` without the `O_DIRECTORY` that it implies.
const TMPFILE: u64 = 0o20_000_000;

fn translate(raw: u64, bits: &Bits) -> u64 {
    bits.iter().filter(|(bit, _)| raw & bit != 0).fold(0, |flags, (_, ours)| flags | ours)
}

/// Flags that creation of a descriptor takes (`dup3`, `socket`): those of open without an access mode.
pub fn descriptor_flags(raw: u64) -> u64 {
    let mut flags = translate(raw, OPEN_BITS);
    flags |= translate(raw, &[(O_DIRECT, 1 << 9), (O_LARGEFILE, 1 << 11)]);
    if raw & TMPFILE != 0 {
        flags |= open::TMPFILE;
    }
    if opens_directory(raw) {
        flags |= open::DIRECTORY;
    }
    if raw & SYNC != 0 {
        flags |= 1 << 7;
    }
    flags
}

/// Which access an open asks for: the part of [`open_flags`] that most rules look at.
pub fn open_access(raw: u64) -> u64 {
    const ACCESS_MODE: u64 = 3;
    match raw & ACCESS_MODE {
        0 => open::RDONLY,
        1 => open::WRONLY,
        // 3 asks for neither access; Falco shows it as both.
        _ => open::RDONLY | open::WRONLY,
    }
}

/// Whether the path of an open is that of a directory. So is that of an unnamed file (`O_TMPFILE` implies `O_DIRECTORY`):
/// a rule about writing to the file `/tmp` is not about a file without a name in the folder `/tmp`.
pub fn opens_directory(raw: u64) -> bool {
    raw & O_DIRECTORY != 0
}

/// Flags of open: raw ones in the low half, what the kernel did with the file ([`fd_flag`]) in the high half.
pub fn open_flags(raw: u64) -> u64 {
    open_access(raw) | descriptor_flags(raw & 0xffff_ffff) | layer(raw >> 32)
}

fn layer(raw: u64) -> u64 {
    let flag = |bit: u32, ours| if raw & u64::from(bit) != 0 { ours } else { 0 };
    flag(fd_flag::CREATED, open::CREATED)
        | flag(fd_flag::UPPER_LAYER, open::UPPER_LAYER)
        | flag(fd_flag::LOWER_LAYER, open::LOWER_LAYER)
}

/// `creat_flags`: layers only, in numbers of their own.
pub fn creat_flags(raw: u64) -> u64 {
    let bits = raw >> 32;
    translate(bits, &[(u64::from(fd_flag::UPPER_LAYER), 1), (u64::from(fd_flag::LOWER_LAYER), 2)])
}

/// `resolve` of openat2 (include/uapi/linux/openat2.h).
pub fn resolve_flags(raw: u64) -> u64 {
    translate(raw, &[(0x01, 1 << 4), (0x02, 1 << 2), (0x04, 1 << 3), (0x08, 1 << 0), (0x10, 1 << 1), (0x20, 1 << 5)])
}

/// Flags of an executable; `memfd` says that it is one.
pub fn execve_flags(exe: u64, memfd: bool) -> u64 {
    let bits = [(exe_flag::WRITABLE, 1), (exe_flag::UPPER_LAYER, 2), (exe_flag::LOWER_LAYER, 8)];
    translate(exe, &bits) | if memfd { 4 } else { 0 }
}

/// `request` of ptrace (include/uapi/linux/ptrace.h, and asm/ptrace-abi.h of x86).
pub fn ptrace_request(raw: u64) -> u64 {
    match raw {
        0 => 1,                               // PTRACE_TRACEME
        1..=9 => raw + 1,                     // PEEKTEXT…SINGLESTEP
        12..=15 => raw + 14,                  // GETREGS…SETFPREGS
        16 => 11,                             // ATTACH
        17 => 12,                             // DETACH
        18..=19 => raw + 12,                  // GETFPXREGS, SETFPXREGS
        21 => 32,                             // OLDSETOPTIONS
        24 => 13,                             // SYSCALL
        25..=26 => raw + 8,                   // GET_THREAD_AREA, SET_THREAD_AREA
        30 => 35,                             // ARCH_PRCTL
        31..=33 => raw + 5,                   // SYSEMU, SYSEMU_SINGLESTEP, SINGLEBLOCK
        0x4200..=0x4203 => raw - 0x4200 + 14, // SETOPTIONS…SETSIGINFO
        0x4204..=0x4205 => raw - 0x4204 + 18, // GETREGSET, SETREGSET
        0x4206..=0x4208 => raw - 0x4206 + 20, // SEIZE, INTERRUPT, LISTEN
        0x4209 => 23,                         // PEEKSIGINFO
        0x420a..=0x420b => raw - 0x420a + 24, // GETSIGMASK, SETSIGMASK
        _ => 0,
    }
}

/// Command of fcntl (include/uapi/asm-generic/fcntl.h, include/uapi/linux/fcntl.h).
fn fcntl_command(raw: u64) -> u64 {
    match raw {
        0..=4 => raw + 1, // DUPFD, GETFD, SETFD, GETFL, SETFL
        5 => 6,           // GETLK
        6 => 8,           // SETLK
        7 => 9,           // SETLKW
        8 => 10,          // SETOWN
        9 => 12,          // GETOWN
        10 => 13,         // SETSIG
        11 => 15,         // GETSIG
        15 => 21,         // SETOWN_EX
        16 => 22,         // GETOWN_EX
        36..=38 => raw - 6,
        1024 => 23, // SETLEASE
        1025 => 24, // GETLEASE
        1029 => 25, // CANCELLK
        1030 => 26, // DUPFD_CLOEXEC
        1026 => 27, // NOTIFY
        1031 => 28, // SETPIPE_SZ
        1032 => 29, // GETPIPE_SZ
        _ => 0,
    }
}

/// `flags` of mmap (include/uapi/asm-generic/mman.h).
const MMAP_BITS: &Bits = &[
    (0x01, 1 << 0),     // SHARED
    (0x02, 1 << 1),     // PRIVATE
    (0x10, 1 << 2),     // FIXED
    (0x20, 1 << 3),     // ANONYMOUS
    (0x40, 1 << 4),     // 32BIT
    (0x4000, 1 << 6),   // NORESERVE
    (0x8000, 1 << 7),   // POPULATE
    (0x1_0000, 1 << 8), // NONBLOCK
    (0x100, 1 << 9),    // GROWSDOWN
    (0x800, 1 << 10),   // DENYWRITE
    (0x1000, 1 << 11),  // EXECUTABLE
    (0x2000, 1 << 14),  // LOCKED
];

/// `prot` of mmap and mprotect.
const PROT_BITS: &Bits = &[(1, 1), (2, 2), (4, 4), (8, 8), (0x0100_0000, 1 << 4), (0x0200_0000, 1 << 5)];

/// Command of semctl (include/uapi/linux/sem.h, ipc.h).
fn semctl_command(raw: u64) -> u64 {
    // GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL, SEM_STAT, SEM_INFO
    const FROM_11: [u64; 9] = [256, 512, 64, 128, 1024, 4096, 2048, 32, 16];
    match raw & !0x100 {
        0 => 4, // IPC_RMID
        1 => 2, // IPC_SET
        2 => 1, // IPC_STAT
        3 => 8, // IPC_INFO
        raw => raw.checked_sub(11).and_then(|at| FROM_11.get(usize::try_from(at).ok()?)).copied().unwrap_or(0),
    }
}

/// Level of a socket option.
fn socket_level(raw: u64) -> u64 {
    match raw {
        1 => 1, // SOL_SOCKET
        6 => 2, // SOL_TCP
        _ => 0,
    }
}

/// Name of a signal (include/uapi/asm-generic/signal.h).
pub(crate) fn signal_name(number: u64) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    NAMES.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
}

/// `flags` of clone (include/uapi/linux/sched.h).
pub fn clone_flags(raw: u64) -> u64 {
    const BITS: &Bits = &[
        (0x0000_0100, 1 << 15),
        (0x0000_0200, 1 << 1),
        (0x0000_0400, 1 << 0),
        (0x0000_0800, 1 << 11),
        (0x0000_2000, 1 << 10),
        (0x0000_4000, 1 << 27),
        (0x0000_8000, 1 << 8),
        (0x0001_0000, 1 << 13),
        (0x0002_0000, 1 << 5),
        (0x0004_0000, 1 << 12),
        (0x0008_0000, 1 << 25),
        (0x0010_0000, 1 << 9),
        (0x0020_0000, 1 << 23),
        (0x0080_0000, 1 << 14),
        (0x0100_0000, 1 << 24),
        (0x0200_0000, 1 << 28),
        (0x0400_0000, 1 << 7),
        (0x0800_0000, 1 << 3),
        (0x1000_0000, 1 << 20),
        (0x2000_0000, 1 << 6),
        (0x4000_0000, 1 << 4),
        (0x8000_0000, 1 << 2),
    ];
    translate(raw, BITS)
}

/// Falco's number for a raw value of a set. Open flags are not here: they depend on the event.
pub(crate) fn from_raw(set: FlagSet, raw: u64) -> u64 {
    match set {
        FlagSet::CreatFlags => creat_flags(raw),
        FlagSet::Openat2Flags => resolve_flags(raw),
        FlagSet::PtraceRequests => ptrace_request(raw),
        FlagSet::CloneFlags => clone_flags(raw),
        FlagSet::ChmodMode => raw & 0o7777,
        FlagSet::FileFlags => descriptor_flags(raw),
        FlagSet::FcntlCommands => fcntl_command(raw),
        FlagSet::MmapFlags => translate(raw, MMAP_BITS),
        FlagSet::ProtFlags => translate(raw, PROT_BITS),
        FlagSet::SemctlCommands => semctl_command(raw),
        FlagSet::SemgetFlags => raw & 0o777 | translate(raw, &[(0o1000, 1 << 13), (0o2000, 1 << 14)]),
        FlagSet::SemopFlags => translate(raw, &[(0o4000, 1), (0x1000, 2)]),
        FlagSet::SockoptLevels => socket_level(raw),
        FlagSet::SockoptOptions => match raw {
            55 => 52, // SO_MEMINFO
            57 => 53, // SO_COOKIE
            59 => 51, // SO_PEERGROUPS
            raw => raw,
        },
        FlagSet::EpollCreate1Flags => translate(raw, &[(0o2_000_000, 1)]),
        FlagSet::PidfdOpenFlags => translate(raw, &[(0o4000, 1)]),
        FlagSet::DeleteModuleFlags => translate(raw, &[(0o1000, 1), (0o4000, 2)]),
        FlagSet::FchownatFlags => translate(raw, &[(0x100, 0x400), (0x1000, 0x1000)]),
        FlagSet::CloseRangeFlags => translate(raw, &[(2, 1), (4, 2)]),
        // Falco's third is no flag of the kernel's.
        FlagSet::IoUringSetupFlags => {
            translate(raw, &[(1, 1), (2, 2), (4, 1 << 3), (8, 1 << 4), (16, 1 << 5), (32, 1 << 6), (64, 1 << 7)])
        }
        // These have the kernel's numbers, or no collected event uses them.
        FlagSet::AccessFlags
        | FlagSet::AnonInodeFdTypes
        | FlagSet::BpfCommands
        | FlagSet::ExecveFlags
        | FlagSet::FinitModuleFlags
        | FlagSet::FlockFlags
        | FlagSet::FsconfigCmds
        | FlagSet::FutexOperations
        | FlagSet::IoUringEnterFlags
        | FlagSet::IoUringRegisterOpcodes
        | FlagSet::IoUringSetupFeats
        | FlagSet::KeyctlOperations
        | FlagSet::LinkatFlags
        | FlagSet::LseekWhence
        | FlagSet::MemfdCreateFlags
        | FlagSet::MknodMode
        | FlagSet::Mlock2Flags
        | FlagSet::MlockallFlags
        | FlagSet::MountFlags
        | FlagSet::NewfstatatFlags
        | FlagSet::PfFlags
        | FlagSet::PrctlOptions
        | FlagSet::QuotactlCmds
        | FlagSet::QuotactlDqiFlags
        | FlagSet::QuotactlQuotaFmts
        | FlagSet::QuotactlTypes
        | FlagSet::Renameat2Flags
        | FlagSet::RlimitResources
        | FlagSet::ShutdownHow
        | FlagSet::SocketFamilies
        | FlagSet::SpliceFlags
        | FlagSet::UmountFlags
        | FlagSet::UnlinkatFlags => raw,
    }
}

/// Falco's number for what the kernel says in a parameter of an event.
pub(crate) fn falcos_number(event: &str, ty: ParamType, raw: u64) -> u64 {
    match ty {
        ParamType::Flags(FlagSet::FileFlags)
            if matches!(event, "open" | "openat" | "openat2" | "open_by_handle_at") =>
        {
            open_flags(raw)
        }
        ParamType::Flags(set) | ParamType::Enum(set) | ParamType::Mode(set) => from_raw(set, raw),
        _ => raw,
    }
}

#[cfg(any(test, feature = "testing"))]
/// The kernel's number that comes out as Falco's, as far as there is one: the way back from [`falcos_number`].
pub(crate) fn to_raw(event: &str, ty: ParamType, falcos: u64) -> u64 {
    let falcos_of = |raw| falcos_number(event, ty, raw);
    match ty {
        ParamType::Flags(_) | ParamType::Mode(_) => {
            // Of open flags, the two lowest bits are one number.
            let low = (0..4).min_by_key(|raw| ((falcos_of(*raw) ^ falcos) & 3, *raw)).unwrap_or_default();
            (2..64)
                .map(|bit| 1 << bit)
                .filter(|raw| {
                    let bits = falcos_of(*raw) & !falcos_of(0);
                    bits != 0 && falcos & bits == bits
                })
                .fold(low, |all, bit| all | bit)
        }
        ParamType::Enum(_) => (0..0x1_0000).find(|raw| falcos_of(*raw) == falcos).unwrap_or(falcos),
        _ => falcos,
    }
}

/// Names of the bits in `value`, in table order; a bit is named once. The name of 0 only stands for a value of 0, and
/// the list ends where a name says the whole value.
pub(crate) fn write_flags(out: &mut Text<'_>, set: FlagSet, value: u64) {
    let mut rest = value;
    for (name, bits) in names(set).unwrap_or_default() {
        let there = if *bits == 0 { value == 0 } else { rest & bits == *bits };
        if there {
            out.push_separated(b"|", name.as_bytes());
            rest &= !bits;
        }
        if *bits == value {
            break;
        }
    }
}

/// Every name that has exactly this value.
pub(crate) fn write_enum(out: &mut Text<'_>, set: FlagSet, value: u64) {
    for (name, number) in names(set).unwrap_or_default() {
        if *number == value {
            out.push_separated(b"|", name.as_bytes());
        }
    }
}

/// As [`write_flags`], but a name that says the whole value ends the list without its bits being looked at.
pub(crate) fn write_mode(out: &mut Text<'_>, set: FlagSet, value: u64) {
    let mut rest = value;
    for (name, bits) in names(set).unwrap_or_default() {
        if *bits == value || *bits != 0 && rest & bits == *bits {
            out.push_separated(b"|", name.as_bytes());
            rest &= !bits;
        }
        if *bits == value {
            break;
        }
    }
}

/// Capabilities, lowest bit first (include/uapi/linux/capability.h).
#[rustfmt::skip]
static CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Names of capabilities, separated by blanks.
pub(crate) fn write_capabilities(out: &mut Text<'_>, set: u64) {
    for (bit, name) in CAPABILITIES.iter().enumerate() {
        if set & 1 << bit != 0 {
            out.push_separated(b" ", name.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue::EventType, params::ParamType, value::Arena};

    #[track_caller]
    fn check(write: fn(&mut Text<'_>, FlagSet, u64), set: FlagSet, value: u64, want: &str) {
        let arena = Arena::new();
        let mut out = Text::new(&arena);
        write(&mut out, set, value);
        assert_eq!(String::from_utf8_lossy(out.finish()), want);
    }

    #[test]
    fn open_flags_have_falcos_numbers_and_order() {
        let raw = 0o1 | 0o100 | 0o1000 | 0o2_000_000 | u64::from(fd_flag::CREATED) << 32;
        assert_eq!(open_flags(raw), 2 | 4 | 256 | 4096 | open::CREATED);
        check(write_flags, FlagSet::FileFlags, open_flags(raw), "O_TRUNC|O_CREAT|O_WRONLY|O_CLOEXEC|O_F_CREATED");
        check(write_flags, FlagSet::FileFlags, open_flags(0), "O_RDONLY");
        check(write_flags, FlagSet::FileFlags, open_flags(2), "O_RDWR");
        check(write_flags, FlagSet::FileFlags, 0, "O_NONE");
        check(write_flags, FlagSet::FileFlags, open_flags(O_DIRECTORY), "O_DIRECTORY|O_RDONLY");
        check(write_flags, FlagSet::FileFlags, open_flags(TMPFILE | O_DIRECTORY | 2), "O_DIRECTORY|O_RDWR|O_TMPFILE");
    }

    #[test]
    fn enumerations_name_every_match() {
        check(write_enum, FlagSet::SocketFamilies, 17, "AF_PACKET");
        check(write_enum, FlagSet::SocketFamilies, 1, "AF_LOCAL|AF_UNIX");
        check(write_enum, FlagSet::PtraceRequests, ptrace_request(16), "PTRACE_ATTACH");
        check(write_enum, FlagSet::PtraceRequests, ptrace_request(0), "PTRACE_TRACEME");
        check(write_enum, FlagSet::PtraceRequests, ptrace_request(0x4206), "PTRACE_SEIZE");
        check(write_enum, FlagSet::PtraceRequests, ptrace_request(12), "PTRACE_GETREGS");
        check(write_enum, FlagSet::PtraceRequests, ptrace_request(13), "PTRACE_SETREGS");
        check(write_enum, FlagSet::PtraceRequests, ptrace_request(9999), "PTRACE_UNKNOWN");
    }

    #[test]
    fn modes_name_their_bits() {
        check(write_mode, FlagSet::ChmodMode, 0o755, "S_IXOTH|S_IROTH|S_IXGRP|S_IRGRP|S_IXUSR|S_IWUSR|S_IRUSR");
        check(write_mode, FlagSet::ChmodMode, 0o4000, "S_ISUID");
        check(write_flags, FlagSet::ExecveFlags, execve_flags(0b101, false), "EXE_WRITABLE|EXE_LOWER_LAYER");
        check(write_flags, FlagSet::ExecveFlags, 0, "");
    }

    #[test]
    fn every_set_of_a_collected_event_is_written_down() {
        for row in abi::syscalls::SYSCALLS {
            for param in EventType::by_name(row.name).expect("in the catalogue").info().params {
                if let ParamType::Flags(set) | ParamType::Enum(set) | ParamType::Mode(set) = param.ty {
                    assert!(names(set).is_some(), "{} of {}", param.name, row.name);
                }
            }
        }
    }
}
