//! `gyrfalcon-operator run`: starts everything, and ends it in order.

use std::{
    error::Error,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering::Relaxed},
    time::Duration,
};

use kube::Client;
use link::proto::link_server::LinkServer;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{info, warn};

use crate::{
    announce::{self, Announcer},
    cli::Run,
    cluster::{Cluster, kinds::Kinds},
    controller::{Controller, Parts},
    events::{
        self, Events,
        aggregate::{Identity, Settings},
    },
    follow,
    health::{self, Readiness},
    leader::{Election, Leadership},
    metrics::Metrics,
    outbox::Outbox,
    rules::{
        keep::Keep,
        review::{self, Reviewer},
    },
    sensors::{auth::Gate, intake::Intake, server},
    sinks::SinkSet,
    tls::{self, Certificates, store::Store},
    webhook,
};

/// How often certificates are looked at: somebody may have deleted what holds them, and replicas follow the leader.
const CERTIFICATES: Duration = Duration::from_secs(30);
/// How often they are looked for while there are none.
const CERTIFICATES_MISSING: Duration = Duration::from_secs(2);
/// How often is said that the API server has not told everything yet.
const COMPLAINT: Duration = Duration::from_secs(30);
/// How long giving up the Lease may take.
const RELEASE: Duration = Duration::from_secs(5);
/// How long sinks have at the end.
const DRAIN: Duration = Duration::from_secs(10);
/// Sensors that can be connected.
const SENSORS: usize = 10_000;
/// Connections of API servers.
const API_SERVERS: usize = 100;
/// Messages of sensors that wait for the controller.
const HEARD: usize = 4096;

/// Runs until a signal, or until another replica leads that this one did before.
///
/// # Errors
/// When something without which the operator is of no use cannot be had.
pub async fn run(args: Run) -> Result<(), Box<dyn Error>> {
    let client = Client::try_default().await?;
    let metrics = Metrics::default();
    let outbox = Outbox::open(&crate::outbox::Options {
        folder: args.state_dir.clone(),
        durable: args.durable,
        max_bytes: crate::outbox::Options::MAX_BYTES,
    })?;
    let cluster = Cluster::follow(&client);
    let certificates = Certificates::default();
    let (leadership, led) = watch::channel(Leadership::Following(None));
    let synced = Arc::new(AtomicBool::new(false));
    let readiness =
        Readiness { synced: Arc::clone(&synced), certificates: certificates.clone(), leadership: led.clone() };
    let health = TcpListener::bind(args.health_listen).await?;
    tokio::spawn(health::serve(health, readiness, metrics.registry()));

    let identity = format!("{}_{}", args.pod_name, std::net::SocketAddr::new(args.pod_ip, args.link_listen.port()));
    let election = elect(&args, identity.clone(), leadership);
    tokio::spawn(keep_certificates(store(&args, &client), certificates.clone(), led.clone()));

    tokio::select! {
        () = cluster.synced() => {}
        () = complain(&outbox) => {}
        why = signalled() => {
            info!(signal = why, "stopping before the cluster was known");
            return Ok(());
        }
    }
    synced.store(true, Relaxed);
    info!("the cluster is known");

    let secrets = Arc::new(crate::sinks::secrets::Cluster::new(client.clone()));
    let settings =
        crate::sinks::Settings { namespace: args.namespace.as_str().into(), allow_local: args.allow_local_sinks };
    let sinks = SinkSet::new(outbox, secrets, settings);
    let (judged_tx, judged) = watch::channel(None);
    if !args.no_webhook {
        let listener = TcpListener::bind(args.webhook_listen).await?;
        let kept = review::kept(Keep::new(&client, &args.namespace), tokio::runtime::Handle::current());
        let router = webhook::router(Arc::new(Reviewer::new(cluster.clone(), judged.clone(), kept)));
        let config = certificates.server_config(&[b"h2", b"http/1.1"])?;
        tokio::spawn(tls::serve::http(listener, config, API_SERVERS, router));
    }
    let (offer_tx, offer) = watch::channel(None);
    let (nodes_tx, nodes) = watch::channel(Default::default());
    let (fleet, heard) = mpsc::channel(HEARD);
    let (settings_tx, settings) = watch::channel(announce::settings(&cluster.configuration()));
    tokio::spawn(follow_config(cluster.clone(), settings_tx));
    let writer = Identity { namespace: args.namespace.as_str().into(), instance: instance(&args.pod_name).into() };
    let kinds = Kinds::default();
    tokio::spawn(kinds.clone().follow(client.clone()));
    let pods = Arc::new(cluster.pods.clone());
    let events = Events::start(client.clone(), settings, writer, pods, events::system_clock());
    let announcer = Arc::new(Announcer::new(events, cluster.clone(), judged, kinds));
    let account = account(&args, args.sensor_service_account.as_deref(), "gyrfalcon-sensor");
    let receivers = self::account(&args, args.audit_service_account.as_deref(), "gyrfalcon-audit");
    let shared = server::Shared {
        leadership: led.clone(),
        offer,
        nodes,
        pods: cluster.pods.clone(),
        intake: Intake::new(sinks.clone(), cluster.pods.clone(), announcer.clone(), metrics.clone()),
        fleet,
    };
    let gate = Gate::new(&client, cluster.pods.clone(), &args.token_audience, &account, &receivers);
    let link = LinkServer::new(server::Server::new(gate, shared))
        .max_decoding_message_size(link::MESSAGE_BYTES)
        .max_encoding_message_size(link::MESSAGE_BYTES);
    let listener = TcpListener::bind(args.link_listen).await?;
    let serving = tokio::spawn(tls::serve::http(listener, certificates.server_config(&[b"h2"])?, SENSORS, link));

    let (stop, stopped) = watch::channel(false);
    let mut leads = led.clone();
    let leading = async {
        if leads.wait_for(|now| *now == Leadership::Leading).await.is_err() {
            return std::future::pending().await;
        }
        let controller = Controller::new(Parts {
            keep: Keep::new(&client, &args.namespace),
            client: client.clone(),
            cluster: cluster.clone(),
            heard,
            offer: offer_tx,
            nodes: nodes_tx,
            judged: judged_tx,
            announcer: Arc::clone(&announcer),
            sinks: sinks.clone(),
            sensors: account,
            receivers,
            leadership: led.clone(),
            metrics: metrics.clone(),
        });
        controller.await.run(stopped).await;
    };
    let following = follow::follow(cluster.clone(), sinks.clone(), led.clone());
    tokio::spawn(follow_leadership(led.clone(), Arc::clone(&announcer), metrics.clone()));
    let mut leading = std::pin::pin!(leading);
    tokio::select! {
        why = signalled() => info!(signal = why, "stopping"),
        () = election => {
            // What another replica leads now, this one must not touch: it comes back as a follower.
            return Err("leadership was lost; starting again as a follower".into());
        }
        () = &mut leading => return Err("the controller ended".into()),
        () = following => return Err("sinks are not followed any more".into()),
    }
    // First no more comes in; then what is there is written; then another replica may lead.
    serving.abort();
    stop.send_replace(true);
    if led.borrow().ours() && tokio::time::timeout(Duration::from_secs(8), leading).await.is_err() {
        warn!("statuses were not all written");
    }
    announcer.finish(Duration::from_secs(5)).await;
    if !args.no_leader_election {
        let released = Election::release(&client, &args.namespace, &args.lease, &identity);
        match tokio::time::timeout(RELEASE, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(error = %link::chain(&error), "the lease is not given up; others wait until it is old");
            }
            Err(_) => warn!("the API server does not answer: the lease is not given up; others wait until it is old"),
        }
    }
    if !args.durable {
        drain(&sinks).await;
    }
    info!("stopped");
    Ok(())
}

/// Takes part in the election, or leads without asking. Ends when leadership is lost.
///
/// On a thread of its own, with a connection of its own: a storm of alerts must not cost the lease, and with it the
/// sessions of all sensors.
async fn elect(args: &Run, identity: String, leadership: watch::Sender<Leadership>) {
    if args.no_leader_election {
        leadership.send_replace(Leadership::Leading);
        return std::future::pending().await;
    }
    let (namespace, lease) = (args.namespace.clone(), args.lease.clone());
    let (ended, end) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("lease".to_owned()).spawn(move || {
        let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
            runtime.block_on(async {
                let client = Client::try_default().await?;
                Election::new(&client, &namespace, &lease, identity).run(&leadership).await;
                Ok::<_, kube::Error>(())
            })
        });
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = %link::chain(&error), "cannot take part in the election"),
            Err(error) => warn!(error = %link::chain(&error), "cannot start the thread of the election"),
        }
        // Nobody waits any more when the program is ending.
        let _ = ended.send(());
    });
    if let Err(error) = thread {
        warn!(error = %link::chain(&error), "cannot start the thread of the election");
        return;
    }
    // An error means that the thread has ended.
    let _ = end.await;
}

fn store(args: &Run, client: &Client) -> Store {
    let name = |service: &str| format!("{service}.{}.svc", args.namespace);
    let mut names = vec![name(&args.link_service)];
    let webhook = (!args.no_webhook).then(|| {
        names.push(name(&args.webhook_service));
        args.webhook_configuration.clone()
    });
    Store::new(client, &args.namespace, names, webhook)
}

/// Shows the certificates that there are; the leader makes and renews them.
async fn keep_certificates(store: Store, certificates: Certificates, mut leadership: watch::Receiver<Leadership>) {
    loop {
        let leading = *leadership.borrow_and_update() == Leadership::Leading;
        let material = match leading {
            true => store.keep().await.map(Some),
            false => store.load().await,
        };
        let wait = match material {
            Ok(Some(material)) => match certificates.set(&material) {
                Ok(()) => CERTIFICATES,
                Err(error) => {
                    warn!(error = %link::chain(&error), "the certificates cannot be used");
                    CERTIFICATES_MISSING
                }
            },
            // The leader is about to make them.
            Ok(None) => CERTIFICATES_MISSING,
            // Those that are shown stay good meanwhile.
            Err(error) if certificates.ready() => {
                warn!(error = %link::chain(&error), "certificates could not be looked at; trying again");
                CERTIFICATES
            }
            Err(error) => {
                warn!(error = %link::chain(&error), "certificates are not in place; trying again");
                CERTIFICATES_MISSING
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Namespace and name of a service account.
fn account(args: &Run, given: Option<&str>, default: &str) -> (String, String) {
    let given = given.and_then(|account| account.split_once(':'));
    match given {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (args.namespace.clone(), default.to_owned()),
    }
}

/// A word that no other process has.
fn instance(pod: &str) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{pod}-{:x}", since.as_nanos())
}

/// Says again and again that nothing can be done yet, and why. Never ends.
async fn complain(outbox: &Outbox) {
    loop {
        tokio::time::sleep(COMPLAINT).await;
        warn!(
            waiting_bytes = outbox.bytes(),
            "the API server has not told everything yet, so which sinks, secrets and rules there are is not known: alerts stay in the outbox and with the sensors until it has"
        );
    }
}

/// Holds the writer of Events back while this replica does not know whether it leads.
async fn follow_leadership(mut leadership: watch::Receiver<Leadership>, announcer: Arc<Announcer>, metrics: Metrics) {
    loop {
        let now = leadership.borrow_and_update().clone();
        metrics.leading.set(i64::from(now == Leadership::Leading));
        announcer.hold(now != Leadership::Leading);
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the writer of Events when the configuration changes.
async fn follow_config(cluster: Cluster, settings: watch::Sender<Settings>) {
    loop {
        cluster.config_changes.next().await;
        settings.send_replace(announce::settings(&cluster.configuration()));
    }
}

/// Gives sinks a while to take what waits for them. What is left then, sensors send again to the next operator: they
/// keep every alert until all sinks have it.
async fn drain(sinks: &SinkSet) {
    let deadline = Instant::now() + DRAIN;
    let waiting = || sinks.ids().iter().filter_map(|id| sinks.view(id)).map(|view| view.depth).sum::<u64>();
    while waiting() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if waiting() > 0 {
        info!(alerts = waiting(), "alerts are left for the next operator");
    }
}

/// Waits for a signal that asks to stop; tells which.
async fn signalled() -> &'static str {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without them only a kill ends the program, which it must withstand anyway.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
