//! The operator on a real API server, with twenty sensors that only speak the protocol: among them strangers, liars and
//! silent ones; and through the loss of operator and API server.
//!
//! It needs the programs that `cargo xtask e2e --prepare` builds, and is ignored without them:
//! `cargo test -p gyrfalcon-operator --test fleet`. The cases share one control plane and run one after the other.

mod cases;
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use axum::{Router, body::Bytes, routing::post};
use e2e::Component;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    events::v1::Event,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use link::proto::{self, from_sensor};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tonic::Code;

use cases::{
    faults::{
        a_leader_that_is_cut_off_delivers_until_it_sees_that_another_leads,
        a_series_is_one_event_with_an_exact_count_and_few_changes,
        an_api_server_that_refuses_writes_costs_no_alert_and_doubles_no_event,
        another_replica_takes_over_from_one_that_is_killed,
    },
    rollout::a_rollout_goes_step_by_step_and_back_on_harm,
    skew::sensors_of_the_release_before_and_after_are_understood,
};

use common::{
    ACCOUNT, SYSTEM,
    plane::{Place, Plane, writes},
    process::{Operator, sum},
    sensor::{Dial, Sensor, alert, hello},
    until,
};

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(90);
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(65);
/// Sensors that are always there.
const SENSORS: usize = 20;
/// The node of sensors that behave badly.
const BAD: usize = SENSORS;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let missing = e2e::Tools::locate().map_or_else(|error| Some(format!("{error:#}")), |tools| tools.missing(false));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = Arc::new(runtime.expect("a runtime"));
    let world: Arc<OnceCell<World>> = Arc::default();
    macro_rules! case {
        ($name:ident) => {{
            let (runtime, world, missing) = (Arc::clone(&runtime), Arc::clone(&world), missing.clone());
            Trial::ignorable_test(stringify!($name), move || match missing {
                Some(reason) if std::env::var_os("REQUIRE_KERNEL").is_some_and(|value| value == "1") => {
                    Err(Failed::from(format!("REQUIRE_KERNEL=1, but {reason}")))
                }
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => runtime.block_on(async {
                    let world = world.get_or_try_init(World::start).await.map_err(failed)?;
                    // A case before may have failed half-way.
                    world.dial.use_only(&[world.operator.link]);
                    world.operator.revive().map_err(failed)?;
                    world.operator.ready().await.map_err(failed)?;
                    let outcome = $name(world).await;
                    outcome.map(|()| Completion::Completed).map_err(|error| failed(error.context(world.operator.log())))
                }),
            })
        }};
    }
    let cases = vec![
        case!(a_rule_is_acknowledged_by_every_sensor_and_ready),
        case!(nobody_is_let_in_without_a_token_of_the_sensors_on_that_node),
        case!(a_newer_session_of_a_node_ends_the_one_before),
        case!(what_a_hostile_sensor_says_hurts_nobody_else),
        case!(hits_are_exact_and_events_single_when_the_operator_is_killed),
        case!(nothing_is_written_while_nothing_happens),
        case!(a_series_is_one_event_with_an_exact_count_and_few_changes),
        case!(an_api_server_that_refuses_writes_costs_no_alert_and_doubles_no_event),
        case!(another_replica_takes_over_from_one_that_is_killed),
        case!(a_leader_that_is_cut_off_delivers_until_it_sees_that_another_leads),
        case!(a_sink_has_every_alert_within_two_seconds_while_the_api_server_is_away),
        case!(an_operator_that_starts_while_the_api_server_is_away_says_so_and_loses_nothing),
        case!(a_rollout_goes_step_by_step_and_back_on_harm),
        case!(sensors_of_the_release_before_and_after_are_understood),
        case!(a_silent_sensor_is_let_go),
    ];
    let conclusion = libtest_mimic::run(&arguments, cases);
    // Ends the programs.
    drop(world);
    conclusion.exit();
}

fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}

struct World {
    operator: Operator,
    sensors: Vec<Sensor>,
    places: Vec<Place>,
    tokens: Vec<String>,
    dial: Dial,
    plane: Plane,
    folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let plane = Plane::start().await?;
        let mut places = plane.places(0..SENSORS, 1, true).await?;
        // Nobody waits for the sensors of these.
        places.extend(plane.places(SENSORS..SENSORS + 2, 1, false).await?);
        let tokens = plane.tokens(&places).await?;
        let operator = Operator::start(&plane, folder.path().to_owned(), &["--durable"])?;
        operator.ready().await?;
        let ca = Api::<ConfigMap>::namespaced(plane.client.clone(), SYSTEM).get("gyrfalcon-ca").await?;
        let ca = ca.data.and_then(|mut data| data.remove("ca.crt")).context("a CA")?;
        let dial = Dial::new(operator.link, &ca)?;
        let start = |(number, (place, token)): (usize, (&Place, &String))| {
            let offset = Duration::from_millis(number as u64 * 400);
            Sensor::start(dial.clone(), token.clone(), hello(&place.node, &format!("spool-{number}")), offset)
        };
        let sensors = places.iter().zip(&tokens).take(SENSORS).enumerate().map(start).collect();
        Ok(Self { operator, sensors, places, tokens, dial, plane, folder })
    }

    /// Applies a rule resource of one rule; its uid.
    async fn apply(&self, name: &str, rule: &str) -> Result<String> {
        let text = format!(
            "- rule: {rule}\n  desc: test\n  condition: evt.type = execve and proc.name = {name}\n  output: x\n  \
             priority: WARNING\n"
        );
        let manifest = json!({
            "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterFalcoRule", "metadata": {"name": name},
            "spec": {"rules": text},
        });
        self.kubectl_apply(&manifest).await?;
        let object = self.plane.cluster.kubectl_json(["get", "clusterfalcorule", name])?;
        let uid = object["metadata"]["uid"].as_str().context("a uid")?.to_owned();
        self.acknowledged(&uid).await?;
        Ok(uid)
    }

    async fn kubectl_apply(&self, manifest: &Value) -> Result<()> {
        let (cluster, manifest) = (Arc::clone(&self.plane.cluster), manifest.to_string());
        tokio::task::spawn_blocking(move || cluster.kubectl_apply(&manifest)).await??;
        Ok(())
    }

    async fn acknowledged(&self, uid: &str) -> Result<()> {
        let acked = async || Ok(self.sensors.iter().all(|sensor| sensor.state().generation(uid) == Some(1)));
        let waited = until(LONG, "every sensor has acknowledged", acked).await;
        waited.map(drop).with_context(|| {
            self.sensors
                .iter()
                .map(|sensor| sensor.state().error.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<String>()
        })
    }

    /// Waits until the status of a rule resource counts so many; fails at once when it counts more.
    async fn hits(&self, name: &str, want: i64) -> Result<()> {
        let mut shown = 0;
        let exact = async || {
            let rule = self.plane.cluster.kubectl_json(["get", "clusterfalcorule", name])?;
            shown = rule["status"]["hits"]["total"].as_i64().unwrap_or(0);
            ensure!(shown <= want, "counted {shown}, not {want}");
            Ok(shown == want)
        };
        let waited = until(LONG, "the status counts every hit", exact).await;
        waited.map(drop).with_context(|| format!("{shown} of {want}"))
    }

    async fn all_delivered(&self) -> Result<()> {
        let none = async || {
            self.operator.revive()?;
            Ok(self.sensors.iter().all(|sensor| sensor.state().waiting() == 0))
        };
        until(LONG, "every alert is acknowledged", none).await.map(drop)
    }

    /// A session of the node for those that behave badly.
    async fn bad(&self, spool: &str) -> Result<common::sensor::Session> {
        let (place, token) = self.places.get(BAD).zip(self.tokens.get(BAD)).context("a node")?;
        self.dial.open(Some(token), hello(&place.node, spool)).await
    }
}

/// Waits until the operator ends a session.
async fn ended(session: &mut common::sensor::Session, longest: Duration) -> Result<()> {
    let over = async { while let Ok(Some(_)) = session.incoming.message().await {} };
    tokio::time::timeout(longest, over).await.context("the session goes on")
}

/// Waits until the alerts of a session are acknowledged up to this number.
async fn acknowledged(session: &mut common::sensor::Session, up_to: u64) -> Result<()> {
    let acked = async {
        loop {
            let message = session.incoming.message().await?.context("the session ended")?;
            if let Some(proto::to_sensor::Message::AlertsAck(ack)) = message.message
                && ack.up_to >= up_to
            {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(LONG, acked).await.context("no acknowledgement")?
}

async fn a_rule_is_acknowledged_by_every_sensor_and_ready(world: &World) -> Result<()> {
    let begun = Instant::now();
    let uid = world.apply("first", "First rule").await?;
    world.plane.rule_ready("first", LONG).await?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    for (sensor, place) in world.sensors.iter().zip(&world.places) {
        sensor.alert(alert(&uid, "First rule", place.pods.first()));
    }
    world.hits("first", SENSORS as i64).await
}

async fn nobody_is_let_in_without_a_token_of_the_sensors_on_that_node(world: &World) -> Result<()> {
    let plane = &world.plane;
    let (place, other) = world.places.get(BAD).zip(world.places.get(BAD + 1)).context("two nodes")?;
    plane.account(SYSTEM, "stranger").await?;
    let strange = ("stranger-pod".to_owned(), plane.pod(SYSTEM, "stranger-pod", &place.node, "stranger").await?);
    // A token whose pod is gone is as expired as one can be within a test.
    let gone = ("gone".to_owned(), plane.pod(SYSTEM, "gone", &place.node, ACCOUNT).await?);
    let expired = plane.token(ACCOUNT, &gone, link::TOKEN_AUDIENCE).await?;
    let pods: Api<Pod> = Api::namespaced(plane.client.clone(), SYSTEM);
    pods.delete("gone", &DeleteParams::default().grace_period(0)).await?;
    let valid = plane.token(ACCOUNT, &place.sensor, link::TOKEN_AUDIENCE).await?;
    let (start, _) = valid.rsplit_once('.').context("a token has three parts")?;
    let cases = [
        ("none", None, Code::Unauthenticated),
        ("garbage", Some("garbage".to_owned()), Code::Unauthenticated),
        ("a forged signature", Some(format!("{start}.c2lnbmF0dXJl")), Code::Unauthenticated),
        ("expired", Some(expired), Code::Unauthenticated),
        ("another audience", Some(plane.token(ACCOUNT, &place.sensor, "somebody").await?), Code::Unauthenticated),
        (
            "another account",
            Some(plane.token("stranger", &strange, link::TOKEN_AUDIENCE).await?),
            Code::PermissionDenied,
        ),
        (
            "another node",
            Some(plane.token(ACCOUNT, &other.sensor, link::TOKEN_AUDIENCE).await?),
            Code::PermissionDenied,
        ),
    ];
    for (what, token, code) in cases {
        let Err(error) = world.dial.open(token.as_deref(), hello(&place.node, "spool-strange")).await else {
            bail!("let in with a token: {what}");
        };
        let status = error.downcast_ref::<tonic::Status>().with_context(|| format!("{what}: {error:#}"))?;
        ensure!(status.code() == code, "{what}: {status}");
    }
    world.dial.open(Some(&valid), hello(&place.node, "spool-valid")).await.context("the valid token").map(drop)
}

async fn a_newer_session_of_a_node_ends_the_one_before(world: &World) -> Result<()> {
    let mut first = world.bad("spool-twice").await?;
    let mut second = world.bad("spool-twice").await?;
    ended(&mut first, Duration::from_secs(10)).await?;
    let alerts = vec![proto::Alert { seq: 1, ..alert("no such unit", "rule", None) }];
    second.say(from_sensor::Message::Alerts(proto::Alerts { first: 1, alerts, lost: 0 })).await?;
    acknowledged(&mut second, 1).await
}

async fn what_a_hostile_sensor_says_hurts_nobody_else(world: &World) -> Result<()> {
    let uid = world.apply("hostile", "Hostile rule").await?;
    let sessions = |world: &World| world.sensors.iter().map(|sensor| sensor.state().sessions).sum::<u64>();
    let before = sessions(world);
    let place = world.places.get(BAD).context("a node")?;
    let say = |first: u64, count: u64| {
        let alerts = (first..first + count).map(|seq| proto::Alert {
            seq,
            unit: uid.clone(),
            rule: "r".into(),
            ..Default::default()
        });
        from_sensor::Message::Alerts(proto::Alerts { first, alerts: alerts.collect(), lost: 0 })
    };

    // More in one message than the window allows ends the session.
    let mut session = world.bad("spool-flood").await?;
    session.say(say(1, u64::from(link::WINDOW) + 1)).await?;
    ended(&mut session, LONG).await?;
    // More than the window in many messages is slowed down, not believed to be lost.
    let mut session = world.bad("spool-flood").await?;
    for batch in 0..40 {
        session.say(say(batch * 512 + 1, 512)).await?;
    }
    acknowledged(&mut session, 40 * 512).await?;
    // Hello is said once.
    session.say(from_sensor::Message::Hello(hello(&place.node, "spool-flood"))).await?;
    ended(&mut session, LONG).await?;

    let mut session = world.bad("spool-garbage").await?;
    let huge = "\u{fffd}".repeat(400_000);
    let garbage = [
        proto::Alert { seq: 1, ..Default::default() },
        proto::Alert { seq: 1, ..alert(&uid, "Hostile rule", place.pods.first()) },
        proto::Alert { seq: 0, time_ns: u64::MAX, priority: "Nonsense".into(), ..alert(&uid, &huge, None) },
        proto::Alert { seq: 2, output_fields: "{not json".into(), ..alert(&huge, "Hostile rule", None) },
        proto::Alert {
            seq: 3,
            message: huge.clone(),
            tags: vec![String::new(); 10_000],
            pod: Some(proto::Pod { namespace: "../..".into(), name: huge.clone(), ..Default::default() }),
            ..alert(&uid, "Hostile rule", None)
        },
        proto::Alert { seq: 3, ..alert(&uid, "Hostile rule", place.pods.first()) },
    ];
    for alert in garbage {
        let message = proto::Alerts { first: alert.seq, alerts: vec![alert], lost: u64::MAX };
        session.say(from_sensor::Message::Alerts(message)).await?;
    }
    acknowledged(&mut session, 3).await?;
    for round in 0..30_u64 {
        let units = (0..500).map(|unit| proto::UnitCounts {
            uid: format!("{round}-{unit}"),
            hits: u64::MAX - round,
            suppressed: u64::MAX,
            last_ns: u64::MAX,
            rules: (0..8)
                .map(|rule| proto::RuleCounts { rule: format!("{round}{unit}{rule}"), hits: u64::MAX, last_ns: 0 })
                .collect(),
        });
        session.say(from_sensor::Message::Counts(proto::Counts { units: units.collect(), complete: true })).await?;
        let report = proto::NodeReport {
            events_per_second: f64::NAN,
            losses: (0..1000).map(|kind| (format!("{round}-{kind}"), u64::MAX)).collect(),
            hooks: vec![huge.clone()],
            ..Default::default()
        };
        session.say(from_sensor::Message::Report(report)).await?;
        let unit = proto::UnitResult { uid: uid.clone(), state: 77, message: huge.clone(), ..Default::default() };
        let ack =
            proto::BundleAck { hash: huge.clone(), loaded: round % 2 == 0, units: vec![unit], ..Default::default() };
        session.say(from_sensor::Message::BundleAck(ack)).await?;
    }
    // All of it was heard when this is.
    session.say(say(4, 1)).await?;
    acknowledged(&mut session, 4).await?;
    drop(session);

    for (sensor, place) in world.sensors.iter().zip(&world.places) {
        sensor.alert(alert(&uid, "Hostile rule", place.pods.first()));
    }
    world.all_delivered().await?;
    world.hits("hostile", SENSORS as i64).await?;
    world.plane.rule_ready("hostile", LONG).await?;
    ensure!(sessions(world) == before, "other sensors had to connect anew");
    ensure!(world.operator.peak_mib() < 300, "{} MiB", world.operator.peak_mib());
    Ok(())
}

async fn hits_are_exact_and_events_single_when_the_operator_is_killed(world: &World) -> Result<()> {
    let uid = world.apply("exact", "Exact rule").await?;
    let mut sent = 0;
    for round in 0..60 {
        for (sensor, place) in world.sensors.iter().zip(&world.places) {
            sensor.alert(alert(&uid, "Exact rule", place.pods.first()));
            sent += 1;
        }
        if round == 30 {
            world.operator.kill()?;
        }
        if round == 40 {
            world.operator.spawn()?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.operator.ready().await?;
    world.all_delivered().await?;
    world.hits("exact", sent).await?;
    let events = Api::<Event>::all(world.plane.client.clone()).list(&ListParams::default()).await?.items;
    let mut of_pod: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event.reason.as_deref() == Some("ExactRule")) {
        let pod = event.regarding.as_ref().and_then(|regarding| regarding.name.clone());
        *of_pod.entry(pod.unwrap_or_default()).or_default() += 1;
    }
    ensure!(of_pod.len() == SENSORS && of_pod.values().all(|events| *events == 1), "{of_pod:?}");
    Ok(())
}

async fn nothing_is_written_while_nothing_happens(world: &World) -> Result<()> {
    // What few look at is written last, up to a minute and a half after it changed; and what sensors report from time to
    // time may have changed once more after that.
    let quiet = async || {
        let written = async || Ok(sum(&world.operator.metrics().await?, "gyrfalcon_status_waiting") == 0.0);
        until(Duration::from_secs(120), "every status is written", written).await?;
        let before = world.plane.requests().await?;
        tokio::time::sleep(Duration::from_secs(25)).await;
        let all = writes(&before, &world.plane.requests().await?);
        println!("25 s with nothing to do: {all:?}");
        Ok(all.status + all.other + all.failed == 0)
    };
    until(Duration::from_secs(180), "nothing is written for 25 s", quiet).await?;
    Ok(())
}

/// A receiver of webhooks, and when each alert, known by the number at the end of its text, was there first.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<BTreeMap<usize, Instant>>>);

impl Receiver {
    /// Starts one, and applies a sink for it.
    async fn start(world: &World, name: &str) -> Result<Self> {
        let receiver = Self::default();
        let noted = receiver.clone();
        let take = move |body: Bytes| async move {
            let alert: Value = serde_json::from_slice(&body).unwrap_or_default();
            let text = alert["output"].as_str().and_then(|text| text.rsplit_once(' '));
            if let Some(number) = text.and_then(|(_, number)| number.parse().ok()) {
                noted.lock().entry(number).or_insert_with(Instant::now);
            }
        };
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(take))).await });
        let sink = json!({
            "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterAlertSink", "metadata": {"name": name},
            "spec": {"webhook": {"url": url}},
        });
        world.kubectl_apply(&sink).await?;
        Ok(receiver)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn got(&self, number: usize) -> Option<Instant> {
        self.lock().get(&number).copied()
    }
}

/// Alerts with numbers, and when each was made.
struct Numbered<'w> {
    world: &'w World,
    uid: String,
    rule: &'static str,
    made: Vec<Instant>,
}

impl Numbered<'_> {
    /// One more alert on each of so many sensors.
    fn send(&mut self, count: usize) {
        for (sensor, place) in self.world.sensors.iter().zip(&self.world.places).cycle().take(count) {
            let message = format!("number {}", self.made.len());
            sensor.alert(proto::Alert { message, ..alert(&self.uid, self.rule, place.pods.first()) });
            self.made.push(Instant::now());
        }
    }
}

async fn a_sink_has_every_alert_within_two_seconds_while_the_api_server_is_away(world: &World) -> Result<()> {
    let receiver = Receiver::start(world, "receiver").await?;
    let uid = world.apply("away", "Away rule").await?;
    let mut alerts = Numbered { world, uid, rule: "Away rule", made: Vec::new() };
    // The sink is in use when an alert arrives there.
    let first = async || {
        alerts.send(1);
        Ok(!receiver.lock().is_empty())
    };
    until(LONG, "the sink is in use", first).await?;
    let from = receiver.lock().keys().next().copied().unwrap_or(0);

    world.plane.cluster.kill(Component::ApiServer)?;
    let away = Instant::now();
    let mut said = String::new();
    while away.elapsed() < AWAY {
        alerts.send(4);
        tokio::time::sleep(Duration::from_millis(200)).await;
        if said.is_empty() && away.elapsed() > Duration::from_secs(30) {
            said = world.operator.readiness().await?;
        }
    }
    let last = alerts.made.len();
    let all = async || Ok((from..last).all(|number| receiver.got(number).is_some()));
    until(Duration::from_secs(2), "the sink has every alert", all).await?;
    let took = |number: usize| Some(receiver.got(number)?.saturating_duration_since(*alerts.made.get(number)?));
    let slowest = (from..last).filter_map(took).max().context("alerts")?;
    ensure!(slowest < Duration::from_secs(2), "an alert took {slowest:?}");
    ensure!(said.contains("the API server does not answer"), "readiness: {said}");
    ensure!(!world.operator.revive()?, "the operator has ended");

    let cluster = Arc::clone(&world.plane.cluster);
    tokio::task::spawn_blocking(move || cluster.start_component(Component::ApiServer)).await??;
    alerts.send(20);
    world.operator.ready().await?;
    world.all_delivered().await?;
    world.hits("away", i64::try_from(alerts.made.len())?).await?;
    world.plane.rule_ready("away", LONG).await
}

async fn an_operator_that_starts_while_the_api_server_is_away_says_so_and_loses_nothing(world: &World) -> Result<()> {
    let receiver = Receiver::start(world, "restarted").await?;
    let uid = world.apply("restarted", "Restarted rule").await?;
    let mut alerts = Numbered { world, uid, rule: "Restarted rule", made: Vec::new() };
    let first = async || {
        alerts.send(1);
        Ok(!receiver.lock().is_empty())
    };
    until(LONG, "the sink is in use", first).await?;
    let from = receiver.lock().keys().next().copied().unwrap_or(0);
    world.plane.cluster.kill(Component::ApiServer)?;
    alerts.send(SENSORS);
    world.operator.kill()?;
    alerts.send(SENSORS);
    world.operator.spawn()?;
    let told = async || Ok(world.operator.log().contains("the API server has not told everything yet"));
    until(LONG, "the log says what is missing", told).await?;
    let said = world.operator.readiness().await?;
    ensure!(said.contains("the API server has not told everything yet"), "readiness: {said}");
    alerts.send(SENSORS);

    let cluster = Arc::clone(&world.plane.cluster);
    tokio::task::spawn_blocking(move || cluster.start_component(Component::ApiServer)).await??;
    world.operator.ready().await?;
    world.all_delivered().await?;
    let all = async || Ok((from..alerts.made.len()).all(|number| receiver.got(number).is_some()));
    until(LONG, "the sink has every alert", all).await?;
    world.hits("restarted", i64::try_from(alerts.made.len())?).await
}

async fn a_silent_sensor_is_let_go(world: &World) -> Result<()> {
    let mut session = world.bad("spool-silent").await?;
    let begun = Instant::now();
    ended(&mut session, Duration::from_secs(70)).await?;
    ensure!(begun.elapsed() > Duration::from_secs(30), "too soon: {:?}", begun.elapsed());
    Ok(())
}
