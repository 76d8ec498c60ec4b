//! The process table: bounded, and keyed so that a reused pid cannot be taken for the process before it.
//!
//! A map leads from the pid to a slot; slots of one pid form a chain, newest first, because a process is kept for a
//! while after its end: records of other CPUs may still speak of it.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::process::{Process, ProcessKey, Spare, Start};

/// End of a chain.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    process: Option<Process>,
    /// The next older process with the same pid; of a free slot, the next free one.
    next: u32,
    /// Used since the hand last came by.
    used: bool,
}

/// Position of a process in the table, until the table changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SlotId(u32);

/// The process table.
#[derive(Debug)]
pub(crate) struct Table {
    limit: usize,
    slots: Vec<Slot>,
    free: u32,
    newest: HashMap<u32, u32>,
    len: usize,
    /// Ended processes with the time of their end, oldest first.
    ended: VecDeque<(ProcessKey, u64)>,
    /// Where the search for an entry to forget goes on.
    hand: usize,
    /// What processes that were forgotten leave behind.
    pub(super) spare: Spare,
}

impl Table {
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.clamp(1, NONE as usize - 1),
            slots: Vec::new(),
            free: NONE,
            newest: HashMap::new(),
            len: 0,
            ended: VecDeque::new(),
            hand: 0,
            spare: Spare::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Every process, ended ones included.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.slots.iter().filter_map(|slot| slot.process.as_ref())
    }

    fn chain(&self, tgid: u32) -> impl Iterator<Item = (u32, &Process)> + '_ {
        let mut at = self.newest.get(&tgid).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let index = at;
            let slot = self.slots.get(index as usize)?;
            at = slot.next;
            Some((index, slot.process.as_ref()?))
        })
    }

    /// Finds a process.
    pub fn find(&self, key: ProcessKey) -> Option<SlotId> {
        self.chain(key.tgid).find(|(_, process)| process.key.start.matches(key.start)).map(|(at, _)| SlotId(at))
    }

    /// The process that has this pid at `time`: the newest that had started by then.
    pub fn at_pid(&self, tgid: u32, time: u64) -> Option<&Process> {
        self.chain(tgid).map(|(_, process)| process).find(|process| process.key.start.ns() <= time)
    }

    pub fn get(&self, key: ProcessKey) -> Option<&Process> {
        let SlotId(at) = self.find(key)?;
        self.slots.get(at as usize)?.process.as_ref()
    }

    /// The process if it is found at a place where it may be.
    pub fn peek(&self, place: SlotId, key: ProcessKey) -> Option<&Process> {
        let process = self.slots.get(place.0 as usize)?.process.as_ref()?;
        (process.key == key).then_some(process)
    }

    /// A process for change; marks it as used.
    pub fn at(&mut self, id: SlotId) -> Option<&mut Process> {
        let slot = self.slots.get_mut(id.0 as usize)?;
        slot.used = true;
        slot.process.as_mut()
    }

    /// Makes a start that was known in ticks exact.
    pub fn sharpen(&mut self, id: SlotId, start: u64) {
        if let Some(process) = self.at(id)
            && matches!(process.key.start, Start::Ticks(_))
        {
            process.key.start = Start::Exact(start);
        }
    }

    /// Adds a process that [`Table::find`] did not find. `true` when a live one had to be forgotten.
    pub fn insert(&mut self, process: Process) -> (SlotId, bool) {
        let lost = self.len >= self.limit && self.make_room();
        let tgid = process.key.tgid;
        let older = self.newest.get(&tgid).copied().unwrap_or(NONE);
        let slot = Slot { process: Some(process), next: older, used: true };
        let at = match self.slots.get_mut(self.free as usize) {
            Some(free) => {
                let at = self.free;
                self.free = free.next;
                *free = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.newest.insert(tgid, at);
        self.len += 1;
        (SlotId(at), lost)
    }

    /// Notes the end of a process; it is forgotten by [`Table::expire`].
    pub fn end(&mut self, id: SlotId, time: u64) {
        if let Some(process) = self.at(id)
            && process.exit.is_none()
        {
            process.exit = Some(time);
            let key = process.key;
            self.ended.push_back((key, time));
        }
    }

    /// Notes as ended at `seen` what had started a while before and is not among the living, which are sorted by pid.
    pub fn end_missing(&mut self, living: &[(u32, Start)], seen: u64) {
        let lives = |key: ProcessKey| {
            let at = living.partition_point(|(tgid, _)| *tgid < key.tgid);
            living.get(at).is_some_and(|(tgid, start)| *tgid == key.tgid && start.matches(key.start))
        };
        for at in 0..self.slots.len() {
            let Some(process) = self.slots.get(at).and_then(|slot| slot.process.as_ref()) else { continue };
            // One that began while /proc was read may have been overlooked.
            if process.exit.is_none() && process.key.start.ns() + Start::TICK_NS < seen && !lives(process.key) {
                self.end(SlotId(at as u32), seen);
            }
        }
    }

    /// Forgets processes that ended before `time`.
    pub fn expire(&mut self, time: u64) {
        while let Some((key, end)) = self.ended.front().copied()
            && end < time
        {
            self.ended.pop_front();
            self.remove(key);
        }
    }

    /// Forgets one process: the one that ended first, else one that was not used lately. `true` when it was alive.
    fn make_room(&mut self) -> bool {
        while let Some((key, _)) = self.ended.pop_front() {
            if self.remove(key) {
                return false;
            }
        }
        // Every slot is taken; two rounds of the hand find one, for the first clears the marks.
        for _ in 0..2 * self.slots.len() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if std::mem::take(&mut slot.used) {
                continue;
            }
            if let Some(key) = slot.process.as_ref().map(|process| process.key) {
                return self.remove(key);
            }
        }
        false
    }

    fn remove(&mut self, key: ProcessKey) -> bool {
        let mut before = NONE;
        let mut at = self.newest.get(&key.tgid).copied().unwrap_or(NONE);
        while let Some(slot) = self.slots.get(at as usize) {
            if slot.process.as_ref().is_some_and(|process| process.key == key) {
                let next = slot.next;
                match self.slots.get_mut(before as usize) {
                    Some(newer) => newer.next = next,
                    None if next == NONE => {
                        self.newest.remove(&key.tgid);
                    }
                    None => {
                        self.newest.insert(key.tgid, next);
                    }
                }
                let empty = Slot { process: None, next: self.free, used: false };
                let gone = std::mem::replace(&mut self.slots[at as usize], empty);
                self.spare.give(gone.process.and_then(|process| process.image));
                self.free = at;
                self.len -= 1;
                return true;
            }
            before = at;
            at = slot.next;
        }
        false
    }
}
