//! `cargo xtask demo`: a Kubernetes on this machine with Gyrfalcon in it, and an alert to look at.
//!
//! What is built is built as the developer; then a second process, as root, starts the cluster, installs the chart and
//! the samples, reads a forbidden file in a pod, and shows what came of it. Ctrl-C ends everything.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::install::{self, SYSTEM};
use e2e::{Cluster, ClusterOptions, Tools, reaper, wait_for};
use serde_json::Value;

use crate::checkout::Checkout;
use crate::process::{self, announce};
use crate::{ebpf, image, kubernetes};

/// The hidden command for the part that needs root.
pub const IN_CLUSTER: &str = "demo-in-cluster";

/// The namespace of what is watched.
const SHOP: &str = "shop";
/// Files and folders that are applied: rules for the whole cluster, then one sample for each kind.
const MANIFESTS: [&str; 2] = ["config/rules", "config/samples"];
/// What a newcomer would wait.
const LONG: Duration = Duration::from_secs(180);

/// Builds everything and runs the demo.
pub fn run(checkout: &Checkout, detach: bool) -> Result<()> {
    let tools = kubernetes::tools(checkout)?;
    let object = ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?;
    let images = image::default_folder(checkout);
    image::build(checkout, &object, &images)?;
    if process::is_root() {
        return in_cluster(checkout, tools.folder(), &images, detach);
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut command = process::as_root("env")?;
    command.arg(format!("CARGO_MANIFEST_DIR={}", checkout.root.join("xtask").display()));
    command.arg(own).arg(IN_CLUSTER).arg(tools.folder()).arg(&images).args(detach.then_some("--detach"));
    announce(format_args!("starting the cluster{}", process::root_note()));
    process::run(&mut command, "running the demo", "read the messages above")
}

/// Ends what `--detach` left running.
pub fn stop() -> Result<()> {
    let parent = std::env::temp_dir();
    let left = reaper::detached(&parent);
    if left.is_empty() {
        announce("no demo is running");
    }
    for dir in left {
        announce(format_args!("ending the cluster in {}", dir.display()));
        reaper::reap(&dir).context("this needs the rights of the user who started the demo, mostly root")?;
    }
    Ok(())
}

/// The part that needs root.
pub fn in_cluster(checkout: &Checkout, tools: &Path, images: &Path, detach: bool) -> Result<()> {
    let began = Instant::now();
    announce("starting a Kubernetes with one node (about 10 s)");
    let options = ClusterOptions { tools: Some(Tools::at(tools)), node: true, ..ClusterOptions::default() };
    let cluster = Cluster::start(options)?;
    announce(format_args!("the cluster is ready after {:.0} s", began.elapsed().as_secs_f32()));
    let shown = show(&cluster, checkout, images);
    if let Err(error) = &shown {
        announce(format_args!("{error:#}"));
        state(&cluster);
    }
    if detach {
        shown?;
        tell_commands(&cluster, "cargo xtask demo --stop ends it.");
        return cluster.detach().map(|_| ());
    }
    // Also after a failure: somebody may want to look around.
    tell_commands(&cluster, "Ctrl-C ends it.");
    e2e::interrupted()?;
    announce("ending the cluster");
    cluster.stop()?;
    shown
}

fn show(cluster: &Cluster, checkout: &Checkout, images: &Path) -> Result<()> {
    for image in &image::OURS {
        cluster.load_image(&images.join(format!("{}.tar", image.program)))?;
    }
    announce("helm install gyrfalcon charts/gyrfalcon");
    // One node.
    print!("{}", install::helm(cluster, &checkout.root.join("charts/gyrfalcon"), &["operator.replicas=1"])?);
    // Samples are in it.
    cluster.kubectl(["create", "namespace", SHOP])?.success()?;
    for manifests in MANIFESTS {
        let path = checkout.root.join(manifests).display().to_string();
        announce(format_args!("kubectl apply -f {manifests}"));
        print!("{}", cluster.kubectl(["apply", "--filename", &path])?.success()?);
    }
    wait_for(LONG, "every ClusterFalcoRule is Ready", || all_ready(cluster))?;
    print!("{}", cluster.kubectl(["get", "clusterfalcorules,sensornodes"])?.success()?);

    cluster.kubectl_args(&["apply", "--namespace", SHOP, "--filename=-"], Some(POD))?.success()?;
    cluster.kubectl(["wait", "--namespace", SHOP, "--for=condition=Ready", "pod/web", "--timeout=120s"])?.success()?;
    announce(format_args!("kubectl exec -n {SHOP} web -- cat /etc/shadow"));
    cluster.kubectl(["exec", "--namespace", SHOP, "web", "--", "cat", "/etc/shadow"])?.success()?;
    let event = wait_for(LONG, "an Event on the pod", || event_on(cluster, "web"))?;
    println!(
        "\nEvent on pod {SHOP}/web: {} {}\n  {}\n",
        text(&event["type"]),
        text(&event["reason"]),
        text(&event["message"])
    );
    wait_for(LONG, "the hit in the rule's status", || counted(cluster))?;
    print!("{}", cluster.kubectl(["get", "clusterfalcorules"])?.success()?);
    Ok(())
}

fn counted(cluster: &Cluster) -> Option<()> {
    let core = cluster.kubectl_json(["get", "clusterfalcorule", "core"]).ok()?;
    (core["status"]["hits"]["total"].as_i64().unwrap_or(0) > 0).then_some(())
}

fn all_ready(cluster: &Cluster) -> Option<()> {
    let rules = cluster.kubectl_json(["get", "clusterfalcorules"]).ok()?;
    let rules = rules["items"].as_array()?;
    let is_ready = |rule: &Value| {
        let conditions = rule["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    (!rules.is_empty() && rules.iter().all(is_ready)).then_some(())
}

fn event_on(cluster: &Cluster, pod: &str) -> Option<Value> {
    let mut events = cluster.kubectl_json(["get", "events", "--namespace", SHOP]).ok()?;
    let events = events["items"].as_array_mut()?;
    let is_ours = |event: &Value| {
        event["involvedObject"]["name"] == pod && text(&event["reportingComponent"]).contains("gyrfalcon")
    };
    events.iter_mut().find(|event| is_ours(event)).map(Value::take)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What one would look at first when the demo fails.
fn state(cluster: &Cluster) {
    let looks: [&[&str]; 4] = [
        &["get", "pods", "--all-namespaces", "--output=wide"],
        &[
            "logs",
            "--namespace",
            SYSTEM,
            "--selector=app.kubernetes.io/name=gyrfalcon",
            "--all-containers",
            "--prefix",
            "--tail=20",
        ],
        &["get", "events", "--all-namespaces", "--field-selector=type=Warning"],
        &["get", "clusterfalcorules,sensornodes", "--output=wide"],
    ];
    for look in looks {
        println!("\n$ kubectl {}", look.join(" "));
        if let Ok(output) = cluster.kubectl_args(look, None) {
            print!("{}{}", output.stdout, output.stderr);
        }
    }
}

fn tell_commands(cluster: &Cluster, end: &str) {
    println!(
        "\nLook around (as root):\n  export KUBECONFIG={}\n  kubectl get clusterfalcorules,falcorules,clusteralertsinks,alertsinks,sensornodes -A\n  \
         kubectl describe clusterfalcorule\n  kubectl get events -n {SHOP}\n  kubectl exec -n {SHOP} -it web -- sh\n  \
         kubectl logs -n {SYSTEM} daemonset/gyrfalcon-sensor\nLogs of the cluster are in {}.\n{end}",
        cluster.kubeconfig().display(),
        cluster.dir().join("logs").display(),
    );
}

/// What the demo looks at: a shell with the usual programs.
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"app":"web"}},
"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"web","image":"e2e.gyrfalcon.dev/busybox:1",
"imagePullPolicy":"Never","command":["sleep","2147483647"]}]}}"#;
