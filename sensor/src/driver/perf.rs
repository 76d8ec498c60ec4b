//! Tracepoints of perf, by which the kernel calls programs with preemption off.
//!
//! A tracepoint is opened with `perf_event_open`, which the sensor refuses itself later ([`crate::confine`]); programs are
//! attached to what was opened whenever they are wanted. Attached to a tracepoint, a program runs for every task on every
//! processor; the event itself stays disabled and counts nothing.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use aya_obj::generated::{bpf_attach_type::BPF_PERF_EVENT, bpf_cmd::BPF_LINK_CREATE};

/// Where tracefs may be mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why a tracepoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TracepointError {
    /// Its description can't be read.
    #[error("cannot read {}; is tracefs mounted (in the chart: sensor.tracefs.enabled), and readable?", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel hands over something else than the programs read.
    #[error("the record of tracepoint {name} is not laid out as the programs expect")]
    Layout {
        /// Its name.
        name: &'static str,
    },
    /// The kernel, or what watches over it, refused.
    #[error("perf_event_open was refused for tracepoint {name}")]
    Open {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A tracepoint, and what the programs read of its record.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Folder below `events` in tracefs.
    pub category: &'static str,
    /// Its name there, and as a hook.
    pub name: &'static str,
    /// Fields with their offsets and sizes in bytes: what sensor-ebpf/src/hook.rs loads.
    pub fields: &'static [(&'static str, u32, u32)],
}

/// An open tracepoint.
#[derive(Debug)]
pub struct Tracepoint {
    point: Point,
    event: OwnedFd,
}

impl Tracepoint {
    /// Opens it, if its record is what the programs expect.
    pub fn open(point: Point) -> Result<Self, TracepointError> {
        let Point { category, name, .. } = point;
        let [format, elsewhere] =
            TRACEFS.map(|at| Path::new(at).join("events").join(category).join(name).join("format"));
        let text = fs::read_to_string(&format).or_else(|source| {
            fs::read_to_string(elsewhere).map_err(|_| TracepointError::Format { file: format, source })
        })?;
        let id = id(&text, point.fields).ok_or(TracepointError::Layout { name })?;
        let event = event(id).map_err(|source| TracepointError::Open { name, source })?;
        Ok(Self { point, event })
    }

    /// Its name as a hook.
    pub fn name(&self) -> &'static str {
        self.point.name
    }

    /// Runs a program at every hit until the link is dropped. Takes Linux 5.15.
    pub fn attach(&self, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let attr = LinkCreate {
            program: program.as_raw_fd(),
            target: self.event.as_fd().as_raw_fd(),
            attach_type: BPF_PERF_EVENT as u32,
            flags: 0,
            cookie: 0,
        };
        // SAFETY: the kernel reads a struct whose size it is told, and which lives until the call returns.
        let made = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE as libc::c_long, &raw const attr, size_of::<LinkCreate>())
        };
        owned(made)
    }
}

/// `struct { … } link_create` of `union bpf_attr` (include/uapi/linux/bpf.h).
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    target: RawFd,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

/// `struct perf_event_attr` in its first form (include/uapi/linux/perf_event.h).
#[repr(C)]
struct EventAttr {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    rest: [u64; 2],
}

/// Opens the tracepoint with an id, on one processor: programs attached to it run on all.
fn event(id: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const DISABLED: u64 = 1;
    const ALL: libc::pid_t = -1;
    const NO_GROUP: RawFd = -1;
    let attr = EventAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<EventAttr>() as u32,
        config: id,
        period: 0,
        sample_type: 0,
        read_format: 0,
        flags: DISABLED,
        rest: [0; 2],
    };
    let cpu = nix::sched::sched_getcpu().unwrap_or(0) as libc::c_int;
    // SAFETY: as in `attach`.
    let made =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, ALL, cpu, NO_GROUP, PERF_FLAG_FD_CLOEXEC) };
    owned(made)
}

/// The descriptor that a call has made.
fn owned(made: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(made) {
        // SAFETY: the kernel has just made it, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The id in the description of a tracepoint, when its fields are where they should be.
fn id(format: &str, fields: &[(&str, u32, u32)]) -> Option<u64> {
    let at = |name: &str| {
        format.lines().find_map(|line| {
            let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
            let named = parts.next()?.rsplit(' ').next()? == name;
            let offset = parts.next()?.strip_prefix("offset:")?.parse::<u32>().ok()?;
            let size = parts.next()?.strip_prefix("size:")?.parse::<u32>().ok()?;
            named.then_some((offset, size))
        })
    };
    let same = fields.iter().all(|(name, offset, size)| at(name) == Some((*offset, *size)));
    let id = format.lines().find_map(|line| line.strip_prefix("ID:")?.trim().parse().ok())?;
    same.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Linux 6.18.
    const FORMAT: &str = "name: sched_process_exec
ID: 315
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;
\tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;

print fmt: \"filename=%s pid=%d\", __get_str(filename), REC->pid
";

    #[test]
    fn a_record_is_used_only_when_its_fields_are_where_the_programs_look() {
        assert_eq!(id(FORMAT, &[("filename", 8, 4), ("pid", 12, 4)]), Some(315));
        assert_eq!(id(FORMAT, &[]), Some(315));
        assert_eq!(id(FORMAT, &[("filename", 16, 4)]), None, "moved");
        assert_eq!(id(FORMAT, &[("filename", 8, 8)]), None, "another size");
        assert_eq!(id(FORMAT, &[("name", 8, 4)]), None, "no such field");
        assert_eq!(id("name: x\nformat:\n", &[]), None, "no id");
    }
}
