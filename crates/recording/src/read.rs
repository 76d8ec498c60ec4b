//! Reads a recording.

use std::io;

use abi::record::Header;
use serde::de::DeserializeOwned;

use crate::{
    BLOCK_MAX, FRAME_MAX, Frame, MAGIC,
    facts::{CgroupForm, ContainerForm, End, Head, ProcessForm, UsersForm},
    kinds::Translation,
};

/// Kinds of frames. Numbers are never used again for something else.
pub(crate) mod kind {
    pub(crate) const HEAD: u8 = 1;
    pub(crate) const RECORD: u8 = 2;
    pub(crate) const PROCESS: u8 = 3;
    pub(crate) const CGROUP: u8 = 4;
    pub(crate) const CONTAINER: u8 = 5;
    pub(crate) const GONE: u8 = 6;
    pub(crate) const USERS: u8 = 7;
    pub(crate) const CLOCK: u8 = 8;
    pub(crate) const BEGIN: u8 = 9;
    pub(crate) const LOST: u8 = 10;
    pub(crate) const END: u8 = 11;
}

/// Why a recording cannot be read on. What was read before stands.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It does not begin as one.
    #[error("this is no recording: `gyrfalcon record` makes them")]
    NoRecording,
    /// It is of another version of the format.
    #[error(
        "this recording has version {version} of the format, this program reads version {}; use the program that recorded it, or a newer one",
        MAGIC[7]
    )]
    Version {
        /// The version in the file.
        version: u8,
    },
    /// It ends before its end.
    #[error(
        "the recording is cut off after byte {at}: the recorder was stopped hard, or the file was not copied whole"
    )]
    CutOff {
        /// Bytes up to the end of the last whole block.
        at: u64,
    },
    /// Bytes are not those that were written.
    #[error("the recording is damaged at byte {at}: {what}")]
    Damaged {
        /// Where the block begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read on after byte {at}")]
    Io {
        /// Bytes read so far.
        at: u64,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// Reads frames, block by block: no more than two blocks are in memory.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    block: Vec<u8>,
    /// Where the next frame begins in the block.
    at: usize,
    /// Bytes of the file up to the end of this block.
    read: u64,
    head: Head,
    translations: Vec<Translation>,
    /// The record that is handed out, with its kind translated.
    record: Vec<u8>,
    unknown: u64,
    ended: bool,
}

impl<R: io::Read> Reader<R> {
    /// Begins to read: up to the head.
    ///
    /// # Errors
    /// When it is no recording, or one of another version.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut magic = [0; MAGIC.len()];
        let len = fill(&mut input, &mut magic).map_err(|source| ReadError::Io { at: 0, source })?;
        if len < magic.len() || magic[..7] != MAGIC[..7] {
            return Err(ReadError::NoRecording);
        }
        if magic[7] != MAGIC[7] {
            return Err(ReadError::Version { version: magic[7] });
        }
        let mut reader = Self {
            input,
            block: Vec::new(),
            at: 0,
            read: magic.len() as u64,
            head: Head::default(),
            translations: Vec::new(),
            record: Vec::new(),
            unknown: 0,
            ended: false,
        };
        let at = reader.read;
        match reader.next_frame()? {
            Some(Frame::Head(head)) => reader.head = *head,
            _ => return Err(ReadError::Damaged { at, what: "it does not begin with its head" }),
        }
        reader.translations = reader.head.kinds.translate();
        Ok(reader)
    }

    /// Where and by what it was recorded.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Records that were passed over because this version does not know their kind.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The next frame; `None` behind the end. Records of kinds that this version does not know are counted and passed
    /// over, and so are frames that it does not know.
    ///
    /// # Errors
    /// When the recording is cut off or damaged; nothing can be read behind that.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            if self.at >= self.block.len() {
                self.next_block()?;
                continue;
            }
            let (kind, start, end) = self.frame_at()?;
            self.at = end;
            let content = self.block.get(start..end).unwrap_or_default();
            if kind == kind::RECORD {
                let Some((cpu, bytes)) = content.split_first_chunk() else {
                    return Err(self.damaged("a record is cut"));
                };
                let cpu = u16::from_le_bytes(*cpu);
                if !translate(&self.translations, bytes, &mut self.record) {
                    self.unknown += 1;
                    continue;
                }
                return Ok(Some(Frame::Record(cpu, &self.record)));
            }
            match other(kind, content) {
                Some(Some(frame)) => {
                    self.ended = matches!(frame, Frame::End(_));
                    return Ok(Some(frame));
                }
                // Of a later version.
                Some(None) => {}
                None => return Err(self.damaged("a frame does not hold what its kind says")),
            }
        }
    }

    /// Kind, start and end of the frame that begins here.
    fn frame_at(&self) -> Result<(u8, usize, usize), ReadError> {
        let rest = self.block.get(self.at..).unwrap_or_default();
        let [kind, a, b, c, d, rest @ ..] = rest else { return Err(self.damaged("a frame is cut")) };
        let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        if len > FRAME_MAX || len > rest.len() {
            return Err(self.damaged("a frame is longer than its block"));
        }
        let start = self.at + 5;
        Ok((*kind, start, start + len))
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { at: self.read, what }
    }

    fn next_block(&mut self) -> Result<(), ReadError> {
        let at = self.read;
        let io = |source| ReadError::Io { at, source };
        let mut header = [0; 12];
        if fill(&mut self.input, &mut header).map_err(io)? < header.len() {
            return Err(ReadError::CutOff { at });
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = header;
        let stored = u32::from_le_bytes([a, b, c, d]) as usize;
        let unpacked = u32::from_le_bytes([e, f, g, h]) as usize;
        if stored > BLOCK_MAX || unpacked > BLOCK_MAX || unpacked == 0 {
            return Err(ReadError::Damaged { at, what: "a block has an impossible length" });
        }
        let mut bytes = vec![0; stored];
        if fill(&mut self.input, &mut bytes).map_err(io)? < stored {
            return Err(ReadError::CutOff { at });
        }
        if crc32fast::hash(&bytes) != u32::from_le_bytes([i, j, k, l]) {
            return Err(ReadError::Damaged { at, what: "a checksum is wrong" });
        }
        self.block.resize(unpacked, 0);
        match lz4_flex::block::decompress_into(&bytes, &mut self.block) {
            Ok(len) if len == unpacked => {}
            Ok(_) | Err(_) => return Err(ReadError::Damaged { at, what: "a block cannot be unpacked" }),
        }
        self.at = 0;
        self.read += (header.len() + stored) as u64;
        Ok(())
    }
}

/// Fills the buffer as far as there is anything.
fn fill(input: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Copies a record with this version's number of its kind; `false` when it has none.
fn translate(table: &[Translation], bytes: &[u8], record: &mut Vec<u8>) -> bool {
    let Some(header) = Header::decode(bytes) else { return false };
    let Some(Translation::Same(kind)) = table.get(usize::from(header.kind)) else { return false };
    record.clear();
    record.extend_from_slice(bytes);
    // The kind is the first member of the header.
    if let Some(front) = record.first_chunk_mut() {
        *front = kind.to_le_bytes();
    }
    true
}

/// A frame that is no record. `Some(None)`: its kind is not known. `None`: it does not hold what it should.
fn other(kind: u8, content: &[u8]) -> Option<Option<Frame<'static>>> {
    fn of<T: DeserializeOwned>(content: &[u8]) -> Option<T> {
        serde_json::from_slice(content).ok()
    }
    Some(Some(match kind {
        kind::HEAD => Frame::Head(Box::new(of::<Head>(content)?)),
        kind::PROCESS => Frame::Process(Box::new(of::<ProcessForm>(content)?.into())),
        kind::CGROUP => {
            let form: CgroupForm = of(content)?;
            Frame::Cgroup(form.id, form.path())
        }
        kind::CONTAINER => {
            let form: ContainerForm = of(content)?;
            Frame::Container(form.id.clone(), Box::new(form.facts()))
        }
        kind::GONE => Frame::Gone(of(content)?),
        kind::USERS => Frame::Users(Box::new(of::<UsersForm>(content)?.into())),
        kind::CLOCK => Frame::Clock(of(content)?),
        kind::BEGIN => Frame::Begin,
        kind::LOST => Frame::Lost(of(content)?),
        kind::END => Frame::End(Box::new(of::<End>(content)?)),
        _ => return Some(None),
    }))
}
