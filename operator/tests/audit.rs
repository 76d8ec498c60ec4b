//! The audit log from end to end: a real API server with its audit webhook, `gyrfalcon audit --cluster` with certificates, policy and
//! kubeconfig of its own making, the operator, Events and a sink.
//!
//! It needs the programs that `cargo xtask e2e --prepare` builds, the sensor's program (`GYRFALCON_E2E_SENSOR`) and Falco's official
//! rules (`GYRFALCON_FALCO_RULES`); without one of them it is ignored and says so. The cases share one control plane and run one
//! after the other.

mod common;

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use axum::{Router, body::Bytes, routing::post};
use e2e::{AuditWebhook, ClusterOptions};
use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use common::{OPERATOR, SYSTEM, plane::Plane, process::Operator, until};

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(60);
/// From the request to the alert, at a sink and as Event.
const SOON: Duration = Duration::from_secs(2);
/// The same on a machine that does much else: then time says little.
const BUSY: Duration = Duration::from_secs(30);
/// How long the receiver is away.
const AWAY: Duration = Duration::from_secs(60);
/// Service account of receivers.
const RECEIVERS: &str = "gyrfalcon-audit";
/// The receiver's pod.
const POD: &str = "gyrfalcon-audit-0";

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = Arc::new(runtime.expect("a runtime"));
    let world: Arc<OnceCell<World>> = Arc::default();
    macro_rules! case {
        ($name:ident) => {{
            let (runtime, world) = (Arc::clone(&runtime), Arc::clone(&world));
            Trial::ignorable_test(stringify!($name), move || match missing() {
                Some(reason) if env::var_os("REQUIRE_KERNEL").is_some_and(|value| value == "1") => {
                    Err(Failed::from(format!("REQUIRE_KERNEL=1, but {reason}")))
                }
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => runtime.block_on(async {
                    let failed = |error: anyhow::Error| Failed::from(format!("{error:#}"));
                    let world = world.get_or_try_init(World::start).await.map_err(failed)?;
                    let outcome = $name(world).await.map(|()| Completion::Completed);
                    let told = || format!("{}\n{}", world.operator.log(), world.receiver.log());
                    outcome.map_err(|error| failed(error.context(told())))
                }),
            })
        }};
    }
    let cases = vec![
        case!(rules_on_the_audit_log_say_that_nothing_receives_it),
        case!(rules_are_ready_when_the_receiver_runs_them),
        case!(each_official_rule_is_an_event_and_at_a_sink_within_two_seconds),
        case!(a_tenant_sees_requests_about_its_own_namespace),
        case!(the_walk_through_of_cve_2020_8555_is_as_it_is_written),
        case!(nothing_is_lost_while_the_receiver_is_away_for_a_minute),
    ];
    let conclusion = libtest_mimic::run(&arguments, cases);
    // Ends the programs.
    drop(world);
    conclusion.exit();
}

fn missing() -> Option<String> {
    let tools = e2e::Tools::locate().map_or_else(|error| Some(format!("{error:#}")), |tools| tools.missing(false));
    let file = |path: Result<PathBuf>, what: &str| match path {
        Ok(path) if path.is_file() => None,
        _ => Some(format!("{what} does not name what is needed")),
    };
    tools.or_else(|| file(sensor(), "GYRFALCON_E2E_SENSOR")).or_else(|| file(official(), "GYRFALCON_FALCO_RULES"))
}

/// How soon an alert must come: by the promise, unless more wants to run here than there are CPUs.
fn soon() -> Duration {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok()).unwrap_or(0.0);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if load > 1.5 * cpus as f64 { BUSY } else { SOON }
}

fn sensor() -> Result<PathBuf> {
    env::var_os("GYRFALCON_E2E_SENSOR").map(PathBuf::from).context("GYRFALCON_E2E_SENSOR is not set")
}

fn official() -> Result<PathBuf> {
    let folder = env::var_os("GYRFALCON_FALCO_RULES").context("GYRFALCON_FALCO_RULES is not set")?;
    Ok(Path::new(&folder).join("k8s_audit_rules.yaml"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What `gyrfalcon audit …` prints.
fn gyrfalcon(args: &[&str]) -> Result<String> {
    let output = Command::new(sensor()?).arg("audit").args(args).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

struct World {
    receiver: Receiver,
    operator: Operator,
    sink: Sink,
    plane: Plane,
    _folder: tempfile::TempDir,
}

/// `gyrfalcon audit --cluster`. Killed when dropped.
struct Receiver {
    folder: PathBuf,
    listen: SocketAddr,
    operator: SocketAddr,
    child: Mutex<Option<Child>>,
}

impl Receiver {
    fn spawn(&self) -> Result<()> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let log = fs::File::options().create(true).append(true).open(self.folder.join("receiver.log"))?;
        let mut command = Command::new(sensor()?);
        command.args(["audit", "--cluster", "--hostname", POD, "--operator-name", OPERATOR]);
        command.args(["--operator", &self.operator.to_string(), "--listen", &self.listen.to_string()]);
        command.args(["--ca", &file("operator-ca.crt"), "--token", &file("token"), "--state-dir", &file("state")]);
        command.args(["--tls-cert", &file("pki/tls.crt"), "--tls-key", &file("pki/tls.key")]);
        command.args(["--client-ca", &file("pki/ca.crt")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(command.spawn()?);
        Ok(())
    }

    fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("receiver.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// A sink's other end: the alerts that came, and when.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<(Instant, Value)>>>);

impl Sink {
    async fn start(&self) -> Result<String> {
        let got = self.clone();
        let take = async move |body: Bytes| {
            if let Ok(alert) = serde_json::from_slice::<Value>(&body) {
                got.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), alert));
            }
        };
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(take))).await });
        Ok(url)
    }

    /// The first alert of a rule whose output has this word.
    fn find(&self, rule: &str, word: &str) -> Option<(Instant, Value)> {
        let got = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ours = got.iter().filter(|(_, alert)| alert["rule"] == rule);
        ours.find(|(_, alert)| alert["output"].as_str().is_some_and(|output| output.contains(word))).cloned()
    }

    fn count(&self, rule: &str, word: &str) -> usize {
        let got = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = got.iter().filter(|(_, alert)| alert["rule"] == rule);
        ours.filter(|(_, alert)| alert["output"].as_str().is_some_and(|output| output.contains(word))).count()
    }
}

impl World {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let pki = folder.path().join("pki").display().to_string();
        gyrfalcon(&["certificates", &pki, "--name", "127.0.0.1"])?;
        let (rules, own) = (official()?.display().to_string(), root().join("config/rules/audit").display().to_string());
        // Also what the tenant's rule asks for.
        let tenants = folder.path().join("tenant.yaml");
        fs::write(&tenants, tenant_rule().to_string())?;
        let policy = gyrfalcon(&["policy", &rules, &own, &tenants.display().to_string()])?;
        let url = format!("https://{listen}/k8s-audit");
        let config = gyrfalcon(&["policy", "--kubeconfig", &url, "--certificates", &pki])?;
        let webhook = AuditWebhook {
            url,
            policy: Some(policy),
            config: Some(config),
            // The API server's default.
            initial_backoff: Some("10s".to_owned()),
        };
        let options = ClusterOptions { audit_webhook: Some(webhook), ..ClusterOptions::default() };
        let plane = Plane::start_with(options).await?;
        plane.account(SYSTEM, RECEIVERS).await?;
        // Those of namespaces, which a controller makes that does not run any more.
        for namespace in ["kube-system", "default", "team-0"] {
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace},
            });
            plane.cluster.kubectl_apply(&account.to_string())?;
        }
        let operator = Operator::start(&plane, folder.path().to_owned(), &["--durable", "--allow-local-sinks"])?;
        operator.ready().await?;
        let ca = Api::<ConfigMap>::namespaced(plane.client.clone(), SYSTEM).get("gyrfalcon-ca").await?;
        let ca = ca.data.and_then(|mut data| data.remove("ca.crt")).context("a CA")?;
        fs::write(folder.path().join("operator-ca.crt"), ca)?;
        let receiver =
            Receiver { folder: folder.path().to_owned(), listen, operator: operator.link, child: Mutex::default() };
        let sink = Sink::default();
        let url = sink.start().await?;
        let world = Self { receiver, operator, sink, plane, _folder: folder };
        world.apply(&json!({
            "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterAlertSink", "metadata": {"name": "all"},
            "spec": {"webhook": {"url": url}},
        }))?;
        // The administrator is no user that the rule knows, and only the first rule that matches is told.
        world.apply(&json!({
            "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "ClusterFalcoRule", "metadata": {"name": "k8s-audit"},
            "spec": {
                "rules": fs::read_to_string(official()?)?, "disable": ["Disallowed K8s User"],
                "events": {"minimumPriority": "Notice"},
            },
        }))?;
        let own = fs::read_to_string(root().join("config/rules/audit/cve-2020-8555.yaml"))?;
        world.plane.cluster.kubectl_apply(&own)?;
        Ok(world)
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.plane.cluster.kubectl_apply(&object.to_string()).map(drop)
    }

    /// Reason and message of a rule resource's condition.
    fn ready(&self, args: [&str; 2]) -> Result<(String, String, String)> {
        let object = self.plane.cluster.kubectl_json(["get", args[0], args[1], "--namespace=team-0"])?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("reason"), text("message")))
    }

    async fn is_ready(&self, kind: &str, name: &str) -> Result<()> {
        let mut last = Default::default();
        let what = format!("{kind}/{name} is Ready");
        let waited = until(LONG, &what, async || {
            last = self.ready([kind, name])?;
            Ok(last.0 == "True")
        });
        waited.await.with_context(|| format!("{last:?}")).map(drop)
    }

    /// Waits for the alert of a rule, and for an Event about this; both must come soon after `asked`.
    async fn expect(&self, rule: &str, word: &str, kind: &str, name: &str, asked: Instant) -> Result<Value> {
        let mut found = None;
        let what = format!("`{rule}` at the sink");
        let waited = until(LONG, &what, async || {
            found = self.sink.find(rule, word);
            Ok(found.is_some())
        });
        waited.await?;
        let (came, alert) = found.context("it was found")?;
        ensure!(came - asked <= soon(), "`{rule}` came after {:?}", came - asked);
        ensure!(alert["source"] == "k8s_audit" && alert["hostname"] == POD, "{alert}");
        let events: Api<Event> = Api::all(self.plane.client.clone());
        let mut seen = Vec::new();
        let what = format!("an Event about {kind} {name} for `{rule}`");
        let waited = until(LONG, &what, async || {
            seen = events.list(&ListParams::default()).await?.items;
            Ok(seen.iter().any(|event| {
                let about = event.regarding.clone().unwrap_or_default();
                let of_rule = event.annotations().get(api::labels::RULE).is_some_and(|of| of == rule);
                of_rule
                    && about.kind.as_deref() == Some(kind)
                    && about.name.as_deref().is_some_and(|n| n.starts_with(name))
            }))
        });
        let abouts = |event: &Event| {
            let about = event.regarding.clone().unwrap_or_default();
            format!("{:?} {:?} {:?}", event.reason, about.kind, about.name)
        };
        let waited = waited.await;
        waited.with_context(|| seen.iter().map(abouts).collect::<Vec<_>>().join("\n"))?;
        let took = asked.elapsed();
        ensure!(took <= soon() + Duration::from_millis(500), "the Event of `{rule}` came after {took:?}");
        println!("{rule}: at the sink after {:?}, an Event after {took:?} at most", came - asked);
        Ok(alert)
    }
}

/// A rule of a namespace that asks for more than that.
fn tenant_rule() -> Value {
    json!({
        "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "FalcoRule", "metadata": {"name": "config", "namespace": "team-0"},
        "spec": {"rule": {
            "rule": "Config map written", "source": "k8s_audit", "priority": "Warning",
            "condition": "ka.stage = ResponseComplete and ka.target.resource = configmaps and ka.verb in (create, update, patch)",
            "output": "config map written | ns=%ka.target.namespace name=%ka.target.name",
        }},
    })
}

async fn rules_on_the_audit_log_say_that_nothing_receives_it(world: &World) -> Result<()> {
    let mut last = Default::default();
    let waited = until(LONG, "the rules have no receiver", async || {
        last = world.ready(["clusterfalcorule", "k8s-audit"])?;
        Ok(last.1 == "NoAuditReceiver")
    });
    waited.await.with_context(|| format!("{last:?}"))?;
    ensure!(last.2.contains("audit.enabled"), "{last:?}");
    Ok(())
}

async fn rules_are_ready_when_the_receiver_runs_them(world: &World) -> Result<()> {
    let plane = &world.plane;
    plane.places(0..1, 0, false).await?;
    let uid = plane.pod(SYSTEM, POD, "node-0000", RECEIVERS).await?;
    let token = plane.token(RECEIVERS, &(POD.to_owned(), uid), link::TOKEN_AUDIENCE).await?;
    fs::write(world.receiver.folder.join("token"), token)?;
    world.receiver.spawn()?;
    world.is_ready("clusterfalcorule", "k8s-audit").await?;
    world.is_ready("clusterfalcorule", "cve-2020-8555").await?;
    let object = plane.cluster.kubectl_json(["get", "clusterfalcorule", "k8s-audit"])?;
    ensure!(object["status"]["loadedNodes"] == "1/1", "{:#}", object["status"]);
    Ok(())
}

async fn each_official_rule_is_an_event_and_at_a_sink_within_two_seconds(world: &World) -> Result<()> {
    let pod = |name: &str, namespace: &str, security: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {"containers": [{"name": "c", "image": "example.org:5000/app:1", "securityContext": security}]},
        })
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = json!({
        "apiVersion": rbac, "kind": "Role", "metadata": {"name": "wild", "namespace": "team-0"},
        "rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "wild-admin"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    });
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "creds", "namespace": "team-0"},
        "data": {"aws": "aws_access_key_id = AKIA0"},
    });
    let privileged = pod("privileged", "team-0", json!({"privileged": true}));
    for (object, rule, word, kind, name) in [
        (&privileged, "Create Privileged Pod", "privileged", "Pod", "privileged"),
        (&config, "Create/Modify Configmap With Private Credentials", "configmap=creds", "ConfigMap", "creds"),
        (&binding, "Attach to cluster-admin Role", "eve", "ClusterRoleBinding", "wild-admin"),
        (&role, "ClusterRole With Wildcard Created", "role=wild", "Role", "wild"),
        (&pod("odd", "kube-system", json!({})), "Pod Created in Kube Namespace", "pod=odd", "Pod", "odd"),
    ] {
        let asked = Instant::now();
        world.apply(object)?;
        let alert = world.expect(rule, word, kind, name, asked).await.with_context(|| rule.to_owned())?;
        if kind == "Pod" {
            ensure!(alert["output"].as_str().is_some_and(|text| text.contains("example.org:5000/app:1")), "{alert}");
        }
    }

    // No kubelet answers; the attempt is what the rule is about.
    let asked = Instant::now();
    let attempt = ["exec", "--namespace=team-0", "privileged", "--", "sh", "-c", "id"];
    ensure!(world.plane.cluster.kubectl(attempt)?.success().is_err(), "there is no kubelet");
    let (kind, name) = ("Namespace", "team-0");
    let alert = world.expect("Attach/Exec Pod", "command=sh -c id", kind, name, asked).await?;
    ensure!(alert["priority"] == "Notice", "{alert}");

    let asked = Instant::now();
    // Nobody's certificate, nobody's token. Without any name kubectl would ask for one; the API server takes none.
    let url = format!("--server={}", world.plane.cluster.server());
    let nobody = ["--insecure-skip-tls-verify", "--kubeconfig=/dev/null", "--username=nobody", "--password=none"];
    let nobody = [&["get", "--raw=/version", url.as_str()], &nobody[..]].concat();
    world.plane.cluster.kubectl_args(&nobody, None)?.success()?;
    let (kind, name) = ("ClusterFalcoRule", "k8s-audit");
    world.expect("Anonymous Request Allowed", "uri=/version", kind, name, asked).await?;

    let object = world.plane.cluster.kubectl_json(["get", "clusterfalcorule", "k8s-audit"])?;
    ensure!(object["status"]["nodes"]["loaded"] == 1, "{:#}", object["status"]);
    Ok(())
}

async fn a_tenant_sees_requests_about_its_own_namespace(world: &World) -> Result<()> {
    world.apply(&tenant_rule())?;
    world.is_ready("falcorule", "config").await?;
    let config = |namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": {"a": "b"}});
    world.apply(&config("team-1", "theirs"))?;
    let asked = Instant::now();
    world.apply(&config("team-0", "ours"))?;
    world.expect("Config map written", "ns=team-0 name=ours", "ConfigMap", "ours", asked).await?;
    ensure!(world.sink.count("Config map written", "team-1") == 0, "a tenant has seen another one's request");
    Ok(())
}

/// The blocks of a page that stand behind a mark.
fn blocks(page: &str, mark: &str) -> Vec<String> {
    let behind = page.split("<!-- ").skip(1).filter_map(|part| {
        let (head, rest) = part.split_once(" -->\n")?;
        head.starts_with(mark).then(|| rest.split("```").nth(1))?
    });
    behind.filter_map(|block| Some(block.split_once('\n')?.1.to_owned())).collect()
}

async fn the_walk_through_of_cve_2020_8555_is_as_it_is_written(world: &World) -> Result<()> {
    let page = fs::read_to_string(root().join("docs/walkthroughs/cve-2020-8555.md"))?;
    let manifests = blocks(&page, "manifest");
    ensure!(manifests.len() == 3, "{} manifests", manifests.len());
    let what = ["Storage class", "Pod with a volume", "Workload with a volume"];
    let kinds = ["StorageClass", "Pod", "Deployment"];
    for ((manifest, what), kind) in manifests.iter().zip(what).zip(kinds) {
        let rule = format!("{what} that makes the control plane call out (CVE-2020-8555)");
        let asked = Instant::now();
        world.plane.cluster.kubectl_apply(manifest)?;
        let alert = world.expect(&rule, "CVE-2020-8555", kind, "cve-2020-8555", asked).await?;
        if kind == "StorageClass" {
            let output = alert["output"].as_str().unwrap_or_default();
            let shown = blocks(&page, "alerts").concat();
            for word in shown.split_whitespace() {
                ensure!(output.contains(word), "the page shows `{word}`, the alert is {output}");
            }
        }
    }
    Ok(())
}

async fn nothing_is_lost_while_the_receiver_is_away_for_a_minute(world: &World) -> Result<()> {
    world.receiver.kill()?;
    let away = Instant::now();
    let mut made = 0;
    while away.elapsed() < AWAY {
        let name = format!("away-{made}");
        world.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "team-0"},
            "data": {"a": "password"},
        }))?;
        made += 1;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    world.receiver.spawn()?;
    let rule = "Create/Modify Configmap With Private Credentials";
    let waited = until(Duration::from_secs(120), "all that happened meanwhile is told", async || {
        Ok((0..made).all(|number| world.sink.find(rule, &format!("configmap=away-{number})")).is_some()))
    });
    waited.await.with_context(|| format!("{} of {made} were told", world.sink.count(rule, "configmap=away-")))?;
    if world.sink.count(rule, "configmap=away-") < made {
        bail!("some are missing");
    }
    println!("{made} requests while the receiver was away for {AWAY:?}: all told");
    Ok(())
}
