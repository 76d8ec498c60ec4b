//! Tells the sinks' threads what sinks there are. Every replica does: each delivers what is in its own outbox.

use std::{collections::HashMap, time::Duration};

use api::{
    Kind, ResourceId,
    condition::Reason,
    labels,
    sink::{AlertSinkSpec, AlertSinkStatus},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    cluster::Cluster,
    leader::Leadership,
    sinks::{Observed, Problem, SinkSet},
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
    let quota = cluster.configuration().quotas().per_namespace_sinks();
    grant(&mut all, quota);
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// Refuses AlertSinks beyond the quota of their namespace, the youngest first: each has a thread and a queue.
fn grant(sinks: &mut [Observed], quota: u32) {
    sinks.sort_by(|a, b| (a.created, &a.uid).cmp(&(b.created, &b.uid)));
    let mut granted: HashMap<Box<str>, u32> = HashMap::new();
    for sink in sinks.iter_mut().filter(|sink| sink.id.kind.namespaced()) {
        let count = granted.entry(sink.id.namespace.clone()).or_default();
        *count += 1;
        sink.refused = (*count > quota).then(|| Problem {
            reason: Reason::QuotaExceeded,
            message: format!(
                "the namespace has more than {quota} AlertSinks, and older ones come first; remove one, or ask for a larger \
                 quotas.perNamespaceSinks in the SensorConfig"
            ),
            stalled: true,
        });
    }
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
        created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        generation: metadata.generation.unwrap_or_default(),
        spec: spec.clone(),
        test: metadata.annotations.as_ref().and_then(|annotations| annotations.get(labels::TEST).cloned()),
        status: status.cloned(),
        refused: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(kind: Kind, namespace: &str, created: i64) -> Observed {
        let name = format!("sink-{created}");
        Observed {
            id: ResourceId { kind, namespace: namespace.into(), name: name.as_str().into() },
            uid: name.as_str().into(),
            created,
            generation: 1,
            spec: AlertSinkSpec::default(),
            test: None,
            status: None,
            refused: None,
        }
    }

    #[test]
    fn the_oldest_sinks_of_each_namespace_stay_within_the_quota() {
        let mut sinks: Vec<_> = (1..=4).rev().map(|created| sink(Kind::AlertSink, "shop", created)).collect();
        sinks.push(sink(Kind::AlertSink, "bank", 9));
        sinks.extend((5..=8).map(|created| sink(Kind::ClusterAlertSink, "", created)));
        grant(&mut sinks, 2);
        let refused: Vec<_> = sinks.iter().filter(|sink| sink.refused.is_some()).map(|sink| sink.created).collect();
        assert_eq!(refused, [3, 4]);
        let reason = sinks.iter().find_map(|sink| sink.refused.as_ref()).map(|problem| problem.reason);
        assert_eq!(reason, Some(Reason::QuotaExceeded));
    }
}
