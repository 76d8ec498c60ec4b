//! The side of the sensor that begins on a node where another one is.

use std::{fs::File, path::PathBuf, time::Duration};

use link::{chain, proto};
use prost::Message;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{
    EventLoop, Standing,
    peer::{Peer, PeerError, unexpected},
    words::Word,
};
use crate::{agent::facts::cluster_change, sensor::Failed};

/// How long the other sensor may take to greet: it does not while it is starting itself.
const WELCOME: Duration = Duration::from_secs(10);

/// How long it may take to name the time: what happens meanwhile waits in memory.
const UNTIL: Duration = Duration::from_secs(2);

/// How long it may take to judge what it has, and make it durable; it gives events up to ten seconds to get facts.
const DONE: Duration = Duration::from_secs(30);

/// How often the cache is looked at again before the node is taken with whatever bundle runs.
const BUNDLES: u32 = 3;

/// A time cannot be further ahead than that.
const AHEAD_NS: u64 = 1_000_000_000;

/// What is needed to take a node over.
pub struct Taker<L, B, R, S> {
    /// The event loop, which judges nothing yet.
    pub event_loop: L,
    /// Tells the hash of the bundle that it would judge by; empty for none.
    pub bundle: B,
    /// Looks at the cache again, and tells when what is there runs.
    pub reread: R,
    /// Is told what this sensor is to the node.
    pub standing: S,
    /// The folder whose lock is waited for.
    pub state_dir: PathBuf,
}

/// A node that was taken over.
#[derive(Debug)]
pub struct Taken {
    /// The lock of the folder.
    pub lock: File,
    /// Name of the sensor that handed it over.
    pub before: Option<String>,
}

/// How the other sensor has answered.
enum Answer {
    /// It judges what happened before.
    Until(u64),
    /// It runs another bundle.
    Bundle,
}

impl<L, B, R, S> Taker<L, B, R, S>
where
    L: EventLoop,
    B: Fn() -> String + Send + Sync,
    R: Fn() -> oneshot::Receiver<()> + Send + Sync,
    S: Fn(Standing) + Send + Sync,
{
    /// Takes the node over, from whoever answers or ends. When this returns, the event loop judges, and the folder is this
    /// sensor's.
    pub async fn take(&self, peer: Option<&mut Peer>) -> Result<Taken, Failed> {
        let Some(peer) = peer else {
            info!("another sensor does not know how to hand over: waiting for its end");
            return self.wait(Standing::Waiting).await;
        };
        let before = match peer.hear(WELCOME).await {
            Ok(Word::Welcome(name)) => name,
            Ok(Word::No) => {
                info!("another sensor has taken over from this one: standing by");
                return self.wait(Standing::Reserve).await;
            }
            Ok(word) => return self.take_anyway(&unexpected(&word)).await,
            Err(error) => return self.take_anyway(&error).await,
        };
        let lock = self.ask(peer).await?;
        Ok(Taken { lock, before: Some(before).filter(|before| !before.is_empty()) })
    }

    async fn ask(&self, peer: &mut Peer) -> Result<File, Failed> {
        let mut looks = 0;
        loop {
            // What has been taken into the state cannot be judged any more: from here on nothing is.
            let paused = self.event_loop.pause().await.ok_or("the event loop has ended")?;
            let bundle = (looks < BUNDLES).then(|| (self.bundle)());
            match self.answer(peer, bundle, paused).await {
                Ok(Answer::Until(time)) => {
                    self.event_loop.judge_from(time);
                    return self.settle(peer).await;
                }
                Ok(Answer::Bundle) => {
                    self.event_loop.go_on();
                    looks += 1;
                    // An error: the sensor is stopping.
                    let _ = (self.reread)().await;
                }
                Err(error) => {
                    self.event_loop.judge_from(paused);
                    return self.lock_anyway(&error).await;
                }
            }
        }
    }

    async fn answer(&self, peer: &mut Peer, bundle: Option<String>, paused: u64) -> Result<Answer, PeerError> {
        peer.say(Word::Take(bundle)).await?;
        let mut word = peer.hear(UNTIL).await?;
        if let Word::Facts(count) = word {
            let bytes = peer.bytes(count, UNTIL).await?;
            let facts = proto::PodFacts::decode(&*bytes).map_err(|_| unexpected(&word))?;
            self.event_loop.learn(cluster_change(facts));
            word = peer.hear(UNTIL).await?;
        }
        match word {
            Word::Until(time) if time >= paused && time <= self.event_loop.now().saturating_add(AHEAD_NS) => {
                Ok(Answer::Until(time))
            }
            Word::Bundle => Ok(Answer::Bundle),
            word => Err(unexpected(&word)),
        }
    }

    /// It is agreed who judges what; the folder is still to be had.
    async fn settle(&self, peer: &mut Peer) -> Result<File, Failed> {
        let told = match peer.say(Word::Mine).await {
            Ok(()) => peer.hear(DONE).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(Word::Done) => info!("the other sensor has handed over"),
            Ok(word) => warn!(reason = %chain(&unexpected(&word)), "the other sensor did not finish"),
            Err(error) => warn!(reason = %chain(&error), "the other sensor did not finish"),
        }
        self.lock(Standing::Waiting).await
    }

    /// The other sensor has no say: this one judges from now on, and gets the folder when it can.
    async fn take_anyway(&self, error: &PeerError) -> Result<Taken, Failed> {
        self.judge_now().await;
        Ok(Taken { lock: self.lock_anyway(error).await?, before: None })
    }

    async fn lock_anyway(&self, error: &PeerError) -> Result<File, Failed> {
        warn!(reason = %chain(error), "the other sensor does not hand over: judging, alerts wait until it has ended");
        self.lock(Standing::Waiting).await
    }

    /// Judges nothing until the other sensor has ended.
    async fn wait(&self, standing: Standing) -> Result<Taken, Failed> {
        let lock = self.lock(standing).await?;
        self.judge_now().await;
        Ok(Taken { lock, before: None })
    }

    async fn judge_now(&self) {
        // None: the event loop has ended, which is seen elsewhere.
        if let Some(now) = self.event_loop.pause().await {
            self.event_loop.judge_from(now);
        }
    }

    async fn lock(&self, standing: Standing) -> Result<File, Failed> {
        (self.standing)(standing);
        let folder = self.state_dir.clone();
        tokio::task::spawn_blocking(move || crate::agent::owned::lock(&folder)).await?
    }
}
