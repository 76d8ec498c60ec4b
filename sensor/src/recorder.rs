//! Takes what the event loop takes in, and writes it into a recording on a thread of its own.
//!
//! The loop hands over copies and never waits: records beyond a bound of memory are not written, and counted in the
//! recording at the place where they are missing. Facts are few and always taken.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use recording::{End, Frame, Writer};

use crate::pipeline::Tap;

/// Most bytes of records on their way to the thread.
const BYTES: usize = 64 << 20;

/// How long what was recorded may stay in memory.
const FLUSH: Duration = Duration::from_millis(500);

enum Message {
    Record(u16, Box<[u8]>),
    Fact(Frame<'static>),
    End(Box<End>),
}

/// What is shared with the thread.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes of records on their way.
    queued: AtomicUsize,
    /// Records that found no room since the thread last looked.
    dropped: AtomicU64,
    /// All of them.
    dropped_total: AtomicU64,
    records: AtomicU64,
    written: AtomicU64,
}

/// The end of the event loop.
pub struct RecorderTap {
    messages: Sender<Message>,
    shared: Arc<Shared>,
}

impl Tap for RecorderTap {
    fn see(&self, frame: Frame<'_>) {
        let message = match frame {
            Frame::Record(cpu, bytes) => {
                let queued = self.shared.queued.load(Relaxed);
                if queued + bytes.len() > BYTES {
                    self.shared.dropped.fetch_add(1, Relaxed);
                    self.shared.dropped_total.fetch_add(1, Relaxed);
                    return;
                }
                self.shared.queued.fetch_add(bytes.len(), Relaxed);
                Message::Record(cpu, bytes.into())
            }
            Frame::Head(head) => Message::Fact(Frame::Head(head)),
            Frame::Process(seed) => Message::Fact(Frame::Process(seed)),
            Frame::Cgroup(id, path) => Message::Fact(Frame::Cgroup(id, path)),
            Frame::Container(id, facts) => Message::Fact(Frame::Container(id, facts)),
            Frame::Gone(id) => Message::Fact(Frame::Gone(id)),
            Frame::Users(users) => Message::Fact(Frame::Users(users)),
            Frame::Clock(boot_ns) => Message::Fact(Frame::Clock(boot_ns)),
            Frame::Begin => Message::Fact(Frame::Begin),
            Frame::Lost(records) => Message::Fact(Frame::Lost(records)),
            Frame::End(end) => Message::End(end),
        };
        // The thread ends before the loop only when it cannot write; whoever controls it sees that.
        let _ = self.messages.send(message);
    }
}

/// The thread that writes.
pub struct Recorder {
    messages: Sender<Message>,
    shared: Arc<Shared>,
    thread: thread::JoinHandle<std::io::Result<()>>,
}

impl Recorder {
    /// Starts it.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(writer: Writer<impl Write + Send + 'static>) -> std::io::Result<(Self, RecorderTap)> {
        let (messages, taken) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("recorder".to_owned()).spawn(move || write(writer, &taken, &shared))?
        };
        let tap = RecorderTap { messages: messages.clone(), shared: Arc::clone(&shared) };
        Ok((Self { messages, shared, thread }, tap))
    }

    /// Whether it still writes.
    pub fn alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Records written so far.
    pub fn records(&self) -> u64 {
        self.shared.records.load(Relaxed)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Relaxed)
    }

    /// Records that found no room.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped_total.load(Relaxed)
    }

    /// Writes the last words and ends.
    ///
    /// # Errors
    /// What could not be written.
    pub fn end(self, end: End) -> std::io::Result<()> {
        let end = End { unwritten: self.dropped(), ..end };
        // Nobody takes it when the thread has failed; the thread says why.
        let _ = self.messages.send(Message::End(Box::new(end)));
        drop(self.messages);
        self.thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the recorder panicked")))
    }
}

fn write<W: Write>(mut writer: Writer<W>, taken: &Receiver<Message>, shared: &Shared) -> std::io::Result<()> {
    loop {
        let message = match taken.recv_timeout(FLUSH) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                writer.flush()?;
                shared.written.store(writer.written(), Relaxed);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return writer.flush(),
        };
        let dropped = shared.dropped.swap(0, Relaxed);
        if dropped > 0 {
            writer.write(&Frame::Lost(dropped))?;
        }
        match message {
            Message::Record(cpu, bytes) => {
                shared.queued.fetch_sub(bytes.len(), Relaxed);
                writer.write(&Frame::Record(cpu, &bytes))?;
                shared.records.store(writer.records(), Relaxed);
                shared.written.store(writer.written(), Relaxed);
            }
            Message::Fact(frame) => writer.write(&frame)?,
            Message::End(end) => {
                writer.write(&Frame::End(end))?;
                return writer.flush();
            }
        }
    }
}
