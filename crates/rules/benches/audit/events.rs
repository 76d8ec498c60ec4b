//! Audit events in the sizes and shares that an API server has with the policy of `gyrfalcon audit policy`.

/// One event; every twentieth is a pod with its whole answer, one in ten a ConfigMap, the others metadata.
pub fn event(number: usize) -> String {
    let user = [
        "system:node:node-1",
        "system:serviceaccount:kube-system:replicaset-controller",
        "kube-scheduler",
        "kubernetes-admin",
    ][number % 4];
    let head = |level: &str, verb: &str, resource: &str, code: u32| {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"3f2a8c1e-5c1d-4b7e-9a34-{number:012}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/team-{0}/{resource}/name-{number}?timeout=34s","verb":"{verb}","user":{{"username":"{user}","uid":"d3b0","groups":["system:authenticated","system:nodes"]}},"sourceIPs":["10.0.{0}.7"],"userAgent":"kube/v1.36.3 (linux/amd64) kubernetes/abcdef0","objectRef":{{"resource":"{resource}","namespace":"team-{0}","name":"name-{number}","apiVersion":"v1","resourceVersion":"{number}"}},"responseStatus":{{"metadata":{{}},"code":{code}}},"requestReceivedTimestamp":"2026-11-24T10:00:00.{1:06}Z","stageTimestamp":"2026-11-24T10:00:00.{1:06}Z","annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"system:node-proxier\" of ClusterRole \"system:node-proxier\" to User \"system:kube-proxy\""}}"#,
            number % 50,
            number % 1_000_000,
        )
    };
    let container = |n: usize| {
        format!(
            r#"{{"name":"c{n}","image":"registry.example.org:5000/team/app:{number}","command":["/bin/app"],"args":["--serve","--port=8080"],"env":[{{"name":"A","value":"b"}},{{"name":"C","valueFrom":{{"fieldRef":{{"fieldPath":"metadata.name"}}}}}}],"resources":{{"limits":{{"memory":"512Mi"}},"requests":{{"cpu":"100m"}}}},"securityContext":{{"runAsUser":1000,"allowPrivilegeEscalation":false}},"volumeMounts":[{{"name":"data","mountPath":"/data"}}],"ports":[{{"containerPort":8080}}]}}"#
        )
    };
    match number % 20 {
        0 => {
            let spec = format!(
                r#"{{"volumes":[{{"name":"data","emptyDir":{{}}}},{{"name":"cfg","configMap":{{"name":"x"}}}}],"containers":[{},{}],"restartPolicy":"Always","serviceAccountName":"app","securityContext":{{"fsGroup":2000}}}}"#,
                container(0),
                container(1)
            );
            let metadata = format!(
                r#"{{"name":"name-{number}","uid":"u-{number}","labels":{{"app":"x","pod-template-hash":"5d59d67564"}}}}"#
            );
            format!(
                r#"{},"requestObject":{{"kind":"Pod","apiVersion":"v1","metadata":{metadata},"spec":{spec}}},"responseObject":{{"kind":"Pod","apiVersion":"v1","metadata":{metadata},"spec":{spec},"status":{{"phase":"Pending","qosClass":"Burstable"}}}}}}"#,
                head("RequestResponse", "create", "pods", 201)
            )
        }
        7 | 14 => format!(
            r#"{},"requestObject":{{"kind":"ConfigMap","data":{{"config.yaml":"{}"}}}}}}"#,
            head("Request", "update", "configmaps", 200),
            "key: value\\n".repeat(60)
        ),
        n => {
            let verb = ["get", "list", "watch", "update", "patch"][n % 5];
            let resource = ["leases", "endpoints", "nodes", "services"][n % 4];
            head("Metadata", verb, resource, 200) + "}"
        }
    }
}
