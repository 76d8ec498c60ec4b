//! One session: hello and welcome, then both directions at once until either ends.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use ::link::{
    MESSAGE_BYTES, OLDEST_PROTOCOL, PROTOCOL, WINDOW,
    proto::{self, FromSensor, ToSensor, from_sensor, link_client::LinkClient, to_sensor},
};
use prost::Message;
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinError, JoinHandle},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use tracing::warn;

use super::{
    Parts, SessionError, connected,
    dial::{PATIENCE, authorization, dial},
    receive::{Receiving, Refused},
};
use crate::agent::spool::{Batch, Cursor};

/// Messages that wait to be sent. Each has at most [`link::ALERTS_BYTES`] and one alert.
const OUTGOING: usize = 4;

/// Alerts in one message.
const BATCH: usize = 256;

/// Bytes of counts in one message.
const COUNTS_BYTES: usize = 1 << 20;

/// How often counts are looked at.
const COUNTS: Duration = Duration::from_secs(1);

/// What both directions share.
#[derive(Default)]
struct Shared {
    /// Number of the last alert that was sent.
    sent: AtomicU64,
    /// Number of the last alert that the operator has, safe or not.
    received: AtomicU64,
    /// Something was acknowledged.
    acked: Notify,
}

/// Runs one session to its end. `at` is dialled in place of the address; `welcomed` is called when there is one.
pub async fn session(
    parts: &Parts,
    at: Option<SocketAddr>,
    welcomed: impl FnOnce(),
) -> Result<Infallible, SessionError> {
    let authorization = authorization(&parts.address)?;
    let channel = dial(&parts.address, at).await?;
    let (outgoing, queue) = mpsc::channel(OUTGOING);
    let mut request = Request::new(ReceiverStream::new(queue));
    request.metadata_mut().insert("authorization", authorization);

    let acks = parts.acks.subscribe();
    let running = acks.borrow().running.as_ref().map_or_else(String::new, |ack| ack.hash.clone());
    let hello =
        proto::Hello { protocol: PROTOCOL, spool: parts.spool.id().to_owned(), bundle: running, ..parts.hello.clone() };
    send(&outgoing, from_sensor::Message::Hello(hello)).await?;
    let mut client =
        LinkClient::new(channel).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES);
    let answer = timeout(PATIENCE, client.session(request)).await;
    let mut incoming = answer.map_err(|_| SessionError::Silent { step: "the session" })?.map_err(status)?.into_inner();
    let welcome = welcome(&mut incoming).await?;
    connected(parts, &welcome, at);
    welcomed();

    parts.spool.resume_behind(welcome.acked);
    if welcome.received > *parts.spool.durable().borrow() {
        // What a failing disk has forgotten, the operator has: its numbers are not given again.
        parts.spool.resume_behind(welcome.received);
    }
    let received = welcome.received.min(*parts.spool.durable().borrow()).max(parts.spool.acked());
    let shared = Shared { sent: AtomicU64::new(received), received: AtomicU64::new(received), acked: Notify::new() };
    acknowledged(parts);
    tokio::select! {
        ended = take(parts, &shared, incoming) => ended,
        ended = give(parts, &shared, &outgoing, &welcome) => ended,
    }
}

fn status(status: tonic::Status) -> SessionError {
    SessionError::Status(Box::new(status))
}

async fn welcome(incoming: &mut Streaming<ToSensor>) -> Result<proto::Welcome, SessionError> {
    let first = timeout(PATIENCE, incoming.message()).await;
    let first = first.map_err(|_| SessionError::Silent { step: "the welcome" })?.map_err(status)?;
    let Some(ToSensor { message: Some(to_sensor::Message::Welcome(welcome)) }) = first else {
        return Err(SessionError::NoWelcome);
    };
    if !(OLDEST_PROTOCOL..=PROTOCOL + 1).contains(&welcome.protocol) {
        return Err(SessionError::Version { theirs: welcome.protocol, ours: PROTOCOL });
    }
    Ok(welcome)
}

/// Takes what the operator sends.
async fn take(parts: &Parts, shared: &Shared, mut incoming: Streaming<ToSensor>) -> Result<Infallible, SessionError> {
    let mut receiving = Receiving::default();
    loop {
        let Some(message) = incoming.message().await.map_err(status)? else { return Err(SessionError::Ended) };
        match message.message {
            Some(to_sensor::Message::AlertsAck(ack)) => {
                let sent = shared.sent.load(Relaxed);
                parts.spool.acknowledge(ack.up_to.min(sent));
                shared.received.fetch_max(ack.received.max(ack.up_to).min(sent), Relaxed);
                acknowledged(parts);
                shared.acked.notify_one();
            }
            Some(to_sensor::Message::BundleOffer(offer)) => {
                if let Err(refused) = receiving.offer(offer) {
                    refuse(parts, refused);
                }
            }
            Some(to_sensor::Message::BundleChunk(chunk)) => match receiving.chunk(&chunk) {
                Ok(Some(bundle)) => parts.receive.bundle(bundle),
                Ok(None) => {}
                Err(refused) => refuse(parts, refused),
            },
            Some(to_sensor::Message::NodeFacts(facts)) => parts.receive.node_facts(facts),
            Some(to_sensor::Message::PodFacts(facts)) => {
                // Dropped or sent: either way it is done with.
                let _ = parts.receive.pod_facts(facts).await;
            }
            // Once is enough; and what a newer operator says beyond our protocol is nothing to us.
            Some(to_sensor::Message::Welcome(_)) | None => {}
        }
    }
}

fn acknowledged(parts: &Parts) {
    parts.queue.poke();
    let acked = parts.spool.acked();
    parts.status.progress.send_modify(|progress| progress.acked = acked);
}

fn refuse(parts: &Parts, refused: Refused) {
    let Refused { hash, reason } = refused;
    warn!(hash, reason, "bundle not taken");
    let ack = proto::BundleAck { hash, failure: reason, ..proto::BundleAck::default() };
    parts.acks.send_modify(|acks| acks.failed = Some(ack));
}

/// Sends what there is: alerts within the window, counts every second when they changed, the report and
/// acknowledgements when they change.
async fn give(
    parts: &Parts,
    shared: &Shared,
    outgoing: &mpsc::Sender<FromSensor>,
    welcome: &proto::Welcome,
) -> Result<Infallible, SessionError> {
    let window = u64::from(welcome.window.clamp(1, WINDOW));
    let mut durable = parts.spool.durable();
    let mut report = parts.report.clone();
    let mut acks = parts.acks.subscribe();
    report.mark_changed();
    acks.mark_changed();
    let mut told = super::Acks::default();
    let mut counted = None;
    let mut counts = interval(COUNTS);
    counts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reading = None;
    let mut cursor = Some(Cursor::at(shared.sent.load(Relaxed) + 1));
    // The last durable alert when the reader found nothing more: numbers at the end can be missing.
    let mut dry = None;
    loop {
        let last = *durable.borrow_and_update();
        let room = window.saturating_sub(shared.sent.load(Relaxed).saturating_sub(shared.received.load(Relaxed)));
        if let Some(from) = cursor.take_if(|cursor| room > 0 && cursor.next() <= last && dry != Some(last)) {
            reading = Some(read(parts, from, room));
        }
        tokio::select! {
            // Polled by reference: a read that something else overtakes goes on.
            done = finish(&mut reading), if reading.is_some() => {
                reading = None;
                let (batch, from) = done.map_err(|error| SessionError::Spool(error.into()))?;
                let batch = batch.map_err(SessionError::Spool)?;
                dry = batch.alerts.is_empty().then_some(last);
                shared.sent.fetch_max(from.next().saturating_sub(1), Relaxed);
                cursor = Some(from);
                for run in runs(batch.alerts) {
                    let first = run.first().map_or(0, |alert| alert.seq);
                    let lost = parts.spool.lost();
                    send(outgoing, from_sensor::Message::Alerts(proto::Alerts { first, alerts: run, lost })).await?;
                }
            }
            // Who reports may be gone when the sensor is ending: then nothing changes any more.
            Ok(()) = durable.changed() => {}
            () = shared.acked.notified() => {}
            _ = counts.tick() => send_counts(parts, outgoing, &mut counted).await?,
            Ok(()) = report.changed() => {
                let report = report.borrow_and_update().clone();
                send(outgoing, from_sensor::Message::Report(report)).await?;
            }
            Ok(()) = acks.changed() => {
                let now = acks.borrow_and_update().clone();
                if now.repeat != told.repeat {
                    told = super::Acks::default();
                }
                for (ack, before) in [(&now.running, &told.running), (&now.failed, &told.failed)] {
                    if let Some(ack) = ack && Some(ack) != before.as_ref() {
                        send(outgoing, from_sensor::Message::BundleAck(ack.clone())).await?;
                    }
                }
                told = now;
            }
            () = outgoing.closed() => return Err(SessionError::Ended),
        }
    }
}

/// Reads the next alerts from the disk, on a thread that may wait.
fn read(parts: &Parts, mut from: Cursor, room: u64) -> JoinHandle<(std::io::Result<Batch>, Cursor)> {
    let spool = parts.spool.clone();
    let most = usize::try_from(room).unwrap_or(BATCH).min(BATCH);
    tokio::task::spawn_blocking(move || (spool.read(&mut from, most, link::ALERTS_BYTES), from))
}

/// What a read gave; waits for ever when there is none.
async fn finish<T>(reading: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

/// Alerts whose numbers follow each other.
fn runs(alerts: Vec<proto::Alert>) -> Vec<Vec<proto::Alert>> {
    let mut runs: Vec<Vec<proto::Alert>> = Vec::new();
    for alert in alerts {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.seq + 1 == alert.seq) => run.push(alert),
            _ => runs.push(vec![alert]),
        }
    }
    runs
}

/// All counts at first, then those that changed.
async fn send_counts(
    parts: &Parts,
    outgoing: &mpsc::Sender<FromSensor>,
    counted: &mut Option<u64>,
) -> Result<(), SessionError> {
    let (units, version) = parts.spool.totals().since(counted.unwrap_or(0));
    if counted.is_some() && units.is_empty() {
        return Ok(());
    }
    let size: usize = units.iter().map(Message::encoded_len).sum();
    let complete = counted.is_none() && size <= COUNTS_BYTES;
    let mut message = proto::Counts { units: Vec::new(), complete };
    let mut filled = 0;
    for unit in units {
        filled += unit.encoded_len();
        message.units.push(unit);
        if filled > COUNTS_BYTES {
            filled = 0;
            let full = std::mem::take(&mut message);
            send(outgoing, from_sensor::Message::Counts(full)).await?;
        }
    }
    if !message.units.is_empty() || complete {
        send(outgoing, from_sensor::Message::Counts(message)).await?;
    }
    *counted = Some(version);
    parts.status.progress.send_modify(|progress| progress.counted = version);
    Ok(())
}

async fn send(outgoing: &mpsc::Sender<FromSensor>, message: from_sensor::Message) -> Result<(), SessionError> {
    outgoing.send(FromSensor { message: Some(message) }).await.map_err(|_| SessionError::Ended)
}
