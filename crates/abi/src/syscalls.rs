//! **The table of system calls**: one row gives the numbers, the collectors of its parameters in Falco's order, and
//! the facts added to the record. Adding a system call is adding a row (and its kernel test).
//!
//! The table is a macro that hands its rows to whichever macro you name, so the kernel programs and the catalogue
//! expand the same text. A source (`ret`, `path_at`, …) is a function of that name in `sensor-ebpf`'s `collect.rs`;
//! its arguments are argument numbers of the system call. Types and docs of parameters are in the event catalogue
//! (`gyrfalcon-event`), found by event and parameter name; a test there holds the two together.

mod generic;

pub use generic::{COMPAT_ALIASES, GENERIC, Generic, SOCKETCALL, SOCKETCALL_ACCEPT};

/// A number that a row lacks on an architecture.
pub const NONE: i32 = -1;

/// Hands every row to `$expand!`.
///
/// ```text
/// name (x86_64 nr, i386 nr, aarch64 nr) { param = source(args…), … } { fact(args…), … }
/// ```
#[macro_export]
macro_rules! syscalls {
    ($expand:ident) => {
        $expand! {
            /// Opens a file.
            open (2, 5, -1) {
                fd = ret(), name = open_path(0, 1), flags = open_flags(1), mode = open_mode(1, 2), dev = opened_dev(), ino = opened_ino(),
            } { realpath() }
            /// Opens a file relative to a directory.
            openat (257, 295, 56) {
                fd = ret(), dirfd = arg_i32(0), name = open_path_at(1, 0, 2), flags = open_flags(2), mode = open_mode(2, 3),
                dev = opened_dev(), ino = opened_ino(),
            } { realpath() }
            /// Opens a file with the extended options of `struct open_how`.
            openat2 (437, 437, 437) {
                fd = ret(), dirfd = arg_i32(0), name = path_at(1, 0), flags = how_flags(2), mode = how_mode(2), resolve = how_resolve(2),
                dev = opened_dev(), ino = opened_ino(),
            } { realpath() }
            /// Creates a file.
            creat (85, 8, -1) {
                fd = ret(), name = path(0), mode = arg_u32(1), dev = opened_dev(), ino = opened_ino(), creat_flags = creat_flags(),
            } { realpath() }
            /// Connects a socket.
            connect (42, 362, 203) {
                res = ret(), tuple = nothing(), fd = arg_i32(0), addr = sockaddr(1, 2),
            } { fd(0) }
            /// Creates a socket.
            socket (41, 359, 198) {
                fd = ret(), domain = arg_u32(0), type = arg_u32(1), proto = arg_u32(2), flags = arg_u32(1),
            } { }
            /// Observes or controls another process.
            ptrace (101, 26, 117) {
                res = ret(), addr = arg_u64(2), data = arg_u64(3), request = arg_u64(0), pid = arg_i32(1),
            } { }
            /// Removes a name.
            unlink (87, 10, -1) { res = ret(), path = path(0), } { }
            /// Removes a name relative to a directory.
            unlinkat (263, 301, 35) { res = ret(), dirfd = arg_i32(0), name = path_at(1, 0), flags = arg_u32(2), } { }
            /// Renames a file.
            rename (82, 38, -1) { res = ret(), oldpath = path(0), newpath = path(1), } { }
            /// Renames a file relative to directories.
            renameat (264, 302, 38) {
                res = ret(), olddirfd = arg_i32(0), oldpath = path_at(1, 0), newdirfd = arg_i32(2), newpath = path_at(3, 2),
            } { }
            /// Renames a file, with flags.
            renameat2 (316, 353, 276) {
                res = ret(), olddirfd = arg_i32(0), oldpath = path_at(1, 0), newdirfd = arg_i32(2), newpath = path_at(3, 2), flags = arg_u32(4),
            } { }
            /// Creates a directory.
            mkdir (83, 39, -1) { res = ret(), path = path(0), mode = arg_u32(1), } { }
            /// Creates a directory relative to another.
            mkdirat (258, 296, 34) { res = ret(), dirfd = arg_i32(0), path = path_at(1, 0), mode = arg_u32(2), } { }
            /// Removes a directory.
            rmdir (84, 40, -1) { res = ret(), path = path(0), } { }
            /// Makes a hard link.
            link (86, 9, -1) { res = ret(), oldpath = path(0), newpath = path(1), } { }
            /// Makes a hard link relative to directories.
            linkat (265, 303, 37) {
                res = ret(), olddir = arg_i32(0), oldpath = path_at(1, 0), newdir = arg_i32(2), newpath = path_at(3, 2), flags = arg_u32(4),
            } { }
            /// Makes a symbolic link.
            symlink (88, 83, -1) { res = ret(), target = text(0), linkpath = path(1), } { }
            /// Makes a symbolic link relative to a directory.
            symlinkat (266, 304, 36) { res = ret(), target = text(0), linkdirfd = arg_i32(1), linkpath = path_at(2, 1), } { }
            /// Duplicates a descriptor.
            dup (32, 41, 23) { res = ret(), oldfd = arg_i32(0), } { fd_of_ret() }
            /// Duplicates a descriptor onto a given one.
            dup2 (33, 63, -1) { res = ret(), oldfd = arg_i32(0), newfd = arg_i32(1), } { fd_of_ret() }
            /// Duplicates a descriptor onto a given one, with flags.
            dup3 (292, 330, 24) { res = ret(), oldfd = arg_i32(0), newfd = arg_i32(1), flags = arg_u32(2), } { fd_of_ret() }
            /// Changes the mode of a file.
            chmod (90, 15, -1) { res = ret(), filename = path(0), mode = arg_u32(1), } { }
            /// Changes the mode of an open file.
            fchmod (91, 94, 52) { res = ret(), fd = arg_i32(0), mode = arg_u32(1), } { fd(0) }
            /// Changes the mode of a file relative to a directory.
            fchmodat (268, 306, 53) { res = ret(), dirfd = arg_i32(0), filename = path_at(1, 0), mode = arg_u32(2), } { }
            /// Accepts a connection.
            accept (43, -1, 202) {
                fd = ret(), tuple = nothing(), queuepct = queue_percent(0), queuelen = queue_length(0),
                queuemax = queue_limit(0),
            } { fd_of_ret() }
            /// Accepts a connection, with flags.
            accept4 (288, 364, 242) {
                fd = ret(), tuple = nothing(), queuepct = queue_percent(0), queuelen = queue_length(0),
                queuemax = queue_limit(0), flags = arg_i32(3),
            } { fd_of_ret() }
            /// Gives a socket an address.
            bind (49, 361, 200) { res = ret(), addr = sockaddr(1, 2), fd = arg_i32(0), } { fd(0) }
            /// Makes a socket one that connections arrive at.
            listen (50, 363, 201) { res = ret(), fd = arg_i32(0), backlog = arg_i32(1), } { fd(0) }
            /// Sends to an address.
            sendto (44, 369, 206) {
                res = ret(), data = sent(1, 2), fd = arg_i32(0), size = arg_u32(2), tuple = nothing(),
            } { fd(0), address(4, 5) }
            /// Sends a message.
            sendmsg (46, 370, 211) {
                res = ret(), data = msg_sent(1), fd = arg_i32(0), size = msg_size(1), tuple = nothing(),
            } { fd(0), msg_address(1) }
            /// Sends several messages; the first is told of.
            sendmmsg (307, 345, 269) {
                res = ret(), fd = arg_i32(0), size = msg_size(1), data = msg_whole(1),
                tuple = nothing(),
            } { fd(0), msg_address(1) }
            /// Receives, and says from whom.
            recvfrom (45, 371, 207) {
                res = ret(), data = received(1), tuple = nothing(), fd = arg_i32(0), size = arg_u32(2),
            } { fd(0), address_out(4, 5) }
            /// Receives a message.
            recvmsg (47, 372, 212) {
                res = ret(), size = msg_size(1), data = msg_received(1), tuple = nothing(),
                msgcontrol = msg_control(1), fd = arg_i32(0),
            } { fd(0), msg_address(1) }
            /// Receives several messages; the first is told of.
            recvmmsg (299, 337, 243) {
                res = ret(), fd = arg_i32(0), size = msg_size(1), data = msg_whole(1),
                tuple = nothing(), msgcontrol = msg_control(1),
            } { fd(0), msg_address(1) }
            /// Ends one or both directions of a connection.
            shutdown (48, 373, 210) { res = ret(), fd = arg_i32(0), how = arg_u32(1), } { fd(0) }
            /// Creates two connected sockets.
            socketpair (53, 360, 199) {
                res = ret(), fd1 = user_i32(3, 0), fd2 = user_i32(3, 4), source = nothing(),
                peer = nothing(), domain = arg_u32(0), type = arg_u32(1), proto = arg_u32(2),
            } { }
            /// Reads an option of a socket.
            getsockopt (55, 365, 209) {
                res = ret(), fd = arg_i32(0), level = arg_u32(1), optname = arg_u32(2),
                val = user_u32(3, 0), optlen = user_u32(4, 0),
            } { fd(0) }
            /// Sets an option of a socket.
            setsockopt (54, 366, 208) {
                res = ret(), fd = arg_i32(0), level = arg_u32(1), optname = arg_u32(2),
                val = user_u32(3, 0), optlen = arg_u32(4),
            } { fd(0) }
            /// Reads a socket's own address.
            getsockname (51, 367, 204) { } { }
            /// Reads the address of a socket's other end.
            getpeername (52, 368, 205) { } { }
            /// Creates a process or thread; an event in both.
            clone (56, 120, 220) {
                res = ret(), exe = nothing(), args = nothing(), tid = nothing(), pid = nothing(),
                ptid = nothing(), cwd = nothing(), fdlimit = nothing(), pgft_maj = nothing(),
                pgft_min = nothing(), vm_size = nothing(), vm_rss = nothing(), vm_swap = nothing(),
                comm = nothing(), cgroups = nothing(), flags = clone_flags(0), uid = nothing(),
                gid = nothing(), vtid = nothing(), vpid = nothing(), pidns_init_start_ts = nothing(),
            } { }
            /// Creates a process or thread with `struct clone_args`; an event in both.
            clone3 (435, 435, 435) {
                res = ret(), exe = nothing(), args = nothing(), tid = nothing(), pid = nothing(),
                ptid = nothing(), cwd = nothing(), fdlimit = nothing(), pgft_maj = nothing(),
                pgft_min = nothing(), vm_size = nothing(), vm_rss = nothing(), vm_swap = nothing(),
                comm = nothing(), cgroups = nothing(), flags = clone3_flags(0), uid = nothing(),
                gid = nothing(), vtid = nothing(), vpid = nothing(), pidns_init_start_ts = nothing(),
            } { }
            /// Creates a process; an event in both.
            fork (57, 2, -1) {
                res = ret(), exe = nothing(), args = nothing(), tid = nothing(), pid = nothing(),
                ptid = nothing(), cwd = nothing(), fdlimit = nothing(), pgft_maj = nothing(),
                pgft_min = nothing(), vm_size = nothing(), vm_rss = nothing(), vm_swap = nothing(),
                comm = nothing(), cgroups = nothing(), flags = zero(), uid = nothing(), gid = nothing(),
                vtid = nothing(), vpid = nothing(), pidns_init_start_ts = nothing(),
            } { }
            /// Creates a process that borrows the memory of its parent; an event in both.
            vfork (58, 190, -1) {
                res = ret(), exe = nothing(), args = nothing(), tid = nothing(), pid = nothing(),
                ptid = nothing(), cwd = nothing(), fdlimit = nothing(), pgft_maj = nothing(),
                pgft_min = nothing(), vm_size = nothing(), vm_rss = nothing(), vm_swap = nothing(),
                comm = nothing(), cgroups = nothing(), flags = zero(), uid = nothing(), gid = nothing(),
                vtid = nothing(), vpid = nothing(), pidns_init_start_ts = nothing(),
            } { }
            /// Joins a namespace.
            setns (308, 346, 268) { res = ret(), fd = arg_i32(0), nstype = arg_u32(1), } { fd(0) }
            /// Leaves namespaces for new ones.
            unshare (272, 310, 97) { res = ret(), flags = arg_u32(0), } { }
            /// Sets the user.
            setuid (105, 213, 146) { res = ret(), uid = arg_u32(0), } { }
            /// Sets the group.
            setgid (106, 214, 144) { res = ret(), gid = arg_u32(0), } { }
            /// Sets real and effective user.
            setreuid (113, 203, 145) { res = ret(), ruid = arg_u32(0), euid = arg_u32(1), } { }
            /// Sets real and effective group.
            setregid (114, 204, 143) { res = ret(), rgid = arg_u32(0), egid = arg_u32(1), } { }
            /// Sets real, effective and saved user.
            setresuid (117, 208, 147) { res = ret(), ruid = arg_u32(0), euid = arg_u32(1), suid = arg_u32(2), } { }
            /// Sets real, effective and saved group.
            setresgid (119, 210, 149) { res = ret(), rgid = arg_u32(0), egid = arg_u32(1), sgid = arg_u32(2), } { }
            /// Asks for the user.
            getuid (102, 199, 174) { uid = ret(), } { }
            /// Asks for the effective user.
            geteuid (107, 201, 175) { euid = ret(), } { }
            /// Asks for the group.
            getgid (104, 200, 176) { gid = ret(), } { }
            /// Asks for the effective group.
            getegid (108, 202, 177) { egid = ret(), } { }
            /// Asks for real, effective and saved user.
            getresuid (118, 209, 148) {
                res = ret(), ruid = user_u32(0, 0), euid = user_u32(1, 0), suid = user_u32(2, 0),
            } { }
            /// Asks for real, effective and saved group.
            getresgid (120, 211, 150) {
                res = ret(), rgid = user_u32(0, 0), egid = user_u32(1, 0), sgid = user_u32(2, 0),
            } { }
            /// Begins a session.
            setsid (112, 66, 157) { res = ret(), } { }
            /// Moves a process to a process group.
            setpgid (109, 57, 154) { res = ret(), pid = arg_i32(0), pgid = arg_i32(1), } { }
            /// Sets capabilities; told are those that the thread then has.
            capset (126, 185, 91) {
                res = ret(), cap_inheritable = capabilities(0), cap_permitted = capabilities(1),
                cap_effective = capabilities(2),
            } { }
            /// Changes properties of the process.
            prctl (157, 172, 167) {
                res = ret(), option = arg_u32(0), arg2_str = prctl_text(0, 1),
                arg2_int = prctl_int(0, 1),
            } { }
            /// Restricts system calls.
            seccomp (317, 354, 277) { res = ret(), op = arg_u32(0), flags = arg_u32(1), } { }
            /// Reads and sets a limit of a process.
            prlimit (302, 340, 261) {
                res = ret(), newcur = limit64(2, 0), newmax = limit64(2, 8), oldcur = limit64_out(3, 0),
                oldmax = limit64_out(3, 8), pid = arg_i32(0), resource = arg_u32(1),
            } { }
            /// Reads a limit.
            getrlimit (97, 191, 163) {
                res = ret(), cur = limit_out(1, 0), max = limit_out(1, 1), resource = arg_u32(0),
            } { }
            /// Sets a limit.
            setrlimit (160, 75, 164) { res = ret(), cur = limit(1, 0), max = limit(1, 1), resource = arg_u32(0), } { }
            /// Sends a signal to a process.
            kill (62, 37, 129) { res = ret(), pid = arg_i32(0), sig = arg_u32(1), } { }
            /// Sends a signal to a thread.
            tkill (200, 238, 130) { res = ret(), tid = arg_i32(0), sig = arg_u32(1), } { }
            /// Sends a signal to a thread of a process.
            tgkill (234, 270, 131) { res = ret(), pid = arg_i32(0), tid = arg_i32(1), sig = arg_u32(2), } { }
            /// Opens a process.
            pidfd_open (434, 434, 434) { fd = ret(), pid = arg_i32(0), flags = arg_u32(1), } { fd_of_ret() }
            /// Copies a descriptor out of another process.
            pidfd_getfd (438, 438, 438) {
                fd = ret(), pid_fd = arg_i32(0), target_fd = arg_i32(1), flags = arg_u32(2),
            } { fd_of_ret() }
            /// Reads the memory of another process.
            process_vm_readv (310, 347, 270) { res = ret(), pid = arg_i32(0), data = iov_received(1, 2), } { }
            /// Writes the memory of another process.
            process_vm_writev (311, 348, 271) { res = ret(), pid = arg_i32(0), data = iov_sent(1, 2), } { }
            /// Does something with BPF programs and maps.
            bpf (321, 357, 280) { fd = ret(), cmd = arg_u32(0), } { }
            /// Handles page faults in user space.
            userfaultfd (323, 374, 282) { res = ret(), flags = arg_u32(0), } { fd_of_ret() }
            /// Loads a kernel module from memory.
            init_module (175, 128, 105) {
                res = ret(), img = sent_whole(0, 1), length = arg_u64(1), uargs = text(2),
            } { }
            /// Loads a kernel module from a file.
            finit_module (313, 350, 273) {
                res = ret(), fd = arg_i32(0), uargs = text(1), flags = arg_u32(2),
            } { fd(0) }
            /// Unloads a kernel module.
            delete_module (176, 129, 106) { res = ret(), name = text(0), flags = arg_u32(1), } { }
            /// Creates an anonymous file in memory.
            memfd_create (319, 356, 279) { fd = ret(), name = text(0), flags = arg_u32(1), } { fd_of_ret() }
            /// Mounts a file system.
            mount (165, 21, 40) { res = ret(), dev = text(0), dir = path(1), type = text(2), flags = arg_u64(3), } { }
            /// Unmounts a file system; a 32-bit call.
            umount (-1, 22, -1) { res = ret(), name = path(0), } { }
            /// Unmounts a file system.
            umount2 (166, 52, 39) { res = ret(), name = path(0), flags = arg_u32(1), } { }
            /// Configures a file system that is to be mounted.
            fsconfig (431, 431, 431) {
                res = ret(), fd = arg_i32(0), cmd = arg_u32(1), key = text(2),
                value_bytebuf = nothing(), value_charbuf = fsconfig_text(1, 3), aux = arg_i32(4),
            } { fd(0) }
            /// Changes the root directory.
            chroot (161, 61, 51) { res = ret(), path = path(0), } { }
            /// Changes the working directory.
            chdir (80, 12, 49) { res = ret(), path = text(0), } { }
            /// Changes the working directory to an open one.
            fchdir (81, 133, 50) { res = ret(), fd = arg_i32(0), } { fd(0) }
            /// Asks for the working directory.
            getcwd (79, 183, 17) { res = ret(), path = text(0), } { }
            /// Opens a file by its handle.
            open_by_handle_at (304, 342, 265) {
                fd = ret(), mountfd = arg_i32(0), flags = open_flags(2), path = nothing(),
                dev = opened_dev(), ino = opened_ino(),
            } { fd_of_ret() }
            /// Asks what may be done with a file.
            access (21, 33, -1) { res = ret(), name = path(0), mode = arg_u32(1), } { }
            /// Reads the properties of a file.
            stat (4, 106, -1) { res = ret(), path = path(0), } { }
            /// Reads the properties of a file; a 32-bit call.
            stat64 (-1, 195, -1) { res = ret(), path = path(0), } { }
            /// Reads the properties of a link.
            lstat (6, 107, -1) { res = ret(), path = path(0), } { }
            /// Reads the properties of a link; a 32-bit call.
            lstat64 (-1, 196, -1) { res = ret(), path = path(0), } { }
            /// Reads the properties of an open file.
            fstat (5, 108, 80) { res = ret(), fd = arg_i32(0), } { fd(0) }
            /// Reads the properties of an open file; a 32-bit call.
            fstat64 (-1, 197, -1) { res = ret(), } { }
            /// Reads the properties of a file relative to a directory.
            newfstatat (262, -1, 79) { res = ret(), dirfd = arg_i32(0), path = path_at(1, 0), flags = arg_u32(3), } { }
            /// Changes the owner of a file.
            chown (92, 212, -1) { res = ret(), path = path(0), uid = arg_u32(1), gid = arg_u32(2), } { }
            /// Changes the owner of a link.
            lchown (94, 198, -1) { res = ret(), path = path(0), uid = arg_u32(1), gid = arg_u32(2), } { }
            /// Changes the owner of an open file.
            fchown (93, 207, 55) { res = ret(), fd = arg_i32(0), uid = arg_u32(1), gid = arg_u32(2), } { fd(0) }
            /// Changes the owner of a file relative to a directory.
            fchownat (260, 298, 54) {
                res = ret(), dirfd = arg_i32(0), pathname = path_at(1, 0), uid = arg_u32(2),
                gid = arg_u32(3), flags = arg_u32(4),
            } { }
            /// Creates a device, pipe or file.
            mknod (133, 14, -1) { res = ret(), path = path(0), mode = arg_u32(1), dev = arg_u32(2), } { }
            /// Creates a device, pipe or file relative to a directory.
            mknodat (259, 297, 33) {
                res = ret(), dirfd = arg_i32(0), path = path_at(1, 0), mode = arg_u32(2),
                dev = arg_u32(3),
            } { }
            /// Locks a file.
            flock (73, 143, 32) { res = ret(), fd = arg_i32(0), operation = arg_u32(1), } { fd(0) }
            /// Does something with a descriptor.
            fcntl (72, 221, 25) { res = ret(), fd = arg_i32(0), cmd = arg_u32(1), arg = arg_u64(2), } { fd(0) }
            /// Asks a device for something.
            ioctl (16, 54, 29) { res = ret(), fd = arg_i32(0), request = arg_u64(1), argument = arg_u64(2), } { fd(0) }
            /// Closes a descriptor; what it was is not known any more.
            close (3, 6, 57) { res = ret(), fd = arg_i32(0), } { }
            /// Closes descriptors.
            close_range (436, 436, 436) { res = ret(), first = arg_u32(0), last = arg_u32(1), flags = arg_u32(2), } { }
            /// Lists a directory.
            getdents (78, 141, -1) { res = ret(), fd = arg_i32(0), } { fd(0) }
            /// Lists a directory.
            getdents64 (217, 220, 61) { res = ret(), fd = arg_i32(0), } { fd(0) }
            /// Moves in a file.
            lseek (8, 19, 62) { res = ret(), fd = arg_i32(0), offset = arg_u64(1), whence = arg_u32(2), } { fd(0) }
            /// Moves in a file; a 32-bit call.
            llseek (-1, 140, -1) {
                res = ret(), fd = arg_i32(0), offset = two_words(2, 1), whence = arg_u32(4),
            } { fd(0) }
            /// Reads.
            read (0, 3, 63) { res = ret(), data = received(1), fd = arg_i32(0), size = arg_u32(2), } { fd(0) }
            /// Writes.
            write (1, 4, 64) { res = ret(), data = sent(1, 2), fd = arg_i32(0), size = arg_u32(2), } { fd(0) }
            /// Reads at a position.
            pread (17, 180, 67) {
                res = ret(), data = received(1), fd = arg_i32(0), size = arg_u32(2), pos = arg_u64(3),
            } { fd(0) }
            /// Writes at a position.
            pwrite (18, 181, 68) {
                res = ret(), data = sent(1, 2), fd = arg_i32(0), size = arg_u32(2), pos = arg_u64(3),
            } { fd(0) }
            /// Reads into several buffers.
            readv (19, 145, 65) {
                res = ret(), size = iov_size(1, 2), data = iov_received(1, 2), fd = arg_i32(0),
            } { fd(0) }
            /// Writes from several buffers.
            writev (20, 146, 66) {
                res = ret(), data = iov_sent(1, 2), fd = arg_i32(0), size = iov_size(1, 2),
            } { fd(0) }
            /// Reads into several buffers at a position.
            preadv (295, 333, 69) {
                res = ret(), size = iov_size(1, 2), data = iov_received(1, 2), fd = arg_i32(0),
                pos = arg_u64(3),
            } { fd(0) }
            /// Writes from several buffers at a position.
            pwritev (296, 334, 70) {
                res = ret(), data = iov_sent(1, 2), fd = arg_i32(0), size = iov_size(1, 2),
                pos = arg_u64(3),
            } { fd(0) }
            /// Copies from one descriptor to another.
            sendfile (40, 239, 71) {
                res = ret(), offset = user_u64(2, 0), out_fd = arg_i32(0), in_fd = arg_i32(1),
                size = arg_u64(3),
            } { fd(0) }
            /// Copies from one file to another.
            copy_file_range (326, 377, 285) {
                res = ret(), fdout = arg_i32(2), offout = user_u64(3, 0), fdin = arg_i32(0),
                offin = user_u64(1, 0), len = arg_u64(4),
            } { fd(2) }
            /// Moves data from or to a pipe.
            splice (275, 313, 76) {
                res = ret(), fd_in = arg_i32(0), fd_out = arg_i32(2), size = arg_u64(4),
                flags = arg_u32(5),
            } { fd(0) }
            /// Creates a pipe.
            pipe (22, 42, -1) { res = ret(), fd1 = user_i32(0, 0), fd2 = user_i32(0, 4), ino = user_fd_ino(0), } { }
            /// Creates a pipe, with flags.
            pipe2 (293, 331, 59) {
                res = ret(), fd1 = user_i32(0, 0), fd2 = user_i32(0, 4), ino = user_fd_ino(0),
                flags = arg_u32(1),
            } { }
            /// Creates a counter.
            eventfd (284, 323, -1) { res = ret(), initval = arg_u32(0), flags = zero(), } { fd_of_ret() }
            /// Creates a counter, with flags.
            eventfd2 (290, 328, 19) { res = ret(), flags = arg_u32(1), initval = arg_u32(0), } { fd_of_ret() }
            /// Receives signals through a descriptor.
            signalfd (282, 321, -1) { res = ret(), fd = arg_i32(0), mask = zero(), flags = zero(), } { fd_of_ret() }
            /// Receives signals through a descriptor, with flags.
            signalfd4 (289, 327, 74) {
                res = ret(), flags = arg_u32(3), fd = arg_i32(0), mask = zero(),
            } { fd_of_ret() }
            /// Creates a timer.
            timerfd_create (283, 322, 85) { res = ret(), clockid = arg_u32(0), flags = arg_u32(1), } { fd_of_ret() }
            /// Watches files.
            inotify_init (253, 291, -1) { res = ret(), flags = zero(), } { fd_of_ret() }
            /// Watches files, with flags.
            inotify_init1 (294, 332, 26) { res = ret(), flags = arg_u32(0), } { fd_of_ret() }
            /// Waits for many descriptors.
            epoll_create (213, 254, -1) { res = ret(), size = arg_i32(0), } { fd_of_ret() }
            /// Waits for many descriptors, with flags.
            epoll_create1 (291, 329, 20) { res = ret(), flags = arg_u32(0), } { fd_of_ret() }
            /// Waits for events of many descriptors.
            epoll_wait (232, 256, -1) { res = ret(), maxevents = arg_i32(2), } { }
            /// Waits for descriptors.
            poll (7, 168, -1) { res = ret(), fds = nothing(), timeout = arg_i32(2), } { }
            /// Waits for descriptors or signals.
            ppoll (271, 309, 73) { res = ret(), fds = nothing(), timeout = timespec(2), sigmask = nothing(), } { }
            /// Waits for descriptors.
            select (23, 142, -1) { res = ret(), } { }
            /// Sleeps.
            nanosleep (35, 162, 101) { res = ret(), interval = timespec(0), } { }
            /// Waits for a word in memory, or wakes who does.
            futex (202, 240, 98) { res = ret(), addr = arg_u64(0), op = arg_u32(1), val = arg_u32(2), } { }
            /// Creates an io_uring.
            io_uring_setup (425, 425, 425) {
                res = ret(), entries = arg_u32(0), sq_entries = user_u32(1, 0),
                cq_entries = user_u32(1, 4), flags = user_u32(1, 8), sq_thread_cpu = user_u32(1, 12),
                sq_thread_idle = user_u32(1, 16), features = user_u32(1, 20),
            } { fd_of_ret() }
            /// Submits to an io_uring, or waits for it.
            io_uring_enter (426, 426, 426) {
                res = ret(), fd = arg_i32(0), to_submit = arg_u32(1), min_complete = arg_u32(2),
                flags = arg_u32(3), sig = nothing(),
            } { fd(0) }
            /// Registers resources with an io_uring.
            io_uring_register (427, 427, 427) {
                res = ret(), fd = arg_i32(0), opcode = arg_u32(1), arg = arg_u64(2),
                nr_args = arg_u32(3),
            } { fd(0) }
            /// Maps memory.
            mmap (9, -1, 222) {
                res = ret(), vm_size = vm_size(), vm_rss = nothing(), vm_swap = nothing(),
                addr = arg_u64(0), length = arg_u64(1), prot = arg_u32(2), flags = arg_u32(3),
                fd = arg_i32(4), offset = arg_u64(5),
            } { fd(4) }
            /// Maps memory; a 32-bit call.
            mmap2 (-1, 192, -1) {
                res = ret(), vm_size = vm_size(), vm_rss = nothing(), vm_swap = nothing(),
                addr = arg_u64(0), length = arg_u64(1), prot = arg_u32(2), flags = arg_u32(3),
                fd = arg_i32(4), pgoffset = arg_u64(5),
            } { fd(4) }
            /// Unmaps memory.
            munmap (11, 91, 215) {
                res = ret(), vm_size = vm_size(), vm_rss = nothing(), vm_swap = nothing(),
                addr = arg_u64(0), length = arg_u64(1),
            } { }
            /// Changes what may be done with memory.
            mprotect (10, 125, 226) { res = ret(), addr = arg_u64(0), length = arg_u64(1), prot = arg_u32(2), } { }
            /// Moves the end of the heap.
            brk (12, 45, 214) {
                res = ret(), vm_size = vm_size(), vm_rss = nothing(), vm_swap = nothing(),
                addr = arg_u64(0),
            } { }
            /// Locks memory.
            mlock (149, 150, 228) { res = ret(), addr = arg_u64(0), len = arg_u64(1), } { }
            /// Locks memory, with flags.
            mlock2 (325, 376, 284) { res = ret(), addr = arg_u64(0), len = arg_u64(1), flags = arg_u32(2), } { }
            /// Unlocks memory.
            munlock (150, 151, 229) { res = ret(), addr = arg_u64(0), len = arg_u64(1), } { }
            /// Locks all memory.
            mlockall (151, 152, 230) { res = ret(), flags = arg_u32(0), } { }
            /// Unlocks all memory.
            munlockall (152, 153, 231) { res = ret(), } { }
            /// Manages keys.
            keyctl (250, 288, 219) {
                res = ret(), operation = arg_u32(0), arg2 = arg_u64(1), arg3 = arg_u64(2),
                arg4 = arg_u64(3), arg5 = arg_u64(4),
            } { }
            /// Gets a set of semaphores.
            semget (64, 393, 190) { res = ret(), key = arg_i32(0), nsems = arg_i32(1), semflg = arg_u32(2), } { }
            /// Changes semaphores.
            semop (65, -1, 193) {
                res = ret(), nsops = arg_u32(2), sem_num_0 = user_u16(1, 0), sem_op_0 = user_i16(1, 2),
                sem_flg_0 = user_u16(1, 4), sem_num_1 = user_u16(1, 6), sem_op_1 = user_i16(1, 8),
                sem_flg_1 = user_u16(1, 10), semid = arg_i32(0),
            } { }
            /// Controls a set of semaphores.
            semctl (66, 394, 191) {
                res = ret(), semid = arg_i32(0), semnum = arg_i32(1), cmd = arg_u32(2),
                val = arg_i32(3),
            } { }
            /// Executes a program; only failures: success is an exec record.
            execve (59, 11, 221) { res = failure(), } { argv(1), filename(0) }
            /// Executes a program relative to a directory; only failures.
            execveat (322, 358, 281) { res = failure(), } { argv(2), filename(1) }
        }
    };
}

/// One row, as the sensor sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syscall {
    /// Name, and event type.
    pub name: &'static str,
    /// What it does, for docs/events.md.
    pub doc: &'static str,
    /// Number on x86-64, or [`NONE`].
    pub x86_64: i32,
    /// Number of the 32-bit call on x86, or [`NONE`].
    pub i386: i32,
    /// Number on aarch64, or [`NONE`].
    pub aarch64: i32,
    /// Names of the parameters that are collected, in order.
    pub params: &'static [&'static str],
}

macro_rules! catalogue {
    ($( #[doc = $doc:literal] $name:ident ($x86:literal, $ia32:literal, $arm:literal)
        { $( $param:ident = $source:ident ( $($arg:literal),* ), )* } { $($facts:tt)* } )*) => {
        /// Every row, in the order that gives records their kind.
        pub const SYSCALLS: &[Syscall] = &[ $( Syscall {
            name: stringify!($name),
            doc: $doc,
            x86_64: $x86,
            i386: $ia32,
            aarch64: $arm,
            params: &[ $( stringify!($param), )* ],
        }, )* ];

        /// Index of each row, by name.
        #[expect(non_camel_case_types, reason = "the variants are the names of the system calls")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Row { $( #[doc = $doc] $name, )* }
    };
}
crate::syscalls!(catalogue);
