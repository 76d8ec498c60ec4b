//! The files of the spool, for the one thread that writes them.
//!
//! Alerts are appended, then made durable by [`Store::sync`]; only then do others see them. [`Store::save`] writes the
//! state, which is needed before segments are removed, and otherwise saves counting again after a crash.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use link::proto;
use prost::Message;
use rules::alert::Priority;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    ENDING, Index, Limits, Loss, Segment, Spool, Totals, frame, segment_path,
    state::{self, State},
};

/// Why the spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder cannot be made, read or written.
    #[error("cannot use the spool in {}; is --state-dir writable and is there room?", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread of the spool")]
    Thread(#[source] io::Error),
}

/// Alerts at least as serious as this push out older ones when the spool is full.
const SERIOUS: Priority = Priority::Warning;

/// The files.
#[derive(Debug)]
pub struct Store {
    spool: Arc<Spool>,
    limits: Limits,
    /// The segment that is being written, and its length so far.
    current: Option<Current>,
    /// Number of the last alert that was appended.
    last: u64,
    /// Appended and not written yet.
    buffer: Vec<u8>,
    totals: Totals,
    given_up: u64,
    /// What is on disk does not have the last counts.
    unsaved: bool,
    /// Alerts at the end of the current segment that are not durable yet: unit, rule and time of each.
    fresh: Vec<Fresh>,
    /// The disk refused the last write: said once.
    failing: bool,
}

#[derive(Debug)]
struct Current {
    first: u64,
    file: File,
    /// Bytes in the file.
    written: u64,
}

#[derive(Debug)]
struct Fresh {
    unit: Box<str>,
    rule: Box<str>,
    time_ns: u64,
}

impl Store {
    /// Opens a folder, or makes it. What a crash has left half-written is cut off.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, SpoolError> {
        Self::read(folder, limits).map_err(|source| SpoolError::Folder { folder: folder.to_owned(), source })
    }

    fn read(folder: &Path, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut firsts = segments(folder)?;
        let (state, known) = match state::read(folder)? {
            state::Read::Good(state) => (state, true),
            state::Read::None => (new_state(&firsts)?, false),
            state::Read::Damaged => {
                warn!(folder = %folder.display(), "the state of the spool is damaged: counts begin anew");
                (new_state(&firsts)?, false)
            }
        };
        // Those that were given up before a crash kept them from being removed.
        while let [first, second, ..] = firsts[..]
            && second <= state.given_up.saturating_add(1)
        {
            fs::remove_file(segment_path(folder, first))?;
            firsts.remove(0);
        }

        let mut totals = Totals::from_counts(state.units);
        let mut last = state.acked.max(state.counted).max(state.given_up);
        let mut index = Index { acked: state.acked, lost: state.lost, ..Index::default() };
        for (at, first) in firsts.iter().enumerate() {
            let path = segment_path(folder, *first);
            let newest = at + 1 == firsts.len();
            let mut bytes = fs::metadata(&path)?.len();
            let counted = firsts.get(at + 1).is_some_and(|next| *next <= state.counted + 1);
            if newest || !counted {
                bytes = scan(&path, |alert| {
                    if alert.seq > state.counted && known {
                        totals.hit(&alert.unit, &alert.rule, 1, 0, alert.time_ns);
                    }
                    last = last.max(alert.seq);
                })?;
            }
            last = last.max(first - 1);
            if newest {
                cut(&path, bytes)?;
            }
            index.segments.push_back(Segment { first: *first, bytes });
        }
        let mut published = Totals::default();
        published.follow(&totals);
        let spool = Arc::new(Spool {
            folder: folder.to_owned(),
            id: state.id.into(),
            index: Mutex::new(index),
            totals: Mutex::new(published),
            durable: watch::Sender::new(last),
            losses: Default::default(),
        });
        let mut store = Self {
            spool,
            limits,
            current: None,
            last,
            buffer: Vec::new(),
            totals,
            given_up: state.given_up,
            unsaved: true,
            fresh: Vec::new(),
            failing: false,
        };
        if let Some(first) = firsts.last() {
            let file = OpenOptions::new().append(true).open(store.spool.path(*first))?;
            let written = file.metadata()?.len();
            store.current = Some(Current { first: *first, file, written });
        }
        store.try_save()?;
        info!(spool = &*store.spool.id, alerts = store.spool.waiting(), "spool opened");
        Ok(store)
    }

    /// What other threads see.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// Gives an alert its number and appends it. One that finds no room is counted as a hit and as lost.
    pub fn append(&mut self, mut alert: proto::Alert, priority: Priority) {
        // The operator may know of numbers that a failing disk has forgotten.
        self.last = self.last.max(self.spool.acked());
        alert.seq = self.last + 1;
        let content = alert.encode_to_vec();
        let size = (content.len() + frame::HEAD) as u64;
        if content.len() > super::ALERT_BYTES {
            return self.refuse(&alert, Loss::AlertTooLarge);
        }
        if !self.make_room(size, priority) {
            return self.refuse(&alert, Loss::SpoolFull);
        }
        if self.rotate(size).is_err() || !frame::push(&mut self.buffer, &content) {
            return self.refuse(&alert, Loss::SpoolFailed);
        }
        self.last = alert.seq;
        self.fresh.push(Fresh { unit: alert.unit.into(), rule: alert.rule.into(), time_ns: alert.time_ns });
    }

    fn refuse(&mut self, alert: &proto::Alert, loss: Loss) {
        self.lose(loss, 1);
        self.totals.hit(&alert.unit, &alert.rule, 1, 0, alert.time_ns);
        self.unsaved = true;
    }

    /// Counts alerts that are lost.
    pub fn lose(&mut self, loss: Loss, alerts: u64) {
        self.spool.lock().lost += alerts;
        self.spool.count(loss, alerts);
        self.unsaved = true;
    }

    /// Counts hits that have no alert here.
    pub fn count(&mut self, unit: &str, rule: &str, hits: u64, suppressed: u64, time_ns: u64) {
        self.totals.hit(unit, rule, hits, suppressed, time_ns);
        self.unsaved = true;
    }

    /// Bytes that are not durable.
    pub fn pending(&self) -> u64 {
        let written = self.current.as_ref().map_or(0, |current| current.written);
        let durable = self.spool.lock().segments.back().map_or(0, |segment| segment.bytes);
        self.buffer.len() as u64 + written.saturating_sub(durable)
    }

    /// Whether counts changed since they were saved.
    pub fn unsaved(&self) -> bool {
        self.unsaved
    }

    /// Hands what was appended to the system: it then outlives this process.
    pub fn write(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        if let Err(error) = self.try_write() {
            self.fail(&error);
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.file.write_all(&self.buffer)?;
        current.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes everything durable, and shows it.
    pub fn sync(&mut self) {
        self.write();
        if self.fresh.is_empty() {
            return;
        }
        let synced = self.current.as_ref().map_or(Ok(()), |current| current.file.sync_data());
        match synced {
            Ok(()) => self.show(),
            Err(error) => self.fail(&error),
        }
    }

    fn show(&mut self) {
        if std::mem::take(&mut self.failing) {
            info!("the spool can be written again");
        }
        for fresh in self.fresh.drain(..) {
            self.totals.hit(&fresh.unit, &fresh.rule, 1, 0, fresh.time_ns);
        }
        self.unsaved = true;
        if let (Some(current), Some(segment)) = (&self.current, self.spool.lock().segments.back_mut()) {
            segment.bytes = current.written;
        }
        self.spool.totals().follow(&self.totals);
        self.spool.durable.send_replace(self.last);
    }

    /// Takes back what could not be written: it was never shown to anyone.
    fn fail(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            warn!(error = %error, "cannot write the spool: alerts are lost; is the disk of --state-dir full?");
        }
        self.buffer.clear();
        let lost = self.fresh.len() as u64;
        for fresh in std::mem::take(&mut self.fresh) {
            self.totals.hit(&fresh.unit, &fresh.rule, 1, 0, fresh.time_ns);
        }
        self.last -= lost;
        self.lose(Loss::SpoolFailed, lost);
        let durable = self.spool.lock().segments.back().map_or(0, |segment| segment.bytes);
        if let Some(current) = &mut self.current {
            let cut = current.file.set_len(durable).and_then(|()| current.file.sync_data());
            current.written = durable;
            // What cannot be cut off must not be followed by more.
            if cut.is_err() {
                self.spool.lock().begin_anew = true;
            }
        }
    }

    /// Saves counts and acknowledgement, and removes segments that nobody needs. A failure is said once; it is tried
    /// again with the next change.
    pub fn save(&mut self) {
        self.sync();
        if let Err(error) = self.try_save() {
            if !std::mem::replace(&mut self.failing, true) {
                warn!(error = %error, "cannot save the state of the spool; is the disk of --state-dir full?");
            }
            return;
        }
        self.spool.totals().follow(&self.totals);
    }

    fn try_save(&mut self) -> io::Result<()> {
        let (acked, lost) = {
            let index = self.spool.lock();
            (index.acked, index.lost)
        };
        let state = State {
            id: self.spool.id.to_string(),
            acked,
            counted: self.last,
            lost,
            given_up: self.given_up,
            units: self.totals.since(0).0,
        };
        state::write(&self.spool.folder, &state)?;
        self.unsaved = false;
        self.remove(acked.max(self.given_up))
    }

    /// Whether segments lie here that are acknowledged.
    pub fn has_superfluous(&self) -> bool {
        let index = self.spool.lock();
        index.segments.get(1).is_some_and(|second| second.first <= index.acked + 1)
    }

    /// Removes segments whose alerts all have a number up to this one. The last segment stays: it is being written.
    fn remove(&self, up_to: u64) -> io::Result<()> {
        loop {
            let first = {
                let mut index = self.spool.lock();
                if index.segments.get(1).is_none_or(|second| second.first > up_to + 1) {
                    return Ok(());
                }
                index.segments.pop_front()
            };
            if let Some(segment) = first {
                fs::remove_file(self.spool.path(segment.first))?;
            }
        }
    }

    /// Whether an alert of this size fits in, after what may be given up for it.
    fn make_room(&mut self, size: u64, priority: Priority) -> bool {
        loop {
            let used = self.spool.bytes() + self.pending();
            if used + size <= self.limits.bytes {
                return true;
            }
            if self.has_superfluous() {
                self.save();
                if !self.has_superfluous() {
                    continue;
                }
                return false;
            }
            if priority > SERIOUS || !self.give_up_oldest() {
                return false;
            }
        }
    }

    /// Gives up the oldest segment. The state says so before the file goes: after a crash it is not counted twice.
    fn give_up_oldest(&mut self) -> bool {
        self.sync();
        let (lost, up_to) = {
            let index = self.spool.lock();
            let (Some(oldest), Some(second)) = (index.segments.front(), index.segments.get(1)) else { return false };
            let from = oldest.first.max(index.acked + 1);
            (second.first.saturating_sub(from), second.first - 1)
        };
        if up_to > self.given_up {
            self.given_up = up_to;
            self.lose(Loss::SpoolFull, lost);
        }
        self.save();
        self.spool.lock().segments.front().is_none_or(|oldest| oldest.first > up_to)
    }

    /// Begins a new segment when the current one is full.
    fn rotate(&mut self, size: u64) -> io::Result<()> {
        let full = self.current.as_ref().is_none_or(|current| {
            let length = current.written + self.buffer.len() as u64;
            length > 0 && length + size > self.limits.segment_bytes
        });
        let anew = self.spool.lock().begin_anew;
        if !full && !anew {
            return Ok(());
        }
        self.sync();
        let first = self.last + 1;
        if self.current.as_ref().is_some_and(|current| current.first == first) {
            // The sync failed, or the damaged one is empty: cut it and use it again.
            let Some(current) = &mut self.current else { return Ok(()) };
            current.file.set_len(0)?;
            current.written = 0;
        } else {
            let file = OpenOptions::new().create(true).append(true).open(self.spool.path(first))?;
            file.set_len(0)?;
            File::open(&self.spool.folder)?.sync_all()?;
            self.current = Some(Current { first, file, written: 0 });
            self.spool.lock().segments.push_back(Segment { first, bytes: 0 });
        }
        self.spool.lock().begin_anew = false;
        Ok(())
    }
}

fn new_state(firsts: &[u64]) -> io::Result<State> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
    let acked = firsts.first().map_or(0, |first| first.saturating_sub(1));
    Ok(State { id, acked, ..State::default() })
}

/// The numbers that name segments, ascending.
fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let first = name.to_str().and_then(|name| name.strip_suffix(ENDING)?.strip_suffix('.')?.parse::<u64>().ok());
        firsts.extend(first.filter(|first| *first > 0));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Reads a segment to its first damage; the length of what is good.
fn scan(path: &Path, mut each: impl FnMut(&proto::Alert)) -> io::Result<u64> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let mut rest = &bytes[..];
    while let Some((content, behind)) = frame::split(rest) {
        let Ok(alert) = proto::Alert::decode(content) else { break };
        each(&alert);
        rest = behind;
    }
    Ok((bytes.len() - rest.len()) as u64)
}

/// Cuts a file off, durably.
fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() != bytes {
        file.set_len(bytes)?;
    }
    file.sync_all()
}
