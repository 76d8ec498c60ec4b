//! What the benchmark judges: records in memory, simulated or out of a recording, and the state that they begin in.

use std::{fs::File, io::BufReader, ops::Range, path::Path};

use event::{
    decode::{Kind, Record},
    state::{Limits, State},
};
use recording::{Frame, Reader};

use crate::mix::{self, Class};

/// Something that is told to the state besides records.
type Fact = Box<dyn Fn(&mut State)>;

enum Entry {
    Record(Class, Range<usize>),
    Fact(Fact),
}

/// One thing that the event loop takes in.
pub enum Step<'a> {
    /// A record, and what it is about.
    Record(Class, &'a [u8]),
    /// A fact.
    Fact(&'a Fact),
}

/// Records and facts in their order.
pub struct Load {
    start: Box<dyn Fn() -> State>,
    /// What happened before rules judge.
    history: Vec<Fact>,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Load {
    /// The simulated mix.
    pub fn simulated(count: usize) -> Self {
        let mut load =
            Self { start: Box::new(mix::state), history: Vec::new(), bytes: Vec::new(), entries: Vec::new() };
        for (class, bytes) in mix::records(count, 7).iter() {
            load.push(class, bytes);
        }
        load
    }

    /// What `gyrfalcon record` wrote.
    pub fn recorded(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut reader = Reader::new(BufReader::new(file)).expect("a recording");
        let host = reader.head().host();
        let start = Box::new(move || State::new(Limits::default(), host.clone()));
        let mut load = Self { start, history: Vec::new(), bytes: Vec::new(), entries: Vec::new() };
        let mut begun = false;
        while let Some(frame) = reader.next_frame().expect("a whole recording") {
            let fact: Fact = match frame {
                Frame::Record(cpu, bytes) => match Record::decode(bytes) {
                    Ok(record) if begun => {
                        load.push(class(&record), bytes);
                        continue;
                    }
                    Ok(_) => {
                        let bytes = bytes.to_owned();
                        Box::new(move |state| {
                            state.apply(&Record::decode(&bytes).expect("it was decoded before").on_cpu(cpu));
                        })
                    }
                    Err(_) => continue,
                },
                Frame::Process(seed) => Box::new(move |state| state.seed(&seed)),
                Frame::Cgroup(id, path) => Box::new(move |state| state.learn_cgroup(id, &path)),
                Frame::Container(id, facts) => Box::new(move |state| {
                    state.set_container(&id, (*facts).clone());
                }),
                Frame::Gone(id) => Box::new(move |state| state.forget_container(&id)),
                Frame::Users(users) => Box::new(move |state| state.users = (*users).clone()),
                Frame::Clock(boot_ns) => Box::new(move |state| state.host.boot_ns = boot_ns),
                Frame::Begin => {
                    begun = true;
                    continue;
                }
                Frame::Head(_) | Frame::Lost(_) | Frame::End(_) => continue,
            };
            match begun {
                true => load.entries.push(Entry::Fact(fact)),
                false => load.history.push(fact),
            }
        }
        assert!(load.events() > 0, "{}: nothing is recorded", path.display());
        load
    }

    fn push(&mut self, class: Class, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.entries.push(Entry::Record(class, start..self.bytes.len()));
    }

    /// The state before the first step.
    pub fn start(&self) -> State {
        let mut state = (self.start)();
        self.history.iter().for_each(|fact| fact(&mut state));
        state
    }

    /// All steps.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.entries.iter().map(|entry| match entry {
            Entry::Record(class, place) => Step::Record(*class, &self.bytes[place.clone()]),
            Entry::Fact(fact) => Step::Fact(fact),
        })
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = (Class, &[u8])> {
        self.steps().filter_map(|step| match step {
            Step::Record(class, bytes) => Some((class, bytes)),
            Step::Fact(_) => None,
        })
    }

    /// How many records there are of each kind, forks last.
    pub fn print(&self) {
        let records = self.records().count();
        println!("{records} records, {} bytes on average", self.bytes.len() / records.max(1));
        for (name, class) in [
            ("opens", Class::Open),
            ("execs", Class::Exec),
            ("connects", Class::Connect),
            ("changes of files", Class::Change),
            ("exits", Class::Exit),
            ("others", Class::Other),
            ("forks, which are no events", Class::Fork),
        ] {
            println!("  {:5.1} % {name}", self.count(class) as f64 * 100.0 / records.max(1) as f64);
        }
    }

    /// How many records are events: forks are none.
    pub fn events(&self) -> usize {
        self.records().count() - self.count(Class::Fork)
    }

    /// How many records are about this.
    pub fn count(&self, class: Class) -> usize {
        self.records().filter(|(of, _)| *of == class).count()
    }
}

fn class(record: &Record<'_>) -> Class {
    match record.kind {
        Kind::Exec => return Class::Exec,
        Kind::Fork => return Class::Fork,
        Kind::Exit => return Class::Exit,
        Kind::Syscall(_) | Kind::Generic(_) => {}
    }
    match record.event_type().map_or("", |ty| ty.name()) {
        "open" | "openat" | "openat2" | "creat" => Class::Open,
        "execve" | "execveat" => Class::Exec,
        "connect" => Class::Connect,
        "rename" | "renameat" | "renameat2" | "unlink" | "unlinkat" | "rmdir" | "mkdir" | "mkdirat" | "link"
        | "linkat" | "symlink" | "symlinkat" | "chmod" | "fchmod" | "fchmodat" | "fchmodat2" => Class::Change,
        _ => Class::Other,
    }
}
