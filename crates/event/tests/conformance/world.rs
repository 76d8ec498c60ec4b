//! A case's steps as records of our kernel programs: parameters with Falco's numbers become the kernel's.

use std::{collections::HashMap, net::IpAddr};

use abi::{
    record::{ExecFacts, FdFacts, exe_flag, fd_flag, tag},
    syscalls::SYSCALLS,
};
use gyrfalcon_event::{
    decode::{Record, Status},
    event::Event,
    fields::{self, Arg, ArgRule, Subject},
    flags,
    params::FlagSet,
    state::{Host, Limits, Seed, Start, State},
    testing::Encoder,
    value::{Arena, Radix, Value},
};
use serde_json::Value as Json;

/// What a descriptor number stands for.
#[derive(Clone)]
enum Open {
    File(String),
    Socket(FdFacts),
}

/// The state of one case, and its events so far.
pub struct World {
    state: State,
    fds: HashMap<i64, Open>,
    parents: HashMap<i64, i64>,
    names: HashMap<i64, String>,
    events: HashMap<String, Vec<u8>>,
    last: Option<String>,
    time: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            state: State::new(Limits::default(), Host::default()),
            fds: HashMap::new(),
            parents: HashMap::new(),
            names: HashMap::new(),
            events: HashMap::new(),
            last: None,
            time: 1000,
        }
    }
}

/// Start of a process: the case does not say, so its id stands in.
fn start(tid: i64) -> u64 {
    tid as u64
}

impl World {
    /// Plays one step. An event that we do not collect is passed over, and checks of it with it.
    pub fn step(&mut self, step: &Json) {
        if let Some(name) = step["bind"].as_str() {
            self.events.remove(name);
            self.last = Some(name.into());
        }
        let played = match (step["preset"].as_str(), step["event"].as_str(), step["helper"].as_str()) {
            (Some("default_init_thread"), ..) => {
                self.init();
                Some(())
            }
            (_, Some(event), _) => self.event(event, step),
            (_, _, Some("generate_socket_exit_event")) => {
                self.socket(step);
                Some(())
            }
            _ => None,
        };
        let _: Option<()> = played;
    }

    fn init(&mut self) {
        self.state.seed(&Seed {
            tgid: 1,
            start: Start::Exact(start(1)),
            ppid: 0,
            comm: b"init".to_vec(),
            argv: b"/sbin/init\0context\0ls\0--format\0{{json .}}\0".to_vec(),
            env: Some(b"TEST_ENV_PARENT_LINEAGE=secret\0HOME=/home/user/parent\0".to_vec()),
            exepath: b"/sbin/init".to_vec(),
            cwd: b"/root".to_vec(),
            cgroup_path: Vec::new(),
            cgroup: 0,
            vpid: 1,
            sid: 0,
            pgid: 1,
            vpgid: 1,
        });
        self.names.insert(1, "init".into());
    }

    fn event(&mut self, name: &str, step: &Json) -> Option<()> {
        let params = &step["params"];
        if step["dir"] == "enter" && name != "procexit" {
            // We have no enter events.
            return None;
        }
        let tid = step["tid"].as_i64()?;
        if name == "execve" && params["res"] == 0 {
            let record = self.exec(tid, params)?;
            self.keep(step, record);
            return Some(());
        }
        let row = SYSCALLS.iter().find(|row| row.name == name && !name.starts_with("execve"))?;
        let mut record = self.who(Encoder::syscall(name), tid);
        for param in row.params {
            record = self.param(record, name, param, &params[*param])?;
        }
        let result = number(&params[row.params[0]])?;
        record = self.descriptor(record.ret(result), name, params, result);
        self.keep(step, record);
        Some(())
    }

    fn who(&mut self, record: Encoder, tid: i64) -> Encoder {
        self.time += 1;
        let name = self.names.get(&tid).cloned().unwrap_or_default();
        let mut record = record.process(tid as u32, start(tid)).time(self.time).comm(&name);
        let mut at = tid;
        while let Some(parent) = self.parents.get(&at).copied() {
            record = record.ancestor(parent as u32, start(parent), self.names.get(&parent).map_or("", |name| name));
            at = parent;
        }
        record
    }

    fn param(&self, record: Encoder, event: &str, name: &str, value: &Json) -> Option<Encoder> {
        Some(match value {
            Json::String(text) if name == "name" && !text.starts_with('/') => {
                record.text(name, text).base(name, "/root")
            }
            Json::String(text) => record.text(name, text),
            Json::Null if name == "tuple" => record,
            Json::Null => record.param(name, Status::Null, []),
            Json::Object(object) if object.contains_key("packed_socktuple") => record,
            Json::Object(object) if object.contains_key("packed_sockaddr") => {
                let (ip, port) = address(&value["packed_sockaddr"][0])?;
                record.param(name, Status::Ok, sockaddr(ip, port))
            }
            _ => {
                let number = number(value)?;
                record
                    .int(name, if matches!(name, "flags" | "creat_flags") { raw_flags(event, number) } else { number })
            }
        })
    }

    /// Facts about the event's descriptor, and what later events will find behind it.
    fn descriptor(&mut self, record: Encoder, event: &str, params: &Json, result: i64) -> Encoder {
        match event {
            "open" | "openat" | "openat2" | "creat" => {
                if let Some(path) = params["name"].as_str().filter(|_| result >= 0) {
                    self.fds.insert(result, Open::File(path.into()));
                }
                record
            }
            "dup" | "dup2" | "dup3" => {
                let Some(open) = number(&params["oldfd"]).and_then(|fd| self.fds.get(&fd).cloned()) else {
                    return record;
                };
                self.fds.insert(result, open.clone());
                describe(record, &open)
            }
            "connect" => {
                let ends = &params["tuple"]["packed_socktuple"];
                let fd = number(&params["fd"]).unwrap_or_default();
                let (Some(local), Some(remote)) = (address(&ends[0]), address(&ends[1])) else { return record };
                let open = Open::Socket(socket_facts(local, remote));
                self.fds.insert(fd, open.clone());
                describe(record, &open)
            }
            _ => match number(&params["fd"]).and_then(|fd| self.fds.get(&fd).cloned()) {
                Some(open) => describe(record, &open),
                None => record,
            },
        }
    }

    fn socket(&mut self, step: &Json) {
        let record = self.who(Encoder::syscall("socket"), 1).ret(4);
        self.keep(step, record.int("fd", 4).int("domain", 2).int("type", 1).int("proto", 0).int("flags", 0));
    }

    fn exec(&mut self, tid: i64, params: &Json) -> Option<Encoder> {
        let text = |name: &str| params[name].as_str();
        let int = |name: &str| number(&params[name]).unwrap_or_default();
        let bytes = |name: &str| params[name]["bytes"].as_str();
        let parent = int("ptid");
        if parent != 0 && parent != tid {
            self.parents.insert(tid, parent);
        }
        self.names.insert(tid, text("comm")?.into());
        let mut argv = format!("{}\0", text("exe")?).into_bytes();
        argv.extend(bytes("args")?.bytes());
        let mut record = self.who(Encoder::exec(), tid).block(tag::ARGS, Status::Ok, argv);
        record = record.block(tag::ENV, Status::Ok, bytes("env")?);
        record = record.exepath(text("trusted_exepath")?);
        record = record.exec_facts(ExecFacts {
            ino: int("exe_ino") as u64,
            ctime: int("exe_ino_ctime") as u64,
            mtime: int("exe_ino_mtime") as u64,
            fdlimit: int("fdlimit") as u64,
            pgft_maj: int("pgft_maj") as u64,
            pgft_min: int("pgft_min") as u64,
            vm_pages: int("vm_size") as u64 / 4,
            flags: if int("flags") & 1 != 0 { exe_flag::WRITABLE } else { 0 },
        });
        Some(record.header(|h| {
            h.uid = int("uid") as u32;
            h.gid = int("gid") as u32;
            h.tty = int("tty") as u32;
            h.vpgid = int("vpgid") as u32;
            h.pgid = int("pgid") as u32;
            h.loginuid = int("loginuid") as u32;
        }))
    }

    fn keep(&mut self, step: &Json, record: Encoder) {
        let bytes = record.encode();
        self.state.apply(&Record::decode(&bytes).expect("the encoder makes valid records"));
        if let Some(name) = step["bind"].as_str() {
            self.events.insert(name.into(), bytes);
        }
    }

    /// Compares one field; `None` when this is no check of a field, or its event is not ours.
    pub fn check(&self, step: &Json) -> Option<Result<(), String>> {
        let field = step["field"].as_str()?;
        let bytes = self.events.get(step["evt"].as_str().or(self.last.as_deref())?)?;
        let record = Record::decode(bytes).ok()?;
        let arena = Arena::new();
        let event = Event::new(&record, &self.state, &arena, 1)?;
        let (row, rest) = fields::lookup(field)?;
        row.extract?;
        let inner = rest.trim_start_matches(['.', '[']).trim_end_matches(']');
        let arg = match (row.arg, inner.parse()) {
            (ArgRule::None, _) => Arg::None,
            (_, Ok(index)) => Arg::Index(index),
            (_, Err(_)) if inner.is_empty() => Arg::None,
            (_, Err(_)) => Arg::Key(inner.into()),
        };
        let value = event.field(row, &arg);
        match step["check"].as_str()? {
            "has_value" => {
                let want = step["expect"].as_bool()?;
                Some(if value.is_some() == want { Ok(()) } else { Err(format!("has a value: {}, want {want}", !want)) })
            }
            "field" => {
                let want = step["equals"].as_str()?;
                let have = value.map_or_else(|| "<NA>".into(), |value| show(value, row.radix));
                Some(if have == want { Ok(()) } else { Err(format!("is {have:?}, want {want:?}")) })
            }
            _ => None,
        }
    }
}

fn show(value: Value<'_>, radix: Radix) -> String {
    match value {
        Value::Text(text) | Value::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) if radix == Radix::Hex => format!("{value:X}"),
        Value::Uint(value) => value.to_string(),
        Value::Ip(value) => value.to_string(),
        Value::Net(value) => value.to_string(),
        Value::Double(value) => format!("{value:.1}"),
        Value::List(values) => values.iter().map(|value| show(*value, radix)).collect::<Vec<_>>().join(","),
    }
}

/// A number, or the sum of symbols such as `PPM_O_RDWR`.
fn number(value: &Json) -> Option<i64> {
    match value {
        Json::Number(number) => number.as_i64(),
        Json::Array(parts) => parts.iter().try_fold(0, |sum, part| Some(sum | number(part)?)),
        Json::Object(object) => symbol(object.get("sym")?.as_str()?),
        _ => None,
    }
}

fn symbol(name: &str) -> Option<i64> {
    let name = name.strip_prefix("PPM_")?;
    let sets = [FlagSet::FileFlags, FlagSet::ExecveFlags, FlagSet::CreatFlags, FlagSet::SocketFamilies];
    let mut rows = sets.into_iter().filter_map(flags::names).flatten();
    rows.find(|(row, _)| *row == name).map(|(_, value)| *value as i64)
}

/// Open flags in the kernel's numbers.
fn raw_flags(event: &str, falco: i64) -> i64 {
    if event == "creat" {
        return falco << 33;
    }
    if !event.starts_with("open") {
        return falco;
    }
    let access = match falco & 3 {
        3 => 2,
        2 => 1,
        _ => 0,
    };
    let bits = [(1 << 2, 0o100), (1 << 3, 0o2000), (1 << 5, 0o200), (1 << 8, 0o1000), (1 << 12, 0o2_000_000)];
    let above = [(1 << 14, fd_flag::CREATED), (1 << 15, fd_flag::UPPER_LAYER), (1 << 16, fd_flag::LOWER_LAYER)];
    let low: i64 = bits.iter().filter(|(bit, _)| falco & bit != 0).map(|(_, raw)| raw).sum();
    let high: i64 = above.iter().filter(|(bit, _)| falco & bit != 0).map(|(_, raw)| i64::from(*raw)).sum();
    access | low | high << 32
}

fn address(json: &Json) -> Option<(IpAddr, u16)> {
    let pair = &json["sockaddr"];
    Some((pair[1].as_str()?.parse().ok()?, pair[0].as_u64()? as u16))
}

fn sockaddr(ip: IpAddr, port: u16) -> Vec<u8> {
    let mut bytes = match ip {
        IpAddr::V4(_) => vec![2, 0],
        IpAddr::V6(_) => vec![10, 0],
    };
    bytes.extend(port.to_be_bytes());
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => {
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
        }
    }
    bytes
}

fn socket_facts((local, local_port): (IpAddr, u16), (remote, remote_port): (IpAddr, u16)) -> FdFacts {
    let widen = |ip| match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    };
    FdFacts {
        ino: 1,
        dev: 1,
        mode: 0o140_777,
        family: if local.is_ipv4() { 2 } else { 10 },
        sock_type: 1,
        protocol: 6,
        local_port,
        remote_port,
        reserved: 0,
        flags: fd_flag::SOCKET,
        local_addr: widen(local),
        remote_addr: widen(remote),
    }
}

fn describe(record: Encoder, open: &Open) -> Encoder {
    match open {
        Open::File(path) => {
            let mut facts = socket_facts(([0, 0, 0, 0].into(), 0), ([0, 0, 0, 0].into(), 0));
            (facts.mode, facts.family, facts.flags) = (0o100_644, 0, 0);
            record.fd(facts).components(tag::REALPATH, path)
        }
        Open::Socket(facts) => record.fd(*facts),
    }
}
