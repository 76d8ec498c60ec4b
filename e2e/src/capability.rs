//! Capabilities that this machine can give to a container. Where it lacks one, a container that asks for it does not start.

use std::fs;

/// Those that somebody has asked about, with their numbers.
const NUMBERS: [(&str, u32); 6] =
    [("BPF", 39), ("PERFMON", 38), ("SYS_RESOURCE", 24), ("SYS_ADMIN", 21), ("SYS_PTRACE", 19), ("DAC_READ_SEARCH", 2)];

/// Those of the wanted capabilities, by their names without `CAP_`, that this process could give.
pub fn capabilities_here<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    available(wanted, &status)
}

fn available<'a>(wanted: &[&'a str], status: &str) -> Vec<&'a str> {
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounds = bounds.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    let has = |name: &&&str| NUMBERS.iter().any(|(known, bit)| known == *name && bounds >> bit & 1 == 1);
    wanted.iter().filter(has).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_left_out() {
        let status = "CapEff:\t0000000000000000\nCapBnd:\t0000008000080004\n";
        assert_eq!(available(&["BPF", "SYS_RESOURCE", "SYS_PTRACE", "UNKNOWN"], status), ["BPF", "SYS_PTRACE"]);
    }
}
