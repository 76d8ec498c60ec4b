//! What the fields of the audit log say about real shapes of events: the values of Falco's plugin, and where that is wrong, the
//! right ones.

use event::{
    audit::{AuditEvent, Level, Surroundings, json::Limits},
    fields::{self, Arg, ArgRule, EventSource, Subject},
    value::{Arena, Value},
};
use gyrfalcon_event as event;
use proptest::prelude::*;
use serde_json::json;

fn surroundings() -> Surroundings {
    Surroundings { hostname: "receiver".into(), utc_offset_s: 3600 }
}

fn show(value: Option<Value<'_>>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match value {
        None => "-".to_owned(),
        Some(Value::Text(bytes)) => text(bytes),
        Some(Value::List(items)) => {
            format!("({})", items.iter().map(|item| show(Some(*item))).collect::<Vec<_>>().join(","))
        }
        Some(Value::Uint(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
    }
}

/// The value of a field as filters and outputs name it, of an event with what every event has.
fn get(mut event: serde_json::Value, name: &str) -> String {
    let members = event.as_object_mut().expect("an object");
    members.entry("auditID").or_insert(json!("a1"));
    members.entry("stageTimestamp").or_insert(json!("2024-02-29T12:34:56.000007Z"));
    let text = event.to_string();
    let (surroundings, arena) = (surroundings(), Arena::new());
    let event = AuditEvent::parse(text.as_bytes(), Limits::default(), 7, &surroundings, &arena).expect("an event");
    let (field, rest) = EventSource::K8sAudit.lookup(name).expect("a field");
    let inside = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let arg = match (field.arg, inside) {
        (_, None) => Arg::None,
        (ArgRule::OptionalIndex, Some(index)) => Arg::Index(index.parse().expect("an index")),
        (_, Some(key)) => Arg::Key(key.into()),
    };
    show(event.field(field, &arg))
}

#[track_caller]
fn check(event: serde_json::Value, wanted: &[(&str, &str)]) {
    let got: Vec<_> = wanted.iter().map(|(name, _)| (*name, get(event.clone(), name))).collect();
    let wanted: Vec<_> = wanted.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    assert_eq!(got, wanted);
}

#[test]
fn every_field_of_the_source_is_delivered() {
    let missing = EventSource::K8sAudit.fields().filter(|field| field.audit.is_none()).map(|field| field.name);
    // No plugin renders a summary; the others do not exist for events of a single source that come in order of arrival.
    let known = ["evt.plugininfo", "evt.asynctype", "evt.reltime", "evt.reltime.s", "evt.reltime.ns"];
    let missing: Vec<_> = missing.filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn an_event_says_who_asked_for_what_and_how_it_ended() {
    let event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "x-1", "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/shop/pods?limit=500", "verb": "list",
        "user": {"username": "alice", "groups": ["dev", "system:authenticated"]},
        "impersonatedUser": {"username": "bob"},
        "sourceIPs": ["10.0.0.9", "192.168.1.1"], "userAgent": "kubectl/1.36",
        "objectRef": {"resource": "pods", "namespace": "shop", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 403, "reason": "Forbidden"},
        "annotations": {
            "authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": "no",
            "authentication.openshift.io/decision": "deny", "authentication.openshift.io/username": "o",
            "validation.policy.admission.k8s.io/validation_failure": "[{}]",
            "pod-security.kubernetes.io/audit-violations": "privileged", "cluster_name": "prod",
        },
    });
    check(
        event,
        &[
            ("ka.auditid", "x-1"),
            ("ka.stage", "ResponseComplete"),
            ("ka.verb", "list"),
            ("ka.uri", "/api/v1/namespaces/shop/pods?limit=500"),
            ("ka.uri.param[limit]", "500"),
            ("ka.uri.param[none]", "-"),
            ("ka.user.name", "alice"),
            ("ka.user.groups", "(dev,system:authenticated)"),
            ("ka.impuser.name", "bob"),
            ("ka.sourceips", "(10.0.0.9,192.168.1.1)"),
            ("ka.sourceips[1]", "(192.168.1.1)"),
            ("ka.sourceips[2]", "-"),
            ("ka.useragent", "kubectl/1.36"),
            ("ka.target.resource", "pods"),
            ("ka.target.namespace", "shop"),
            ("ka.target.name", "-"),
            ("ka.target.subresource", "-"),
            ("ka.response.code", "403"),
            ("ka.response.reason", "Forbidden"),
            ("ka.auth.decision", "forbid"),
            ("ka.auth.reason", "no"),
            ("ka.auth.openshift.decision", "deny"),
            ("ka.auth.openshift.username", "o"),
            ("ka.validations.admission.policy.failure", "[{}]"),
            ("ka.security.pod.violations", "privileged"),
            ("ka.cluster.name", "prod"),
            ("jevt.value[/stage]", "ResponseComplete"),
            ("jevt.value[/user/groups]", r#"["dev","system:authenticated"]"#),
            ("jevt.value[/responseStatus/code]", "403"),
            ("jevt.value[/nothing]", "-"),
            ("json.value[/user/groups/0]", "dev"),
            ("jevt.rawtime", "1709210096000007000"),
            ("evt.num", "7"),
            ("evt.source", "k8s_audit"),
            ("evt.pluginname", "k8saudit"),
            ("evt.hostname", "receiver"),
            ("evt.time", "13:34:56.000007000"),
            ("evt.time.iso8601", "2024-02-29T12:34:56.000007000+0000"),
            ("evt.datetime.s", "2024-02-29 13:34:56"),
        ],
    );
}

#[test]
fn parameters_of_the_uri_are_decoded_and_all_told() {
    let uri =
        "/api/v1/namespaces/d/pods/p/exec?command=sh&command=-c&command=cat+%2Fetc%2Fpasswd&stdin=true&empty&%63=1#f";
    let event = json!({"requestURI": uri});
    check(
        event,
        &[
            ("ka.uri.param[command]", "sh -c cat /etc/passwd"),
            ("ka.uri.params[command]", "(sh,-c,cat /etc/passwd)"),
            ("ka.uri.param[stdin]", "true"),
            ("ka.uri.param[empty]", ""),
            ("ka.uri.param[c]", "1"),
            ("ka.uri.param[tty]", "-"),
            ("ka.uri.params[tty]", "-"),
        ],
    );
    check(json!({"requestURI": "/x?a=%zz%4"}), &[("ka.uri.param[a]", "%zz%4")]);
}

#[test]
fn bindings_and_roles() {
    let subjects = json!([
        {"kind": "User", "name": "alice"}, {"kind": "Group", "name": "dev"},
        {"kind": "ServiceAccount", "name": "sa", "namespace": "shop"}, {"kind": "User"},
    ]);
    let binding = json!({"requestObject": {"roleRef": {"name": "cluster-admin"}, "subjects": subjects}});
    check(
        binding,
        &[
            ("ka.req.binding.role", "cluster-admin"),
            ("ka.req.binding.subjects.user_names", "(alice)"),
            ("ka.req.binding.subjects.group_names", "(dev)"),
            ("ka.req.binding.subjects.serviceaccount_names", "(sa)"),
            ("ka.req.binding.subjects.serviceaccount_ns_names", "(shop:sa)"),
            ("ka.req.binding.subject.has_name[dev]", "true"),
            ("ka.req.binding.subject.has_name[eve]", "false"),
        ],
    );
    let empty = json!({"requestObject": {"roleRef": {"name": "view"}}});
    check(empty, &[("ka.req.binding.subjects", "-"), ("ka.req.binding.subjects.user_names", "()")]);
    check(json!({"verb": "get"}), &[("ka.req.binding.subjects.user_names", "-")]);
    let role = json!({"requestObject": {"rules": [
        {"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["*"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ]}});
    check(
        role,
        &[
            ("ka.req.role.rules.resources", "(pods,pods/exec)"),
            ("ka.req.role.rules.verbs", "(*,get)"),
            ("ka.req.role.rules.verbs[1]", "(get)"),
            ("ka.req.role.rules.resources[1]", "-"),
            ("ka.req.role.rules.apiGroups", "()"),
            ("ka.req.role.rules.nonResourceURLs", "(/metrics)"),
            (
                "ka.req.role.rules",
                r#"({"apiGroups":[""],"resources":["pods","pods/exec"],"verbs":["*"]},{"nonResourceURLs":["/metrics"],"verbs":["get"]})"#,
            ),
        ],
    );
}

fn pod_spec() -> serde_json::Value {
    json!({
        "hostIPC": true, "hostNetwork": true, "hostPID": false,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [1, 2]},
        "volumes": [
            {"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/proc/sys"}},
            {"name": "c", "flexVolume": {"driver": "x/y"}}, {"name": "d", "scaleIO": {}},
        ],
        "containers": [
            {"name": "one", "image": "localhost:5000/app:1", "command": ["sh", "-c"], "args": ["a", "b c"],
             "securityContext": {"privileged": true, "runAsUser": 0, "capabilities": {"add": ["NET_ADMIN", "SYS_ADMIN"]}},
             "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 443}]},
            {"name": "two", "image": "reg.io/x/app@sha256:abc",
             "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "procMount": "Unmasked", "runAsGroup": 5}},
            {"name": "three", "image": "nginx:1.27@sha256:abc"},
        ],
        "initContainers": [{"name": "init", "image": "busybox", "securityContext": {"privileged": true}}],
    })
}

const CONTAINERS: [(&str, &str); 24] = [
    ("containers.name", "(one,two,three)"),
    ("containers.name[1]", "(two)"),
    ("containers.name[3]", "-"),
    ("containers.image", "(localhost:5000/app:1,reg.io/x/app@sha256:abc,nginx:1.27@sha256:abc)"),
    ("containers.image.repository", "(localhost:5000/app,reg.io/x/app,nginx)"),
    ("containers.command", "(sh -c)"),
    ("containers.args", "(a b c)"),
    ("containers.privileged", "(true)"),
    ("containers.allow_privilege_escalation", "(false)"),
    ("containers.read_only_fs", "(true)"),
    ("containers.run_as_user", "(0)"),
    ("containers.eff_run_as_user", "(0,1000,1000)"),
    ("containers.eff_run_as_user[1]", "(1000)"),
    ("containers.run_as_group", "(5)"),
    ("containers.eff_run_as_group", "(2000,5,2000)"),
    ("containers.proc_mount", "(Unmasked)"),
    ("containers.host_port", "(8080,443)"),
    ("initContainers.privileged", "(true)"),
    ("initContainers.eff_run_as_user", "(1000)"),
    ("ephemeralContainers.name", "-"),
    ("host_ipc", "true"),
    ("host_pid", "false"),
    ("run_as_user", "1000"),
    ("supplemental_groups", "(1,2)"),
];

const VOLUMES: [(&str, &str); 6] = [
    ("volumes.hostpath", "(/proc/sys)"),
    ("volumes.hostpath[1]", "(/proc/sys)"),
    ("volumes.hostpath[0]", "-"),
    ("volumes.flexvolume_driver", "(x/y)"),
    ("volumes.volume_type", "(emptyDir,hostPath,flexVolume,scaleIO)"),
    ("volumes.volume_type[3]", "(scaleIO)"),
];

/// The fields of a pod with this prefix.
#[track_caller]
fn check_pod(event: &serde_json::Value, prefix: &str) {
    for (name, value) in CONTAINERS.iter().chain(&VOLUMES) {
        assert_eq!(get(event.clone(), &format!("{prefix}{name}")), *value, "{prefix}{name}");
    }
}

#[test]
fn pods_and_the_templates_of_workloads() {
    let target = |resource: &str| json!({"resource": resource});
    let pod = json!({"objectRef": target("pods"), "requestObject": {"spec": pod_spec()}});
    check_pod(&pod, "ka.req.pod.");
    check_pod(&pod, "ka.req.podspec.");
    check(
        pod,
        &[
            ("ka.req.pod.containers.add_capabilities", r#"(["NET_ADMIN","SYS_ADMIN"])"#),
            ("ka.req.podspec.containers.add_capabilities", "(NET_ADMIN,SYS_ADMIN)"),
            ("ka.req.container.image", "localhost:5000/app:1"),
            ("ka.req.container.image.repository", "localhost:5000/app"),
            ("ka.req.container.privileged", "true"),
            ("ka.req.container.host_network", "true"),
            ("ka.req.volume.hostpath[/proc*]", "true"),
            ("ka.req.volume.hostpath[/proc]", "false"),
            ("ka.req.volume.hostpath[/proc/sys]", "true"),
        ],
    );
    let template = json!({"spec": pod_spec()});
    for (resource, object) in [
        ("deployments", json!({"spec": {"replicas": 1, "template": template}})),
        ("jobs", json!({"spec": {"template": template}})),
        ("cronjobs", json!({"spec": {"jobTemplate": {"spec": {"template": template}}}})),
        ("podtemplates", json!({"template": template})),
        ("rollouts", json!({"spec": {"template": template}})),
    ] {
        let event = json!({"objectRef": target(resource), "requestObject": object});
        check_pod(&event, "ka.req.podspec.");
        check(event, &[("ka.req.pod.containers.name", "-"), ("ka.req.pod.volumes.volume_type", "-")]);
    }
    let service = json!({"objectRef": target("services"), "requestObject": {"spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 90}]}}});
    check(
        service,
        &[
            ("ka.req.podspec.host_network", "-"),
            ("ka.req.service.type", "NodePort"),
            ("ka.req.service.ports", r#"([{"port":80},{"port":90}])"#),
            ("ka.req.service.ports[1]", r#"({"port":90})"#),
        ],
    );
}

#[test]
fn ephemeral_containers_are_found_where_they_are_sent_today() {
    let containers = json!([{"name": "dbg", "image": "busybox:1", "securityContext": {"privileged": true}}]);
    let event = json!({
        "objectRef": {"resource": "pods", "subresource": "ephemeralcontainers", "name": "web", "namespace": "shop"},
        "verb": "patch", "requestObject": {"spec": {"ephemeralContainers": containers}},
        "responseObject": {"metadata": {"name": "web"}},
    });
    check(
        event,
        &[
            ("ka.req.pod.ephemeralContainers.privileged", "(true)"),
            ("jevt.value[/requestObject/ephemeralContainers/0/name]", "dbg"),
            ("jevt.value[/requestObject/spec/ephemeralContainers/0/image]", "busybox:1"),
            ("jevt.value[/requestObject/ephemeralContainers/1/name]", "-"),
            ("ka.target.pod.name", "-"),
        ],
    );
}

#[test]
fn config_maps_are_json_and_generated_names_are_in_the_answer() {
    let event = json!({
        "objectRef": {"resource": "configmaps", "name": "creds", "namespace": "d"},
        "requestObject": {"data": {"aws_access_key_id": "x\"y"}},
    });
    check(event, &[("ka.req.configmap.name", "creds"), ("ka.req.configmap.obj", r#"{"aws_access_key_id":"x\"y"}"#)]);
    let pod = json!({"objectRef": {"resource": "pods", "namespace": "d"}, "responseObject": {"metadata": {"name": "web-x7"}}});
    check(pod, &[("ka.resp.name", "web-x7"), ("ka.target.pod.name", "web-x7"), ("ka.target.name", "-")]);
}

#[test]
fn a_patch_that_is_no_object_has_no_fields() {
    let patch = json!([{"op": "add", "path": "/spec/hostNetwork", "value": true}]);
    let event = json!({"objectRef": {"resource": "pods"}, "verb": "patch", "requestObject": patch});
    check(
        event,
        &[
            ("ka.req.pod.host_network", "-"),
            ("ka.req.podspec.containers.image", "-"),
            ("ka.req.role.rules", "-"),
            ("ka.req.binding.subjects", "-"),
            ("jevt.value[/requestObject/0/path]", "/spec/hostNetwork"),
        ],
    );
}

#[test]
fn what_is_no_audit_event_is_refused_with_its_reason() {
    let (surroundings, arena) = (surroundings(), Arena::new());
    let refused = |text: &str| {
        let arena = Arena::new();
        AuditEvent::parse(text.as_bytes(), Limits::default(), 1, &surroundings, &arena).err().map(|e| e.to_string())
    };
    assert_eq!(refused("[]").as_deref(), Some("no audit event: it is not an object"));
    assert_eq!(refused("{}").as_deref(), Some("no audit event: it has no auditID"));
    assert_eq!(
        refused(r#"{"kind":"EventList","auditID":"x"}"#).as_deref(),
        Some("no audit event: its kind is not Event")
    );
    assert_eq!(refused("{").as_deref(), Some("not JSON"));
    let text = br#"{"auditID":"x","level":"Request","requestReceivedTimestamp":"1970-01-01T00:00:01Z"}"#;
    let event = AuditEvent::parse(text, Limits::default(), 1, &surroundings, &arena).expect("an event");
    assert_eq!((event.time(), event.level()), (Some(1_000_000_000), Some(Level::Request)));
    assert_eq!(event.or_at(5).time(), Some(1_000_000_000));
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let words = prop::sample::select(vec![
        "requestObject",
        "spec",
        "template",
        "jobTemplate",
        "containers",
        "volumes",
        "name",
        "image",
        "securityContext",
        "objectRef",
        "resource",
        "pods",
        "subjects",
        "kind",
        "User",
        "rules",
        "verbs",
        "ports",
        "data",
        "requestURI",
        "a:b/c@d",
        "/x?a=%4&a=1",
        "metadata",
        "responseObject",
        "ephemeralContainers",
        "hostPath",
        "path",
        "command",
        "user",
        "groups",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        words.clone().prop_map(|w| json!(w)),
        ".{0,8}".prop_map(|t| json!(t)),
    ];
    leaf.prop_recursive(8, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::vec((words.clone(), inner), 0..6).prop_map(|members| members
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn no_document_makes_a_field_panic(document in value(), index in 0..3_u32) {
        let mut event = json!({"auditID": "x"});
        if let (Some(event), Some(members)) = (event.as_object_mut(), document.as_object()) {
            event.extend(members.clone());
        }
        event["kind"] = json!("Event");
        event["requestObject"] = document;
        let text = event.to_string();
        let (surroundings, arena) = (surroundings(), Arena::new());
        let event = AuditEvent::parse(text.as_bytes(), Limits::default(), 1, &surroundings, &arena).expect("an event");
        for field in fields::all() {
            for arg in [Arg::None, Arg::Index(index), Arg::Key("/requestObject/0".into()), Arg::Key("a".into())] {
                let _ = event.field(field, &arg);
            }
        }
        let _ = event.target();
    }
}

/// What `cargo fuzz run audit_event` once found is kept, and tried here.
#[test]
fn inputs_that_once_crashed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions/audit_event");
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        event::testing::exercise_audit(&std::fs::read(file.path()).expect("a readable file"));
    }
}
