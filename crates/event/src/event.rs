//! What a rule sees: one event with the process it belongs to and everything known about both.
//!
//! An [`Event`] owns nothing. It borrows the record, the state and an arena, and reads what a rule asks for when it asks.

use std::sync::LazyLock;

use abi::record::{flag, tag};

use crate::{
    catalogue::{EventInfo, EventType},
    containers::{Membership, Whereabouts},
    decode::{Kind, Record, Status},
    descriptor::Memo,
    fields::{Arg, Field, Subject},
    path,
    state::{Image, Process, ProcessKey, Start, State, process::Strings},
    users::Users,
    value::{Arena, Value},
};

/// Most ancestors that are looked at, those beyond the record's included.
pub const MAX_ANCESTORS: u32 = 64;

/// One decoded and enriched event.
pub struct Event<'a> {
    /// What the kernel said.
    pub record: &'a Record<'a>,
    /// What is known about processes, containers, users.
    pub state: &'a State,
    /// The process; `None` when neither records nor the start-up scan told of it.
    pub process: Option<&'a Process>,
    /// Sequence number, starting at 1.
    pub num: u64,
    ty: EventType,
    arena: &'a Arena,
    pub(crate) memo: Memo<'a>,
}

/// A process in the line of parents.
#[derive(Clone, Copy)]
pub struct AncestorView<'a> {
    /// Process id.
    pub tgid: u32,
    /// Name of its main thread at the time of the event.
    pub comm: &'a [u8],
    /// Boot-clock time of its start, in nanoseconds.
    pub start: u64,
    entry: Entry<'a>,
}

/// Where an ancestor's entry in the table is found: most fields do not need it.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Found(&'a Process),
    In(&'a State),
}

impl<'a> AncestorView<'a> {
    /// Its entry in the table.
    pub fn process(&self) -> Option<&'a Process> {
        match self.entry {
            Entry::Found(process) => Some(process),
            Entry::In(state) => state.by_key(ProcessKey { tgid: self.tgid, start: Start::Exact(self.start) }),
        }
    }

    /// What it runs.
    pub fn image(&self) -> Option<&'a Image> {
        self.process()?.image.as_deref()
    }
}

impl<'a> Event<'a> {
    /// Puts an event together. `None` for records that no rule sees ([`Kind::Fork`]).
    // As large as a record: made where it will be.
    #[inline(always)]
    pub fn new(record: &'a Record<'a>, state: &'a State, arena: &'a Arena, num: u64) -> Option<Self> {
        let ty = record.event_type()?;
        Some(Self { record, state, process: state.process(record), num, ty, arena, memo: Memo::default() })
    }

    /// The same record seen as an event of another type, with the parameters of that type: for tests of what is said of
    /// events that no kernel program collects.
    #[must_use]
    pub fn of_type(self, ty: EventType) -> Self {
        Self { ty, memo: Memo::default(), ..self }
    }

    /// The event's row in the catalogue.
    pub fn info(&self) -> &'static EventInfo {
        self.ty.info()
    }

    /// Memory for values.
    pub fn arena(&self) -> &'a Arena {
        self.arena
    }

    /// What the process runs.
    pub fn image(&self) -> Option<&'a Image> {
        self.process?.image.as_deref()
    }

    /// Name of the thread.
    pub fn comm(&self) -> &'a [u8] {
        self.record.comm()
    }

    /// Name of the process: that of its main thread.
    pub fn process_name(&self) -> &'a [u8] {
        match self.process {
            Some(process) if self.record.header.tid != self.record.header.tgid => process.name(),
            _ => self.comm(),
        }
    }

    /// Result of the call; `None` for events that have none.
    pub fn result(&self) -> Option<i64> {
        match self.record.kind {
            Kind::Exec | Kind::Syscall(_) | Kind::Generic(_) => Some(self.record.header.ret),
            Kind::Exit | Kind::Fork => None,
        }
    }

    /// Whether the call failed.
    pub fn failed(&self) -> bool {
        self.result().is_some_and(|result| result < 0)
    }

    /// Unix time in nanoseconds.
    pub fn unix_ns(&self) -> u64 {
        self.state.unix_ns(self.record.header.time)
    }

    /// Working directory without a trailing slash: as the record says, else as of the last exec.
    pub fn cwd(&self) -> Option<&'a [u8]> {
        let fresh = self.record.block(tag::CWD).filter(|b| matches!(b.status, Status::Ok | Status::Truncated));
        match fresh {
            Some(block) => Some(path::spell(block, self.arena)),
            None => self.image().map(Image::cwd).filter(|cwd| !cwd.is_empty()),
        }
    }

    /// The user and group tables that its ids belong to. The host's names say nothing about a container's users.
    pub fn users(&self) -> &'a Users {
        static NONE: LazyLock<Users> = LazyLock::new(Users::default);
        match self.membership() {
            Membership::Container(container) => self.state.container_users(container).unwrap_or(&NONE),
            Membership::Host | Membership::Unknown => &self.state.users,
        }
    }

    /// What is known about its container.
    pub fn membership(&self) -> &'a Membership {
        self.state.membership(self.record, self.process)
    }

    /// Arguments of the process; for an exec, the new ones.
    pub fn args(&self) -> Option<Strings<'a>> {
        self.image().map(Image::args)
    }

    /// The `n`th ancestor; 1 is the parent. Those in the record are as the kernel saw them at the event; beyond them the
    /// table goes on.
    pub fn ancestor(&self, n: u32) -> Option<AncestorView<'a>> {
        let index = n.checked_sub(1)?;
        let listed = self.record.header.ancestors;
        if index < listed {
            let ancestor = self.record.ancestor(index as usize)?;
            return Some(AncestorView {
                tgid: ancestor.tgid,
                comm: self.record.ancestor_comm(index as usize)?,
                start: ancestor.start,
                entry: Entry::In(self.state),
            });
        }
        if !self.record.has(flag::MORE_ANCESTORS) || n > MAX_ANCESTORS {
            return None;
        }
        // A loop of links cannot hold us: the number of steps is bounded.
        let mut process = self.ancestor(listed)?.process()?;
        for _ in listed..n {
            process = self.state.by_key(process.parent?)?;
        }
        Some(AncestorView {
            tgid: process.key.tgid,
            comm: process.name(),
            start: process.key.start.ns(),
            entry: Entry::Found(process),
        })
    }

    /// Every ancestor, parent first.
    pub fn ancestors(&self) -> impl Iterator<Item = AncestorView<'a>> + '_ {
        (1..=MAX_ANCESTORS).map_while(|n| self.ancestor(n))
    }

    /// The process with a pid of the initial namespace, at the time of the event.
    pub fn by_pid(&self, tgid: u32) -> Option<&'a Process> {
        self.state.by_pid(tgid, self.record.header.time)
    }

    /// Boot-clock time of the start of the process.
    pub fn start(&self) -> Start {
        Start::Exact(self.record.header.start)
    }
}

impl<'a> Subject<'a> for Event<'a> {
    fn event_type(&self) -> EventType {
        self.ty
    }

    fn time_ns(&self) -> u64 {
        self.unix_ns()
    }

    fn arena(&self) -> &'a Arena {
        self.arena
    }

    fn whereabouts(&self) -> Whereabouts<'a> {
        self.state.whereabouts(self.membership())
    }

    fn field(&self, field: &'static Field, arg: &Arg) -> Option<Value<'a>> {
        (field.extract?)(self, arg)
    }
}
