//! Falco's official rules on the audit log, on events as the API server sends them: which match, and which must not.

use event::{
    audit::{AuditEvent, Surroundings, json::Limits},
    fields::EventSource,
    value::Arena,
};
use gyrfalcon_rules as rules;
use libtest_mimic::Failed;
use rules::{
    load::{Loader, Options, RuleMatching},
    ruleset::{Evaluation, Ruleset},
};
use serde_json::{Value, json};

use super::Suite;

/// An event of `kubernetes-admin`, answered with 201 unless it says otherwise.
fn event(verb: &str, resource: &str, rest: Value) -> Value {
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "7f1a",
        "stage": "ResponseComplete", "requestURI": "/", "verb": verb, "user": {"username": "kubernetes-admin"},
        "objectRef": {"resource": resource, "namespace": "shop", "name": "it"}, "responseStatus": {"code": 201},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.000001Z", "stageTimestamp": "2026-01-02T03:04:05.678901Z",
        "annotations": {"authorization.k8s.io/decision": "allow"},
    });
    merge(&mut event, rest);
    event
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn pod(spec: Value) -> Value {
    event(
        "create",
        "pods",
        json!({"requestObject": {"kind": "Pod", "spec": spec}, "responseObject": {"metadata": {"name": "web-1"}}}),
    )
}

fn containers(security: Value) -> Value {
    json!({"containers": [{"name": "c", "image": "localhost:5000/app:1", "securityContext": security}]})
}

/// What an event is, and the rules that match it among those at NOTICE or above.
fn cases() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let exec = |stage: &str| {
        let uri = "/api/v1/namespaces/shop/pods/web/exec?command=sh&command=-c&command=id&container=c";
        event(
            "create",
            "pods",
            json!({"stage": stage, "requestURI": uri, "objectRef": {"subresource": "exec"}, "responseStatus": {"code": 101}}),
        )
    };
    let role = |resource: &str, rules: Value| event("create", resource, json!({"requestObject": {"rules": rules}}));
    let ephemeral = json!({"ephemeralContainers": [{"name": "dbg", "image": "busybox"}]});
    vec![
        ("plain pod", pod(containers(json!({}))), &[]),
        ("privileged pod", pod(containers(json!({"privileged": true}))), &["Create Privileged Pod"]),
        ("privileged: false", pod(containers(json!({"privileged": false}))), &[]),
        (
            "privileged init container",
            pod(json!({"containers": [{"image": "a"}], "initContainers": [{"securityContext": {"privileged": true}}]})),
            &["Create Privileged Pod"],
        ),
        (
            "privileged pod of a trusted image with a tag",
            pod(
                json!({"containers": [{"image": "docker.io/calico/node:v3", "securityContext": {"privileged": true}}]}),
            ),
            &[],
        ),
        (
            "privileged pod before its answer",
            {
                let mut e = pod(containers(json!({"privileged": true})));
                e["stage"] = json!("RequestReceived");
                e
            },
            &[],
        ),
        (
            "privileged deployment",
            event(
                "create",
                "deployments",
                json!({"requestObject": {"spec": {"template": {"spec": containers(json!({"privileged": true}))}}}}),
            ),
            &[],
        ),
        (
            "host network",
            pod(json!({"hostNetwork": true, "containers": [{"image": "a"}]})),
            &["Create HostNetwork Pod"],
        ),
        (
            "host pid and ipc",
            pod(json!({"hostPID": true, "hostIPC": true, "containers": [{"image": "a"}]})),
            &["Create HostPid Pod", "Create HostIPC Pod"],
        ),
        (
            "sensitive mount",
            pod(
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/etc/kubernetes"}}], "containers": [{"image": "a"}]}),
            ),
            &["Create Sensitive Mount Pod"],
        ),
        (
            "other mount",
            pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/data"}}], "containers": [{"image": "a"}]})),
            &[],
        ),
        (
            "node port",
            event(
                "create",
                "services",
                json!({"requestObject": {"spec": {"type": "NodePort", "ports": [{"port": 80}]}}}),
            ),
            &["Create NodePort Service"],
        ),
        ("cluster ip", event("create", "services", json!({"requestObject": {"spec": {"type": "ClusterIP"}}})), &[]),
        (
            "credentials in a config map",
            event("update", "configmaps", json!({"requestObject": {"data": {"a": "aws_access_key_id = AKIA"}}})),
            &["Create/Modify Configmap With Private Credentials"],
        ),
        ("harmless config map", event("create", "configmaps", json!({"requestObject": {"data": {"a": "b"}}})), &[]),
        (
            "allowed anonymous request",
            event("get", "pods", json!({"user": {"username": "system:anonymous"}, "requestURI": "/api"})),
            &["Anonymous Request Allowed"],
        ),
        (
            "anonymous health check",
            event("get", "pods", json!({"user": {"username": "system:anonymous"}, "requestURI": "/healthz?verbose"})),
            &[],
        ),
        (
            "refused anonymous request",
            event(
                "get",
                "pods",
                json!({"user": {"username": "system:anonymous"}, "annotations": {"authorization.k8s.io/decision": "forbid"}}),
            ),
            &[],
        ),
        ("unknown user", event("get", "pods", json!({"user": {"username": "mallory"}})), &["Disallowed K8s User"]),
        ("exec", exec("ResponseStarted"), &["Attach/Exec Pod"]),
        ("exec when it ends", exec("ResponseComplete"), &[]),
        (
            "port forward",
            event("create", "pods", json!({"objectRef": {"subresource": "portforward"}, "stage": "ResponseStarted"})),
            &["port-forward"],
        ),
        (
            "ephemeral container",
            event(
                "patch",
                "pods",
                json!({"objectRef": {"subresource": "ephemeralcontainers"}, "requestObject": {"spec": ephemeral}}),
            ),
            &["EphemeralContainers Created"],
        ),
        ("namespace", event("create", "namespaces", json!({})), &["Create Disallowed Namespace"]),
        ("allowed namespace", event("create", "namespaces", json!({"objectRef": {"name": "default"}})), &[]),
        (
            "pod in kube-system",
            {
                let mut e = pod(containers(json!({})));
                e["objectRef"]["namespace"] = json!("kube-system");
                e
            },
            &["Pod Created in Kube Namespace"],
        ),
        (
            "known pod in kube-system",
            {
                let mut e = pod(json!({"containers": [{"image": "registry.k8s.io/kube-apiserver:v1"}]}));
                e["objectRef"]["namespace"] = json!("kube-system");
                e
            },
            &[],
        ),
        (
            "service account in kube-system",
            event("create", "serviceaccounts", json!({"objectRef": {"namespace": "kube-system", "name": "x"}})),
            &["Service Account Created in Kube Namespace"],
        ),
        (
            "known service account in kube-system",
            event("create", "serviceaccounts", json!({"objectRef": {"namespace": "kube-system", "name": "coredns"}})),
            &[],
        ),
        (
            "system cluster role",
            event("delete", "clusterroles", json!({"objectRef": {"name": "system:node"}})),
            &["System ClusterRole Modified/Deleted"],
        ),
        (
            "cluster-admin binding",
            event(
                "create",
                "clusterrolebindings",
                json!({"requestObject": {"roleRef": {"name": "cluster-admin"}, "subjects": [{"kind": "User", "name": "eve"}]}}),
            ),
            &["Attach to cluster-admin Role"],
        ),
        (
            "other binding",
            event("create", "clusterrolebindings", json!({"requestObject": {"roleRef": {"name": "view"}}})),
            &[],
        ),
        (
            "wildcard role",
            role("roles", json!([{"resources": ["*"], "verbs": ["get"]}])),
            &["ClusterRole With Wildcard Created"],
        ),
        (
            "wildcard cluster role",
            role("clusterroles", json!([{"resources": ["pods"], "verbs": ["*"]}])),
            &["ClusterRole With Wildcard Created"],
        ),
        (
            "writing role",
            role("roles", json!([{"resources": ["pods"], "verbs": ["get", "create"]}])),
            &["ClusterRole With Write Privileges Created"],
        ),
        (
            "role with exec",
            role("roles", json!([{"resources": ["pods/exec"], "verbs": ["get"]}])),
            &["ClusterRole With Pod Exec Created"],
        ),
        ("reading role", role("roles", json!([{"resources": ["pods"], "verbs": ["get"]}])), &[]),
        ("role without its object", event("create", "roles", json!({"level": "Metadata"})), &[]),
        ("secret", event("get", "secrets", json!({"responseStatus": {"code": 200}})), &["K8s Secret Get Successfully"]),
        (
            "refused secret",
            event("get", "secrets", json!({"responseStatus": {"code": 403}})),
            &["K8s Secret Get Unsuccessfully Tried"],
        ),
        (
            "ingress without certificate",
            event("create", "ingresses", json!({"requestObject": {"spec": {"rules": []}}})),
            &["Ingress Object without TLS Certificate Created"],
        ),
        (
            "ingress with certificate",
            event("create", "ingresses", json!({"requestObject": {"spec": {"tls": [{"hosts": ["a"]}]}}})),
            &[],
        ),
        (
            "a patch that is a list",
            event(
                "patch",
                "pods",
                json!({"requestObject": [{"op": "add", "path": "/spec/hostNetwork", "value": true}]}),
            ),
            &[],
        ),
    ]
}

/// Loads the rules and runs the cases.
pub fn run(text: &str) -> Result<(), Failed> {
    let mut options =
        Options { sources: EventSource::ALL.to_vec(), rule_matching: RuleMatching::All, ..Options::default() };
    options.minimum_priority = rules::alert::Priority::Notice;
    let mut loader = Loader::new(options);
    loader.add("rules.yaml", text.as_bytes());
    let ruleset = loader.finish().ruleset.ok_or("the ruleset has errors")?;
    let mut suite = Suite::new("audit");
    for (name, event, wanted) in cases() {
        suite.case(name, case(&ruleset, &event, wanted));
    }
    suite.finish("k8s_audit_rules.yaml on events")
}

fn case(ruleset: &Ruleset, event: &Value, wanted: &[&str]) -> Result<(), String> {
    let (text, surroundings, arena) = (event.to_string(), Surroundings::default(), Arena::new());
    let event =
        AuditEvent::parse(text.as_bytes(), Limits::default(), 1, &surroundings, &arena).map_err(|e| e.to_string())?;
    let (mut matched, mut alerts) = (Vec::new(), Vec::new());
    ruleset.matches(&event, &mut Evaluation::default(), |rule| {
        matched.push(rule.name());
        alerts.push(rule);
    });
    if matched != wanted {
        return Err(format!("{matched:?} matched instead of {wanted:?}"));
    }
    for rule in alerts {
        let alert = serde_json::to_value(ruleset.alert(rule, &event)).map_err(|e| e.to_string())?;
        if alert["source"] != "k8s_audit" || alert["time"] != "2026-01-02T03:04:05.678901000Z" {
            return Err(format!("the alert is not that of an audit event: {alert}"));
        }
    }
    Ok(())
}
