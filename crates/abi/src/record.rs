//! The record: what one kernel program submits for one event.
//!
//! ```text
//! Header                     fixed; who, when, with which credentials
//! Ancestor × header.ancestors   parent first
//! Block …                    BlockHeader (8 bytes), then `len` bytes, then zeros up to a multiple of 8
//! ```
//! Every block begins at a multiple of 8, so that programs store whole words; [`block_size`] gives the step. Blocks
//! come in any number and order.
//! Numbers are little-endian. A block's tag says what it holds: below [`tag::BASE`] it is the parameter of that
//! index in the event's row. Integers are always eight bytes. Paths that had to be read from dentries are
//! *components*: leaf first, each `u8` length and bytes.
//!
//! The sensor treats these bytes as an allegation: [`Header::decode`] and friends copy out of slices whose length
//! was checked, and nothing here casts bytes to structs.

macro_rules! wire_struct {
    ($(#[$meta:meta])* $name:ident { $( $(#[doc = $doc:literal])+ $field:ident: $ty:ty, )* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $ty, )* }

        impl $name {
            /// Bytes on the wire; the struct has no padding.
            pub const SIZE: usize = 0 $( + size_of::<$ty>() )*;

            /// Reads the fields from the front of `bytes`; `None` when there are too few.
            #[inline]
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                // Of an array of known size the compiler drops all checks below.
                let bytes = bytes.first_chunk::<{ $name::SIZE }>()?;
                let mut at = 0;
                $( let $field = <$ty as Wire>::decode(bytes.get(at..at + size_of::<$ty>())?)?; at += size_of::<$ty>(); )*
                let _ = at;
                Some(Self { $( $field, )* })
            }

            /// Writes the fields to the front of `out`; `None` when there is too little room.
            pub fn encode(&self, out: &mut [u8]) -> Option<()> {
                let mut at = 0;
                $( self.$field.encode(out.get_mut(at..at + size_of::<$ty>())?); at += size_of::<$ty>(); )*
                let _ = at;
                Some(())
            }
        }

        const _: () = assert!(size_of::<$name>() == $name::SIZE, "padding in a wire struct");
    };
}

/// A value with a fixed little-endian form.
trait Wire: Sized {
    fn decode(bytes: &[u8]) -> Option<Self>;
    fn encode(&self, out: &mut [u8]);
}

macro_rules! wire_int {
    ($($ty:ty),*) => { $( impl Wire for $ty {
        #[inline]
        fn decode(bytes: &[u8]) -> Option<Self> { Some(Self::from_le_bytes(bytes.try_into().ok()?)) }
        fn encode(&self, out: &mut [u8]) { out.copy_from_slice(&self.to_le_bytes()); }
    } )* };
}
wire_int!(u16, u32, u64, i64);

impl Wire for [u8; 16] {
    #[inline]
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
    fn encode(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

wire_struct! {
    /// The fixed front of every record, read from the task that the event is about.
    Header {
        /// [`kind`]: what this record is.
        kind: u16,
        /// [`flag`] bits.
        flags: u16,
        /// How many [`Ancestor`]s follow.
        ancestors: u32,
        /// Boot-time clock (`CLOCK_BOOTTIME`) in nanoseconds.
        time: u64,
        /// Start of the process (thread group leader), boot-time clock in nanoseconds. With `tgid` the identity of
        /// a process: a reused pid has another start.
        start: u64,
        /// Result of the system call; for exit the task's exit code.
        ret: i64,
        /// Id of the task's cgroup in the hierarchy that the driver chose (kernfs node id).
        cgroup: u64,
        /// Effective capabilities.
        cap_effective: u64,
        /// Permitted capabilities.
        cap_permitted: u64,
        /// Inheritable capabilities.
        cap_inheritable: u64,
        /// Process id in the initial pid namespace.
        tgid: u32,
        /// Thread id in the initial pid namespace.
        tid: u32,
        /// Effective user id in the initial user namespace.
        uid: u32,
        /// Effective group id.
        gid: u32,
        /// Audit login user id; `u32::MAX` when unset.
        loginuid: u32,
        /// Controlling terminal as `makedev(major, minor)` as `new_encode_dev` writes it (the form of /proc/PID/stat); 0 for none.
        tty: u32,
        /// Session id in the initial pid namespace.
        sid: u32,
        /// Process group in the initial pid namespace.
        pgid: u32,
        /// Process id in its own pid namespace.
        vpid: u32,
        /// Thread id in its own pid namespace.
        vtid: u32,
        /// Session id in its own pid namespace.
        vsid: u32,
        /// Process group in its own pid namespace.
        vpgid: u32,
        /// Name of the thread (`comm`), NUL-padded.
        comm: [u8; 16],
    }
}

wire_struct! {
    /// A process in the line of parents, as it was when the event happened.
    Ancestor {
        /// Process id.
        tgid: u32,
        /// Reserved, zero.
        reserved: u32,
        /// Start of the process; see [`Header::start`].
        start: u64,
        /// Name of its main thread.
        comm: [u8; 16],
    }
}

wire_struct! {
    /// Front of a block.
    BlockHeader {
        /// Low byte the [`tag`], high byte the [`status`].
        tag_status: u16,
        /// Bytes that follow, without the padding.
        len: u16,
        /// Reserved, zero.
        reserved: u32,
    }
}

/// Bytes from the start of a block with `len` bytes of content to the start of the next block. The padding of the
/// last block may be missing.
pub const fn block_size(len: usize) -> usize {
    BlockHeader::SIZE + len.next_multiple_of(8)
}

wire_struct! {
    /// Content of [`tag::EXEC`].
    ExecFacts {
        /// Inode of the executable.
        ino: u64,
        /// Change time of that inode, nanoseconds since the epoch.
        ctime: u64,
        /// Modification time.
        mtime: u64,
        /// Soft limit of open descriptors.
        fdlimit: u64,
        /// Major page faults so far.
        pgft_maj: u64,
        /// Minor page faults so far.
        pgft_min: u64,
        /// Mapped memory in pages.
        vm_pages: u64,
        /// [`exe_flag`] bits.
        flags: u64,
    }
}

wire_struct! {
    /// Content of [`tag::FD`]: what the descriptor of the event is.
    FdFacts {
        /// Inode number.
        ino: u64,
        /// Device in the kernel's internal encoding (`major << 20 | minor`).
        dev: u32,
        /// Inode mode with file type; 0 when the descriptor is not open.
        mode: u32,
        /// Address family of a socket.
        family: u16,
        /// Socket type (`SOCK_STREAM`…).
        sock_type: u16,
        /// IP protocol of a socket.
        protocol: u16,
        /// Local port of an internet socket.
        local_port: u16,
        /// Remote port of an internet socket.
        remote_port: u16,
        /// Reserved, zero.
        reserved: u16,
        /// [`fd_flag`] bits.
        flags: u32,
        /// Local address; IPv4 in the first four bytes.
        local_addr: [u8; 16],
        /// Remote address.
        remote_addr: [u8; 16],
    }
}

wire_struct! {
    /// One entry of [`tag::KINDS`]: an open descriptor, with no more than tells its kind.
    OpenFd {
        /// Its number.
        fd: u32,
        /// Inode mode with file type.
        mode: u16,
        /// Address family of a socket. That of an IPv6 socket whose own address is a mapped one is `AF_INET`.
        family: u16,
        /// Of what has no path, the front of its name, such as `[eventpoll]`, NUL-padded; else zeros.
        name: [u8; 16],
    }
}

/// What a record is: [`Header::kind`].
pub mod kind {
    /// A successful execve or execveat, from `sched_process_exec`.
    pub const EXEC: u16 = 0;
    /// A new process, from `sched_process_fork`; the record describes the child.
    pub const FORK: u16 = 1;
    /// The last thread of a process ended, from `sched_process_exit`.
    pub const EXIT: u16 = 2;
    /// Row `i` of [`crate::syscalls::SYSCALLS`] has kind `FIRST_SYSCALL + i`.
    pub const FIRST_SYSCALL: u16 = 8;
    /// Entry `i` of [`crate::syscalls::GENERIC`] has kind `FIRST_GENERIC + i`.
    pub const FIRST_GENERIC: u16 = 256;
    /// Number of kinds that the counter map has room for.
    pub const MAX: u32 = 512;
    const _: () = assert!(FIRST_SYSCALL as usize + crate::syscalls::SYSCALLS.len() <= FIRST_GENERIC as usize);
    const _: () = assert!(FIRST_GENERIC as usize + crate::syscalls::GENERIC.len() <= MAX as usize);
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// A 32-bit system call on a 64-bit kernel.
    pub const COMPAT: u16 = 1;
    /// The record outgrew its buffer: blocks are missing.
    pub const INCOMPLETE: u16 = 2;
    /// The line of ancestors goes on beyond those in the record.
    pub const MORE_ANCESTORS: u16 = 4;
    /// An io_uring did it, not a system call: the text of a path is not known, only the kernel's own path.
    pub const RING: u16 = 8;
}

/// Bits of [`ExecFacts::flags`]. Falco: `execve_flags`.
pub mod exe_flag {
    /// The user who runs it may write to the executable.
    pub const WRITABLE: u64 = 1;
    /// It lies in the upper layer of an overlay file system.
    pub const UPPER_LAYER: u64 = 2;
    /// It lies in a lower layer.
    pub const LOWER_LAYER: u64 = 4;
}

/// Bits of [`FdFacts::flags`], and those that the programs add above the 32 bits of open flags.
pub mod fd_flag {
    /// The call created the file (`FMODE_CREATED`).
    pub const CREATED: u32 = 1;
    /// The file lies in the upper layer of an overlay file system.
    pub const UPPER_LAYER: u32 = 2;
    /// It lies in a lower layer.
    pub const LOWER_LAYER: u32 = 4;
    /// The descriptor is a socket.
    pub const SOCKET: u32 = 8;
}

/// What a block holds.
pub mod tag {
    /// `BASE | i`: the directory that the relative path in parameter `i` starts from, as components.
    pub const BASE: u8 = 0x40;
    /// The kernel's own path of the file that the call opened or used, as components.
    pub const REALPATH: u8 = 0x80;
    /// Working directory, as components.
    pub const CWD: u8 = 0x81;
    /// Path of the executable, as components.
    pub const EXEPATH: u8 = 0x82;
    /// Path of the cgroup, as components.
    pub const CGROUP: u8 = 0x83;
    /// Arguments, `argv[0]` first, each ended by NUL.
    pub const ARGS: u8 = 0x84;
    /// Environment, each ended by NUL.
    pub const ENV: u8 = 0x85;
    /// The path that was given to execve.
    pub const FILENAME: u8 = 0x86;
    /// [`super::ExecFacts`].
    pub const EXEC: u8 = 0x87;
    /// [`super::FdFacts`].
    pub const FD: u8 = 0x88;
    /// Socket address that the call was given, or that it returned: of a datagram's other end.
    pub const ADDRESS: u8 = 0x89;
    /// Path of a Unix socket: its own, else that of its other end.
    pub const SOCKET_PATH: u8 = 0x8a;
    /// The six arguments of a call without a row, eight bytes each.
    pub const ARGUMENTS: u8 = 0x8b;
    /// Of a new process whose parent did not make it (`CLONE_PARENT`): process id and start of the one who did, eight bytes
    /// each.
    pub const CREATOR: u8 = 0x8c;
    /// Open descriptors of the process, those with the lowest numbers: [`super::OpenFd`] after [`super::OpenFd`].
    pub const KINDS: u8 = 0x8d;
    /// `STANDARD + fd`: [`super::FdFacts`] of descriptor 0, 1 or 2.
    pub const STANDARD: u8 = 0x8e;
    /// `STANDARD_PATH + fd`: the kernel's path of that descriptor's file, as [`REALPATH`].
    pub const STANDARD_PATH: u8 = 0x91;
    /// `STANDARD_SOCKET_PATH + fd`: path of that descriptor's Unix socket, as [`SOCKET_PATH`].
    pub const STANDARD_SOCKET_PATH: u8 = 0x94;
    /// The first tag that is not used.
    pub const END: u8 = 0x97;
}

/// Whether a block holds what was asked for.
pub mod status {
    /// Whole.
    pub const OK: u8 = 0;
    /// The memory could not be read (a bad pointer, or swapped out); the block is empty.
    pub const FAULT: u8 = 1;
    /// Longer than the limit: what is there is the front (for components, the leaf end).
    pub const TRUNCATED: u8 = 2;
    /// A null pointer was passed.
    pub const NULL: u8 = 3;
    /// Components of something that has no path: a name such as `memfd:x` or `anon_inode:[eventpoll]`.
    pub const PSEUDO: u8 = 4;
}

/// Most bytes of one user string or path (`PATH_MAX`).
pub const TEXT_MAX: usize = 4096;

/// Most bytes of arguments, and of environment. Falco's limit.
pub const ARGS_MAX: usize = 4096;

/// How many bytes of what is read, written, sent and received a record has, unless the user wants more: Falco's `snaplen`.
pub const DATA_DEFAULT: u16 = 80;

/// Most bytes of data of one record.
pub const DATA_MAX: u16 = 4096;

/// How many arguments a system call has.
pub const ARGUMENTS: usize = 6;

/// Most components of one path.
pub const PATH_COMPONENTS: usize = 64;

/// How many descriptors are standard ones: input, output and errors.
pub const STANDARD_FDS: usize = 3;

/// Descriptors with numbers below this are in [`tag::KINDS`].
pub const KINDS_MAX: usize = 128;

/// Most ancestors in a record.
pub const ANCESTORS: usize = 16;

/// Room that the programs leave for a header and all ancestors in front of the first block; what is not needed of it is
/// not sent.
pub const FRONT: usize = Header::SIZE + ANCESTORS * Ancestor::SIZE;

/// Position behind which no further block is begun.
pub const RECORD_LIMIT: usize = 16 * 1024;

/// Size of the buffer: a block begun at the limit still fits.
pub const RECORD_MAX: usize = RECORD_LIMIT + TEXT_MAX + FRONT + 256;
