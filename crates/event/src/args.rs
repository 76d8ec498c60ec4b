//! Parameters of one event: their values (`evt.rawarg`), and the text that rules compare (`evt.arg`).
//!
//! Driven by the catalogue: no code per system call, except that an exec has no parameter blocks and is put together
//! from the record and the image.
//!
//! Text comes in two forms. *Raw* is the number or string itself. *Resolved* is what it means (a name of flags, a user,
//! a path made absolute); it may be empty. `evt.arg` is the resolved form unless it is empty; `evt.args` shows both.

use abi::record::tag;

use crate::{
    catalogue::{Category, EventType},
    decode::{Block, Kind, Status},
    descriptor::{AT_FDCWD, Endpoint, SocketAddress},
    errno,
    event::Event,
    fields::time,
    flags,
    params::{Form, ParamType},
    path,
    text::{Text, text},
    value::{Radix, Value},
};

/// What stands for an address that is none.
const NULL: &[u8] = b"NULL";

/// Bytes of a page: exec facts count memory in pages.
pub(crate) const PAGE_KB: u64 = 4;

/// The value of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Param<'a> {
    /// Nothing was collected, or there was nothing to collect.
    Empty,
    /// A signed number.
    Int(i64),
    /// An unsigned number; flags have Falco's values.
    Uint(u64),
    /// A C string.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// Both forms of a parameter's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamText<'a> {
    /// The number or string itself.
    pub raw: &'a [u8],
    /// What it means; empty when that is the same.
    pub resolved: &'a [u8],
}

impl<'a> ParamText<'a> {
    /// What `evt.arg` yields.
    pub fn best(&self) -> &'a [u8] {
        if self.resolved.is_empty() { self.raw } else { self.resolved }
    }

    const fn raw(raw: &'a [u8]) -> Self {
        Self { raw, resolved: b"" }
    }
}

impl<'a> Event<'a> {
    /// Value of the parameter with this index in the event's row; `None` when the row has no such parameter.
    pub fn param(&self, index: usize) -> Option<Param<'a>> {
        let info = self.info().params.get(index)?;
        let special = match self.record.kind {
            Kind::Exec => Some(self.exec_param(info.name)),
            Kind::Exit => Some(self.exit_param(info.name)),
            Kind::Generic(_) => Some(self.argument(index)),
            Kind::Syscall(_) | Kind::Fork => None,
        };
        Some(match special {
            Some(param) => param,
            None => match self.record.param(index) {
                Some(block) => self.block_value(block, info.name, info.ty),
                // A failed exec collects what the caller asked for; the rest is as the caller is.
                None if index > 0 && info.name == "tuple" => self.tuple(),
                None if self.is_failed_exec() => self.exec_param(info.name),
                None if self.is_clone() => self.clone_param(info.name),
                None if (self.info().name, info.name) == ("open_by_handle_at", "path") => {
                    self.kernel_path().map_or(Param::Empty, Param::Text)
                }
                None => Param::Empty,
            },
        })
    }

    fn is_failed_exec(&self) -> bool {
        matches!(self.info().name, "execve" | "execveat")
    }

    fn is_clone(&self) -> bool {
        matches!(self.info().name, "clone" | "clone3" | "fork" | "vfork")
    }

    /// An argument of a call without a row.
    fn argument(&self, index: usize) -> Param<'a> {
        let block = self.record.block(tag::ARGUMENTS);
        let bytes = block.and_then(|block| block.bytes.get(8 * index..8 * index + 8)?.try_into().ok());
        bytes.map_or(Param::Empty, |bytes| Param::Uint(u64::from_le_bytes(bytes)))
    }

    /// Parameters of a new process, which does what its parent did. What is not collected is empty: memory, faults, limits,
    /// `cgroups`, `pidns_init_start_ts`.
    fn clone_param(&self, name: &str) -> Param<'a> {
        let header = &self.record.header;
        match name {
            "exe" => self.image().map_or(Param::Empty, |image| Param::Text(image.exe())),
            "args" => match self.image().map(|image| image.args().0) {
                Some(args) if !args.is_empty() => Param::Bytes(args),
                _ => Param::Empty,
            },
            "vtid" => Param::Int(i64::from(header.vtid)),
            "vpid" => Param::Int(i64::from(header.vpid)),
            "tid" | "pid" | "ptid" | "cwd" | "comm" | "uid" | "gid" => self.exec_param(name),
            _ => Param::Empty,
        }
    }

    fn block_value(&self, block: Block<'a>, name: &str, ty: ParamType) -> Param<'a> {
        let readable = !matches!(block.status, Status::Fault | Status::Null);
        let param = match ty.form() {
            Form::Text => block.text().map(Param::Text),
            Form::Bytes => (readable && !block.bytes.is_empty()).then_some(Param::Bytes(block.bytes)),
            Form::Signed => block.int().map(|raw| Param::Int(raw as i64)),
            Form::Unsigned => block.int().map(|raw| Param::Uint(self.falcos_number(raw, name, ty))),
        };
        param.unwrap_or(Param::Empty)
    }

    /// Falco's number for the kernel's.
    fn falcos_number(&self, raw: u64, name: &str, ty: ParamType) -> u64 {
        let event = self.info().name;
        // The type of a socket comes with flags.
        if name == "type" && matches!(event, "socket" | "socketpair") {
            raw & 0xf
        } else {
            flags::falcos_number(event, ty, raw)
        }
    }

    /// Both ends of the connection, as text: nothing compares its bytes. First comes the end that the data come from.
    fn tuple(&self) -> Param<'a> {
        let open = self.descriptor().and_then(|descriptor| descriptor.open.as_ref());
        let ends = open.and_then(|open| Some((open.connection?.local, open.connection?.remote?)));
        match (self.info().category, ends) {
            (Category::IoRead, Some((local, remote))) => return Param::Bytes(self.arrow(remote, local)),
            (Category::IoWrite, Some((local, remote))) => return Param::Bytes(self.arrow(local, remote)),
            _ => {}
        }
        match open.map(|open| self.name_of(open)) {
            Some(name) if !name.is_empty() => Param::Bytes(name),
            _ => Param::Empty,
        }
    }

    fn arrow(&self, from: Endpoint, to: Endpoint) -> &'a [u8] {
        text!(self.arena(), "{}:{}->{}:{}", from.ip, from.port, to.ip, to.port)
    }

    /// Parameters of an exec. What is not collected is empty: `vm_rss`, `vm_swap`, `cgroups`.
    fn exec_param(&self, name: &str) -> Param<'a> {
        let header = &self.record.header;
        let failed = self.failed();
        let image = self.image();
        let facts = if failed { None } else { image.and_then(|image| image.facts) };
        let uint = |value: Option<u64>| value.map_or(Param::Empty, Param::Uint);
        let pid = |value: u32| Param::Int(i64::from(value));
        match name {
            "res" => Param::Int(header.ret),
            "exe" => self.exec_argv().map_or(Param::Empty, |mut argv| Param::Text(argv.next().unwrap_or_default())),
            "args" => match self.exec_argv() {
                Some(mut argv) => {
                    argv.next();
                    if argv.0.is_empty() { Param::Empty } else { Param::Bytes(argv.0) }
                }
                None => Param::Empty,
            },
            "tid" => pid(header.tid),
            "pid" => pid(header.tgid),
            "ptid" => self.record.parent().map_or(Param::Int(0), |parent| pid(parent.tgid)),
            // Falco sends it empty: the working directory is not part of the event.
            "cwd" => Param::Text(b""),
            "fdlimit" => uint(facts.map(|facts| facts.fdlimit)),
            "pgft_maj" => uint(facts.map(|facts| facts.pgft_maj)),
            "pgft_min" => uint(facts.map(|facts| facts.pgft_min)),
            "vm_size" => uint(facts.map(|facts| facts.vm_pages.saturating_mul(PAGE_KB))),
            "comm" => Param::Text(self.comm()),
            "env" => match image.and_then(|image| image.env()) {
                Some(env) if !failed && !env.0.is_empty() => Param::Bytes(env.0),
                _ => Param::Empty,
            },
            "tty" => Param::Uint(u64::from(header.tty)),
            "vpgid" => pid(header.vpgid),
            "loginuid" => Param::Uint(u64::from(header.loginuid)),
            "flags" => match (facts, image) {
                (Some(facts), Some(image)) => Param::Uint(flags::execve_flags(facts.flags, image.memfd)),
                _ => Param::Empty,
            },
            "cap_inheritable" => Param::Uint(header.cap_inheritable),
            "cap_permitted" => Param::Uint(header.cap_permitted),
            "cap_effective" => Param::Uint(header.cap_effective),
            "exe_ino" => uint(facts.map(|facts| facts.ino)),
            "exe_ino_ctime" => uint(facts.map(|facts| facts.ctime)),
            "exe_ino_mtime" => uint(facts.map(|facts| facts.mtime)),
            "uid" => Param::Uint(u64::from(header.uid)),
            "trusted_exepath" => {
                image.map(|image| image.exepath()).filter(|p| !p.is_empty()).map_or(Param::Empty, Param::Text)
            }
            "pgid" => pid(header.pgid),
            "gid" => Param::Uint(u64::from(header.gid)),
            "filename" => self.record.block(tag::FILENAME).and_then(|b| b.text()).map_or(Param::Empty, Param::Text),
            _ => Param::Empty,
        }
    }

    /// Arguments that the exec was called with.
    fn exec_argv(&self) -> Option<crate::state::Strings<'a>> {
        let block =
            self.record.block(tag::ARGS).filter(|block| block.status != Status::Fault || !block.bytes.is_empty())?;
        Some(crate::state::Strings(block.bytes))
    }

    /// Parameters of a process's end, from the exit code (`wait(2)`). Who adopts the children is not collected.
    fn exit_param(&self, name: &str) -> Param<'a> {
        let code = self.record.header.ret;
        match name {
            "status" => Param::Int(code),
            "ret" => Param::Int(if code & 0x7f == 0 { code >> 8 & 0xff } else { 0 }),
            "sig" => Param::Uint((code & 0x7f) as u64),
            "core" => Param::Uint((code >> 7 & 1) as u64),
            _ => Param::Empty,
        }
    }

    /// Text of the parameter with this index; `None` when the event's row has no such parameter.
    pub fn param_text(&self, index: usize) -> Option<ParamText<'a>> {
        let info = self.info().params.get(index)?;
        let param = self.param(index)?;
        let arena = self.arena();
        Some(match (info.ty, param) {
            (ty, Param::Empty) => ParamText::raw(ty.empty_text()),
            (ParamType::Path | ParamType::RelPath { .. }, Param::Text(name)) => {
                let relative =
                    !name.is_empty() && !name.starts_with(b"/") && matches!(self.record.kind, Kind::Syscall(_));
                let resolved = if relative { path::join(self.base_of(index), name, arena) } else { b"" };
                ParamText { raw: name, resolved }
            }
            (_, Param::Text(text)) => ParamText::raw(text),
            (ParamType::SockAddr, Param::Bytes(bytes)) => ParamText::raw(self.address_text(bytes)),
            (ParamType::SockTuple, Param::Bytes(name)) => ParamText::raw(name),
            (_, Param::Bytes(bytes)) => ParamText::raw(self.printable(bytes)),
            (ty, Param::Int(value)) => self.signed_text(index, ty, info.radix, value),
            (ty, Param::Uint(value)) => self.unsigned_text(ty, info.radix, value),
        })
    }

    fn signed_text(&self, index: usize, ty: ParamType, radix: Radix, value: i64) -> ParamText<'a> {
        let arena = self.arena();
        let raw = match radix {
            Radix::Hex => text!(arena, "{value:X}"),
            Radix::Octal | Radix::Decimal => text!(arena, "{value}"),
        };
        let resolved: &'a [u8] = match ty {
            ParamType::Errno => errno::name(value).map_or(b"", str::as_bytes),
            ParamType::Fd if value == i64::from(AT_FDCWD) => b"AT_FDCWD",
            ParamType::Fd if value < 0 => errno::name(value).map_or(b"", str::as_bytes),
            ParamType::Fd => self.shown_descriptor(index, value),
            ParamType::Pid => self.pid_name(value),
            // Numbers that mean nothing but themselves; unsigned types do not come here.
            ParamType::Int(_)
            | ParamType::Uid
            | ParamType::Gid
            | ParamType::Uint(_)
            | ParamType::Text
            | ParamType::Bytes
            | ParamType::Path
            | ParamType::RelPath { .. }
            | ParamType::Flags(_)
            | ParamType::Enum(_)
            | ParamType::Mode(_)
            | ParamType::SockAddr
            | ParamType::SockTuple
            | ParamType::AbsTime
            | ParamType::RelTime
            | ParamType::Signal
            | ParamType::SignalSet
            | ParamType::TextList
            | ParamType::TextPairs
            | ParamType::Port
            | ParamType::FdList
            | ParamType::Ipv4
            | ParamType::Ipv6
            | ParamType::SyscallId
            | ParamType::Dynamic => b"",
        };
        ParamText { raw, resolved }
    }

    fn pid_name(&self, pid: i64) -> &'a [u8] {
        let header = &self.record.header;
        if pid == i64::from(header.tid) {
            return self.comm();
        }
        match self.record.parent() {
            Some(parent) if pid == i64::from(parent.tgid) => self.record.ancestor_comm(0).unwrap_or_default(),
            _ => u32::try_from(pid).ok().and_then(|pid| self.by_pid(pid)).map_or(b"", |process| process.name()),
        }
    }

    /// `<f>name` of a descriptor that this event tells about: its own, those it was copied from or to, and directories.
    fn shown_descriptor(&self, index: usize, fd: i64) -> &'a [u8] {
        let directory = self
            .info()
            .params
            .iter()
            .position(|param| matches!(param.ty, ParamType::RelPath { dirfd } if usize::from(dirfd) == index));
        if let Some(path_index) = directory {
            return match self.record.base(path_index) {
                Some(block) => {
                    let mut out = Text::new(self.arena());
                    out.push(b"<d>").push(path::spell(block, self.arena()));
                    out.finish()
                }
                None => b"",
            };
        }
        let Some(descriptor) = self.descriptor() else { return b"" };
        let copied = self.info().params.get(index).is_some_and(|param| matches!(param.name, "oldfd" | "newfd"));
        match &descriptor.open {
            Some(open) if copied || descriptor.num == fd => self.show(open),
            _ => b"",
        }
    }

    fn unsigned_text(&self, ty: ParamType, radix: Radix, value: u64) -> ParamText<'a> {
        let arena = self.arena();
        let mut resolved = Text::new(arena);
        let mut radix = radix;
        match ty {
            ParamType::Flags(set) => {
                // Falco prints the number of flags in decimal whatever the row says.
                radix = Radix::Decimal;
                flags::write_flags(&mut resolved, set, value);
            }
            ParamType::Enum(set) => {
                radix = Radix::Decimal;
                flags::write_enum(&mut resolved, set, value);
            }
            ParamType::Mode(set) => flags::write_mode(&mut resolved, set, value),
            ParamType::Uid | ParamType::Gid if value as u32 == u32::MAX => {
                return ParamText { raw: b"-1", resolved: b"<NONE>" };
            }
            ParamType::Uid => {
                resolved.push(self.users().user_name(value as u32));
            }
            ParamType::Gid => {
                resolved.push(self.users().group_name(value as u32));
            }
            ParamType::Signal => {
                resolved.push(flags::signal_name(value).unwrap_or_default().as_bytes());
            }
            ParamType::AbsTime => {
                return ParamText::raw(time::date_time(arena, value, self.state.host.utc_offset_s, true));
            }
            // Numbers that mean nothing but themselves; signed types do not come here.
            ParamType::Errno
            | ParamType::Fd
            | ParamType::Pid
            | ParamType::Int(_)
            | ParamType::Uint(_)
            | ParamType::Text
            | ParamType::Bytes
            | ParamType::Path
            | ParamType::RelPath { .. }
            | ParamType::SockAddr
            | ParamType::SockTuple
            | ParamType::RelTime
            | ParamType::SignalSet
            | ParamType::TextList
            | ParamType::TextPairs
            | ParamType::Port
            | ParamType::FdList
            | ParamType::Ipv4
            | ParamType::Ipv6
            | ParamType::SyscallId
            | ParamType::Dynamic => {}
        }
        let raw = match radix {
            Radix::Decimal => text!(arena, "{value}"),
            Radix::Hex => text!(arena, "{value:X}"),
            Radix::Octal if value == 0 => b"0",
            Radix::Octal => text!(arena, "0{value:o}"),
        };
        ParamText { raw, resolved: resolved.finish() }
    }

    fn address_text(&self, bytes: &'a [u8]) -> &'a [u8] {
        match SocketAddress::parse(bytes) {
            None => NULL,
            Some(SocketAddress::Internet(end)) => text!(self.arena(), "{}:{}", end.ip, end.port),
            Some(SocketAddress::Unix(path)) => path,
            Some(SocketAddress::Other(family)) => text!(self.arena(), "family {family}"),
        }
    }

    /// Bytes with a dot for each that cannot be printed.
    fn printable(&self, bytes: &[u8]) -> &'a [u8] {
        let out = self.arena().alloc_slice_copy(bytes);
        for byte in out.iter_mut().filter(|byte| !(0x20..0x7f).contains(*byte)) {
            *byte = b'.';
        }
        out
    }

    /// Every parameter as `name=raw(resolved)`: Falco's `evt.args`.
    pub fn all_params(&self) -> &'a [u8] {
        let mut out = Text::new(self.arena());
        for (index, info) in self.info().params.iter().enumerate() {
            let Some(param) = self.param_text(index) else { continue };
            out.push_separated(b" ", info.name.as_bytes());
            out.push(b"=").push(param.raw);
            if !param.resolved.is_empty() {
                out.push(b"(").push(param.resolved).push(b")");
            }
        }
        out.finish()
    }

    /// A parameter in its own type: Falco's `evt.rawarg`. `None` for an empty number; empty text is `<NA>`.
    pub fn raw_param(&self, index: usize) -> Option<Value<'a>> {
        let info = self.info().params.get(index)?;
        match self.param(index)? {
            Param::Int(value) => Some(Value::Int(value)),
            Param::Uint(value) => Some(Value::Uint(value)),
            Param::Text(text) => Some(Value::Text(text)),
            Param::Bytes(bytes) => Some(Value::Bytes(bytes)),
            Param::Empty => info.ty.empty_raw().map(Value::Text),
        }
    }
}

/// Index of a parameter, by name, in an event's row.
pub fn param_index(ty: EventType, name: &str) -> Option<usize> {
    ty.info().params.iter().position(|param| param.name == name)
}
