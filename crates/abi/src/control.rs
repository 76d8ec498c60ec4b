//! Settings that the sensor hands to the kernel programs, and the word they use to wake it.

/// One page of shared memory, mapped by the sensor: the value of the only element of map `CONTROL`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// Set to 1 by the consumer before it sleeps; a program that finds 1 sets 0 and forces one wake-up.
    pub asleep: u32,
    /// What records carry beyond their own parameters: [`want`] bits, from the fields that loaded rules use.
    pub wants: u32,
    /// Process id of another sensor on this host, whose system calls are as little events as the sensor's own; 0 for none.
    /// While two are there, each would collect all that the other opens to read /proc.
    pub fellow: u32,
}

/// Bits of [`Control::wants`].
pub mod want {
    /// The working directory with every record.
    pub const CWD: u32 = 1;
    /// The environment with exec records.
    pub const ENV: u32 = 2;
    /// What descriptors 0, 1 and 2 are, with exec records and those of system calls.
    pub const STANDARD: u32 = 4;
    /// The kinds of all open descriptors, with records of system calls: an exec is about no descriptor.
    pub const KINDS: u32 = 8;
}

/// Words of the read-only global `SETTINGS`: constants to the verifier, so that arms that do not apply are pruned.
pub mod setting {
    /// 1 when kernel structs may be read through typed pointers of the current task
    /// (`bpf_get_current_task_btf`; the sensor decides by the kernel's version); else every read is a `bpf_probe_read_kernel`.
    pub const DIRECT: usize = 0;
    /// The sensor's own process id: its system calls are not events, or writing an alert could cause one.
    pub const OWN_TGID: usize = 1;
    /// Index of the cgroup v1 controller whose hierarchy names containers, or [`crate::offsets::MISSING`] for the
    /// default (v2) hierarchy.
    pub const CGROUP_SUBSYS: usize = 2;
    /// 1 when the kernel runs 32-bit system calls.
    pub const COMPAT: usize = 3;
    /// Most bytes of data that a record has; at most [`crate::record::DATA_MAX`].
    pub const DATA: usize = 4;
    /// 1 when the programs of `sys_exit`, exec and exit are loaded as tracepoints of perf (`BPF_PROG_TYPE_TRACEPOINT`): what
    /// they are handed is then the tracepoint's record, not its arguments.
    pub const PERF: usize = 5;
    /// How many words there are.
    pub const COUNT: usize = 6;
}

/// Slots of the tail-call array `SYSCALLS`: native system call numbers, then helpers.
pub mod slot {
    /// Numbers are below this, those of the x32 interface (512…) included.
    pub const NUMBERS: u32 = 1024;
    /// Appends one pending path to the record under construction, then sends it.
    pub const WALK: u32 = NUMBERS;
    /// Says who did it: puts the header in front of the record under construction.
    pub const IDENTIFY: u32 = NUMBERS + 1;
    /// Appends what one of the descriptors 0, 1 and 2 is.
    pub const STANDARD: u32 = NUMBERS + 2;
    /// Appends the kinds of all open descriptors.
    pub const KINDS: u32 = NUMBERS + 3;
    /// Size of the array.
    pub const COUNT: u32 = NUMBERS + 8;
}

/// How many CPUs can have rings of their own.
pub const MAX_CPUS: u32 = 1024;

/// The rings of each CPU: index in map `RINGS` is `cpu * RING_CLASSES + class`.
pub const RING_CLASSES: u32 = 3;

/// Ring for exec, fork and exit: small, never starved by the other.
pub const RING_STATE: u32 = 0;

/// Ring for everything else.
pub const RING_BULK: u32 = 1;

/// Ring for what a rule of high priority may match: a storm of other events does not fill it.
pub const RING_URGENT: u32 = 2;

/// Buckets that processes are counted in, by a hash of their id: a power of two.
pub const SHARES: u32 = 256;

/// How many records of one bucket go into a CPU's ring in one window, however full it is.
pub const SHARE: u64 = 16;

/// A window of time is `1 << WINDOW_SHIFT` nanoseconds: 134 ms.
pub const WINDOW_SHIFT: u32 = 27;
