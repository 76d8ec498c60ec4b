//! Process state: which process does what, who its parents are, in which container it runs.
//!
//! Little is tracked. A record says itself who did it, with which rights, and who its ancestors are; state adds what only
//! an exec knows (arguments, path of the executable, environment) and what a cgroup is. Fed by exec, fork and exit
//! records, by the start-up scan, and, where those failed, by what any record says about its process.
//!
//! Records of different CPUs may come slightly out of order; what is older never replaces what is newer.

mod datagrams;
pub mod process;
mod seed;
mod table;

use std::sync::Arc;

use abi::record::tag;
use hashbrown::HashSet;

use self::{
    datagrams::Datagrams,
    table::{SlotId, Table},
};
pub use self::{
    process::{Image, ImageParts, Process, ProcessKey, Start, Strings},
    seed::Seed,
};
use crate::{
    containers::{
        Cluster, ClusterChange, Container, ContainerFacts, Containers, Membership, Namespace, Pod, PodFacts, UNKNOWN,
        Whereabouts,
    },
    decode::{Kind, Record, Status},
    loss::{Loss, Losses},
    users::{ContainerUsers, Users},
    value::Arena,
};

/// Bounds of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most processes, ended ones included.
    pub processes: usize,
    /// Most cgroups.
    pub cgroups: usize,
    /// How long an ended process is kept, in nanoseconds of event time.
    pub grace_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { processes: 65_536, cgroups: 16_384, grace_ns: 5_000_000_000 }
    }
}

/// How often it is looked which cgroups have nobody in them, in nanoseconds of event time: longer than any record is held
/// back before it is applied.
const LOOK_NS: u64 = 10_000_000_000;

/// What is known about the host, given from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name, for `evt.hostname`.
    pub hostname: Box<str>,
    /// Unix time of the zero of the boot clock, in nanoseconds.
    pub boot_ns: u64,
    /// Seconds that local time is ahead of UTC.
    pub utc_offset_s: i32,
}

/// What the sensor should look up after a record, because nothing has told so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The process of the record: answer with [`State::seed`]. Asked once per process.
    pub process: bool,
    /// The cgroup in the record's header: answer with [`State::learn_cgroup`]. Asked once per cgroup and table.
    pub cgroup: bool,
    /// Names of users and groups in the container of the process: answer with [`State::set_container_users`]. Asked a few
    /// times for each container.
    pub users: bool,
}

/// Everything that outlives a single event.
#[derive(Debug)]
pub struct State {
    limits: Limits,
    table: Table,
    containers: Containers,
    /// Cgroups that processes are in: filled anew at each look, and kept for its memory.
    inhabited: HashSet<u64>,
    /// When the next look is due.
    look: u64,
    cluster: Cluster,
    /// Names of users and groups of the host.
    pub users: Users,
    container_users: ContainerUsers,
    /// Facts about the host.
    pub host: Host,
    /// What got lost.
    pub losses: Losses,
    /// Who datagram sockets last had to do with.
    datagrams: Datagrams,
    /// Whether the last record's datagram came from or went to somebody else than the one before.
    other_end_changed: bool,
    /// Boot-clock time of the first record.
    first: Option<u64>,
    /// Where the process of the last record is likely to be found.
    last: SlotId,
    /// Where exec paths are spelled before they are copied into an image.
    scratch: Scratch,
}

/// An arena that keeps its memory between uses; its content is never part of the state.
#[derive(Default)]
struct Scratch(Arena);

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

impl State {
    /// An empty state.
    pub fn new(limits: Limits, host: Host) -> Self {
        Self {
            limits,
            table: Table::new(limits.processes),
            containers: Containers::new(limits.cgroups),
            inhabited: HashSet::new(),
            look: 0,
            cluster: Cluster::new(limits.cgroups),
            users: Users::default(),
            container_users: ContainerUsers::default(),
            host,
            losses: Losses::default(),
            datagrams: Datagrams::default(),
            other_end_changed: false,
            first: None,
            last: SlotId::default(),
            scratch: Scratch::default(),
        }
    }

    /// Takes a record into account. Call it for every record, in order of time as far as possible, before rules judge
    /// the event.
    pub fn apply(&mut self, record: &Record<'_>) -> Wanted {
        let time = record.header.time;
        self.first.get_or_insert(time);
        self.table.expire(time.saturating_sub(self.limits.grace_ns));
        if time >= self.look {
            self.forget_empty_cgroups();
            self.look = time.saturating_add(LOOK_NS);
        }
        if record.is_incomplete() {
            self.losses.add(Loss::IncompleteRecord);
        }
        match record.kind {
            Kind::Exec => self.exec(record),
            Kind::Fork => self.fork(record),
            Kind::Exit => self.exit(record),
            Kind::Syscall(_) | Kind::Generic(_) => self.seen(record),
        }
    }

    /// Forgets cgroups that have had nobody in them for a while: containers come and go.
    fn forget_empty_cgroups(&mut self) {
        self.inhabited.clear();
        self.inhabited.extend(self.table.processes().map(|process| process.cgroup));
        self.containers.keep(&self.inhabited);
    }

    fn exec(&mut self, record: &Record<'_>) -> Wanted {
        let header = &record.header;
        self.learn_from(record);
        let (id, _) = self.find_or_insert(record);
        let mut image = self.table.spare.take();
        let Some(process) = self.table.at(id) else { return Wanted::default() };
        if process.image.as_ref().is_none_or(|image| image.time <= header.time) {
            if let Some(image) = Arc::get_mut(&mut image) {
                image.set_exec(record, process.image.as_deref(), &self.scratch.0);
            }
            self.scratch.0.reset();
            refresh(process, record);
            process.comm = header.comm;
            process.forked = false;
            let before = process.image.replace(image);
            self.table.spare.give(before);
        } else {
            self.table.spare.give(Some(image));
        }
        let cgroup = self.move_to_cgroup(id, header.cgroup);
        Wanted { process: false, cgroup, users: self.wants_users(record) }
    }

    fn fork(&mut self, record: &Record<'_>) -> Wanted {
        let creator = record.creator().map(|(tgid, start)| ProcessKey { tgid, start: Start::Exact(start) });
        let parent = creator.and_then(|creator| self.table.get(creator));
        // A parent that has executed something since is no model for its child.
        let image = parent.and_then(|parent| parent.image.clone()).filter(|image| image.time <= record.header.time);
        let (id, _) = self.find_or_insert(record);
        let Some(process) = self.table.at(id) else { return Wanted::default() };
        // The child's exec may have come first: then it has an image already, which stays.
        if process.image.is_none() {
            process.image = image;
            process.forked = true;
        }
        let unknown = process.image.is_none();
        if unknown {
            self.losses.add(Loss::UnknownProcess);
        }
        Wanted { process: unknown, cgroup: self.move_to_cgroup(id, record.header.cgroup), users: false }
    }

    fn exit(&mut self, record: &Record<'_>) -> Wanted {
        // An unknown process that ends is not worth an entry: the record names it.
        if let Some(id) = self.table.find(ProcessKey::of(&record.header)) {
            self.table.sharpen(id, record.header.start);
            self.table.end(id, record.header.time);
        }
        Wanted::default()
    }

    fn seen(&mut self, record: &Record<'_>) -> Wanted {
        self.other_end_changed = self.datagrams.changes(record);
        let (id, new) = self.find_or_insert(record);
        if new {
            self.losses.add(Loss::UnknownProcess);
        }
        let cgroup = self.move_to_cgroup(id, record.header.cgroup);
        // Who is not root in a container has come through its setup: its root is the container's.
        Wanted { process: new, cgroup, users: record.header.uid != 0 && self.wants_users(record) }
    }

    fn find_or_insert(&mut self, record: &Record<'_>) -> (SlotId, bool) {
        let key = ProcessKey::of(&record.header);
        // One process often does several things in a row.
        if self.table.peek(self.last, key).is_some() {
            return (self.last, false);
        }
        if let Some(id) = self.table.find(key) {
            self.table.sharpen(id, record.header.start);
            self.last = id;
            return (id, false);
        }
        let (id, lost) = self.table.insert(Process::of_record(record));
        if lost {
            self.losses.add(Loss::ProcessTableFull);
        }
        self.last = id;
        (id, true)
    }

    /// Notes the cgroup of a process; whether it must be looked up.
    fn move_to_cgroup(&mut self, id: SlotId, cgroup: u64) -> bool {
        let Some(process) = self.table.at(id) else { return false };
        if cgroup == 0 || process.cgroup == cgroup && process.membership != Membership::Unknown {
            return false;
        }
        let (known, mut dropped) = self.containers.touch(cgroup);
        let wanted = known.is_none();
        if wanted {
            dropped |= self.containers.insert(cgroup, Membership::Unknown);
        }
        if dropped {
            self.losses.add(Loss::CgroupTableFull);
        }
        if let Some(process) = self.table.at(id) {
            process.cgroup = cgroup;
            process.membership = known.unwrap_or_default();
        }
        wanted
    }

    /// Adds or completes a process from facts of the sensor. What a record has said stays; an environment that it did
    /// not carry is filled in.
    pub fn seed(&mut self, seed: &Seed) {
        if seed.cgroup != 0 {
            self.learn_cgroup_components(seed.cgroup, seed.cgroup_components());
        }
        let image = Image::new(ImageParts {
            argv: &seed.argv,
            env: seed.env.as_deref(),
            exepath: seed.exepath(),
            cwd: &seed.cwd,
        });
        let key = ProcessKey { tgid: seed.tgid, start: seed.start };
        let mut comm = [0; 16];
        for (to, from) in comm[..15].iter_mut().zip(&seed.comm) {
            *to = *from;
        }
        if let Some(id) = self.table.find(key) {
            let Some(process) = self.table.at(id) else { return };
            match (&process.image, &seed.env) {
                (None, _) => {
                    process.image = Some(Arc::new(image));
                    process.comm = comm;
                }
                // No rule had asked for environments when it was executed.
                (Some(known), Some(env)) if known.env().is_none() => {
                    process.image = Some(Arc::new(known.with_env(env)))
                }
                (Some(_), _) => {}
            }
            return;
        }
        let parent = self.table.at_pid(seed.ppid, seed.start.ns().saturating_add(Start::TICK_NS));
        let process = Process {
            key,
            parent: parent.map(|parent| parent.key),
            image: Some(Arc::new(image)),
            comm,
            vpid: seed.vpid,
            sid: seed.sid,
            pgid: seed.pgid,
            vpgid: seed.vpgid,
            cgroup: seed.cgroup,
            membership: self.containers.get(seed.cgroup).cloned().unwrap_or_default(),
            exit: None,
            forked: false,
        };
        if self.table.insert(process).1 {
            self.losses.add(Loss::ProcessTableFull);
        }
    }

    /// Corrects a process by what /proc showed at `seen` (boot-clock time), when records were lost: one that has executed
    /// another program since its last known exec has its new image.
    pub fn correct(&mut self, seed: &Seed, seen: u64) {
        let key = ProcessKey { tgid: seed.tgid, start: seed.start };
        if let Some(process) = self.table.find(key).and_then(|id| self.table.at(id))
            && let Some(image) = &process.image
            && image.time < seen
            && image.exepath() != seed.exepath()
            && !seed.exepath().is_empty()
        {
            process.image = None;
        }
        self.seed(seed);
    }

    /// Notes as ended what is not among the living of `seen` (boot-clock time, sorted by pid), when records of ends were lost.
    pub fn bury(&mut self, living: &[(u32, Start)], seen: u64) {
        self.table.end_missing(living, seen);
    }

    /// Whether somebody should look which users the container of a record has.
    fn wants_users(&mut self, record: &Record<'_>) -> bool {
        match self.containers.get(record.header.cgroup) {
            Some(Membership::Container(container)) => self.container_users.wanted(container.full_id()),
            Some(Membership::Unknown | Membership::Host) | None => false,
        }
    }

    /// Brings the names of users and groups in the container that a cgroup is of.
    pub fn set_container_users(&mut self, cgroup: u64, users: Users) {
        if let Some(Membership::Container(container)) = self.containers.get(cgroup) {
            self.container_users.set(container.full_id(), users);
        }
    }

    /// Names of users and groups in a container, as far as they are known.
    pub fn container_users(&self, container: &Container) -> Option<&Users> {
        self.container_users.get(container.full_id())
    }

    /// Learns what a record says about its cgroup. [`State::apply`] does it, too.
    pub fn learn_from(&mut self, record: &Record<'_>) {
        if let Some(block) = record.block(tag::CGROUP)
            && record.header.cgroup != 0
            && matches!(block.status, Status::Ok | Status::Truncated)
            && self.containers.learn(record.header.cgroup, block.components())
        {
            self.losses.add(Loss::CgroupTableFull);
        }
    }

    /// What is known about a cgroup.
    pub fn cgroup(&self, cgroup: u64) -> &Membership {
        self.containers.get(cgroup).unwrap_or(&UNKNOWN)
    }

    /// Says which path a cgroup has, as an answer to [`Wanted::cgroup`].
    pub fn learn_cgroup(&mut self, cgroup: u64, path: &[u8]) {
        let names = path.rsplit(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b"..");
        self.learn_cgroup_components(cgroup, names);
    }

    fn learn_cgroup_components<'a>(&mut self, cgroup: u64, leaf_first: impl Iterator<Item = &'a [u8]> + Clone) {
        if self.containers.learn(cgroup, leaf_first) {
            self.losses.add(Loss::CgroupTableFull);
        }
    }

    /// Brings what the runtime says about a container, by its full id. `false` when there is no room for it.
    pub fn set_container(&mut self, full_id: &str, facts: ContainerFacts) -> bool {
        let room = self.containers.set_facts(full_id, facts);
        if !room {
            self.losses.add(Loss::ContainerTableFull);
        }
        room
    }

    /// What the runtime said about a container; `None` while it has not.
    pub fn facts_of(&self, container: &Container) -> Option<&ContainerFacts> {
        self.containers.facts(container)
    }

    /// Says that a container is gone. Bring it after the last events that may be of it.
    pub fn forget_container(&mut self, full_id: &str) {
        self.containers.forget_facts(full_id);
        self.container_users.forget(full_id);
    }

    /// Where something happened that is of this membership.
    pub fn whereabouts(&self, membership: &Membership) -> Whereabouts<'_> {
        match membership {
            Membership::Unknown => Whereabouts::Unknown,
            Membership::Host => Whereabouts::Host,
            Membership::Container(container) => {
                let facts = self.containers.facts(container);
                let pod = facts.and_then(|facts| facts.pod.as_ref());
                // Labels of a pod can change while it runs: the cluster's are newer.
                let told = pod.map_or(&[][..], |pod| &pod.labels);
                let known = pod.and_then(|pod| self.cluster.pod(pod));
                let namespace = pod.and_then(|pod| self.cluster.namespace(&pod.namespace));
                Whereabouts::Container {
                    facts,
                    pod_labels: known.map_or(told, |pod| &pod.labels),
                    namespace_labels: namespace.map(|namespace| &namespace.labels[..]),
                }
            }
        }
    }

    /// What the runtime said about a container; `None` while it has not, which is when events are held back.
    pub fn container_facts(&self, membership: &Membership) -> Option<&ContainerFacts> {
        match membership {
            Membership::Container(container) => self.facts_of(container),
            Membership::Unknown | Membership::Host => None,
        }
    }

    /// Takes over what the cluster says about pods and namespaces.
    pub fn change_cluster(&mut self, change: ClusterChange) {
        for _ in 0..self.cluster.change(change) {
            self.losses.add(Loss::ContainerTableFull);
        }
    }

    /// All that the cluster has said, as one change.
    pub fn cluster(&self) -> ClusterChange {
        self.cluster.all()
    }

    /// What the cluster says about a pod; `None` when it has not, and on hosts that are in no cluster.
    pub fn pod(&self, facts: &PodFacts) -> Option<&Pod> {
        self.cluster.pod(facts)
    }

    /// What the cluster says about a namespace.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.cluster.namespace(name)
    }

    /// The process that a record is about.
    pub fn process(&self, record: &Record<'_>) -> Option<&Process> {
        let key = ProcessKey::of(&record.header);
        self.table.peek(self.last, key).or_else(|| self.table.get(key))
    }

    /// A process by its identity.
    pub fn by_key(&self, key: ProcessKey) -> Option<&Process> {
        self.table.get(key)
    }

    /// The process that has a pid at `time` (boot clock).
    pub fn by_pid(&self, tgid: u32, time: u64) -> Option<&Process> {
        self.table.at_pid(tgid, time)
    }

    /// What is known about the container of a record's cgroup.
    pub fn membership<'a>(&'a self, record: &Record<'_>, process: Option<&'a Process>) -> &'a Membership {
        let cgroup = record.header.cgroup;
        process
            .filter(|process| process.cgroup == cgroup && process.membership != Membership::Unknown)
            .map(|process| &process.membership)
            .or_else(|| self.containers.get(cgroup))
            .unwrap_or(&UNKNOWN)
    }

    /// Number of processes in the table.
    pub fn processes(&self) -> usize {
        self.table.len()
    }

    /// Number of cgroups in the map.
    pub fn cgroups(&self) -> usize {
        self.containers.len()
    }

    /// Number of containers with facts.
    pub fn containers(&self) -> usize {
        self.containers.facts_len()
    }

    /// Unix time in nanoseconds of a moment of the boot clock.
    pub fn unix_ns(&self, boot_clock_ns: u64) -> u64 {
        self.host.boot_ns.saturating_add(boot_clock_ns)
    }

    /// Whether the record that was applied last is a datagram whose other end is new to its socket.
    pub fn other_end_changed(&self) -> bool {
        self.other_end_changed
    }

    /// Boot-clock time of the first record.
    pub fn first_record(&self) -> Option<u64> {
        self.first
    }
}

/// Takes over what a newer record says about its process.
fn refresh(process: &mut Process, record: &Record<'_>) {
    let header = &record.header;
    process.vpid = header.vpid;
    process.sid = header.sid;
    process.pgid = header.pgid;
    process.vpgid = header.vpgid;
    if let Some(parent) = record.parent() {
        process.parent = Some(ProcessKey::of_ancestor(&parent));
    }
}

#[cfg(test)]
mod tests;
