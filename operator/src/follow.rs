//! Tells the sinks' threads what sinks there are. Every replica does: each delivers what is in its own outbox.

use std::time::Duration;

use api::{
    Kind, ResourceId, labels,
    sink::{AlertSinkSpec, AlertSinkStatus},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    cluster::Cluster,
    leader::Leadership,
    sinks::{Observed, SinkSet},
};

/// All sinks.
pub fn observe(cluster: &Cluster) -> Vec<Observed> {
    let namespaced = cluster
        .sinks
        .state()
        .into_iter()
        .filter_map(|sink| observed(Kind::AlertSink, &sink.metadata, &sink.spec, sink.status.as_ref()));
    let whole = cluster
        .cluster_sinks
        .state()
        .into_iter()
        .filter_map(|sink| observed(Kind::ClusterAlertSink, &sink.metadata, &sink.spec.0, sink.status.as_ref()));
    let mut all: Vec<_> = namespaced.chain(whole).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

fn observed(
    kind: Kind,
    metadata: &ObjectMeta,
    spec: &AlertSinkSpec,
    status: Option<&AlertSinkStatus>,
) -> Option<Observed> {
    // What is being deleted is gone.
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    Some(Observed {
        id: ResourceId { kind, namespace: text(&metadata.namespace), name: text(&metadata.name) },
        uid: metadata.uid.as_deref()?.into(),
        generation: metadata.generation.unwrap_or_default(),
        spec: spec.clone(),
        test: metadata.annotations.as_ref().and_then(|annotations| annotations.get(labels::TEST).cloned()),
        status: status.cloned(),
    })
}

/// Follows the sinks until the program ends.
pub async fn follow(cluster: Cluster, sinks: SinkSet, mut leadership: watch::Receiver<Leadership>) {
    let mut last = None;
    loop {
        let leading = leadership.borrow_and_update().ours();
        let now = observe(&cluster);
        // Statuses are written by ourselves; they matter only when a sink is new here.
        let basis: Vec<_> = now.iter().map(|sink| Observed { status: None, ..sink.clone() }).collect();
        let basis = Some((basis, leading));
        if last != basis {
            match sinks.apply(now, leading).await {
                Ok(()) => last = basis,
                Err(error) => {
                    warn!(error = %link::chain(&error), "sinks are not applied; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            }
        }
        tokio::select! {
            _ = cluster.sink_changes.next() => {}
            changed = leadership.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
