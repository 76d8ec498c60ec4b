//! Plays a recording: from frames to the state that rules judge in.

use std::io;

use event::{
    decode::Record,
    event::Event,
    state::{Limits, State},
    value::Arena,
};

use crate::{End, Frame, ReadError, Reader};

/// Plays frame after frame.
#[derive(Debug)]
pub struct Player<R> {
    reader: Reader<R>,
    state: State,
    number: u64,
    refused: u64,
    lost: u64,
    end: Option<Box<End>>,
    begun: bool,
}

/// What a step of a player came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An event, which was judged.
    Event,
    /// State only.
    State,
    /// The end.
    End,
}

impl<R: io::Read> Player<R> {
    /// Begins to play.
    ///
    /// # Errors
    /// When it is no recording that this version reads.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let reader = Reader::new(input)?;
        let state = State::new(Limits::default(), reader.head().host());
        Ok(Self { reader, state, number: 0, refused: 0, lost: 0, end: None, begun: false })
    }

    /// Plays the next frame; `judge` sees it when it is an event that rules would have seen. The arena is to be reset
    /// between steps.
    ///
    /// # Errors
    /// When the recording is cut off or damaged: what was played until then stands.
    pub fn step(&mut self, arena: &Arena, judge: impl FnOnce(&Event<'_>)) -> Result<Step, ReadError> {
        let Self { reader, state, .. } = self;
        let Some(frame) = reader.next_frame()? else { return Ok(Step::End) };
        match frame {
            Frame::Record(cpu, bytes) => {
                let Ok(record) = Record::decode(bytes) else {
                    self.refused += 1;
                    return Ok(Step::State);
                };
                let record = record.on_cpu(cpu);
                state.apply(&record);
                if !self.begun {
                    return Ok(Step::State);
                }
                let Some(event) = Event::new(&record, state, arena, self.number + 1) else { return Ok(Step::State) };
                self.number += 1;
                judge(&event);
                return Ok(Step::Event);
            }
            Frame::Process(seed) => state.seed(&seed),
            Frame::Cgroup(id, path) => state.learn_cgroup(id, &path),
            Frame::Container(id, facts) => {
                state.set_container(&id, *facts);
            }
            Frame::Gone(id) => state.forget_container(&id),
            Frame::Users(users) => state.users = *users,
            Frame::Clock(boot_ns) => state.host.boot_ns = boot_ns,
            Frame::Begin => self.begun = true,
            Frame::Lost(records) => self.lost = self.lost.saturating_add(records),
            Frame::End(end) => {
                self.end = Some(end);
                return Ok(Step::End);
            }
            // Only at the beginning, where the reader takes it.
            Frame::Head(_) => {}
        }
        Ok(Step::State)
    }

    /// The reader: head, and what it passed over.
    pub fn reader(&self) -> &Reader<R> {
        &self.reader
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.number
    }

    /// Records that do not decode.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Records that are missing.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What the recorder said at the end, once it has been reached.
    pub fn end(&self) -> Option<&End> {
        self.end.as_deref()
    }
}
