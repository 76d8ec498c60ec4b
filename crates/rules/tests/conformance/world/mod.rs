//! The world of one case of filter_eval_cases.json: its processes, descriptors and users, and its events as records of our
//! kernel programs.
//!
//! Falco's cases inject events as its own kernel programs send them and look at what its state makes of them. We keep
//! less state and ask the kernel for more, so this world plays the kernel: it follows the same events, and puts into each
//! record what our programs would have read at that moment. From there on everything is the real thing: decoding,
//! process state, fields, the compiled engine.

mod fds;
mod given;
mod helpers;
mod play;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};

use abi::record::{KINDS_MAX, STANDARD_FDS};
use event::{
    catalogue::EventType,
    containers::Whereabouts,
    decode::Record,
    event::Event,
    fields::{Arg, Field, Subject},
    state::{Host, Limits, Seed, Start, State},
    testing::Encoder,
    users::User,
    value::{Arena, Value},
};
use serde_json::Value as Json;

use fds::{Open, Table};
use given::{Given, Names};
use tasks::{Task, start};

/// An event that was played.
#[derive(Debug, Clone)]
pub struct Played {
    bytes: Vec<u8>,
    ty: EventType,
    num: u64,
    /// Indices of parameters that the case says arrived without content.
    empty: BTreeSet<usize>,
    /// Not all of it stands in the data.
    pub is_unstated: bool,
}

/// The world of one case.
pub struct World {
    state: State,
    tasks: BTreeMap<i64, Task>,
    tables: BTreeMap<i64, Table>,
    names: Names,
    events: BTreeMap<String, Played>,
    last: Option<String>,
    /// Parameters of a call that has begun, by thread and event.
    begun: BTreeMap<(i64, String), Json>,
    time: u64,
    num: u64,
    /// Something was done that the data does not state.
    is_unstated: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            state: State::new(Limits::default(), Host::default()),
            tasks: BTreeMap::new(),
            tables: BTreeMap::new(),
            names: Names::new(),
            events: BTreeMap::new(),
            last: None,
            begun: BTreeMap::new(),
            time: 1_000_000_000_000,
            num: 0,
            is_unstated: false,
        }
    }
}

impl World {
    /// Plays one step that is no check.
    pub fn step(&mut self, step: &Json) {
        if let Some(name) = step["bind"].as_str() {
            self.events.remove(name);
            self.last = Some(name.to_owned());
        }
        let played = match (step["preset"].as_str(), step["event"].as_str(), step["helper"].as_str()) {
            (Some("default_init_thread"), ..) => {
                self.init();
                None
            }
            (Some("DEFAULT_TREE"), ..) => {
                self.init();
                self.tree();
                None
            }
            (_, Some(event), _) => self.event(event, step),
            (_, _, Some(helper)) => self.helper(helper, &step["args"]),
            _ => {
                match step["state"].as_str() {
                    Some(statement) => self.statement(statement),
                    None => self.is_unstated = true,
                }
                None
            }
        };
        if let (Some(mut played), Some(name)) = (played, step["bind"].as_str()) {
            for index in step["empty_params"].as_array().into_iter().flatten().filter_map(Json::as_u64) {
                played.empty.insert(index as usize);
            }
            self.events.insert(name.to_owned(), played);
        }
    }

    /// The event of a check, and whether all that it depends on is stated.
    pub fn event_of(&self, check: &Json) -> Option<(&Played, bool)> {
        let played = self.events.get(check["evt"].as_str().or(self.last.as_deref())?)?;
        Some((played, !played.is_unstated && !self.is_unstated))
    }

    /// What everything else is done with.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The text that a check wants; `None` when the data does not state it.
    pub fn wanted(&self, json: &Json) -> Option<String> {
        if let Some(expr) = json["expr"].as_str()
            && let Some((task, what)) = expr.trim().split_once("_tinfo->get_")
        {
            let task = self.tasks.get(self.names.get(&format!("{task}_tid"))?)?;
            let text = match what {
                "comm()" => &task.comm,
                "exe()" => &task.exe,
                "exepath()" => &task.exepath,
                _ => return None,
            };
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        match Given::of(json, &self.names) {
            Given::Text(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            Given::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn init(&mut self) {
        let init = Task::init();
        self.state.seed(&Seed {
            tgid: 1,
            start: Start::Exact(start(1)),
            ppid: 0,
            comm: init.comm.clone(),
            argv: [&init.exe[..], b"\0", &init.args].concat(),
            env: Some(init.env.clone()),
            exepath: init.exepath.clone(),
            cwd: init.cwd.clone(),
            cgroup_path: Vec::new(),
            cgroup: 0,
            vpid: 1,
            sid: 0,
            pgid: 1,
            vpgid: 1,
        });
        self.tasks.insert(1, init);
        self.tables.entry(1).or_default().insert(0, Open::file(b"/dev/null".to_vec(), false, 5, 0));
    }

    fn task(&self, tid: i64) -> Task {
        self.tasks.get(&tid).cloned().unwrap_or_else(|| Task::unknown(tid))
    }

    /// The process of a thread.
    fn pid_of(&self, tid: i64) -> i64 {
        self.tasks.get(&tid).map_or(tid, |task| task.pid)
    }

    fn fd(&self, pid: i64, fd: i64) -> Option<&Open> {
        self.tables.get(&pid)?.get(&fd)
    }

    /// A process's open descriptors with numbers below a limit.
    fn open_below(&self, pid: i64, limit: usize) -> impl Iterator<Item = (u32, &Open)> {
        let all = self.tables.get(&pid).into_iter().flatten();
        all.filter_map(|(fd, open)| Some((u32::try_from(*fd).ok()?, open)))
            .take_while(move |(fd, _)| *fd < limit as u32)
    }

    /// Says what its standard descriptors are.
    fn standard(&self, record: Encoder, pid: i64) -> Encoder {
        self.open_below(pid, STANDARD_FDS).fold(record, |record, (fd, open)| open.describe_standard(record, fd as u8))
    }

    /// Lists its open descriptors.
    fn kinds(&self, record: Encoder, pid: i64) -> Encoder {
        let listed: Vec<_> = self.open_below(pid, KINDS_MAX).map(|(fd, open)| open.listed(fd)).collect();
        record.open_fds(&listed)
    }

    fn next_time(&mut self) -> u64 {
        self.time += 1000;
        self.time
    }

    /// Header and ancestors.
    fn who(&mut self, record: Encoder, task: &Task) -> Encoder {
        let time = self.next_time();
        let mut record = task.header(record, time);
        let mut at = task.ppid;
        let mut seen = BTreeSet::new();
        while let Some(parent) = self.tasks.get(&at).filter(|_| seen.insert(at)) {
            record = record.ancestor(parent.pid as u32, start(parent.pid), &String::from_utf8_lossy(&parent.comm));
            at = parent.ppid;
        }
        record
    }

    fn played(&mut self, record: Encoder, ty: EventType, is_unstated: bool) -> Played {
        let bytes = record.encode();
        let record = Record::decode(&bytes).expect("the encoder makes valid records");
        self.state.apply(&record);
        self.num += 1;
        Played { bytes, ty, num: self.num, empty: BTreeSet::new(), is_unstated }
    }

    /// A statement about state, as far as it says what it does.
    fn statement(&mut self, statement: &str) {
        let done = self.assign(statement).or_else(|| self.change_users(statement));
        if done.is_none() {
            self.is_unstated = true;
        }
    }

    /// `p3_t1_tinfo->m_comm = "x"`.
    fn assign(&mut self, statement: &str) -> Option<()> {
        let (task, rest) = statement.split_once("_tinfo->m_")?;
        let (member, value) = rest.split_once('=')?;
        let tid = *self.names.get(&format!("{}_tid", task.trim()))?;
        let value = value.trim().trim_end_matches(';');
        let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        // Of a process group without members, the number does not matter.
        let random = (value == "random_pgid").then_some(100_000);
        let number = self.names.get(value).copied().or_else(|| value.parse().ok()).or(random);
        let name = match (member.trim(), text, number) {
            ("exepath", Some(_), _) => "trusted_exepath",
            (member, Some(_), _) | (member, _, Some(_)) => member,
            _ => return None,
        };
        let mut task = self.task(tid);
        task.take(name, number.filter(|_| text.is_none()), text.map(str::as_bytes));
        self.tasks.insert(tid, task.clone());
        let record = task.image(Encoder::exec());
        let record = self.who(record, &task);
        let execve = EventType::by_name("execve")?;
        self.played(record, execve, false);
        Some(())
    }

    /// `…->add_user("", INIT_TID, 0, 0, "name", "home", "shell")`.
    fn change_users(&mut self, statement: &str) -> Option<()> {
        let args = |rest: &str| -> Vec<String> {
            let inner = rest.trim_end().trim_end_matches(';').trim_end_matches(')');
            inner.split(',').map(|arg| arg.trim().to_owned()).collect()
        };
        let number = |arg: &String| self.names.get(arg).copied().or_else(|| arg.parse().ok());
        let text = |arg: &String| Some(arg.strip_prefix('"')?.strip_suffix('"')?.as_bytes().into());
        if let Some((_, rest)) = statement.split_once("add_user(") {
            let args = args(rest);
            let uid = number(args.get(2)?)? as u32;
            let user = User { name: text(args.get(4)?)?, home: text(args.get(5)?)?, shell: text(args.get(6)?)? };
            self.state.users.insert_user(uid, user);
            return Some(());
        }
        None
    }
}

/// A played event, during its evaluation.
pub struct PlayedEvent<'a> {
    event: Event<'a>,
    empty: &'a BTreeSet<usize>,
}

impl<'a> PlayedEvent<'a> {
    /// The event that a record makes in a state.
    pub fn new(played: &'a Played, record: &'a Record<'a>, state: &'a State, arena: &'a Arena) -> Option<Self> {
        let event = Event::new(record, state, arena, played.num)?;
        let event = if event.event_type() == played.ty { event } else { event.of_type(played.ty) };
        Some(Self { event, empty: &played.empty })
    }
}

impl Played {
    /// Its record.
    pub fn record(&self) -> Record<'_> {
        // Falco's tests inject everything on CPU 1.
        Record::decode(&self.bytes).expect("the encoder makes valid records").on_cpu(1)
    }
}

impl<'a> Subject<'a> for PlayedEvent<'a> {
    fn event_type(&self) -> EventType {
        self.event.event_type()
    }

    fn time_ns(&self) -> u64 {
        self.event.time_ns()
    }

    fn arena(&self) -> &'a Arena {
        self.event.arena()
    }

    fn whereabouts(&self) -> Whereabouts<'a> {
        self.event.whereabouts()
    }

    fn field(&self, field: &'static Field, arg: &Arg) -> Option<Value<'a>> {
        let params = self.event.info().params;
        let index = match arg {
            Arg::Index(index) => Some(*index as usize),
            Arg::Key(name) => params.iter().position(|param| *param.name == **name),
            Arg::None => None,
        };
        // Our records always carry what these parameters say; only a case can say that they are without content.
        if let Some(info) = index.filter(|index| self.empty.contains(index)).and_then(|index| params.get(index)) {
            match field.name {
                "evt.arg" => return Some(Value::Text(info.ty.empty_text())),
                "evt.rawarg" => return info.ty.empty_raw().map(Value::Text),
                _ => {}
            }
        }
        self.event.field(field, arg)
    }
}
