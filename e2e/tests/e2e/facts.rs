//! Facts about containers and pods: a sensor on the node, beside the pods.
//!
//! It runs by itself, so that what it says is its own: no operator, no API server. It is told of no socket: that of the
//! node's container runtime is where it is on every node.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::image::{BUSYBOX, Image};
use e2e::{Cluster, Component, capabilities_here, try_wait_for};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{LONG, case, case_alone};

/// Names the sensor's program.
const SENSOR_VAR: &str = "GYRFALCON_E2E_SENSOR";

/// Pods that start at once.
const PODS: usize = 20;

/// The program that says where it is, and nobody else runs.
const RULES: &str = r"
- rule: Trigger
  desc: a word that only these tests say
  condition: evt.type in (execve, execveat) and proc.args contains gyrfalcon-trigger
  priority: WARNING
  output: ";

/// What alerts say.
const FIELDS: [&str; 12] = [
    "container.id",
    "container.name",
    "container.type",
    "container.image.repository",
    "container.image.tag",
    "container.privileged",
    "k8s.ns.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.pod.ip",
    "k8s.pod.label[app]",
    "proc.cmdline",
];

fn rules_text() -> String {
    let output: Vec<_> = FIELDS.iter().map(|field| format!("%{field}")).collect();
    format!("{RULES}{:?}\n", output.join(" "))
}

pub fn trials() -> Vec<Trial> {
    vec![
        case("the_first_event_of_a_container_has_all_facts", first_event),
        case("what_is_executed_in_a_running_pod_has_all_facts", exec_in_pod),
        case("a_sensor_in_a_container_knows_host_and_pods_apart", sensor_in_pod),
        case_alone("facts_come_back_with_the_container_runtime", runtime_restarts),
    ]
}

/// The sensor's program.
pub fn sensor_program() -> Result<String> {
    std::env::var(SENSOR_VAR)
        .with_context(|| format!("{SENSOR_VAR} does not name the sensor\n  remedy: use `cargo xtask e2e`"))
}

/// A running sensor; its folder goes with it.
pub struct Sensor {
    child: Child,
    folder: PathBuf,
}

impl Sensor {
    fn start(cluster: &Cluster, word: &str) -> Result<Self> {
        let rules = |folder: &Path| {
            let rules = folder.join("rules.yaml");
            fs::write(&rules, rules_text())?;
            Ok(vec![rules])
        };
        Self::start_with(cluster, word, rules, &[])
    }

    /// Starts one on the node, with these rules and options, and waits until it watches.
    pub fn start_with(
        cluster: &Cluster,
        word: &str,
        rules: impl FnOnce(&Path) -> Result<Vec<PathBuf>>,
        options: &[&str],
    ) -> Result<Self> {
        let program = sensor_program()?;
        let folder = cluster.dir().join(format!("sensor-{word}"));
        fs::create_dir_all(&folder)?;
        let rules = rules(&folder)?;
        let child = cluster
            .node_command(&program)?
            .args(["run", "--json", "--no-watch", "--no-suggested-output"])
            .args(options)
            .args(&rules)
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("alerts"))?)
            .stderr(File::create(folder.join("log"))?)
            .spawn()
            .context("cannot start the sensor")?;
        let sensor = Self { child, folder };
        try_wait_for(LONG, "the sensor watches", || Ok(sensor.log().contains("watching").then_some(())))
            .with_context(|| sensor.log())?;
        Ok(sensor)
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its alerts so far.
    pub fn whole_alerts(&self) -> Result<Vec<Value>> {
        whole_alerts(&fs::read_to_string(self.folder.join("alerts"))?)
    }

    /// What its alerts say.
    fn alerts(&self) -> Result<Vec<Value>> {
        alerts(&fs::read_to_string(self.folder.join("alerts"))?)
    }

    /// Waits until there are alerts about so many pods of a namespace.
    fn pods(&self, namespace: &str, count: usize) -> Result<Vec<Value>> {
        let mut seen = Vec::new();
        let found = try_wait_for(LONG, "alerts about every pod", || {
            seen = self.alerts()?.into_iter().filter(|fields| says(fields, namespace)).collect();
            let pods: BTreeSet<_> = seen.iter().map(|fields| fields["proc.cmdline"].to_string()).collect();
            Ok((pods.len() >= count).then(|| std::mem::take(&mut seen)))
        });
        found.with_context(|| format!("only {seen:#?}\n{}", self.log()))
    }
}

/// The alerts among these lines, of which the last may be unfinished.
fn whole_alerts(text: &str) -> Result<Vec<Value>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let alerts = whole.lines().filter(|line| line.starts_with('{'));
    alerts.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Their output fields.
fn alerts(text: &str) -> Result<Vec<Value>> {
    Ok(whole_alerts(text)?.into_iter().map(|mut alert| alert["output_fields"].take()).collect())
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX)), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Whether the trigger was that of this namespace, whatever else is known.
fn says(fields: &Value, namespace: &str) -> bool {
    // runc repeats the arguments before it becomes the container.
    fields["proc.cmdline"].as_str().is_some_and(|line| line.contains(namespace) && line.starts_with("true"))
}

/// A pod whose first and only act is the trigger, with its name in it.
fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": BUSYBOX, "imagePullPolicy": "Never",
                "command": ["true", "gyrfalcon-trigger", namespace, name],
            }],
        },
    })
}

/// What an alert must say about a pod.
fn check(cluster: &Cluster, namespace: &str, name: &str, alert: &Value) -> Result<()> {
    let get = ["--namespace", namespace, "get", "pod", name];
    let pod = cluster.kubectl_json([get[0], get[1], get[2], get[3], get[4], "--output=json"])?;
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    let id = id.strip_prefix("containerd://").unwrap_or_default();
    let (repository, tag) = BUSYBOX.rsplit_once(':').context("an image with a tag")?;
    let want = json!({
        "container.id": id.get(..12), "container.name": "main", "container.type": "containerd",
        "container.image.repository": repository, "container.image.tag": tag, "container.privileged": false,
        "k8s.ns.name": namespace, "k8s.pod.name": name, "k8s.pod.uid": pod["metadata"]["uid"],
        "k8s.pod.ip": pod["status"]["podIP"], "k8s.pod.label[app]": name,
    });
    for (field, value) in want.as_object().context("an object")? {
        ensure!(alert[field] == *value, "{name}: {field} is {}, not {value}: {alert}", alert[field]);
    }
    Ok(())
}

fn first_event(cluster: &Cluster) -> Result<()> {
    let sensor = Sensor::start(cluster, "first")?;
    let namespace = cluster.namespace("first")?;
    let names: Vec<_> = (0..PODS).map(|number| format!("pod-{number}")).collect();
    let pods: Vec<_> = names.iter().map(|name| pod(namespace.name(), name)).collect();
    namespace.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": pods }).to_string())?;
    let alerts = sensor.pods(namespace.name(), PODS)?;
    for name in &names {
        namespace.pod_runs(name)?;
        let line = format!("true gyrfalcon-trigger {} {name}", namespace.name());
        let mut found = alerts.iter().filter(|alert| alert["proc.cmdline"] == line);
        let alert = found.next().with_context(|| format!("no alert says {line}"))?;
        ensure!(found.next().is_none(), "{name} was reported twice");
        check(cluster, namespace.name(), name, alert)?;
    }
    Ok(())
}

fn exec_in_pod(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("inside")?;
    namespace.busybox("before", "sleep 1000")?;
    // This pod was there first: the sensor finds it in the runtime's list.
    let sensor = Sensor::start(cluster, "inside")?;
    namespace.exec("before", ["true", "gyrfalcon-trigger", namespace.name(), "before"])?;
    let alerts = sensor.pods(namespace.name(), 1)?;
    check(cluster, namespace.name(), "before", alerts.first().context("an alert")?)
}

/// As the chart runs it: /proc is the host's, everything else is a container's.
fn sensor_in_pod(cluster: &Cluster) -> Result<()> {
    const IMAGE: &str = "e2e.gyrfalcon.dev/sensor:1";
    let archive = cluster.dir().join("sensor.tar");
    Image::of_program(IMAGE, Path::new(&sensor_program()?))?.write(&archive)?;
    cluster.load_image(&archive)?;
    let namespace = cluster.namespace("within")?;
    let capabilities =
        capabilities_here(&["BPF", "PERFMON", "SYS_ADMIN", "SYS_RESOURCE", "SYS_PTRACE", "DAC_READ_SEARCH"]);
    let host = |name: &str, path: &str| json!({ "name": name, "hostPath": { "path": path } });
    let at = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let manifests = json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "rules" },
            "data": { "rules.yaml": rules_text() },
        },
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "sensor", "labels": { "app": "sensor" } },
            "spec": {
                "hostPID": true, "terminationGracePeriodSeconds": 0,
                "volumes": [
                    { "name": "rules", "configMap": { "name": "rules" } },
                    host("run", "/run"), host("cgroup", "/sys/fs/cgroup"),
                ],
                "containers": [{
                    "name": "sensor", "image": IMAGE, "imagePullPolicy": "Never",
                    "args": ["run", "--json", "--no-suggested-output", "--host-root=/host", "/rules"],
                    "securityContext": {
                        "runAsUser": 0, "runAsGroup": 0, "seccompProfile": { "type": "Unconfined" },
                        "capabilities": { "drop": ["ALL"], "add": capabilities },
                    },
                    "volumeMounts": [at("rules", "/rules"), at("run", "/host/run"), at("cgroup", "/host/sys/fs/cgroup")],
                }],
            },
        },
    ]});
    namespace.apply(&manifests.to_string())?;
    namespace.pod_runs("sensor")?;
    let logs = || namespace.kubectl(["logs", "sensor"])?.success();
    try_wait_for(LONG, "the sensor watches", || Ok(logs()?.contains("watching").then_some(())))
        .with_context(|| logs().unwrap_or_default())?;

    // A process that the sensor finds in /proc, of a pod that was there before; it has no first event.
    namespace.busybox("beside", "sleep 1000")?;
    namespace.exec("beside", ["true", "gyrfalcon-trigger", namespace.name(), "beside"])?;
    let host = cluster.node_command("true")?.args(["gyrfalcon-trigger", namespace.name(), "host"]).status()?;
    ensure!(host.success());
    let word = format!("true gyrfalcon-trigger {} ", namespace.name());
    let found = try_wait_for(LONG, "alerts about the pod and the host", || {
        let mut alerts = alerts(&logs()?)?;
        alerts.retain(|alert| alert["proc.cmdline"].as_str().is_some_and(|line| line.starts_with(&word)));
        Ok((alerts.len() >= 2).then_some(alerts))
    });
    let found = found.with_context(|| logs().unwrap_or_default())?;
    let of = |name: &str| found.iter().find(|alert| alert["proc.cmdline"] == format!("{word}{name}"));
    check(cluster, namespace.name(), "beside", of("beside").context("an alert about the pod")?)?;
    let host = of("host").context("an alert about the host")?;
    ensure!(host["k8s.pod.name"].is_null(), "{host}");
    Ok(())
}

fn runtime_restarts(cluster: &Cluster) -> Result<()> {
    let sensor = Sensor::start(cluster, "again")?;
    let namespace = cluster.namespace("again")?;
    cluster.kill(Component::Containerd)?;
    cluster.start_component(Component::Containerd)?;
    namespace.apply(&pod(namespace.name(), "after").to_string())?;
    namespace.pod_runs("after")?;
    let alerts = sensor.pods(namespace.name(), 1)?;
    check(cluster, namespace.name(), "after", alerts.first().context("an alert")?)
}
