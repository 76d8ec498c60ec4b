//! Gyrfalcon in a cluster of ours: our images, and the chart with what this machine needs.

use std::path::Path;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::{capabilities_here, image};

/// The namespace of Gyrfalcon.
pub const SYSTEM: &str = "gyrfalcon-system";
/// What the chart gives the sensor; a machine may lack one, and then no container can have it.
const CAPABILITIES: [&str; 5] = ["BPF", "PERFMON", "SYS_RESOURCE", "SYS_PTRACE", "DAC_READ_SEARCH"];

/// The values by which the chart takes our images, for `--set`.
fn values() -> Vec<String> {
    let tag = image::TAG;
    vec![
        "image.registry=".to_owned(),
        "image.pullPolicy=Never".to_owned(),
        format!("image.operator.repository=gyrfalcon-operator,image.operator.tag={tag}"),
        format!("image.sensor.repository=gyrfalcon,image.sensor.tag={tag}"),
        format!("sensor.capabilities={{{}}}", capabilities_here(&CAPABILITIES).join(",")),
    ]
}

/// Installs the chart, or upgrades what is installed, and waits until its pods are ready. Returns what helm printed.
pub fn helm(cluster: &Cluster, chart: &Path, more: &[&str]) -> Result<String> {
    let (chart, values) = (chart.display().to_string(), values());
    let mut args = vec!["upgrade", "--install", "gyrfalcon", &chart, "--namespace", SYSTEM, "--create-namespace"];
    args.extend(["--wait", "--timeout=180s"]);
    args.extend(values.iter().map(String::as_str).chain(more.iter().copied()).flat_map(|value| ["--set", value]));
    cluster.helm(&args)?.success()
}
