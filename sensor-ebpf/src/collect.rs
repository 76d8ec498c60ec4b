//! System calls: one function per *source* that a row of [`abi::syscalls`] may name, and the programs that the rows
//! expand to.
//!
//! A source appends one parameter. It returns `false` to say that the event is not meant for this row.

use abi::{
    control::{RING_BULK, RING_URGENT, slot, want},
    loss::KernelCounter,
    record::{ARGUMENTS, fd_flag, flag, kind, status, tag},
    syscalls::Row,
};
use aya_ebpf::programs::BtfTracePointContext;

use crate::{
    compat,
    descriptor::{self, layer},
    filter::{self, Early},
    hook,
    kernel::{Ptr, probe, probe_user},
    maps::{GENERIC_KINDS, SYSCALLS, control, count},
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
pub struct Call {
    pub record: Record,
    pub task: Ptr,
    regs: Ptr,
    pub result: i64,
    pub compat: bool,
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
            #[allow(unused_mut, reason = "a few rows have nothing but the header")]
            let Some(mut call) = Call::begin(&ctx, kind::FIRST_SYSCALL + Row::$name as u16) else { return 0 };
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

/// Records every call that has no row: its result and its arguments.
#[aya_ebpf::macros::btf_tracepoint(function = "sys_exit")]
pub fn sys_generic(ctx: BtfTracePointContext) -> i32 {
    let Some(mut call) = Call::begin(&ctx, 0) else { return 0 };
    let number = call.regs.typed::<u32>(off!(regs_nr)) & (slot::NUMBERS - 1);
    let index = if call.compat { slot::NUMBERS + number } else { number };
    // SAFETY: the element outlives the program; a word that changes meanwhile is either value.
    let kind = GENERIC_KINDS.get_ptr(index).map_or(0, |kind| unsafe { core::ptr::read_volatile(kind) });
    if kind == 0 {
        return 0;
    }
    call.record.state().kind = u64::from(kind);
    let mut arguments = [0u64; ARGUMENTS];
    for (i, argument) in arguments.iter_mut().enumerate() {
        *argument = call.argument(i as u32);
    }
    call.record.value(u64::from(tag::ARGUMENTS), arguments);
    call.finish(&ctx);
    0
}

impl Call {
    #[inline(always)]
    fn begin(ctx: &BtfTracePointContext, kind: u16) -> Option<Self> {
        let regs = hook::registers(ctx);
        let result = hook::result(ctx);
        let task = Ptr::current();
        let compat = task::in_compat_call(task);
        // The slot of a native number may have been hit by a 32-bit one.
        if compat && !compat::is_routed(ctx) {
            return None;
        }
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
        // SAFETY: the index is checked by the kernel; the call returns only when the slot is empty.
        unsafe { SYSCALLS.tail_call(ctx, slot::IDENTIFY) };
        count(self.record.state().kind as u16, KernelCounter::NoHelper);
    }

    /// Argument of the call, by number.
    #[inline(always)]
    pub fn argument(&self, index: u32) -> u64 {
        if self.compat {
            let mut record = self.record;
            return record.state().arguments[(index & 7) as usize % ARGUMENTS];
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
    pub fn ret(&mut self, tag: u64) -> bool {
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
            None => Early::PASS,
        };
        if early.drops() {
            count(kind, KernelCounter::Filtered);
            return false;
        }
        let text = self.record.next_content();
        self.path_is_relative = self.relative(tag, index);
        let len = self.record.state().text_len;
        let mut sets = u64::MAX;
        if let Some(filter) = filter
            && early.asks_path()
            && !self.path_is_relative
            && len != 0
        {
            sets = filter::sets(filter, &mut self.record, text, len);
            if !early.admits(sets) {
                count(kind, KernelCounter::Filtered);
                return false;
            }
        }
        if early.urgent(sets) {
            self.record.state().class = u64::from(RING_URGENT);
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
            self.want_path_of(file, tag::REALPATH, 0);
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
            self.want_path_of(file, tag, 1);
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
    pub fn want_path_of(&mut self, file: u64, tag: u8, stop_at_root: u64) {
        descriptor::want_path(&mut self.record, file, tag, stop_at_root);
    }

    /// Address of the open file behind a descriptor.
    #[inline(always)]
    pub fn file(&self, fd: i32) -> Option<u64> {
        descriptor::open_file(self.task, fd)
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
        let Opened { file, inode, sb, .. } = self.opened();
        if file == 0 {
            return 0;
        }
        layer(inode, sb) | if descriptor::was_created(file) { u64::from(fd_flag::CREATED) } else { 0 }
    }
}

/// Mode of a file to be created, when the flags ask for one.
#[inline(always)]
fn creation_mode(flags: u64, mode: u32) -> u64 {
    const O_CREAT: u64 = 0o100;
    const TMPFILE: u64 = 0o20_000_000;
    if flags & (O_CREAT | TMPFILE) != 0 { u64::from(mode) } else { 0 }
}
