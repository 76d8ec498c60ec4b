//! System calls: one function per *source* that a row of [`abi::syscalls`] may name, and the programs that the rows
//! expand to.
//!
//! A source appends one parameter. It returns `false` to say that the event is not meant for this row.

use abi::{
    control::{RING_BULK, slot, want},
    loss::KernelCounter,
    record::{FdFacts, fd_flag, flag, status, tag},
    syscalls::Row,
};
use aya_ebpf::programs::BtfTracePointContext;

use crate::{
    filter::{self, Early},
    kernel::{Ptr, probe, probe_user},
    maps::{COMPAT_SYSCALLS, SYSCALLS, control, count},
    off,
    record::{Hook, PendingPath, Record},
    task,
};

/// `AT_FDCWD`.
const AT_FDCWD: i32 = -100;

/// Bits of the settings that say what records carry.
#[inline(always)]
pub fn wants() -> u32 {
    // SAFETY: the element outlives the program; a word that changes meanwhile is either value.
    control().map_or(0, |control| unsafe { core::ptr::read_volatile(&raw const (*control).wants) })
}

/// One system call that is being recorded.
struct Call {
    record: Record,
    task: Ptr,
    regs: Ptr,
    result: i64,
    compat: bool,
    opened: Opened,
    path_is_relative: bool,
}

/// The file that an open returned, looked up once: each look costs a probe.
#[derive(Clone, Copy)]
struct Opened {
    looked: bool,
    file: u64,
    inode: u64,
    sb: u64,
}

macro_rules! programs {
    ($( #[doc = $doc:literal] $name:ident ($x86:literal, $ia32:literal, $arm:literal)
        { $( $param:ident = $source:ident ( $($arg:literal),* ), )* } { $( $fact:ident ( $($fact_arg:literal),* ) ),* } )*) => { $(
        #[doc = $doc]
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "tp_btf/sys_exit")]
        pub fn ${concat(sys_, $name)}(ctx: *mut core::ffi::c_void) -> i32 {
            let ctx = BtfTracePointContext::new(ctx);
            let Some(mut call) = Call::begin(&ctx, Row::$name, $ia32) else { return 0 };
            $(
                if !call.$source(u64::from(${index()} as u8) $(, $arg)*) { return 0 }
            )*
            $( call.$fact($($fact_arg),*); )*
            call.finish(&ctx);
            0
        }
    )* };
}
abi::syscalls!(programs);

/// Sits in the slots of native numbers that only matter as 32-bit numbers.
#[aya_ebpf::macros::btf_tracepoint(function = "sys_exit")]
pub fn compat_gate(ctx: BtfTracePointContext) -> i32 {
    if task::in_compat_call(Ptr::current()) {
        let number: u32 = Ptr::new(ctx.arg(0)).typed(off!(regs_nr));
        // SAFETY: the index is checked by the kernel; the call returns only when the slot is empty.
        unsafe { COMPAT_SYSCALLS.tail_call(&ctx, number) };
    }
    0
}

impl Call {
    #[inline(always)]
    fn begin(ctx: &BtfTracePointContext, row: Row, ia32: i32) -> Option<Self> {
        let regs = Ptr::new(ctx.arg(0));
        let result: i64 = ctx.arg(1);
        let task = Ptr::current();
        let compat = task::in_compat_call(task);
        if compat {
            let number: u32 = regs.typed(off!(regs_nr));
            if number != ia32 as u32 {
                // The slot of a native number was hit by a 32-bit one.
                // SAFETY: as in `compat_gate`.
                unsafe { COMPAT_SYSCALLS.tail_call(ctx, number) };
                return None;
            }
        }
        let kind = abi::record::kind::FIRST_SYSCALL + row as u16;
        let result = if compat { i64::from(result as i32) } else { result };
        if task::is_own(task) {
            return None;
        }
        let mut record = Record::begin(Hook::Syscall, RING_BULK, kind, result)?;
        if compat {
            record.state().flags |= u64::from(flag::COMPAT);
        }
        let opened = Opened { looked: false, file: 0, inode: 0, sb: 0 };
        Some(Self { record, task, regs, result, compat, opened, path_is_relative: false })
    }

    #[inline(always)]
    fn finish(mut self, ctx: &BtfTracePointContext) {
        if wants() & want::CWD != 0 {
            self.want_working_directory(tag::CWD);
        }
        // SAFETY: as in `compat_gate`.
        unsafe { SYSCALLS.tail_call(ctx, slot::IDENTIFY) };
        count(self.record.state().kind as u16, KernelCounter::NoHelper);
    }

    /// Argument of the call, by number.
    #[inline(always)]
    fn argument(&self, index: u32) -> u64 {
        if self.compat && off!(regs_compat0) != abi::offsets::MISSING {
            return u64::from(match index {
                0 => self.regs.typed::<u32>(off!(regs_compat0)),
                1 => self.regs.typed::<u32>(off!(regs_compat1)),
                2 => self.regs.typed::<u32>(off!(regs_compat2)),
                3 => self.regs.typed::<u32>(off!(regs_compat3)),
                4 => self.regs.typed::<u32>(off!(regs_compat4)),
                _ => self.regs.typed::<u32>(off!(regs_compat5)),
            });
        }
        match index {
            0 => self.regs.typed(off!(regs_arg0)),
            1 => self.regs.typed(off!(regs_arg1)),
            2 => self.regs.typed(off!(regs_arg2)),
            3 => self.regs.typed(off!(regs_arg3)),
            4 => self.regs.typed(off!(regs_arg4)),
            _ => self.regs.typed(off!(regs_arg5)),
        }
    }

    // ---- sources of parameters

    /// The result.
    #[inline(always)]
    fn ret(&mut self, tag: u64) -> bool {
        self.record.int(tag, self.result as u64);
        true
    }

    /// The result of a call that failed; a success is somebody else's event.
    #[inline(always)]
    fn failure(&mut self, tag: u64) -> bool {
        self.ret(tag);
        self.result < 0
    }

    /// An argument of type `int`.
    #[inline(always)]
    fn arg_i32(&mut self, tag: u64, index: u32) -> bool {
        let value = self.argument(index) as i32;
        self.record.int(tag, i64::from(value) as u64);
        true
    }

    /// An argument of type `unsigned int`.
    #[inline(always)]
    fn arg_u32(&mut self, tag: u64, index: u32) -> bool {
        let value = self.argument(index) as u32;
        self.record.int(tag, u64::from(value));
        true
    }

    /// An argument of full width.
    #[inline(always)]
    fn arg_u64(&mut self, tag: u64, index: u32) -> bool {
        let value = self.argument(index);
        self.record.int(tag, value);
        true
    }

    /// A parameter that the sensor derives from facts.
    #[inline(always)]
    fn nothing(&mut self, _tag: u64) -> bool {
        true
    }

    /// A string.
    #[inline(always)]
    fn text(&mut self, tag: u64, index: u32) -> bool {
        let address = self.argument(index);
        self.record.user_text(tag, address);
        true
    }

    /// A path; when it is relative, also the working directory.
    #[inline(always)]
    fn path(&mut self, tag: u64, index: u32) -> bool {
        if self.relative(tag, index) {
            self.want_working_directory(tag::BASE | tag as u8);
        }
        true
    }

    /// A path; when it is relative, also the directory behind the descriptor in another argument.
    #[inline(always)]
    fn path_at(&mut self, tag: u64, index: u32, dirfd: u32) -> bool {
        if self.relative(tag, index) {
            self.want_directory(tag::BASE | tag as u8, dirfd);
        }
        true
    }

    /// The path of an open call, unless no loaded rule can match the call.
    #[inline(always)]
    fn open_path(&mut self, tag: u64, index: u32, flags: u32) -> bool {
        let flags = self.argument(flags);
        if !self.admitted(tag, index, flags) {
            return false;
        }
        if self.path_is_relative {
            self.want_working_directory(tag::BASE | tag as u8);
        }
        true
    }

    /// As `open_path`, relative to the directory behind the descriptor in another argument.
    #[inline(always)]
    fn open_path_at(&mut self, tag: u64, index: u32, dirfd: u32, flags: u32) -> bool {
        let flags = self.argument(flags);
        if !self.admitted(tag, index, flags) {
            return false;
        }
        if self.path_is_relative {
            self.want_directory(tag::BASE | tag as u8, dirfd);
        }
        true
    }

    /// Appends the path of an open call; `false` when the filter says that no rule can match.
    #[inline(always)]
    fn admitted(&mut self, tag: u64, index: u32, flags: u64) -> bool {
        let kind = self.record.state().kind as u16;
        let filter = filter::of(kind);
        let early = match filter {
            Some(filter) => filter::early(filter, filter::properties(flags, self.result)),
            None => Early::Pass,
        };
        if matches!(early, Early::Drop) {
            count(kind, KernelCounter::Filtered);
            return false;
        }
        let text = self.record.next_content();
        self.path_is_relative = self.relative(tag, index);
        let len = self.record.state().text_len;
        if let (Some(filter), Early::Paths(paths)) = (filter, early)
            && !self.path_is_relative
            && len != 0
            && !filter::admits(filter, &mut self.record, text, len, paths)
        {
            count(kind, KernelCounter::Filtered);
            return false;
        }
        true
    }

    /// Open flags in the low half; what the kernel did with the file above them.
    #[inline(always)]
    fn open_flags(&mut self, tag: u64, index: u32) -> bool {
        let flags = u64::from(self.argument(index) as u32);
        let value = flags | self.opened_flags() << 32;
        self.record.int(tag, value);
        true
    }

    /// What the kernel did with the file, in the place of open flags.
    #[inline(always)]
    fn creat_flags(&mut self, tag: u64) -> bool {
        let value = self.opened_flags() << 32;
        self.record.int(tag, value);
        true
    }

    /// The mode of a file to be created; 0 when the flags do not ask for one.
    #[inline(always)]
    fn open_mode(&mut self, tag: u64, flags: u32, mode: u32) -> bool {
        let flags = self.argument(flags);
        let mode = self.argument(mode) as u32;
        self.record.int(tag, creation_mode(flags, mode));
        true
    }

    /// `open_how.flags`.
    #[inline(always)]
    fn how_flags(&mut self, tag: u64, index: u32) -> bool {
        let address = self.argument(index);
        match probe_user::<u64>(address) {
            Some(flags) => {
                let value = flags & 0xffff_ffff | self.opened_flags() << 32;
                self.record.int(tag, value);
            }
            None => self.record.absent(tag, status::FAULT),
        }
        true
    }

    /// `open_how.mode`.
    #[inline(always)]
    fn how_mode(&mut self, tag: u64, index: u32) -> bool {
        let address = self.argument(index);
        match probe_user::<[u64; 2]>(address) {
            Some([flags, mode]) => self.record.int(tag, creation_mode(flags, mode as u32)),
            None => self.record.absent(tag, status::FAULT),
        }
        true
    }

    /// `open_how.resolve`.
    #[inline(always)]
    fn how_resolve(&mut self, tag: u64, index: u32) -> bool {
        let address = self.argument(index) + 16;
        match probe_user::<u64>(address) {
            Some(resolve) => self.record.int(tag, resolve),
            None => self.record.absent(tag, status::FAULT),
        }
        true
    }

    /// Device of the file that was opened.
    #[inline(always)]
    fn opened_dev(&mut self, tag: u64) -> bool {
        let Opened { sb, .. } = self.opened();
        let dev: u32 = if sb == 0 { 0 } else { probe(sb + off!(sb_dev)) };
        self.record.int(tag, u64::from(task::encode_device(dev >> 20, dev & 0xf_ffff)));
        true
    }

    /// Inode number of the file that was opened.
    #[inline(always)]
    fn opened_ino(&mut self, tag: u64) -> bool {
        let Opened { inode, .. } = self.opened();
        self.record.int(tag, if inode == 0 { 0 } else { probe(inode + off!(inode_ino)) });
        true
    }

    /// A socket address of the length that another argument gives.
    #[inline(always)]
    fn sockaddr(&mut self, tag: u64, index: u32, len: u32) -> bool {
        let address = self.argument(index);
        let len = self.argument(len) & 0xffff_ffff;
        self.record.user_bytes(tag, address, len);
        true
    }

    // ---- facts

    /// The kernel's own path of the file that was opened.
    #[inline(always)]
    fn realpath(&mut self) {
        let Opened { file, .. } = self.opened();
        if file != 0 {
            self.want_path_of(file, tag::REALPATH);
        }
    }

    /// What the descriptor in an argument is.
    #[inline(always)]
    fn fd(&mut self, index: u32) {
        let fd = self.argument(index) as i32;
        self.describe(fd);
    }

    /// What the descriptor in the result is.
    #[inline(always)]
    fn fd_of_ret(&mut self) {
        if self.result >= 0 {
            self.describe(self.result as i32);
        }
    }

    /// Arguments of a program that was not executed.
    #[inline(always)]
    fn argv(&mut self, index: u32) {
        let array = self.argument(index);
        let wide = !self.compat;
        self.record.user_strings(u64::from(tag::ARGS), array, wide);
    }

    /// Path of a program that was not executed.
    #[inline(always)]
    fn filename(&mut self, index: u32) {
        let address = self.argument(index);
        self.record.user_text(u64::from(tag::FILENAME), address);
    }

    // ---- helpers

    /// Appends a path argument; whether it is relative.
    #[inline(always)]
    fn relative(&mut self, tag: u64, index: u32) -> bool {
        let address = self.argument(index);
        matches!(self.record.user_text(tag, address), Some(first) if first != b'/')
    }

    /// The directory behind the descriptor in an argument.
    #[inline(always)]
    fn want_directory(&mut self, tag: u8, dirfd: u32) {
        let fd = self.argument(dirfd) as i32;
        if fd == AT_FDCWD {
            self.want_working_directory(tag);
        } else if let Some(file) = self.file(fd) {
            self.want_path_of(file, tag);
        }
    }

    #[inline(always)]
    fn want_working_directory(&mut self, tag: u8) {
        let fs = self.task.ptr(off!(task_fs));
        if fs.is_null() {
            return;
        }
        self.record.want_path(PendingPath {
            dentry: fs.get(off!(fs_pwd) + off!(path_dentry)),
            mnt: fs.get(off!(fs_pwd) + off!(path_mnt)),
            tag: u64::from(tag),
            stop_at_root: 1,
        });
    }

    #[inline(always)]
    fn want_path_of(&mut self, file: u64, tag: u8) {
        let path = file + off!(file_path);
        self.record.want_path(PendingPath {
            dentry: probe(path + off!(path_dentry)),
            mnt: probe(path + off!(path_mnt)),
            tag: u64::from(tag),
            stop_at_root: 1,
        });
    }

    /// Address of the open file behind a descriptor.
    #[inline(always)]
    fn file(&self, fd: i32) -> Option<u64> {
        if fd < 0 {
            return None;
        }
        let files = self.task.ptr(off!(task_files));
        if files.is_null() {
            return None;
        }
        let table = files.ptr(off!(files_fdt));
        if fd as u32 >= table.get::<u32>(off!(fdtable_max)) {
            return None;
        }
        // `struct file **`: the verifier's types end here.
        let array: u64 = table.get(off!(fdtable_fd));
        let file: u64 = probe(array + 8 * (fd as u64));
        (file != 0).then_some(file)
    }

    /// The file that the call opened; zeros when it failed.
    #[inline(always)]
    fn opened(&mut self) -> Opened {
        if !self.opened.looked {
            self.opened.looked = true;
            if self.result >= 0
                && let Some(file) = self.file(self.result as i32)
            {
                let inode: u64 = probe(file + off!(file_inode));
                self.opened = Opened { looked: true, file, inode, sb: probe(inode + off!(inode_sb)) };
            }
        }
        self.opened
    }

    /// [`fd_flag`] bits of the file that was opened.
    #[inline(always)]
    fn opened_flags(&mut self) -> u64 {
        const FMODE_CREATED: u32 = 0x10_0000;
        let Opened { file, inode, sb, .. } = self.opened();
        if file == 0 {
            return 0;
        }
        let created = probe::<u32>(file + off!(file_mode)) & FMODE_CREATED != 0;
        layer(inode, sb) | if created { u64::from(fd_flag::CREATED) } else { 0 }
    }

    /// Appends [`FdFacts`] of a descriptor, and the path of what is no socket.
    #[inline(always)]
    fn describe(&mut self, fd: i32) {
        const S_IFMT: u32 = 0o170_000;
        const S_IFSOCK: u32 = 0o140_000;
        let Some(file) = self.file(fd) else { return };
        let inode: u64 = probe(file + off!(file_inode));
        let sb: u64 = probe(inode + off!(inode_sb));
        let mode = u32::from(probe::<u16>(inode + off!(inode_mode)));
        let mut facts = FdFacts {
            ino: probe(inode + off!(inode_ino)),
            dev: probe(sb + off!(sb_dev)),
            mode,
            family: 0,
            sock_type: 0,
            protocol: 0,
            local_port: 0,
            remote_port: 0,
            reserved: 0,
            flags: layer(inode, sb) as u32,
            local_addr: [0; 16],
            remote_addr: [0; 16],
        };
        if mode & S_IFMT == S_IFSOCK {
            facts.flags |= fd_flag::SOCKET;
            socket(&mut facts, probe(file + off!(file_private)));
        } else {
            self.want_path_of(file, tag::REALPATH);
        }
        self.record.value(u64::from(tag::FD), facts);
    }
}

/// Mode of a file to be created, when the flags ask for one.
#[inline(always)]
fn creation_mode(flags: u64, mode: u32) -> u64 {
    const O_CREAT: u64 = 0o100;
    const TMPFILE: u64 = 0o20_000_000;
    if flags & (O_CREAT | TMPFILE) != 0 { u64::from(mode) } else { 0 }
}

/// Fills in both ends of a socket.
#[inline(always)]
fn socket(facts: &mut FdFacts, socket: u64) {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let sk: u64 = probe(socket + off!(socket_sk));
    facts.sock_type = probe(socket + off!(socket_type));
    facts.family = probe(sk + off!(sock_family));
    if facts.family != AF_INET && facts.family != AF_INET6 {
        return;
    }
    facts.protocol = probe(sk + off!(sock_protocol));
    facts.local_port = probe(sk + off!(sock_local_port));
    facts.remote_port = u16::from_be(probe(sk + off!(sock_remote_port)));
    if facts.family == AF_INET {
        facts.local_addr = widen(probe(sk + off!(sock_local4)));
        facts.remote_addr = widen(probe(sk + off!(sock_remote4)));
    } else if off!(sock_remote6) != abi::offsets::MISSING {
        facts.local_addr = probe(sk + off!(sock_local6));
        facts.remote_addr = probe(sk + off!(sock_remote6));
    }
}

/// An IPv4 address in the first bytes of an IPv6-sized one.
#[inline(always)]
fn widen(v4: u32) -> [u8; 16] {
    let [a, b, c, d] = v4.to_ne_bytes();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// In which layer of an overlay file system an inode lies, as [`fd_flag`] (and `exe_flag`) bits; 0 elsewhere.
///
/// overlayfs keeps its dentry of the upper layer right behind the inode it shows (`struct ovl_inode`, fs/overlayfs/ovl_entry.h).
#[inline(always)]
pub fn layer(inode: u64, sb: u64) -> u64 {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    if probe::<u64>(sb + off!(sb_magic)) != OVERLAYFS_SUPER_MAGIC {
        return 0;
    }
    let upper: u64 = probe(inode + off!(inode_size));
    let upper_inode: u64 = if upper == 0 { 0 } else { probe(upper + off!(dentry_inode)) };
    if upper_inode != 0 && probe::<u64>(upper_inode + off!(inode_ino)) != 0 {
        u64::from(fd_flag::UPPER_LAYER)
    } else {
        u64::from(fd_flag::LOWER_LAYER)
    }
}
