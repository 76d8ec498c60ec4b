//! Calls that are told of by their arguments alone: a table of call, result, and what must be told.

use libc::{EBADF, EFAULT, EINVAL, ENOENT, ESRCH};

use super::{
    Case, Play,
    Want::{self, Any, Descriptor, Error, Is},
};
use crate::{
    child::Arg::{self, Bytes, Int, Nowhere, Text},
    needs::Need,
};

const fn one(
    row: &'static str,
    name: &'static str,
    args: &'static [Arg<'static>],
    result: Want,
    fields: &'static str,
) -> Case {
    Case { row, name, needs: &[Need::Tracing], play: Play::Call { args, result, fields } }
}

/// A process id that nobody has: Linux numbers up to 4194303 at most, and far from there in practice.
const NOBODY: Arg<'_> = Int(4_194_303);
/// A descriptor that is not open.
const CLOSED: Arg<'_> = Int(99);
const BAD: Want = Is(-(EBADF as i64));
const FAULT: Want = Is(-(EFAULT as i64));
const INVALID: Want = Is(-(EINVAL as i64));
const GONE: Want = Is(-(ESRCH as i64));
const MISSING: Want = Is(-(ENOENT as i64));
/// `struct timespec` of 100 ns, `struct rlimit` of 100 and 0.
const HUNDRED: Arg<'_> = Bytes(&[100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const NANOSECONDS: Arg<'_> = Bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0]);
/// `struct sembuf`: semaphore 1, minus 1, `IPC_NOWAIT`.
const SEMBUF: Arg<'_> = Bytes(&[1, 0, 255, 255, 0, 8, 0, 0, 0, 0, 0, 0]);

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    one("access", "names path and mode", &[Text("file"), Int(4)], Is(0), r#"{"evt.arg.name":"$STAGE/file","evt.arg.mode":"R_OK"}"#),
    one("bpf", "names the command", &[Int(5), Nowhere, Int(48)], Error, r#"{"evt.arg.cmd":"BPF_PROG_LOAD","fd.num":"-1"}"#),
    one("brk", "tells the address", &[Int(0)], Any, r#"{"evt.arg.addr":"0"}"#),
    one("chdir", "names the path as passed", &[Text("dir")], Is(0), r#"{"evt.arg.path":"dir","evt.arg.res":"0"}"#),
    one("chown", "names path and owners", &[Text("file"), Int(0), Int(0)], Is(0), r#"{"evt.arg.path":"$STAGE/file","evt.arg.uid":"0","evt.arg.gid":"0"}"#),
    one("lchown", "names path and owners", &[Text("link"), Int(0), Int(0)], Is(0), r#"{"evt.arg.path":"$STAGE/link","evt.arg.uid":"0","evt.arg.gid":"0"}"#),
    one("fchown", "names descriptor and owners", &[CLOSED, Int(1), Int(2)], BAD, r#"{"evt.arg.fd":"99","evt.arg.uid":"1","evt.arg.gid":"2"}"#),
    one("fchownat", "names path, owners and flags", &[Int(-100), Text("file"), Int(0), Int(0), Int(0x100)], Is(0), r#"{"evt.arg.dirfd":"AT_FDCWD","evt.arg.pathname":"$STAGE/file","evt.arg.flags":"AT_SYMLINK_NOFOLLOW"}"#),
    one("chroot", "names the path", &[Text("missing")], MISSING, r#"{"evt.arg.path":"$STAGE/missing","evt.arg.res":"ENOENT"}"#),
    one("close", "names the descriptor", &[CLOSED], BAD, r#"{"evt.arg.fd":"99","fd.num":"99"}"#),
    one("close_range", "names both ends", &[Int(200), Int(100), Int(0)], INVALID, r#"{"evt.arg.first":"200","evt.arg.last":"100"}"#),
    one("copy_file_range", "names both descriptors", &[Int(98), Int(0), CLOSED, Int(0), Int(5), Int(0)], BAD, r#"{"evt.arg.fdout":"99","evt.arg.fdin":"98","evt.arg.len":"5"}"#),
    one("delete_module", "names module and flags", &[Text("gyrfalcon_none"), Int(0o4000)], Error, r#"{"evt.arg.name":"gyrfalcon_none","evt.arg.flags":"O_NONBLOCK"}"#),
    one("epoll_create", "makes a descriptor", &[Int(1)], Descriptor, r#"{"evt.arg.size":"1","fd.num":"$RET","fd.type":"eventpoll"}"#),
    one("epoll_create1", "names its flags", &[Int(0o2_000_000)], Descriptor, r#"{"evt.arg.flags":"EPOLL_CLOEXEC","fd.type":"eventpoll"}"#),
    one("epoll_wait", "tells how many", &[CLOSED, Nowhere, Int(7), Int(0)], BAD, r#"{"evt.arg.maxevents":"7"}"#),
    one("eventfd", "tells the start", &[Int(7)], Descriptor, r#"{"evt.arg.initval":"7","fd.num":"$RET","fd.type":"event"}"#),
    one("eventfd2", "names its flags", &[Int(7), Int(0o2_004_000)], Descriptor, r#"{"evt.arg.initval":"7","evt.arg.flags":"O_NONBLOCK|O_CLOEXEC","fd.type":"event"}"#),
    one("fcntl", "names the command", &[CLOSED, Int(1030), Int(7)], BAD, r#"{"evt.arg.cmd":"F_DUPFD_CLOEXEC","evt.arg.arg":"7","evt.arg.fd":"99"}"#),
    one("finit_module", "names arguments and flags", &[CLOSED, Text("a=1"), Int(1)], Error, r#"{"evt.arg.uargs":"a=1","evt.arg.flags":"MODULE_INIT_IGNORE_MODVERSIONS","evt.arg.fd":"99"}"#),
    one("init_module", "has the front of the image", &[Text("not a module"), Int(12), Text("a=1")], Error, r#"{"evt.arg.img":"not a module","evt.arg.length":"12","evt.arg.uargs":"a=1"}"#),
    one("flock", "names the operation", &[CLOSED, Int(2)], BAD, r#"{"evt.arg.operation":"LOCK_EX"}"#),
    one("fsconfig", "names key and value", &[CLOSED, Int(1), Text("key"), Text("value"), Int(0)], BAD, r#"{"evt.arg.cmd":"FSCONFIG_SET_STRING","evt.arg.key":"key","evt.arg.value_charbuf":"value"}"#),
    one("fstat", "names the descriptor", &[CLOSED, Nowhere], BAD, r#"{"evt.arg.fd":"99"}"#),
    one("stat", "names the path", &[Text("link"), Nowhere], FAULT, r#"{"evt.arg.path":"$STAGE/link"}"#),
    one("lstat", "names the path", &[Text("link"), Nowhere], FAULT, r#"{"evt.arg.path":"$STAGE/link"}"#),
    one("newfstatat", "names path and flags", &[Int(-100), Text("link"), Nowhere, Int(0x100)], FAULT, r#"{"evt.arg.dirfd":"AT_FDCWD","evt.arg.path":"$STAGE/link","evt.arg.flags":"AT_SYMLINK_NOFOLLOW"}"#),
    one("futex", "tells address and value", &[Int(8), Int(129), Int(1)], Is(0), r#"{"evt.arg.addr":"8","evt.arg.val":"1"}"#),
    one("getdents", "names the descriptor", &[CLOSED, Nowhere, Int(0)], BAD, r#"{"evt.arg.fd":"99"}"#),
    one("getdents64", "names the descriptor", &[CLOSED, Nowhere, Int(0)], BAD, r#"{"evt.arg.fd":"99"}"#),
    one("getuid", "tells the user", &[], Is(0), r#"{"evt.arg.uid":"root"}"#),
    one("geteuid", "tells the user", &[], Is(0), r#"{"evt.arg.euid":"root"}"#),
    one("getgid", "tells the group", &[], Is(0), r#"{"evt.arg.gid":"root"}"#),
    one("getegid", "tells the group", &[], Is(0), r#"{"evt.arg.egid":"root"}"#),
    one("getpeername", "is seen", &[CLOSED, Nowhere, Nowhere], BAD, "{}"),
    one("getsockname", "is seen", &[CLOSED, Nowhere, Nowhere], BAD, "{}"),
    one("getrlimit", "names the resource", &[Int(7), Nowhere], FAULT, r#"{"evt.arg.resource":"RLIMIT_NOFILE","evt.arg.cur":"-1","evt.arg.max":"-1"}"#),
    one("setrlimit", "tells both limits", &[Int(99), HUNDRED], INVALID, r#"{"evt.arg.cur":"100","evt.arg.max":"0"}"#),
    one("prlimit", "tells limits and process", &[NOBODY, Int(7), HUNDRED, Int(0)], GONE, r#"{"evt.arg.newcur":"100","evt.arg.newmax":"0","evt.arg.oldcur":"-1","evt.arg.pid":"4194303","evt.arg.resource":"RLIMIT_NOFILE"}"#),
    one("getsockopt", "names level and option", &[CLOSED, Int(1), Int(3), Nowhere, Nowhere], BAD, r#"{"evt.arg.level":"SOL_SOCKET","evt.arg.optname":"SO_TYPE"}"#),
    one("setsockopt", "names level and length", &[CLOSED, Int(6), Int(1), Nowhere, Int(4)], BAD, r#"{"evt.arg.level":"SOL_TCP","evt.arg.optlen":"4"}"#),
    one("shutdown", "names the direction", &[CLOSED, Int(2)], BAD, r#"{"evt.arg.how":"SHUT_RDWR","evt.arg.fd":"99"}"#),
    one("inotify_init", "makes a descriptor", &[], Descriptor, r#"{"fd.num":"$RET","fd.type":"inotify"}"#),
    one("inotify_init1", "names its flags", &[Int(0o4000)], Descriptor, r#"{"evt.arg.flags":"O_NONBLOCK","fd.type":"inotify"}"#),
    one("io_uring_setup", "tells the entries", &[Int(1), Nowhere], Error, r#"{"evt.arg.entries":"1"}"#),
    one("io_uring_enter", "tells how many", &[CLOSED, Int(3), Int(2), Int(1)], Error, r#"{"evt.arg.to_submit":"3","evt.arg.min_complete":"2","evt.arg.flags":"IORING_ENTER_GETEVENTS"}"#),
    one("io_uring_register", "names the operation", &[CLOSED, Int(9), Int(0), Int(0)], Error, r#"{"evt.arg.opcode":"IORING_REGISTER_PERSONALITY"}"#),
    one("ioctl", "tells request and argument", &[CLOSED, Int(0x5401), Int(16)], BAD, r#"{"evt.arg.request":"5401","evt.arg.argument":"10"}"#),
    one("keyctl", "names the operation", &[Int(3), Int(0)], Error, r#"{"evt.arg.operation":"KEYCTL_REVOKE"}"#),
    one("kill", "names the signal", &[NOBODY, Int(15)], GONE, r#"{"evt.arg.pid":"4194303","evt.arg.sig":"SIGTERM"}"#),
    one("tkill", "names the signal", &[NOBODY, Int(9)], GONE, r#"{"evt.arg.tid":"4194303","evt.arg.sig":"SIGKILL"}"#),
    one("tgkill", "names the signal", &[NOBODY, NOBODY, Int(1)], GONE, r#"{"evt.arg.pid":"4194303","evt.arg.tid":"4194303","evt.arg.sig":"SIGHUP"}"#),
    one("lseek", "tells offset and origin", &[CLOSED, Int(5), Int(0)], BAD, r#"{"evt.arg.offset":"5","evt.arg.whence":"SEEK_SET"}"#),
    one("memfd_create", "names the file", &[Text("gyr"), Int(1)], Descriptor, r#"{"evt.arg.name":"gyr","evt.arg.flags":"MFD_CLOEXEC","fd.num":"$RET","fd.name":"gyr","fd.type":"memfd","fd.typechar":"m"}"#),
    one("mknod", "names path and mode", &[Text("pipe"), Int(0o010_644), Int(0)], Is(0), r#"{"evt.arg.path":"$STAGE/pipe","evt.arg.dev":"0"}"#),
    one("mknodat", "names path and mode", &[Int(-100), Text("pipe"), Int(0o010_644), Int(0)], Is(0), r#"{"evt.arg.path":"$STAGE/pipe","evt.arg.dirfd":"AT_FDCWD"}"#),
    one("mlock", "tells where", &[Int(4096), Int(0)], Any, r#"{"evt.arg.addr":"1000","evt.arg.len":"0"}"#),
    one("mlock2", "names its flags", &[Int(4096), Int(0), Int(1)], Any, r#"{"evt.arg.addr":"1000","evt.arg.flags":"MLOCK_ONFAULT"}"#),
    one("munlock", "tells where", &[Int(4096), Int(0)], Any, r#"{"evt.arg.addr":"1000"}"#),
    one("mlockall", "names its flags", &[Int(0)], INVALID, r#"{"evt.arg.flags":"0"}"#),
    one("munlockall", "is seen", &[], Is(0), r#"{"evt.arg.res":"0"}"#),
    one("mmap", "names protection and flags", &[Int(0), Int(4096), Int(5), Int(0x20), Int(-1), Int(0)], INVALID, r#"{"evt.arg.length":"4096","evt.arg.prot":"PROT_READ|PROT_EXEC","evt.arg.flags":"MAP_ANONYMOUS","fd.num":"-1"}"#),
    one("munmap", "tells where", &[Int(1), Int(4096)], INVALID, r#"{"evt.arg.addr":"1","evt.arg.length":"4096"}"#),
    one("mprotect", "names protection", &[Int(0), Int(0), Int(7)], Any, r#"{"evt.arg.prot":"PROT_READ|PROT_WRITE|PROT_EXEC"}"#),
    one("mount", "names device, place, type and flags", &[Text("none"), Text("missing"), Text("nosuchfs"), Int(3), Int(0)], Error, r#"{"evt.arg.dev":"none","evt.arg.dir":"$STAGE/missing","evt.arg.type":"nosuchfs","evt.arg.flags":"RDONLY|NOSUID"}"#),
    one("umount2", "names place and flags", &[Text("missing"), Int(2)], Error, r#"{"evt.arg.name":"$STAGE/missing","evt.arg.flags":"DETACH"}"#),
    one("nanosleep", "tells how long", &[NANOSECONDS, Int(0)], Is(0), r#"{"evt.arg.interval":"100"}"#),
    one("open_by_handle_at", "a failure has the flags", &[CLOSED, Nowhere, Int(0)], Error, r#"{"evt.arg.mountfd":"99","evt.arg.flags":"O_RDONLY","fd.num":"-1"}"#),
    one("pidfd_open", "names the process", &[NOBODY, Int(0)], Error, r#"{"evt.arg.pid":"4194303","fd.num":"-1"}"#),
    one("pidfd_getfd", "names both descriptors", &[CLOSED, Int(7), Int(0)], BAD, r#"{"evt.arg.pid_fd":"99","evt.arg.target_fd":"7"}"#),
    one("poll", "tells how long", &[Int(0), Int(0), Int(0)], Is(0), r#"{"evt.arg.timeout":"0","evt.arg.fds":"NULL"}"#),
    one("ppoll", "tells how long", &[Int(0), Int(0), NANOSECONDS, Int(0)], Is(0), r#"{"evt.arg.fds":"NULL"}"#),
    one("pread", "tells size and place", &[CLOSED, Nowhere, Int(5), Int(7)], BAD, r#"{"evt.arg.size":"5","evt.arg.pos":"7"}"#),
    one("pwrite", "has the data", &[CLOSED, Text("hello"), Int(5), Int(7)], BAD, r#"{"evt.arg.data":"hello","evt.arg.size":"5","evt.arg.pos":"7"}"#),
    one("write", "has the data", &[CLOSED, Text("hello"), Int(5)], BAD, r#"{"evt.arg.data":"hello","evt.arg.size":"5"}"#),
    one("seccomp", "tells the operation", &[Int(99), Int(0), Int(0)], INVALID, r#"{"evt.arg.op":"99"}"#),
    one("select", "is seen", &[Int(-1), Int(0), Int(0), Int(0), Int(0)], INVALID, r#"{"evt.arg.res":"EINVAL"}"#),
    one("semget", "tells key and number", &[Int(5), Int(-1), Int(0)], INVALID, r#"{"evt.arg.key":"5","evt.arg.nsems":"-1"}"#),
    one("semop", "tells the first operation", &[Int(-1), SEMBUF, Int(1)], Error, r#"{"evt.arg.nsops":"1","evt.arg.sem_num_0":"1","evt.arg.sem_op_0":"-1","evt.arg.sem_flg_0":"IPC_NOWAIT","evt.arg.semid":"-1"}"#),
    one("semctl", "names the command", &[Int(-1), Int(3), Int(12), Int(0)], Error, r#"{"evt.arg.semid":"-1","evt.arg.semnum":"3","evt.arg.cmd":"GETVAL"}"#),
    one("sendfile", "names both descriptors", &[CLOSED, Int(98), Int(0), Int(5)], BAD, r#"{"evt.arg.out_fd":"99","evt.arg.in_fd":"98","evt.arg.size":"5"}"#),
    one("setuid", "names the user", &[Int(0)], Is(0), r#"{"evt.arg.uid":"root"}"#),
    one("setgid", "names the group", &[Int(0)], Is(0), r#"{"evt.arg.gid":"root"}"#),
    one("setreuid", "says what stays", &[Int(-1), Int(0)], Is(0), r#"{"evt.arg.ruid":"<NONE>","evt.arg.euid":"root"}"#),
    one("setregid", "says what stays", &[Int(-1), Int(0)], Is(0), r#"{"evt.arg.rgid":"<NONE>","evt.arg.egid":"root"}"#),
    one("setresuid", "names three users", &[Int(-1), Int(0), Int(0)], Is(0), r#"{"evt.arg.ruid":"<NONE>","evt.arg.euid":"root","evt.arg.suid":"root"}"#),
    one("setresgid", "names three groups", &[Int(-1), Int(0), Int(0)], Is(0), r#"{"evt.arg.rgid":"<NONE>","evt.arg.egid":"root","evt.arg.sgid":"root"}"#),
    one("setpgid", "tells process and group", &[Int(0), Int(0)], Is(0), r#"{"evt.arg.pid":"0","evt.arg.pgid":"0"}"#),
    one("setsid", "tells the session", &[], Any, "{}"),
    one("setns", "names the namespace", &[CLOSED, Int(0x4000_0000)], BAD, r#"{"evt.arg.nstype":"CLONE_NEWNET","evt.arg.fd":"99"}"#),
    one("unshare", "names the namespaces", &[Int(0x0400_0000)], Any, r#"{"evt.arg.flags":"CLONE_NEWUTS"}"#),
    one("signalfd", "a failure has the descriptor", &[Int(-1), Nowhere, Int(8)], Error, r#"{"fd.num":"-1"}"#),
    one("signalfd4", "names its flags", &[Int(-1), Nowhere, Int(8), Int(0o4000)], Error, r#"{"evt.arg.flags":"O_NONBLOCK","fd.num":"-1"}"#),
    one("splice", "names both descriptors", &[CLOSED, Int(0), Int(98), Int(0), Int(5), Int(2)], BAD, r#"{"evt.arg.fd_in":"99","evt.arg.fd_out":"98","evt.arg.size":"5","evt.arg.flags":"SPLICE_F_NONBLOCK"}"#),
    one("timerfd_create", "makes a descriptor", &[Int(1), Int(0)], Descriptor, r#"{"evt.arg.clockid":"1","fd.type":"timerfd"}"#),
    one("userfaultfd", "names its flags", &[Int(0o2_000_000)], Any, r#"{"evt.arg.flags":"O_CLOEXEC"}"#),
    one("sched_yield", "a call without a row has a result", &[], Is(0), r#"{"evt.type":"sched_yield"}"#),
    one("personality", "a call without a row has its arguments", &[Int(0xffff_ffff), Int(2)], Any, r#"{"evt.arg.arg0":"FFFFFFFF","evt.arg.arg1":"2"}"#),
    one("acct", "a call without a row that fails", &[Nowhere], Error, r#"{"evt.arg.arg0":"8"}"#),
    one("pivot_root", "a call without a row that fails", &[Text("missing"), Text("missing")], Error, "{}"),
];
