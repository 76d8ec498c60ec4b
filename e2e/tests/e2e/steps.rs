//! What cases do with Gyrfalcon: install it, write rules and sinks, look at statuses and Events, kill its programs.
//!
//! It is installed once, by the first case that asks for it. Each case has rules of its own, about words or files of its
//! own, so that none sees what another does.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::install::{self, SYSTEM};
use e2e::{Cluster, Namespace, image, try_wait_for};
use serde_json::{Value, json};

use crate::harness::LONG;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Installs Gyrfalcon unless it is.
pub fn installed(cluster: &Cluster) -> Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = INSTALLED.get_or_init(|| install(cluster).map_err(|error| format!("{error:#}")));
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => bail!("Gyrfalcon is not installed: {error}"),
    }
}

fn install(cluster: &Cluster) -> Result<()> {
    let archives = ["gyrfalcon", "gyrfalcon-operator"].map(image::archive);
    for archive in archives {
        cluster.load_image(&archive?)?;
    }
    let printed = install::helm(cluster, &root().join("charts/gyrfalcon"), &["operator.replicas=1"]);
    printed.map(drop).with_context(|| format!("the pods are\n{}", state(cluster)))
}

/// What one would look at when nothing comes up.
pub fn state(cluster: &Cluster) -> String {
    let look = |args: &[&str]| cluster.kubectl_args(args, None).map(|output| output.stdout).unwrap_or_default();
    let logs = |component: &str| {
        look(&["logs", "--namespace", SYSTEM, "--selector", component, "--all-containers", "--prefix", "--tail=30"])
    };
    [
        look(&["get", "pods", "--all-namespaces", "--output=wide"]),
        look(&["get", "events", "--namespace", SYSTEM]),
        logs("app.kubernetes.io/component=operator"),
        logs("app.kubernetes.io/component=sensor"),
    ]
    .join("\n")
}

/// A rule for whoever executes something with this word.
pub fn rule(name: &str, word: &str) -> Value {
    json!({
        "rule": name,
        "condition": format!("evt.type in (execve, execveat) and proc.args contains {word}"),
        "output": "seen | cmd=%proc.cmdline pod=%k8s.pod.name namespace=%k8s.ns.name",
        "priority": "Warning",
        "tags": ["e2e"],
    })
}

pub fn falco_rule(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "FalcoRule", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

pub fn condition<'o>(object: &'o Value, type_: &str) -> Option<&'o Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

/// Waits until the resource's condition is so, for the generation that it has.
pub fn wait_condition(space: &Namespace<'_>, kind: &str, name: &str, type_: &str, status: &str) -> Result<Value> {
    let mut seen = Value::Null;
    let what = format!("{kind}/{name} has {type_}={status}");
    let done = try_wait_for(LONG, &what, || {
        seen = space.kubectl_json(["get", kind, name])?;
        let current = seen["status"]["observedGeneration"] == seen["metadata"]["generation"];
        let holds = condition(&seen, type_).is_some_and(|condition| condition["status"] == status);
        Ok((current && holds).then(|| seen.clone()))
    });
    done.with_context(|| format!("its status is {:#}", seen["status"]))
}

pub fn ready(space: &Namespace<'_>, name: &str) -> Result<Value> {
    wait_condition(space, "falcorule", name, "Ready", "True")
}

pub fn hits(space: &Namespace<'_>, name: &str) -> Result<i64> {
    let rule = space.kubectl_json(["get", "falcorule", name])?;
    Ok(rule["status"]["hits"]["total"].as_i64().unwrap_or(0))
}

/// Waits until the rule has so many hits; fails at once when it has more.
pub fn wait_hits(space: &Namespace<'_>, name: &str, wanted: i64) -> Result<()> {
    let longest = Duration::from_secs(150);
    let mut seen = 0;
    let done = try_wait_for(longest, &format!("{wanted} hits of {name}"), || {
        seen = hits(space, name)?;
        ensure!(seen <= wanted, "{name} has {seen} hits, not {wanted}");
        Ok((seen == wanted).then_some(()))
    });
    done.with_context(|| format!("there are {seen}"))
}

/// The Events about a pod that are ours.
pub fn events(space: &Namespace<'_>, pod: &str) -> Result<Vec<Value>> {
    let about = format!("--field-selector=reportingComponent=gyrfalcon.dev/sensor,involvedObject.name={pod}");
    let list = space.kubectl_json(["get", "events", &about])?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Does something that the webhook would refuse, while its configuration does not apply to anything.
pub fn past_the_webhook(cluster: &Cluster, act: impl Fn() -> Result<()>) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let set = |operations: &str| {
        let patch = format!(r#"[{{"op":"replace","path":"/webhooks/0/rules/0/operations","value":{operations}}}]"#);
        let args = ["patch", "validatingwebhookconfiguration", "gyrfalcon", "--type=json", "--patch", &patch];
        cluster.kubectl_args(&args, None)?.success().map(drop)
    };
    set(r#"["CONNECT"]"#)?;
    // The API server follows the configuration with a watch of its own.
    let acted = try_wait_for(LONG, "a change that the webhook does not see", || Ok(act().ok()));
    set(r#"["CREATE","UPDATE"]"#)?;
    acted
}

pub fn sink_to(url: &str, more: &Value) -> String {
    let mut spec =
        json!({"webhook": {"url": url}, "retry": {"maxAttempts": 1000, "initialBackoff": "500ms", "maxBackoff": "2s"}});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({"apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "AlertSink", "metadata": {"name": "hook"}, "spec": spec})
        .to_string()
}

pub fn operator_pod(cluster: &Cluster) -> Result<String> {
    pod_of(cluster, "operator")
}

pub fn pod_of(cluster: &Cluster, component: &str) -> Result<String> {
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    let pods = cluster.kubectl_json(["get", "pods", "--namespace", SYSTEM, &selector])?;
    let name = pods["items"][0]["metadata"]["name"].as_str().context("there is no such pod")?;
    Ok(name.to_owned())
}

/// The address of a component's pod.
pub fn address(cluster: &Cluster, component: &str) -> Result<String> {
    let pod = cluster.kubectl_json(["get", "pod", &pod_of(cluster, component)?, "--namespace", SYSTEM])?;
    Ok(pod["status"]["podIP"].as_str().context("a pod without an address")?.to_owned())
}

/// Kills the program in a pod as the kernel would, and waits until it runs again.
pub fn kill(cluster: &Cluster, component: &str) -> Result<()> {
    kill_in(cluster, &pod_of(cluster, component)?)
}

/// The same for a pod of this name.
pub fn kill_in(cluster: &Cluster, pod: &str) -> Result<()> {
    let before = first_container(cluster, pod)?;
    kill_container(cluster, container_id(&before)?)?;
    try_wait_for(LONG * 3, &format!("{pod} runs again"), || {
        let now = first_container(cluster, pod)?;
        let again = now["restartCount"].as_i64() > before["restartCount"].as_i64() && now["ready"] == true;
        Ok(again.then_some(()))
    })
}

/// The status of a pod's container.
fn first_container(cluster: &Cluster, pod: &str) -> Result<Value> {
    let pod = cluster.kubectl_json(["get", "pod", "--namespace", SYSTEM, pod])?;
    Ok(pod["status"]["containerStatuses"][0].clone())
}

/// How often the container of a component has begun anew.
pub fn restarts(cluster: &Cluster, component: &str) -> Result<i64> {
    Ok(first_container(cluster, &pod_of(cluster, component)?)?["restartCount"].as_i64().unwrap_or(0))
}

fn container_id(status: &Value) -> Result<&str> {
    Ok(status["containerID"].as_str().and_then(|id| id.split_once("://")).context("it has no id")?.1)
}

/// What the container runtime calls the container of a component.
pub fn container_of(cluster: &Cluster, component: &str) -> Result<String> {
    container_in(cluster, &pod_of(cluster, component)?)
}

/// What it calls the container of this pod.
pub fn container_in(cluster: &Cluster, pod: &str) -> Result<String> {
    Ok(container_id(&first_container(cluster, pod)?)?.to_owned())
}

/// Kills a container as the kernel would.
pub fn kill_container(cluster: &Cluster, id: &str) -> Result<()> {
    cluster.ctr(["tasks", "kill", "--signal", "SIGKILL", id])?.success().map(drop)
}
