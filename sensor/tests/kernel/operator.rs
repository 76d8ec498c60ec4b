//! An operator that says what a test says, over real TLS on a port of its own.
//!
//! It runs on threads of its own, so that a test can kill it: dropped, all its connections end at once, half-way through
//! whatever they were sending. The tests of the link use it, too.
#![allow(dead_code, reason = "each of the two kinds of tests uses a part")]

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use link::proto::{
    self, FromSensor, ToSensor, from_sensor,
    link_server::{Link, LinkServer},
    to_sensor,
};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};

/// The name in the certificate.
pub const NAME: &str = "operator.test";

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(30);

/// A certificate, and what a sensor needs to trust it: the folder holds `ca.crt` and `token`.
pub struct Identity {
    folder: TempDir,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// A new one; the token is `token one`.
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.crt"), made.cert.pem()).expect("a file");
        fs::write(folder.path().join("token"), "token-one\n").expect("a file");
        Self { folder, config: Arc::new(config) }
    }

    /// The file with the CA.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// The file with the token.
    pub fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }
}

/// The operator. Dropped, it is gone at once.
pub struct Operator {
    runtime: Option<Runtime>,
    /// Where it listens.
    pub address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    refusal: Arc<Mutex<Option<Status>>>,
}

impl Operator {
    /// Starts one on this address; port 0 is any.
    pub fn start(identity: &Identity, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let (sender, sessions) = mpsc::channel(16);
        let refusal = Arc::new(Mutex::new(None));
        let service = Service { sessions: sender, refusal: Arc::clone(&refusal) };
        let listener = listen(address);
        let address = listener.local_addr().expect("a bound socket");
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.config));
        let (connections, accepted) = mpsc::channel(16);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a socket");
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, connections) = (acceptor.clone(), connections.clone());
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        let _ = connections.send(Ok::<_, io::Error>(Connection(tls))).await;
                    }
                });
            }
        });
        let server = tonic::transport::Server::builder()
            .add_service(LinkServer::new(service).max_decoding_message_size(link::MESSAGE_BYTES))
            .serve_with_incoming(ReceiverStream::new(accepted));
        runtime.spawn(server);
        Self { runtime: Some(runtime), address, sessions, refusal }
    }

    /// The next session that a sensor opens.
    pub async fn session(&mut self) -> Session {
        timeout(LONG, self.sessions.recv()).await.expect("no sensor came").expect("the operator runs")
    }

    /// Answers sessions with this from now on.
    pub fn refuse(&self, status: Status) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    /// Takes sessions again.
    pub fn refuse_no_more(&self) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Listens. The port of an operator that was killed is free once its threads have noticed, which nothing tells.
fn listen(address: SocketAddr) -> std::net::TcpListener {
    let deadline = Instant::now() + LONG;
    loop {
        match std::net::TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).expect("a socket");
                return listener;
            }
            Err(error) => assert!(error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One session, seen from the operator.
pub struct Session {
    /// The sensor's `authorization`.
    pub authorization: String,
    /// Hits by resource, as they were last said.
    pub hits: BTreeMap<String, u64>,
    incoming: Streaming<FromSensor>,
    outgoing: mpsc::Sender<Result<ToSensor, Status>>,
}

impl Session {
    /// The next message. Panics when none comes.
    pub async fn next(&mut self) -> from_sensor::Message {
        let message = timeout(LONG, self.incoming.message()).await.expect("the sensor is silent");
        let message = message.expect("a good stream").expect("the stream goes on").message;
        let message = message.expect("a message that we know");
        if let from_sensor::Message::Counts(counts) = &message {
            self.hits.extend(counts.units.iter().map(|unit| (unit.uid.clone(), unit.hits)));
        }
        message
    }

    /// The next message of a kind; others are passed over.
    pub async fn expect<T>(&mut self, mut wanted: impl FnMut(from_sensor::Message) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = wanted(self.next().await) {
                    return found;
                }
            }
        };
        timeout(LONG, found).await.expect("the sensor says other things only")
    }

    /// Takes the hello and welcomes the sensor.
    pub async fn welcome(&mut self, acked: u64, window: u32) -> proto::Hello {
        let from_sensor::Message::Hello(hello) = self.next().await else { panic!("the first message is no hello") };
        let welcome =
            proto::Welcome { protocol: link::PROTOCOL, version: "test".to_owned(), acked, window, received: acked };
        self.send(to_sensor::Message::Welcome(welcome)).await;
        hello
    }

    /// The next alerts.
    pub async fn alerts(&mut self) -> proto::Alerts {
        self.expect(|message| if let from_sensor::Message::Alerts(alerts) = message { Some(alerts) } else { None })
            .await
    }

    /// The next word on a bundle.
    pub async fn bundle_ack(&mut self) -> proto::BundleAck {
        self.expect(|message| if let from_sensor::Message::BundleAck(ack) = message { Some(ack) } else { None }).await
    }

    /// The next counts.
    pub async fn counts(&mut self) -> proto::Counts {
        self.expect(|message| if let from_sensor::Message::Counts(counts) = message { Some(counts) } else { None })
            .await
    }

    /// Says something.
    pub async fn send(&self, message: to_sensor::Message) {
        self.outgoing.send(Ok(ToSensor { message: Some(message) })).await.expect("the session is open");
    }

    /// Says nothing that this release knows.
    pub async fn send_unknown(&self) {
        self.outgoing.send(Ok(ToSensor { message: None })).await.expect("the session is open");
    }

    /// Acknowledges alerts.
    pub async fn acknowledge(&self, up_to: u64) {
        self.send(to_sensor::Message::AlertsAck(proto::AlertsAck { up_to, received: up_to })).await;
    }

    /// Offers a bundle under a hash.
    pub async fn offer(&self, hash: &str, bytes: u64) {
        self.send(to_sensor::Message::BundleOffer(proto::BundleOffer { hash: hash.to_owned(), bytes })).await;
    }

    /// Sends a part of a bundle.
    pub async fn chunk(&self, hash: &str, offset: u64, data: &[u8]) {
        let chunk = proto::BundleChunk { hash: hash.to_owned(), offset, data: data.to_vec().into() };
        self.send(to_sensor::Message::BundleChunk(chunk)).await;
    }
}

struct Service {
    sessions: mpsc::Sender<Session>,
    refusal: Arc<Mutex<Option<Status>>>,
}

#[tonic::async_trait]
impl Link for Service {
    type SessionStream = ReceiverStream<Result<ToSensor, Status>>;

    async fn session(&self, request: Request<Streaming<FromSensor>>) -> Result<Response<Self::SessionStream>, Status> {
        if let Some(status) = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(status);
        }
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let (outgoing, answers) = mpsc::channel(4);
        let session = Session { authorization, hits: BTreeMap::new(), incoming: request.into_inner(), outgoing };
        let _ = self.sessions.send(session).await;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// What the server reads and writes.
struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
