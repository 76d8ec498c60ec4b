//! The side of the sensor that has the node and is asked for it.

use std::time::Duration;

use prost::Message;
use tokio::net::UnixListener;
use tracing::{info, warn};

use super::{
    EventLoop,
    peer::{Peer, PeerError, unexpected},
    words::{VERSION, Word},
};
use crate::agent::facts::pod_facts;
use link::chain;

/// How long a hello may take.
const HELLO: Duration = Duration::from_secs(5);

/// How long the other sensor may take to begin: loading its programs takes seconds, on a busy machine more of them. As long
/// as the chart's startup probe gives it; and so long the system calls of whoever calls are not judged.
const PREPARE: Duration = Duration::from_secs(120);

/// How long it may take to say that it goes on: what happens meanwhile waits in memory.
const MINE: Duration = Duration::from_secs(1);

/// How often it may ask with another bundle.
const ASKED: u32 = 10;

/// What is needed to give a node away.
pub struct Giver<L, B> {
    /// The event loop that judges now.
    pub event_loop: L,
    /// Tells the hash of the bundle that it judges by; empty for none.
    pub bundle: B,
    /// Name of this sensor.
    pub name: String,
    /// Name of the one that it took over from.
    pub before: Option<String>,
}

impl<L: EventLoop, B: Fn() -> String + Send + Sync> Giver<L, B> {
    /// Waits for a sensor that takes over. When this returns, the event loop delivers what happened before the agreed time
    /// and nothing else, and the other judges the rest.
    pub async fn wait(&self, listener: &UnixListener) -> Peer {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(error = %error, "cannot take the call of another sensor");
                    tokio::time::sleep(HELLO).await;
                    continue;
                }
            };
            let peer = match Peer::new(stream) {
                Ok(peer) => peer,
                Err(error) => {
                    warn!(reason = %chain(&error), "another sensor does not take over");
                    continue;
                }
            };
            match self.talk(peer).await {
                Ok(Some(peer)) => return peer,
                Ok(None) => {}
                Err(error) => info!(reason = %chain(&error), "another sensor does not take over"),
            }
            self.event_loop.fellow(None);
        }
    }

    async fn talk(&self, mut peer: Peer) -> Result<Option<Peer>, PeerError> {
        let name = match peer.hear(HELLO).await? {
            Word::Hello(VERSION, name) => name,
            word => return Err(unexpected(&word)),
        };
        if !name.is_empty() && self.before.as_ref() == Some(&name) {
            peer.say(Word::No).await?;
            info!(sensor = name, "the sensor that was here before has begun anew: it stands by");
            return Ok(None);
        }
        info!(sensor = name, process = peer.process(), "another sensor is about to take over");
        self.event_loop.fellow(peer.process());
        peer.say(Word::Welcome(self.name.clone())).await?;
        for _ in 0..ASKED {
            match peer.hear(PREPARE).await? {
                Word::Take(bundle) if bundle.as_ref().is_some_and(|bundle| *bundle != (self.bundle)()) => {
                    peer.say(Word::Bundle).await?;
                }
                Word::Take(_) => return self.give(peer).await,
                word => return Err(unexpected(&word)),
            }
        }
        Err(PeerError::Silent)
    }

    /// Until the other has said that it goes on, nothing is decided.
    async fn give(&self, mut peer: Peer) -> Result<Option<Peer>, PeerError> {
        let Some(known) = self.event_loop.known_of_cluster().await else { return Ok(None) };
        let facts = pod_facts(known).encode_to_vec();
        let count = u32::try_from(facts.len()).unwrap_or(u32::MAX);
        peer.say_with(Word::Facts(count), &facts).await?;
        let Some(until) = self.event_loop.pause().await else { return Ok(None) };
        let answer = match peer.say(Word::Until(until)).await {
            Ok(()) => peer.hear(MINE).await,
            Err(error) => Err(error),
        };
        let failed = match answer {
            Ok(Word::Mine) => return Ok(Some(peer)),
            Ok(word) => unexpected(&word),
            Err(error) => error,
        };
        self.event_loop.go_on();
        Err(failed)
    }
}
