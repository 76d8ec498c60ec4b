//! Which replica leads: a Lease, held by whoever renewed it last.
//!
//! As in client-go: a holder renews every two seconds and gives up leading when it could not for ten; others may take
//! a Lease that nobody renewed for fifteen, measured on their own clock from when they saw it change. Every write
//! carries the version that was read, so that of two takers one fails.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::names::FIELD_MANAGER;

/// A Lease that was not renewed for so long can be taken.
const LEASE: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long leads no more.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two attempts.
const RETRY: Duration = Duration::from_secs(2);

/// Who leads, as far as this replica knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This replica.
    Leading,
    /// Another one; its identity, or none when that isn't known.
    Following(Option<String>),
}

/// Takes part in the election until the task is dropped.
#[derive(Debug)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    seen: Option<Seen>,
}

/// The Lease as it was when it last changed.
#[derive(Debug)]
struct Seen {
    holder: Option<String>,
    renewed: Option<MicroTime>,
    at: Instant,
}

impl Election {
    /// For the Lease of this name; `identity` tells this replica from others, and where it listens.
    pub fn new(client: &Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { leases: Api::namespaced(client.clone(), namespace), name: name.to_owned(), identity, seen: None }
    }

    /// Runs until leadership is lost, which a program should answer by ending: it comes back as a follower with a
    /// clean state. Says through `leadership` who leads.
    pub async fn run(mut self, leadership: &watch::Sender<Leadership>) {
        let mut renewed: Option<Instant> = None;
        loop {
            let attempt = tokio::time::timeout(RENEW_DEADLINE / 2, self.attempt()).await;
            match attempt {
                Ok(Ok(Leadership::Leading)) => {
                    renewed = Some(Instant::now());
                    if leadership.send_if_modified(|now| std::mem::replace(now, Leadership::Leading) != *now) {
                        info!(lease = self.name, identity = self.identity, "leading");
                    }
                }
                Ok(Ok(following)) => {
                    if renewed.is_some() {
                        warn!(lease = self.name, "another replica took the lease");
                        return;
                    }
                    leadership.send_if_modified(|now| {
                        let changed = *now != following;
                        if changed {
                            debug!(lease = self.name, ?following, "following");
                            *now = following;
                        }
                        changed
                    });
                }
                Ok(Err(error)) => debug!(lease = self.name, error = %link::chain(&error), "cannot use the lease"),
                Err(_) => debug!(lease = self.name, "the API server does not answer about the lease"),
            }
            if renewed.is_some_and(|renewed| renewed.elapsed() > RENEW_DEADLINE) {
                warn!(lease = self.name, "the lease could not be renewed in time");
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn attempt(&mut self) -> Result<Leadership, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(there) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.held(None, &now)),
            };
            return taken(self.leases.create(&write(), &lease).await);
        };
        let spec = there.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let unchanged = self.seen.as_ref().is_some_and(|seen| seen.holder == holder && seen.renewed == spec.renew_time);
        if !unchanged {
            self.seen = Some(Seen { holder: holder.clone(), renewed: spec.renew_time.clone(), at: Instant::now() });
        }
        let ours = holder.as_ref() == Some(&self.identity);
        let free = holder.is_none() || self.seen.as_ref().is_some_and(|seen| seen.at.elapsed() > LEASE);
        if !ours && !free {
            return Ok(Leadership::Following(holder));
        }
        let lease = Lease { spec: Some(self.held(Some(spec), &now)), ..there };
        taken(self.leases.replace(&self.name, &write(), &lease).await)
    }

    fn held(&self, before: Option<LeaseSpec>, now: &MicroTime) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!ours))),
            renew_time: Some(now.clone()),
            ..before
        }
    }

    /// Gives the Lease up if this identity holds it, so that another replica need not wait.
    ///
    /// # Errors
    /// When the API server refused; then the others wait until the Lease is old.
    pub async fn release(client: &Client, namespace: &str, name: &str, identity: &str) -> Result<(), kube::Error> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let Some(mut lease) = leases.get_opt(name).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(identity)) else {
            return Ok(());
        };
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        leases.replace(name, &write(), &lease).await.map(drop)
    }
}

fn write() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// A conflict means that another replica was faster.
fn taken(written: Result<Lease, kube::Error>) -> Result<Leadership, kube::Error> {
    match written {
        Ok(_) => Ok(Leadership::Leading),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Leadership::Following(None)),
        Err(error) => Err(error),
    }
}
