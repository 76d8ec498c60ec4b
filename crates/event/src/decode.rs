//! Turns bytes of the ring into [`Record`]s.
//!
//! The bytes come from another program, so nothing is assumed: lengths are checked before use, and what this side does
//! not know is an error, not a guess. A record keeps borrowing the bytes; blocks are found by tag in a small fixed
//! table, so reading a field never searches. Names and state are added later, by [`crate::event`].

use std::sync::LazyLock;

use abi::{
    record::{
        ANCESTORS, ARGUMENTS, Ancestor, BlockHeader, ExecFacts, FdFacts, Header, OpenFd, STANDARD_FDS, block_size,
        flag, kind, status, tag,
    },
    syscalls::{GENERIC, SYSCALLS},
};

use crate::catalogue::EventType;

/// Why bytes are not a record. Each variant names the step that failed and its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the header.
    #[error("a header needs {} bytes, there are {have}", Header::SIZE)]
    ShortHeader {
        /// Length of the input.
        have: usize,
    },
    /// No event has this kind.
    #[error("no event has kind {kind}")]
    UnknownKind {
        /// The kind in the header.
        kind: u16,
    },
    /// More ancestors than a record may have.
    #[error("{count} ancestors, at most {} are allowed", ANCESTORS)]
    TooManyAncestors {
        /// The count in the header.
        count: u32,
    },
    /// The bytes end inside the ancestors.
    #[error("{count} ancestors end at byte {end}, there are {have}")]
    ShortAncestors {
        /// The count in the header.
        count: u32,
        /// Where they would end.
        end: usize,
        /// Length of the input.
        have: usize,
    },
    /// The bytes end inside the header of a block.
    #[error("the block at byte {at} is cut off")]
    ShortBlockHeader {
        /// Where the block begins.
        at: usize,
    },
    /// The bytes end inside a block.
    #[error("block {tag:#x} at byte {at} has {len} bytes, {have} are left")]
    ShortBlock {
        /// The block's tag.
        tag: u8,
        /// Where the block begins.
        at: usize,
        /// Length it claims.
        len: usize,
        /// Bytes left behind its header.
        have: usize,
    },
    /// A tag that this version does not know, or a parameter that the event does not have.
    #[error("block {tag:#x} at byte {at} is unknown")]
    UnknownTag {
        /// The tag.
        tag: u8,
        /// Where the block begins.
        at: usize,
    },
    /// A status that this version does not know.
    #[error("block {tag:#x} has unknown status {status}")]
    UnknownStatus {
        /// The block's tag.
        tag: u8,
        /// The status.
        status: u8,
    },
    /// The same tag twice.
    #[error("block {tag:#x} at byte {at} is there twice")]
    Duplicate {
        /// The tag.
        tag: u8,
        /// Where the second block begins.
        at: usize,
    },
    /// A block of fixed size has another size.
    #[error("block {tag:#x} has {have} bytes instead of {want}")]
    WrongSize {
        /// The block's tag.
        tag: u8,
        /// Its fixed size.
        want: usize,
        /// Its size in the record.
        have: usize,
    },
}

impl DecodeError {
    /// The stable word for metric labels and logs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ShortHeader { .. } => "short_header",
            Self::UnknownKind { .. } => "unknown_kind",
            Self::TooManyAncestors { .. } => "too_many_ancestors",
            Self::ShortAncestors { .. } => "short_ancestors",
            Self::ShortBlockHeader { .. } => "short_block_header",
            Self::ShortBlock { .. } => "short_block",
            Self::UnknownTag { .. } => "unknown_tag",
            Self::UnknownStatus { .. } => "unknown_status",
            Self::Duplicate { .. } => "duplicate_block",
            Self::WrongSize { .. } => "wrong_size",
        }
    }
}

/// Whether a block holds what was asked for. Source: [`abi::record::status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Whole.
    Ok,
    /// The memory could not be read; the block is empty.
    Fault,
    /// Longer than the limit: the front (of components, the leaf end).
    Truncated,
    /// A null pointer was passed.
    Null,
    /// Components of something that has no path, such as `memfd:x`.
    Pseudo,
}

impl Status {
    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            status::OK => Some(Self::Ok),
            status::FAULT => Some(Self::Fault),
            status::TRUNCATED => Some(Self::Truncated),
            status::NULL => Some(Self::Null),
            status::PSEUDO => Some(Self::Pseudo),
            _ => None,
        }
    }

    /// The byte on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Ok => status::OK,
            Self::Fault => status::FAULT,
            Self::Truncated => status::TRUNCATED,
            Self::Null => status::NULL,
            Self::Pseudo => status::PSEUDO,
        }
    }
}

/// One block of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Whether it holds what was asked for.
    pub status: Status,
    /// Its content.
    pub bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The content as an integer, when it is one.
    pub fn int(&self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes.try_into().ok()?))
    }

    /// The content as a C string: bytes up to the first NUL. `None` when the pointer was null or could not be read.
    pub fn text(&self) -> Option<&'a [u8]> {
        match self.status {
            Status::Ok | Status::Truncated | Status::Pseudo => Some(until_nul(self.bytes)),
            Status::Fault | Status::Null => None,
        }
    }

    /// The content as the names of a path.
    pub fn components(&self) -> Components<'a> {
        Components { status: self.status, bytes: self.bytes }
    }
}

/// The bytes before the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    memchr::memchr(0, bytes).map_or(bytes, |end| &bytes[..end])
}

/// The names of a path, leaf first, as the kernel's dentries give them.
#[derive(Debug, Clone, Copy)]
pub struct Components<'a> {
    /// [`Status::Truncated`] when names at the root end are missing; [`Status::Pseudo`] when it is no path.
    pub status: Status,
    bytes: &'a [u8],
}

impl<'a> Iterator for Components<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.bytes.split_first()?;
        match rest.split_at_checked(usize::from(*len)) {
            Some((name, rest)) => {
                self.bytes = rest;
                Some(until_nul(name))
            }
            None => {
                self.bytes = &[];
                None
            }
        }
    }
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A successful exec.
    Exec,
    /// A new process; the record describes the child.
    Fork,
    /// The last thread of a process ended.
    Exit,
    /// A system call: index in [`SYSCALLS`].
    Syscall(u16),
    /// A system call without a row: index in [`GENERIC`].
    Generic(u16),
}

impl Kind {
    fn from_wire(kind: u16) -> Option<Self> {
        match kind {
            kind::EXEC => Some(Self::Exec),
            kind::FORK => Some(Self::Fork),
            kind::EXIT => Some(Self::Exit),
            kind::FIRST_GENERIC.. => {
                let call = kind - kind::FIRST_GENERIC;
                (usize::from(call) < GENERIC.len()).then_some(Self::Generic(call))
            }
            _ => {
                let row = kind.checked_sub(kind::FIRST_SYSCALL)?;
                (usize::from(row) < SYSCALLS.len()).then_some(Self::Syscall(row))
            }
        }
    }

    /// How many parameter blocks a record of this kind may have.
    fn params(self) -> usize {
        match self {
            Self::Exec | Self::Fork | Self::Exit | Self::Generic(_) => 0,
            Self::Syscall(row) => SYSCALLS[usize::from(row)].params.len(),
        }
    }

    /// The event type that rules see; `None` for [`Kind::Fork`], which only changes state. Falco reports a successful
    /// execveat as `execve`, and so does the one hook that both end in here.
    pub fn event_type(self) -> Option<EventType> {
        static TYPES: LazyLock<(EventType, EventType, Vec<EventType>, Vec<EventType>)> = LazyLock::new(|| {
            let named = |name| EventType::by_name(name).expect("a test holds the two tables together");
            let rows = SYSCALLS.iter().map(|row| named(row.name)).collect();
            (named("execve"), named("procexit"), rows, GENERIC.iter().map(|call| named(call.name)).collect())
        });
        match self {
            Self::Exec => Some(TYPES.0),
            Self::Exit => Some(TYPES.1),
            Self::Fork => None,
            Self::Syscall(row) => Some(TYPES.2[usize::from(row)]),
            Self::Generic(call) => Some(TYPES.3[usize::from(call)]),
        }
    }
}

/// Most parameters of an event that come in blocks; those of the clone family that lie behind do not.
pub(crate) const PARAMS: usize = 16;
/// Tags from `0x80` on.
const NAMED: usize = (tag::END - tag::REALPATH) as usize;
/// Positions in the table of blocks: parameters, their bases, the named.
const SLOTS: usize = 2 * PARAMS + NAMED;

/// Where the content of a block begins; 0 (inside the header) for "not there". Its length and status are in front of it.
type Slot = u16;

/// One decoded record: the header, and where its parts lie.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Who and when.
    pub header: Header,
    /// What it is.
    pub kind: Kind,
    /// The CPU that it was made on, when whoever read it says so: it is that of the ring.
    pub cpu: Option<u16>,
    bytes: &'a [u8],
    slots: [Slot; SLOTS],
}

impl<'a> Record<'a> {
    /// Decodes one record that fills `bytes`.
    // A record is large: inlined, it is made where it will be.
    #[inline(always)]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Some(header) = Header::decode(bytes) else { return Err(DecodeError::ShortHeader { have: bytes.len() }) };
        let kind = Kind::from_wire(header.kind).ok_or(DecodeError::UnknownKind { kind: header.kind })?;
        if header.ancestors as usize > ANCESTORS {
            return Err(DecodeError::TooManyAncestors { count: header.ancestors });
        }
        let mut at = Header::SIZE + header.ancestors as usize * Ancestor::SIZE;
        if at > bytes.len() {
            return Err(DecodeError::ShortAncestors { count: header.ancestors, end: at, have: bytes.len() });
        }
        let mut record = Self { header, kind, cpu: None, bytes, slots: [0; SLOTS] };
        let params = kind.params().min(PARAMS);
        while at < bytes.len() {
            at = record.block_at(at, params)?;
        }
        Ok(record)
    }

    /// The same record, made on this CPU.
    #[must_use]
    pub const fn on_cpu(mut self, cpu: u16) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Files the block at `at`; returns where the next one begins.
    #[inline]
    fn block_at(&mut self, at: usize, params: usize) -> Result<usize, DecodeError> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let front = BlockHeader::decode(rest).ok_or(DecodeError::ShortBlockHeader { at })?;
        let [tag, status] = front.tag_status.to_le_bytes();
        let len = usize::from(front.len);
        let have = rest.len() - BlockHeader::SIZE;
        if len > have {
            return Err(DecodeError::ShortBlock { tag, at, len, have });
        }
        if Status::from_wire(status).is_none() {
            return Err(DecodeError::UnknownStatus { tag, status });
        }
        let want = match tag {
            tag::EXEC => ExecFacts::SIZE,
            tag::FD | tag::STANDARD..tag::STANDARD_PATH => FdFacts::SIZE,
            tag::KINDS => len.next_multiple_of(OpenFd::SIZE),
            tag::ARGUMENTS => 8 * ARGUMENTS,
            tag::CREATOR => 16,
            _ => len,
        };
        if len != want {
            return Err(DecodeError::WrongSize { tag, want, have: len });
        }
        let index = slot(tag, params).ok_or(DecodeError::UnknownTag { tag, at })?;
        let start =
            u16::try_from(at + BlockHeader::SIZE).map_err(|_| DecodeError::ShortBlock { tag, at, len, have })?;
        let slot = &mut self.slots[index];
        if *slot != 0 {
            return Err(DecodeError::Duplicate { tag, at });
        }
        *slot = start;
        Ok(at + block_size(len))
    }

    #[inline]
    fn at(&self, slot: Slot) -> Option<Block<'a>> {
        let start = usize::from(slot);
        let front = BlockHeader::decode(self.bytes.get(start.checked_sub(BlockHeader::SIZE)?..)?)?;
        let bytes = self.bytes.get(start..start + usize::from(front.len))?;
        Some(Block { status: Status::from_wire(front.tag_status.to_le_bytes()[1])?, bytes })
    }

    /// The bytes that it was decoded from.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The block with a tag of [`abi::record::tag`].
    pub fn block(&self, tag: u8) -> Option<Block<'a>> {
        self.at(self.slots[slot(tag, self.kind.params().min(PARAMS))?])
    }

    /// The block of a parameter, by its index in the event's row.
    pub fn param(&self, index: usize) -> Option<Block<'a>> {
        self.at(*self.slots[..PARAMS].get(index)?)
    }

    /// The directory that the relative path in a parameter starts from.
    pub fn base(&self, index: usize) -> Option<Block<'a>> {
        self.at(*self.slots[PARAMS..2 * PARAMS].get(index)?)
    }

    /// Facts of an exec.
    pub fn exec(&self) -> Option<ExecFacts> {
        ExecFacts::decode(self.block(tag::EXEC)?.bytes)
    }

    /// Of a new process, the one that made it: its process id and start.
    pub fn creator(&self) -> Option<(u32, u64)> {
        let told = self.block(tag::CREATOR).and_then(|block| {
            let (tgid, start) = block.bytes.split_first_chunk::<8>()?;
            let tgid = u32::try_from(u64::from_le_bytes(*tgid)).ok()?;
            Some((tgid, u64::from_le_bytes(*start.first_chunk::<8>()?)))
        });
        told.or_else(|| self.parent().map(|parent| (parent.tgid, parent.start)))
    }

    /// What the event's descriptor is.
    pub fn fd(&self) -> Option<FdFacts> {
        FdFacts::decode(self.block(tag::FD)?.bytes)
    }

    /// What descriptor 0, 1 or 2 is; `None` when it is not open, or nobody asked.
    pub fn standard_fd(&self, fd: u8) -> Option<FdFacts> {
        let tag = (usize::from(fd) < STANDARD_FDS).then(|| tag::STANDARD + fd)?;
        FdFacts::decode(self.block(tag)?.bytes)
    }

    /// The open descriptors of the process by number, those below [`abi::record::KINDS_MAX`]; `None` when nobody asked.
    pub fn open_fds(&self) -> Option<impl DoubleEndedIterator<Item = OpenFd> + use<'a>> {
        Some(self.block(tag::KINDS)?.bytes.chunks_exact(OpenFd::SIZE).filter_map(OpenFd::decode))
    }

    /// The event type that rules see; see [`Kind::event_type`].
    pub fn event_type(&self) -> Option<EventType> {
        self.kind.event_type()
    }

    /// One process in the line of parents, as the kernel saw it; 0 is the parent.
    pub fn ancestor(&self, index: usize) -> Option<Ancestor> {
        if index >= self.header.ancestors as usize {
            return None;
        }
        Ancestor::decode(self.bytes.get(Header::SIZE + index * Ancestor::SIZE..)?)
    }

    /// The line of parents, parent first.
    pub fn ancestors(&self) -> impl Iterator<Item = Ancestor> + '_ {
        (0..ANCESTORS).map_while(|index| self.ancestor(index))
    }

    /// The parent.
    pub fn parent(&self) -> Option<Ancestor> {
        self.ancestor(0)
    }

    /// Whether one of the [`flag`] bits is set.
    pub fn has(&self, bit: u16) -> bool {
        self.header.flags & bit != 0
    }

    /// Whether blocks are missing because the record outgrew its buffer.
    pub fn is_incomplete(&self) -> bool {
        self.has(flag::INCOMPLETE)
    }

    /// Name of the thread, as borrowed bytes of the record.
    pub fn comm(&self) -> &'a [u8] {
        // The name is the last member of the header.
        until_nul(self.bytes.get(Header::SIZE - 16..Header::SIZE).unwrap_or_default())
    }

    /// Name of an ancestor, as borrowed bytes of the record; 0 is the parent.
    pub fn ancestor_comm(&self, index: usize) -> Option<&'a [u8]> {
        if index >= self.header.ancestors as usize {
            return None;
        }
        let end = Header::SIZE + (index + 1) * Ancestor::SIZE;
        Some(until_nul(self.bytes.get(end - 16..end)?))
    }
}

/// Position of a tag in the table, for a record of a kind with so many parameters.
#[inline]
fn slot(tag: u8, params: usize) -> Option<usize> {
    let index = usize::from(tag & !tag::BASE);
    match tag {
        0..tag::BASE => (index < params).then_some(index),
        tag::BASE..tag::REALPATH => (index < params).then_some(PARAMS + index),
        _ => {
            let named = usize::from(tag - tag::REALPATH);
            (named < NAMED).then_some(2 * PARAMS + named)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Encoder;

    #[test]
    fn parts_are_found_by_tag() {
        let bytes = Encoder::syscall("openat")
            .process(7, 70)
            .ancestor(1, 1, "init")
            .int("fd", 3)
            .text("name", "etc/passwd")
            .base("name", "/srv")
            .encode();
        let record = Record::decode(&bytes).expect("valid");
        assert_eq!(record.kind.event_type().map(EventType::name), Some("openat"));
        assert_eq!(record.param(0).and_then(|b| b.int()), Some(3));
        assert_eq!(record.param(2).and_then(|b| b.text()), Some(&b"etc/passwd"[..]));
        assert_eq!(record.base(2).map(|b| b.components().collect::<Vec<_>>()), Some(vec![&b"srv"[..]]));
        assert_eq!(record.ancestor_comm(0), Some(&b"init"[..]));
        assert!(record.param(1).is_none() && record.block(tag::CWD).is_none());
    }

    #[test]
    fn errors_name_the_step() {
        let good = Encoder::syscall("dup").int("res", 3).encode();
        let reason = |bytes: &[u8]| Record::decode(bytes).map(|_| "fine").unwrap_or_else(|e| e.reason());
        assert_eq!(reason(&good[..10]), "short_header");
        assert_eq!(reason(&good[..Header::SIZE + 4]), "short_block_header");
        assert_eq!(reason(&good[..good.len() - 1]), "short_block");
        let twice = Encoder::syscall("dup").int("res", 3).int("res", 4).encode();
        assert_eq!(reason(&twice), "duplicate_block");
        let edit = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(reason(&edit(0, 0xff)), "unknown_kind");
        assert_eq!(reason(&edit(4, 17)), "too_many_ancestors");
        assert_eq!(reason(&edit(4, 9)), "short_ancestors");
        assert_eq!(reason(&edit(Header::SIZE, 2)), "unknown_tag");
        assert_eq!(reason(&edit(Header::SIZE, tag::END)), "unknown_tag");
        for fixed in [tag::FD, tag::STANDARD + 2, tag::KINDS] {
            assert_eq!(reason(&edit(Header::SIZE, fixed)), "wrong_size");
        }
        assert_eq!(reason(&edit(Header::SIZE + 1, 9)), "unknown_status");
    }

    #[test]
    fn the_name_is_the_last_member_of_the_header_and_of_an_ancestor() {
        let bytes = Encoder::exec().comm("nginx").ancestor(1, 1, "init").encode();
        let record = Record::decode(&bytes).expect("valid");
        assert_eq!((record.comm(), until_nul(&record.header.comm)), (&b"nginx"[..], &b"nginx"[..]));
        assert_eq!(record.ancestor_comm(0), Some(&b"init"[..]));
    }

    #[test]
    fn every_row_fits_the_table_of_blocks_and_has_an_event_type() {
        for (row, syscall) in SYSCALLS.iter().enumerate() {
            // `flags` is the last parameter of the clone family that is collected.
            let collected = syscall.params.iter().position(|name| *name == "comm").map_or(syscall.params.len(), |_| 16);
            assert!(collected <= PARAMS, "{}", syscall.name);
            assert_eq!(Kind::Syscall(row as u16).event_type().map(EventType::name), Some(syscall.name));
        }
        for (index, call) in GENERIC.iter().enumerate() {
            assert_eq!(Kind::Generic(index as u16).event_type().map(EventType::name), Some(call.name));
        }
    }

    #[test]
    fn the_catalogue_and_the_table_of_system_calls_name_the_same_parameters() {
        for syscall in SYSCALLS {
            let info = EventType::by_name(syscall.name).expect("in the catalogue").info();
            let names: Vec<_> = info.params.iter().map(|p| p.name).collect();
            if matches!(syscall.name, "execve" | "execveat") {
                // A failed exec collects its result; the others come from the caller's state and from facts.
                assert_eq!(syscall.params, &names[..1]);
            } else {
                assert_eq!(syscall.params, names, "{}", syscall.name);
            }
        }
    }
}
