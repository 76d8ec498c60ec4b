//! A sensor that only speaks the protocol: it runs no rules, and its spool is in memory. What it sends is decided by
//! whoever holds it.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bundle::NodeFacts;
use hyper_util::rt::TokioIo;
use link::proto::{self, FromSensor, ToSensor, from_sensor, link_client::LinkClient, to_sensor};
use prost::Message as _;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    transport::{Channel, Endpoint},
};

use super::OPERATOR;

/// Most alerts in one message, as the agent has it.
const BATCH: usize = 256;
/// How often a silent connection is probed, as the agent does it.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How the operator is reached and recognised.
#[derive(Clone)]
pub struct Dial {
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    tls: Arc<ClientConfig>,
}

impl Dial {
    /// Trusts these certificates only.
    pub fn new(address: SocketAddr, ca: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        // Sensors on different nodes share no TLS sessions.
        tls.resumption = Resumption::disabled();
        Ok(Self { addresses: Arc::new(Mutex::new(vec![address])), tls: Arc::new(tls) })
    }

    /// Uses these addresses from now on, for the clones as well.
    pub fn use_only(&self, addresses: &[SocketAddr]) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
    }

    fn any(&self) -> io::Result<SocketAddr> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        fastrand::choice(&*addresses).copied().ok_or_else(|| io::Error::other("no address"))
    }

    /// A connection without a session.
    pub async fn channel(&self) -> Result<Channel> {
        let dial = self.clone();
        let connector = tower::service_fn(move |_: axum::http::Uri| {
            let dial = dial.clone();
            async move {
                let tcp = TcpStream::connect(dial.any()?).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from(OPERATOR).map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(TlsConnector::from(dial.tls).connect(name, tcp).await?))
            }
        });
        let endpoint = Endpoint::from_shared(format!("https://{OPERATOR}"))?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        Ok(tokio::time::timeout(KEEPALIVE, endpoint.connect_with_connector(connector)).await??)
    }

    /// Opens a session and says this first. The rest is left to the caller.
    pub async fn open(&self, token: Option<&str>, hello: proto::Hello) -> Result<Session> {
        let channel = self.channel().await?;
        let (sender, queue) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(queue));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        sender.send(FromSensor { message: Some(from_sensor::Message::Hello(hello)) }).await?;
        let mut client = LinkClient::new(channel)
            .max_decoding_message_size(link::MESSAGE_BYTES)
            .max_encoding_message_size(link::MESSAGE_BYTES);
        let mut incoming = client.session(request).await?.into_inner();
        let first = incoming.message().await?.and_then(|first| first.message);
        let Some(to_sensor::Message::Welcome(welcome)) = first else { bail!("no welcome but {first:?}") };
        Ok(Session { sender, incoming, welcome })
    }
}

/// An open session.
pub struct Session {
    /// To the operator.
    pub sender: mpsc::Sender<FromSensor>,
    /// From the operator.
    pub incoming: Streaming<ToSensor>,
    /// What the operator said first.
    pub welcome: proto::Welcome,
}

impl Session {
    /// Says something.
    pub async fn say(&self, message: from_sensor::Message) -> Result<()> {
        Ok(self.sender.send(FromSensor { message: Some(message) }).await?)
    }
}

/// What a sensor says of itself.
pub fn hello(node: &str, spool: &str) -> proto::Hello {
    proto::Hello {
        protocol: link::PROTOCOL,
        node: node.to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.18.0".to_owned(),
        architecture: "x86_64".to_owned(),
        boot_id: "6f1ab2c0".to_owned(),
        spool: spool.to_owned(),
        driver: "simulated".to_owned(),
        ..proto::Hello::default()
    }
}

/// A unit of a bundle, as far as a sensor that runs nothing needs it.
#[derive(Debug, Clone, serde::Deserialize)]
struct Unit {
    uid: String,
    generation: i64,
    rollout: Option<Staged>,
}

/// A unit of which only some nodes run the generation.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Staged {
    percent: u8,
    previous_generation: Option<i64>,
}

impl Unit {
    /// The generation that this node runs; none when it runs nothing of it.
    fn generation(&self, node: &NodeFacts) -> Option<i64> {
        match &self.rollout {
            Some(staged) if !node.is_within(staged.percent, &self.uid) => staged.previous_generation,
            _ => Some(self.generation),
        }
    }
}

#[derive(serde::Deserialize)]
struct Bundle {
    units: Vec<Unit>,
}

/// What there is to know about a sensor, and what it is to send.
#[derive(Default)]
pub struct State {
    /// There is a session.
    pub connected: bool,
    /// Sessions that began.
    pub sessions: u64,
    /// Hash of the bundle that it runs.
    pub bundle: String,
    /// When it acknowledged that.
    pub acked_bundle: Option<Instant>,
    node: NodeFacts,
    units: Vec<Unit>,
    /// Generations that it says it cannot run.
    refused: Vec<(String, i64)>,
    /// Alerts that the operator has not acknowledged, in order.
    spool: VecDeque<proto::Alert>,
    next: u64,
    /// Last that was sent in this session.
    sent: u64,
    counts: BTreeMap<String, proto::UnitCounts>,
    /// Units whose counts were not sent in this session.
    uncounted: BTreeMap<String, ()>,
    /// Why the last session ended or did not begin.
    pub error: String,
}

impl State {
    /// The generation of a resource that it runs.
    pub fn generation(&self, uid: &str) -> Option<i64> {
        self.units.iter().find(|unit| unit.uid == uid)?.generation(&self.node)
    }

    /// From now on, say that this generation of a resource cannot run here.
    pub fn refuse(&mut self, uid: &str, generation: i64) {
        self.refused.push((uid.to_owned(), generation));
    }

    /// Alerts that were made.
    pub fn made(&self) -> u64 {
        self.next - 1
    }

    /// Alerts that are not acknowledged.
    pub fn waiting(&self) -> usize {
        self.spool.len()
    }
}

struct Shared {
    dial: Dial,
    token: String,
    hello: proto::Hello,
    state: Mutex<State>,
    more: Notify,
    offset: Duration,
}

/// A sensor. It connects again and again until it is dropped.
pub struct Sensor {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Sensor {
    /// Starts one. What it says at regular times is shifted by `offset`, so that not all speak at once.
    pub fn start(dial: Dial, token: String, hello: proto::Hello, offset: Duration) -> Self {
        let node = NodeFacts { name: hello.node.clone(), ..NodeFacts::default() };
        let state = Mutex::new(State { next: 1, node, ..State::default() });
        let shared = Arc::new(Shared { dial, token, hello, state, more: Notify::new(), offset });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Its state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// A rule of a resource matched: there is an alert, and one more is counted.
    pub fn alert(&self, mut alert: proto::Alert) {
        let mut state = self.state();
        let known = state.counts.entry(alert.unit.clone());
        let counts = known.or_insert_with(|| proto::UnitCounts { uid: alert.unit.clone(), ..Default::default() });
        counts.hits += 1;
        counts.last_ns = alert.time_ns;
        match counts.rules.iter_mut().find(|rule| rule.rule == alert.rule) {
            Some(rule) => (rule.hits, rule.last_ns) = (rule.hits + 1, alert.time_ns),
            None => {
                let rule = proto::RuleCounts { rule: alert.rule.clone(), hits: 1, last_ns: alert.time_ns };
                counts.rules.push(rule);
            }
        }
        state.uncounted.insert(alert.unit.clone(), ());
        alert.seq = state.next;
        alert.bundle.clone_from(&state.bundle);
        state.next += 1;
        state.spool.push_back(alert);
        drop(state);
        self.shared.more.notify_one();
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(shared: Arc<Shared>) {
    loop {
        let ended = session(&shared).await;
        {
            let mut state = shared.state();
            state.connected = false;
            state.error = ended.err().map_or_else(String::new, |error| format!("{error:#}"));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(200..1500))).await;
    }
}

async fn session(shared: &Shared) -> Result<()> {
    let runs = shared.state().bundle.clone();
    let mut session =
        shared.dial.open(Some(&shared.token), proto::Hello { bundle: runs, ..shared.hello.clone() }).await?;
    let window = u64::from(session.welcome.window);
    let mut acked = session.welcome.acked;
    {
        let mut state = shared.state();
        forget(&mut state, acked);
        state.connected = true;
        state.sessions += 1;
        state.sent = acked;
        state.uncounted = state.counts.keys().map(|uid| (uid.clone(), ())).collect();
    }
    let start = tokio::time::Instant::now();
    let mut counts = tokio::time::interval_at(start + shared.offset / 10, Duration::from_secs(1));
    let mut reports = tokio::time::interval_at(start + shared.offset, Duration::from_secs(10));
    let mut bytes: Vec<u8> = Vec::new();
    let mut expected = 0;
    session.say(from_sensor::Message::Counts(all_counts(shared))).await?;
    session.say(report(shared, start.elapsed())).await?;
    loop {
        let batch = next_batch(shared, acked, window);
        if let Some(first) = batch.first().map(|alert| alert.seq) {
            session.say(from_sensor::Message::Alerts(proto::Alerts { first, alerts: batch, lost: 0 })).await?;
        }
        tokio::select! {
            message = session.incoming.message() => match message?.context("the operator ended the session")?.message {
                Some(to_sensor::Message::AlertsAck(ack)) => {
                    acked = acked.max(ack.up_to);
                    forget(&mut shared.state(), acked);
                }
                Some(to_sensor::Message::BundleOffer(offer)) => {
                    (bytes, expected) = (Vec::new(), offer.bytes);
                    if offer.hash == shared.state().bundle {
                        session.say(ack(shared)).await?;
                    }
                }
                Some(to_sensor::Message::BundleChunk(chunk)) => {
                    bytes.extend_from_slice(&chunk.data);
                    if bytes.len() as u64 == expected {
                        let bundle: Bundle = serde_json::from_slice(&bytes).context("the bundle is no JSON")?;
                        {
                            let mut state = shared.state();
                            (state.units, state.bundle) = (bundle.units, chunk.hash);
                        }
                        session.say(ack(shared)).await?;
                        shared.state().acked_bundle = Some(Instant::now());
                    }
                }
                _ => {}
            },
            () = shared.more.notified() => {}
            _ = counts.tick() => {
                let changed = changed_counts(shared);
                if !changed.units.is_empty() {
                    session.say(from_sensor::Message::Counts(changed)).await?;
                }
            }
            _ = reports.tick() => {
                session.say(report(shared, start.elapsed())).await?;
            }
        }
    }
}

fn report(shared: &Shared, since: Duration) -> from_sensor::Message {
    from_sensor::Message::Report(proto::NodeReport {
        events_per_second: 2000.0 + fastrand::f64() * 100.0,
        events: since.as_secs() * 2000,
        spooled: shared.state().spool.len() as u64,
        memory_bytes: (40 << 20) + fastrand::u64(0..1 << 20),
        hooks: vec!["sys_enter".to_owned(), "sys_exit".to_owned()],
        ..proto::NodeReport::default()
    })
}

fn forget(state: &mut State, up_to: u64) {
    while state.spool.front().is_some_and(|alert| alert.seq <= up_to) {
        state.spool.pop_front();
    }
}

fn next_batch(shared: &Shared, acked: u64, window: u64) -> Vec<proto::Alert> {
    let mut state = shared.state();
    let room = window.saturating_sub(state.sent.saturating_sub(acked));
    let most = usize::try_from(room).unwrap_or(BATCH).min(BATCH);
    let first = state.spool.front().map_or(0, |alert| alert.seq);
    let skip = usize::try_from((state.sent + 1).saturating_sub(first)).unwrap_or(0);
    let mut bytes = 0;
    let fits = |alert: &&proto::Alert| {
        let room = bytes < link::ALERTS_BYTES;
        bytes += alert.encoded_len();
        room
    };
    let batch: Vec<_> = state.spool.iter().skip(skip).take(most).take_while(fits).cloned().collect();
    state.sent = batch.last().map_or(state.sent, |alert| alert.seq);
    if batch.len() == BATCH || bytes >= link::ALERTS_BYTES {
        // There may be more.
        shared.more.notify_one();
    }
    batch
}

fn all_counts(shared: &Shared) -> proto::Counts {
    let mut state = shared.state();
    state.uncounted.clear();
    proto::Counts { units: state.counts.values().cloned().collect(), complete: true }
}

fn changed_counts(shared: &Shared) -> proto::Counts {
    let mut state = shared.state();
    let changed = std::mem::take(&mut state.uncounted);
    let units = changed.keys().filter_map(|uid| state.counts.get(uid).cloned()).collect();
    proto::Counts { units, complete: false }
}

fn ack(shared: &Shared) -> from_sensor::Message {
    let state = shared.state();
    let unit = |unit: &Unit| {
        let generation = unit.generation(&state.node);
        let refuses = |(uid, refused): &(String, i64)| *uid == unit.uid && Some(*refused) == generation;
        let (state, message) = match (generation, state.refused.iter().any(refuses)) {
            (None, _) => (proto::UnitState::Skipped, ""),
            (Some(_), true) => (proto::UnitState::Failed, "this kernel cannot run this"),
            (Some(_), false) => (proto::UnitState::Loaded, ""),
        };
        proto::UnitResult {
            uid: unit.uid.clone(),
            generation: generation.unwrap_or(unit.generation),
            state: state.into(),
            message: message.to_owned(),
            ..proto::UnitResult::default()
        }
    };
    from_sensor::Message::BundleAck(proto::BundleAck {
        hash: state.bundle.clone(),
        loaded: true,
        compile_ms: 1,
        units: state.units.iter().map(unit).collect(),
        ..proto::BundleAck::default()
    })
}

/// An alert about a pod.
pub fn alert(unit: &str, rule: &str, pod: Option<&(String, String, String)>) -> proto::Alert {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (namespace, name) = pod.map_or(("", ""), |(namespace, name, _)| (namespace, name));
    proto::Alert {
        unit: unit.to_owned(),
        rule: rule.to_owned(),
        priority: "Warning".to_owned(),
        source: "syscall".to_owned(),
        tags: ["container", "shell", "mitre_execution", "T1059"].map(str::to_owned).to_vec(),
        time_ns: u64::try_from(since.as_nanos()).unwrap_or(0),
        message: format!(
            "A shell was spawned in a container with an attached terminal | evt_type=execve user=root user_uid=0 \
             process=bash proc_exepath=/usr/bin/bash parent=runc command=bash -i terminal=34816 k8s_ns_name={namespace} \
             k8s_pod_name={name}"
        ),
        output_fields: format!(
            "{{\"container.id\":\"3ad7b26ded6d\",\"container.image.repository\":\"example.org/app\",\
             \"evt.type\":\"execve\",\"k8s.ns.name\":\"{namespace}\",\"k8s.pod.name\":\"{name}\",\
             \"proc.cmdline\":\"bash -i\",\"proc.exepath\":\"/usr/bin/bash\",\"proc.name\":\"bash\",\
             \"proc.pname\":\"runc\",\"proc.tty\":34816,\"user.name\":\"root\",\"user.uid\":0}}"
        ),
        pod: pod.map(|(namespace, name, uid)| proto::Pod {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            container: "app".to_owned(),
            container_id: "3ad7b26ded6d".to_owned(),
            image: "example.org/app:1".to_owned(),
        }),
        ..proto::Alert::default()
    }
}
