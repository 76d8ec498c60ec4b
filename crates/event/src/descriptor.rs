//! The descriptor that an event is about: what it is, its name, both ends of a socket.
//!
//! Falco keeps a table of descriptors; we ask the kernel at the event instead ([`FdFacts`]), and for opens and `socket`
//! read the call itself. Where Falco has no entry (a failed open), it makes up what it can from the arguments; so do we.

mod address;
mod kind;
mod layout;

use std::cell::OnceCell;

use abi::record::{FdFacts, fd_flag, flag, tag};

pub(crate) use self::address::SocketAddress;
use self::address::{AF_INET, AF_INET6};
use self::layout::{Call, Layout};
pub use self::{
    address::{Connection, Endpoint},
    kind::{FdKind, Transport},
};
use crate::{
    catalogue::FdUse,
    decode::{Block, Kind, Status},
    errno::EINPROGRESS,
    event::Event,
    fields::Subject,
    flags::{self, open},
    params::ParamType,
    path,
    text::text,
};

/// "The working directory" in place of a directory's descriptor.
pub(crate) const AT_FDCWD: i32 = -100;

/// The descriptor of an event.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor<'a> {
    /// Number; -1 after a call that did not get one.
    pub num: i64,
    /// What it is; `None` when there is none, because the call failed, or nothing is known about it.
    pub open: Option<OpenFile<'a>>,
}

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy)]
pub struct OpenFile<'a> {
    /// What it is.
    pub kind: FdKind,
    /// Falco's name of it, or what it is made of: see [`Event::name_of`].
    pub name: Name<'a>,
    /// The path as it was passed, when the event says.
    pub raw_name: Option<&'a [u8]>,
    /// Transport protocol of an internet socket.
    pub transport: Transport,
    /// Both ends of an internet socket that has any.
    pub connection: Option<Connection>,
    /// Whether the kernel knows another end of the socket.
    pub connected: bool,
    /// Device of the inode in the form of /proc and `stat`; `None` for what has no inode that matters.
    pub dev: Option<u32>,
    /// Inode number.
    pub ino: Option<u64>,
    /// Whether it lies in the upper layer of an overlay file system.
    pub upper_layer: bool,
    /// Whether it lies in a lower layer.
    pub lower_layer: bool,
}

/// A name, put together only when somebody asks.
#[derive(Debug, Clone, Copy)]
pub enum Name<'a> {
    /// This.
    Given(&'a [u8]),
    /// The path that was passed to an open, joined and normalised.
    Opened,
    /// Both ends of its connection.
    Ends,
    /// That of a pipe, with its inode.
    Pipe,
}

impl<'a> OpenFile<'a> {
    fn new(kind: FdKind, name: &'a [u8]) -> Self {
        Self {
            kind,
            name: Name::Given(name),
            raw_name: None,
            transport: Transport::None,
            connection: None,
            connected: false,
            dev: None,
            ino: None,
            upper_layer: false,
            lower_layer: false,
        }
    }
}

/// The form of `stat` of a device in the kernel's own form (`major << 20 | minor`).
fn encode_device(dev: u32) -> u32 {
    let (major, minor) = (dev >> 20, dev & 0xf_ffff);
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// Major number of a device in the form of `stat`.
pub(crate) fn major(dev: u32) -> u32 {
    dev >> 8 & 0xfff
}

/// Minor number of a device in the form of `stat`.
pub(crate) fn minor(dev: u32) -> u32 {
    dev & 0xff | dev >> 12 & 0xf_ff00
}

/// A file with what the kernel says about its inode.
fn placed<'a>(file: OpenFile<'a>, facts: &FdFacts) -> OpenFile<'a> {
    OpenFile {
        dev: Some(encode_device(facts.dev)),
        ino: Some(facts.ino),
        upper_layer: facts.flags & fd_flag::UPPER_LAYER != 0,
        lower_layer: facts.flags & fd_flag::LOWER_LAYER != 0,
        ..file
    }
}

/// A socket with what the kernel says about it.
fn socket_file<'a>(facts: &FdFacts, connection: Option<Connection>, name: Name<'a>) -> OpenFile<'a> {
    let kind = match connection {
        Some(connection) if connection.local.ip.is_ipv4() => FdKind::Ipv4,
        _ => FdKind::of_family(facts.family),
    };
    let transport = if matches!(facts.family, AF_INET | AF_INET6) {
        Transport::of(facts.sock_type, facts.protocol)
    } else {
        Transport::None
    };
    let connected = Endpoint::new(facts.family, facts.remote_addr, facts.remote_port).is_some_and(|end| end.is_set());
    OpenFile { name, transport, connection, connected, ..OpenFile::new(kind, b"") }
}

/// What has been found out about an event's descriptor: several fields ask, and the answer is the same.
#[derive(Debug, Default)]
pub(crate) struct Memo<'a> {
    descriptor: OnceCell<Option<Descriptor<'a>>>,
    name: OnceCell<Option<&'a [u8]>>,
    open_flags: OnceCell<u64>,
}

impl<'a> Event<'a> {
    fn layout(&self) -> &'static Layout {
        Layout::of(self.event_type())
    }

    fn call(&self) -> Call {
        self.layout().call
    }

    /// `<4t>name`, the form in which Falco shows a descriptor among arguments.
    pub(crate) fn show(&self, file: &OpenFile<'a>) -> &'a [u8] {
        let mut out = crate::text::Text::new(self.arena());
        out.push(b"<").push(file.kind.letter().as_bytes());
        if matches!(file.kind, FdKind::Ipv4 | FdKind::Ipv6) {
            out.push(file.transport.letter().as_bytes());
        }
        out.push(b">").push(self.name_of(file));
        out.finish()
    }

    /// Falco's name of what a descriptor stands for.
    pub fn name_of(&self, file: &OpenFile<'a>) -> &'a [u8] {
        match file.name {
            Name::Given(name) => name,
            Name::Opened => self.descriptor_name().unwrap_or_default(),
            Name::Ends => file.connection.map_or(&[], |connection| connection.name(self.arena())),
            Name::Pipe => text!(self.arena(), "pipe:[{}]", file.ino.unwrap_or_default()),
        }
    }

    /// Whether this event gave the descriptor its name.
    pub fn names_descriptor(&self) -> bool {
        match self.call() {
            Call::Open | Call::Accept => !self.failed(),
            Call::Connect => self.connects(),
            Call::Datagram => !self.failed() && self.state.other_end_changed(),
            Call::Other => !self.failed() && matches!(self.info().name, "open_by_handle_at" | "memfd_create"),
            Call::Socket | Call::Serve => false,
        }
    }

    /// Whether this is a connect that was made or is being made.
    pub fn connects(&self) -> bool {
        self.call() == Call::Connect && self.result().is_some_and(|ret| ret >= 0 || ret == -EINPROGRESS)
    }

    /// The descriptor that the event is about; `None` for events about none.
    pub fn descriptor(&self) -> Option<&Descriptor<'a>> {
        self.memo.descriptor.get_or_init(|| self.find_descriptor()).as_ref()
    }

    fn find_descriptor(&self) -> Option<Descriptor<'a>> {
        let num = match self.info().fd {
            FdUse::None => return None,
            FdUse::Creates => self.created()?,
            // The number that was given to an io_uring is not known when it has done its work.
            FdUse::Uses if self.record.has(flag::RING) => -1,
            FdUse::Uses => self.fd_param()?,
        };
        let open = match self.call() {
            Call::Open => (!self.failed()).then(|| self.opened_file()),
            Call::Socket => (!self.failed()).then(|| self.created_socket()),
            Call::Connect => self.record.fd().map(|facts| self.described(&facts)),
            Call::Accept | Call::Serve | Call::Datagram | Call::Other => match self.record.fd() {
                Some(facts) => Some(self.renamed(self.described(&facts))),
                None => self.given_directory(),
            },
        };
        Some(Descriptor { num, open })
    }

    /// The descriptor that the call made; of two, the second, as in Falco.
    fn created(&self) -> Option<i64> {
        match self.info().name {
            "pipe" | "pipe2" | "socketpair" if !self.failed() => {
                Some(self.record.param(self.param_named("fd2")?)?.int()? as i64)
            }
            _ => Some(self.record.header.ret.max(-1)),
        }
    }

    /// Name of the descriptor; after a failed call, the name it would have had.
    pub fn descriptor_name(&self) -> Option<&'a [u8]> {
        if self.opens() {
            return *self.memo.name.get_or_init(|| Some(self.opened_path()));
        }
        *self.memo.name.get_or_init(|| {
            let descriptor = self.descriptor()?;
            Some(descriptor.open.as_ref().map_or(b"", |open| self.name_of(open)))
        })
    }

    /// The path passed to an open, as it was passed.
    pub fn opened_raw(&self) -> Option<&'a [u8]> {
        self.record.param(self.layout().path?)?.text()
    }

    fn fd_param(&self) -> Option<i64> {
        Some(self.int_at(self.layout().fd)? as i64)
    }

    fn int_at(&self, index: Option<usize>) -> Option<u64> {
        self.record.param(index?)?.int()
    }

    /// The path of an open, joined and normalised.
    fn opened_path(&self) -> &'a [u8] {
        self.layout().path.and_then(|index| self.full_path(index)).unwrap_or_default()
    }

    /// The kernel's own path of the file that the event is about.
    pub(crate) fn kernel_path(&self) -> Option<&'a [u8]> {
        Some(path::spell(self.record.block(tag::REALPATH)?, self.arena()))
    }

    /// The directory that the path in a parameter starts from.
    pub(crate) fn base_of(&self, index: usize) -> &'a [u8] {
        match self.record.base(index) {
            Some(block) => path::spell(block, self.arena()),
            None => match self.info().params.get(index).map(|param| param.ty) {
                Some(ParamType::RelPath { dirfd }) => match self.record.param(usize::from(dirfd)).and_then(|b| b.int())
                {
                    Some(fd) if fd as i32 == AT_FDCWD => self.cwd().unwrap_or(path::UNKNOWN),
                    _ => path::UNKNOWN,
                },
                _ => self.cwd().unwrap_or(path::UNKNOWN),
            },
        }
    }

    /// A path parameter joined to its base and normalised.
    pub(crate) fn full_path(&self, index: usize) -> Option<&'a [u8]> {
        let Some(name) = self.record.param(index).and_then(|block| block.text()) else {
            // Of what an io_uring opened, only the kernel's own path is known.
            return self.record.has(flag::RING).then(|| self.kernel_path()).flatten();
        };
        if name.starts_with(b"/") {
            return Some(path::join(b"/", name, self.arena()));
        }
        Some(path::join(self.base_of(index), name, self.arena()))
    }

    /// The flags that an open was given; creat is given none.
    fn raw_open_flags(&self) -> Option<u64> {
        self.int_at(self.layout().open_flags)
    }

    /// Whether an open asks for this access ([`open::RDONLY`], [`open::WRONLY`]). Falco does not look at creat here.
    pub(crate) fn opens_for(&self, access: u64) -> bool {
        self.raw_open_flags().is_some_and(|raw| flags::open_access(raw) & access != 0)
    }

    /// Whether the event is a call that opens by path: what is asked most of it needs no [`Descriptor`].
    pub(crate) fn opens(&self) -> bool {
        self.call() == Call::Open
    }

    /// What an open opens, as its flags say.
    pub(crate) fn opened_kind(&self) -> FdKind {
        let directory = self.raw_open_flags().is_some_and(flags::opens_directory);
        if directory { FdKind::Directory } else { FdKind::File }
    }

    fn opened_file(&self) -> OpenFile<'a> {
        let flags = self.open_flags();
        let layout = self.layout();
        OpenFile {
            name: Name::Opened,
            raw_name: self.opened_raw(),
            dev: self.int_at(layout.dev).map(|dev| dev as u32),
            ino: self.int_at(layout.ino),
            upper_layer: flags & open::UPPER_LAYER != 0,
            lower_layer: flags & open::LOWER_LAYER != 0,
            ..OpenFile::new(self.opened_kind(), b"")
        }
    }

    fn created_socket(&self) -> OpenFile<'a> {
        let int = |index| self.record.param(index).and_then(|block| block.int()).unwrap_or_default();
        let (family, sock_type, protocol) = (int(1) as u16, int(2) as u16, int(3) as u16);
        let kind = FdKind::of_family(family);
        let transport = if matches!(kind, FdKind::Ipv4 | FdKind::Ipv6) {
            Transport::of(sock_type, protocol)
        } else {
            Transport::None
        };
        OpenFile { transport, ..OpenFile::new(kind, b"") }
    }

    /// Calls that name what they make: the name of a file in memory is the one that was asked for, and the path of a
    /// handle is as the call's own parameter shows it.
    fn renamed(&self, file: OpenFile<'a>) -> OpenFile<'a> {
        let text = |name| self.record.param(self.param_named(name)?)?.text();
        let name = match self.info().name {
            "memfd_create" => text("name"),
            "open_by_handle_at" => text("path").map(|path| match path.starts_with(b"/") {
                true => path::join(b"/", path, self.arena()),
                false => ParamType::Path.empty_text(),
            }),
            _ => None,
        };
        OpenFile { name: name.map_or(file.name, Name::Given), ..file }
    }

    /// The directory whose descriptor the call was given, when it is known because a path starts there.
    fn given_directory(&self) -> Option<OpenFile<'a>> {
        let mut params = self.info().params.iter().enumerate();
        let (index, _) = params.find(|(_, param)| matches!(param.ty, ParamType::RelPath { .. }))?;
        if self.fd_param()? == i64::from(AT_FDCWD) {
            return None;
        }
        Some(OpenFile::new(FdKind::Directory, path::spell(self.record.base(index)?, self.arena())))
    }

    /// What the kernel said about the descriptor of the event.
    fn described(&self, facts: &FdFacts) -> OpenFile<'a> {
        let is_socket = facts.flags & fd_flag::SOCKET != 0;
        let file =
            if is_socket { self.socket(facts) } else { self.named_file(facts, self.record.block(tag::REALPATH)) };
        placed(file, facts)
    }

    /// What descriptor 0, 1 or 2 of the process is; `None` when it is not open, or no rule asked.
    pub fn standard_fd(&self, fd: u8) -> Option<OpenFile<'a>> {
        let facts = self.record.standard_fd(fd)?;
        if facts.flags & fd_flag::SOCKET == 0 {
            return Some(placed(self.named_file(&facts, self.record.block(tag::STANDARD_PATH + fd)), &facts));
        }
        let path = self.record.block(tag::STANDARD_SOCKET_PATH + fd).and_then(|block| block.text());
        let connection = Connection::of(&facts, || None);
        let name = if connection.is_some() { Name::Ends } else { Name::Given(path.unwrap_or_default()) };
        Some(placed(socket_file(&facts, connection, name), &facts))
    }

    /// The kinds of the open descriptors of the process by number, the highest first; `None` when no rule asked.
    pub fn open_kinds(&self) -> Option<impl Iterator<Item = (u32, FdKind)> + use<'a>> {
        Some(self.record.open_fds()?.rev().map(|open| (open.fd, FdKind::of_open_fd(&open))))
    }

    fn named_file(&self, facts: &FdFacts, path: Option<Block<'a>>) -> OpenFile<'a> {
        let Some(block) = path else {
            return OpenFile::new(FdKind::of_mode(facts.mode), b"");
        };
        let name = path::spell(block, self.arena());
        match (block.status, FdKind::of_mode(facts.mode)) {
            (Status::Pseudo, FdKind::Pipe) => OpenFile { name: Name::Pipe, ..OpenFile::new(FdKind::Pipe, b"") },
            (Status::Pseudo, _) => OpenFile::new(FdKind::of_pseudo(name), name),
            (_, kind) => OpenFile::new(kind, name),
        }
    }

    fn socket(&self, facts: &FdFacts) -> OpenFile<'a> {
        let connects = self.call() == Call::Connect;
        // A connect that failed leaves no remote port behind, unless the socket was connected before.
        let nowhere = connects && !self.connects() && facts.remote_port == 0;
        let connection = if nowhere { None } else { self.connection(facts) };
        let name = match connection {
            Some(_) => Name::Ends,
            None if connects && self.connects() => Name::Given(self.unix_path().unwrap_or_default()),
            None if connects => Name::Given(b""),
            None => Name::Given(self.unix_name()),
        };
        socket_file(facts, connection, name)
    }

    /// Path of a Unix socket: as the kernel knows it, else the one that a datagram went to.
    fn unix_name(&self) -> &'a [u8] {
        let known = self.record.block(tag::SOCKET_PATH).and_then(|block| block.text()).filter(|path| !path.is_empty());
        known.or_else(|| self.given_address()?.unix()).unwrap_or_default()
    }

    /// The other end that a send or receive names.
    fn given_address(&self) -> Option<SocketAddress<'a>> {
        SocketAddress::parse(self.record.block(tag::ADDRESS)?.bytes)
    }

    /// Both ends of an internet socket. The kernel's socket does not say who began: for a connect it is us.
    fn connection(&self, facts: &FdFacts) -> Option<Connection> {
        // A connect that is under way, or one of a datagram socket in an old kernel: the call says where to.
        let given = || if self.connects() { self.connect_address() } else { None };
        let connection = Connection::of(facts, || given().or_else(|| self.given_address()?.endpoint()))?;
        Some(match self.call() {
            Call::Connect => Connection { is_server: false, ..connection },
            Call::Accept | Call::Serve => Connection { is_server: true, ..connection },
            Call::Open | Call::Socket | Call::Datagram | Call::Other => connection,
        })
    }

    /// Address passed to connect.
    fn connect_address(&self) -> Option<Endpoint> {
        let bytes = self.record.param(self.param_named("addr")?)?.bytes;
        SocketAddress::parse(bytes)?.endpoint()
    }

    fn unix_path(&self) -> Option<&'a [u8]> {
        SocketAddress::parse(self.record.param(self.param_named("addr")?)?.bytes)?.unix()
    }

    /// Index of a parameter of the event's row.
    pub(crate) fn param_named(&self, name: &str) -> Option<usize> {
        self.info().params.iter().position(|param| param.name == name)
    }

    /// Falco's open flags of an open; 0 for other events.
    pub fn open_flags(&self) -> u64 {
        *self.memo.open_flags.get_or_init(|| self.find_open_flags())
    }

    fn find_open_flags(&self) -> u64 {
        if let Some(raw) = self.raw_open_flags() {
            return flags::open_flags(raw);
        }
        if self.info().name != "creat" {
            return 0;
        }
        let given = self.param_named("creat_flags").and_then(|index| self.record.param(index)?.int());
        given.map_or(0, |raw| flags::open_flags(raw) & !open::RDONLY) | open::WRONLY | open::CREAT
    }

    /// Whether only the kernel's record of a process exists: a record of kind exec or a system call.
    pub(crate) fn is_syscall(&self) -> bool {
        matches!(self.record.kind, Kind::Exec | Kind::Syscall(_) | Kind::Generic(_))
    }
}
