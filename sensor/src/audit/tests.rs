//! The receiver from outside: requests over TLS, files that grow.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool, mpsc::Receiver},
    time::{Duration, Instant},
};

use event::{
    audit::{AuditEvent, Surroundings, json::Limits},
    fields::EventSource,
};
use rules::{
    alert::Alert,
    load::{Loader, Options},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::TlsConnector;

use super::{
    certificates,
    file::{Mode, Reader},
    judge::{self, Publish},
    metrics::Counters,
    queue::{Queue, Work},
    server::{Files, Intake, serve},
};
use crate::active::Active;

const RULES: &str = "
- rule: secret read
  desc: d
  condition: ka.verb = get and ka.target.resource = secrets
  output: '%ka.user.name read %ka.target.name'
  priority: WARNING
  source: k8s_audit
- rule: privileged
  desc: d
  condition: ka.target.resource = pods and ka.verb = create and ka.req.pod.containers.privileged intersects (true)
  output: '%ka.resp.name'
  priority: WARNING
  source: k8s_audit
";

struct ToChannel(UnboundedSender<String>);

impl Publish for ToChannel {
    fn publish(&self, alert: Arc<Alert>, _: &Arc<Active>, _: usize, _: &AuditEvent<'_>) {
        let _ = self.0.send(alert.message.to_string());
    }
}

fn active() -> Arc<Active> {
    let options = Options { sources: vec![EventSource::K8sAudit], ..Options::default() };
    let mut loader = Loader::new(options);
    loader.add("r.yaml", RULES.as_bytes());
    Arc::new(Active::new(loader.finish().ruleset.expect("good rules"), Vec::new(), |_| None))
}

fn judge(work: Receiver<Work>, counters: &Arc<Counters>) -> UnboundedReceiver<String> {
    let (sender, alerts) = unbounded_channel();
    judge::start(judge::Parts {
        work,
        publish: Box::new(ToChannel(sender)),
        counters: Arc::clone(counters),
        surroundings: Surroundings::default(),
        limits: Limits { bytes: 4096, ..Limits::default() },
        active: active(),
    })
    .expect("a thread");
    alerts
}

fn secret(user: &str) -> String {
    format!(
        r#"{{"kind":"Event","level":"Metadata","auditID":"1","stage":"ResponseComplete","verb":"get","user":{{"username":"{user}"}},"objectRef":{{"resource":"secrets","name":"s","namespace":"d"}}}}"#
    )
}

fn loss(counters: &Counters, cause: &str) -> u64 {
    counters.losses().find(|(known, _)| *known == cause).map_or(0, |(_, count)| count)
}

/// A receiver on some port, and what clients need.
struct Webhook {
    address: std::net::SocketAddr,
    folder: PathBuf,
    counters: Arc<Counters>,
    queue: Queue,
    _temporary: tempfile::TempDir,
}

fn certificates_in(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for (name, text) in certificates::files(&["localhost".to_owned()]).expect("certificates") {
        fs::write(folder.join(name), text).expect("a file");
    }
}

async fn webhook(queue_bytes: usize, max_body: usize) -> (Webhook, Receiver<Work>) {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = temporary.path().to_owned();
    certificates_in(&folder);
    let counters = Arc::new(Counters::default());
    let (queue, work) = Queue::new(queue_bytes, Arc::clone(&counters));
    let files =
        Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key"), client_ca: folder.join("ca.crt") };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let intake = Intake { queue: queue.clone(), counters: Arc::clone(&counters), max_body };
    tokio::spawn(async move { serve(listener, files, intake).await.expect("good certificates") });
    (Webhook { address, folder, counters, queue, _temporary: temporary }, work)
}

impl Webhook {
    /// Sends a request; `identity` is a folder with a client certificate, or there is none.
    async fn ask(&self, request: &[u8], identity: Option<&Path>) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.folder.join("ca.crt")).expect("a certificate");
        roots.add(ca).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_root_certificates(roots);
        let config = match identity {
            Some(folder) => {
                let chain = vec![CertificateDer::from_pem_file(folder.join("client.crt")).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_file(folder.join("client.key")).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("an identity")
            }
            None => builder.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        // The other side may leave without saying so.
        match stream.read_to_end(&mut answer).await {
            Ok(_) => {}
            Err(_) if !answer.is_empty() => {}
            Err(error) => return Err(error),
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn post(&self, body: &str) -> String {
        self.ask(&request(body), Some(&self.folder)).await.expect("an answer")
    }
}

fn request(body: &str) -> Vec<u8> {
    format!(
        "POST /k8s-audit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn events_in_every_form_become_alerts() {
    let (webhook, work) = webhook(1 << 20, 1 << 20).await;
    let mut alerts = judge(work, &webhook.counters);
    for body in [
        secret("alice"),
        format!("[{},{}]", secret("bob"), secret("carol")),
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}"#, secret("dave")),
    ] {
        let answer = webhook.post(&body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for user in ["alice", "bob", "carol", "dave"] {
        assert_eq!(alerts.recv().await, Some(format!("{user} read s")));
    }
    assert_eq!(webhook.counters.requests.get(), 3);
    assert_eq!(webhook.counters.queued.get(), 0);
}

#[tokio::test]
async fn forged_clients_are_refused() {
    let (webhook, _work) = webhook(1 << 20, 1 << 20).await;
    let stranger = tempfile::tempdir().expect("a folder");
    certificates_in(stranger.path());
    for identity in [None, Some(stranger.path())] {
        let answer = webhook.ask(&request(&secret("mallory")), identity).await;
        assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
    }
    let mut plain = TcpStream::connect(webhook.address).await.expect("a connection");
    plain.write_all(&request(&secret("mallory"))).await.expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    assert_eq!(webhook.counters.requests.get(), 0);
}

#[tokio::test]
async fn a_full_queue_asks_to_come_again_and_loses_nothing() {
    // Room for one request; nobody judges yet.
    let (webhook, work) = webhook(1024, 1 << 20).await;
    assert!(webhook.post(&secret("alice")).await.starts_with("HTTP/1.1 200"));
    // More than sockets hold: who is still sending must hear the answer, too.
    let answer = webhook.post(&(secret("bob") + &" ".repeat(1_000_000))).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("retry-after: 1"), "{answer}");
    assert_eq!(webhook.counters.refused.get(), 1);
    let mut alerts = judge(work, &webhook.counters);
    assert_eq!(alerts.recv().await, Some("alice read s".to_owned()));
    while webhook.counters.queued.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(webhook.post(&secret("bob")).await.starts_with("HTTP/1.1 200"));
    assert_eq!(alerts.recv().await, Some("bob read s".to_owned()));
}

#[tokio::test]
async fn what_is_no_event_is_answered_and_counted() {
    let (webhook, work) = webhook(1 << 20, 20_000).await;
    let mut alerts = judge(work, &webhook.counters);
    let deep = format!("{}{}", "[".repeat(8000), "]".repeat(8000));
    for (body, answer, cause) in [
        ("{".to_owned(), "400", "body_malformed"),
        ("\u{0}\u{1}".to_owned(), "400", "body_malformed"),
        ("[".repeat(10_000), "400", "body_malformed"),
        ("x".repeat(20_001), "413", "body_too_large"),
        (format!(r#"[{{"auditID":"x","a":"{}"}}]"#, "x".repeat(5000)), "200", "event_too_large"),
        (r#"[{"a":1}]"#.to_owned(), "200", "not_an_event"),
        ("[1]".to_owned(), "200", "not_an_event"),
        (format!(r#"[{{"auditID":"x","a":{}}}]"#, &deep[7000..9000]), "200", "event_cut"),
    ] {
        let before = loss(&webhook.counters, cause);
        let said = webhook.post(&body).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {answer}")), "{cause}: {said}");
        assert!(webhook.queue.reached());
        assert_eq!(loss(&webhook.counters, cause), before + 1, "{cause}");
    }
    let get = b"GET /k8s-audit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let said = webhook.ask(get, Some(&webhook.folder)).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 405"), "{said}");
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        secret("alice").len(),
        secret("alice")
    );
    let said = webhook.ask(chunked.as_bytes(), Some(&webhook.folder)).await.expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(alerts.recv().await, Some("alice read s".to_owned()));
}

#[tokio::test]
async fn a_rule_that_cannot_see_is_named_and_counted() {
    let (webhook, work) = webhook(1 << 20, 1 << 20).await;
    let _alerts = judge(work, &webhook.counters);
    let pod = |level: &str, verb: &str| {
        format!(
            r#"{{"auditID":"1","level":"{level}","stage":"ResponseComplete","verb":"{verb}","objectRef":{{"resource":"pods"}}}}"#
        )
    };
    for event in
        [pod("Metadata", "create"), pod("Metadata", "create"), pod("Metadata", "get"), pod("Request", "create")]
    {
        webhook.post(&event).await;
    }
    assert!(webhook.queue.reached());
    assert_eq!(webhook.counters.blind("privileged"), 3, "two events, and this one");
    assert_eq!(webhook.counters.blind("secret read"), 1);
}

/// Reads a file on a thread; gives what it becomes.
struct Following {
    path: PathBuf,
    alerts: UnboundedReceiver<String>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
    _runtime: tokio::runtime::Runtime,
    _temporary: tempfile::TempDir,
}

fn follow(content: &str, mode: Mode) -> Following {
    let temporary = tempfile::tempdir().expect("a folder");
    let path = temporary.path().join("audit.log");
    fs::write(&path, content).expect("a file");
    let counters = Arc::new(Counters::default());
    let (queue, work) = Queue::new(1 << 20, Arc::clone(&counters));
    let alerts = judge(work, &counters);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let stop = Arc::new(AtomicBool::new(false));
    let handle = runtime.handle().clone();
    let reader = Reader::new(&path, queue, Arc::clone(&counters), handle, Arc::clone(&stop), 4096);
    let thread = std::thread::spawn(move || reader.run(mode));
    Following { path, alerts, counters, stop, thread, _runtime: runtime, _temporary: temporary }
}

impl Following {
    #[track_caller]
    fn expect(&mut self, user: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.alerts.try_recv() {
                Ok(alert) => return assert_eq!(alert, format!("{user} read s")),
                Err(_) if Instant::now() < until => std::thread::yield_now(),
                Err(_) => panic!("no alert about {user}"),
            }
        }
    }

    fn append(&self, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(&self.path).expect("the file");
        file.write_all(text.as_bytes()).expect("written");
    }
}

#[test]
fn a_file_is_read_to_its_end() {
    let long = format!("{{\"auditID\":\"{}\"}}\n", "x".repeat(2 << 20));
    let content = format!("{}\n\n  \n{long}nonsense\n{}", secret("alice"), secret("bob"));
    let mut following = follow(&content, Mode::Once);
    following.expect("alice");
    following.expect("bob");
    following.thread.join().expect("no panic").expect("read");
    assert_eq!(loss(&following.counters, "event_too_large"), 1);
    assert_eq!(loss(&following.counters, "event_malformed"), 1);
    assert_eq!(following.counters.events.get(), 2);
}

#[test]
fn a_file_is_followed_through_halves_of_lines_rotation_and_truncation() {
    let mut following = follow(&format!("{}\n", secret("alice")), Mode::FollowFromStart);
    following.expect("alice");
    let bob = secret("bob");
    following.append(&bob[..40]);
    following.append(&format!("{}\n{}\n", &bob[40..], secret("carol")));
    following.expect("bob");
    following.expect("carol");
    // As log rotation does it: away with the old one, then a new one.
    fs::rename(&following.path, following.path.with_extension("1")).expect("renamed");
    fs::write(&following.path, format!("{}\n", secret("dave"))).expect("a new file");
    following.expect("dave");
    following.append(&format!("{}\n", secret("erin")));
    following.expect("erin");
    fs::write(&following.path, format!("{}\n", secret("f"))).expect("cut and written anew");
    following.expect("f");
    assert_eq!(loss(&following.counters, "file_truncated"), 1);
    following.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    following.thread.join().expect("no panic").expect("read");
}
