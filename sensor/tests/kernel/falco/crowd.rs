//! Two hundred containers that come and go, one after the other and ten at a time, under all of Falco's rules: their events
//! are judged with what the container runtime says about them, no rule tells what is not so, and afterwards nothing is
//! remembered of them.
//!
//! The containers are runc's. The test plays the Docker that has them. Half of them it announces, and removes as soon as they
//! have ended; about the others the sensor must ask when it first meets them, and they are removed some time later, as a
//! kubelet does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path as UrlPath, State},
    http::StatusCode,
    routing::get,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::{net::UnixListener, sync::broadcast};
use tokio_stream::{StreamExt, wrappers::BroadcastStream};

use super::{Need, RULESETS, Room, Sensor, folder, harness, trial};
use crate::health;

const NEEDS: &[Need] = &[Need::Tracing, Need::Crowd, Need::OfficialRules, Need::Program("runc")];

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![trial("crowd: events of containers that come and go have facts, and nothing is left of them", NEEDS, crowd)]
}

/// How many containers come and go: `GYRFALCON_TEST_CONTAINERS`, such as two hundred; few in a guest.
fn containers() -> usize {
    let wanted = env::var("GYRFALCON_TEST_CONTAINERS").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(if harness::in_guest() { 12 } else { 200 })
}

/// As many are there at a time in the second half.
const AT_A_TIME: usize = 10;

/// How long a Docker takes to answer a question about a container.
const ANSWER: Duration = Duration::from_millis(20);

/// What a container does: six programs, and what they open.
const SCRIPT: &str = "id; ls -l /usr; cat /etc/passwd; head -c 1 /etc/hosts; cp /etc/hosts /tmp/copy; wc /tmp/copy";
const PROGRAMS: [&str; 6] = ["id", "ls", "cat", "head", "cp", "wc"];

/// The containers' image.
const IMAGE: (&str, &str) = ("registry.test:5000/crowd/worker", "1.7");

const RULE: &str = "
- rule: event of a container
  desc: Everything that a container does, and what is known about it.
  condition: container and evt.type in (execve, open, openat, openat2)
  output: name=%container.name image=%container.image.repository tag=%container.image.tag id=%container.id exe=%proc.name file=%fd.name
  priority: DEBUG
";

/// Official rules that a container of the crowd may set off.
const JUSTIFIED: [&str; 1] = [
    // The rule asks whether `not container.mount.dest[/proc*] in (\"<NA>\", \"N/A\")`, and what is not mounted has no
    // value, which is in no list: so, as in Falco, it tells of every container.
    "Launch Sensitive Mount Container",
];

/// A Docker, as far as the sensor asks one.
#[derive(Clone)]
struct Docker {
    /// Names of containers, by id.
    known: Arc<Mutex<BTreeMap<String, String>>>,
    /// Lines of the stream of events.
    events: broadcast::Sender<String>,
}

impl Docker {
    /// Listens at a socket until the test program ends.
    fn start(socket: &Path) -> Self {
        let docker = Self { known: Arc::default(), events: broadcast::channel(4096).0 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(async { UnixListener::bind(socket) }).expect("a socket in a temporary folder");
        let version = || async { Json(json!({ "Version": "28.0.0" })) };
        let list = |State(docker): State<Self>| async move {
            let known = docker.known();
            Json(known.keys().map(|id| json!({ "Id": id })).collect::<Vec<_>>())
        };
        let inspect = |State(docker): State<Self>, UrlPath(id): UrlPath<String>| async move {
            tokio::time::sleep(ANSWER).await;
            let known = docker.known();
            known.get(&id).map(|name| Json(Self::inspect(&id, name))).ok_or(StatusCode::NOT_FOUND)
        };
        let events = |State(docker): State<Self>| async move {
            let lines = BroadcastStream::new(docker.events.subscribe());
            Body::from_stream(lines.map(|line| line.map(Bytes::from)))
        };
        let router = Router::new()
            .route("/version", get(version))
            .route("/containers/json", get(list))
            .route("/containers/{id}/json", get(inspect))
            .route("/events", get(events))
            .with_state(docker.clone());
        thread::spawn(move || runtime.block_on(async { axum::serve(listener, router).await }));
        docker
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `docker inspect` shows.
    fn inspect(id: &str, name: &str) -> Value {
        json!({
            "Id": id, "Name": format!("/{name}"), "Config": { "Image": format!("{}:{}", IMAGE.0, IMAGE.1), "Labels": {} },
            "HostConfig": { "Privileged": false, "PidMode": "", "NetworkMode": "host", "IpcMode": "private" },
            "Mounts": [{ "Type": "volume", "Source": "/srv/volumes/data", "Destination": "/data", "Mode": "", "RW": true }],
        })
    }

    fn tell(&self, action: &str, id: &str) {
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": id } });
        // Nobody may be listening.
        let _ = self.events.send(format!("{event}\n"));
    }

    fn create(&self, id: &str, name: &str, announced: bool) {
        self.known().insert(id.to_owned(), name.to_owned());
        if announced {
            self.tell("create", id);
        }
    }

    fn destroy(&self, id: &str) {
        self.known().remove(id);
        self.tell("destroy", id);
    }
}

/// What the sensor has in memory.
#[derive(Debug, Clone, Copy)]
struct Tables {
    processes: u64,
    cgroups: u64,
    containers: u64,
    waiting: u64,
}

impl Tables {
    fn look(address: SocketAddr) -> Self {
        let metrics = health::get(address, "/metrics");
        let value = |name: &str| {
            health::value(&metrics, &format!("gyrfalcon_sensor_{name}"))
                .unwrap_or_else(|| panic!("no {name}: {metrics}"))
        };
        Self {
            processes: value("processes"),
            cgroups: value("cgroups"),
            containers: value("containers"),
            waiting: value("held_records") + value("held_bytes") + value("questions"),
        }
    }

    /// Whether nothing is left of the crowd, though others on this machine come and go as well.
    fn is_back_at(self, before: Self) -> bool {
        self.processes <= before.processes + 64
            && self.cgroups <= before.cgroups + 8
            && self.containers <= before.containers
            && self.waiting == 0
    }
}

fn crowd() {
    let place = harness::folder();
    let socket = place.path().join("docker.sock");
    let docker = Docker::start(&socket);
    let rules = folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").expect("a need of the case");
    let mut files: Vec<_> = RULESETS.iter().map(|file| rules.join(file)).filter(|file| file.is_file()).collect();
    files.push(harness::write(place.path(), "rule.yaml", RULE));
    let files: Vec<_> = files.iter().map(std::path::PathBuf::as_path).collect();
    let address = health::free_address();
    let (socket, listen) = (format!("unix://{}", socket.display()), address.to_string());
    let options = ["--rule-matching", "all", "--cri", &socket, "--health-listen", &listen];
    let sensor = Sensor::start(&files, &options);
    sensor.expect_log("the runtime is found", |line| line.contains("container runtime found"));
    let room = Room::new();
    sensor.fence();
    let before = Tables::look(address);

    let count = containers();
    let began = Instant::now();
    let run = |number: usize| -> (String, String) {
        let name = format!("worker-{number}");
        let announced = number.is_multiple_of(2);
        let starts = |id: &str| docker.create(id, &name, announced);
        let id = room.shell_contained(SCRIPT, &format!("crowd{number}"), starts).expect("a container");
        if announced {
            docker.destroy(&id);
        }
        (id[..12].to_owned(), name)
    };
    let mut names: BTreeMap<String, String> = (0..count / 2).map(run).collect();
    let alone = began.elapsed();
    let next = AtomicUsize::new(count / 2);
    let numbers = || std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(|| numbers().map(run).collect::<Vec<_>>())).collect();
        workers.into_iter().for_each(|worker| names.extend(worker.join().expect("a worker")));
    });
    let together = began.elapsed() - alone;
    sensor.fence();

    let after = Tables::look(address);
    // Those that were not announced stay until the sensor has the answers that it waits for.
    let until = Instant::now() + harness::LONG;
    while Tables::look(address).waiting > 0 {
        assert!(Instant::now() < until, "events are held long after the last container");
        sensor.fence();
    }
    let left: Vec<_> = docker.known().keys().cloned().collect();
    left.iter().for_each(|id| docker.destroy(id));
    let ended = Instant::now();
    let mut now = after;
    while !now.is_back_at(before) {
        assert!(ended.elapsed() < harness::LONG, "{before:?} before, {now:?} long after");
        // Time goes on for the sensor with events.
        sensor.fence();
        now = Tables::look(address);
    }
    let back = ended.elapsed();
    let summary = sensor.stop();

    let mut events = 0;
    let mut without = Vec::new();
    let mut ran: BTreeSet<(String, String)> = BTreeSet::new();
    let mut unjustified = Vec::new();
    for alert in &summary.alerts {
        let Some((id, name)) = alert.field("container.id").and_then(|id| names.get_key_value(&id)) else { continue };
        let facts =
            [("container.name", &**name), ("container.image.repository", IMAGE.0), ("container.image.tag", IMAGE.1)];
        if alert.rule() == "event of a container" {
            events += 1;
            let has = facts.iter().all(|(field, want)| alert.has(field, want));
            if !has {
                without.push(format!("{name}: {}", alert.text("output")));
            }
            ran.extend(alert.field("proc.name").map(|program| (id.clone(), program)));
        } else if !JUSTIFIED.contains(&alert.rule()) {
            unjustified.push(format!("{}: {}", alert.rule(), alert.text("output")));
        }
    }
    eprintln!(
        "{count} containers, half of them in {alone:.1?} one after the other, half in {together:.1?} {AT_A_TIME} at a time: \
         {events} events, {} without facts; {before:?} before, {after:?} at the end, {now:?} {back:.1?} later",
        without.len()
    );
    summary.log.iter().filter(|line| line.contains("cause=")).for_each(|line| eprintln!("{line}"));
    assert_eq!(summary.code, Some(0));
    assert!(unjustified.is_empty(), "{unjustified:#?}");
    assert_eq!(names.len(), count, "each container has an id of its own");
    let missing: Vec<_> = names
        .keys()
        .flat_map(|id| PROGRAMS.map(|program| (id.clone(), program.to_owned())))
        .filter(|one| !ran.contains(one))
        .collect();
    assert!(missing.is_empty() || summary.count("lost") > 0, "programs that were not seen: {missing:?}");
    assert!(events > 10 * count, "{events} events of {count} containers");
    let allowed = events / 1000;
    assert!(
        without.len() <= allowed,
        "{} of {events} events have no facts, such as {:#?}",
        without.len(),
        without.first()
    );
}
