//! Loading, attaching, and choosing what is traced.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use abi::{
    control::{MAX_CPUS, RING_BULK, RING_CLASSES, RING_STATE, RING_URGENT, setting, slot, want},
    loss::{COUNTERS, KernelCounter},
    offsets::MISSING,
    record::{DATA_DEFAULT, DATA_MAX, kind},
};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, ArrayOfMaps, Map, MapData, MapError, ProgramArray, RingBuf},
    programs::{Program as Loaded, ProgramError, ProgramFd, tp_btf::BtfTracePointLinkId},
};

use super::{
    consumer::{Consumer, ControlPage},
    counters::CounterMap,
    filter::{FilterMaps, Filters},
    hooks::Hooks,
    host::{CgroupSource, Host},
    levels::{Levels, RingLevel},
    ring::Ring,
    rings::{RingHooks, Rings},
    rows::{Program, Rows, Slots, kinds},
};

/// Why the programs are not running.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The binary carries no programs.
    #[error("this gyrfalcon was built without its kernel programs; build it with `cargo xtask build`")]
    NoObject,
    /// Not enough rights.
    #[error(
        "loading BPF programs needs root, or the capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE; run with sudo"
    )]
    NotPermitted(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object was not accepted as a whole.
    #[error("cannot load the kernel programs; `gyrfalcon doctor` shows what this kernel permits")]
    Object(#[source] Box<aya::EbpfError>),
    /// A map or program that must be in the object is not.
    #[error("the kernel programs lack {name}: the object does not belong to this binary; build both again")]
    Lacks {
        /// Its name.
        name: String,
    },
    /// The verifier, or a security policy, refused a program.
    #[error("the kernel refused program {program}; `gyrfalcon doctor` shows what it permits. {detail}")]
    Refused {
        /// Its name.
        program: String,
        /// The end of the verifier's log, if there is one.
        detail: String,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be made or filled.
    #[error("cannot set up map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// The memory shared with the kernel could not be mapped.
    #[error("cannot map {what}; is there enough memory (ulimit -l, cgroup limit)?")]
    Memory {
        /// Which memory.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What the user may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Size of each CPU's ring for ordinary events in bytes; a power of two.
    pub ring_bytes: u32,
    /// Size of each CPU's ring for exec, fork and exit.
    pub state_ring_bytes: u32,
    /// Most bytes of what is read, written, sent and received in a record; at most [`DATA_MAX`].
    pub data_bytes: u16,
    /// Size of each CPU's ring for what rules of high priority may match.
    pub urgent_ring_bytes: u32,
}

impl Default for Options {
    /// What Falco has as one ring of 8 MiB for two CPUs; the filter leaves less to carry.
    fn default() -> Self {
        Self { ring_bytes: 4 << 20, state_ring_bytes: 1 << 20, urgent_ring_bytes: 1 << 19, data_bytes: DATA_DEFAULT }
    }
}

/// Counters of one record kind, summed over CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelCounts([u64; COUNTERS]);

impl KernelCounts {
    /// One counter.
    pub fn get(&self, counter: KernelCounter) -> u64 {
        self.0[counter.index()]
    }

    /// Events that rules did not see.
    pub fn lost(&self) -> u64 {
        KernelCounter::ALL.iter().filter(|c| c.is_loss()).map(|c| self.get(*c)).sum()
    }
}

/// Events that one CPU lost for one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelLoss {
    /// The CPU.
    pub cpu: usize,
    /// Name of the event.
    pub event: &'static str,
    /// The cause.
    pub cause: KernelCounter,
    /// How many.
    pub count: u64,
}

/// What the kernel programs counted.
pub struct Counts {
    /// By name of the event, over all CPUs.
    pub events: Vec<(&'static str, KernelCounts)>,
    /// What each CPU lost, as far as it lost anything.
    pub losses: Vec<KernelLoss>,
    /// By attached program, the events that the kernel skipped because a program was under way on that processor; only those
    /// that there are.
    pub skipped: Vec<(&'static str, u64)>,
}

impl Counts {
    /// One counter over all events.
    pub fn total(&self, counter: KernelCounter) -> u64 {
        self.events.iter().map(|(_, counts)| counts.get(counter)).sum()
    }

    /// Events that rules did not see.
    pub fn lost(&self) -> u64 {
        self.events.iter().map(|(_, counts)| counts.lost()).sum::<u64>() + self.recursion_misses()
    }

    /// Events that the kernel skipped.
    pub fn recursion_misses(&self) -> u64 {
        self.skipped.iter().map(|(_, count)| count).sum()
    }
}

/// The loaded programs. Dropping it detaches everything.
pub struct Driver {
    ebpf: Ebpf,
    /// The kernel's types, while programs are being loaded: parsed they take tens of megabytes.
    btf: Option<Btf>,
    syscalls: ProgramArray<MapData>,
    compat: Option<ProgramArray<MapData>>,
    generic_kinds: Array<MapData, u32>,
    exec_helpers: ProgramArray<MapData>,
    counters: CounterMap,
    _rings: ArrayOfMaps<MapData, RingBuf<MapData>>,
    control: Arc<ControlPage>,
    programs: HashMap<String, ProgramFd>,
    hooks: Hooks,
    links: Vec<(&'static str, Link)>,
    ring_hooks: RingHooks,
    filters: FilterMaps,
    slots: Slots,
    dispatching: bool,
    memory: u64,
    levels: Arc<Levels>,
}

impl Driver {
    /// Loads the programs and attaches exec, fork and exit; no system call is traced yet.
    pub fn load(
        host: &Host,
        hooks: Hooks,
        object: Option<&[u8]>,
        options: Options,
    ) -> Result<(Self, Consumer), DriverError> {
        let object = hooks.object(object.ok_or(DriverError::NoObject)?);
        let mut settings = [0u64; setting::COUNT];
        settings[setting::DIRECT] = u64::from(host.typed_current());
        settings[setting::OWN_TGID] = u64::from(std::process::id());
        settings[setting::COMPAT] = u64::from(host.compat());
        settings[setting::CGROUP_SUBSYS] = match host.cgroups {
            CgroupSource::Unified => MISSING,
            CgroupSource::Controller { index, .. } => index,
        };
        settings[setting::DATA] = u64::from(options.data_bytes.min(DATA_MAX));
        settings[setting::PERF] = u64::from(matches!(hooks, Hooks::Perf(_)));
        let cpus = aya::util::nr_cpus().unwrap_or(1) as u32;
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &host.offsets.values, true)
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("COUNTERS", CounterMap::entries(cpus))
            .verifier_log_level(VerifierLogLevel::VERBOSE)
            .load(&object)
            .map_err(object_error)?;
        let (rings, consumer_rings) = rings(&mut ebpf, options)?;
        let control = match ebpf.take_map("CONTROL") {
            Some(Map::Array(data)) => Arc::new(ControlPage::new(data)?),
            _ => return Err(DriverError::Lacks { name: "map CONTROL".to_owned() }),
        };
        let counters = match ebpf.take_map("COUNTERS") {
            Some(Map::Array(data)) => CounterMap::new(data, cpus)?,
            _ => return Err(DriverError::Lacks { name: "map COUNTERS".to_owned() }),
        };
        let consumer = Consumer::new(consumer_rings, Arc::clone(&control))
            .map_err(|source| DriverError::Memory { what: "the consumer's wait queue", source })?;
        let memory = u64::from(options.ring_bytes + options.state_ring_bytes + options.urgent_ring_bytes)
            * consumer.cpus() as u64;
        let mut driver = Self {
            syscalls: take(&mut ebpf, "SYSCALLS")?,
            compat: host.compat().then(|| take(&mut ebpf, "COMPAT_SYSCALLS")).transpose()?,
            generic_kinds: take(&mut ebpf, "GENERIC_KINDS")?,
            exec_helpers: take(&mut ebpf, "EXEC_HELPERS")?,
            counters,
            _rings: rings,
            control,
            programs: HashMap::new(),
            hooks,
            links: Vec::new(),
            ring_hooks: RingHooks::new(&host.offsets),
            filters: FilterMaps::new(take(&mut ebpf, "FILTERS")?, take(&mut ebpf, "PATH_PREFIXES")?),
            slots: Slots::default(),
            dispatching: false,
            btf: None,
            ebpf,
            memory,
            levels: consumer.levels(),
        };
        let walk = driver.program("exec_walk", "sched_process_exec")?;
        driver.exec_helpers.set(slot::WALK, &walk, 0).map_err(map_error("EXEC_HELPERS"))?;
        driver.attach("process_exec", "sched_process_exec")?;
        driver.attach("process_fork", "sched_process_fork")?;
        driver.attach("process_exit", "sched_process_exit")?;
        Ok((driver, consumer))
    }

    /// Traces exactly these calls from now on. Slots are filled before others are emptied; a call that stays is never
    /// interrupted.
    pub fn trace(&mut self, rows: Rows) -> Result<(), DriverError> {
        let wanted = Slots::of(rows, self.compat.is_some());
        for (number, kind) in &wanted.kinds {
            self.generic_kinds.set(*number, kind, 0).map_err(map_error("GENERIC_KINDS"))?;
            self.slots.kinds.insert(*number, *kind);
        }
        for (number, program) in &wanted.compat {
            if self.slots.compat.get(number) != Some(program) {
                let fd = self.program(&program.name(), "sys_exit")?;
                if let Some(array) = &mut self.compat {
                    array.set(*number, &fd, 0).map_err(map_error("COMPAT_SYSCALLS"))?;
                }
                self.slots.compat.insert(*number, *program);
            }
        }
        for (number, program) in &wanted.native {
            if self.slots.native.get(number) != Some(program) {
                self.fill(*number, *program)?;
            }
        }
        if !rows.is_empty() && !self.dispatching {
            for (helper, slot) in [("syscall_walk", slot::WALK), ("syscall_identify", slot::IDENTIFY)] {
                let program = self.program(helper, "sys_exit")?;
                self.syscalls.set(slot, &program, 0).map_err(map_error("SYSCALLS"))?;
            }
            self.attach("sys_exit", "sys_exit")?;
            self.dispatching = true;
        }
        if !self.ring_hooks.follows(rows) {
            let btf = kernel_types(&mut self.btf)?;
            self.ring_hooks.follow(&mut self.ebpf, btf, rows);
        }
        self.empty(&wanted)
    }

    fn fill(&mut self, number: u32, program: Program) -> Result<(), DriverError> {
        let fd = self.program(&program.name(), "sys_exit")?;
        self.syscalls.set(number, &fd, 0).map_err(map_error("SYSCALLS"))?;
        self.slots.native.insert(number, program);
        Ok(())
    }

    /// Empties the slots that are no longer wanted.
    fn empty(&mut self, wanted: &Slots) -> Result<(), DriverError> {
        let stale = |have: &mut BTreeMap<u32, Program>, keep: &BTreeMap<u32, Program>| -> Vec<u32> {
            have.extract_if(.., |number, _| !keep.contains_key(number)).map(|(number, _)| number).collect()
        };
        for number in stale(&mut self.slots.native, &wanted.native) {
            self.syscalls.clear_index(&number).or_else(ignore_empty).map_err(map_error("SYSCALLS"))?;
        }
        for number in stale(&mut self.slots.compat, &wanted.compat) {
            if let Some(array) = &mut self.compat {
                array.clear_index(&number).or_else(ignore_empty).map_err(map_error("COMPAT_SYSCALLS"))?;
            }
        }
        let kinds: Vec<u32> = self.slots.kinds.keys().filter(|n| !wanted.kinds.contains_key(n)).copied().collect();
        for number in kinds {
            self.generic_kinds.set(number, 0, 0).map_err(map_error("GENERIC_KINDS"))?;
            self.slots.kinds.remove(&number);
        }
        Ok(())
    }

    /// Gives back the memory that loading took.
    pub fn settle(&mut self) {
        self.btf = None;
        // SAFETY: glibc's allocator returns free pages to the system; no memory of ours is touched.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::malloc_trim(0);
        }
    }

    /// Ends all hooks; counters can still be read.
    pub fn detach(&mut self) -> Result<(), DriverError> {
        for (name, link) in self.links.drain(..) {
            if let (Link::Typed(link), Loaded::BtfTracePoint(program)) = (link, loaded(&mut self.ebpf, name)?) {
                program.detach(link).map_err(|source| refused(name, source))?;
            }
        }
        self.ring_hooks.end(&mut self.ebpf);
        Ok(())
    }

    /// Says what records carry beyond their parameters: bits of [`abi::control::want`].
    pub fn want(&mut self, wants: u32) -> Result<(), DriverError> {
        if wants & want::STANDARD != 0 {
            let program = self.program("exec_standard", "sched_process_exec")?;
            self.exec_helpers.set(slot::STANDARD, &program, 0).map_err(map_error("EXEC_HELPERS"))?;
        }
        let helpers =
            [(want::STANDARD, slot::STANDARD, "syscall_standard"), (want::KINDS, slot::KINDS, "syscall_kinds")];
        for (_, slot, name) in helpers.into_iter().filter(|(bit, ..)| wants & bit != 0) {
            let program = self.program(name, "sys_exit")?;
            self.syscalls.set(slot, &program, 0).map_err(map_error("SYSCALLS"))?;
        }
        self.control.want(wants);
        Ok(())
    }

    /// Lets every event of a traced row pass.
    pub fn clear_filters(&mut self) -> Result<(), DriverError> {
        self.filters.clear().map_err(map_error("FILTERS"))
    }

    /// Drops in the kernel what no rule can match.
    pub fn filter(&mut self, filters: &Filters) -> Result<(), DriverError> {
        self.filters.set(filters).map_err(map_error("FILTERS"))
    }

    /// Names of the programs that are attached.
    pub fn hooks(&self) -> Vec<String> {
        self.links.iter().map(|(name, _)| *name).chain(self.ring_hooks.places()).map(str::to_owned).collect()
    }

    /// How it is seen what an io_uring does. Known when calls have been traced that it can do.
    pub fn sees_rings(&self) -> Rings {
        self.ring_hooks.rings()
    }

    /// How full the rings are.
    pub fn ring_levels(&self) -> Vec<RingLevel> {
        self.levels.read()
    }

    /// Memory of the rings in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// All counters.
    pub fn counts(&self) -> Result<Counts, DriverError> {
        const FIXED: [(&str, u16); 3] = [("exec", kind::EXEC), ("fork", kind::FORK), ("exit", kind::EXIT)];
        let (mut counts, mut losses) = (Vec::new(), Vec::new());
        for (name, kind) in FIXED.into_iter().chain(kinds()) {
            let mut sum = KernelCounts::default();
            for (cpu, values) in self.counters.of(kind).enumerate() {
                for (total, value) in sum.0.iter_mut().zip(&values) {
                    *total += value;
                }
                let lost = KernelCounter::ALL.iter().filter(|cause| cause.is_loss());
                let lost =
                    lost.map(|cause| KernelLoss { cpu, event: name, cause: *cause, count: values[cause.index()] });
                losses.extend(lost.filter(|loss| loss.count > 0));
            }
            counts.push((name, sum));
        }
        let skipped = ["sys_exit", "process_exec", "process_fork", "process_exit"]
            .into_iter()
            .filter_map(|name| Some((name, self.programs.get(name)?)))
            .chain(self.ring_hooks.programs())
            .filter_map(|(name, program)| Some((name, recursion_misses(program)?)))
            .filter(|(_, count)| *count > 0)
            .collect();
        Ok(Counts { events: counts, losses, skipped })
    }

    /// Loads a program once.
    fn program(&mut self, name: &str, hook: &str) -> Result<ProgramFd, DriverError> {
        if let Some(fd) = self.programs.get(name) {
            return fd.try_clone().map_err(|source| DriverError::Memory { what: "a program's descriptor", source });
        }
        let program = loaded(&mut self.ebpf, name)?;
        let result = match program {
            Loaded::TracePoint(program) => program.load(),
            Loaded::BtfTracePoint(program) => program.load(hook, kernel_types(&mut self.btf)?),
            _ => return Err(lacks(name)),
        };
        result.map_err(|source| refused(name, source))?;
        let fd = program.fd().map_err(|source| refused(name, source))?;
        let clone = |fd: &ProgramFd| {
            fd.try_clone().map_err(|source| DriverError::Memory { what: "a program's descriptor", source })
        };
        let (kept, given) = (clone(fd)?, clone(fd)?);
        self.programs.insert(name.to_owned(), kept);
        Ok(given)
    }

    fn attach(&mut self, name: &'static str, hook: &str) -> Result<(), DriverError> {
        let fd = self.program(name, hook)?;
        let link = match (self.hooks.tracepoint(hook), loaded(&mut self.ebpf, name)?) {
            (Some(point), _) => point.attach(fd.as_fd()).map(Link::Perf).map_err(ProgramError::from),
            (None, Loaded::BtfTracePoint(program)) => program.attach().map(Link::Typed),
            (None, _) => return Err(lacks(name)),
        };
        self.links.push((name, link.map_err(|source| refused(name, source))?));
        Ok(())
    }
}

/// A slot that was empty already is as good as emptied.
fn ignore_empty(error: MapError) -> Result<(), MapError> {
    match &error {
        MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        _ => Err(error),
    }
}

fn recursion_misses(program: &ProgramFd) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

/// What ends an attachment.
enum Link {
    Typed(BtfTracePointLinkId),
    /// Ends when it is closed.
    Perf(#[expect(dead_code, reason = "held, not used")] OwnedFd),
}

fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Loaded, DriverError> {
    ebpf.program_mut(name).ok_or_else(|| lacks(name))
}

fn lacks(program: &str) -> DriverError {
    DriverError::Lacks { name: format!("program {program}") }
}

/// The kernel's types, read when they are first asked for.
fn kernel_types(btf: &mut Option<Btf>) -> Result<&Btf, DriverError> {
    match btf {
        Some(btf) => Ok(btf),
        none => {
            let btf = Btf::from_sys_fs();
            Ok(none.insert(btf.map_err(|source| DriverError::Object(Box::new(aya::EbpfError::BtfError(source))))?))
        }
    }
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DriverError> {
    let map = ebpf.take_map(name).ok_or_else(|| DriverError::Lacks { name: format!("map {name}") })?;
    T::try_from(map).map_err(map_error(name))
}

fn map_error(map: &'static str) -> impl FnOnce(MapError) -> DriverError {
    move |source| DriverError::Map { map, source: Box::new(source) }
}

/// Whether an error, or what caused it, is the kernel saying EPERM or EACCES.
fn not_permitted(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
            .is_some_and(|code| code == libc::EPERM || code == libc::EACCES)
    })
}

fn object_error(source: aya::EbpfError) -> DriverError {
    if not_permitted(&source) {
        DriverError::NotPermitted(Box::new(source))
    } else {
        DriverError::Object(Box::new(source))
    }
}

/// Keeps the end of the verifier's log: that is where the reason stands.
fn refused(program: &str, source: ProgramError) -> DriverError {
    // Without CAP_BPF even the first step fails; with it, a refusal is the verifier's or a policy's.
    let root = nix::unistd::geteuid().is_root();
    if !root && not_permitted(&source) {
        return DriverError::NotPermitted(Box::new(source));
    }
    let detail = match &source {
        ProgramError::LoadError { verifier_log, .. } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
            lines[lines.len().saturating_sub(4)..].join(" | ")
        }
        _ => String::new(),
    };
    DriverError::Refused { program: program.to_owned(), detail, source: Box::new(source) }
}

type RingArray = ArrayOfMaps<MapData, RingBuf<MapData>>;

/// Makes the rings of every CPU and puts them where the programs look.
fn rings(ebpf: &mut Ebpf, options: Options) -> Result<(RingArray, Vec<Ring>), DriverError> {
    const BPF_MAP_TYPE_RINGBUF: u32 = 27;
    let mut outer: RingArray = take(ebpf, "RINGS")?;
    let cpus = aya::util::nr_cpus().unwrap_or(1).min(MAX_CPUS as usize) as u32;
    let mut rings = Vec::with_capacity((cpus * RING_CLASSES) as usize);
    for cpu in 0..cpus {
        let classes = [
            (RING_STATE, options.state_ring_bytes),
            (RING_BULK, options.ring_bytes),
            (RING_URGENT, options.urgent_ring_bytes),
        ];
        for (class, size) in classes {
            let definition = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF, 0, 0, size, 0);
            let data = MapData::create(definition, "gyrfalcon_ring", None).map_err(map_error("RINGS"))?;
            let map: RingBuf<MapData> = Map::RingBuf(data).try_into().map_err(map_error("RINGS"))?;
            outer.set(cpu * RING_CLASSES + class, &map, 0).map_err(map_error("RINGS"))?;
            // aya's type has mapped the ring for itself; ours replaces it.
            let memory = |source| DriverError::Memory { what: "a ring", source };
            let fd = map.as_fd().try_clone_to_owned().map_err(memory)?;
            drop(map);
            rings.push(Ring::new(fd, size).map_err(memory)?);
        }
    }
    Ok((outer, rings))
}
