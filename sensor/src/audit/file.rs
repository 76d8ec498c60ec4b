//! The audit log as a file: one event per line. Read to its end, or followed through rotation and truncation.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::runtime::Handle;
use tracing::{info, warn};

use super::{
    metrics::{Counters, Loss},
    queue::{Batch, Queue, Work},
    server::now_ns,
};

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// How often a followed file is looked at. The API server writes when it pleases: there is nothing to be woken by on every
/// file system.
const LOOK: Duration = Duration::from_millis(100);

/// Where reading begins and whether it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All that is there.
    Once,
    /// What is written from now on.
    Follow,
    /// All that is there, and what is written from now on.
    FollowFromStart,
}

/// Reads a file, until its end or until `stop`.
pub struct Reader {
    path: PathBuf,
    queue: Queue,
    counters: Arc<Counters>,
    runtime: Handle,
    stop: Arc<AtomicBool>,
    /// Longest line in bytes.
    max_event: usize,
    /// What was read behind the last line break.
    rest: Vec<u8>,
    /// The line that is being read is too long: it is skipped to its end.
    skipping: bool,
    /// Whether alerts find little room, so that no more should come at once.
    crowded: Box<dyn Fn() -> bool + Send>,
}

impl Reader {
    /// A reader of a file. Room in the queue is waited for on `runtime`.
    pub fn new(
        path: &Path,
        queue: Queue,
        counters: Arc<Counters>,
        runtime: Handle,
        stop: Arc<AtomicBool>,
        max_event: usize,
    ) -> Self {
        let path = path.to_owned();
        Self {
            path,
            queue,
            counters,
            runtime,
            stop,
            max_event,
            rest: Vec::new(),
            skipping: false,
            crowded: Box::new(|| false),
        }
    }

    /// Reads on only while this is false.
    #[must_use]
    pub fn patient(mut self, crowded: impl Fn() -> bool + Send + 'static) -> Self {
        self.crowded = Box::new(crowded);
        self
    }

    /// Reads; everything that was read is in the queue when this returns.
    ///
    /// # Errors
    /// When the file cannot be opened at the start, or not be read.
    pub fn run(mut self, mode: Mode) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        if mode == Mode::Follow {
            file.seek(SeekFrom::End(0))?;
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            if self.stop.load(Relaxed) {
                return Ok(());
            }
            match file.read(&mut chunk) {
                Ok(0) if mode == Mode::Once => {
                    self.last_line();
                    return Ok(());
                }
                Ok(0) => match self.successor(&mut file)? {
                    Some(next) => {
                        self.last_line();
                        info!(file = %self.path.display(), "the audit log was rotated");
                        file = next;
                    }
                    None => thread::sleep(LOOK),
                },
                Ok(count) => {
                    let read = chunk.get(..count).unwrap_or_default();
                    if !self.take(read) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file that has taken the place of the one that was read to its end. One that was cut is read from its start.
    fn successor(&self, file: &mut File) -> io::Result<Option<File>> {
        let (ours, at) = (file.metadata()?, file.stream_position()?);
        if ours.len() < at {
            warn!(file = %self.path.display(), "the audit log was cut: it is read from its start");
            self.counters.lose(Loss::FileTruncated);
            file.seek(SeekFrom::Start(0))?;
            return Ok(None);
        }
        // Between the old file's going and the new one's coming there is none.
        let Ok(there) = std::fs::metadata(&self.path) else { return Ok(None) };
        if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) || ours.len() > at {
            return Ok(None);
        }
        Ok(File::open(&self.path).ok())
    }

    /// Takes in what was read; false when nobody judges any more.
    fn take(&mut self, read: &[u8]) -> bool {
        let Some(end) = memchr::memrchr(b'\n', read) else {
            self.keep(read);
            return true;
        };
        let (lines, rest) = read.split_at(end + 1);
        let mut text = std::mem::take(&mut self.rest);
        let mut lines = lines;
        if std::mem::take(&mut self.skipping) {
            let end = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
            lines = lines.get(end..).unwrap_or_default();
        }
        text.extend_from_slice(lines);
        let events = lines_of(&text);
        self.keep(rest);
        self.give(text, events)
    }

    fn keep(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.rest.len() + part.len() > self.max_event {
            self.counters.lose(Loss::EventTooLarge);
            self.rest = Vec::new();
            self.skipping = true;
            return;
        }
        self.rest.extend_from_slice(part);
    }

    /// A last line without a line break.
    fn last_line(&mut self) {
        self.skipping = false;
        let text = std::mem::take(&mut self.rest);
        let events = lines_of(&text);
        self.give(text, events);
    }

    fn give(&self, text: Vec<u8>, events: Vec<Range<usize>>) -> bool {
        if events.is_empty() {
            return true;
        }
        while (self.crowded)() && !self.stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        let Some(room) = self.runtime.block_on(self.queue.wait_for_room(text.len())) else { return false };
        // What has been judged is what `crowded` can tell of.
        self.queue.give(Work::Batch(Batch { text, events, received_ns: now_ns(), room })) && self.queue.reached()
    }
}

/// The lines that are not blank.
fn lines_of(text: &[u8]) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', text).chain([text.len()]) {
        let line = text.get(start..end).unwrap_or_default();
        if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
            lines.push(start..end);
        }
        start = end + 1;
    }
    lines
}
