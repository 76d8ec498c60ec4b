//! Two replicas of the operator, each with a volume of its own: leaders that are killed, or hang, in the middle of their work.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::install::{self, SYSTEM};
use e2e::{Cluster, Namespace, try_wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::{LONG, case_alone};
use crate::receiver::Receiver;
use crate::steps::{
    condition, container_in, events, falco_rule, installed, kill_container, kill_in, ready, root, rule, sink_to, state,
    wait_condition, wait_hits,
};
use crate::talker::{Talker, at_least_once};

pub fn trials() -> Vec<Trial> {
    vec![case_alone("durable_replicas_follow_each_other_and_lose_nothing", replicas)]
}

/// Longest time without a leader that is promised.
const FAILOVER: Duration = Duration::from_secs(20);

/// The word that the rules here look for.
const WORD: &str = "eighteenth-word";

/// Volumes on the node for both replicas, as an administrator makes them by hand.
fn volumes(cluster: &Cluster) -> Result<()> {
    for number in 0..2 {
        let (name, path) = (format!("outbox-{number}"), format!("/var/lib/e2e-outbox-{number}"));
        let made = cluster.node_command("mkdir")?.args(["-p", &path]).status()?;
        ensure!(made.success());
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                ]}]}},
            },
        });
        cluster.kubectl_apply(&volume.to_string())?;
    }
    Ok(())
}

fn chart(cluster: &Cluster, more: &[&str]) -> Result<()> {
    let printed = install::helm(cluster, &root().join("charts/gyrfalcon"), more);
    printed.map(drop).with_context(|| format!("the pods are\n{}", state(cluster)))
}

/// Who leads: its pod, and with its address, so that a pod of the same name is another one.
fn leader(cluster: &Cluster) -> Result<String> {
    let lease = cluster.kubectl_json(["get", "lease", "gyrfalcon-operator", "--namespace", SYSTEM])?;
    let holder = lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
    Ok(holder.context("nobody leads")?.to_owned())
}

fn pod(identity: &str) -> &str {
    identity.split_once('_').map_or(identity, |(pod, _)| pod)
}

/// Waits until another one leads; fails when that takes longer than is promised.
fn another(cluster: &Cluster, before: &str) -> Result<String> {
    let begun = Instant::now();
    let now = try_wait_for(LONG, "another replica leads", || Ok(leader(cluster).ok().filter(|now| now != before)))?;
    let took = begun.elapsed();
    println!("after {before} {now} leads, {took:?} later");
    // No measurement: others share the processors.
    ensure!(took <= FAILOVER + Duration::from_secs(10), "nobody led for {took:?}");
    Ok(now)
}

fn replicas(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    volumes(cluster)?;
    let outcome = chart(
        cluster,
        &["operator.replicas=2", "operator.persistence.enabled=true", "operator.persistence.storageClass=-"],
    )
    .and_then(|()| disturbed(cluster));
    // Others have one replica without a volume.
    chart(cluster, &["operator.replicas=1"])?;
    outcome
}

fn disturbed(cluster: &Cluster) -> Result<()> {
    let space = cluster.namespace("replicas")?;
    let receiver = Receiver::start(None)?;
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    space.apply(&falco_rule("followed", &json!({"rule": rule("Followed", WORD)})))?;
    ready(&space, "followed")?;
    wait_condition(&space, "alertsink", "hook", "Ready", "True")?;
    let talker = Talker::start(&space, WORD)?;
    receiver.wait(3)?;

    // What is committed is acknowledged, and then only here: the receiver is away, the sensor's spool is empty.
    receiver.refuse(true);
    try_wait_for(LONG, "alerts wait in the outbox and nowhere else", || {
        let sink = space.kubectl_json(["get", "alertsink", "hook"])?;
        let nodes = cluster.kubectl_json(["get", "sensornodes"])?;
        let waits = sink["status"]["queue"]["depth"].as_i64().is_some_and(|depth| depth > 0);
        Ok((waits && nodes["items"][0]["status"]["spooled"] == 0).then_some(()))
    })?;
    kill_in(cluster, pod(&leader(cluster)?))?;
    receiver.refuse(false);
    at_least_once(cluster, WORD, talker.said(cluster)?, &receiver)?;

    // Killed while it works on changes, and its pod replaced: nothing is half done.
    let first = leader(cluster)?;
    let all: Vec<Value> = (0..20).map(|at| many(&space, at)).collect();
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string())?;
    kill_container(cluster, &container_in(cluster, pod(&first))?)?;
    let delete = ["delete", "pod", pod(&first), "--namespace", SYSTEM, "--grace-period=0", "--force", "--wait=false"];
    cluster.kubectl(delete)?.success()?;
    let second = another(cluster, &first)?;
    for at in 0..20 {
        ready(&space, &format!("many-{at}"))?;
    }

    // It hangs: the other takes over, and it finds itself a follower.
    let container = container_in(cluster, pod(&second))?;
    cluster.ctr(["tasks", "kill", "--signal", "SIGSTOP", &container])?.success()?;
    let taken = another(cluster, &second);
    cluster.ctr(["tasks", "kill", "--signal", "SIGCONT", &container])?.success()?;
    taken?;

    ready(&space, "followed")?;
    let count = talker.stop()?;
    let (heard, twice) = at_least_once(cluster, WORD, count, &receiver)?;
    wait_hits(&space, "followed", heard)?;
    println!("{count} alerts through three leaders: all came, {twice} of them again");
    let found = events(&space, "talker")?;
    ensure!(found.len() == 1, "one Event, found again by each leader: {found:#?}");
    let rule = space.kubectl_json(["get", "falcorule", "followed"])?;
    ensure!(condition(&rule, "Ready").is_some_and(|ready| ready["status"] == "True"), "{:#}", rule["status"]);
    Ok(())
}

fn many(space: &Namespace<'_>, at: u32) -> Value {
    let rule = json!({"rule": rule(&format!("Many {at}"), "none")});
    let mut manifest: Value = serde_json::from_str(&falco_rule(&format!("many-{at}"), &rule)).unwrap_or_default();
    manifest["metadata"]["namespace"] = json!(space.name());
    manifest
}
