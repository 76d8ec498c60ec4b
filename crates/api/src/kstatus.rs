//! What Flux, `kustomize` and the health checks of Argo CD conclude from a resource: kstatus' decisions, for tests.
//!
//! Nothing in Gyrfalcon decides by this. Whoever writes a status tests with it what a pipeline that waits for the
//! resource would do: go on, wait, or give up. The rules are those of `sigs.k8s.io/cli-utils/pkg/kstatus` for custom
//! resources, <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>.

use serde_json::Value;

/// What a pipeline that waits for a resource does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It goes on: what was declared is in force.
    Current,
    /// It waits, until its own time limit.
    InProgress,
    /// It gives up: without a change by someone nothing more will happen.
    Failed,
    /// It waits until the object is gone.
    Terminating,
}

/// The conclusion from an object's `metadata.generation` and its `status`, which is null before the first writer came.
pub fn kstatus(generation: i64, status: &Value) -> Status {
    // Only a generation that is there can be old: without one kstatus believes the conditions, or, without those, that
    // all is well. Hence the schema's default of -1.
    if status["observedGeneration"].as_i64().is_some_and(|observed| observed != generation) {
        return Status::InProgress;
    }
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Whichever of the two comes first decides, so a status must not have both.
    for condition in conditions.iter().filter(|condition| condition["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return Status::InProgress,
            Some("Stalled") => return Status::Failed,
            _ => {}
        }
    }
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    match ready {
        Some(ready) if ready["status"] != "True" => Status::InProgress,
        Some(_) | None => Status::Current,
    }
}

/// The conclusion from a whole object, which may be about to be deleted.
pub fn kstatus_of(object: &Value) -> Status {
    let metadata = &object["metadata"];
    if metadata["deletionTimestamp"].as_str().is_some_and(|time| !time.is_empty()) {
        return Status::Terminating;
    }
    kstatus(metadata["generation"].as_i64().unwrap_or_default(), &object["status"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The stages of a rule's or sink's life, as their conditions have to tell them. `Type=Status` each.
    const STAGES: &[(&str, i64, &[&str], Status)] = &[
        ("created, nobody has looked", -1, &[], Status::InProgress),
        ("edited, the edit is not seen yet", 1, &["Ready=True", "Accepted=True"], Status::InProgress),
        ("accepted, on its way to the nodes", 2, &["Ready=Unknown", "Reconciling=True"], Status::InProgress),
        ("half of the nodes run it", 2, &["Ready=False", "Reconciling=True", "Programmed=False"], Status::InProgress),
        ("a source is away for a moment", 2, &["Ready=False", "Reconciling=True"], Status::InProgress),
        ("a mistake in it", 2, &["Ready=False", "Stalled=True", "Accepted=False"], Status::Failed),
        ("some nodes refused it", 2, &["Ready=False", "Stalled=True", "Programmed=False"], Status::Failed),
        ("every node runs it", 2, &["Ready=True", "Accepted=True", "Programmed=True"], Status::Current),
        ("every node runs it, under attack", 2, &["Ready=True", "AlertStorm=True"], Status::Current),
        ("suspended by its owner", 2, &["Ready=True", "Accepted=True"], Status::Current),
    ];

    #[test]
    fn every_stage_of_a_resource_is_told_to_pipelines() {
        for (stage, observed, conditions, expected) in STAGES {
            let conditions: Vec<Value> = conditions
                .iter()
                .filter_map(|condition| condition.split_once('='))
                .map(|(type_, status)| json!({"type": type_, "status": status}))
                .collect();
            let status = json!({"observedGeneration": observed, "conditions": conditions});
            assert_eq!(kstatus(2, &status), *expected, "{stage}");
        }
    }

    #[test]
    fn without_a_ready_condition_anything_passes_for_well() {
        assert_eq!(kstatus(2, &Value::Null), Status::Current);
        assert_eq!(kstatus(2, &json!({"observedGeneration": 2, "conditions": []})), Status::Current);
    }

    #[test]
    fn deletion_comes_before_everything() {
        let metadata = json!({"generation": 2, "deletionTimestamp": "2026-11-24T06:40:12Z"});
        let status = json!({"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(kstatus_of(&json!({"metadata": metadata, "status": status})), Status::Terminating);
        assert_eq!(kstatus_of(&json!({"metadata": {"generation": 2}, "status": status})), Status::Current);
    }
}
