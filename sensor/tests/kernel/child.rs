//! The processes that the sensor watches: this program, started again with a hidden argument.
//!
//! All `unsafe` of the tests is here: system calls by number, so that exactly the call of a row is made with exactly the
//! arguments of the case, also those that libc would refuse or replace by a newer call.

use std::{
    env,
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
    ptr,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use abi::syscalls::{GENERIC, NONE, SYSCALLS};
use nix::mount::{MsFlags, mount};

use crate::{evasion, flood, harness::Helper, hooks, reload, rows, storm};

/// The hidden argument; what to play follows.
pub const PLAY: &str = "--traced-process";

/// Plays a part when the arguments say so.
pub fn play() -> Option<ExitCode> {
    let args: Vec<String> = env::args().collect();
    let (part, args) = match &args[..] {
        [_, play, part, args @ ..] if play == PLAY => (part.as_str(), args),
        _ => return None,
    };
    match (part, args) {
        ("parent", [program, args @ ..]) => parent(program, args),
        ("row", [row, name, mark]) => rows::play(row, name, mark),
        ("markers", [folder, rate]) => reload::play(folder, rate),
        ("storm", [program, first, count]) => storm::play(program, first, count),
        ("flood", [path, count]) => flood::play(path, count),
        ("shim", [program, args @ ..]) => shim(program, args),
        ("where-names-are", [hosts, servers, program, args @ ..]) => {
            own_mounts();
            bind(hosts, "/etc/hosts");
            bind(servers, "/etc/resolv.conf");
            become_program(program, args);
        }
        ("where-tracefs-is", [there, program, args @ ..]) => {
            own_mounts();
            set_tracefs(there == "true");
            become_program(program, args);
        }
        ("hooked", [folder]) => hooks::play(folder),
        ("evade", [group, way, folder]) => evasion::play(group, way, folder),
        ("race", [race, folder]) => evasion::play_race(race, folder),
        ("exec-from-thread", [program]) => exec_from_thread(program),
        ("calls32", []) => assert_eq!(call32(NR32_GETPID, [0; 3]), Some(i64::from(std::process::id()))),
        _ => panic!("nobody knows how to play {part} {args:?}"),
    }
    Some(ExitCode::SUCCESS)
}

/// A command that plays a part under a name of its own: the file that is executed is a link with this name.
pub fn command(folder: &Path, name: &str, part: &[&str]) -> Command {
    let link = folder.join(name);
    if !link.exists() {
        let program = env::current_exe().expect("this program has a path");
        std::os::unix::fs::symlink(program, &link).expect("a link in a temporary folder");
    }
    let mut command = Command::new(link);
    command.arg0(name).arg(PLAY).args(part).stdin(Stdio::null());
    dies_with_parent(&mut command);
    command
}

/// As [`command`], below a parent with a name of its own, which waits for it.
pub fn command_below(folder: &Path, parent: &str, name: &str, part: &[&str]) -> Command {
    // The link must be there; the command itself is made by the parent.
    let child = command(folder, name, part);
    let program = child.get_program().to_string_lossy().into_owned();
    let mut args = vec!["parent", program.as_str()];
    args.extend(part);
    command(folder, parent, &args)
}

/// Starts a program, and is the parent of all that it leaves behind, until they end.
fn shim(program: &str, args: &[String]) {
    nix::sys::prctl::set_child_subreaper(true).expect("a property of this process");
    assert!(Command::new(program).args(args).status().expect("a program").success(), "{program} failed");
    while nix::sys::wait::wait().is_ok() {}
}

/// A command that becomes another program where these are the tables of hosts and of name servers.
pub fn where_names_are(hosts: &Path, servers: &Path, program: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args([PLAY, "where-names-are"]).arg(hosts).arg(servers).arg(program);
    command
}

/// A command that becomes another program where tracefs is mounted, or is not.
pub fn where_tracefs_is(there: bool, program: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args([PLAY, "where-tracefs-is", &there.to_string(), program]);
    command
}

const NONE_AT_ALL: Option<&str> = None;

/// Enters a mount namespace of its own.
fn own_mounts() {
    let none = NONE_AT_ALL;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root's right");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
}

/// Puts a file in the place of another.
fn bind(file: &str, path: &str) {
    mount(Some(file), path, NONE_AT_ALL, MsFlags::MS_BIND, NONE_AT_ALL).expect("a file of this host");
}

/// Mounts tracefs, or empty folders where it could be.
fn set_tracefs(there: bool) {
    if there && Path::new("/sys/kernel/tracing/events").is_dir() {
        return;
    }
    let kind = if there { "tracefs" } else { "tmpfs" };
    let places = ["/sys/kernel/tracing", "/sys/kernel/debug"];
    for place in if there { &places[..1] } else { &places[..] } {
        mount(Some(kind), *place, Some(kind), MsFlags::empty(), NONE_AT_ALL).expect("a folder of every kernel");
    }
}

fn become_program(program: &str, args: &[String]) {
    panic!("cannot become {program}: {}", Command::new(program).args(args).exec());
}

/// Starts a part and waits for it.
fn parent(program: &str, part: &[String]) {
    let name = Path::new(program).file_name().expect("a file");
    let mut command = Command::new(program);
    command.arg0(name).arg(PLAY).args(part).stdin(Stdio::inherit());
    dies_with_parent(&mut command);
    let status = Helper::start(&mut command).0.wait().expect("it is our child");
    assert!(status.success(), "{program} failed: {status}");
}

/// Becomes another program at the wish of a thread that is not the main one.
fn exec_from_thread(program: &str) {
    let program = program.to_owned();
    let thread = std::thread::spawn(move || Command::new(program).arg0("zero").args(["one", "two words"]).exec());
    panic!("exec: {:?}", thread.join());
}

/// So that nothing is left when the tests are killed.
pub fn dies_with_parent(command: &mut Command) {
    let set = || {
        // SAFETY: prctl with these arguments only sets a property of the calling process; it is async-signal-safe.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: what runs between fork and exec is a single system call: no allocation, no lock.
    unsafe { command.pre_exec(set) };
}

/// Does something in the process of a command before it executes the program.
pub fn before_exec(command: &mut Command, mut act: impl FnMut() + Send + Sync + 'static) {
    let act = move || {
        act();
        Ok(())
    };
    // SAFETY: traced processes have a single thread, so that a fork leaves no lock held.
    unsafe { command.pre_exec(act) };
}

/// Lets a command keep `CAP_DAC_OVERRIDE` and `CAP_SYS_ADMIN` though it becomes another user: as ambient capabilities.
pub fn keep_capabilities(command: &mut Command) {
    const DAC_OVERRIDE: libc::c_ulong = 1;
    const SYS_ADMIN: libc::c_ulong = 21;
    const RAISE: libc::c_ulong = 2;
    // SAFETY: sets a property of the calling process, which its children inherit until they execute something.
    unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1) };
    before_exec(command, || {
        let set = 1u32 << DAC_OVERRIDE | 1 << SYS_ADMIN;
        // `_LINUX_CAPABILITY_VERSION_3`, this process; effective, permitted, inheritable, twice 32 bits.
        let header = [0x2008_0522u32, 0];
        let data = [set, set, set, 0, 0, 0];
        // SAFETY: both arrays have the layout and the length of version 3, and are only read.
        unsafe {
            libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr());
            for capability in [DAC_OVERRIDE, SYS_ADMIN] {
                libc::prctl(libc::PR_CAP_AMBIENT, RAISE, capability, 0, 0);
            }
        }
    });
}

/// Renames the calling thread: rules of the tests look for the name.
pub fn rename(name: &str) {
    let name = CString::new(name).expect("names have no NUL");
    // SAFETY: PR_SET_NAME reads a C string, which lives until the call returns.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// An argument of a system call. Calls write to a [`Room`] only.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    /// A number.
    Int(i64),
    /// A string.
    Text(&'a str),
    /// Any other memory.
    Bytes(&'a [u8]),
    /// An array of strings with a null pointer behind the last.
    Texts(&'a [&'a str]),
    /// Memory that the call may write to.
    Room(&'a Room),
    /// An address at which nothing can be read.
    Nowhere,
}

/// Memory that a call may write to.
#[derive(Debug)]
pub struct Room(Box<[AtomicU8]>);

impl Room {
    /// Room with something at its beginning.
    pub fn new(front: &[u8]) -> Self {
        let mut bytes = [0; 4096];
        bytes[..front.len()].copy_from_slice(front);
        Self(bytes.into_iter().map(AtomicU8::new).collect())
    }

    /// What is there now.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    /// Changes one byte, also while a call reads it.
    pub fn put(&self, at: usize, byte: u8) {
        self.0[at].store(byte, Ordering::Relaxed);
    }

    /// The `i32` at an index.
    pub fn int(&self, index: usize) -> i32 {
        let bytes = self.bytes();
        i32::from_ne_bytes(bytes[4 * index..4 * index + 4].try_into().expect("four bytes"))
    }

    /// Its address, for structs that point to it.
    pub fn address(&self) -> i64 {
        address(self.0.as_ptr())
    }
}

/// Numbers of a call on x86-64, as a 32-bit call of x86, on aarch64; of a row or of a call without one.
fn numbers(name: &str) -> [i32; 3] {
    let row = SYSCALLS.iter().find(|row| row.name == name).map(|row| [row.x86_64, row.i386, row.aarch64]);
    let call = || GENERIC.iter().find(|call| call.name == name).map(|call| [call.x86_64, call.i386, call.aarch64]);
    row.or_else(call).expect("a system call of the table")
}

/// What a call's number is on this architecture; `None` when there is no such call.
pub fn number(name: &str) -> Option<i32> {
    let [x86_64, _, aarch64] = numbers(name);
    let number = match env::consts::ARCH {
        "x86_64" => x86_64,
        "aarch64" => aarch64,
        _ => NONE,
    };
    (number != NONE).then_some(number)
}

/// The number of a 32-bit call.
pub fn number32(name: &str) -> i32 {
    numbers(name)[1]
}

/// Names of the parameters of a call.
pub fn params(name: &str) -> &'static [&'static str] {
    const ARGUMENTS: &[&str] = &["arg0", "arg1", "arg2", "arg3", "arg4", "arg5"];
    SYSCALLS.iter().find(|row| row.name == name).map_or(ARGUMENTS, |row| row.params)
}

/// Makes the system call of a row; the result as the kernel gave it, so that an error is its number below zero.
pub fn call(name: &str, args: &[Arg<'_>]) -> i64 {
    let number = number(name).expect("a call of this architecture");
    let mut strings = Vec::new();
    let mut arrays: Vec<Vec<*const libc::c_char>> = Vec::new();
    let mut values = [0i64; 6];
    for (value, arg) in values.iter_mut().zip(args) {
        *value = match arg {
            Arg::Int(number) => *number,
            Arg::Text(text) => address(c_string(text, &mut strings)),
            Arg::Bytes(bytes) => address(bytes.as_ptr()),
            Arg::Texts(texts) => {
                let mut array: Vec<_> = texts.iter().map(|text| c_string(text, &mut strings)).collect();
                array.push(ptr::null());
                arrays.push(array);
                address(arrays.last().expect("just pushed").as_ptr())
            }
            Arg::Room(room) => room.address(),
            Arg::Nowhere => 8,
        };
    }
    let [a, b, c, d, e, f] = values;
    // SAFETY: pointers among the arguments are to strings and arrays that live until after the call, or to the first page,
    // where nothing is mapped; calls write to a `Room` only, which lets itself be written to (see [`Arg`]).
    let result = unsafe { libc::syscall(number.into(), a, b, c, d, e, f) };
    if result == -1 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or_default()) } else { result }
}

fn c_string(text: &str, kept: &mut Vec<CString>) -> *const libc::c_char {
    kept.push(CString::new(text).expect("texts have no NUL"));
    // The CString may move in the vector; its text stays where it is.
    kept.last().expect("just pushed").as_ptr()
}

pub fn address<T>(pointer: *const T) -> i64 {
    pointer.expose_provenance() as i64
}

/// A copy of a descriptor, with an owner.
pub fn adopt_copy(fd: i64) -> OwnedFd {
    let copy = i32::try_from(call("dup", &[Arg::Int(fd)])).expect("descriptors are small");
    own(copy.into())
}

/// Gives an owner to a descriptor that a call has just returned.
pub fn own(fd: i64) -> OwnedFd {
    assert!(fd >= 0, "no descriptor: {fd}");
    // SAFETY: the descriptor is open, and only the caller, who made it, knows of it.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("descriptors are small")) }
}

/// Has a ring do one thing, and waits for it. What the entry points to must be there until then.
pub fn submit(ring: &mut io_uring::IoUring, entry: &io_uring::squeue::Entry) {
    // SAFETY: the entries of the cases point to memory that they hold until this returns.
    unsafe { ring.submission().push(entry) }.expect("room for one");
    ring.submit_and_wait(1).expect("a ring that works");
}

const NR32_GETPID: i32 = 20;

/// Whether this kernel takes 32-bit system calls from a 64-bit process: tried by a process that may die of it.
pub fn takes_calls32() -> bool {
    let Ok(program) = env::current_exe() else { return false };
    let mut command = Command::new(program);
    command.args([PLAY, "calls32"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Makes a system call through the 32-bit gate; `None` where there is none. Pointers among the arguments are the caller's
/// business, and the calls that the cases make write nowhere.
#[cfg(target_arch = "x86_64")]
pub fn call32(number: i32, args: [u32; 3]) -> Option<i64> {
    let result: i32;
    // SAFETY: as for `call`; `int 0x80` keeps all registers but rax and r8–r11, and rbx, which LLVM keeps for itself, is
    // put back.
    unsafe {
        std::arch::asm!(
            "xchg {first:r}, rbx",
            "int 0x80",
            "xchg {first:r}, rbx",
            first = inout(reg) u64::from(args[0]) => _,
            inlateout("eax") number => result,
            in("ecx") args[1],
            in("edx") args[2],
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Some(result.into())
}

#[cfg(not(target_arch = "x86_64"))]
pub fn call32(_: i32, _: [u32; 3]) -> Option<i64> {
    None
}

/// The row's 32-bit call with a string as its first argument, which lies where 32 bits can point.
pub fn call32_with_text(name: &str, text: &str, second: u32, third: u32) -> i64 {
    let bytes = CString::new(text).expect("texts have no NUL").into_bytes_with_nul();
    with_low_memory(|place| (bytes, number32(name), [place, second, third]))
}

/// A 32-bit call with memory where 32 bits can point: told its place, `plan` says what stands there, and number and
/// arguments of the call.
#[cfg(target_arch = "x86_64")]
pub fn with_low_memory(plan: impl FnOnce(u32) -> (Vec<u8>, i32, [u32; 3])) -> i64 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping, which touches no other memory.
    let page = unsafe { libc::mmap(ptr::null_mut(), 8192, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
    let (bytes, number, args) = plan(u32::try_from(page.expose_provenance()).expect("MAP_32BIT is below 2 GiB"));
    assert!(bytes.len() <= 8192);
    // SAFETY: the mapping is as long as the bytes, writable, and nobody else's.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), page.cast(), bytes.len()) };
    call32(number, args).expect("a gate for 32-bit calls")
}

#[cfg(not(target_arch = "x86_64"))]
pub fn with_low_memory(_: impl FnOnce(u32) -> (Vec<u8>, i32, [u32; 3])) -> i64 {
    unreachable!("the case needs a gate for 32-bit calls")
}

/// Makes a process by a call that needs no stack of its own, and waits for it; the child does nothing but end.
pub fn born(name: &str, args: &[i64]) -> i64 {
    let number = i64::from(number(name).expect("a call of this architecture"));
    let mut values = [0i64; 5];
    values[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e] = values;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child runs on a copy of our memory, or, of vfork, on our memory while we wait; it makes one system call,
    // which ends it, and touches nothing. There is one thread.
    let child: i64 = unsafe {
        let child: i64;
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, 60",
            "xor edi, edi",
            "syscall",
            "2:",
            inlateout("rax") number => child,
            inlateout("rdi") a => _, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            out("rcx") _, out("r11") _,
        );
        child
    };
    #[cfg(not(target_arch = "x86_64"))]
    let child: i64 = {
        // SAFETY: the child runs on a copy of our memory and only ends.
        let child = unsafe { libc::syscall(number, a, b, c, d, e) };
        if child == 0 {
            std::process::exit(0);
        }
        child
    };
    assert!(child > 0, "{name}: {child}");
    let pid = i32::try_from(child).expect("pids are small");
    let mut status = 0;
    // SAFETY: `status` is ours, and the process is a child that nobody has waited for.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "a new process ended badly");
    child
}

/// Splits this process, which has a single thread, in two; `None` in the new one.
pub fn fork() -> Option<nix::unistd::Pid> {
    // SAFETY: there is one thread, so that no lock is held by somebody who is not there in the child.
    match unsafe { nix::unistd::fork() }.expect("a process") {
        nix::unistd::ForkResult::Parent { child } => Some(child),
        nix::unistd::ForkResult::Child => None,
    }
}

/// Name of the parent process.
pub fn parent_name() -> String {
    let parent = std::os::unix::process::parent_id();
    fs::read_to_string(format!("/proc/{parent}/comm")).expect("our parent").trim_end().to_owned()
}

/// Starts a program with as little ado as there can be, waits for it, and returns its process id.
pub fn spawn(program: &CStr, args: &[&CStr]) -> i32 {
    let mut argv: Vec<*mut libc::c_char> = args.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    argv.push(ptr::null_mut());
    let environment: [*mut libc::c_char; 1] = [ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: path, arguments and environment are C strings in arrays that end with a null pointer and outlive the call;
    // no file actions, no attributes.
    let failed = unsafe {
        libc::posix_spawn(&mut pid, program.as_ptr(), ptr::null(), ptr::null(), argv.as_ptr(), environment.as_ptr())
    };
    assert_eq!(failed, 0, "posix_spawn: {}", io::Error::from_raw_os_error(failed));
    let mut status = 0;
    // SAFETY: `status` is ours, and the process is a child that nobody has waited for.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "a process of the storm ended badly");
    pid
}

/// Attaches to a stopped or running process needs a wait for its stop before it can be detached from.
pub fn wait_for_stop(pid: i64) {
    let pid = i32::try_from(pid).expect("pids are small");
    let mut status = 0;
    // SAFETY: `status` is ours; the process is one that we trace.
    let waited = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
    assert_eq!(waited, pid, "waitpid: {}", io::Error::last_os_error());
}

/// Calls `each` at a steady rate until it says that it is enough. Sleeping is the task here, not a way to wait.
pub fn at_rate(per_second: u32, mut each: impl FnMut(u64) -> bool) {
    let began = Instant::now();
    for number in 0.. {
        if !each(number) {
            return;
        }
        let due = began + Duration::from_secs(number + 1) / per_second;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Device and inode of an open file as the kernel has them: not as `stat` shows them, which may be made up.
pub fn device_and_inode(fd: i64) -> (u32, u64) {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("an open descriptor");
    let value = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {info}"));
        line.trim().to_owned()
    };
    let mount = value("mnt_id:");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let of_mount = |line: &&str| line.split(' ').next() == Some(&mount);
    let device = mounts.lines().find(of_mount).and_then(|line| line.split(' ').nth(2)).expect("a mount");
    let (major, minor) = device.split_once(':').expect("MAJOR:MINOR");
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let device = libc::makedev(number(major), number(minor));
    // fdinfo has the inode since Linux 5.14.
    let shown = info.lines().find_map(|line| line.strip_prefix("ino:")?.trim().parse().ok());
    let stat = || fs::metadata(format!("/proc/self/fd/{fd}")).expect("an open descriptor").ino();
    (u32::try_from(device).expect("small numbers"), shown.unwrap_or_else(stat))
}
