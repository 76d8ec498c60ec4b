//! `cargo xtask chart`: lints the Helm chart, compares its renders with the committed ones, and makes `install.yaml`.
//!
//! Renders are compared as text: a reviewer of a change to a template sees what it does to the objects. They leave out
//! the CRDs, which are generated and tested where they are made; `config/install.yaml` has everything. `--bless` writes
//! what differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use e2e::Tools;

use crate::checkout::Checkout;
use crate::codegen::Mode;
use crate::process;

const CHART: &str = "charts/gyrfalcon";
const GOLDEN: &str = "charts/gyrfalcon/tests/golden";
const INSTALL: &str = "config/install.yaml";
const NAMESPACE: &str = "gyrfalcon-system";
/// What templates are told about the cluster, so that renders do not depend on the helm that makes them.
const KUBE_VERSION: &str = "1.36.0";

/// A choice of values whose render is committed.
struct Render {
    name: &'static str,
    set: &'static [&'static str],
}

const RENDERS: &[Render] = &[
    Render { name: "default", set: &[] },
    Render {
        name: "digest",
        set: &[
            "global.imageRegistry=mirror.example/gyrfalcon",
            "image.operator.digest=sha256:1111111111111111111111111111111111111111111111111111111111111111",
            "image.sensor.digest=sha256:2222222222222222222222222222222222222222222222222222222222222222",
            "imagePullSecrets[0].name=mirror",
        ],
    },
    Render { name: "no-webhook", set: &["operator.webhook.enabled=false", "networkPolicy.enabled=false"] },
    Render { name: "persistence", set: &["operator.persistence.enabled=true", "operator.replicas=3"] },
    Render {
        name: "monitoring",
        set: &[
            "monitoring.serviceMonitor.enabled=true",
            "monitoring.podMonitor.enabled=true",
            "monitoring.prometheusRule.enabled=true",
            "monitoring.dashboard.enabled=true",
        ],
    },
    Render {
        name: "tenants",
        set: &[
            "tenancy.policies.enabled=true",
            "rbac.aggregateEdit=true",
            "sinks.watchNamespaces={shop,billing}",
            "sinks.secretNames={pager}",
        ],
    },
    Render { name: "audit", set: &["audit.enabled=true", "audit.service.clusterIP=10.96.0.77"] },
    Render {
        name: "openshift",
        set: &[
            "openshift.enabled=true",
            "sensor.seLinuxOptions.type=spc_t",
            "sensor.resourceQuota.enabled=true",
            "sensor.updateStrategy.maxUnavailable=25%",
        ],
    },
];

/// Values that the schema has to refuse, with a piece of what it says.
const REFUSED: &[(&str, &str)] = &[
    ("operator.replicsa=3", "replicsa"),
    ("sensor.resource.limits.memory=1Gi", "resource"),
    ("operator.persistence.enable=true", "enable"),
    ("image.sensor.digest=latest", "digest"),
    ("operator.replicas=0", "replicas"),
    ("sensor.updateStrategy.maxSurge=0", "maxSurge"),
    ("networkpolicy.enabled=false", "networkpolicy"),
    ("sensor.criSockets={/run/containerd/containerd.sock}", "criSockets"),
];

/// Why there can be no check here, if there can't.
pub fn cannot_run() -> Option<String> {
    Tools::locate().and_then(|tools| tools.path("helm")).err().map(|error| format!("{error:#}"))
}

/// Lints and renders; with [`Mode::Write`], writes what differs, otherwise fails on it.
pub fn run(checkout: &Checkout, mode: Mode) -> Result<()> {
    let helm = Helm { program: Tools::locate()?.path("helm")?, chart: checkout.root.join(CHART) };
    let mut files = Vec::new();
    for render in RENDERS {
        helm.lint(render)?;
        let mut set = vec!["crds.enabled=false"];
        set.extend(render.set);
        files.push((format!("{GOLDEN}/{}.yaml", render.name), helm.template(&set, &[])?));
    }
    for (set, expected) in REFUSED {
        helm.expect_refusal(set, expected)?;
    }
    let all = helm.template(&["crds.keep=false", "test.enabled=false"], &["--no-hooks"])?;
    files.push((INSTALL.to_owned(), install(&all)));

    let stale = compare(&checkout.root, &files, mode)?;
    if stale.is_empty() {
        process::announce(format_args!("the chart is sound in {} renders", RENDERS.len()));
        return Ok(());
    }
    bail!("renders of the chart are stale:\n  {}\n  remedy: cargo xtask chart --bless", stale.join("\n  "))
}

struct Helm {
    program: PathBuf,
    chart: PathBuf,
}

impl Helm {
    fn lint(&self, render: &Render) -> Result<()> {
        let mut command = self.command("lint", render.set);
        command.args(["--strict", "--quiet"]).stdout(Stdio::null());
        let remedy = "see what helm says above";
        process::run(&mut command, &format!("linting the chart as `{}`", render.name), remedy)
    }

    fn template(&self, set: &[&str], args: &[&str]) -> Result<String> {
        process::stdout_of(self.command("template", set).args(args)).context("cannot render the chart")
    }

    fn expect_refusal(&self, set: &str, expected: &str) -> Result<()> {
        let mut command = self.command("template", &[set]);
        let output = command.stdin(Stdio::null()).output().context("cannot start helm")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(expected) {
            bail!("values.schema.json does not refuse `{set}`, or does not name `{expected}`: {}", said.trim())
        }
        Ok(())
    }

    fn command(&self, verb: &str, set: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb);
        if verb == "template" {
            command.arg("gyrfalcon");
        }
        command.arg(&self.chart).args(["--namespace", NAMESPACE, "--kube-version", KUBE_VERSION]);
        for value in set {
            command.args(["--set", value]);
        }
        command
    }
}

/// The whole as one file: what helm cannot render, the namespace with its labels, comes first.
fn install(rendered: &str) -> String {
    format!(
        "# Generated by cargo xtask chart --bless from {CHART}. Do not edit.
# kubectl apply --server-side -f {INSTALL}
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/audit: privileged
    pod-security.kubernetes.io/warn: privileged
{rendered}"
    )
}

/// The files that differ from what is committed, as `path:line`; with [`Mode::Write`], writes them and returns none.
fn compare(root: &Path, files: &[(String, String)], mode: Mode) -> Result<Vec<String>> {
    let mut stale = Vec::new();
    for (path, text) in files {
        let file = root.join(path);
        let committed = fs::read_to_string(&file).unwrap_or_default();
        if committed == *text {
            continue;
        }
        match mode {
            Mode::Check => stale.push(format!("{path}:{}", first_difference(&committed, text))),
            Mode::Write => {
                process::announce(format_args!("writing {path}"));
                fs::create_dir_all(file.parent().unwrap_or(root))
                    .and_then(|()| fs::write(&file, text))
                    .with_context(|| format!("cannot write {}\n  remedy: make its folder writable", file.display()))?;
            }
        }
    }
    Ok(stale)
}

/// The number of the first line that is not the same.
fn first_difference(old: &str, new: &str) -> usize {
    old.lines().zip(new.lines()).take_while(|(old, new)| old == new).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout;

    #[test]
    fn every_render_is_committed_under_its_name() -> Result<()> {
        let root = checkout::root();
        for render in RENDERS {
            let file = root.join(GOLDEN).join(format!("{}.yaml", render.name));
            assert!(file.is_file(), "{} is missing: cargo xtask chart --bless", file.display());
        }
        let committed = fs::read_dir(root.join(GOLDEN))?.count();
        assert_eq!(committed, RENDERS.len(), "a render is committed that no row makes");
        Ok(())
    }

    #[test]
    fn stale_renders_are_named_with_the_line() {
        assert_eq!(first_difference("a\nb\nc\n", "a\nx\nc\n"), 2);
        assert_eq!(first_difference("", "a\n"), 1);
    }

    #[test]
    fn the_single_file_begins_with_the_labelled_namespace() {
        let text = install("---\nkind: Service\n");
        assert!(text.contains("pod-security.kubernetes.io/warn: privileged\n---\nkind: Service\n"), "{text}");
    }

    /// The names of metrics in a text.
    fn metrics(text: &str) -> impl Iterator<Item = &str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("gyrfalcon_"))
    }

    #[test]
    fn alerts_and_dashboard_ask_for_metrics_that_the_operator_has() -> Result<()> {
        let root = checkout::root();
        let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"));
        let table = read("operator/src/metrics.rs")?;
        for path in ["templates/monitoring/prometheusrule.yaml", "files/dashboard.json"] {
            let text = read(&format!("{CHART}/{path}"))?;
            assert!(metrics(&text).count() > 5, "{path} asks for nothing");
            for metric in metrics(&text) {
                // Counters are served with this behind the name that the table has.
                let name = metric.strip_suffix("_total").unwrap_or(metric);
                assert!(table.contains(&format!("\"{name}\"")), "{path}: operator/src/metrics.rs has no {name}");
            }
        }
        Ok(())
    }
}
