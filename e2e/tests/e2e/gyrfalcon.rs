//! Gyrfalcon itself: the chart on the cluster, used as one would use it, with kubectl.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::install::{self, SYSTEM};
use e2e::{Cluster, try_wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::{LONG, case, case_alone, outage};
use crate::receiver::Receiver;
use crate::steps::{
    condition, events, falco_rule, hits, installed, kill, operator_pod, past_the_webhook, pod_of, ready, root, rule,
    sink_to, state, wait_condition, wait_hits,
};
use crate::talker::{Talker, at_least_once};

pub fn trials() -> Vec<Trial> {
    vec![
        case("a_rule_is_ready_fires_once_and_is_an_event_on_the_pod", rule_fires),
        case("the_official_rules_are_ready_and_fire", official_rules),
        case("a_broken_edit_says_where_and_the_old_version_goes_on", broken_edit),
        case("a_dry_run_shows_the_mistake", dry_run),
        case("a_tenants_rule_sees_its_own_namespace_only", tenants),
        case("applying_twice_changes_nothing", applied_twice),
        case("a_missing_config_map_is_waited_for_and_its_change_followed", config_map),
        case("failing_tests_keep_a_rule_out", failing_tests),
        case("shadow_counts_and_is_silent", shadow),
        case("a_sink_gets_alerts_and_a_test_alert", sink),
        case("a_wrong_secret_shows_in_the_sink", wrong_secret),
        case_alone("hits_are_exact_through_crashes_of_operator_and_sensor", crashes),
        case_alone("no_alert_is_lost_while_receiver_and_operator_are_away", nothing_lost),
        case_alone("rules_and_namespaces_are_deleted_without_the_operator", deleted_without_operator),
        case_alone("an_upgrade_keeps_every_resource", upgrade),
        case_alone("the_charts_own_test_passes", helm_test),
    ]
}

fn rule_fires(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("fires")?;
    space.busybox("web", "sleep 1000")?;
    space.apply(&falco_rule("one", &json!({"rule": rule("Word seen", "first-word")})))?;
    ready(&space, "one")?;
    let begun = Instant::now();
    space.exec("web", ["echo", "first-word", "--password=hunter2"])?;
    let found = try_wait_for(LONG, "an Event on the pod", || Ok(events(&space, "web")?.into_iter().next()))?;
    // No measurement: four cases share two processors, and kubectl takes its time. Seconds would still be wrong.
    let took = begun.elapsed();
    println!("from `kubectl exec` to the Event in `kubectl get events`: {took:?}");
    ensure!(took < Duration::from_secs(15), "the Event took {took:?}");
    ensure!(found["reason"] == "WordSeen" && found["type"] == "Warning", "{found:#}");
    let pod = space.kubectl_json(["get", "pod", "web"])?;
    ensure!(found["involvedObject"]["uid"] == pod["metadata"]["uid"], "{found:#}");
    ensure!(found["involvedObject"]["fieldPath"] == "spec.containers{main}", "{found:#}");
    let note = found["message"].as_str().unwrap_or_default();
    ensure!(note.contains("cmd=echo first-word") && !note.contains("hunter2"), "{note}");
    ensure!(note.contains(&format!("pod=web namespace={}", space.name())), "{note}");
    ensure!(space.kubectl(["describe", "pod", "web"])?.success()?.contains("WordSeen"));
    ensure!(space.kubectl(["get", "events", "--field-selector=reason=WordSeen"])?.success()?.contains("pod/web"));
    wait_hits(&space, "one", 1)?;
    let rule = space.kubectl_json(["get", "falcorule", "one"])?;
    ensure!(rule["status"]["topRules"][0]["rule"] == "Word seen", "{:#}", rule["status"]);
    Ok(())
}

fn official_rules(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    // A machine without them tests with the rules of our own, of the same form.
    let folder = std::env::var_os("GYRFALCON_FALCO_RULES");
    let text = match folder {
        Some(folder) => std::fs::read_to_string(Path::new(&folder).join("falco_rules.yaml"))?,
        None => return Ok(()),
    };
    let manifest = json!({
        "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterFalcoRule", "metadata": {"name": "falco-stable"},
        "spec": {"order": 900, "rules": text},
    });
    let space = cluster.namespace("official")?;
    space.busybox("web", "sleep 1000")?;
    let begun = Instant::now();
    space.apply(&manifest.to_string())?;
    space.kubectl(["wait", "--for=condition=Ready", "clusterfalcorule/falco-stable", "--timeout=60s"])?.success()?;
    let took = begun.elapsed();
    println!("official ruleset, from `kubectl apply` to `kubectl wait --for=condition=Ready`: {took:?}");
    ensure!(took < Duration::from_secs(30), "Ready took {took:?}");
    space.exec("web", ["cat", "/etc/shadow"])?;
    let about = "Read sensitive file untrusted";
    let found = try_wait_for(LONG, "an Event on the pod", || {
        let mut events = events(&space, "web")?.into_iter();
        Ok(events.find(|event| event["metadata"]["annotations"]["gyrfalcon.dev/rule"] == about))
    })?;
    ensure!(found["reason"] == "ReadSensitiveFileUntrusted", "{found:#}");
    cluster.kubectl(["delete", "clusterfalcorule", "falco-stable"])?.success()?;
    Ok(())
}

fn broken_edit(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("broken")?;
    space.busybox("web", "sleep 1000")?;
    space.apply(&falco_rule("edited", &json!({"rule": rule("Edited", "second-word")})))?;
    ready(&space, "edited")?;
    let mut broken = rule("Edited", "second-word");
    broken["condition"] = json!("evt.type in (execve, execveat) and proc.agrs contains second-word");
    // As if the webhook was away: it would refuse this.
    past_the_webhook(cluster, || space.apply(&falco_rule("edited", &json!({"rule": broken}))).map(drop))?;
    let rule = wait_condition(&space, "falcorule", "edited", "Stalled", "True")?;
    ensure!(condition(&rule, "Ready").is_some_and(|ready| ready["status"] == "False"), "{:#}", rule["status"]);
    ensure!(rule["status"]["servingGeneration"] == 1, "{:#}", rule["status"]);
    let described = space.kubectl(["describe", "falcorule", "edited"])?.success()?;
    ensure!(described.contains("spec.rule.condition:1:36"), "{described}");
    ensure!(described.contains("did you mean `proc.args`"), "{described}");
    space.exec("web", ["echo", "second-word"])?;
    wait_hits(&space, "edited", 1)
}

fn dry_run(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("dry")?;
    let mut broken = rule("Dry", "word");
    broken["condition"] = json!("evt.type = execve and proc.nme = a");
    let manifest = falco_rule("dry", &json!({"rule": broken}));
    let args = ["--namespace", space.name(), "apply", "--dry-run=server", "--filename=-"];
    let refused = try_wait_for(LONG, "the webhook refuses it", || {
        let output = cluster.kubectl_args(&args, Some(&manifest))?;
        Ok((!output.status.success()).then_some(output.stderr))
    })?;
    ensure!(refused.contains("did you mean `proc.name`"), "{refused}");
    ensure!(refused.contains("spec.rule.condition:1:23") && refused.contains("^"), "{refused}");
    Ok(())
}

fn tenants(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let (own, other) = (cluster.namespace("tenant")?, cluster.namespace("other")?);
    own.busybox("web", "sleep 1000")?;
    other.busybox("web", "sleep 1000")?;
    let conditions = [
        format!("evt.type in (execve, execveat) and proc.args contains third-word and k8s.ns.name = {}", other.name()),
        "evt.type in (execve, execveat) and (proc.args contains third-word or k8s.ns.name exists)".to_owned(),
        "evt.type in (execve, execveat) and not proc.args contains nothing-of-the-kind".to_owned(),
    ];
    let items: Vec<Value> = conditions
        .iter()
        .enumerate()
        .map(|(at, condition)| {
            let mut rule = rule(&format!("Escape {at}"), "x");
            rule["condition"] = json!(condition);
            json!({"name": format!("escape-{at}"), "rule": rule})
        })
        .collect();
    own.apply(&falco_rule("escape", &json!({"items": items})))?;
    // Loaded before: the first rule that matches has the event.
    own.apply(&falco_rule("a-fence", &json!({"rule": rule("Fence", "fourth-word")})))?;
    ready(&own, "escape")?;
    ready(&own, "a-fence")?;
    let before = hits(&own, "escape")?;
    other.exec("web", ["echo", "third-word"])?;
    // What comes later in the own namespace has been judged, hence what came before it in the other one.
    own.exec("web", ["echo", "fourth-word"])?;
    wait_hits(&own, "a-fence", 1)?;
    ensure!(events(&other, "web")?.is_empty(), "a rule of {} fired in {}", own.name(), other.name());
    ensure!(hits(&own, "escape")? == before, "a rule of {} counted what was done in {}", own.name(), other.name());
    // The right to create rules in a namespace is no right to change those of the cluster.
    let reach =
        json!({"rules": "- rule: Read sensitive file untrusted\n  enabled: false\n  override: {enabled: replace}\n"});
    past_the_webhook(cluster, || own.apply(&falco_rule("reach", &reach)).map(drop))?;
    wait_condition(&own, "falcorule", "reach", "Accepted", "False")?;
    Ok(())
}

fn applied_twice(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("twice")?;
    let manifest = falco_rule("same", &json!({"rule": rule("Same", "fifth-word")}));
    space.apply(&manifest)?;
    let first = ready(&space, "same")?;
    ensure!(space.apply(&manifest)?.contains("unchanged"));
    let args = ["--namespace", space.name(), "diff", "--filename=-"];
    let output = cluster.kubectl_args(&args, Some(&manifest))?;
    ensure!(output.status.success() && output.stdout.is_empty(), "{}", output.stdout);
    let second = space.kubectl_json(["get", "falcorule", "same"])?;
    ensure!(first["metadata"]["generation"] == second["metadata"]["generation"]);
    Ok(())
}

fn config_map(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("map")?;
    space.busybox("web", "sleep 1000")?;
    let receiver = Receiver::start(None)?;
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    space.apply(&falco_rule("from-map", &json!({"configMapRef": {"name": "rules"}})))?;
    let waiting = wait_condition(&space, "falcorule", "from-map", "Ready", "False")?;
    ensure!(condition(&waiting, "Reconciling").is_some(), "{:#}", waiting["status"]);
    ensure!(condition(&waiting, "Accepted").is_some_and(|one| one["reason"] == "RefNotFound"));
    let map = |word: &str| {
        let mut rule = rule("From a map", word);
        // Falco wants a description of a rule in a file.
        rule["desc"] = json!("d");
        let text = serde_json::to_string(&json!([rule])).unwrap_or_default();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rules"}, "data": {"rules.yaml": text}})
    };
    space.apply(&map("sixth-word").to_string())?;
    ready(&space, "from-map")?;
    space.exec("web", ["echo", "sixth-word"])?;
    receiver.wait(1)?;
    // Deleted while it is in use: what was read last goes on, and the status says so.
    space.kubectl(["delete", "configmap", "rules"])?.success()?;
    let missing = wait_condition(&space, "falcorule", "from-map", "Ready", "False")?;
    let accepted = condition(&missing, "Accepted").cloned().unwrap_or_default();
    ensure!(accepted["reason"] == "RefNotFound" && accepted["message"].to_string().contains("rules"), "{accepted:#}");
    space.exec("web", ["echo", "sixth-word"])?;
    receiver.wait(2)?;
    space.apply(&map("nineteenth-word").to_string())?;
    ready(&space, "from-map")?;
    space.exec("web", ["echo", "nineteenth-word"])?;
    wait_hits(&space, "from-map", 3)
}

fn failing_tests(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("tested")?;
    let spec = |count: u32| {
        json!({
            "rule": rule("Tested", "seventh-word"),
            "tests": [{
                "name": "the word is seen",
                "events": [{"evt.type": "execve", "proc.args": "seventh-word", "k8s.ns.name": space.name()}],
                "expect": [{"rule": "Tested", "count": count}],
            }],
        })
    };
    past_the_webhook(cluster, || space.apply(&falco_rule("tested", &spec(2))).map(drop))?;
    let refused = wait_condition(&space, "falcorule", "tested", "Accepted", "False")?;
    ensure!(condition(&refused, "TestsPassed").is_some_and(|one| one["status"] == "False"), "{:#}", refused["status"]);
    ensure!(refused["status"]["tests"]["failures"][0]["want"] == "Tested: 2", "{:#}", refused["status"]);
    space.apply(&falco_rule("tested", &spec(1)))?;
    ready(&space, "tested").map(drop)
}

fn shadow(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("shadow")?;
    space.busybox("web", "sleep 1000")?;
    space.apply(&falco_rule("silent", &json!({"mode": "Shadow", "rule": rule("Silent", "eighth-word")})))?;
    ready(&space, "silent")?;
    space.exec("web", ["echo", "eighth-word"])?;
    wait_hits(&space, "silent", 1)?;
    ensure!(events(&space, "web")?.is_empty());
    Ok(())
}

fn sink(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let (space, other) = (cluster.namespace("sink")?, cluster.namespace("elsewhere")?);
    space.busybox("web", "sleep 1000")?;
    other.busybox("web", "sleep 1000")?;
    let receiver = Receiver::start(None)?;
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    for space in [&space, &other] {
        space.apply(&falco_rule("sent", &json!({"rule": rule("Sent", "ninth-word")})))?;
        ready(space, "sent")?;
    }
    wait_condition(&space, "alertsink", "hook", "Ready", "True")?;
    space.kubectl(["annotate", "alertsink", "hook", "gyrfalcon.dev/test=one"])?.success()?;
    wait_condition(&space, "alertsink", "hook", "TestDelivered", "True")?;
    receiver.wait(1)?;
    other.exec("web", ["echo", "ninth-word"])?;
    let begun = Instant::now();
    space.exec("web", ["echo", "ninth-word"])?;
    let alerts = receiver.wait(2)?;
    let took = begun.elapsed();
    println!("from `kubectl exec` to the webhook: {took:?}");
    ensure!(took < Duration::from_secs(15), "the alert took {took:?}");
    let alert: Value = serde_json::from_str(&alerts[1])?;
    ensure!(alert["rule"] == "Sent" && alert["output_fields"]["k8s.ns.name"] == space.name(), "{alert:#}");
    // That of the other namespace came first, if it came at all.
    ensure!(receiver.bodies().len() == 2);
    Ok(())
}

fn wrong_secret(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("secret")?;
    let receiver = Receiver::start(Some("right"))?;
    let secret = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"token": value}})
            .to_string()
    };
    // By default the operator reads no secrets of tenants: this says so and how to change it.
    let auth =
        json!({"webhook": {"url": receiver.url(cluster), "auth": {"bearerRef": {"name": "token", "key": "token"}}}});
    space.apply(&secret("wrong"))?;
    space.apply(&sink_to("", &auth))?;
    let refused = wait_condition(&space, "alertsink", "hook", "Ready", "False")?;
    let text = condition(&refused, "Ready").map(|one| one["message"].to_string()).unwrap_or_default();
    ensure!(text.contains("token"), "{text}");
    Ok(())
}

fn crashes(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("crashes")?;
    space.busybox("web", "sleep 1000")?;
    space.apply(&falco_rule("counted", &json!({"rule": rule("Counted", "tenth-word")})))?;
    ready(&space, "counted")?;
    let say = || space.exec("web", ["sh", "-c", "for i in 1 2 3 4 5; do /bin/echo tenth-word $i; done"]);
    // The shell itself has the word in its arguments: six for each.
    say()?;
    wait_hits(&space, "counted", 6)?;
    kill(cluster, "operator")?;
    say()?;
    wait_hits(&space, "counted", 12)?;
    kill(cluster, "sensor")?;
    ready(&space, "counted")?;
    say()?;
    wait_hits(&space, "counted", 18)?;
    let found = events(&space, "web")?;
    ensure!(found.len() == 1, "one Event, found again after each start: {found:#?}");
    Ok(())
}

fn nothing_lost(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    // The crashes alone take long enough to be noticed.
    let rest = outage(Duration::ZERO, Duration::from_secs(600));
    let space = cluster.namespace("lossless")?;
    space.busybox("web", "sleep 1000")?;
    let receiver = Receiver::start(None)?;
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    space.apply(&falco_rule("kept", &json!({"rule": rule("Kept", "eleventh-word")})))?;
    ready(&space, "kept")?;
    wait_condition(&space, "alertsink", "hook", "Ready", "True")?;
    let say = |number: &str| space.exec("web", ["echo", "eleventh-word", number]).map(drop);
    say("n1")?;
    receiver.wait(1)?;
    receiver.refuse(true);
    let begun = Instant::now();
    say("n2")?;
    kill(cluster, "operator")?;
    say("n3")?;
    kill(cluster, "sensor")?;
    ready(&space, "kept")?;
    say("n4")?;
    try_wait_for(rest + LONG, "the outage is over", || Ok((begun.elapsed() >= rest).then_some(())))?;
    println!("{} s without receiver", begun.elapsed().as_secs());
    receiver.refuse(false);
    try_wait_for(LONG * 2, "every alert", || {
        let bodies = receiver.bodies().join("\n");
        Ok(["n1", "n2", "n3", "n4"].iter().all(|n| bodies.contains(&format!("eleventh-word {n}"))).then_some(()))
    })
}

fn deleted_without_operator(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("orphan")?;
    let name = space.name().to_owned();
    space.apply(&falco_rule("left", &json!({"rule": rule("Left", "twelfth-word")})))?;
    space.apply(&falco_rule("also", &json!({"rule": rule("Also", "twelfth-word")})))?;
    ready(&space, "left")?;
    let scale = |replicas: &str| {
        let count = format!("--replicas={replicas}");
        cluster
            .kubectl_args(&["scale", "deployment/gyrfalcon-operator", "--namespace", SYSTEM, &count], None)?
            .success()
    };
    scale("0")?;
    try_wait_for(LONG, "the operator has gone", || Ok(operator_pod(cluster).is_err().then_some(())))?;
    let deleted = cluster.kubectl(["delete", "falcorule", "left", "--namespace", &name, "--timeout=20s"])?.success();
    let gone = cluster.kubectl(["delete", "namespace", &name, "--timeout=60s"])?.success();
    scale("1")?;
    cluster
        .kubectl(["rollout", "status", "deployment/gyrfalcon-operator", "--namespace", SYSTEM, "--timeout=120s"])?
        .success()?;
    deleted?;
    gone?;
    Ok(())
}

fn upgrade(cluster: &Cluster) -> Result<()> {
    const WORD: &str = "thirteenth-word";
    installed(cluster)?;
    let space = cluster.namespace("upgrade")?;
    let receiver = Receiver::start(None)?;
    space.apply(&sink_to(&receiver.url(cluster), &json!({})))?;
    space.apply(&falco_rule("stays", &json!({"rule": rule("Stays", WORD)})))?;
    let before = ready(&space, "stays")?;
    wait_condition(&space, "alertsink", "hook", "Ready", "True")?;
    let talker = Talker::start(&space, WORD)?;
    receiver.wait(3)?;
    let sensor = pod_of(cluster, "sensor")?;
    let more = ["operator.replicas=1", "operator.podAnnotations.round=two", "sensor.podAnnotations.round=two"];
    install::helm(cluster, &root().join("charts/gyrfalcon"), &more)?;
    let after = ready(&space, "stays")?;
    ensure!(before["metadata"]["uid"] == after["metadata"]["uid"]);
    try_wait_for(LONG * 2, "the old sensor has gone", || {
        let pods = cluster.kubectl_json(["get", "pods", "--namespace", SYSTEM])?;
        let mut pods = pods["items"].as_array().into_iter().flatten();
        Ok((!pods.any(|pod| pod["metadata"]["name"] == sensor)).then_some(()))
    })?;
    let upgraded = talker.said(cluster)?;
    try_wait_for(LONG, "three more", || Ok((talker.said(cluster)? >= upgraded + 3).then_some(())))?;
    let count = talker.stop()?;
    let (heard, twice) = at_least_once(cluster, WORD, count, &receiver)?;
    let wanted = i64::try_from(count)?;
    ensure!(heard == wanted, "{heard} of {count} came: nobody looked for a while");
    // What the operator that was replaced had not noted as sent is sent again; hits count what sensors have told.
    ensure!(twice <= 5, "{twice} of {count} came more than once");
    // One sensor takes over from the other in a moment, within which one of these events may fall.
    let counted = try_wait_for(Duration::from_secs(150), "the hits", || {
        let counted = hits(&space, "stays")?;
        ensure!(counted <= wanted + 1, "{counted} hits of {count} alerts");
        Ok((counted >= wanted).then_some(counted))
    })?;
    println!("an upgrade among {count} alerts: each came, {twice} of them again; {counted} hits");
    Ok(())
}

fn helm_test(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let output = cluster.helm(&["test", "gyrfalcon", "--namespace", SYSTEM, "--timeout=180s", "--logs"])?;
    ensure!(output.status.success(), "{}{}\n{}", output.stdout, output.stderr, state(cluster));
    Ok(())
}
