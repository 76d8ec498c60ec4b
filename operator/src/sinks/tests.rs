//! Sinks against receivers on the loopback interface: away, hanging, unwilling.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use api::Kind;
use futures::{FutureExt as _, future::BoxFuture};
use rules::alert::{Alert, Priority};

use super::{secrets::Fetched, *};
use crate::outbox::{Options, TestOutcome};

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(60);

/// Secrets that a test can change.
#[derive(Default)]
struct Vault(Mutex<HashMap<String, Fetched>>);

impl Vault {
    fn put(&self, name: &str, key: &str, value: &str) {
        let values = [(key.to_owned(), value.as_bytes().to_vec())].into();
        self.0.lock().expect("not poisoned").insert(name.into(), Fetched::Found(values));
    }

    fn set(&self, name: &str, fetched: Fetched) {
        self.0.lock().expect("not poisoned").insert(name.into(), fetched);
    }
}

impl SecretSource for Vault {
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Fetched> {
        let known = self.0.lock().expect("not poisoned").get(&format!("{namespace}/{name}")).cloned();
        async { known.unwrap_or(Fetched::NotFound) }.boxed()
    }

    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Fetched> {
        self.secret(namespace, name)
    }
}

/// A receiver of HTTP requests: the rule, the authorization, the number of the alert.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(u16, String)>>>,
}

/// What a receiver answers to a request's authorization.
type Answer = dyn Fn(&str) -> Option<u16> + Send + Sync;

impl Receiver {
    /// Answers with a status, or not at all.
    fn start(answer: impl Fn(&str) -> Option<u16> + Send + Sync + 'static) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").expect("a port"), Arc::new(answer))
    }

    fn listen(listener: TcpListener, answer: Arc<Answer>) -> Self {
        let this = Self { address: listener.local_addr().expect("an address"), seen: Arc::default() };
        let serve = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serve, answer) = (serve.clone(), Arc::clone(&answer));
                std::thread::spawn(move || serve.serve(stream, &*answer));
            }
        });
        this
    }

    fn ok() -> Self {
        Self::start(|_| Some(200))
    }

    fn serve(&self, stream: impl Read + Write, answer: &Answer) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut length, mut authorization) = (0, String::new());
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let line = line.trim_end();
                match line.split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                        length = value.parse().ok()?
                    }
                    Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value.into(),
                    _ if line.is_empty() => break,
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).ok()?;
            let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let rule = body["rule"].as_str().or_else(|| body["text"].as_str()).unwrap_or_default();
            let status = answer(&authorization);
            self.seen.lock().expect("not poisoned").push((status.unwrap_or_default(), rule.to_owned()));
            // Without an answer, the client gives up at some time.
            let Some(status) = status else { continue };
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
            stream.get_mut().write_all(text.as_bytes()).ok()?;
        }
    }

    /// What was taken.
    fn taken(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("not poisoned");
        seen.iter().filter(|(status, _)| *status == 200).map(|(_, rule)| rule.clone()).collect()
    }

    async fn wait(&self, alerts: usize) -> Vec<String> {
        until(|| self.taken().len() >= alerts, || format!("only {:?}", self.taken())).await;
        self.taken()
    }

    fn webhook(&self, more: &str) -> String {
        format!("webhook: {{url: 'http://{}/hook'}}, {FAST}{more}", self.address)
    }
}

const FAST: &str = "retry: {initialBackoff: 1ms, maxBackoff: 20ms}";

async fn until(condition: impl Fn() -> bool, state: impl Fn() -> String) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "{}", state());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn cluster(name: &str) -> ResourceId {
    ResourceId { kind: Kind::ClusterAlertSink, namespace: "".into(), name: name.into() }
}

fn namespaced(namespace: &str, name: &str) -> ResourceId {
    ResourceId { kind: Kind::AlertSink, namespace: namespace.into(), name: name.into() }
}

fn observed(id: ResourceId, spec: &str) -> Observed {
    let namespace = if id.kind.namespaced() { format!(", namespace: {}", id.namespace) } else { String::new() };
    let manifest = format!(
        "apiVersion: gyrfalcon.dev/v1alpha1\nkind: {}\nmetadata: {{name: {}{namespace}}}\nspec: {{{spec}}}\n",
        id.kind, id.name
    );
    let file = api::manifest::read(&manifest);
    assert_eq!(file.problems, []);
    let api::Spec::Sink(spec) = file.manifests[0].resource.spec() else { panic!("not a sink") };
    Observed {
        uid: format!("uid of {id}").into(),
        created: 0,
        id,
        generation: 1,
        spec: spec.clone(),
        test: None,
        status: None,
        refused: None,
    }
}

fn alert(rule: &str, seq: u64, namespace: Option<&str>) -> Envelope {
    let alert = Alert {
        hostname: "node-1".into(),
        time_ns: 1_700_000_000_000_000_000,
        rule: rule.into(),
        priority: Priority::Notice,
        source: "syscall".into(),
        tags: [].into(),
        message: "something happened".into(),
        // What the text says about namespaces is not asked.
        output_fields: vec![("k8s.ns.name".into(), "shop".into())],
    };
    Envelope { spool: "s".into(), seq, alert, namespace: namespace.map(Into::into) }
}

async fn start(folder: &Path, vault: &Arc<Vault>, allow_local: bool) -> SinkSet {
    let options = Options { folder: folder.into(), durable: true, max_bytes: Options::MAX_BYTES };
    let deadline = Instant::now() + LONG;
    let outbox = loop {
        // A thread of the set before may not have ended yet.
        match Outbox::open(&options) {
            Ok(outbox) => break outbox,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let source = Arc::clone(vault) as Arc<dyn SecretSource>;
    SinkSet::new(outbox, source, Settings { namespace: "gyrfalcon".into(), allow_local })
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn view(sinks: &SinkSet, id: &ResourceId, condition: impl Fn(&SinkStatusView) -> bool) -> SinkStatusView {
    let now = || sinks.view(id).expect("a sink");
    until(|| condition(&now()), || format!("still {:?}", now())).await;
    now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sink_gets_what_it_asks_for_and_a_namespace_only_its_own() {
    let (folder, vault) = (folder(), Arc::default());
    let (all, own, picky) = (Receiver::ok(), Receiver::ok(), Receiver::ok());
    let sinks = start(folder.path(), &vault, true).await;
    let (own_id, picky_id) = (namespaced("shop", "own"), cluster("picky"));
    let wanted = vec![
        observed(cluster("all"), &all.webhook("")),
        observed(own_id.clone(), &own.webhook("")),
        observed(picky_id.clone(), &picky.webhook(", match: {rules: ['Read *'], namespaces: ['team-*']}")),
    ];
    sinks.apply(wanted, true).await.expect("applied");
    let alerts = vec![
        alert("Read a", 1, Some("shop")),
        alert("Read b", 2, Some("team-a")),
        alert("Write c", 3, Some("team-a")),
        alert("Read d", 4, None),
    ];
    sinks.publish(alerts).await.expect("published");
    assert_eq!(all.wait(4).await, ["Read a", "Read b", "Write c", "Read d"]);
    view(&sinks, &own_id, |view| view.counters.sent == 1).await;
    let picked = view(&sinks, &picky_id, |view| view.counters.sent == 1).await;
    assert_eq!((own.taken(), picky.taken()), (vec!["Read a".into()], vec!["Read b".into()]));
    assert_eq!((picked.counters.filtered, picked.flow), (3, Flow::Delivered));
    assert_eq!(sinks.view(&own_id).expect("a sink").counters.filtered, 0);
    view(&sinks, &cluster("all"), |view| view.counters.sent == 4).await;
    assert_eq!(sinks.outbox().bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_gets_everything_later_through_restarts() {
    let (folder, vault) = (folder(), Arc::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let spec = format!("webhook: {{url: 'http://{address}/hook'}}, {FAST}");
    let id = cluster("away");
    let mut seq = 0;
    for _ in 0..3 {
        let sinks = start(folder.path(), &vault, true).await;
        sinks.apply(vec![observed(id.clone(), &spec)], true).await.expect("applied");
        let batch = (0..10).map(|at| alert(&(seq + at).to_string(), seq + at + 1, None)).collect();
        sinks.publish(batch).await.expect("published");
        seq += 10;
        // More attempts than a sensor would make.
        let view = view(&sinks, &id, |view| view.counters.retried > 10 && view.flow != Flow::Idle).await;
        assert!(matches!(view.flow, Flow::Failing { reason: Reason::Unreachable, .. }), "{view:?}");
        assert_eq!((view.depth, view.counters.failed), (seq, 0));
    }
    let back = Receiver::listen(TcpListener::bind(address).expect("the port"), Arc::new(|_: &str| Some(200)));
    let sinks = start(folder.path(), &vault, true).await;
    sinks.apply(vec![observed(id.clone(), &spec)], true).await.expect("applied");
    let mut seen = HashSet::new();
    let taken: Vec<_> = back.wait(30).await.into_iter().filter(|rule| seen.insert(rule.clone())).collect();
    assert_eq!(taken, (0..30).map(|at| at.to_string()).collect::<Vec<_>>());
    view(&sinks, &id, |view| view.counters.sent == 30 && view.depth == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_shows_and_the_right_one_delivers() {
    let (folder, vault) = (folder(), Arc::new(Vault::default()));
    let receiver = Receiver::start(|authorization| Some(if authorization == "Bearer right" { 200 } else { 401 }));
    let id = cluster("hook");
    let auth = "auth: {bearerRef: {name: token, key: value}}";
    let spec = format!("webhook: {{url: 'http://{}/hook', {auth}}}, {FAST}", receiver.address);
    let sinks = start(folder.path(), &vault, true).await;
    sinks.apply(vec![observed(id.clone(), &spec)], true).await.expect("applied");
    sinks.publish(vec![alert("a", 1, None)]).await.expect("published");
    let missing = sinks.view(&id).expect("a sink").problem.expect("a problem");
    assert_eq!(missing.reason, Reason::SecretNotFound);
    assert!(missing.message.contains("`token` in namespace `gyrfalcon` does not exist"), "{}", missing.message);

    vault.set("gyrfalcon/token", Fetched::Forbidden);
    until(
        || sinks.view(&id).expect("a sink").problem.is_some_and(|problem| problem.reason == Reason::SourceError),
        || "the Secret was not read again".into(),
    )
    .await;
    vault.put("gyrfalcon/token", "value", "wrong\n");
    let wrong = view(&sinks, &id, |view| matches!(view.flow, Flow::Failing { reason: Reason::AuthFailed, .. })).await;
    let failure = wrong.last_failure.expect("a failure");
    assert_eq!(failure.code, Some(401));
    assert!(!failure.message.contains("wrong") && failure.message.contains("Secret"), "{}", failure.message);

    vault.put("gyrfalcon/token", "value", "right\n");
    assert_eq!(receiver.wait(1).await, ["a"]);
    view(&sinks, &id, |view| view.flow == Flow::Delivered && view.counters.sent == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_is_sent_once_to_one_sink_through_restarts() {
    let (folder, vault) = (folder(), Arc::default());
    let (tested, other) = (Receiver::ok(), Receiver::ok());
    let id = cluster("tested");
    let mut asked = observed(id.clone(), &tested.webhook(""));
    asked.test = Some("1".into());
    let bystander = observed(cluster("other"), &other.webhook(""));
    for _ in 0..2 {
        let sinks = start(folder.path(), &vault, true).await;
        for _ in 0..2 {
            sinks.apply(vec![asked.clone(), bystander.clone()], true).await.expect("applied");
            let view =
                view(&sinks, &id, |view| view.test.as_ref().is_some_and(|test| test.outcome == TestOutcome::Delivered));
            assert_eq!(view.await.test.expect("a test").nonce, "1");
        }
    }
    let sinks = start(folder.path(), &vault, true).await;
    // A replica that does not lead sends no test.
    asked.test = Some("2".into());
    sinks.apply(vec![asked.clone(), bystander.clone()], false).await.expect("applied");
    assert!(sinks.view(&id).and_then(|view| view.test).is_some_and(|test| test.nonce == "1"));
    // Until it does.
    sinks.apply(vec![asked, bystander], true).await.expect("applied");
    view(&sinks, &id, |view| view.test.as_ref().is_some_and(|test| test.nonce == "2")).await;
    assert_eq!(tested.wait(2).await, ["Test of an alert sink", "Test of an alert sink"]);
    assert_eq!(other.taken(), Vec::<String>::new());
    let counters = sinks.view(&id).expect("a sink").counters;
    assert_eq!(counters, Counters::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_stops_only_itself() {
    let (folder, vault) = (folder(), Arc::default());
    let (hanging, working) = (Receiver::start(|_| None), Receiver::ok());
    let sinks = start(folder.path(), &vault, true).await;
    let slow = cluster("hanging");
    let wanted = vec![
        observed(slow.clone(), &hanging.webhook(", timeout: 10m, queue: {memory: 20, overflow: DropNewest}")),
        observed(cluster("working"), &working.webhook("")),
    ];
    sinks.apply(wanted, true).await.expect("applied");
    let batch = (1..=100).map(|seq| alert(&seq.to_string(), seq, None)).collect();
    sinks.publish(batch).await.expect("published");
    assert_eq!(working.wait(100).await.len(), 100);
    let view = sinks.view(&slow).expect("a sink");
    assert_eq!((view.depth, view.counters.dropped), (20, 80));
    assert!(view.oldest_ms.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_cannot_send_to_the_host_of_the_operator() {
    let (folder, vault) = (folder(), Arc::new(Vault::default()));
    let receiver = Receiver::ok();
    let port = receiver.address.port();
    vault.put("shop/url", "url", &format!("http://localhost:{port}/hook"));
    let sinks = start(folder.path(), &vault, false).await;
    let ids = [namespaced("shop", "address"), namespaced("shop", "name"), namespaced("shop", "chat")];
    let wanted = vec![
        observed(ids[0].clone(), &receiver.webhook("")),
        observed(ids[1].clone(), &format!("webhook: {{url: 'http://localhost:{port}/hook'}}, {FAST}")),
        observed(ids[2].clone(), &format!("slack: {{urlRef: {{name: url, key: url}}}}, {FAST}")),
        observed(cluster("allowed"), &receiver.webhook("")),
    ];
    sinks.apply(wanted, true).await.expect("applied");
    sinks.publish(vec![alert("a", 1, Some("shop"))]).await.expect("published");
    for id in &ids {
        let refused = view(&sinks, id, |view| view.flow != Flow::Idle).await;
        let Flow::Failing { reason, message } = refused.flow else { panic!("{id} delivers") };
        assert_eq!(reason, Reason::Refused, "{message}");
        assert!(message.contains("loopback") && message.contains("--allow-local-sinks"), "{message}");
    }
    assert_eq!(receiver.wait(1).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cluster_has_no_place_for_is_stalled() {
    let (folder, vault) = (folder(), Arc::default());
    let sinks = start(folder.path(), &vault, true).await;
    let id = cluster("file");
    sinks.apply(vec![observed(id.clone(), "file: {path: /var/log/alerts}")], true).await.expect("applied");
    sinks.publish(vec![alert("a", 1, None)]).await.expect("published");
    let view = sinks.view(&id).expect("a sink");
    let problem = view.problem.expect("a problem");
    assert_eq!((problem.reason, problem.stalled, view.depth), (Reason::Unsupported, true, 0));
    assert!(problem.message.contains("use stdout"), "{}", problem.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_sink_keeps_nothing_and_sends_what_waited_later() {
    let (folder, vault) = (folder(), Arc::default());
    let up = Arc::new(AtomicU64::new(503));
    let status = Arc::clone(&up);
    let receiver = Receiver::start(move |_| u16::try_from(status.load(SeqCst)).ok());
    let sinks = start(folder.path(), &vault, true).await;
    let id = cluster("hook");
    let mut sink = observed(id.clone(), &receiver.webhook(""));
    sinks.apply(vec![sink.clone()], true).await.expect("applied");
    sinks.publish(vec![alert("before", 1, None)]).await.expect("published");
    view(&sinks, &id, |view| view.counters.retried > 0).await;
    sink.spec.suspend = Some(true);
    sink.generation = 2;
    sinks.apply(vec![sink.clone()], true).await.expect("applied");
    sinks.publish(vec![alert("meanwhile", 2, None)]).await.expect("published");
    assert_eq!(sinks.view(&id).map(|view| (view.generation, view.depth, view.suspended)), Some((2, 1, true)));
    up.store(200, SeqCst);
    sink.spec.suspend = None;
    sinks.apply(vec![sink], true).await.expect("applied");
    sinks.publish(vec![alert("after", 3, None)]).await.expect("published");
    assert_eq!(receiver.wait(2).await, ["before", "after"]);
}
