//! Writes a recording.

use std::io;

use serde::Serialize;

use crate::{
    BLOCK_TARGET, FRAME_MAX, Frame, MAGIC,
    facts::{CgroupForm, ContainerForm, Head, ProcessForm, UsersForm},
    read::kind,
};

/// Writes frames, block by block.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
    records: u64,
    written: u64,
}

impl<W: io::Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// Whatever `out` answers.
    pub fn new(mut out: W, head: &Head) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        let mut writer =
            Self { out, block: Vec::with_capacity(BLOCK_TARGET * 2), records: 0, written: MAGIC.len() as u64 };
        writer.json(kind::HEAD, head)?;
        Ok(writer)
    }

    /// Adds a frame. A head is none that can be added: it comes first.
    ///
    /// # Errors
    /// Whatever the destination answers; what is too large for a frame is refused.
    pub fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        match frame {
            Frame::Head(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a recording has one head")),
            Frame::Record(cpu, bytes) => {
                self.records += 1;
                self.frame(kind::RECORD, &[&cpu.to_le_bytes(), bytes])
            }
            Frame::Process(seed) => self.json(kind::PROCESS, &ProcessForm::from(&**seed)),
            Frame::Cgroup(id, path) => self.json(kind::CGROUP, &CgroupForm::new(*id, path)),
            Frame::Container(id, facts) => self.json(kind::CONTAINER, &ContainerForm::new(id, facts)),
            Frame::Gone(id) => self.json(kind::GONE, id),
            Frame::Users(users) => self.json(kind::USERS, &UsersForm::from(&**users)),
            Frame::Clock(boot_ns) => self.json(kind::CLOCK, boot_ns),
            Frame::Begin => self.json(kind::BEGIN, &()),
            Frame::Lost(records) => self.json(kind::LOST, records),
            Frame::End(end) => {
                let mut end = end.clone();
                end.records = self.records;
                self.json(kind::END, &end)
            }
        }
    }

    /// Writes what is there so far, so that a reader finds it whatever happens.
    ///
    /// # Errors
    /// Whatever the destination answers.
    pub fn flush(&mut self) -> io::Result<()> {
        self.end_block()?;
        self.out.flush()
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    fn json(&mut self, kind: u8, content: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(content)?;
        self.frame(kind, &[&text])
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).ok().filter(|len| *len as usize <= FRAME_MAX);
        let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too large for a frame"))?;
        self.block.push(kind);
        self.block.extend(len.to_le_bytes());
        parts.iter().for_each(|part| self.block.extend_from_slice(part));
        if self.block.len() >= BLOCK_TARGET { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let stored = lz4_flex::block::compress(&self.block);
        // A block is at most its target and one frame: far below 4 GiB.
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        let header = [number(stored.len()), number(self.block.len()), crc32fast::hash(&stored).to_le_bytes()];
        self.out.write_all(header.as_flattened())?;
        self.out.write_all(&stored)?;
        self.written += (header.as_flattened().len() + stored.len()) as u64;
        self.block.clear();
        Ok(())
    }
}
