//! By which of the kernel's two ways the programs are called, and the object in the form that this takes.
//!
//! Typed tracepoints (`tp_btf`) are the cheaper way. Since Linux 7.0 the kernel may preempt a program that it calls so, and
//! until that program goes on it skips it for every other task on that processor: whoever gets himself preempted there
//! hides what others do. Tracepoints of perf still run with preemption off
//! (<https://git.kernel.org/torvalds/c/16718274ee75d24a21b10ebc8998c48cc14a656a>), so there the same programs are attached as such, but for fork, whose
//! record says nothing of the child's task.

use std::{borrow::Cow, ffi::OsStr, fs};

use memchr::memmem;
use tracing::warn;

use link::chain;

use super::{
    host::version,
    perf::{Point, Tracepoint, TracepointError},
};

/// Tells tests which way to take: `tp_btf` or `tracepoint`, whatever the kernel is.
const FORCED: &str = "GYRFALCON_HOOKS";

/// Linux 7.0: <https://git.kernel.org/torvalds/c/a46023d5616ed3ed781e56ca93400eb9490e3646>.
const PREEMPTS_TYPED: (u32, u32) = (7, 0);

/// The hooks whose programs can be of either form. What stands behind the names is read in sensor-ebpf/src/hook.rs.
const POINTS: [Point; 3] = [
    Point { category: "raw_syscalls", name: "sys_exit", fields: &[("id", 8, 8), ("ret", 16, 8)] },
    Point { category: "sched", name: "sched_process_exec", fields: &[("filename", 8, 4)] },
    Point { category: "sched", name: "sched_process_exit", fields: &[] },
];

/// How the kernel calls the programs.
#[derive(Debug)]
pub enum Hooks {
    /// As typed tracepoints.
    Typed,
    /// As tracepoints of perf, where there are such; these are open.
    Perf(Vec<Tracepoint>),
}

impl Hooks {
    /// Chooses by the running kernel, and opens what is needed. Call it while `perf_event_open` is allowed.
    ///
    /// Where tracepoints of perf are wanted and can't be had, says what follows from it and how to cure it: a sensor that
    /// loses some events is better than none.
    pub fn choose() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        if !wants_perf(std::env::var_os(FORCED).as_deref(), &release) {
            return Self::Typed;
        }
        Self::perf().unwrap_or_else(|error| {
            warn!(
                reason = %chain(&error),
                "events can be lost, and be hidden on purpose: this kernel preempts programs at typed tracepoints, and those of perf cannot be used; see docs/kernels.md"
            );
            Self::Typed
        })
    }

    fn perf() -> Result<Self, TracepointError> {
        POINTS.into_iter().map(Tracepoint::open).collect::<Result<_, _>>().map(Self::Perf)
    }

    /// The word for it, in logs and for the operator.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Typed => "tp_btf",
            Self::Perf(_) => "tracepoint",
        }
    }

    /// The open tracepoint of a hook, if the hook's programs are attached to such.
    pub fn tracepoint(&self, hook: &str) -> Option<&Tracepoint> {
        match self {
            Self::Typed => None,
            Self::Perf(points) => points.iter().find(|point| point.name() == hook),
        }
    }

    /// The object as it must be loaded.
    pub fn object<'a>(&self, object: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Typed => object.into(),
            Self::Perf(_) => as_perf_tracepoints(object).into(),
        }
    }
}

/// Whether tracepoints of perf are wanted.
fn wants_perf(forced: Option<&OsStr>, release: &str) -> bool {
    match forced.and_then(OsStr::to_str) {
        Some("tp_btf") => false,
        Some("tracepoint") => true,
        _ => version(release) >= PREEMPTS_TYPED,
    }
}

/// Makes tracepoints of perf out of the typed ones, by the names of their sections: `tp_btf/sys_exit` becomes
/// `tp/btf/sys_exit`, of which the loader looks at the first word only.
///
/// Names keep their length and their place, so that nothing else in the file changes: linkers let names of sections and
/// symbols end in each other (`.reltp_btf/sys_exit`, and `sys_exit` as well), and BTF has them a second time.
fn as_perf_tracepoints(object: &[u8]) -> Vec<u8> {
    let mut changed = object.to_vec();
    for point in POINTS {
        let typed = format!("tp_btf/{}\0", point.name);
        for at in memmem::find_iter(object, &typed) {
            if let Some(underscore) = changed.get_mut(at + "tp".len()) {
                *underscore = b'/';
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_preempt_typed_tracepoints_get_those_of_perf() {
        let perf = |release: &str| wants_perf(None, release);
        assert_eq!(["5.10.0-46-amd64", "6.18.5", "6.19.0-rc3"].map(perf), [false; 3]);
        assert_eq!(["7.0.0", "7.3.4+deb13-amd64", "10.1.0"].map(perf), [true; 3]);
        assert!(!perf(""), "unknown");
        assert!(wants_perf(Some(OsStr::new("tracepoint")), "6.1.0"));
        assert!(!wants_perf(Some(OsStr::new("tp_btf")), "7.3.4"));
    }

    #[test]
    fn names_change_in_place_and_forks_stays() {
        let object = b"\x7fELF\0.reltp_btf/sys_exit\0tp_btf/sys_exit\0tp_btf/sys_exit_other\0tp_btf/sched_process_fork\0sys_exit\0";
        let wanted = b"\x7fELF\0.reltp/btf/sys_exit\0tp/btf/sys_exit\0tp_btf/sys_exit_other\0tp_btf/sched_process_fork\0sys_exit\0";
        assert_eq!(as_perf_tracepoints(object), wanted);
    }

    /// The real object, when this was built with it.
    #[test]
    fn the_loader_takes_the_changed_object_for_tracepoints() {
        let Some(object) = crate::driver::object() else {
            eprintln!("ignored: built without kernel programs");
            return;
        };
        let kinds = |object: &[u8]| {
            let object = aya_obj::Object::parse(object).expect("an object");
            let section = |name: &str| object.programs.get(name).map(|program| program.section.clone());
            ["sys_exit", "sys_openat", "syscall_walk", "exec_walk", "process_exec", "process_exit", "process_fork"]
                .map(|name| section(name).unwrap_or_else(|| panic!("no program {name}")))
        };
        use aya_obj::ProgramSection::{BtfTracePoint, TracePoint};
        assert!(kinds(object).iter().all(|kind| matches!(kind, BtfTracePoint)));
        let [rest @ .., fork] = kinds(&as_perf_tracepoints(object));
        assert!(rest.iter().all(|kind| matches!(kind, TracePoint)));
        assert!(matches!(fork, BtfTracePoint));
    }
}
