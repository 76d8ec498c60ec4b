//! A pod that does the same thing again and again, numbered, whatever happens to the cluster meanwhile; and whether each
//! number has arrived.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Namespace, try_wait_for};
use serde_json::Value;

use crate::harness::LONG;
use crate::receiver::Receiver;
use crate::steps::address;

/// A pod that executes `echo WORD nNUMBER` three times a second until it is stopped.
pub struct Talker<'a> {
    space: &'a Namespace<'a>,
    container: String,
    word: String,
}

/// The name of its pod.
const POD: &str = "talker";

impl<'a> Talker<'a> {
    /// Starts it. The shell itself does not have the word among its arguments.
    pub fn start(space: &'a Namespace<'a>, word: &str) -> Result<Self> {
        let (first, rest) = word.split_at(word.len() / 2);
        let script = format!(
            "a={first}; b={rest}; i=0; while [ ! -e /stop ]; do i=$((i+1)); /bin/echo $a$b n$i; echo $i >/said; \
             sleep 0.3; done; mv /said /count; sleep 100000"
        );
        space.busybox(POD, &script)?;
        let pod = space.kubectl_json(["get", "pod", POD])?;
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().and_then(|id| id.split_once("://"));
        let container = id.context("the pod has no container")?.1.to_owned();
        Ok(Self { space, container, word: word.to_owned() })
    }

    /// How often it has spoken so far. Asks the container runtime, for the API server may be away.
    pub fn said(&self, cluster: &Cluster) -> Result<u64> {
        let exec = ["tasks", "exec", "--exec-id", "said", &self.container, "cat", "/said"];
        // It may be writing just now.
        try_wait_for(LONG, "a number", || Ok(cluster.ctr(exec)?.stdout.trim().parse().ok()))
    }

    /// Ends it; how often it has spoken.
    pub fn stop(self) -> Result<u64> {
        self.space.exec(POD, ["touch", "/stop"])?;
        let count = try_wait_for(LONG, "the talker ends", || Ok(self.space.exec(POD, ["cat", "/count"]).ok()))?;
        count.trim().parse().context("no number")
    }

    /// How often each number has arrived.
    pub fn heard(&self, receiver: &Receiver) -> Result<BTreeMap<u64, u32>> {
        heard(&self.word, receiver)
    }
}

fn heard(word: &str, receiver: &Receiver) -> Result<BTreeMap<u64, u32>> {
    let mut heard = BTreeMap::new();
    for body in receiver.bodies() {
        let alert: Value = serde_json::from_str(&body)?;
        let command = alert["output_fields"]["proc.cmdline"].as_str().unwrap_or_default();
        let number = command.strip_prefix("echo ").and_then(|rest| rest.strip_prefix(word)).and_then(|rest| {
            let number = rest.trim().strip_prefix('n')?;
            number.parse::<u64>().ok()
        });
        if let Some(number) = number {
            *heard.entry(number).or_default() += 1;
        }
    }
    Ok(heard)
}

/// Waits until each of so many numbers has arrived, but for those within a gap while no sensor ran; fails at once when one
/// has come twice. Returns how many have arrived.
pub fn exactly_once(
    cluster: &Cluster,
    word: &str,
    count: u64,
    gap: Option<&RangeInclusive<u64>>,
    receiver: &Receiver,
) -> Result<i64> {
    let (heard, twice) = arrived(cluster, word, count, gap, receiver, true)?;
    ensure!(twice == 0, "{twice} came more than once");
    Ok(heard)
}

/// Waits until each of so many numbers has arrived. Returns how many have, and how many of them more than once: what was
/// sent, but not yet noted when its sender was killed, is sent again.
pub fn at_least_once(cluster: &Cluster, word: &str, count: u64, receiver: &Receiver) -> Result<(i64, usize)> {
    arrived(cluster, word, count, None, receiver, false)
}

fn arrived(
    cluster: &Cluster,
    word: &str,
    count: u64,
    gap: Option<&RangeInclusive<u64>>,
    receiver: &Receiver,
    once: bool,
) -> Result<(i64, usize)> {
    let (mut missing, mut here) = (Vec::new(), 0);
    let all = try_wait_for(LONG * 3, &format!("each of {count} alerts"), || {
        let heard = heard(word, receiver)?;
        let twice: Vec<_> = heard.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(!once || twice.is_empty(), "these came more than once, with how often: {twice:?}");
        let may_miss = |number: &u64| gap.is_some_and(|gap| gap.contains(number));
        missing = (1..=count).filter(|number| !heard.contains_key(number) && !may_miss(number)).collect();
        here = i64::try_from(heard.len())?;
        Ok(missing.is_empty().then_some((here, twice.len())))
    });
    all.or_else(|error| {
        // Whatever else makes a machine busy can fill the kernel's rings. Then what is missing was counted.
        let lost = sensor_metrics(cluster).map_or(0.0, |metrics| sum(&metrics, "gyrfalcon_sensor_losses_total"));
        println!("missing: {missing:?}; the sensor has counted {lost} events that it could not judge");
        if missing.len() as f64 <= lost { Ok((here, 0)) } else { Err(error).context(format!("missing: {missing:?}")) }
    })
}

/// What the sensor shows of itself. Asked from within the node, where pods can be reached.
pub fn sensor_metrics(cluster: &Cluster) -> Result<String> {
    metrics_at(cluster, &address(cluster, "sensor")?)
}

/// The same at an address that is known already, for the API server may be away.
pub fn metrics_at(cluster: &Cluster, address: &str) -> Result<String> {
    let script =
        format!("exec 3<>/dev/tcp/{address}/8081 && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
    let output = cluster.node_command("bash")?.args(["-c", &script]).stderr(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The sum of all values of a metric.
pub fn sum(metrics: &str, name: &str) -> f64 {
    let values = metrics.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}
