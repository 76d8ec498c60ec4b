//! Writes what the loop decided, without holding it up.

use std::{sync::Arc, time::Duration};

use api::{GROUP, Kind, ResourceId, VERSION};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{debug, warn};

use crate::{leader::Leadership, metrics::Metrics, names::FIELD_MANAGER, rules::keep::Keep, sensors::Offer};

/// Writes at one time.
const AT_ONCE: usize = 8;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An object whose status is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Which one it is.
    pub id: ResourceId,
    /// Uid of the Node that owns it, for a SensorNode: one that isn't there is made.
    pub owner: Option<Box<str>>,
}

/// What became of a write.
#[derive(Debug)]
pub struct Written {
    /// Of which object.
    pub key: Key,
    /// What was written.
    pub value: Value,
    /// Whether the API server has it.
    pub succeeded: bool,
}

/// Writes.
pub struct Hand {
    client: Client,
    metrics: Metrics,
    places: Arc<Semaphore>,
    leadership: watch::Receiver<Leadership>,
    writes: JoinSet<Written>,
    keeping: Option<tokio::task::JoinHandle<()>>,
}

impl Hand {
    /// Writes with this client, while this replica leads.
    pub fn new(client: Client, metrics: Metrics, leadership: watch::Receiver<Leadership>) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { client, metrics, places, leadership, writes: JoinSet::new(), keeping: None }
    }

    /// Begins to write a status; `make` when the object is known not to be there yet.
    pub fn write(&mut self, key: Key, value: Value, make: bool) {
        let (client, places, metrics) = (self.client.clone(), Arc::clone(&self.places), self.metrics.clone());
        let mut leadership = self.leadership.clone();
        self.writes.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            leads(&mut leadership).await;
            let written = tokio::time::timeout(PATIENCE, write(&client, &key, &value, make)).await;
            let succeeded = match written {
                Ok(Ok(())) => true,
                // It was deleted meanwhile.
                Ok(Err(kube::Error::Api(status))) if status.code == 404 && key.owner.is_none() => true,
                Ok(Err(error)) => {
                    debug!(object = %key.id, error = %link::chain(&error), "a status was not written; trying again");
                    false
                }
                Err(_) => {
                    debug!(object = %key.id, "the API server takes too long to write a status; trying again");
                    false
                }
            };
            match succeeded {
                true => metrics.status_written.inc(),
                false => metrics.status_failed.inc(),
            };
            Written { key, value, succeeded }
        });
    }

    /// Waits for the next write that ends. Never ready while there is none.
    pub async fn finished(&mut self) -> Written {
        loop {
            match self.writes.join_next().await {
                Some(Ok(written)) => return written,
                // A write that panicked is a defect; what it was to write is planned again.
                Some(Err(error)) => warn!(error = %link::chain(&error), "a write ended badly"),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for all writes, for so long at most.
    pub async fn finish(&mut self, patience: Duration) {
        // What is not written by then, the next leader writes.
        let _ = tokio::time::timeout(patience, async { while self.writes.join_next().await.is_some() {} }).await;
    }

    /// Keeps a bundle, however long it takes; a newer one takes its place.
    pub fn keep(&mut self, keep: &Keep, offer: Offer) {
        if let Some(before) = self.keeping.take() {
            before.abort();
        }
        let (keep, mut leadership) = (keep.clone(), self.leadership.clone());
        self.keeping = Some(tokio::spawn(async move {
            let mut wait = Duration::from_secs(1);
            loop {
                leads(&mut leadership).await;
                let Err(error) = keep.save(&offer.bytes).await else { return };
                warn!(error = %link::chain(&error), "the bundle is not kept in the cluster yet; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(60));
            }
        }));
    }
}

/// Waits until this replica leads: what it decided before, another one may have decided otherwise.
async fn leads(leadership: &mut watch::Receiver<Leadership>) {
    // Without a sender the program is ending.
    let _ = leadership.wait_for(|now| *now == Leadership::Leading).await;
}

async fn write(client: &Client, key: &Key, value: &Value, make: bool) -> Result<(), kube::Error> {
    let name = &*key.id.name;
    let api = api(client, &key.id);
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let version = format!("{GROUP}/{VERSION}");
    let patch = json!({
        "apiVersion": version,
        "kind": key.id.kind.name(),
        "metadata": {"name": name},
        "status": value,
    });
    let owner = match (&key.owner, make) {
        (Some(owner), true) => owner,
        _ => {
            let written = api.patch_status(name, &apply, &Patch::Apply(&patch)).await;
            let missing = matches!(&written, Err(kube::Error::Api(status)) if status.code == 404);
            let Some(owner) = key.owner.as_ref().filter(|_| missing) else { return written.map(drop) };
            owner
        }
    };
    let object = json!({
        "apiVersion": version,
        "kind": key.id.kind.name(),
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner}],
        },
        "spec": {},
    });
    api.patch(name, &apply, &Patch::Apply(&object)).await?;
    api.patch_status(name, &apply, &Patch::Apply(&patch)).await.map(drop)
}

fn api(client: &Client, id: &ResourceId) -> Api<DynamicObject> {
    let plural = match id.kind {
        Kind::FalcoRule => "falcorules",
        Kind::ClusterFalcoRule => "clusterfalcorules",
        Kind::AlertSink => "alertsinks",
        Kind::ClusterAlertSink => "clusteralertsinks",
        Kind::SensorConfig => "sensorconfigs",
        Kind::SensorNode => "sensornodes",
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, id.kind.name()), plural);
    match id.kind.namespaced() {
        true => Api::namespaced_with(client.clone(), &id.namespace, &resource),
        false => Api::all_with(client.clone(), &resource),
    }
}
