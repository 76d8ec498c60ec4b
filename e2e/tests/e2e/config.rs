//! The SensorConfig: each of its fields takes effect on the running cluster, and what is wrong with one is said and left out.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::install::SYSTEM;
use e2e::{Cluster, Namespace, try_wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::{LONG, case_alone};
use crate::receiver::Receiver;
use crate::steps::{
    condition, events, falco_rule, hits, installed, past_the_webhook, ready, rule, sink_to, wait_condition, wait_hits,
};

pub fn trials() -> Vec<Trial> {
    vec![case_alone("every_field_of_the_configuration_takes_effect", configuration)]
}

/// What all rules here look for.
const WORD: &str = "seventeenth-word";

/// The one SensorConfig; dropped, it is deleted.
struct Config<'a>(&'a Cluster);

impl Config<'_> {
    fn manifest(spec: &Value) -> String {
        json!({"apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "SensorConfig", "metadata": {"name": "default"}, "spec": spec})
            .to_string()
    }

    /// Applies it and waits until it says of itself that it is in effect, or is not.
    fn set(&self, spec: &Value, ready: &str) -> Result<Value> {
        match ready {
            "True" => self.0.kubectl_apply(&Self::manifest(spec)).map(drop)?,
            _ => past_the_webhook(self.0, || self.0.kubectl_apply(&Self::manifest(spec)).map(drop))?,
        }
        let mut seen = Value::Null;
        let done = try_wait_for(LONG, &format!("the SensorConfig has Ready={ready}"), || {
            seen = self.0.kubectl_json(["get", "sensorconfig", "default"])?;
            let current = seen["status"]["observedGeneration"] == seen["metadata"]["generation"];
            let holds = condition(&seen, "Ready").is_some_and(|condition| condition["status"] == ready);
            Ok((current && holds).then_some(()))
        });
        done.with_context(|| format!("{seen:#}"))?;
        Ok(seen)
    }
}

impl Drop for Config<'_> {
    fn drop(&mut self) {
        // A cluster without it has the defaults, as other cases want it.
        let _ = self.0.kubectl(["delete", "sensorconfig", "default", "--ignore-not-found"]);
    }
}

/// A new pod, in which the word is said.
fn say(space: &Namespace<'_>, pod: &str, more: &str) -> Result<()> {
    space.busybox(pod, "sleep 1000")?;
    space.exec(pod, ["echo", WORD, more]).map(drop)
}

/// The alert of a rule about a pod.
fn alert(receiver: &Receiver, rule: &str, pod: &str) -> Result<Value> {
    try_wait_for(LONG, &format!("an alert of {rule} about {pod}"), || {
        let alerts = receiver.bodies().into_iter().filter_map(|body| serde_json::from_str::<Value>(&body).ok());
        Ok(alerts.into_iter().find(|alert| alert["rule"] == rule && alert["output_fields"]["k8s.pod.name"] == pod))
    })
}

fn configuration(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("configured")?;
    let receiver = Receiver::start(None)?;
    let config = Config(cluster);
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    let mut less = rule("Less", WORD);
    less["priority"] = json!("Notice");
    for (name, rule) in [("a-first", rule("First", WORD)), ("b-second", rule("Second", WORD)), ("c-less", less)] {
        space.apply(&falco_rule(name, &json!({"rule": rule})))?;
        ready(&space, name)?;
    }
    wait_condition(&space, "alertsink", "hook", "Ready", "True")?;

    say(&space, "defaults", "visible-1")?;
    let first = alert(&receiver, "First", "defaults")?;
    ensure!(first["output"].as_str().is_some_and(|output| output.contains("container_id=")), "{first:#}");
    ensure!(first["output_fields"]["proc.exepath"].is_null(), "{first:#}");

    outputs(&space, &config, &receiver)?;
    kubernetes_events(cluster, &space, &config, &receiver)?;
    quotas_and_logs(cluster, &space, &config)?;
    mistakes(cluster, &space, &config, &receiver)?;
    // Once for each pod, whatever the configuration was.
    wait_hits(&space, "a-first", 9)?;
    ensure!(hits(&space, "b-second")? == 1 && hits(&space, "c-less")? == 0);
    Ok(())
}

fn outputs(space: &Namespace<'_>, config: &Config<'_>, receiver: &Receiver) -> Result<()> {
    let spec = json!({
        "ruleMatching": "all",
        "minimumPriority": "Warning",
        "outputs": {
            "suggestedOutput": false,
            "appendFields": ["proc.exepath"],
            "appendOutput": [{"match": {"rule": "First"}, "extraOutput": "by %user.uid", "extraFields": ["proc.pname"]}],
        },
    });
    config.set(&spec, "True")?;
    say(space, "outputs", "visible-2")?;
    let (first, second) = (alert(receiver, "First", "outputs")?, alert(receiver, "Second", "outputs")?);
    let text = first["output"].as_str().unwrap_or_default();
    ensure!(text.ends_with(" by 0") && !text.contains("container_id="), "{first:#}");
    ensure!(first["output_fields"]["proc.pname"].is_string(), "{first:#}");
    for alert in [&first, &second] {
        ensure!(alert["output_fields"]["proc.exepath"].is_string(), "{alert:#}");
    }
    ensure!(second["output_fields"]["proc.pname"].is_null(), "{second:#}");
    // Without any of it, the first rule has the event.
    config.set(&json!({}), "True")?;
    say(space, "again", "visible-3")?;
    alert(receiver, "First", "again").map(drop)
}

fn kubernetes_events(cluster: &Cluster, space: &Namespace<'_>, config: &Config<'_>, receiver: &Receiver) -> Result<()> {
    config.set(&json!({"events": {"redact": ["visible-[0-9]+"]}}), "True")?;
    say(space, "redacted", "visible-4")?;
    let found = try_wait_for(LONG, "an Event", || Ok(events(space, "redacted")?.into_iter().next()))?;
    let note = found["message"].as_str().unwrap_or_default();
    ensure!(note.contains("***") && !note.contains("visible-4"), "{note}");

    config.set(&json!({"events": {"minimumPriority": "Error"}}), "True")?;
    say(space, "less-serious", "x")?;
    alert(receiver, "First", "less-serious")?;
    config.set(&json!({"events": {"enabled": false}}), "True")?;
    say(space, "silent", "x")?;
    alert(receiver, "First", "silent")?;

    // Not in a pod: these tests may run in a container themselves.
    let host = json!({
        "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterFalcoRule", "metadata": {"name": "on-the-node"},
        "spec": {"rules": format!(
            "- rule: On the node\n  desc: d\n  condition: evt.type in (execve, execveat) and proc.args \
             contains {WORD}-node\n  output: seen\n  priority: CRITICAL\n"
        )},
    });
    space.apply(&host.to_string())?;
    config.set(&json!({"events": {"nodeEventsNamespace": "kube-system"}}), "True")?;
    cluster.kubectl(["wait", "--for=condition=Ready", "clusterfalcorule/on-the-node", "--timeout=60s"])?.success()?;
    let status = cluster.node_command("echo")?.arg(format!("{WORD}-node")).stdout(Stdio::null()).status()?;
    ensure!(status.success());
    let about = ["get", "events", "--namespace=kube-system", "--field-selector=reason=OnTheNode"];
    let found = try_wait_for(LONG, "an Event about the node", || {
        Ok(cluster.kubectl_json(about)?["items"].as_array().and_then(|items| items.first().cloned()))
    })?;
    ensure!(found["involvedObject"]["kind"] == "Node", "{found:#}");
    cluster.kubectl(["delete", "clusterfalcorule", "on-the-node"])?.success()?;
    // What was not wanted has not come late.
    for pod in ["less-serious", "silent"] {
        ensure!(events(space, pod)?.is_empty(), "there is an Event about {pod}");
    }

    // One Event at once from this node, and the next in a quarter of an hour.
    config.set(&json!({"events": {"budgets": {"node": {"perSecond": 0.001, "burst": 1}}}}), "True")?;
    say(space, "within", "x")?;
    say(space, "beyond", "x")?;
    let about = ["get", "events", "--all-namespaces", "--field-selector=reason=AlertsSuppressed"];
    try_wait_for(LONG, "what is beyond the budget is announced", || {
        Ok(cluster.kubectl_json(about)?["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(()))
    })?;
    ensure!(events(space, "beyond")?.is_empty());
    Ok(())
}

fn quotas_and_logs(cluster: &Cluster, space: &Namespace<'_>, config: &Config<'_>) -> Result<()> {
    config.set(&json!({"quotas": {"perNamespaceRules": 3}, "logLevel": "debug"}), "True")?;
    past_the_webhook(cluster, || {
        space.apply(&falco_rule("d-fourth", &json!({"rule": rule("Fourth", "x")}))).map(drop)
    })?;
    let refused = wait_condition(space, "falcorule", "d-fourth", "Accepted", "False")?;
    ensure!(condition(&refused, "Accepted").is_some_and(|one| one["reason"] == "QuotaExceeded"), "{refused:#}");
    let selector = "--selector=app.kubernetes.io/component=sensor";
    let talks = |level: &str| {
        let logs = cluster.kubectl(["logs", "--namespace", SYSTEM, selector, "--tail=200"])?.success()?;
        anyhow::Ok(logs.lines().any(|line| line.contains(level)))
    };
    try_wait_for(LONG, "the sensor says more", || Ok(talks(" DEBUG ")?.then_some(())))?;
    config.set(&json!({"quotas": {"perNamespaceResources": 3}, "logLevel": "warn"}), "True")?;
    let refused = wait_condition(space, "falcorule", "d-fourth", "Accepted", "False")?;
    ensure!(condition(&refused, "Accepted").is_some_and(|one| one["reason"] == "QuotaExceeded"), "{refused:#}");
    space.kubectl(["delete", "falcorule", "d-fourth"])?.success().map(drop)
}

fn mistakes(cluster: &Cluster, space: &Namespace<'_>, config: &Config<'_>, receiver: &Receiver) -> Result<()> {
    for (spec, words) in [
        (json!({"ruleMatching": "some"}), "Unsupported value: \"some\""),
        (json!({"events": {"budgets": {"node": {"perSecond": 0, "burst": 1}}}}), "perSecond"),
        (json!({"outputs": {"appendOutput": [{}]}}), "one of extraOutput and extraFields is needed"),
        (json!({"rulesMatching": "all"}), "unknown field \"spec.rulesMatching\""),
        (json!({"outputs": {"appendFields": ["proc.nme"]}}), "did you mean `proc.name`"),
        (json!({"events": {"redact": ["("]}}), "not a regular expression"),
    ] {
        let output = cluster.kubectl_args(&["apply", "--filename=-"], Some(&Config::manifest(&spec)))?;
        ensure!(!output.status.success() && output.stderr.contains(words), "{}", output.stderr);
    }
    let wrong = config.set(&json!({"outputs": {"appendFields": ["proc.nme", "proc.exepath"]}}), "False")?;
    let stalled = condition(&wrong, "Stalled").context("it is stalled")?;
    let text = stalled["message"].as_str().unwrap_or_default();
    ensure!(stalled["reason"] == "InvalidSpec" && text.starts_with("spec.outputs.appendFields[0]: "), "{text}");
    // Nobody's rules suffer for it.
    ready(space, "a-first")?;
    say(space, "mistaken", "x")?;
    let alert = alert(receiver, "First", "mistaken")?;
    ensure!(alert["output_fields"]["proc.exepath"].is_string(), "{alert:#}");
    Ok(())
}
