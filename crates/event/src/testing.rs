//! Builds records as the kernel programs do: for tests here, for the conformance suites and for the sensor's tests.

use abi::{
    record::{Ancestor, BlockHeader, ExecFacts, FdFacts, Header, OpenFd, kind, tag},
    syscalls::{SYSCALLS, Syscall},
};

use crate::{
    audit::{self, AuditEvent, Surroundings},
    catalogue::EventType,
    decode::{PARAMS, Record, Status},
    event::Event,
    fields::{self, Arg, ArgRule, Subject},
    flags,
    state::{Host, Limits, State},
    value::Arena,
};

/// Does with bytes everything that the sensor does with a record, and reads every field. For property tests and fuzzing:
/// no input may make it panic.
pub fn exercise(bytes: &[u8]) {
    let Ok(record) = Record::decode(bytes) else { return };
    let mut state = State::new(Limits::default(), Host::default());
    state.apply(&record);
    let arena = Arena::new();
    let Some(event) = Event::new(&record, &state, &arena, 1) else { return };
    let anything = [Arg::None, Arg::Index(0), Arg::Index(3), Arg::Index(u32::MAX), Arg::Key("name".into())];
    for field in fields::all() {
        let args = if field.arg == ArgRule::None { &anything[..1] } else { &anything[..] };
        for arg in args {
            let _ = event.field(field, arg);
        }
    }
}

/// Does with a text everything that is done with an event of the audit log, and reads every field. For property tests and
/// fuzzing: no input may make it panic.
pub fn exercise_audit(text: &[u8]) {
    let (arena, surroundings) = (Arena::new(), Surroundings::default());
    // So tight that short texts reach them, too.
    let limits = audit::json::Limits { bytes: 64 << 10, depth: 8, values: 500 };
    let Ok(event) = AuditEvent::parse(text, limits, 1, &surroundings, &arena) else { return };
    let _ = (event.time(), event.level(), event.target());
    let anything = [Arg::None, Arg::Index(0), Arg::Key("/objectRef/name".into()), Arg::Key("/a/0/b~1c".into())];
    for field in fields::all() {
        for arg in &anything {
            let _ = event.field(field, arg);
        }
    }
}

/// Assembles one record. Everything not said is zero, or what a process of the host's root user has.
#[derive(Debug, Clone)]
pub struct Encoder {
    header: Header,
    row: Option<&'static Syscall>,
    seen_as: Option<EventType>,
    ancestors: Vec<Ancestor>,
    blocks: Vec<(u8, Status, Vec<u8>)>,
}

impl Encoder {
    fn new(kind: u16, row: Option<&'static Syscall>) -> Self {
        let header = Header {
            kind,
            flags: 0,
            ancestors: 0,
            time: 1_000_000_000,
            start: 1,
            ret: 0,
            cgroup: 1,
            cap_effective: 0,
            cap_permitted: 0,
            cap_inheritable: 0,
            tgid: 100,
            tid: 100,
            uid: 0,
            gid: 0,
            loginuid: u32::MAX,
            tty: 0,
            sid: 100,
            pgid: 100,
            vpid: 100,
            vtid: 100,
            vsid: 100,
            vpgid: 100,
            comm: [0; 16],
        };
        Self { header, row, seen_as: None, ancestors: Vec::new(), blocks: Vec::new() }
    }

    /// A successful exec.
    pub fn exec() -> Self {
        Self::new(kind::EXEC, None)
    }

    /// A new process.
    pub fn fork() -> Self {
        Self::new(kind::FORK, None)
    }

    /// The end of a process.
    pub fn exit() -> Self {
        Self::new(kind::EXIT, None)
    }

    /// A system call of [`SYSCALLS`].
    ///
    /// # Panics
    /// When there is no such row.
    pub fn syscall(name: &str) -> Self {
        let row = SYSCALLS.iter().position(|row| row.name == name).expect("a row of the table of system calls");
        Self::new(kind::FIRST_SYSCALL + row as u16, Some(&SYSCALLS[row]))
    }

    /// Bytes that carry the parameters of an event type that has no row: of as many parameters as fit into a row. To be
    /// seen through [`Event::of_type`].
    ///
    /// # Panics
    /// When there are no rows at all.
    pub fn carrier(ty: EventType) -> Self {
        let (row, carrier) =
            SYSCALLS.iter().enumerate().max_by_key(|(_, row)| row.params.len()).expect("a table of system calls");
        Self { seen_as: Some(ty), ..Self::new(kind::FIRST_SYSCALL + row as u16, Some(carrier)) }
    }

    /// A parameter whose number is Falco's, as the kernel would have it. A carrier has no room for what is beyond its
    /// own parameters: then it is left out.
    #[must_use]
    pub fn falcos(self, param: &str, value: i64) -> Self {
        let ty = self.event_type();
        let Some((index, info)) = ty.info().params.iter().enumerate().find(|(_, info)| info.name == param) else {
            return self;
        };
        let raw = flags::to_raw(ty.name(), info.ty, value as u64);
        self.falcos_bytes(index, Status::Ok, raw.to_le_bytes())
    }

    /// Any other parameter, by its index among Falco's.
    #[must_use]
    pub fn falcos_bytes(self, index: usize, status: Status, bytes: impl Into<Vec<u8>>) -> Self {
        let room = self.row.map_or(0, |row| row.params.len()).min(PARAMS);
        match u8::try_from(index) {
            Ok(tag) if index < room => self.block(tag, status, bytes),
            _ => self,
        }
    }

    fn event_type(&self) -> EventType {
        let named = || EventType::by_name(self.row?.name);
        self.seen_as.or_else(named).expect("a system call")
    }

    /// Changes anything in the header.
    #[must_use]
    pub fn header(mut self, change: impl FnOnce(&mut Header)) -> Self {
        change(&mut self.header);
        self
    }

    /// Identity of the process; also its thread, session, process group, and its ids in its own namespace.
    #[must_use]
    pub fn process(self, tgid: u32, start: u64) -> Self {
        self.header(|h| {
            h.start = start;
            for id in [&mut h.tgid, &mut h.tid, &mut h.vpid, &mut h.vtid] {
                *id = tgid;
            }
            for id in [&mut h.sid, &mut h.pgid, &mut h.vsid, &mut h.vpgid] {
                *id = tgid;
            }
        })
    }

    /// Time of the event, boot clock in nanoseconds.
    #[must_use]
    pub fn time(self, ns: u64) -> Self {
        self.header(|h| h.time = ns)
    }

    /// Result of the call, also of the parameter that Falco calls `res` or `fd`.
    #[must_use]
    pub fn ret(self, value: i64) -> Self {
        self.header(|h| h.ret = value)
    }

    /// Id of the cgroup.
    #[must_use]
    pub fn cgroup_id(self, id: u64) -> Self {
        self.header(|h| h.cgroup = id)
    }

    /// Name of the thread.
    #[must_use]
    pub fn comm(self, name: &str) -> Self {
        self.header(|h| h.comm = comm(name))
    }

    /// The next ancestor; the first is the parent.
    #[must_use]
    pub fn ancestor(mut self, tgid: u32, start: u64, name: &str) -> Self {
        self.ancestors.push(Ancestor { tgid, reserved: 0, start, comm: comm(name) });
        self
    }

    /// Any block.
    #[must_use]
    pub fn block(mut self, tag: u8, status: Status, bytes: impl Into<Vec<u8>>) -> Self {
        self.blocks.push((tag, status, bytes.into()));
        self
    }

    fn tag_of(&self, param: &str) -> u8 {
        let row = self.row.expect("a system call");
        let index = row.params.iter().position(|name| *name == param);
        u8::try_from(index.expect("a parameter of the row")).expect("few parameters")
    }

    /// An integer parameter.
    ///
    /// # Panics
    /// Here and below: when the system call has no such parameter.
    #[must_use]
    pub fn int(self, param: &str, value: i64) -> Self {
        let tag = self.tag_of(param);
        self.block(tag, Status::Ok, value.to_le_bytes())
    }

    /// A text or path parameter.
    #[must_use]
    pub fn text(self, param: &str, text: impl AsRef<[u8]>) -> Self {
        let tag = self.tag_of(param);
        self.block(tag, Status::Ok, text.as_ref())
    }

    /// A parameter of raw bytes (a socket address), or one that is missing.
    #[must_use]
    pub fn param(self, param: &str, status: Status, bytes: impl Into<Vec<u8>>) -> Self {
        let tag = self.tag_of(param);
        self.block(tag, status, bytes)
    }

    /// The directory that a relative path parameter starts from.
    #[must_use]
    pub fn base(self, param: &str, path: &str) -> Self {
        let tag = tag::BASE | self.tag_of(param);
        self.components(tag, path)
    }

    /// A path as components: leaf first.
    #[must_use]
    pub fn components(self, tag: u8, path: &str) -> Self {
        let mut bytes = Vec::new();
        for name in path.rsplit('/').filter(|name| !name.is_empty()) {
            bytes.push(u8::try_from(name.len()).expect("a short name"));
            bytes.extend_from_slice(name.as_bytes());
        }
        self.block(tag, Status::Ok, bytes)
    }

    /// Something without a path, such as `memfd:x`.
    #[must_use]
    pub fn pseudo(self, tag: u8, name: &str) -> Self {
        let mut bytes = vec![u8::try_from(name.len()).expect("a short name")];
        bytes.extend_from_slice(name.as_bytes());
        self.block(tag, Status::Pseudo, bytes)
    }

    /// Arguments, `argv[0]` first.
    #[must_use]
    pub fn args(self, args: &[&str]) -> Self {
        self.block(tag::ARGS, Status::Ok, strings(args))
    }

    /// Environment.
    #[must_use]
    pub fn env(self, env: &[&str]) -> Self {
        self.block(tag::ENV, Status::Ok, strings(env))
    }

    /// Working directory.
    #[must_use]
    pub fn cwd(self, path: &str) -> Self {
        self.components(tag::CWD, path)
    }

    /// Path of the executable.
    #[must_use]
    pub fn exepath(self, path: &str) -> Self {
        self.components(tag::EXEPATH, path)
    }

    /// Path of the cgroup.
    #[must_use]
    pub fn cgroup(self, path: &str) -> Self {
        self.components(tag::CGROUP, path)
    }

    /// The path given to execve.
    #[must_use]
    pub fn filename(self, path: &str) -> Self {
        self.block(tag::FILENAME, Status::Ok, path)
    }

    /// Facts of an exec.
    #[must_use]
    pub fn exec_facts(self, facts: ExecFacts) -> Self {
        let mut bytes = vec![0; ExecFacts::SIZE];
        facts.encode(&mut bytes).expect("room");
        self.block(tag::EXEC, Status::Ok, bytes)
    }

    /// What the descriptor is.
    #[must_use]
    pub fn fd(self, facts: FdFacts) -> Self {
        let mut bytes = vec![0; FdFacts::SIZE];
        facts.encode(&mut bytes).expect("room");
        self.block(tag::FD, Status::Ok, bytes)
    }

    /// What descriptor 0, 1 or 2 is.
    #[must_use]
    pub fn standard_fd(self, fd: u8, facts: FdFacts) -> Self {
        let mut bytes = vec![0; FdFacts::SIZE];
        facts.encode(&mut bytes).expect("room");
        self.block(tag::STANDARD + fd, Status::Ok, bytes)
    }

    /// The open descriptors.
    #[must_use]
    pub fn open_fds(self, open: &[OpenFd]) -> Self {
        let mut bytes = vec![0; open.len() * OpenFd::SIZE];
        for (open, bytes) in open.iter().zip(bytes.chunks_mut(OpenFd::SIZE)) {
            open.encode(bytes).expect("room");
        }
        self.block(tag::KINDS, Status::Ok, bytes)
    }

    /// The bytes of the record.
    pub fn encode(mut self) -> Vec<u8> {
        self.header.ancestors = u32::try_from(self.ancestors.len()).expect("few ancestors");
        let mut out = vec![0; Header::SIZE];
        self.header.encode(&mut out).expect("room");
        for ancestor in &self.ancestors {
            append(&mut out, Ancestor::SIZE, |bytes| ancestor.encode(bytes));
        }
        for (tag, status, content) in &self.blocks {
            let header = BlockHeader {
                tag_status: u16::from_le_bytes([*tag, status.to_wire()]),
                len: u16::try_from(content.len()).expect("a short block"),
                reserved: 0,
            };
            append(&mut out, BlockHeader::SIZE, |bytes| header.encode(bytes));
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out
    }
}

fn append(out: &mut Vec<u8>, size: usize, write: impl FnOnce(&mut [u8]) -> Option<()>) {
    let at = out.len();
    out.resize(at + size, 0);
    write(&mut out[at..]).expect("room");
}

fn strings(list: &[&str]) -> Vec<u8> {
    list.iter().flat_map(|text| text.bytes().chain([0])).collect()
}

/// A name as the kernel keeps it: at most 15 bytes, NUL-padded.
pub fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    for (to, from) in comm[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    comm
}
