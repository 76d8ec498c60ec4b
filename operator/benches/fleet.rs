//! What a large cluster costs: a real API server, a thousand nodes, an operator, and a sensor for each node that only
//! speaks the protocol.
//!
//! ```text
//! cargo bench -p gyrfalcon-operator --bench fleet [-- --nodes 200 --pods 3 --rate 10000 --seconds 30 --steady 20]
//! ```
//!
//! `--series 60` comes before the storm: one rule in one pod at the whole rate, for so many seconds. Faults come after the storm
//! where they are asked for, each for so many seconds: `--throttled 300` (the API server refuses what changes something),
//! `--away 600` (the API server is away), `--failover 1` (the leader is killed while another replica waits). `--fault-rate 1000`
//! is the rate of alerts in these three.
//!
//! docs/performance.md has the commands of its figures. With `--steady` a thousand nodes take four minutes more: SensorNodes are
//! written no faster than the budget of statuses allows.
//!
//! It needs the programs that `cargo xtask e2e --prepare` builds. Each line gives the bound next to the figure; a bound
//! that is not kept makes the benchmark fail at its end. Everything shares this machine: API server and sensors take
//! most of its time, so CPU seconds are of the operator alone.

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};

use common::{
    SYSTEM,
    plane::{Place, Plane, Requests, Writes, writes},
    process::{Operator, sum},
    sensor::{Dial, Sensor, alert, hello},
    storm::{Storm, one_series, single_events},
    throttle::{Refuse, Throttle},
    until,
};

#[path = "../tests/common/mod.rs"]
mod common;

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(240);
/// The rule resource that the sensors run, with ten rules.
const RULE: &str = "fleet";
/// Rules in it.
const RULES: usize = 10;
/// For the operator. What it has taken is safe, as on a volume that outlives its pod.
const ARGUMENTS: [&str; 3] = ["--durable", "--log-level", "warn,gyrfalcon=info"];
/// Events that may be written at once.
const BURST: u64 = 200;
/// Most memory that a fault may cost.
const FAULT_MIB: f64 = 64.0;

fn main() -> ExitCode {
    let missing = e2e::Tools::locate().map_or_else(|error| Some(format!("{error:#}")), |tools| tools.missing(false));
    if let Some(reason) = missing {
        println!("ignored: {reason}");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn argument(name: &str, default: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument.strip_prefix("--") == Some(name));
    at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
}

/// Prints figures, and remembers the bounds that were not kept.
#[derive(Default)]
struct Report(Vec<String>);

impl Report {
    fn tell(&self, what: &str, figure: f64, unit: &str) {
        println!("{what:<64} {figure:>10.2} {unit}");
    }

    fn memory(&self, when: &str, operator: &Operator) {
        let text = format!("{when}: resident memory (peak so far {} MiB)", operator.peak_mib());
        self.tell(&text, operator.resident_mib() as f64, "MiB");
    }

    fn bound(&mut self, what: &str, figure: f64, bound: f64, unit: &str) {
        let kept = figure <= bound;
        println!("{what:<64} {figure:>10.2} {unit} (bound {bound:.2}){}", if kept { "" } else { "  NOT KEPT" });
        if !kept {
            self.0.push(format!("{what}: {figure:.2} {unit}, more than {bound}"));
        }
    }
}

async fn run() -> Result<()> {
    let nodes = argument("nodes", 200);
    let (pods, rate) = (argument("pods", 3), argument("rate", 10_000));
    let storm = Duration::from_secs(argument("seconds", 30) as u64);
    let steady = Duration::from_secs(argument("steady", 20) as u64);
    let mut report = Report::default();
    let folder = tempfile::tempdir()?;

    let begun = Instant::now();
    let plane = Plane::start().await?;
    let places = plane.places(0..nodes, pods, true).await?;
    let tokens = plane.tokens(&places).await?;
    println!("{nodes} nodes and {} pods made in {:.1} s; load {}", nodes * (pods + 1), seconds(begun), load());

    let throttle = Throttle::start(plane.client.clone(), folder.path()).await?;
    let kubeconfig = match argument("throttled", 0) {
        0 => plane.cluster.kubeconfig(),
        _ => throttle.kubeconfig.clone(),
    };
    let operator = Operator::through(kubeconfig, "operator-0", folder.path().to_owned(), &ARGUMENTS)?;
    report.tell("operator ready", operator.ready().await?.as_secs_f64(), "s");
    report.memory("  all pods known", &operator);
    let ca = Api::<ConfigMap>::namespaced(plane.client.clone(), SYSTEM).get("gyrfalcon-ca").await?;
    let ca = ca.data.and_then(|mut data| data.remove("ca.crt")).context("a CA")?;
    let dial = Dial::new(operator.link, &ca)?;

    // All sensors at once.
    let (begun, cpu) = (Instant::now(), operator.cpu());
    let sensors: Vec<Sensor> = places
        .iter()
        .zip(tokens)
        .enumerate()
        .map(|(number, (place, token))| {
            let offset = Duration::from_millis((number as u64 * 9973) % 10_000);
            Sensor::start(dial.clone(), token, hello(&place.node, &format!("spool-{number:04}")), offset)
        })
        .collect();
    let sensors = Arc::new(sensors);
    let ready = async || Ok(sensors.iter().filter(|sensor| !sensor.state().bundle.is_empty()).count() == nodes);
    if let Err(error) = until(LONG, "all sensors are connected and run a bundle", ready).await {
        let errors: BTreeMap<String, usize> = sensors.iter().fold(BTreeMap::new(), |mut errors, sensor| {
            *errors.entry(sensor.state().error.clone()).or_default() += 1;
            errors
        });
        return Err(error.context(format!("{errors:#?}\n{}", operator.log())));
    }
    report.tell("all sensors connected, with a bundle", seconds(begun), "s");
    report.tell("  CPU of the operator", operator.cpu() - cpu, "s");
    report.memory("  all connected", &operator);

    let uid = apply(&plane, &operator, &sensors, &mut report).await?;
    if !steady.is_zero() {
        quiet(&plane, &operator, steady, &mut report).await?;
        report.memory("  after that", &operator);
    }
    let of = Faults { plane: &plane, operator: &operator, throttle: &throttle, dial: &dial };
    series(&of, &sensors, &places, &uid, &mut report).await?;
    let seen = Seen::follow(&plane);
    first_alerts(&plane, &sensors, &places, &uid, &seen, &mut report).await?;
    alert_storm(&plane, &operator, &sensors, &places, &uid, (rate, storm), &mut report).await?;
    report.memory("  after the storm", &operator);
    account(&plane, &operator, &sensors, &mut report).await?;
    faults(&of, &sensors, &places, &uid, &mut report).await?;
    report.bound("resident memory of the operator, peak", operator.peak_mib() as f64, 300.0, "MiB");
    println!("load {}", load());
    anyhow::ensure!(report.0.is_empty(), "bounds that were not kept:\n{}", report.0.join("\n"));
    Ok(())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Applies the rule and then a change of it; gives its uid.
async fn apply(plane: &Plane, operator: &Operator, sensors: &[Sensor], report: &mut Report) -> Result<String> {
    let mut uid = String::new();
    for what in ["a new rule resource", "a changed rule resource"] {
        let rules: Vec<String> = (0..RULES)
            .map(|rule| {
                format!(
                    "- rule: Fleet rule {rule}\n  desc: {what}\n  condition: evt.type = execve and proc.name = fleet{rule}\n  \
                     output: fleet (cmd=%proc.cmdline)\n  priority: WARNING\n"
                )
            })
            .collect();
        let manifest = serde_json::json!({
            "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterFalcoRule", "metadata": {"name": RULE},
            "spec": {"rules": rules.concat()},
        });
        let (begun, cpu) = (Instant::now(), operator.cpu());
        let cluster = Arc::clone(&plane.cluster);
        tokio::task::spawn_blocking(move || cluster.kubectl_apply(&manifest.to_string())).await??;
        let applied = Instant::now();
        let object = plane.cluster.kubectl_json(["get", "clusterfalcorule", RULE])?;
        uid = object["metadata"]["uid"].as_str().context("a uid")?.to_owned();
        let generation = object["metadata"]["generation"].as_i64();
        let acked = async || Ok(sensors.iter().all(|sensor| sensor.state().generation(&uid) == generation));
        until(LONG, "all sensors have acknowledged", acked).await?;
        let last = sensors.iter().filter_map(|sensor| sensor.state().acked_bundle).max();
        let took = last.map_or(0.0, |last| last.saturating_duration_since(begun).as_secs_f64());
        report.bound(&format!("{what}: kubectl apply to the last acknowledgement"), took, 5.0, "s");
        plane.rule_ready(RULE, LONG).await.with_context(|| operator.log())?;
        report.bound(&format!("{what}: kubectl apply to Ready"), seconds(begun), 5.0, "s");
        report.tell("  of both, kubectl itself", (applied - begun).as_secs_f64(), "s");
        report.tell("  CPU of the operator", operator.cpu() - cpu, "s");
    }
    Ok(uid)
}

/// When the Event about a pod was first seen.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, Instant>>>);

impl Seen {
    fn follow(plane: &Plane) -> Self {
        let seen = Self::default();
        let (events, noted) = (Api::<Event>::all(plane.client.clone()), seen.clone());
        tokio::spawn(async move {
            let stream = watcher(events, watcher::Config::default()).default_backoff().applied_objects();
            let mut stream = std::pin::pin!(stream);
            while let Ok(Some(event)) = stream.try_next().await {
                let pod = event.regarding.as_ref().and_then(|regarding| regarding.name.clone()).unwrap_or_default();
                let key = format!("{pod} {}", event.reason.as_deref().unwrap_or_default());
                noted.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(Instant::now);
            }
        });
        seen
    }

    fn get(&self, key: &str) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }
}

/// Ten new series a second, while twenty nodes send a hundred alerts a second each.
async fn first_alerts(
    plane: &Plane,
    sensors: &[Sensor],
    places: &[Place],
    uid: &str,
    seen: &Seen,
    report: &mut Report,
) -> Result<()> {
    let mut sent: Vec<(String, Instant)> = Vec::new();
    let busy = sensors.len().min(20);
    let samples = (sensors.len() - busy).min(200);
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for round in 0..samples * 10 {
        tick.tick().await;
        for (sensor, place) in sensors.iter().zip(places).take(busy) {
            sensor.alert(alert(uid, "Fleet rule 9", place.pods.first()));
        }
        let number = busy + round / 10;
        if round % 10 == 0
            && let (Some(sensor), Some(place)) = (sensors.get(number), places.get(number))
            && let Some(pod) = place.pods.first()
        {
            sent.push((format!("{} FleetRule8", pod.1), Instant::now()));
            sensor.alert(alert(uid, "Fleet rule 8", Some(pod)));
        }
    }
    let all = async || Ok(sent.iter().all(|(key, _)| seen.get(key).is_some()));
    until(Duration::from_secs(30), "every first alert is an Event", all).await.with_context(|| {
        let missing: Vec<&str> = sent.iter().map(|(key, _)| &**key).filter(|key| seen.get(key).is_none()).collect();
        format!("{} of {} are missing: {:?}; at {}", missing.len(), sent.len(), missing.first(), plane.cluster.server())
    })?;
    let mut times: Vec<f64> = sent
        .iter()
        .filter_map(|(key, sent)| Some(seen.get(key)?.saturating_duration_since(*sent).as_secs_f64()))
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len() - 1)).copied();
    report.tell("first alert to its Event in a watch, median", at(0.5).unwrap_or_default(), "s");
    report.bound("first alert to its Event in a watch, p99", at(0.99).unwrap_or_default(), 1.0, "s");
    Ok(())
}

/// Alerts on every node, about every pod and by every rule, at so many a second.
async fn alert_storm(
    plane: &Plane,
    operator: &Operator,
    sensors: &Arc<Vec<Sensor>>,
    places: &[Place],
    uid: &str,
    (rate, time): (usize, Duration),
    report: &mut Report,
) -> Result<()> {
    let (begun, cpu, first) = (Instant::now(), operator.cpu(), plane.requests().await?);
    let sample = tokio::spawn(sample(plane.client.clone(), Arc::clone(&plane.cluster), time));
    let names: Vec<String> = (0..RULES).map(|rule| format!("Fleet rule {rule}")).collect();
    let storm = Storm { sensors, places, uid, rules: &names };
    let sent = storm.send(rate, time).await;
    report.tell("alerts a second that were made", sent as f64 / seconds(begun), "");
    let made = Instant::now();
    storm.acknowledged(Duration::from_secs(60)).await.with_context(|| operator.log())?;
    report.tell("last alert to the acknowledgement of all", seconds(made), "s");
    let used = operator.cpu() - cpu;
    report.tell("CPU of the operator, of a second", used / seconds(begun), "s");
    report.tell("CPU of the operator, for each alert", used / sent as f64 * 1e6, "us");
    let samples = sample.await??;
    // The budget allows a burst at the beginning; what follows is sustained.
    let window = |from: usize, to: usize| match (samples.get(from), samples.get(to)) {
        (Some(from), Some(to)) => (writes(&from.1, &to.1), (to.0 - from.0).as_secs_f64()),
        _ => (Writes::default(), 1.0),
    };
    let last = samples.len().saturating_sub(1);
    let (start, _) = window(0, 10.min(last));
    report.tell("Events written in the first ten seconds", start.events as f64, "");
    let (rest, seconds) = window(10.min(last), last);
    // A sample is taken among eight writes that are under way: so many more or less are not too many.
    let edge = 8.0 / seconds;
    // What the beginning leaves of the burst is there later.
    let (whole, whole_seconds) = window(0, last);
    let sustained = whole.events.saturating_sub(BURST) as f64 / whole_seconds;
    report.bound("Events written a second, without the burst of 200", sustained, 25.0 + edge, "");
    report.bound("statuses written a second, after that", rest.status as f64 / seconds, 5.0 + edge, "");
    report.tell("writes that failed, after that", rest.failed as f64, "");
    let all = writes(&first, &plane.requests().await?);
    println!("all writes during the storm: {all:?}");
    Ok(())
}

async fn sample(client: kube::Client, cluster: Arc<e2e::Cluster>, time: Duration) -> Result<Vec<(Instant, Requests)>> {
    let plane = Plane { client, cluster };
    let mut samples = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let begun = Instant::now();
    while begun.elapsed() < time {
        tick.tick().await;
        samples.push((Instant::now(), plane.requests().await?));
    }
    Ok(samples)
}

/// Every alert is in an Event, suppressed or unwanted, and counted in the status of the rule.
async fn account(plane: &Plane, operator: &Operator, sensors: &[Sensor], report: &mut Report) -> Result<()> {
    let metrics = operator.metrics().await?;
    let alerts = sum(&metrics, "gyrfalcon_alerts_total");
    let represented = sum(&metrics, "gyrfalcon_events_represented");
    let suppressed = sum(&metrics, "gyrfalcon_events_suppressed_total");
    let other = sum(&metrics, "gyrfalcon_events_unwanted") + sum(&metrics, "gyrfalcon_events_unknown");
    report.tell("alerts that the operator has taken", alerts, "");
    report.tell("  of them in an Event", represented, "");
    report.tell("  of them suppressed", suppressed, "");
    report.bound(
        "alerts that are in no Event and not counted as suppressed",
        alerts - represented - suppressed - other,
        0.0,
        "",
    );
    let took = exact(plane, sensors, Duration::from_secs(100)).await?;
    report.bound("end of the storm to status.hits.total being exact", took.as_secs_f64(), 61.0, "s");
    Ok(())
}

/// Nothing happens any more.
async fn quiet(plane: &Plane, operator: &Operator, time: Duration, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let waiting = async || Ok(sum(&operator.metrics().await?, "gyrfalcon_status_held") == 0.0);
    until(Duration::from_secs(400), "every status is written", waiting).await?;
    report.tell("until every status was written", seconds(begun), "s");
    let (begun, cpu, before) = (Instant::now(), operator.cpu(), plane.requests().await?);
    tokio::time::sleep(time).await;
    let all = writes(&before, &plane.requests().await?);
    let took = seconds(begun);
    println!("all writes in {took:.0} quiet seconds: {all:?}");
    let without = (all.events + all.status + all.other + all.failed) as f64 / took;
    report.bound("writes a second when nothing happens, without the Lease", without, 1.0, "");
    report.tell("writes a second when nothing happens, with the Lease", without + all.leases as f64 / took, "");
    report.tell("CPU of the operator, of a second, when nothing happens", (operator.cpu() - cpu) / took, "s");
    let pods: usize = plane.cluster.kubectl_json(["get", "sensornodes"])?["items"].as_array().map_or(0, Vec::len);
    report.tell("SensorNodes", pods as f64, "");
    Ok(())
}

/// What faults are made with.
struct Faults<'a> {
    plane: &'a Plane,
    operator: &'a Operator,
    throttle: &'a Throttle,
    dial: &'a Dial,
}

/// One rule in one pod at the whole rate. Before the storm: the operator is ended, and what it would have to write of
/// thousands of series is more than the budget of its end.
async fn series(of: &Faults<'_>, sensors: &[Sensor], places: &[Place], uid: &str, report: &mut Report) -> Result<()> {
    let time = argument("series", 0);
    if time == 0 {
        return Ok(());
    }
    // The last node's first pod, by a rule that no other alert is of.
    let last = sensors.len().saturating_sub(1);
    let names = ["Series rule".to_owned()];
    let mut place: Vec<Place> = places.get(last..).unwrap_or_default().to_vec();
    place.iter_mut().for_each(|place| place.pods.truncate(1));
    let one = Storm { sensors: sensors.get(last..).unwrap_or_default(), places: &place, uid, rules: &names };
    let time = Duration::from_secs(time as u64);
    let series = one_series(of.plane, of.operator, &one, argument("rate", 10_000), time).await?;
    println!("one rule in one pod: {series:?}");
    report.bound("  alerts that its Event does not count", series.sent as f64 - series.count as f64, 0.0, "");
    report.bound("  changes of its Event", series.patched as f64, 4.0, "");
    let all = async || Ok(sensors.iter().all(|sensor| sensor.state().connected));
    until(LONG, "every sensor is connected", all).await.map(drop)
}

/// The faults that were asked for. Each ends with everything as it was.
async fn faults(of: &Faults<'_>, sensors: &[Sensor], places: &[Place], uid: &str, report: &mut Report) -> Result<()> {
    let (plane, operator) = (of.plane, of.operator);
    let rate = argument("fault-rate", 1000);
    let time = |name| Some(argument(name, 0)).filter(|time| *time > 0).map(|time| Duration::from_secs(time as u64));
    let names: Vec<String> = (0..RULES).map(|rule| format!("Fleet rule {rule}")).collect();
    let storm = Storm { sensors, places, uid, rules: &names };
    if let Some(time) = time("throttled") {
        let before = operator.resident_mib();
        of.throttle.set(Refuse::Writes);
        storm.send(rate, time).await;
        let grown = operator.resident_mib().saturating_sub(before);
        of.throttle.set(Refuse::Nothing);
        report.bound("API server refuses: memory grown", grown as f64, FAULT_MIB, "MiB");
        report.tell("  requests refused a second", of.throttle.refused() as f64 / time.as_secs_f64(), "");
        recovered(of, &storm, report).await?;
    }
    if let Some(time) = time("away") {
        let before = operator.resident_mib();
        plane.cluster.kill(e2e::Component::ApiServer)?;
        storm.send(rate, time).await;
        storm.acknowledged(Duration::from_secs(10)).await.context("while the API server is away")?;
        let grown = operator.resident_mib().saturating_sub(before);
        let cluster = Arc::clone(&plane.cluster);
        tokio::task::spawn_blocking(move || cluster.start_component(e2e::Component::ApiServer)).await??;
        report.bound("API server away: memory grown", grown as f64, FAULT_MIB, "MiB");
        recovered(of, &storm, report).await?;
    }
    if time("failover").is_some() {
        let folder = tempfile::tempdir()?;
        let standby =
            Operator::through(plane.cluster.kubeconfig(), "operator-1", folder.path().to_owned(), &ARGUMENTS)?;
        standby.ready().await?;
        of.dial.use_only(&[operator.link, standby.link]);
        operator.kill()?;
        let killed = Instant::now();
        storm.send(rate, Duration::from_secs(10)).await;
        let leads = async || Ok(sum(&standby.metrics().await?, "gyrfalcon_leading") == 1.0);
        until(LONG, "the standby leads", leads).await?;
        report.bound("leader killed: until another leads", seconds(killed), 20.0, "s");
        storm.acknowledged(LONG).await?;
        report.tell("  until every alert was acknowledged", seconds(killed), "s");
        let all = async || Ok(sensors.iter().all(|sensor| sensor.state().connected));
        until(LONG, "every sensor is connected", all).await?;
        report.tell("  until every sensor was connected", seconds(killed), "s");
        report.bound("  peak memory of the one that took over", standby.peak_mib() as f64, 300.0, "MiB");
        let counted = exact(plane, sensors, Duration::from_secs(120)).await?;
        report.tell("  until status.hits.total was exact", counted.as_secs_f64(), "s");
        standby.terminate().await?;
        of.dial.use_only(&[operator.link]);
        operator.spawn()?;
        operator.ready().await?;
    }
    Ok(())
}

/// Everything is written again, and nothing twice.
async fn recovered(of: &Faults<'_>, storm: &Storm<'_>, report: &Report) -> Result<()> {
    let begun = Instant::now();
    storm.acknowledged(Duration::from_secs(60)).await?;
    let leads = async || Ok(of.operator.metrics().await.is_ok_and(|metrics| sum(&metrics, "gyrfalcon_leading") == 1.0));
    until(Duration::from_secs(60), "the operator leads", leads).await?;
    report.tell("  until the operator leads again", seconds(begun), "s");
    let counted = exact(of.plane, storm.sensors, Duration::from_secs(120)).await?;
    report.tell("  until status.hits.total was exact", counted.as_secs_f64(), "s");
    for rule in 0..RULES {
        single_events(of.plane, &format!("FleetRule{rule}")).await?;
    }
    Ok(())
}

/// Waits until the status counts every alert that any sensor has made.
async fn exact(plane: &Plane, sensors: &[Sensor], longest: Duration) -> Result<Duration> {
    let want: u64 = sensors.iter().map(|sensor| sensor.state().made()).sum();
    let counted = async || {
        let rule = plane.cluster.kubectl_json(["get", "clusterfalcorule", RULE])?;
        Ok(rule["status"]["hits"]["total"].as_u64() == Some(want))
    };
    until(longest, "status.hits.total is exact", counted).await.with_context(|| format!("{want} alerts were made"))
}
