//! Reads durable alerts in order, from any number on.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
};

use link::proto;
use prost::Message;
use tracing::warn;

use super::{ALERT_BYTES, Loss, Segment, Spool, frame};

/// Where the next alert is expected.
#[derive(Debug)]
pub struct Cursor {
    next: u64,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    segment: u64,
    offset: u64,
    file: File,
}

/// Alerts that follow each other.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// In order, with numbers and ids.
    pub alerts: Vec<proto::Alert>,
}

impl Cursor {
    /// Before the alert with this number.
    pub fn at(next: u64) -> Self {
        Self { next, place: None }
    }

    /// Number of the alert that comes next, if it still exists.
    pub fn next(&self) -> u64 {
        self.next
    }
}

impl Spool {
    /// Reads up to so many alerts and bytes, one alert at least; none when there is none. Numbers may be missing where
    /// alerts were given up or a disk has failed.
    pub fn read(&self, cursor: &mut Cursor, alerts: usize, bytes: usize) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut budget = bytes;
        while batch.alerts.len() < alerts && budget > 0 {
            let Some(segment) = self.segment_of(cursor) else { break };
            let mut place = match cursor.place.take() {
                Some(place) if place.segment == segment.first => place,
                _ => match File::open(self.path(segment.first)) {
                    Ok(file) => Place { segment: segment.first, offset: 0, file },
                    // Given up between the look and the opening.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            let left = segment.bytes.saturating_sub(place.offset);
            let window = left.min((budget.min(READ) + frame::HEAD + ALERT_BYTES) as u64);
            let mut buffer = vec![0; usize::try_from(window).unwrap_or(0)];
            place.file.seek(SeekFrom::Start(place.offset))?;
            place.file.read_exact(&mut buffer)?;
            let mut rest = &buffer[..];
            while batch.alerts.len() < alerts && budget > 0 {
                let Some((content, behind)) = frame::split(rest) else { break };
                let Ok(mut alert) = proto::Alert::decode(content) else { break };
                let length = rest.len() - behind.len();
                rest = behind;
                place.offset += length as u64;
                if alert.seq >= cursor.next {
                    cursor.next = alert.seq + 1;
                    budget = budget.saturating_sub(length);
                    alert.id = format!("{}-{}", self.id, alert.seq);
                    batch.alerts.push(alert);
                }
            }
            let stuck = rest.len() == buffer.len();
            if stuck && !buffer.is_empty() {
                if self.skip_damage(cursor, segment) {
                    continue;
                }
                break;
            }
            cursor.place = Some(place);
        }
        Ok(batch)
    }

    /// The segment that holds the next alert, or what comes after it.
    fn segment_of(&self, cursor: &mut Cursor) -> Option<Segment> {
        let index = self.lock();
        let at = index.segments.partition_point(|segment| segment.first <= cursor.next);
        let place = cursor.place.as_ref();
        let done = |segment: &Segment| {
            place.is_some_and(|place| place.segment == segment.first && place.offset >= segment.bytes)
                || segment.bytes == 0
        };
        let current = at.checked_sub(1).and_then(|at| index.segments.get(at));
        match current {
            Some(segment) if !done(segment) => Some(*segment),
            // What follows begins later than expected: the alerts between are lost.
            _ => {
                let following = index.segments.get(at).copied().filter(|segment| segment.bytes > 0)?;
                cursor.next = following.first;
                Some(following)
            }
        }
    }

    /// Goes on behind a segment whose rest cannot be read; whether there is a next one.
    fn skip_damage(&self, cursor: &mut Cursor, segment: Segment) -> bool {
        let mut index = self.lock();
        let Some(at) = index.segments.iter().position(|other| other.first == segment.first) else { return true };
        let following = index.segments.get(at + 1).map(|next| next.first);
        let behind = following.unwrap_or_else(|| *self.durable.borrow() + 1);
        let lost = behind.saturating_sub(cursor.next);
        index.lost += lost;
        index.begin_anew |= following.is_none();
        drop(index);
        warn!(alerts = lost, segment = segment.first, "a part of the spool is damaged; its alerts are lost");
        self.count(Loss::SpoolFailed, lost);
        cursor.next = cursor.next.max(behind);
        cursor.place = None;
        following.is_some()
    }
}

/// How much is read at once, beyond the largest alert.
const READ: usize = 256 << 10;
