//! What this host permits: facts about the running kernel, read before anything is loaded.

use std::{fs, path::Path};

use abi::offsets::MISSING;

use super::btf::{Btf, BtfError, Resolved};

/// The host as far as the driver cares.
pub struct Host {
    /// `uname -r`.
    pub release: String,
    /// Offsets of kernel members.
    pub offsets: Resolved,
    /// Where container ids come from.
    pub cgroups: CgroupSource,
}

/// The hierarchy whose paths name containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupSource {
    /// The default hierarchy: cgroup v2 only.
    Unified,
    /// A cgroup v1 controller.
    Controller {
        /// Its name in `/proc/cgroups`.
        name: &'static str,
        /// Its index in the kernel.
        index: u64,
    },
}

/// Something a kernel may or may not permit, as `gyrfalcon doctor` shows it.
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub present: bool,
    /// What it means for the user, or how to get it.
    pub note: String,
}

impl Host {
    /// Reads the facts. Needs no privileges beyond reading BTF.
    pub fn probe() -> Result<Self, BtfError> {
        let offsets = Btf::of_kernel()?.resolve_offsets()?;
        let cgroups = cgroup_source(&fs::read_to_string("/proc/cgroups").unwrap_or_default(), &offsets);
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        Ok(Self { release, offsets, cgroups })
    }

    /// Whether the current task is read through a typed pointer. The helper is there since Linux 5.11, but older verifiers
    /// lose the value of an offset that the compiler puts on the stack, and refuse the sum (seen with 6.1; 6.12 takes it).
    pub fn typed_current(&self) -> bool {
        version(&self.release) >= (6, 12)
    }

    /// Whether 32-bit system calls can be told apart.
    pub fn compat(&self) -> bool {
        cfg!(target_arch = "x86_64") && self.offsets.get("task_status") != MISSING
    }

    /// What the host permits, for people.
    pub fn features(&self) -> Vec<Feature> {
        let mut features = vec![
            Feature { name: "BTF", present: true, note: format!("{}, Linux {}", super::btf::VMLINUX, self.release) },
            Feature {
                name: "typed task access",
                present: self.typed_current(),
                note: "Linux 6.12; older kernels use slower reads".to_owned(),
            },
            Feature {
                name: "32-bit system calls",
                present: self.compat(),
                note: "calls of 32-bit programs are seen as well".to_owned(),
            },
            Feature {
                name: "container ids",
                present: !self.offsets.without.contains(&"container ids"),
                note: match self.cgroups {
                    CgroupSource::Unified => "from cgroup v2".to_owned(),
                    CgroupSource::Controller { name, .. } => format!("from cgroup v1, controller {name}"),
                },
            },
            Feature {
                name: "BPF JIT",
                present: fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|s| s.trim() != "0"),
                note: "sysctl net.core.bpf_jit_enable=1; without it programs are interpreted and much slower"
                    .to_owned(),
            },
            Feature {
                name: "kernel lockdown off",
                present: !confidential(),
                note: "in confidentiality mode the kernel refuses programs that read its memory".to_owned(),
            },
        ];
        for feature in &self.offsets.without {
            if *feature != "container ids" {
                features.push(Feature {
                    name: feature,
                    present: false,
                    note: "this kernel lacks the member it is read from".to_owned(),
                });
            }
        }
        features
    }
}

/// The first two numbers of a kernel's release; zeros where there are none.
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether lockdown forbids reading kernel memory.
fn confidential() -> bool {
    let path = Path::new("/sys/kernel/security/lockdown");
    fs::read_to_string(path).is_ok_and(|state| state.contains("[confidentiality]"))
}

/// Chooses the hierarchy from `/proc/cgroups`: a controller with a hierarchy number is mounted as v1, and container
/// runtimes on such hosts make their groups there.
fn cgroup_source(table: &str, offsets: &Resolved) -> CgroupSource {
    const CONTROLLERS: [(&str, &str); 4] =
        [("memory", "subsys_memory"), ("pids", "subsys_pids"), ("cpu", "subsys_cpu"), ("devices", "subsys_devices")];
    let hierarchy = |name: &str| {
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        row.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    CONTROLLERS
        .into_iter()
        .find(|(name, row)| hierarchy(name).is_some_and(|h| h != 0) && offsets.get(row) != MISSING)
        .map_or(CgroupSource::Unified, |(name, row)| CgroupSource::Controller { name, index: offsets.get(row) })
}
