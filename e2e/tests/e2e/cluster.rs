//! The cluster itself: what other cases take for granted.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::image::Image;
use e2e::{AuditWebhook, Cluster, ClusterOptions, Component, Tools, wait_for};
use libtest_mimic::Trial;
use serde_json::json;

use crate::harness::{LONG, case, case_alone, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_control_plane_alone_serves_on_loopback", false, control_plane_alone),
        trial("the_api_server_sends_its_audit_log", false, audit_log),
        trial("stopping_leaves_no_process_mount_interface_or_folder", true, stopping_leaves_nothing),
        case("a_pod_runs_and_kubectl_reaches_into_it", pod_runs),
        case("a_pod_reaches_a_service_by_address_and_by_name", service_is_reached),
        case("a_pod_reaches_the_api_server_with_its_own_token", api_server_is_reached),
        case("a_pod_reaches_this_process", this_process_is_reached),
        case("a_pod_has_the_limits_and_capabilities_that_it_asks_for", limits_and_capabilities),
        case("an_image_of_one_program_is_loaded_and_runs_as_nobody", image_of_program),
        case("a_token_for_an_audience_is_good_for_that_audience_only", audience_bound_token),
        case("a_pod_on_the_host_network_sees_the_processes_of_the_machine", host_pod_sees_machine),
        case_alone("the_api_server_comes_back_after_a_crash", api_server_crashes),
        case_alone("containers_outlive_a_kubelet_and_a_container_runtime", kubelet_restarts),
    ]
}

fn control_plane_alone() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    ensure!(cluster.server().starts_with("https://127.0.0.1:"));
    let namespace = cluster.namespace("small")?;
    namespace.apply(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }).to_string())?;
    namespace.kubectl(["get", "configmap", "a"])?.success()?;
    drop(namespace);
    let dir = cluster.dir().to_owned();
    cluster.stop()?;
    ensure!(!dir.exists());
    Ok(())
}

fn audit_log() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{{host}}:{}/audit", listener.local_addr()?.port());
    let webhook = AuditWebhook { url, ..AuditWebhook::default() };
    let cluster = Cluster::start(ClusterOptions { audit_webhook: Some(webhook), ..ClusterOptions::default() })?;
    cluster.kubectl(["create", "namespace", "audited-namespace"])?.success()?;
    listener.set_nonblocking(true)?;
    wait_for(LONG, "an audit event", || {
        let (mut stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        let mut request = Vec::new();
        // Until it waits for the answer.
        let _ = stream.read_to_end(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let request = String::from_utf8_lossy(&request).into_owned();
        (request.starts_with("POST /audit") && request.contains("audited-namespace")).then_some(())
    })
}

fn stopping_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions { node: true, ..ClusterOptions::default() })?;
    let dir = cluster.dir().to_owned();
    let id = dir.file_name().context("a folder without a name")?.to_string_lossy().into_owned();
    let link = fs::read_to_string(dir.join("link"))?;
    let namespace = cluster.namespace("left")?;
    namespace.busybox("left", "sleep 1000")?;
    ensure!(traces(&id, &link)?.len() > 3, "a running cluster is seen: {:?}", traces(&id, &link)?);
    drop(namespace);
    cluster.stop()?;
    let left = traces(&id, &link)?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

/// What there is of a cluster: command lines, mounts, interfaces, cgroups, folders.
fn traces(id: &str, link: &str) -> Result<Vec<String>> {
    let mut traces = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        // One that has ended waits for its parent, which here is the machine's first process.
        if String::from_utf8_lossy(&read("stat")).contains(") Z ") {
            continue;
        }
        let [command, cgroup] =
            ["cmdline", "cgroup"].map(|name| String::from_utf8_lossy(&read(name)).replace('\0', " "));
        if (command.contains(id) || cgroup.contains(id)) && !command.starts_with("/bin/sh -c # Ends") {
            traces.push(format!("process {} {command}", entry.file_name().display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    traces.extend(mounts.lines().filter(|line| line.contains(id)).map(|line| format!("mount {line}")));
    let interface = format!("/sys/class/net/{link}");
    let cgroups = String::from_utf8(Command::new("find").args(["/sys/fs/cgroup", "-name", id]).output()?.stdout)?;
    traces.extend(cgroups.lines().map(str::to_owned));
    let paths = [interface, std::env::temp_dir().join(id).display().to_string()];
    traces.extend(paths.into_iter().filter(|path| fs::symlink_metadata(path).is_ok()));
    Ok(traces)
}

fn pod_runs(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("pod")?;
    namespace.busybox("one", "echo hello; sleep 1000")?;
    ensure!(namespace.exec("one", ["cat", "/etc/shadow"])?.starts_with("root:*"));
    ensure!(namespace.kubectl(["logs", "one"])?.success()? == "hello\n");
    let pod = namespace.kubectl_json(["get", "pod", "one"])?;
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    ensure!(id.starts_with("containerd://"), "{pod}");
    Ok(())
}

fn service_is_reached(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("service")?;
    namespace.busybox("server", "mkdir /www; echo served >/www/index.html; exec httpd -f -p 8080 -h /www")?;
    namespace.kubectl(["expose", "pod", "server", "--port=80", "--target-port=8080"])?.success()?;
    namespace.busybox("client", "sleep 1000")?;
    let service = namespace.kubectl_json(["get", "service", "server"])?;
    let address = service["spec"]["clusterIP"].as_str().context("a service without an address")?.to_owned();
    for name in [address, "server".to_owned(), format!("server.{}.svc", namespace.name())] {
        // kube-proxy follows Services; a moment may pass.
        let url = format!("http://{name}/");
        wait_for(LONG, &format!("a pod reaches {url}"), || {
            namespace.exec("client", ["wget", "-q", "-O", "-", &url]).ok().filter(|text| text == "served\n")
        })?;
    }
    Ok(())
}

fn api_server_is_reached(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("api")?;
    let account = format!("--serviceaccount={}:default", namespace.name());
    namespace.kubectl(["create", "rolebinding", "edit", "--clusterrole=edit", &account])?.success()?;
    let tools = Tools::locate()?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": e2e::image::BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "1000"],
                "volumeMounts": [{ "name": "tools", "mountPath": "/tools" }],
            }],
            "volumes": [{ "name": "tools", "hostPath": { "path": tools.folder() } }],
        },
    });
    namespace.apply(&pod.to_string())?;
    namespace.pod_runs("one")?;
    // A program that finds the API server as every client library does, and checks its certificate.
    let list = namespace.exec("one", ["/tools/helm", "list", "--namespace", namespace.name()])?;
    ensure!(list.starts_with("NAME"), "{list}");
    let refused = namespace.kubectl(["exec", "one", "--", "/tools/helm", "list", "--namespace=kube-system"])?;
    ensure!(refused.stderr.contains(&format!("system:serviceaccount:{}:default", namespace.name())), "{refused}");
    Ok(())
}

fn this_process_is_reached(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("host")?;
    namespace.busybox("one", "sleep 1000")?;
    let listener = TcpListener::bind((cluster.host_address(), 0))?;
    let port = listener.local_addr()?.port().to_string();
    let answer = std::thread::spawn(move || -> Result<()> { Ok(listener.accept()?.0.write_all(b"from the test\n")?) });
    let heard = namespace.exec("one", ["nc", "-w", "5", &cluster.host_address(), &port])?;
    ensure!(heard == "from the test\n", "{heard}");
    answer.join().map_err(|_| anyhow::anyhow!("the listener panicked"))?
}

fn limits_and_capabilities(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("limits")?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one" },
        "spec": {
            "priorityClassName": "system-node-critical", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": e2e::image::BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "1000"],
                "resources": { "requests": { "cpu": "50m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                "securityContext": {
                    "readOnlyRootFilesystem": true, "seccompProfile": { "type": "Unconfined" },
                    "capabilities": { "drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE"] },
                },
            }],
        },
    });
    namespace.apply(&pod.to_string())?;
    namespace.pod_runs("one")?;
    let status = namespace.exec("one", ["cat", "/proc/1/status"])?;
    let bounds = (1u64 << 39) | (1 << 38) | (1 << 19);
    ensure!(status.contains(&format!("CapBnd:\t{bounds:016x}")), "{status}");
    Ok(())
}

fn image_of_program(cluster: &Cluster) -> Result<()> {
    let name = "e2e.gyrfalcon.dev/helm:1";
    let archive = cluster.dir().join("helm.tar");
    Image::of_program(name, &Tools::locate()?.path("helm")?)?.write(&archive)?;
    cluster.load_image(&archive)?;
    let namespace = cluster.namespace("image")?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one" },
        "spec": {
            "restartPolicy": "Never",
            "securityContext": { "runAsNonRoot": true },
            "containers": [{
                "name": "main", "image": name, "imagePullPolicy": "Never", "args": ["version", "--short"],
                "securityContext": { "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    namespace.apply(&pod.to_string())?;
    wait_for(LONG, "helm has said its version", || {
        namespace.kubectl(["logs", "one"]).ok().filter(|output| output.stdout.starts_with('v'))
    })?;
    Ok(())
}

fn audience_bound_token(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("token")?;
    let token = namespace.kubectl(["create", "token", "default", "--audience=gyrfalcon"])?.success()?;
    let review = |audience: &str| -> Result<serde_json::Value> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token.trim(), "audiences": [audience] },
        });
        let args = ["create", "--filename=-", "--output=json"];
        cluster.kubectl_args(&args, Some(&review.to_string()))?.json()
    };
    let good = review("gyrfalcon")?;
    ensure!(good["status"]["authenticated"] == true, "{good}");
    ensure!(good["status"]["audiences"] == json!(["gyrfalcon"]), "{good}");
    ensure!(
        good["status"]["user"]["username"] == format!("system:serviceaccount:{}:default", namespace.name()),
        "{good}"
    );
    let other = review("somebody-else")?;
    ensure!(other["status"]["authenticated"] != true, "{other}");
    Ok(())
}

fn host_pod_sees_machine(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("sensor")?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one" },
        "spec": {
            "hostNetwork": true, "hostPID": true, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": e2e::image::BUSYBOX, "imagePullPolicy": "Never",
                "command": ["sleep", "1000"], "securityContext": { "privileged": true },
                "volumeMounts": [
                    { "name": "state", "mountPath": "/state" }, { "name": "containerd", "mountPath": "/containerd" },
                ],
            }],
            "volumes": [
                { "name": "state", "hostPath": { "path": "/var/lib/gyrfalcon-e2e", "type": "DirectoryOrCreate" } },
                { "name": "containerd", "hostPath": { "path": "/run/containerd" } },
            ],
        },
    });
    namespace.apply(&pod.to_string())?;
    namespace.pod_runs("one")?;
    let own = std::process::id().to_string();
    let name = namespace.exec("one", ["cat", &format!("/proc/{own}/comm")])?;
    ensure!(name == fs::read_to_string("/proc/self/comm")?, "{name}");
    namespace.exec("one", ["test", "-S", "/containerd/containerd.sock"])?;
    namespace.exec("one", ["touch", "/state/written"])?;
    ensure!(!fs::exists("/var/lib/gyrfalcon-e2e")?, "a pod has written on the machine");
    Ok(())
}

fn api_server_crashes(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("crash")?;
    let before = cluster.pid(Component::ApiServer);
    cluster.kill(Component::ApiServer)?;
    ensure!(!cluster.kubectl(["get", "nodes", "--request-timeout=2s"])?.status.success());
    let began = Instant::now();
    cluster.start_component(Component::ApiServer)?;
    eprintln!("the API server was back after {:.1} s", began.elapsed().as_secs_f32());
    ensure!(cluster.pid(Component::ApiServer) != before);
    namespace.busybox("after", "sleep 1000")
}

fn kubelet_restarts(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("restart")?;
    namespace.busybox("one", "sleep 1000")?;
    let id = |n: &e2e::Namespace<'_>| {
        n.kubectl_json(["get", "pod", "one"]).map(|pod| pod["status"]["containerStatuses"].clone())
    };
    let before = id(&namespace)?;
    cluster.kill(Component::Kubelet)?;
    cluster.kill(Component::Containerd)?;
    cluster.start_component(Component::Containerd)?;
    cluster.start_component(Component::Kubelet)?;
    namespace.busybox("two", "sleep 1000")?;
    ensure!(id(&namespace)?[0]["containerID"] == before[0]["containerID"]);
    namespace.exec("one", ["true"]).map(|_| ())
}
