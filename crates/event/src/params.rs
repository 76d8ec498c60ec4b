//! Types of event parameters: what the raw number or bytes of a parameter mean and how they are shown.

/// The type of a parameter. Falco: `PT_*` in driver/event_table.c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// 0 or a negative errno; shown as `SUCCESS`-less number with the errno's name.
    Errno,
    /// A file descriptor, or a negative errno.
    Fd,
    /// A process or thread id.
    Pid,
    /// A user id; `u32::MAX` is none.
    Uid,
    /// A group id.
    Gid,
    /// A signed integer of so many bits.
    Int(u8),
    /// An unsigned integer of so many bits.
    Uint(u8),
    /// A C string.
    Text,
    /// Raw bytes.
    Bytes,
    /// A path relative to the working directory.
    Path,
    /// A path relative to the directory in another parameter.
    RelPath {
        /// Index of the parameter that holds the directory's descriptor.
        dirfd: u8,
    },
    /// A set of bits with names.
    Flags(FlagSet),
    /// One of several named values.
    Enum(FlagSet),
    /// File mode bits.
    Mode(FlagSet),
    /// A socket address.
    SockAddr,
    /// Both ends of a connection.
    SockTuple,
    /// Nanoseconds since the epoch.
    AbsTime,
    /// A span in nanoseconds.
    RelTime,
    /// A signal number.
    Signal,
    /// A set of signals.
    SignalSet,
    /// Several C strings.
    TextList,
    /// Pairs of C strings.
    TextPairs,
    /// A port number.
    Port,
    /// Descriptors with poll flags.
    FdList,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A system call number.
    SyscallId,
    /// Its type depends on another parameter.
    Dynamic,
}

/// How the value of a parameter is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A signed number.
    Signed,
    /// An unsigned number.
    Unsigned,
    /// A C string.
    Text,
    /// Bytes.
    Bytes,
}

impl ParamType {
    /// How values of this type are kept.
    pub const fn form(self) -> Form {
        match self {
            Self::Errno | Self::Fd | Self::Pid | Self::Int(_) => Form::Signed,
            Self::Uid
            | Self::Gid
            | Self::Uint(_)
            | Self::Flags(_)
            | Self::Enum(_)
            | Self::Mode(_)
            | Self::AbsTime
            | Self::RelTime
            | Self::Signal
            | Self::SignalSet
            | Self::Port
            | Self::SyscallId
            | Self::Dynamic => Form::Unsigned,
            Self::Text | Self::Path | Self::RelPath { .. } => Form::Text,
            Self::Bytes
            | Self::SockAddr
            | Self::SockTuple
            | Self::TextList
            | Self::TextPairs
            | Self::FdList
            | Self::Ipv4
            | Self::Ipv6 => Form::Bytes,
        }
    }

    /// What Falco prints for a value without content.
    pub const fn empty_text(self) -> &'static [u8] {
        match self {
            Self::Bytes | Self::SockTuple | Self::FdList | Self::TextList | Self::TextPairs | Self::Dynamic => b"NULL",
            Self::Errno
            | Self::Fd
            | Self::Pid
            | Self::Uid
            | Self::Gid
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Text
            | Self::Path
            | Self::RelPath { .. }
            | Self::Flags(_)
            | Self::Enum(_)
            | Self::Mode(_)
            | Self::SockAddr
            | Self::AbsTime
            | Self::RelTime
            | Self::Signal
            | Self::SignalSet
            | Self::Port
            | Self::Ipv4
            | Self::Ipv6
            | Self::SyscallId => b"<NA>",
        }
    }
}

impl ParamType {
    /// What Falco's `evt.rawarg` has for a value without content: text says so, the others have no value.
    pub const fn empty_raw(self) -> Option<&'static [u8]> {
        match self.form() {
            Form::Text => Some(self.empty_text()),
            Form::Signed | Form::Unsigned | Form::Bytes => None,
        }
    }
}

/// The tables of names for flags and enumerations. Falco: driver/flags_table.c.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of Falco's tables")]
pub enum FlagSet {
    AccessFlags,
    AnonInodeFdTypes,
    BpfCommands,
    ChmodMode,
    CloneFlags,
    CloseRangeFlags,
    CreatFlags,
    DeleteModuleFlags,
    EpollCreate1Flags,
    ExecveFlags,
    FchownatFlags,
    FcntlCommands,
    FileFlags,
    FinitModuleFlags,
    FlockFlags,
    FsconfigCmds,
    FutexOperations,
    IoUringEnterFlags,
    IoUringRegisterOpcodes,
    IoUringSetupFeats,
    IoUringSetupFlags,
    KeyctlOperations,
    LinkatFlags,
    LseekWhence,
    MemfdCreateFlags,
    MknodMode,
    Mlock2Flags,
    MlockallFlags,
    MmapFlags,
    MountFlags,
    NewfstatatFlags,
    Openat2Flags,
    PfFlags,
    PidfdOpenFlags,
    PrctlOptions,
    ProtFlags,
    PtraceRequests,
    QuotactlCmds,
    QuotactlDqiFlags,
    QuotactlQuotaFmts,
    QuotactlTypes,
    Renameat2Flags,
    RlimitResources,
    SemctlCommands,
    SemgetFlags,
    SemopFlags,
    ShutdownHow,
    SocketFamilies,
    SockoptLevels,
    SockoptOptions,
    SpliceFlags,
    UmountFlags,
    UnlinkatFlags,
}
