//! The kernel members that the programs read, resolved by the driver from the running kernel's BTF and handed over as
//! read-only globals.
//!
//! rustc emits no CO-RE relocations; a frozen read-only global is as good: the verifier knows its value, so
//! `typed pointer + offset` is checked and costs one load. A path may list alternatives (`a|b`, the first that exists
//! wins) for members that were renamed, and end in `+N` for an element of an array.

/// Value of a row whose member this kernel does not have.
pub const MISSING: u64 = 0xffff_ffff;

/// How much depends on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No program works without it.
    Must,
    /// A named feature is off without it; programs test for [`MISSING`].
    May(&'static str),
}

/// Where the value of a row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Byte offset of a member (dotted path) in a struct.
    Member(&'static str, &'static str),
    /// Size of a struct.
    Size(&'static str),
    /// Value of an enumerator.
    Enumerator(&'static str, &'static str),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Offset {
    /// Name of the field in [`Offsets`].
    pub name: &'static str,
    /// Where it comes from.
    pub from: Origin,
    /// How much depends on it.
    pub need: Need,
}

macro_rules! offsets {
    (@need must) => { Need::Must };
    (@need $feature:literal) => { Need::May($feature) };
    ($( $field:ident = $from:expr, $need:tt; )*) => {
        /// One `u64` per row; the value of global `OFFSETS`.
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        #[expect(missing_docs, reason = "each row below says which member it is")]
        pub struct Offsets { $( pub $field: u64, )* }

        impl Offsets {
            /// Before the driver has resolved anything.
            pub const UNRESOLVED: Self = Self { $( $field: MISSING, )* };
        }

        /// The rows, in the order of the struct.
        pub const OFFSETS: &[Offset] = &[ $( Offset { name: stringify!($field), from: $from, need: offsets!(@need $need) }, )* ];
    };
}

use Origin::{Enumerator, Member, Size};

offsets! {
    // registers at system call exit: x86-64 | aarch64
    regs_nr = Member("pt_regs", "orig_ax|syscallno"), must;
    regs_arg0 = Member("pt_regs", "di|orig_x0"), must;
    regs_arg1 = Member("pt_regs", "si|regs+8"), must;
    regs_arg2 = Member("pt_regs", "dx|regs+16"), must;
    regs_arg3 = Member("pt_regs", "r10|regs+24"), must;
    regs_arg4 = Member("pt_regs", "r8|regs+32"), must;
    regs_arg5 = Member("pt_regs", "r9|regs+40"), must;
    regs_compat0 = Member("pt_regs", "bx"), "32-bit system calls";
    regs_compat1 = Member("pt_regs", "cx"), "32-bit system calls";
    regs_compat2 = Member("pt_regs", "dx"), "32-bit system calls";
    regs_compat3 = Member("pt_regs", "si"), "32-bit system calls";
    regs_compat4 = Member("pt_regs", "di"), "32-bit system calls";
    regs_compat5 = Member("pt_regs", "bp"), "32-bit system calls";
    task_status = Member("task_struct", "thread_info.status"), "32-bit system calls";

    task_tgid = Member("task_struct", "tgid"), must;
    task_pid = Member("task_struct", "pid"), must;
    task_comm = Member("task_struct", "comm"), must;
    task_real_parent = Member("task_struct", "real_parent"), must;
    task_leader = Member("task_struct", "group_leader"), must;
    task_start = Member("task_struct", "start_boottime|real_start_time"), must;
    task_mm = Member("task_struct", "mm"), must;
    task_fs = Member("task_struct", "fs"), must;
    task_files = Member("task_struct", "files"), must;
    task_cred = Member("task_struct", "cred"), must;
    task_signal = Member("task_struct", "signal"), must;
    task_thread_pid = Member("task_struct", "thread_pid"), must;
    task_cgroups = Member("task_struct", "cgroups"), "container ids";
    task_loginuid = Member("task_struct", "loginuid"), "user.loginuid";
    task_exit_code = Member("task_struct", "exit_code"), must;
    task_maj_flt = Member("task_struct", "maj_flt"), must;
    task_min_flt = Member("task_struct", "min_flt"), must;

    signal_pids = Member("signal_struct", "pids"), must;
    signal_tty = Member("signal_struct", "tty"), must;
    signal_live = Member("signal_struct", "live"), must;
    signal_rlim = Member("signal_struct", "rlim"), must;
    tty_driver = Member("tty_struct", "driver"), must;
    tty_index = Member("tty_struct", "index"), must;
    tty_driver_major = Member("tty_driver", "major"), must;
    tty_driver_minor_start = Member("tty_driver", "minor_start"), must;

    cred_euid = Member("cred", "euid"), must;
    cred_egid = Member("cred", "egid"), must;
    cred_fsuid = Member("cred", "fsuid"), must;
    cred_cap_inheritable = Member("cred", "cap_inheritable"), must;
    cred_cap_permitted = Member("cred", "cap_permitted"), must;
    cred_cap_effective = Member("cred", "cap_effective"), must;

    pid_level = Member("pid", "level"), must;
    pid_numbers = Member("pid", "numbers"), must;
    upid_size = Size("upid"), must;

    css_set_default = Member("css_set", "dfl_cgrp"), "container ids";
    css_set_subsys = Member("css_set", "subsys"), "container ids";
    css_cgroup = Member("cgroup_subsys_state", "cgroup"), "container ids";
    cgroup_kn = Member("cgroup", "kn"), "container ids";
    kernfs_id = Member("kernfs_node", "id"), "container ids";
    kernfs_name = Member("kernfs_node", "name"), "container ids";
    kernfs_parent = Member("kernfs_node", "__parent|parent"), "container ids";
    subsys_memory = Enumerator("cgroup_subsys_id", "memory_cgrp_id"), "container ids on cgroup v1";
    subsys_pids = Enumerator("cgroup_subsys_id", "pids_cgrp_id"), "container ids on cgroup v1";
    subsys_cpu = Enumerator("cgroup_subsys_id", "cpu_cgrp_id"), "container ids on cgroup v1";
    subsys_devices = Enumerator("cgroup_subsys_id", "devices_cgrp_id"), "container ids on cgroup v1";

    mm_arg_start = Member("mm_struct", "arg_start"), must;
    mm_arg_end = Member("mm_struct", "arg_end"), must;
    mm_env_start = Member("mm_struct", "env_start"), must;
    mm_env_end = Member("mm_struct", "env_end"), must;
    mm_exe_file = Member("mm_struct", "exe_file"), must;
    mm_total_vm = Member("mm_struct", "total_vm"), must;
    bprm_filename = Member("linux_binprm", "filename"), must;

    files_fdt = Member("files_struct", "fdt"), must;
    fdtable_max = Member("fdtable", "max_fds"), must;
    fdtable_fd = Member("fdtable", "fd"), must;
    file_path = Member("file", "f_path"), must;
    file_inode = Member("file", "f_inode"), must;
    file_mode = Member("file", "f_mode"), must;
    file_private = Member("file", "private_data"), must;
    path_mnt = Member("path", "mnt"), must;
    path_dentry = Member("path", "dentry"), must;
    fs_root = Member("fs_struct", "root"), must;
    fs_pwd = Member("fs_struct", "pwd"), must;
    dentry_parent = Member("dentry", "d_parent"), must;
    dentry_name = Member("dentry", "d_name"), must;
    dentry_inode = Member("dentry", "d_inode"), must;
    qstr_hash_len = Member("qstr", "hash_len"), must;
    qstr_name = Member("qstr", "name"), must;
    mount_mnt = Member("mount", "mnt"), must;
    mount_parent = Member("mount", "mnt_parent"), must;
    mount_point = Member("mount", "mnt_mountpoint"), must;
    vfsmount_root = Member("vfsmount", "mnt_root"), must;

    inode_mode = Member("inode", "i_mode"), must;
    inode_uid = Member("inode", "i_uid"), must;
    inode_flags = Member("inode", "i_flags"), must;
    inode_ino = Member("inode", "i_ino"), must;
    inode_sb = Member("inode", "i_sb"), must;
    inode_ctime_sec = Member("inode", "i_ctime_sec|__i_ctime.tv_sec|i_ctime.tv_sec"), "proc.exe_ino.ctime";
    inode_ctime_nsec = Member("inode", "i_ctime_nsec|__i_ctime.tv_nsec|i_ctime.tv_nsec"), "proc.exe_ino.ctime";
    inode_mtime_sec = Member("inode", "i_mtime_sec|__i_mtime.tv_sec|i_mtime.tv_sec"), "proc.exe_ino.mtime";
    inode_mtime_nsec = Member("inode", "i_mtime_nsec|__i_mtime.tv_nsec|i_mtime.tv_nsec"), "proc.exe_ino.mtime";
    inode_size = Size("inode"), must;
    sb_dev = Member("super_block", "s_dev"), must;
    sb_magic = Member("super_block", "s_magic"), must;
    sb_flags = Member("super_block", "s_flags"), must;

    socket_sk = Member("socket", "sk"), must;
    socket_type = Member("socket", "type"), must;
    sock_family = Member("sock", "__sk_common.skc_family"), must;
    sock_protocol = Member("sock", "sk_protocol"), must;
    sock_remote_port = Member("sock", "__sk_common.skc_dport"), must;
    sock_local_port = Member("sock", "__sk_common.skc_num"), must;
    sock_remote4 = Member("sock", "__sk_common.skc_daddr"), must;
    sock_local4 = Member("sock", "__sk_common.skc_rcv_saddr"), must;
    sock_backlog = Member("sock", "sk_ack_backlog"), must;
    sock_max_backlog = Member("sock", "sk_max_ack_backlog"), must;
    unix_addr = Member("unix_sock", "addr"), "paths of Unix sockets";
    unix_peer = Member("unix_sock", "peer"), "paths of Unix sockets";
    unix_address_name = Member("unix_address", "name"), "paths of Unix sockets";
    ring_file = Member("io_kiocb", "file"), "what an io_uring does";
    ring_opcode = Member("io_kiocb", "opcode"), "what an io_uring does";
    ring_result = Member("io_kiocb", "cqe.res"), "what an io_uring does";
    ring_open_dir = Member("io_open", "dfd"), "what an io_uring does";
    ring_open_slot = Member("io_open", "file_slot"), "what an io_uring does";
    ring_open_how = Member("io_open", "how"), "what an io_uring does";
    ring_connecting = Member("io_connect", "in_progress"), "when a connection of an io_uring begins";
    ring_socket = Member("io_socket", "domain"), "what an io_uring does";
    sock_remote6 = Member("sock", "__sk_common.skc_v6_daddr"), "IPv6 addresses";
    sock_local6 = Member("sock", "__sk_common.skc_v6_rcv_saddr"), "IPv6 addresses";
}
