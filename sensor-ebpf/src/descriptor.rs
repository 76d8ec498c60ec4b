//! Descriptors: what the one of an event is, and both ends of a socket.

use abi::{
    offsets::MISSING,
    record::{FdFacts, fd_flag, tag},
};

use crate::{
    collect::Call,
    kernel::{Ptr, probe, probe_user},
    off,
    record::{PendingPath, Record},
};

const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const S_IFMT: u32 = 0o170_000;
pub const S_IFSOCK: u32 = 0o140_000;

/// Tags of the blocks that say what a descriptor is.
#[derive(Clone, Copy)]
pub struct Tags {
    /// [`FdFacts`].
    pub facts: u8,
    /// The path of what is no socket.
    pub path: u8,
    /// The path of a Unix socket.
    pub socket_path: u8,
}

/// Address of the open file behind a descriptor of a task.
#[inline(always)]
pub fn open_file(task: Ptr, fd: i32) -> Option<u64> {
    if fd < 0 {
        return None;
    }
    let table = table(task)?;
    if fd as u32 >= table.len {
        return None;
    }
    let file: u64 = probe(table.files + 8 * (fd as u64));
    (file != 0).then_some(file)
}

/// The table of descriptors of a task.
#[derive(Clone, Copy)]
pub struct Table {
    /// Address of the array of open files, null where a descriptor is not open.
    pub files: u64,
    /// Length of that array.
    pub len: u32,
}

/// Finds it.
#[inline(always)]
pub fn table(task: Ptr) -> Option<Table> {
    let files = task.ptr(off!(task_files));
    if files.is_null() {
        return None;
    }
    let table = files.ptr(off!(files_fdt));
    // `struct file **`: the verifier's types end here.
    Some(Table { files: table.get(off!(fdtable_fd)), len: table.get(off!(fdtable_max)) })
}

/// Asks for the path of an open file: as its process sees it, or, of what it is told by (`stop_at_root` is 0), up to the
/// root of the mount namespace, so that a `chroot` does not hide where a file is.
#[inline(always)]
pub fn want_path(record: &mut Record, file: u64, tag: u8, stop_at_root: u64) {
    record.want_path(path_of(file, tag, stop_at_root));
}

/// Where the path of an open file begins.
#[inline(always)]
pub fn path_of(file: u64, tag: u8, stop_at_root: u64) -> PendingPath {
    let path = file + off!(file_path);
    PendingPath {
        dentry: probe(path + off!(path_dentry)),
        mnt: probe(path + off!(path_mnt)),
        tag: u64::from(tag),
        stop_at_root,
    }
}

/// Whether the file did not exist before it was opened.
#[inline(always)]
pub fn was_created(file: u64) -> bool {
    const FMODE_CREATED: u32 = 0x10_0000;
    probe::<u32>(file + off!(file_mode)) & FMODE_CREATED != 0
}

/// Appends [`FdFacts`] of an open file, and the path of what is no socket.
#[inline(always)]
pub fn describe(record: &mut Record, file: u64, tags: Tags) {
    let inode: u64 = probe(file + off!(file_inode));
    let sb: u64 = probe(inode + off!(inode_sb));
    let mode = u32::from(probe::<u16>(inode + off!(inode_mode)));
    let Some((at, facts)) = record.begin_value::<FdFacts>() else { return };
    facts.ino = probe(inode + off!(inode_ino));
    facts.dev = probe(sb + off!(sb_dev));
    facts.mode = mode;
    (facts.family, facts.sock_type, facts.protocol) = (0, 0, 0);
    (facts.local_port, facts.remote_port, facts.reserved) = (0, 0, 0);
    facts.flags = layer(inode, sb) as u32;
    (facts.local_addr, facts.remote_addr) = ([0; 16], [0; 16]);
    if mode & S_IFMT == S_IFSOCK {
        facts.flags |= fd_flag::SOCKET;
        let sk: u64 = probe(probe::<u64>(file + off!(file_private)) + off!(socket_sk));
        socket(facts, probe(file + off!(file_private)), sk);
        let family = facts.family;
        record.end_value::<FdFacts>(at, u64::from(tags.facts));
        if family == AF_UNIX {
            unix_path(record, sk, tags.socket_path);
        }
        return;
    }
    record.end_value::<FdFacts>(at, u64::from(tags.facts));
    want_path(record, file, tags.path, 0);
}

/// Path of a Unix socket: its own, or that of the one that it is connected to.
#[inline(always)]
fn unix_path(record: &mut Record, sk: u64, tag: u8) {
    if off!(unix_addr) == MISSING || off!(unix_peer) == MISSING || off!(unix_address_name) == MISSING {
        return;
    }
    let mut address: u64 = probe(sk + off!(unix_addr));
    if address == 0 {
        let peer: u64 = probe(sk + off!(unix_peer));
        address = if peer == 0 { 0 } else { probe(peer + off!(unix_addr)) };
    }
    if address != 0 {
        // The path stands behind the family.
        record.kernel_text(u64::from(tag), address + off!(unix_address_name) + 2);
    }
}

impl Call {
    #[inline(always)]
    fn describe(&mut self, fd: i32) {
        if let Some(file) = self.file(fd) {
            let tags = Tags { facts: tag::FD, path: tag::REALPATH, socket_path: tag::SOCKET_PATH };
            describe(&mut self.record, file, tags);
        }
    }

    /// The `struct sock` behind the descriptor in an argument; 0 when it is no socket.
    #[inline(always)]
    fn sock(&self, index: u32) -> u64 {
        let Some(file) = self.file(self.argument(index) as i32) else { return 0 };
        let inode: u64 = probe(file + off!(file_inode));
        if u32::from(probe::<u16>(inode + off!(inode_mode))) & S_IFMT != S_IFSOCK {
            return 0;
        }
        probe(probe::<u64>(file + off!(file_private)) + off!(socket_sk))
    }

    // ---- sources of parameters

    /// How many connections wait to be accepted at the socket in an argument.
    #[inline(always)]
    pub fn queue_length(&mut self, tag: u64, index: u32) -> bool {
        let sk = self.sock(index);
        self.record.int(tag, if sk == 0 { 0 } else { u64::from(probe::<u32>(sk + off!(sock_backlog))) });
        true
    }

    /// How many may wait.
    #[inline(always)]
    pub fn queue_limit(&mut self, tag: u64, index: u32) -> bool {
        let sk = self.sock(index);
        self.record.int(tag, if sk == 0 { 0 } else { u64::from(probe::<u32>(sk + off!(sock_max_backlog))) });
        true
    }

    /// How full the queue is, in percent.
    #[inline(always)]
    pub fn queue_percent(&mut self, tag: u64, index: u32) -> bool {
        let sk = self.sock(index);
        let (length, limit) = if sk == 0 {
            (0, 0)
        } else {
            (u64::from(probe::<u32>(sk + off!(sock_backlog))), u64::from(probe::<u32>(sk + off!(sock_max_backlog))))
        };
        self.record.int(tag, if limit == 0 { 0 } else { length * 100 / limit });
        true
    }

    /// Inode number of the file behind a descriptor that the call wrote to memory.
    #[inline(always)]
    pub fn user_fd_ino(&mut self, tag: u64, index: u32) -> bool {
        let fd = probe_user::<i32>(self.argument(index)).filter(|_| self.result >= 0);
        let ino = match fd.and_then(|fd| self.file(fd)) {
            Some(file) => probe(probe::<u64>(file + off!(file_inode)) + off!(inode_ino)),
            None => 0,
        };
        self.record.int(tag, ino);
        true
    }

    // ---- facts

    /// What the descriptor in an argument is.
    #[inline(always)]
    pub fn fd(&mut self, index: u32) {
        let fd = self.argument(index) as i32;
        self.describe(fd);
    }

    /// What the descriptor in the result is.
    #[inline(always)]
    pub fn fd_of_ret(&mut self) {
        if self.result >= 0 {
            self.describe(self.result as i32);
        }
    }
}

/// Fills in both ends of a socket.
#[inline(always)]
fn socket(facts: &mut FdFacts, socket: u64, sk: u64) {
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
