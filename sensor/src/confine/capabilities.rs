//! Capabilities: those that the sensor uses while it runs, and what for. All others are given up for good.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use caps::{CapSet, Capability, CapsHashSet};

/// What is kept, and what for.
const KEPT: [(Capability, &str); 4] = [
    (Capability::CAP_BPF, "fills maps and loads programs when rules change"),
    (Capability::CAP_PERFMON, "loads programs that read kernel memory when rules change"),
    (Capability::CAP_SYS_PTRACE, "reads executable, folder and environment of other users' processes in /proc"),
    (Capability::CAP_DAC_READ_SEARCH, "finds cgroups by their ids; reads rules that belong to other users"),
];

/// Why capabilities could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("capset or prctl failed")]
pub struct CapabilityError(#[source] caps::errors::CapsError);

/// Gives up all but those that are used; `folders` are written. Returns the names of what is left.
pub fn keep(folders: &[PathBuf]) -> Result<Vec<String>, CapabilityError> {
    let have = caps::read(None, CapSet::Permitted).map_err(CapabilityError)?;
    let mut wanted: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
    // Root without it writes only what belongs to root: an output in the folder of another user needs it.
    let foreign = |folder: &PathBuf| fs::metadata(folder).is_ok_and(|found| found.uid() != 0);
    if folders.iter().any(foreign) {
        wanted.insert(Capability::CAP_DAC_OVERRIDE);
    }
    let kept: CapsHashSet = have.intersection(&wanted).copied().collect();
    if have.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(CapabilityError)?;
            }
        }
    }
    // Not every kernel has ambient capabilities; where there are none, none are left.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable).map_err(CapabilityError)?;
    caps::set(None, CapSet::Effective, &kept).map_err(CapabilityError)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(CapabilityError)?;
    let mut names: Vec<_> = kept.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    Ok(names)
}
