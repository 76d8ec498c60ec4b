//! **The table of system calls**: one row gives the numbers, the collectors of its parameters in Falco's order, and
//! the facts added to the record. Adding a system call is adding a row (and its kernel test).
//!
//! The table is a macro that hands its rows to whichever macro you name, so the kernel programs and the catalogue
//! expand the same text. A source (`ret`, `path_at`, …) is a function of that name in `sensor-ebpf`'s `collect.rs`;
//! its arguments are argument numbers of the system call. Types and docs of parameters are in the event catalogue
//! (`gyrfalcon-event`), found by event and parameter name; a test there holds the two together.

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
