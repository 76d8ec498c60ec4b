//! Every event type that a rule may name, whether or not this sensor delivers it.
//!
//! What is collected, and how, is the business of [`mod@abi::syscalls`]; here stands what Falco's language
//! knows about an event: its category and the parameters that `evt.arg.x` can ask for.

mod table;

use crate::{params::ParamType, value::Radix};

/// An event type: an index into the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(u16);

/// Falco's `evt.category`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are Falco's words")]
pub enum Category {
    Other,
    File,
    Net,
    Ipc,
    Wait,
    Signal,
    Sleep,
    Time,
    Process,
    Scheduler,
    Memory,
    User,
    System,
    IoRead,
    IoWrite,
    IoOther,
    Internal,
    Unknown,
}

impl Category {
    /// The word in `evt.category`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::File => "file",
            Self::Net => "net",
            Self::Ipc => "IPC",
            Self::Wait => "wait",
            Self::Signal => "signal",
            Self::Sleep => "sleep",
            Self::Time => "time",
            Self::Process => "process",
            Self::Scheduler => "scheduler",
            Self::Memory => "memory",
            Self::User => "user",
            Self::System => "system",
            Self::IoRead => "I/O read",
            Self::IoWrite => "I/O write",
            Self::IoOther => "I/O other",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }
}

/// What produces an event of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A system call with parameters of its own.
    Syscall,
    /// A system call known by name only: result and raw arguments.
    Generic,
    /// A kernel tracepoint.
    Tracepoint,
    /// The sensor itself.
    Meta,
    /// Another event source.
    Plugin,
}

/// Whether an event is about a file descriptor, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FdUse {
    /// No descriptor: every `fd.*` field is null.
    None,
    /// The descriptor given in the parameter of type [`ParamType::Fd`].
    Uses,
    /// The descriptor that the call returned.
    Creates,
}

/// One parameter of an event.
#[derive(Debug)]
pub struct ParamInfo {
    /// Falco's name, as in `evt.arg.flags`.
    pub name: &'static str,
    /// Its type.
    pub ty: ParamType,
    /// How integers are printed.
    pub radix: Radix,
}

/// One row of the catalogue.
#[derive(Debug)]
pub struct EventInfo {
    /// The name in `evt.type`.
    pub name: &'static str,
    /// What produces it.
    pub origin: Origin,
    /// Falco's category.
    pub category: Category,
    /// Its relation to a file descriptor.
    pub fd: FdUse,
    /// Parameters in Falco's order.
    pub params: &'static [ParamInfo],
}

const fn event(
    name: &'static str,
    origin: Origin,
    category: Category,
    fd: FdUse,
    params: &'static [ParamInfo],
) -> EventInfo {
    EventInfo { name, origin, category, fd, params }
}

/// A system call without parameters of its own: its arguments as they were passed. Falco knows none of them.
const fn generic(name: &'static str) -> EventInfo {
    EventInfo { name, origin: Origin::Generic, category: Category::Other, fd: FdUse::None, params: ARGUMENTS }
}

const ARGUMENTS: &[ParamInfo] = &[
    hex("arg0", ParamType::Uint(64)),
    hex("arg1", ParamType::Uint(64)),
    hex("arg2", ParamType::Uint(64)),
    hex("arg3", ParamType::Uint(64)),
    hex("arg4", ParamType::Uint(64)),
    hex("arg5", ParamType::Uint(64)),
];

const fn dec(name: &'static str, ty: ParamType) -> ParamInfo {
    ParamInfo { name, ty, radix: Radix::Decimal }
}

const fn hex(name: &'static str, ty: ParamType) -> ParamInfo {
    ParamInfo { name, ty, radix: Radix::Hex }
}

const fn oct(name: &'static str, ty: ParamType) -> ParamInfo {
    ParamInfo { name, ty, radix: Radix::Octal }
}

impl EventType {
    /// How many event types there are.
    pub const COUNT: usize = table::EVENTS.len();

    /// All event types in order of name.
    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..Self::COUNT).map(|i| Self(i as u16))
    }

    /// Finds an event type by its name.
    pub fn by_name(name: &str) -> Option<Self> {
        table::EVENTS.binary_search_by(|row| row.name.cmp(name)).ok().map(|i| Self(i as u16))
    }

    /// The row of this type.
    pub fn info(self) -> &'static EventInfo {
        &table::EVENTS[usize::from(self.0)]
    }

    /// The name in `evt.type`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Index in `0..COUNT`, for tables keyed by event type.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

const WORDS: usize = EventType::COUNT.div_ceil(64);

/// A set of event types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct EventSet([u64; WORDS]);

impl EventSet {
    /// The empty set.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// All event types.
    pub fn all() -> Self {
        EventType::all().collect()
    }

    /// Adds one type.
    pub fn insert(&mut self, ty: EventType) {
        self.0[ty.index() / 64] |= 1 << (ty.index() % 64);
    }

    /// Whether the type is in the set.
    pub fn contains(&self, ty: EventType) -> bool {
        self.0[ty.index() / 64] & 1 << (ty.index() % 64) != 0
    }

    /// Types in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Types in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// Types in neither.
    #[must_use]
    pub fn complement(self) -> Self {
        EventType::all().filter(|ty| !self.contains(*ty)).collect()
    }

    /// Number of types.
    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether there is no type.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// The types in order of name.
    pub fn iter(&self) -> impl Iterator<Item = EventType> + '_ {
        EventType::all().filter(|ty| self.contains(*ty))
    }
}

impl FromIterator<EventType> for EventSet {
    fn from_iter<I: IntoIterator<Item = EventType>>(types: I) -> Self {
        let mut set = Self::EMPTY;
        for ty in types {
            set.insert(ty);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_so_that_look_up_by_name_works() {
        assert!(table::EVENTS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn complement_and_union_cover_everything() {
        let open: EventSet = EventType::by_name("openat").into_iter().collect();
        assert_eq!(open.complement().union(open), EventSet::all());
        assert_eq!(open.complement().len(), EventType::COUNT - 1);
    }
}
