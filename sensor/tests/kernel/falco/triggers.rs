//! Falco's rules that no case of the conformance data is about: what sets each of them off, played by a traced process, and
//! what a user would look at in the alert.
//!
//! All rulesets are loaded together, the rules that are off by default as well. Facts about containers come from a runtime
//! that the tests play, host names from a table of the test's own. Where a rule is empty until a user fills a list, the list
//! is filled as a user would fill it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{
    APPENDED, Need, RULESETS, Room, Sensor,
    cases::placeholder,
    folder, harness, host,
    room::Kind::{self, Host, Ordinary, Privileged, Terminal},
    runtime::{self, Known, Runtime},
    trial,
};

const NEEDS: &[Need] = &[Need::Tracing, Need::OfficialRules, Need::Program("runc")];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("official rules: those without a case are set off by what they are about", NEEDS, fires),
        trial(
            "official rules: every one has a case or a trigger",
            &[Need::OfficialRules, Need::Conformance],
            every_rule_has_one,
        ),
    ]
}

/// What a user fills in: which namespaces keep to themselves, and which images may run.
const FILLED: &str = "
- list: namespace_scope_network_only_subnet
  items: [NAMESPACE]
  override: {items: append}
- macro: allowed_containers
  condition: (container.image.repository = registry.example/allowed)
  override: {condition: replace}
";

/// Names that rules compare with, and the addresses at which the test plays them.
const HOSTS: &str =
    "127.0.0.1 localhost\n127.0.0.99 kubernetes.default.svc.cluster.local\n198.51.100.1 asia1.ethpool.org\n";

/// One activity that must set off a rule: where, by which processes, in which steps.
struct Trigger {
    rule: &'static str,
    priority: &'static str,
    kind: Kind,
    /// Each process is the parent of the next; the last takes the steps.
    chain: &'static [&'static str],
    steps: Value,
    /// Fields of the alert.
    fields: Value,
}

#[rustfmt::skip]
fn triggers() -> Vec<Trigger> {
    let on = |rule, priority, kind, chain, steps, fields| Trigger { rule, priority, kind, chain, steps, fields };
    // A folder of the test's own on the host.
    let ours = |name: &str| format!("/tmp/gyr-{}/{name}", placeholder());
    let folder = json!({"op": "mkdir", "path": ours("").trim_end_matches('/')});
    let file = |path: &str| json!({"op": "write_file", "path": path, "data": "#\n"});
    let open = |path: &str, flags: &str| json!({"op": "openat", "path": path, "flags": flags});
    let spawn = |argv: &[&str]| json!([{"op": "spawn", "argv": argv}]);
    let served = |address: &str| json!([{"op": "network", "addr": address}, {"op": "serve", "addr": address}]);
    let (bashrc, history, lzma, suid) = (ours(".bashrc"), ours(".bash_history"), ours("liblzma.so.5.6.1"), ours("suid"));
    vec![
        // ---- stable
        on("Terminal shell in container", "Notice", Terminal, &["sh"], json!([]),
           json!({"evt.type": "execve", "proc.name": "sh", "proc.tty": "34816", "user.name": "root"})),
        on("Contact K8S API Server From Container", "Notice", Ordinary, &["client"],
           json!([{"op": "connect", "addr": "127.0.0.99:6443"}]),
           json!({"evt.type": "connect", "proc.name": "client", "fd.type": "ipv4", "fd.l4proto": "tcp", "fd.rport": "6443"})),
        on("Remove Bulk Data from Disk", "Warning", Host, &["cleaner"], spawn(&["shred", "--version"]),
           json!({"proc.name": "shred", "proc.cmdline": "shred --version", "proc.pname": "cleaner"})),
        on("Linux Kernel Module Injection Detected", "Warning", Privileged, &["insmod"],
           json!([{"op": "init_module", "expect": "error"}]),
           json!({"evt.type": "init_module", "proc.name": "insmod", "user.name": "root"})),
        // ---- incubating
        on("Modify Shell Configuration File", "Warning", Host, &["editor"], json!([folder, file(&bashrc)]),
           json!({"fd.name": bashrc, "proc.name": "editor"})),
        on("Launch Privileged Container", "Informational", Ordinary, &["init"], json!([]),
           json!({"evt.type": "execve", "proc.name": "init"})),
        on("Launch Excessively Capable Container", "Informational", Privileged, &["init"], json!([]),
           json!({"evt.type": "execve", "proc.name": "init"})),
        on("Program run with disallowed http proxy env", "Notice", Host, &["job"],
           json!([{"op": "spawn", "argv": ["wget", "http://192.0.2.1/"], "env_add": {"HTTP_PROXY": "http://192.0.2.9:3128"}}]),
           json!({"proc.name": "wget", "proc.cmdline": "wget http://192.0.2.1/", "proc.pname": "job"})),
        on("Create files below dev", "Error", Ordinary, &["dropper"], json!([file("/dev/gyr")]),
           json!({"fd.name": "/dev/gyr", "proc.name": "dropper"})),
        on("Contact cloud metadata service from container", "Notice", Privileged, &["client"], served("169.254.169.254:80"),
           json!({"evt.type": "connect", "proc.name": "client", "fd.rport": "80", "fd.l4proto": "tcp"})),
        on("Launch Package Management Process in Container", "Error", Ordinary, &["job"], spawn(&["apk", "add", "nmap"]),
           json!({"proc.name": "apk", "proc.cmdline": "apk add nmap", "proc.pname": "job"})),
        on("Delete or rename shell history", "Warning", Host, &["cleaner"],
           json!([folder, file(&history), {"op": "unlink", "path": history}]),
           json!({"evt.type": "unlink", "evt.arg.path": history, "proc.name": "cleaner"})),
        on("Set Setuid or Setgid bit", "Notice", Host, &["job"],
           json!([folder, file(&suid), {"op": "chmod", "path": suid, "mode": 0o4755}]),
           json!({"evt.type": "chmod", "evt.arg.filename": suid, "proc.name": "job"})),
        on("Network Connection outside Local Subnet", "Warning", Privileged, &["client"], served("198.51.100.1:8443"),
           json!({"fd.rport": "8443", "proc.name": "client", "evt.type": "connect"})),
        on("Mount Launched in Privileged Container", "Warning", Privileged, &["job"], spawn(&["mount", "/dev/none", "/mnt"]),
           json!({"proc.name": "mount", "proc.cmdline": "mount /dev/none /mnt", "proc.pname": "job"})),
        on("Read environment variable from /proc files", "Warning", Ordinary, &["reader"],
           json!([open("/proc/self/environ", "O_RDONLY")]),
           json!({"fd.name": "/proc/self/environ", "proc.name": "reader"})),
        on("Exfiltrating Artifacts via Kubernetes Control Plane", "Notice", Ordinary, &["tar"],
           json!([file("/tmp/data"), open("/tmp/data", "O_RDONLY")]),
           json!({"fd.name": "/tmp/data", "proc.name": "tar", "proc.tty": "0"})),
        on("Backdoored library loaded into SSHD (CVE-2024-3094)", "Warning", Host, &["sshd"],
           json!([folder, file(&lzma), open(&lzma, "O_RDONLY")]),
           json!({"fd.name": lzma, "proc.name": "sshd"})),
        on("BPF Program Not Profiled", "Notice", Host, &["loader"], json!([{"op": "bpf", "expect": "error"}]),
           json!({"evt.type": "bpf", "evt.arg.cmd": "BPF_PROG_LOAD", "proc.name": "loader"})),
        // ---- sandbox
        on("Unexpected inbound connection source", "Notice", Host, &["server"], served("198.51.100.1:8443"),
           json!({"evt.type": "accept4", "fd.lport": "8443", "proc.name": "server"})),
        on("Read Shell Configuration File", "Warning", Host, &["reader"],
           json!([folder, file(&bashrc), open(&bashrc, "O_RDONLY")]),
           json!({"fd.name": bashrc, "proc.name": "reader"})),
        on("Update Package Repository", "Notice", Ordinary, &["job"],
           json!([{"op": "mkdir", "path": "/etc/apt/sources.list.d"}, file("/etc/apt/sources.list.d/gyr.list")]),
           json!({"fd.name": "/etc/apt/sources.list.d/gyr.list", "proc.name": "job"})),
        on("Write below binary dir", "Error", Ordinary, &["dropper"], json!([file("/sbin/gyr")]),
           json!({"fd.name": "/sbin/gyr", "proc.name": "dropper"})),
        on("Write below rpm database", "Error", Ordinary, &["job"],
           json!([{"op": "mkdir", "path": "/var/lib/rpm"}, file("/var/lib/rpm/gyr")]),
           json!({"fd.name": "/var/lib/rpm/gyr", "proc.name": "job"})),
        on("Mkdir binary dirs", "Error", Ordinary, &["job"], json!([{"op": "mkdir", "path": "/sbin/gyr"}]),
           json!({"evt.type": "mkdir", "evt.arg.path": "/sbin/gyr", "proc.name": "job"})),
        on("Launch Sensitive Mount Container", "Informational", Ordinary, &["init"], json!([]),
           json!({"proc.name": "init", "container.mounts": "/etc:/etc::false:private"})),
        on("Launch Disallowed Container", "Warning", Ordinary, &["init"], json!([]),
           json!({"proc.name": "init", "evt.type": "execve"})),
        on("Interpreted procs inbound network activity", "Notice", Host, &["perl"], served("198.51.100.1:8443"),
           json!({"proc.name": "perl", "fd.lport": "8443", "evt.type": "accept4"})),
        on("Unexpected K8s NodePort Connection", "Notice", Privileged, &["client"], served("198.51.100.1:30080"),
           json!({"proc.name": "client", "evt.type": "connect", "fd.rport": "30080"})),
        on("Detect outbound connections to common miner pool ports", "Critical", Host, &["worker"],
           served("198.51.100.1:3333"),
           json!({"proc.name": "worker", "evt.type": "connect", "fd.rip": "198.51.100.1", "fd.rport": "3333"})),
        on("Kubernetes Client Tool Launched in Container", "Warning", Ordinary, &["job"], spawn(&["kubectl", "get", "pods"]),
           json!({"proc.name": "kubectl", "proc.cmdline": "kubectl get pods", "proc.pname": "job"})),
        on("Container Drift Detected (chmod)", "Error", Ordinary, &["dropper"],
           json!([file("/tmp/tool"), {"op": "chmod", "path": "/tmp/tool", "mode": 0o755}]),
           json!({"evt.type": "chmod", "evt.arg.filename": "/tmp/tool", "proc.name": "dropper"})),
        on("Container Drift Detected (open+create)", "Error", Ordinary, &["dropper"],
           json!([{"op": "openat", "path": "/tmp/tool", "flags": "O_CREAT|O_WRONLY", "mode": 0o755}]),
           json!({"evt.type": "openat", "evt.arg.name": "/tmp/tool", "evt.arg.mode": "0755", "proc.name": "dropper"})),
        on("Container Run as Root User", "Informational", Ordinary, &["init"], json!([]),
           json!({"proc.name": "init", "user.uid": "0"})),
        on("Java Process Class File Download", "Critical", Host, &["java"], json!([{"op": "receive", "data": "cafebabe"}]),
           json!({"evt.type": "recvfrom", "proc.name": "java", "fd.type": "ipv4"})),
        on("Modify Container Entrypoint", "Warning", Ordinary, &["breaker"],
           json!([open("/tmp/target", "O_CREAT|O_RDWR"), open("/proc/self/fd/$FD", "O_WRONLY")]),
           json!({"evt.type": "openat", "proc.name": "breaker"})),
        on("Basic Interactive Reconnaissance", "Notice", Host, &["login"],
           json!([{"op": "spawn", "argv": ["whoami"], "terminal": true}]),
           json!({"proc.name": "whoami", "proc.pname": "login", "proc.cmdline": "whoami"})),
        on("Netcat/Socat Remote Code Execution on Host", "Warning", Host, &["job"], spawn(&["nc", "-e", "/bin/sh"]),
           json!({"proc.name": "nc", "proc.cmdline": "nc -e /bin/sh", "proc.pname": "job"})),
        on("Network Tool Executed During NPM Package Install", "Warning", Ordinary, &["npm"], spawn(&["nc", "-h"]),
           json!({"proc.name": "nc", "proc.pname": "npm", "proc.cmdline": "nc -h"})),
        on("Known Cryptominer Process Executed", "Critical", Host, &["job"], spawn(&["xmrig", "--version"]),
           json!({"proc.name": "xmrig", "proc.cmdline": "xmrig --version", "proc.pname": "job"})),
        on("Web Server Spawned Shell", "Critical", Host, &["nginx"], spawn(&["sh", "-c", "true"]),
           json!({"proc.name": "sh", "proc.pname": "nginx", "proc.cmdline": "sh -c true"})),
        on("Web Server Spawned Suspicious Child Process", "Warning", Host, &["nginx"], spawn(&["id"]),
           json!({"proc.name": "id", "proc.pname": "nginx", "proc.cmdline": "id"})),
        on("Reverse Shell from Web Server", "Critical", Host, &["nginx", "php-fpm"], spawn(&["sh", "-c", "true bash -i"]),
           json!({"proc.name": "sh", "proc.pname": "php-fpm", "proc.cmdline": "sh -c true bash -i"})),
        on("Privileged Container Device Access", "Critical", Ordinary, &["dd"], json!([file("/dev/sda")]),
           json!({"fd.name": "/dev/sda", "proc.name": "dd"})),
        on("Container Access to Host Sensitive Paths", "Warning", Ordinary, &["reader"],
           json!([{"op": "mkdir", "path": "/host/etc"}, file("/host/etc/passwd")]),
           json!({"fd.name": "/host/etc/passwd", "proc.name": "reader"})),
    ]
}

/// The names of the rules of all rulesets.
fn official() -> BTreeSet<String> {
    let rules = folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").expect("a need of the case");
    let texts = RULESETS.iter().filter_map(|file| fs::read_to_string(rules.join(file)).ok());
    let names = |text: String| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix("- rule: ")).map(|name| name.trim().to_owned()).collect()
    };
    texts.flat_map(names).collect()
}

fn every_rule_has_one() {
    let file = folder("GYRFALCON_CONFORMANCE", "evtgen_cases.json").expect("a need of the case");
    let text = fs::read_to_string(file.join("evtgen_cases.json")).expect("a need of the case");
    let data: Value = serde_json::from_str(&text).expect("JSON");
    let cases = ["actions", "e2e_suite"].into_iter().filter_map(|list| data[list].as_array()).flatten();
    let mut known: BTreeSet<String> = cases.filter_map(|case| case["rule"].as_str()).map(str::to_owned).collect();
    known.extend(triggers().iter().map(|trigger| trigger.rule.to_owned()));
    let lacking: Vec<_> = official().difference(&known).cloned().collect();
    assert!(lacking.is_empty(), "rules with neither a case nor a trigger in falco/triggers.rs: {lacking:?}");
}

fn fires() {
    let rules = folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").expect("a need of the case");
    let own = harness::folder();
    let mut files: Vec<PathBuf> = RULESETS.iter().map(|file| rules.join(file)).filter(|file| file.is_file()).collect();
    files.push(harness::write(own.path(), "filled.yaml", &FILLED.replace("NAMESPACE", runtime::NAMESPACE)));
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let runtime = Runtime::start(own.path(), Known::All);
    let address = runtime.address();
    let official = official();
    // Rulesets of other versions may lack some.
    let triggers: Vec<Trigger> = triggers().into_iter().filter(|one| official.contains(one.rule)).collect();
    let mut options =
        vec!["--append-output", APPENDED, "--rule-matching", "all", "--ring-mib", "32", "--cri", &address];
    for trigger in &triggers {
        options.extend(["--enable", trigger.rule]);
    }
    let sensor = Sensor::start_where(&files, &options, HOSTS);
    let room = Room::new();
    let mark = |number: usize| format!("trig{}-{number}", std::process::id());
    let mut wrong = Vec::new();
    let mut places = Vec::new();
    for (number, trigger) in triggers.iter().enumerate() {
        let chain: Vec<Value> = trigger.chain.iter().map(|name| json!({ "name": name })).collect();
        let place = room.perform_in(trigger.kind, &Value::from(chain), &trigger.steps, &mark(number));
        if let Err(error) = &place {
            wrong.push(format!("{}: {error}", trigger.rule));
        }
        places.push(place.ok().flatten().unwrap_or_else(host::container_id));
    }
    sensor.fence();
    let alerts = sensor.all();
    for (number, (trigger, place)) in triggers.iter().zip(&places).enumerate() {
        let mark = mark(number);
        let marked = alerts.iter().filter(|alert| alert.has("proc.env[GYR_MARK]", &mark));
        let (ours, others): (Vec<_>, Vec<_>) = marked.partition(|alert| alert.rule() == trigger.rule);
        let fields: Vec<(&String, String)> = trigger
            .fields
            .as_object()
            .expect("fields")
            .iter()
            .map(|(field, value)| (field, value.as_str().expect("text").replace(&placeholder(), &mark)))
            .collect();
        let is_right = |alert: &&&harness::Alert| {
            alert.text("priority") == trigger.priority
                && alert.has("container.id", place)
                && fields.iter().all(|(field, value)| alert.has(field, value))
        };
        if ours.iter().find(is_right).is_none() {
            let others: BTreeSet<_> = others.iter().map(|alert| alert.rule()).collect();
            wrong.push(format!(
                "{}: wanted {} {fields:?} in {place}, got {ours:#?}; others: {others:?}",
                trigger.rule, trigger.priority
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} triggers:\n{}", wrong.len(), triggers.len(), wrong.join("\n"));
    assert_eq!(sensor.stop().code, Some(0));
}
