//! What Gyrfalcon is not asked for: links that are cut, an API server that is away, certificates that vanish, strangers.
//!
//! Outages are just long enough to be noticed; with `GYRFALCON_E2E_LONG=1` they take the minutes that are promised.

use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::install::SYSTEM;
use e2e::{Cluster, Component, try_wait_for};
use libtest_mimic::Trial;
use serde_json::json;

use crate::facts::sensor_program;
use crate::harness::{LONG, case_alone, outage};
use crate::receiver::Receiver;
use crate::steps::{
    address, container_of, falco_rule, installed, kill_container, pod_of, ready, rule, sink_to, wait_condition,
    wait_hits,
};
use crate::talker::{Talker, exactly_once, metrics_at, sum};

pub fn trials() -> Vec<Trial> {
    vec![
        case_alone("a_cut_link_and_a_new_authority_lose_no_alert", link_cut),
        case_alone("sensors_and_sinks_go_on_without_the_api_server", without_api_server),
        case_alone("a_sensor_is_let_in_by_the_token_of_its_own_pod_only", tokens),
    ]
}

/// No packet passes between two addresses on the node until this is dropped.
struct Cut<'a>(&'a Cluster);

impl<'a> Cut<'a> {
    fn between(cluster: &'a Cluster, one: &str, other: &str) -> Result<Self> {
        // Before kube-proxy's own chains; a new address of a Service is known by then.
        let rules = format!(
            "add table ip cut\n\
             add chain ip cut forward {{ type filter hook forward priority -300; }}\n\
             add rule ip cut forward ip saddr {one} ip daddr {other} drop\n\
             add rule ip cut forward ip saddr {other} ip daddr {one} drop\n"
        );
        let file = cluster.dir().join("cut.nft");
        fs::write(&file, rules)?;
        let status = cluster.node_command("nft")?.arg("--file").arg(&file).status()?;
        ensure!(status.success(), "nft ended with {status}");
        Ok(Self(cluster))
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        let deleted =
            self.0.node_command("nft").and_then(|mut nft| Ok(nft.args(["delete", "table", "ip", "cut"]).status()?));
        if !deleted.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("the link stays cut: {deleted:?}");
        }
    }
}

/// The certificates that sensors trust, as the operator has published them.
fn published_authority(cluster: &Cluster) -> Result<Option<String>> {
    let output = cluster.kubectl(["get", "configmap", "gyrfalcon-ca", "--namespace", SYSTEM, "--output=json"])?;
    if !output.status.success() {
        return Ok(None);
    }
    Ok(output.json()?["data"]["ca.crt"].as_str().map(str::to_owned))
}

fn link_cut(cluster: &Cluster) -> Result<()> {
    const WORD: &str = "fourteenth-word";
    installed(cluster)?;
    let space = cluster.namespace("cut")?;
    let receiver = Receiver::start(None)?;
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    space.apply(&falco_rule("told", &json!({"rule": rule("Told", WORD)})))?;
    ready(&space, "told")?;
    wait_condition(&space, "alertsink", "hook", "Ready", "True")?;
    let talker = Talker::start(&space, WORD)?;
    receiver.wait(3)?;

    let begun = Instant::now();
    let cut = Cut::between(cluster, &address(cluster, "sensor")?, &address(cluster, "operator")?)?;
    let longest = LONG * 3;
    try_wait_for(longest, "the node's status says that its sensor is away", || {
        let nodes = cluster.kubectl_json(["get", "sensornodes"])?;
        Ok((nodes["items"][0]["status"]["state"] == "Offline").then_some(()))
    })?;
    let stopped = talker.heard(&receiver)?.len();
    // Meanwhile the certificates are lost, and made anew.
    let before = published_authority(cluster)?.context("there is an authority")?;
    cluster.kubectl(["delete", "secret", "gyrfalcon-tls", "--namespace", SYSTEM])?.success()?;
    cluster.kubectl(["delete", "configmap", "gyrfalcon-ca", "--namespace", SYSTEM])?.success()?;
    let authority = try_wait_for(longest, "a new authority is published", || {
        Ok(published_authority(cluster)?.filter(|now| *now != before))
    })?;
    try_wait_for(LONG, "the webhook's configuration has the new authority", || {
        let webhook = cluster.kubectl_json(["get", "validatingwebhookconfiguration", "gyrfalcon"])?;
        let bundle = webhook["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned();
        Ok((bundle == BASE64.encode(&authority)).then_some(()))
    })?;
    try_wait_for(longest, "the rule's status says that the node is stale", || {
        let rule = space.kubectl_json(["get", "falcorule", "told"])?;
        Ok((rule["status"]["nodes"]["stale"] == 1).then_some(()))
    })?;
    let rest = outage(Duration::ZERO, Duration::from_secs(600));
    try_wait_for(rest + LONG, "the outage is over", || Ok((begun.elapsed() >= rest).then_some(())))?;
    ensure!(talker.heard(&receiver)?.len() == stopped, "alerts have crossed the cut");
    drop(cut);

    ready(&space, "told")?;
    let took = begun.elapsed().as_secs();
    let count = talker.stop()?;
    let heard = exactly_once(cluster, WORD, count, None, &receiver)?;
    wait_hits(&space, "told", heard)?;
    println!("cut for {took} s: {count} alerts, {stopped} of them before; each came once");
    // The webhook answers under the new authority.
    let mut broken = rule("Told", WORD);
    broken["condition"] = json!("evt.type = execve and proc.nme = a");
    let manifest = falco_rule("refused", &json!({"rule": broken}));
    let args = ["--namespace", space.name(), "apply", "--dry-run=server", "--filename=-"];
    try_wait_for(LONG, "the webhook refuses a mistake", || {
        let output = cluster.kubectl_args(&args, Some(&manifest))?;
        Ok((!output.status.success()).then_some(()))
    })
}

fn without_api_server(cluster: &Cluster) -> Result<()> {
    const WORD: &str = "fifteenth-word";
    installed(cluster)?;
    let space = cluster.namespace("headless")?;
    let receiver = Receiver::start(None)?;
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    space.apply(&falco_rule("goes-on", &json!({"rule": rule("Goes on", WORD)})))?;
    ready(&space, "goes-on")?;
    wait_condition(&space, "alertsink", "hook", "Ready", "True")?;
    let talker = Talker::start(&space, WORD)?;
    receiver.wait(3)?;
    let sensor = (container_of(cluster, "sensor")?, address(cluster, "sensor")?);
    let begun = Instant::now();
    cluster.kill(Component::ApiServer)?;
    let outcome = headless(cluster, &talker, &receiver, &sensor);
    // Whatever happened: other cases need it.
    cluster.start_component(Component::ApiServer)?;
    // Kubernetes' own programs look for it again after up to a minute (client-go doubles to 30 s and adds as much at random):
    // who comes after this case would wait for service accounts and addresses.
    [Component::ControllerManager, Component::Scheduler, Component::Proxy]
        .into_iter()
        .try_for_each(|component| cluster.restart(component))?;
    let gap = outcome?;
    let took = begun.elapsed().as_secs();
    ready(&space, "goes-on")?;
    let count = talker.stop()?;
    let heard = exactly_once(cluster, WORD, count, Some(&gap), &receiver)?;
    wait_hits(&space, "goes-on", heard)?;
    println!("{took} s without an API server: {count} alerts, {heard} came once; no sensor ran within {gap:?}");
    Ok(())
}

/// While there is no API server: sinks receive as before; a sensor that begins anew runs the rules that it has on disk.
/// Returns what was said while there was no sensor.
fn headless(
    cluster: &Cluster,
    talker: &Talker<'_>,
    receiver: &Receiver,
    sensor: &(String, String),
) -> Result<RangeInclusive<u64>> {
    let begun = Instant::now();
    // Longer than a lease that nobody renews.
    let rest = outage(Duration::from_secs(25), Duration::from_secs(300));
    try_wait_for(rest + LONG, "the outage is over", || Ok((begun.elapsed() >= rest).then_some(())))?;
    let now = talker.said(cluster)?;
    try_wait_for(LONG, "what happens without an API server reaches the sink", || {
        Ok(talker.heard(receiver)?.contains_key(&now).then_some(()))
    })?;
    // As after the node's boot: the container runtime and the sensor begin anew, with what is on the disk.
    cluster.restart(Component::Containerd)?;
    let (container, address) = sensor;
    let before = talker.said(cluster)?;
    kill_container(cluster, container)?;
    try_wait_for(LONG * 2, "a sensor without operator and API server makes alerts", || {
        let metrics = metrics_at(cluster, address)?;
        let (made, kept) =
            (sum(&metrics, "gyrfalcon_sensor_alerts_total"), sum(&metrics, "gyrfalcon_sensor_spool_alerts"));
        Ok((made > 0.0 && kept > 0.0).then_some(()))
    })?;
    Ok(before..=talker.said(cluster)?)
}

fn tokens(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let folder = cluster.dir().join("stranger");
    fs::create_dir_all(folder.join("state"))?;
    fs::write(folder.join("ca.crt"), published_authority(cluster)?.context("there is an authority")?)?;
    let own = |audience: &str, account: &str, pod: Option<&str>| {
        let audience = format!("--audience={audience}");
        let bound = pod.map(|pod| format!("--bound-object-name={pod}"));
        let mut args = vec!["create", "token", account, "--namespace", SYSTEM, &audience];
        if let Some(bound) = &bound {
            args.extend(["--bound-object-kind=Pod", bound]);
        }
        cluster.kubectl_args(&args, None)?.success()
    };
    let pod = pod_of(cluster, "sensor")?;
    let valid = own("gyrfalcon-operator", "gyrfalcon-sensor", Some(&pod))?;
    let (signed, _) = valid.trim().rsplit_once('.').context("a token has three parts")?;
    let cases = [
        ("the token is not valid", format!("{signed}.c2lnbmF0dXJl")),
        ("no bearer token", String::new()),
        ("the token is not valid", own("somebody-else", "gyrfalcon-sensor", Some(&pod))?),
        ("not of system:serviceaccount:gyrfalcon-system:gyrfalcon-sensor", own("gyrfalcon-operator", "default", None)?),
        ("the token is not bound to a pod", own("gyrfalcon-operator", "gyrfalcon-sensor", None)?),
        ("the token is of a pod on node node-1, the sensor says it is on node-2", valid.clone()),
    ];
    let (token, log) = (folder.join("token"), folder.join("log"));
    fs::write(&token, &cases[0].1)?;
    let child = cluster
        .node_command(&sensor_program()?)?
        .args(["agent", "--node-name=node-2", "--health-listen=127.0.0.1:18081"])
        .arg(format!("--operator={}:8443", address(cluster, "operator")?))
        .arg(format!("--operator-name=gyrfalcon-operator.{SYSTEM}.svc"))
        .arg(format!("--ca={}", folder.join("ca.crt").display()))
        .arg(format!("--token={}", token.display()))
        .arg(format!("--state-dir={}", folder.join("state").display()))
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn();
    let mut stranger = Stranger(child.context("cannot start a sensor")?);
    for (refusal, text) in cases {
        // What was said before was about another token.
        let from = fs::read_to_string(&log)?.len();
        fs::write(&token, text)?;
        try_wait_for(LONG, &format!("the operator says: {refusal}"), || {
            let said = fs::read_to_string(&log)?;
            ensure!(!said.contains("linked to the operator"), "let in: {said}");
            ensure!(stranger.0.try_wait()?.is_none(), "the sensor ended: {said}");
            Ok(said.get(from..).is_some_and(|said| said.contains(refusal)).then_some(()))
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    }
    let nodes = cluster.kubectl_json(["get", "sensornodes"])?;
    ensure!(!nodes.to_string().contains("node-2"), "{nodes:#}");
    Ok(())
}

/// A sensor that nobody wants; it ends with this.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
