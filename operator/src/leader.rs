//! Which replica leads: a Lease, held by whoever renewed it last.
//!
//! As in client-go, a holder renews every two seconds, others may take a Lease that nobody renewed for fifteen, measured
//! on their own clock from when they saw it change, and every write carries the version that was read, so that of two
//! takers one fails.
//!
//! Otherwise than in client-go, a holder that could not renew for ten seconds does not end: while the API server is away
//! nobody can take the Lease, and alerts must go on to their sinks. It is [`Leadership::Unsure`] then: it takes and delivers
//! alerts, and writes nothing to the cluster. When the API server is back, the Lease says who leads. For the same reason
//! others begin to measure anew when they could not look for so long.

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
/// A holder that could not renew for so long does not know whether it still leads.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How long the API server may take for an attempt.
const ANSWER: Duration = Duration::from_secs(5);
/// Time between two renewals.
const RENEW: Duration = Duration::from_secs(2);
/// Time between two looks of those that do not hold it: an old Lease should be found soon.
const LOOK: Duration = Duration::from_secs(1);

/// Who leads, as far as this replica knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This replica.
    Leading,
    /// This replica did, and the API server has not said for a while whether it still does.
    Unsure,
    /// Another one; its identity, or none when that isn't known.
    Following(Option<String>),
}

impl Leadership {
    /// Whether this replica leads, or did when the API server was last heard.
    pub fn ours(&self) -> bool {
        match self {
            Self::Leading | Self::Unsure => true,
            Self::Following(_) => false,
        }
    }
}

/// What an attempt to hold the Lease came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Attempt {
    /// It is ours, and was renewed now.
    Held,
    /// It is another replica's.
    Others(Option<String>),
    /// The API server did not say, or another write came between.
    Unanswered,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// So it is now.
    Is(Leadership),
    /// Nothing is known that was not before.
    Same,
    /// This replica led, and another one does now.
    Lost,
}

/// What this replica remembers of its attempts. Pure: times come in.
#[derive(Debug, Default)]
struct Standing {
    /// When the Lease was last renewed by us.
    renewed: Option<Instant>,
}

impl Standing {
    fn take(&mut self, attempt: Attempt, now: Instant) -> Verdict {
        match (attempt, self.renewed) {
            (Attempt::Held, _) => {
                self.renewed = Some(now);
                Verdict::Is(Leadership::Leading)
            }
            (Attempt::Others(_), Some(_)) => Verdict::Lost,
            (Attempt::Others(holder), None) => Verdict::Is(Leadership::Following(holder)),
            (Attempt::Unanswered, Some(renewed)) if now.saturating_duration_since(renewed) > RENEW_DEADLINE => {
                Verdict::Is(Leadership::Unsure)
            }
            (Attempt::Unanswered, Some(_) | None) => Verdict::Same,
        }
    }
}

/// Takes part in the election until the task is dropped.
#[derive(Debug)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    seen: Seen,
}

/// The Lease as it was when it last changed, as far as others than its holder are concerned.
#[derive(Debug, Default)]
struct Seen {
    /// Holder and time of renewal, and when they were first seen so.
    state: Option<(Option<String>, Option<MicroTime>, Instant)>,
    /// When it was last looked at.
    looked: Option<Instant>,
}

impl Seen {
    /// Takes in what the Lease says; whether nobody holds it any more.
    fn look(&mut self, holder: Option<String>, renewed: Option<MicroTime>, now: Instant) -> bool {
        // Who could not look does not know that nobody renewed: the holder could not either.
        let blind = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) > RENEW_DEADLINE);
        self.looked = Some(now);
        let since = match &self.state {
            Some((known, at, since)) if !blind && *known == holder && *at == renewed => *since,
            _ => now,
        };
        let free = holder.is_none() || now.saturating_duration_since(since) > LEASE;
        self.state = Some((holder, renewed, since));
        free
    }
}

impl Election {
    /// For the Lease of this name; `identity` tells this replica from others, and where it listens.
    pub fn new(client: &Client, namespace: &str, name: &str, identity: String) -> Self {
        let leases = Api::namespaced(client.clone(), namespace);
        Self { leases, name: name.to_owned(), identity, seen: Seen::default() }
    }

    /// Runs until another replica leads that this one did before, which a program should answer by ending: it comes back
    /// as a follower with a clean state. Says through `leadership` who leads.
    pub async fn run(mut self, leadership: &watch::Sender<Leadership>) {
        let mut standing = Standing::default();
        loop {
            let attempt = match tokio::time::timeout(ANSWER, self.attempt()).await {
                Ok(Ok(attempt)) => attempt,
                Ok(Err(error)) => {
                    debug!(lease = self.name, error = %link::chain(&error), "cannot use the lease");
                    Attempt::Unanswered
                }
                Err(_) => {
                    debug!(lease = self.name, "the API server does not answer about the lease");
                    Attempt::Unanswered
                }
            };
            match standing.take(attempt, Instant::now()) {
                Verdict::Lost => {
                    warn!(lease = self.name, "another replica took the lease");
                    return;
                }
                Verdict::Same => {}
                Verdict::Is(now) => {
                    if leadership.send_if_modified(|before| std::mem::replace(before, now.clone()) != now) {
                        self.tell(&now);
                    }
                }
            }
            tokio::time::sleep(if leadership.borrow().ours() { RENEW } else { LOOK }).await;
        }
    }

    fn tell(&self, now: &Leadership) {
        match now {
            Leadership::Leading => info!(lease = self.name, identity = self.identity, "leading"),
            Leadership::Unsure => warn!(
                lease = self.name,
                "the API server does not answer, so the lease cannot be renewed: alerts go on to their sinks; statuses, Events and new rules wait until it does"
            ),
            Leadership::Following(leader) => debug!(lease = self.name, leader, "following"),
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
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
        let ours = holder.as_ref() == Some(&self.identity);
        let free = self.seen.look(holder.clone(), spec.renew_time.clone(), Instant::now());
        if !ours && !free {
            return Ok(Attempt::Others(holder));
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

/// After a conflict the next attempt tells who was faster: it may have been an earlier request of our own, whose answer
/// was lost.
fn taken(written: Result<Lease, kube::Error>) -> Result<Attempt, kube::Error> {
    match written {
        Ok(_) => Ok(Attempt::Held),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Unanswered),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows from attempts, each so many seconds after the start.
    fn run(attempts: &[(u64, Attempt)]) -> Vec<Verdict> {
        let (mut standing, start) = (Standing::default(), Instant::now());
        let take = |(at, attempt): &(u64, Attempt)| standing.take(attempt.clone(), start + Duration::from_secs(*at));
        attempts.iter().map(take).collect()
    }

    fn other() -> Attempt {
        Attempt::Others(Some("b".to_owned()))
    }

    #[test]
    fn a_leader_that_cannot_ask_goes_on_for_ten_seconds_and_then_is_unsure() {
        use Attempt::{Held, Unanswered};
        let verdicts = run(&[(0, Held), (8, Unanswered), (11, Unanswered), (600, Unanswered)]);
        let (leading, unsure) = (Verdict::Is(Leadership::Leading), Verdict::Is(Leadership::Unsure));
        assert_eq!(verdicts, [leading, Verdict::Same, unsure.clone(), unsure]);
    }

    #[test]
    fn an_unsure_leader_leads_again_when_the_lease_is_still_its_own() {
        use Attempt::{Held, Unanswered};
        let verdicts = run(&[(0, Held), (60, Unanswered), (61, Held), (65, Unanswered)]);
        assert_eq!(verdicts.get(2), Some(&Verdict::Is(Leadership::Leading)));
        assert_eq!(verdicts.get(3), Some(&Verdict::Same));
    }

    #[test]
    fn who_led_ends_as_soon_as_another_leads() {
        use Attempt::{Held, Unanswered};
        assert_eq!(run(&[(0, Held), (2, other())]).last(), Some(&Verdict::Lost));
        assert_eq!(run(&[(0, Held), (60, Unanswered), (61, other())]).last(), Some(&Verdict::Lost));
    }

    #[test]
    fn who_never_led_follows_and_is_never_unsure() {
        let follows = Verdict::Is(Leadership::Following(Some("b".to_owned())));
        assert_eq!(run(&[(0, other()), (60, Attempt::Unanswered)]), [follows, Verdict::Same]);
    }

    /// Whether the Lease, last renewed by another one at the start, is free at these seconds.
    fn free(looks: &[u64]) -> Vec<bool> {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let renewed = Some(MicroTime(Timestamp::UNIX_EPOCH));
        let look = |at: &u64| seen.look(Some("b".to_owned()), renewed.clone(), start + Duration::from_secs(*at));
        looks.iter().map(look).collect()
    }

    #[test]
    fn a_lease_that_nobody_renews_is_free_after_fifteen_seconds() {
        assert_eq!(free(&[0, 5, 10, 14, 16]), [false, false, false, false, true]);
    }

    #[test]
    fn the_time_in_which_nobody_could_look_does_not_count() {
        assert_eq!(free(&[0, 5, 65, 70, 75, 79, 81]), [false, false, false, false, false, false, true]);
    }

    #[test]
    fn a_lease_that_was_given_up_is_free_at_once() {
        let mut seen = Seen::default();
        assert!(!seen.look(Some("b".to_owned()), None, Instant::now()));
        assert!(seen.look(None, None, Instant::now()));
    }
}
