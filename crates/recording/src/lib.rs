//! Recordings of events: what a sensor saw, in the order in which it judged it, with the state that judging needs.
//!
//! ```text
//! MAGIC                     8 bytes, the last is the version of this format
//! block …                   BlockHeader: length stored, length unpacked, CRC-32 of what is stored; then LZ4
//! ```
//! A block unpacks to frames: a byte for the kind, the length as `u32`, the content. Numbers are little-endian. The
//! first frame of a recording is [`Frame::Head`], the last one [`Frame::End`]; without the latter the recording was cut
//! off. Records are the bytes that the kernel programs sent; everything else is JSON, in which a reader passes over
//! members that it does not know. Kinds of records are numbers of the version that recorded: the head names them, and
//! [`Reader`] translates them to those of the version that reads.
//!
//! Pure: readers take bytes from anything that reads, writers give them to anything that writes. What is read is an
//! allegation: lengths are bounded before anything is allocated, checksums are compared, and nothing panics.
#![forbid(unsafe_code)]

mod facts;
mod kinds;
mod player;
mod read;
mod write;

use event::{containers::ContainerFacts, state::Seed, users::Users};

pub use self::{
    facts::{End, Head},
    kinds::Kinds,
    player::{Player, Step},
    read::{ReadError, Reader},
    write::Writer,
};

/// What a recording begins with; the last byte is the version of the format.
pub const MAGIC: [u8; 8] = *b"gyrfrec\x01";

/// Most bytes of a block, stored and unpacked.
pub const BLOCK_MAX: usize = 4 << 20;

/// Bytes after which a writer ends a block.
pub(crate) const BLOCK_TARGET: usize = 256 << 10;

/// Most bytes of one frame.
pub const FRAME_MAX: usize = 1 << 20;

/// One thing that happened.
#[derive(Debug)]
pub enum Frame<'a> {
    /// Where and by what it was recorded.
    Head(Box<Head>),
    /// A record of the kernel programs, and the CPU that it was made on.
    Record(u16, &'a [u8]),
    /// What a process is that no record told of.
    Process(Box<Seed>),
    /// The path of a cgroup.
    Cgroup(u64, Vec<u8>),
    /// What a container is, by its full id.
    Container(Box<str>, Box<ContainerFacts>),
    /// A container is gone.
    Gone(Box<str>),
    /// Names of users and groups.
    Users(Box<Users>),
    /// Unix time of the zero of the boot clock, in nanoseconds.
    Clock(u64),
    /// From here on rules judge: what came before is history.
    Begin,
    /// So many records found no room and are missing here.
    Lost(u64),
    /// The end, and what there is to say at it.
    End(Box<End>),
}
