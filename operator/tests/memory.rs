//! What the operator keeps of the pods of a large cluster. A process of its own, so that nothing else takes memory meanwhile.

use operator::cluster::{pods::Pods, slim::SlimPod};
use serde_json::json;

/// Pods, on a thousand nodes.
const PODS: usize = 30_000;
/// Bytes for each, with all that goes with it.
const EACH: usize = 800;

/// A pod of a Deployment of ten, as an API server would send it.
fn pod(number: usize) -> String {
    let deployment = format!("checkout-{:04}", number / 10);
    let set = format!("{deployment}-5d59d67564");
    json!({
        "metadata": {
            "name": format!("{set}-{number:05}"), "namespace": format!("team-{}", number % 100),
            "uid": format!("3f0c3a2e-1111-4222-8333-{number:012}"), "resourceVersion": number.to_string(),
            "labels": {
                "app.kubernetes.io/name": deployment, "app.kubernetes.io/part-of": "shop", "pod-template-hash": "5d59d67564",
                "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            },
            "annotations": {"example.org/config": "x".repeat(500)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": "u", "controller": true}],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:conditions": {"x".repeat(2000): {}}}}}],
        },
        "spec": {"nodeName": format!("node-{:04}", number % 1000), "serviceAccountName": "default", "containers": []},
        "status": {"phase": "Running", "podIP": format!("10.{}.{}.7", number / 256, number % 256)},
    })
    .to_string()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0) << 10
}

#[test]
fn thirty_thousand_pods_take_less_than_24_mib() {
    let pods = Pods::default();
    // What the first of them needs anyway is not counted.
    pods.set(&serde_json::from_str::<SlimPod>(&pod(0)).expect("a pod"));
    let before = resident_bytes();
    for number in 0..PODS {
        pods.set(&serde_json::from_str::<SlimPod>(&pod(number)).expect("a pod"));
    }
    let taken = resident_bytes().saturating_sub(before);
    println!("{} bytes for each pod", taken / PODS);
    assert!(taken <= PODS * EACH, "{taken} bytes, {} for each pod", taken / PODS);
}
