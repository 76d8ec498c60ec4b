//! A process, and the image it runs.
//!
//! What an exec sets is one immutable [`Image`], shared by every child until it executes something itself. What the
//! kernel says anew with each record (user, capabilities, session…) is not kept here but read from the record; only what
//! others ask about an ancestor is.

use std::sync::Arc;

use abi::record::{Ancestor, ExecFacts, Header, tag};

use crate::{
    containers::Membership,
    decode::{Record, Status, until_nul},
    path,
    value::Arena,
};

/// When a process started, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Boot clock in nanoseconds, from the kernel.
    Exact(u64),
    /// Boot clock in ticks of [`Start::TICK_NS`], from /proc.
    Ticks(u64),
}

impl Start {
    /// Length of a tick of /proc: `USER_HZ` is 100 on every architecture we run on.
    pub const TICK_NS: u64 = 10_000_000;

    /// Whether this may be the process that started at `ns`.
    pub fn is(self, ns: u64) -> bool {
        match self {
            Self::Exact(start) => start == ns,
            Self::Ticks(ticks) => ns / Self::TICK_NS == ticks,
        }
    }

    /// Whether both may be the same moment.
    pub fn matches(self, other: Self) -> bool {
        match other {
            Self::Exact(ns) => self.is(ns),
            Self::Ticks(ticks) => self.ns() / Self::TICK_NS == ticks,
        }
    }

    /// Nanoseconds; of ticks, the earliest moment.
    pub fn ns(self) -> u64 {
        match self {
            Self::Exact(ns) => ns,
            Self::Ticks(ticks) => ticks.saturating_mul(Self::TICK_NS),
        }
    }
}

/// Identity of a process: a reused pid has another start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessKey {
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// When it started.
    pub start: Start,
}

impl ProcessKey {
    /// The process that a record is about.
    pub fn of(header: &Header) -> Self {
        Self { tgid: header.tgid, start: Start::Exact(header.start) }
    }

    /// A process in the line of parents.
    pub fn of_ancestor(ancestor: &Ancestor) -> Self {
        Self { tgid: ancestor.tgid, start: Start::Exact(ancestor.start) }
    }
}

/// What an exec set, or what the start-up scan found: one block of memory with the ends of its parts.
#[derive(Debug, Default)]
pub struct Image {
    bytes: Vec<u8>,
    argv_end: u32,
    env_end: u32,
    exepath_end: u32,
    has_env: bool,
    /// Whether the executable is an anonymous file in memory.
    pub memfd: bool,
    /// Facts of the executable; `None` for processes older than the sensor.
    pub facts: Option<ExecFacts>,
    /// Boot-clock time of the exec; 0 when it is unknown.
    pub time: u64,
}

/// The parts of an [`Image`].
#[derive(Debug, Default, Clone, Copy)]
pub struct ImageParts<'a> {
    /// Arguments, each ended by NUL, `argv[0]` first.
    pub argv: &'a [u8],
    /// Environment, each ended by NUL; `None` when it was not asked for.
    pub env: Option<&'a [u8]>,
    /// Path of the executable.
    pub exepath: &'a [u8],
    /// Working directory.
    pub cwd: &'a [u8],
}

impl Image {
    /// Copies the parts into one block.
    pub fn new(parts: ImageParts<'_>) -> Self {
        let mut image = Self::default();
        image.set(parts);
        image
    }

    /// Memory comes in multiples of so many bytes, so that what one image leaves behind fits most others.
    const GRAIN: usize = 512;
    /// Bytes of memory beyond what an image needs that it may keep.
    const SLACK: usize = 1024;

    /// Takes the parts into memory that there is, unless it is far too large.
    fn set(&mut self, parts: ImageParts<'_>) {
        let env = parts.env.unwrap_or_default();
        let all = [parts.argv, env, parts.exepath, parts.cwd];
        let mut bytes = std::mem::take(&mut self.bytes);
        let len: usize = all.iter().map(|part| part.len()).sum();
        if !(len..=len + Self::SLACK).contains(&bytes.capacity()) {
            bytes = Vec::with_capacity(len.next_multiple_of(Self::GRAIN));
        }
        bytes.clear();
        all.iter().for_each(|part| bytes.extend_from_slice(part));
        // Each part is at most a few pages: records and seeds are bounded.
        let end = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        *self = Self {
            bytes,
            argv_end: end(parts.argv.len()),
            env_end: end(parts.argv.len() + env.len()),
            exepath_end: end(parts.argv.len() + env.len() + parts.exepath.len()),
            has_env: parts.env.is_some(),
            memfd: parts.exepath.starts_with(b"memfd:"),
            facts: None,
            time: 0,
        };
    }

    /// Becomes the image that an exec record describes. `before` gives what the record does not say.
    pub(crate) fn set_exec(&mut self, record: &Record<'_>, before: Option<&Self>, scratch: &Arena) {
        let bytes = |tag| record.block(tag).filter(|block| block.status != Status::Fault).map(|block| block.bytes);
        let spelled = |tag| record.block(tag).map(|block| path::spell(block, scratch));
        self.set(ImageParts {
            argv: bytes(tag::ARGS).unwrap_or_default(),
            env: bytes(tag::ENV),
            exepath: spelled(tag::EXEPATH).unwrap_or_default(),
            cwd: spelled(tag::CWD).unwrap_or_else(|| before.map_or(&b""[..], Self::cwd)),
        });
        self.facts = record.exec();
        self.time = record.header.time;
    }

    /// The same image with an environment that was not collected at the time.
    pub(crate) fn with_env(&self, env: &[u8]) -> Self {
        let image =
            Self::new(ImageParts { argv: self.argv().0, env: Some(env), exepath: self.exepath(), cwd: self.cwd() });
        Self { facts: self.facts, time: self.time, ..image }
    }

    fn part(&self, start: u32, end: u32) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Arguments, `argv[0]` first.
    pub fn argv(&self) -> Strings<'_> {
        Strings(self.part(0, self.argv_end))
    }

    /// `argv[0]`, which the one who executes chooses freely; empty when there are no arguments.
    pub fn exe(&self) -> &[u8] {
        self.argv().next().unwrap_or_default()
    }

    /// Arguments after `argv[0]`.
    pub fn args(&self) -> Strings<'_> {
        let mut argv = self.argv();
        argv.next();
        argv
    }

    /// Environment, when it was collected.
    pub fn env(&self) -> Option<Strings<'_>> {
        self.has_env.then(|| Strings(self.part(self.argv_end, self.env_end)))
    }

    /// Path of the executable as the kernel resolved it; empty when unknown.
    pub fn exepath(&self) -> &[u8] {
        self.part(self.env_end, self.exepath_end)
    }

    /// Working directory at exec; empty when unknown.
    pub fn cwd(&self) -> &[u8] {
        self.bytes.get(self.exepath_end as usize..).unwrap_or_default()
    }
}

/// Images of processes that are gone, for the next exec: so that execs, once there are some, need no new memory.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<Arc<Image>>);

impl Spare {
    /// So many are kept: as many processes as may be forgotten at once after a burst of them ended.
    const MOST: usize = 1024;

    /// An image that nobody else has.
    pub fn take(&mut self) -> Arc<Image> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps an image unless somebody has it, too.
    pub fn give(&mut self, image: Option<Arc<Image>>) {
        if let Some(mut image) = image
            && self.0.len() < Self::MOST
            && Arc::get_mut(&mut image).is_some()
        {
            self.0.push(image);
        }
    }
}

/// NUL-separated strings.
#[derive(Debug, Clone, Copy)]
pub struct Strings<'a>(pub &'a [u8]);

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let text = until_nul(self.0);
        self.0 = self.0.get(text.len() + 1..).unwrap_or_default();
        Some(text)
    }
}

/// One process of the table.
#[derive(Debug, Clone)]
pub struct Process {
    /// Who it is.
    pub key: ProcessKey,
    /// The parent it was born to or last seen with.
    pub parent: Option<ProcessKey>,
    /// What it runs; `None` when nobody has said.
    pub image: Option<Arc<Image>>,
    /// Name of the main thread, NUL-padded.
    pub comm: [u8; 16],
    /// Process id in its own pid namespace.
    pub vpid: u32,
    /// Session id in the initial pid namespace.
    pub sid: u32,
    /// Process group in the initial pid namespace.
    pub pgid: u32,
    /// Process group in its own pid namespace.
    pub vpgid: u32,
    /// Id of its cgroup when last seen.
    pub cgroup: u64,
    /// The container that this cgroup belongs to.
    pub membership: Membership,
    /// Boot-clock time of its end.
    pub exit: Option<u64>,
    /// Whether it has executed nothing itself: then its name in the table is the one it was born with.
    pub forked: bool,
}

impl Process {
    /// What a record says about its process.
    pub(crate) fn of_record(record: &Record<'_>) -> Self {
        let header = &record.header;
        Self {
            key: ProcessKey::of(header),
            parent: record.parent().map(|parent| ProcessKey::of_ancestor(&parent)),
            image: None,
            comm: header.comm,
            vpid: header.vpid,
            sid: header.sid,
            pgid: header.pgid,
            vpgid: header.vpgid,
            cgroup: header.cgroup,
            membership: Membership::Unknown,
            exit: None,
            forked: false,
        }
    }

    /// Name of the main thread.
    pub fn name(&self) -> &[u8] {
        until_nul(&self.comm)
    }
}
