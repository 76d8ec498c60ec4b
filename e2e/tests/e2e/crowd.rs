//! Containers that come and go on a real node: a sensor beside them knows what they are from their first event to the
//! last, and nothing is left of them in it when they are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::image::BUSYBOX;
use e2e::{Cluster, Namespace, try_wait_for};
use libtest_mimic::Trial;
use serde_json::json;

use crate::{
    facts::Sensor,
    harness::{LONG, case, is_long},
};

/// Pods that run at the same time.
const AT_A_TIME: usize = 10;

/// Of ten thousand events of containers, so many have facts at least.
const WITH_FACTS: usize = 9_990;

/// How long all of them may take.
const ALL: Duration = Duration::from_secs(1200);

/// Where the sensor serves its metrics, on the node.
const PORT: u16 = 18790;

const SCRIPT: &str = "id; ls -l /bin; cat /etc/passwd; head -c 1 /etc/hosts; cp /etc/hosts /tmp/copy; wc /tmp/copy";

const RULES: &str = "
- rule: event of a container
  desc: Everything that a container does, and what is known about it.
  condition: container and evt.type in (execve, open, openat, openat2)
  output: id=%container.id name=%container.name image=%container.image.repository pod=%k8s.pod.name ns=%k8s.ns.name
  priority: DEBUG
";

/// Official rules that a pod of the crowd may set off.
const JUSTIFIED: [&str; 1] = [
    // It asks whether a mount is not in a list, and what is not mounted is in none: as in Falco, it tells of every start.
    "Launch Sensitive Mount Container",
];

pub fn trials() -> Vec<Trial> {
    vec![case("events_of_containers_that_come_and_go_have_facts", crowd)]
}

/// How many pods run one after the other, and how many ten at a time.
fn pods() -> (usize, usize) {
    if is_long() { (20, 180) } else { (4, 30) }
}

/// Official rules, where there are any, and that of the case.
fn rules(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let official = env::var_os("GYRFALCON_FALCO_RULES").map(std::path::PathBuf::from);
    let names = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];
    let official = official.iter().flat_map(|folder| names.map(|name| folder.join(name)));
    let own = folder.join("crowd.yaml");
    fs::write(&own, RULES)?;
    Ok(official.filter(|file| file.is_file()).chain([own]).collect())
}

/// Sizes of the sensor's tables, and what waits.
fn tables(cluster: &Cluster) -> Result<BTreeMap<&'static str, u64>> {
    let mut stream = TcpStream::connect((cluster.node_address(), PORT)).context("the sensor serves metrics")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let value = |name: &'static str| {
        let line = format!("gyrfalcon_sensor_{name} ");
        let value = text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok());
        Ok((name, value.with_context(|| format!("no {name} in {text}"))?))
    };
    ["processes", "cgroups", "containers", "held_records", "held_bytes", "questions"].into_iter().map(value).collect()
}

/// Has so many pods come and go.
fn run(namespace: &Namespace<'_>, name: &str, count: usize, at_a_time: usize) -> Result<Duration> {
    let began = Instant::now();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": {
            "completions": count, "parallelism": at_a_time, "backoffLimit": 0,
            "template": { "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{
                    "name": "worker", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", SCRIPT],
                }],
            } },
        },
    });
    namespace.apply(&job.to_string())?;
    try_wait_for(ALL, "all pods have ended well", || {
        let status = namespace.kubectl_json(["get", "job", name])?["status"].take();
        ensure!(status["failed"].as_u64().unwrap_or(0) == 0, "pods failed: {status}");
        Ok((status["succeeded"].as_u64() == Some(count as u64)).then_some(()))
    })?;
    Ok(began.elapsed())
}

fn crowd(cluster: &Cluster) -> Result<()> {
    let listen = format!("{}:{PORT}", cluster.node_address());
    let sensor = Sensor::start_with(cluster, "crowd", rules, &["--rule-matching=all", "--health-listen", &listen])?;
    let before = tables(cluster)?;
    let namespace = cluster.namespace("crowd")?;
    let (alone, together) = pods();
    let took = (run(&namespace, "alone", alone, 1)?, run(&namespace, "together", together, AT_A_TIME)?);
    // Dead containers stay until their pods are deleted: here are the ids of all, and of what holds their pods together.
    let of_pod = format!("labels.\"io.kubernetes.pod.namespace\"=={}", namespace.name());
    let ids = cluster.ctr(["containers", "list", "--quiet", &of_pod])?.success()?;
    let ids: BTreeSet<_> = ids.lines().filter_map(|id| id.get(..12)).map(str::to_owned).collect();
    ensure!(ids.len() == 2 * (alone + together), "{} containers, with those of sandboxes", ids.len());
    let most = tables(cluster)?;
    namespace.kubectl(["delete", "job", "alone", "together", "--cascade=foreground"])?.success()?;

    let ended = Instant::now();
    let mut now = most.clone();
    let back = try_wait_for(2 * LONG, "the tables are as before", || {
        now = tables(cluster)?;
        let waiting = now["held_records"] + now["held_bytes"] + now["questions"];
        let back = now["containers"] <= before["containers"]
            && now["cgroups"] <= before["cgroups"] + 8
            && now["processes"] <= before["processes"] + 64
            && waiting == 0;
        Ok(back.then_some(ended.elapsed()))
    });
    let back = back.with_context(|| format!("{before:?} before, {now:?} now"))?;

    let alerts = sensor.whole_alerts()?;
    let mut unjustified = BTreeSet::new();
    let (mut events, mut with_facts, mut seen) = (0, 0, BTreeSet::new());
    // By container: how many events have no facts, and one of them.
    let mut without = BTreeMap::<&str, (usize, &str)>::new();
    for alert in &alerts {
        let fields = &alert["output_fields"];
        let Some(id) = fields["container.id"].as_str().filter(|id| ids.contains(*id)) else { continue };
        let rule = alert["rule"].as_str().unwrap_or_default();
        if rule != "event of a container" {
            if !JUSTIFIED.contains(&rule) {
                unjustified.insert(alert["output"].to_string());
            }
            continue;
        }
        events += 1;
        seen.insert(id);
        let has = ["container.name", "container.image.repository", "k8s.pod.name"]
            .iter()
            .all(|name| fields[name].is_string());
        if has && fields["k8s.ns.name"] == namespace.name() {
            with_facts += 1;
        } else {
            without.entry(id).or_insert((0, alert["output"].as_str().unwrap_or_default())).0 += 1;
        }
    }
    let expired = sensor.log();
    let expired: Vec<_> = expired.lines().filter(|line| line.contains("hold_") || line.contains("lost=")).collect();
    eprintln!(
        "{alone} pods one after the other and {together} pods {AT_A_TIME} at a time in {took:?}: {} containers, {events} events, \
         {} without facts, {expired:?}; {before:?} before, {most:?} at the end, {now:?} {back:?} after their deletion",
        seen.len(),
        events - with_facts
    );
    ensure!(unjustified.is_empty(), "{unjustified:#?}");
    ensure!(seen.len() == ids.len(), "{} of {} containers were seen", seen.len(), ids.len());
    ensure!(with_facts * 10_000 >= events * WITH_FACTS, "{with_facts} of {events} events have facts: {without:#?}");
    Ok(())
}
