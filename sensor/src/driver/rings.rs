//! Hooks for what an io_uring does, attached while rules ask for the system calls that would do the same.
//!
//! Best are the functions of the kernel that do it. Where they are no functions of their own (before Linux 6.0), or the
//! kernel lets nobody hook functions, the tracepoint of completed operations serves: it does not tell of successes that
//! nobody wants to hear of (`IOSQE_CQE_SKIP_SUCCESS`), nor the paths of files that go to the ring's own table. Without
//! either (before Linux 5.19) it is told that there is a ring, by its system calls.

use std::collections::BTreeMap;

use abi::offsets::MISSING;
use aya::{
    Btf, Ebpf,
    programs::{
        Program, ProgramError, ProgramFd, fentry::FEntryLinkId, fexit::FExitLinkId, tp_btf::BtfTracePointLinkId,
    },
};
use tracing::{info, warn};

use super::{Rows, btf::Resolved};

/// A hook.
struct Hook {
    /// Name of the program.
    program: &'static str,
    /// The function, or the tracepoint, that it hangs on.
    place: &'static str,
    /// The system calls that do the same.
    calls: &'static [&'static str],
}

impl Hook {
    fn is_wanted(&self, rows: Rows) -> bool {
        Rows::of(|name| self.calls.contains(&name)).meets(rows)
    }
}

const FUNCTIONS: &[Hook] = &[
    Hook { program: "ring_open", place: "io_openat2", calls: &["openat", "openat2"] },
    Hook { program: "ring_open_direct", place: "io_fixed_fd_install", calls: &["openat", "openat2"] },
    Hook { program: "ring_connect", place: "io_connect", calls: &["connect"] },
    Hook { program: "ring_socket", place: "io_socket", calls: &["socket"] },
];

const TRACEPOINT: &[Hook] = &[Hook {
    program: "ring_complete",
    place: "io_uring_complete",
    calls: &["openat", "openat2", "connect", "socket"],
}];

/// How it is seen what a ring does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rings {
    /// By the functions that do it, as far as is known.
    #[default]
    Functions,
    /// By the tracepoint of what is completed.
    Tracepoint,
    /// Not at all.
    Unseen,
}

impl Rings {
    fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Functions => FUNCTIONS,
            Self::Tracepoint => TRACEPOINT,
            Self::Unseen => &[],
        }
    }
}

enum Link {
    Entry(FEntryLinkId),
    Exit(FExitLinkId),
    Tracepoint(BtfTracePointLinkId),
}

/// What is attached.
#[derive(Default)]
pub struct RingHooks {
    rings: Rings,
    links: BTreeMap<&'static str, Link>,
    loaded: BTreeMap<&'static str, ProgramFd>,
}

impl RingHooks {
    /// None yet. A kernel before Linux 5.19 does not keep with an operation what comes of it: nothing can be seen there.
    pub fn new(offsets: &Resolved) -> Self {
        let rings = if offsets.get("ring_result") == MISSING { Rings::Unseen } else { Rings::default() };
        Self { rings, ..Self::default() }
    }

    /// How it is seen what a ring does. Known when rules have asked for it.
    pub fn rings(&self) -> Rings {
        self.rings
    }

    /// Whether what is attached is what these calls ask for.
    pub fn follows(&self, rows: Rows) -> bool {
        self.rings.hooks().iter().all(|hook| hook.is_wanted(rows) == self.links.contains_key(hook.program))
    }

    /// Attaches what these calls ask for, and detaches the rest.
    pub fn follow(&mut self, ebpf: &mut Ebpf, btf: &Btf, rows: Rows) {
        while let Err((hook, error)) = self.try_follow(ebpf, btf, rows) {
            self.end(ebpf);
            let error = link::chain(&error).to_string();
            self.rings = match self.rings {
                Rings::Functions => {
                    info!(
                        function = hook.place,
                        error, "what an io_uring does is seen when it is completed: the function cannot be hooked"
                    );
                    Rings::Tracepoint
                }
                Rings::Tracepoint | Rings::Unseen => {
                    warn!(
                        tracepoint = hook.place,
                        error, "what an io_uring does is not seen, only that there is a ring"
                    );
                    Rings::Unseen
                }
            };
        }
    }

    fn try_follow(&mut self, ebpf: &mut Ebpf, btf: &Btf, rows: Rows) -> Result<(), (&'static Hook, ProgramError)> {
        for hook in self.rings.hooks() {
            match (hook.is_wanted(rows), self.links.contains_key(hook.program)) {
                (true, false) => {
                    let link = self.attach(ebpf, btf, hook).map_err(|error| (hook, error))?;
                    self.links.insert(hook.program, link);
                }
                (false, true) => self.detach(ebpf, hook),
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    /// Where hooks are attached.
    pub fn places(&self) -> impl Iterator<Item = &'static str> {
        self.rings.hooks().iter().filter(|hook| self.links.contains_key(hook.program)).map(|hook| hook.place)
    }

    /// The programs by name, for their counters.
    pub fn programs(&self) -> impl Iterator<Item = (&'static str, &ProgramFd)> {
        self.loaded.iter().map(|(name, program)| (*name, program))
    }

    /// Detaches everything.
    pub fn end(&mut self, ebpf: &mut Ebpf) {
        for hook in self.rings.hooks() {
            self.detach(ebpf, hook);
        }
    }

    fn attach(&mut self, ebpf: &mut Ebpf, btf: &Btf, hook: &Hook) -> Result<Link, ProgramError> {
        let loaded = &mut self.loaded;
        // Three types of aya's with the same methods and no trait in common.
        macro_rules! attach {
            ($program:ident, $link:path) => {{
                if !loaded.contains_key(hook.program) {
                    $program.load(hook.place, btf)?;
                    loaded.insert(hook.program, $program.fd()?.try_clone().map_err(ProgramError::IOError)?);
                }
                Ok($link($program.attach()?))
            }};
        }
        match ebpf.program_mut(hook.program) {
            Some(Program::FEntry(program)) => attach!(program, Link::Entry),
            Some(Program::FExit(program)) => attach!(program, Link::Exit),
            Some(Program::BtfTracePoint(program)) => attach!(program, Link::Tracepoint),
            _ => Err(ProgramError::NotLoaded),
        }
    }

    fn detach(&mut self, ebpf: &mut Ebpf, hook: &Hook) {
        // A link that is gone is as good as detached.
        let _ = match (self.links.remove(hook.program), ebpf.program_mut(hook.program)) {
            (Some(Link::Entry(link)), Some(Program::FEntry(program))) => program.detach(link),
            (Some(Link::Exit(link)), Some(Program::FExit(program))) => program.detach(link),
            (Some(Link::Tracepoint(link)), Some(Program::BtfTracePoint(program))) => program.detach(link),
            _ => Ok(()),
        };
    }
}
