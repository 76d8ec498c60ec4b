//! The receiver of the audit log as the chart installs it: the API server posts to its Service with a certificate of its own, and
//! what a namespace's rule finds is an Event there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use e2e::install::{self, SYSTEM};
use e2e::{AuditWebhook, Cluster, try_wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::facts::sensor_program;
use crate::harness::{LONG, case_alone};
use crate::steps::{condition, events, falco_rule, installed, ready, root, wait_condition, wait_hits};

pub fn trials() -> Vec<Trial> {
    vec![case_alone("the_api_server_posts_its_audit_log_to_the_receiver_of_the_chart", receives)]
}

/// The address of the receiver's Service: API servers are given one, for they do not ask the cluster's DNS.
const ADDRESS: &str = "10.96.0.77";

/// A rule on who runs something in pods of its namespace.
fn exec_rule() -> String {
    let rule = json!({
        "rule": "Shell asked for", "source": "k8s_audit", "priority": "Warning",
        "condition": "ka.stage = ResponseStarted and ka.target.resource = pods and ka.target.subresource = exec",
        "output": "shell asked for | user=%ka.user.name pod=%ka.target.name command=%ka.uri.param[command]",
    });
    falco_rule("who-execs", &json!({"rule": rule}))
}

/// What an administrator makes with the program before the API server is told of the receiver.
struct Prepared {
    policy: String,
    kubeconfig: String,
    certificates: Vec<(&'static str, String)>,
}

fn prepared() -> Result<Option<&'static Prepared>> {
    static PREPARED: OnceLock<Result<Option<Prepared>, String>> = OnceLock::new();
    let outcome = PREPARED.get_or_init(|| prepare().map_err(|error| format!("{error:#}")));
    outcome.as_ref().map(Option::as_ref).map_err(|error| anyhow::anyhow!("{error}"))
}

fn prepare() -> Result<Option<Prepared>> {
    // Other cases can do without it, and say so themselves where they can't.
    let Ok(program) = sensor_program() else { return Ok(None) };
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (pki, rule) = (folder.path().join("pki"), folder.path().join("rule.yaml"));
    fs::write(&rule, exec_rule()).context("cannot write into a temporary folder")?;
    let run = |args: &[&str], path: &Path, more: &[&str]| {
        let output = Command::new(&program).arg("audit").args(args).arg(path).args(more).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            bail!("gyrfalcon audit {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    run(&["certificates"], &pki, &["--name", ADDRESS])?;
    let url = format!("https://{ADDRESS}:9765/k8s-audit");
    let kubeconfig = run(&["policy", "--kubeconfig", &url, "--certificates"], &pki, &[])?;
    let policy = run(&["policy"], &rule, &[])?;
    let read = |name: &'static str| {
        let text = fs::read_to_string(pki.join(name)).with_context(|| format!("there is no {name}"))?;
        Ok((name, text))
    };
    let certificates = ["ca.crt", "tls.crt", "tls.key"].map(read).into_iter().collect::<Result<_>>()?;
    Ok(Some(Prepared { policy, kubeconfig, certificates }))
}

/// What the API server of the shared cluster is told from its start; `None` on a machine without the program.
pub fn webhook() -> Result<Option<AuditWebhook>> {
    Ok(prepared()?.map(|prepared| AuditWebhook {
        policy: Some(prepared.policy.clone()),
        config: Some(prepared.kubeconfig.clone()),
        ..AuditWebhook::default()
    }))
}

fn receives(cluster: &Cluster) -> Result<()> {
    let prepared =
        prepared()?.context("the API server was told of no receiver: GYRFALCON_E2E_SENSOR names no sensor")?;
    installed(cluster)?;
    let space = cluster.namespace("audited")?;
    space.busybox("web", "sleep 1000")?;
    space.apply(&exec_rule())?;
    let rule = wait_condition(&space, "falcorule", "who-execs", "Ready", "Unknown")?;
    ensure!(
        condition(&rule, "Ready").is_some_and(|ready| ready["reason"] == "NoAuditReceiver"),
        "{:#}",
        rule["status"]
    );

    let data: serde_json::Map<String, Value> =
        prepared.certificates.iter().map(|(name, text)| ((*name).to_owned(), text.as_str().into())).collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gyrfalcon-audit-tls", "namespace": SYSTEM},
        "stringData": data,
    });
    cluster.kubectl_apply(&secret.to_string())?;
    let chart = root().join("charts/gyrfalcon");
    let address = format!("audit.service.clusterIP={ADDRESS}");
    install::helm(cluster, &chart, &["operator.replicas=1", "audit.enabled=true", &address])?;
    let received = received(cluster, &space);
    let logs = || {
        let args = ["logs", "--namespace", SYSTEM, "--selector=app.kubernetes.io/component=audit", "--tail=30"];
        cluster.kubectl(args).map(|output| output.stdout).unwrap_or_default()
    };
    let received = received.with_context(logs);
    install::helm(cluster, &chart, &["operator.replicas=1"])?;
    received
}

fn received(cluster: &Cluster, space: &e2e::Namespace<'_>) -> Result<()> {
    ready(space, "who-execs")?;
    space.exec("web", ["echo", "here"])?;
    let found = try_wait_for(LONG, "an Event on the pod", || {
        Ok(events(space, "web")?.into_iter().find(|event| event["reason"] == "ShellAskedFor"))
    })?;
    let message = found["message"].as_str().unwrap_or_default();
    ensure!(message.contains("pod=web command=echo"), "{message}");
    let pod = space.kubectl_json(["get", "pod", "web"])?;
    ensure!(found["involvedObject"]["uid"] == pod["metadata"]["uid"], "{found:#}");
    wait_hits(space, "who-execs", 1)?;
    // It is no sensor of a node: nothing waits for a SensorNode of it.
    let nodes = cluster.kubectl_json(["get", "sensornodes"])?;
    ensure!(nodes["items"].as_array().is_some_and(|nodes| nodes.len() == 1), "{nodes:#}");
    Ok(())
}
