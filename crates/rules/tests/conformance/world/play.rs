//! One event of a case → one record: parameters with Falco's numbers become the kernel's, and what else the kernel would
//! know of it is added.

use abi::{record::tag, syscalls::SYSCALLS};
use event::{
    catalogue::{EventType, FdUse, Origin},
    decode::Status,
    params::{Form, ParamType},
    path,
    testing::Encoder,
    value::Arena,
};
use serde_json::Value as Json;

use super::{
    Played, World,
    fds::{self, Open, components, pseudo_of},
    given::{Given, symbol},
    tasks::Task,
};

const AT_FDCWD: i64 = -100;
const EINPROGRESS: i64 = 115;
const CLONE_THREAD: i64 = 1 << 27;

impl World {
    /// Plays an event; `None` for the beginning of a call, which is no event here.
    pub(super) fn event(&mut self, name: &str, step: &Json) -> Option<Played> {
        let ty = EventType::by_name(name)?;
        let tid = Given::of(&step["tid"], &self.names).number().unwrap_or_default();
        let begins = step["dir"] == "enter" && matches!(ty.info().origin, Origin::Syscall | Origin::Generic);
        if begins {
            self.begun.insert((tid, name.to_owned()), step["params"].clone());
            return None;
        }
        let params: Vec<(&str, Given)> = ty
            .info()
            .params
            .iter()
            .map(|param| (param.name, Given::of(&step["params"][param.name], &self.names)))
            .collect();
        let call = Call { ty, tid, params };
        match name {
            "execve" | "execveat" => self.exec(&call),
            "clone" | "clone3" | "fork" | "vfork" => {
                self.cloned(&call);
                self.called(&call)
            }
            "procexit" => {
                let task = self.task(tid);
                let record = self.who(Encoder::exit(), &task);
                Some(self.played(record.ret(call.number("status").unwrap_or_default()), ty, call.is_unstated()))
            }
            _ => self.called(&call),
        }
    }

    fn called(&mut self, call: &Call<'_>) -> Option<Played> {
        self.change_task(call);
        self.change_fds(call);
        let task = self.task(call.tid);
        let name = call.ty.name();
        let has_row = SYSCALLS.iter().any(|row| row.name == name && row.params.len() == call.params.len());
        let record = if has_row { Encoder::syscall(name) } else { Encoder::carrier(call.ty) };
        let mut record = components(self.who(record, &task), tag::CWD, &task.cwd).ret(call.result());
        for (index, (param, value)) in call.params.iter().enumerate() {
            record = self.param(record, call, index, param, value);
        }
        let described = match call.ty.info().fd {
            FdUse::None => None,
            FdUse::Creates => self.fd(task.pid, call.created()),
            FdUse::Uses => call.fd_param().and_then(|fd| self.fd(task.pid, fd)),
        };
        // What an open or a socket call makes, the record says itself.
        if let Some(open) = described.filter(|_| !matches!(name, "open" | "openat" | "openat2" | "creat" | "socket")) {
            record = open.describe(record);
        }
        let record = self.kinds(self.standard(record, task.pid), task.pid);
        Some(self.played(record, call.ty, call.is_unstated() || task.is_unstated))
    }

    fn param(&self, record: Encoder, call: &Call<'_>, index: usize, name: &str, value: &Given) -> Encoder {
        let ty = call.ty.info().params[index].ty;
        match value {
            Given::Number(number) => record.falcos(name, *number),
            Given::Text(bytes) | Given::Bytes(bytes) => {
                let record = record.falcos_bytes(index, Status::Ok, bytes.clone());
                let is_path = matches!(ty, ParamType::Path | ParamType::RelPath { .. });
                if is_path && !bytes.starts_with(b"/") && call.ty.name() != "open_by_handle_at" {
                    return match self.directory(call, ty) {
                        Some(directory) => components(record, tag::BASE | index as u8, &directory),
                        None => record,
                    };
                }
                record
            }
            Given::Address(ip, port) => record.falcos_bytes(index, Status::Ok, fds::sockaddr((*ip, *port))),
            // Text is sent, or its pointer was null.
            Given::Nothing if ty.form() == Form::Text => record.falcos_bytes(index, Status::Null, []),
            Given::Tuple(..) | Given::Nothing | Given::Unstated => record,
        }
    }

    /// The directory that a path starts from.
    fn directory(&self, call: &Call<'_>, ty: ParamType) -> Option<Vec<u8>> {
        let task = self.task(call.tid);
        let fd = match ty {
            ParamType::RelPath { dirfd } => call.params.get(usize::from(dirfd))?.1.number()?,
            _ => AT_FDCWD,
        };
        match self.fd(task.pid, fd) {
            _ if fd == AT_FDCWD => Some(task.cwd),
            Some(Open::File { path, .. }) => Some(path.clone()),
            _ => None,
        }
    }

    fn exec(&mut self, call: &Call<'_>) -> Option<Played> {
        if call.result() != 0 {
            return self.called(call);
        }
        let main = call.number("pid").unwrap_or(call.tid);
        let mut task = Task { tid: main, pid: main, ..self.task(call.tid) };
        task.is_unstated |= call.is_unstated();
        if call.value("trusted_exepath") == Some(&Given::Nothing) {
            task.exepath = Vec::new();
        }
        for (name, value) in &call.params {
            task.take(name, value.number(), value.bytes());
        }
        if let Some(parent) = call.number("ptid") {
            let parent = self.pid_of(parent);
            task.ppid = if parent == main { 0 } else { parent };
        }
        let given = |value: &[u8]| !value.is_empty() && value != b"<NA>";
        // Who began the call says what is executed; the kernel knows.
        if call.ty.name() == "execveat"
            && !given(&task.exepath)
            && let Some(begun) = self.begun.remove(&(call.tid, "execveat".to_owned()))
        {
            task.exepath = self.executable(&task, &begun).unwrap_or_default();
        }
        self.executed(task)
    }

    /// What an execveat executes.
    fn executable(&self, task: &Task, begun: &Json) -> Option<Vec<u8>> {
        let at_empty_path = symbol("PPM_EXVAT_AT_EMPTY_PATH").unwrap_or_default();
        let number = |key: &str| Given::of(&begun[key], &self.names).number();
        let Given::Text(name) = Given::of(&begun["pathname"], &self.names) else { return None };
        let directory = match self.fd(task.pid, number("dirfd")?) {
            Some(Open::File { path, .. }) => path.clone(),
            _ => task.cwd.clone(),
        };
        let flags = number("flags").unwrap_or_default();
        match &name.clone()[..] {
            b"" | b"<NA>" if flags & at_empty_path != 0 => Some(directory),
            // Nobody knows.
            b"" | b"<NA>" => Some(name),
            name => Some(path::join(&directory, name, &Arena::new()).to_vec()),
        }
    }

    fn cloned(&mut self, call: &Call<'_>) {
        let result = call.result();
        if result < 0 {
            return;
        }
        let number = |name| call.number(name);
        let is_thread = number("flags").unwrap_or_default() & CLONE_THREAD != 0;
        let caller = self.task(call.tid);
        let child = if result > 0 {
            // The parent's return: the child may have told of itself already.
            if self.tasks.contains_key(&result) {
                return;
            }
            let (pid, ppid) = if is_thread { (caller.pid, caller.ppid) } else { (result, caller.pid) };
            Task { tid: result, pid, ppid, vtid: result, vpid: pid, ..caller }
        } else {
            let parent = number("ptid").unwrap_or_default();
            let before = self.tasks.get(&call.tid).cloned().unwrap_or_else(|| self.task(parent));
            let pid = number("pid").unwrap_or(call.tid);
            Task { tid: call.tid, pid, ppid: self.pid_of(parent), vtid: call.tid, vpid: pid, ..before }
        };
        let mut child = child;
        for (name, value) in call.params.iter().filter(|(name, _)| !matches!(*name, "tid" | "flags")) {
            if result == 0 || !matches!(*name, "vtid" | "vpid") {
                child.take(name, value.number(), value.bytes().filter(|bytes| !bytes.is_empty()));
            }
        }
        // What the caller passes on, the child has until it executes something.
        child.is_unstated = false;
        let is_new = !self.tasks.contains_key(&child.tid) && child.tid == child.pid;
        self.born(child, is_new);
    }

    /// What a call changes of its thread.
    fn change_task(&mut self, call: &Call<'_>) {
        if call.result() != 0 {
            return;
        }
        let mut task = self.task(call.tid);
        let set = |id: &mut u32, name: &str| {
            if let Some(number) = call.number(name).filter(|number| *number != -1) {
                *id = number as u32;
            }
        };
        match call.ty.name() {
            "setuid" => set(&mut task.uid, "uid"),
            "setgid" => set(&mut task.gid, "gid"),
            "setresuid" | "setreuid" => set(&mut task.uid, "euid"),
            "setresgid" | "setregid" => set(&mut task.gid, "egid"),
            "chdir" => {
                if let Some(path) = call.value("path").and_then(Given::bytes).filter(|path| !path.is_empty()) {
                    task.cwd = path::join(&task.cwd, path, &Arena::new()).to_vec();
                }
            }
            "fchdir" => {
                if let Some(Open::File { path, .. }) = call.number("fd").and_then(|fd| self.fd(task.pid, fd)) {
                    task.cwd = path.clone();
                }
            }
            "setsid" => {
                task.sid = task.pid;
            }
            "setpgid" => {
                if let Some(pgid) = call.number("pgid") {
                    task.pgid = if pgid == 0 { task.pid } else { pgid };
                }
            }
            _ => return,
        }
        self.tasks.insert(call.tid, task);
    }

    /// What a call changes of its process's descriptors.
    fn change_fds(&mut self, call: &Call<'_>) {
        let task = self.task(call.tid);
        let result = call.result();
        let name = call.ty.name();
        let number = |name| call.number(name);
        let existing = |fd: Option<i64>| fd.and_then(|fd| self.fd(task.pid, fd).cloned());
        let mut made: Vec<(i64, Open)> = Vec::new();
        match name {
            "open" | "openat" | "openat2" | "creat" | "open_by_handle_at" if result >= 0 => {
                let at = call.params.iter().position(|(name, _)| matches!(*name, "name" | "path"));
                if let Some(index) = at
                    && let Some(given) = call.params[index].1.bytes()
                {
                    let ty = call.ty.info().params[index].ty;
                    let directory = self.directory(call, ty).unwrap_or_default();
                    let path = path::join(&directory, given, &Arena::new()).to_vec();
                    let int = |name| number(name).unwrap_or_default();
                    let is_directory = int("flags") & event::flags::open::DIRECTORY as i64 != 0;
                    made.push((result, Open::file(path, is_directory, int("ino") as u64, int("dev") as u32)));
                }
            }
            "dup" if result >= 0 => made.extend(existing(number("oldfd")).map(|open| (result, open))),
            "dup2" | "dup3" if result >= 0 => {
                let to = number("newfd").unwrap_or(result);
                made.extend(existing(number("oldfd")).map(|open| (to, open)));
            }
            "fcntl" if result > 0 => made.extend(existing(number("fd")).map(|open| (result, open))),
            "close" if result == 0 => {
                if let (Some(table), Some(fd)) = (self.tables.get_mut(&task.pid), number("fd")) {
                    table.remove(&fd);
                }
            }
            "pipe" | "pipe2" if result == 0 => {
                let ino = number("ino").unwrap_or_default() as u64;
                made.extend(["fd1", "fd2"].into_iter().filter_map(number).map(|fd| (fd, Open::Pipe { ino })));
            }
            "memfd_create" if result >= 0 => {
                let name = call.value("name").and_then(Given::bytes).unwrap_or_default();
                made.push((result, Open::Pseudo(format!("memfd:{}", String::from_utf8_lossy(name)))));
            }
            "pidfd_open" if result >= 0 => made.extend(number("pid").map(|pid| (result, Open::Pid(pid)))),
            "pidfd_getfd" if result >= 0 => {
                if let Some(Open::Pid(pid)) = existing(number("pid_fd")) {
                    let of_other = number("target_fd").and_then(|fd| self.fd(self.pid_of(pid), fd).cloned());
                    made.extend(of_other.map(|open| (result, open)));
                }
            }
            "socket" if result >= 0 => {
                let int = |name| number(name).unwrap_or_default() as u16;
                let (family, sock_type) = (int("domain"), int("type"));
                made.push((result, socket(family, sock_type, int("proto"), None, None)));
            }
            "socketpair" if result == 0 => {
                let family = number("domain").unwrap_or(1) as u16;
                let open = socket(family, number("type").unwrap_or(1) as u16, 0, None, None);
                made.extend(["fd1", "fd2"].into_iter().filter_map(number).map(|fd| (fd, open.clone())));
            }
            "connect" | "sendto" | "sendmsg" | "recvfrom" | "recvmsg" if result >= 0 || result == -EINPROGRESS => {
                if let (Some(fd), Some(Given::Tuple(client, server))) = (number("fd"), call.value("tuple")) {
                    let receives = name.starts_with("recv");
                    let (local, remote) = if receives { (*server, *client) } else { (*client, *server) };
                    made.push((fd, connected(existing(Some(fd)), local, remote)));
                }
            }
            "accept" | "accept4" if result >= 0 => {
                if let Some(Given::Tuple(client, server)) = call.value("tuple") {
                    made.push((result, connected(None, *server, *client)));
                }
            }
            "bind" if result == 0 => {
                if let (Some(fd), Some(Given::Address(ip, port))) = (number("fd"), call.value("addr"))
                    && let Some(Open::Socket { family, sock_type, protocol, .. }) = existing(Some(fd))
                {
                    made.push((
                        fd,
                        Open::Socket { family, sock_type, protocol, local: Some((*ip, *port)), remote: None },
                    ));
                }
            }
            _ => {
                if let Some(pseudo) = pseudo_of(name).filter(|_| result >= 0) {
                    made.push((result, Open::Pseudo(pseudo.to_owned())));
                }
            }
        }
        self.tables.entry(task.pid).or_default().extend(made);
    }
}

fn socket(family: u16, sock_type: u16, protocol: u16, local: Option<fds::End>, remote: Option<fds::End>) -> Open {
    let protocol = match (protocol, sock_type) {
        (0, 2) => 17,
        (0, _) => 6,
        (protocol, _) => protocol,
    };
    Open::Socket { family, sock_type, protocol, local, remote }
}

/// A socket with both ends; of the type that it had.
fn connected(before: Option<Open>, local: fds::End, remote: fds::End) -> Open {
    let family = if remote.0.is_ipv4() { 2 } else { 10 };
    let (sock_type, protocol) = match before {
        Some(Open::Socket { sock_type, protocol, .. }) => (sock_type, protocol),
        _ => (1, 6),
    };
    socket(family, sock_type, protocol, Some(local), Some(remote))
}

/// An event with its parameters in the order of the catalogue.
struct Call<'n> {
    ty: EventType,
    tid: i64,
    params: Vec<(&'n str, Given)>,
}

impl Call<'_> {
    fn value(&self, name: &str) -> Option<&Given> {
        self.params.iter().find(|(param, _)| *param == name).map(|(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.value(name)?.number()
    }

    /// Result of the call: what its first parameter says, where that is one.
    fn result(&self) -> i64 {
        match self.params.first() {
            Some(("res" | "fd", value)) => value.number().unwrap_or_default(),
            _ => 0,
        }
    }

    /// The descriptor that it made; of two, the second.
    fn created(&self) -> i64 {
        self.number("fd2").unwrap_or_else(|| match self.ty.name() {
            "dup2" | "dup3" => self.number("newfd").unwrap_or_else(|| self.result()),
            _ => self.result(),
        })
    }

    /// The descriptor that it used.
    fn fd_param(&self) -> Option<i64> {
        let index = self.ty.info().params.iter().position(|param| param.ty == ParamType::Fd)?;
        self.params.get(index)?.1.number()
    }

    fn is_unstated(&self) -> bool {
        self.params.iter().any(|(_, value)| *value == Given::Unstated)
    }
}
