//! Answers as containerd and CRI-O give them.

use event::containers::ContainerFacts;
use serde_json::json;

use super::{Answers, facts, parse_image};
use crate::containers::cri::{
    ContainerMetadata, ContainerStatus, Image, ImageSpec, LinuxPodSandboxStatus, Mount, Namespace, NamespaceMode,
    NamespaceOption, PodIp, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus,
};

fn labels(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sandbox(network: NamespaceMode) -> PodSandboxStatus {
    let options = NamespaceOption {
        network: network.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
    };
    PodSandboxStatus {
        id: "sandbox".into(),
        metadata: Some(PodSandboxMetadata { name: "web-1".into(), uid: "uid".into(), namespace: "shop".into() }),
        network: Some(PodSandboxNetworkStatus {
            ip: "fd00::1".into(),
            additional_ips: vec![PodIp { ip: "10.1.2.3".into() }],
        }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
        labels: labels(&[("app", "shop")]),
    }
}

fn container() -> ContainerStatus {
    ContainerStatus {
        id: "container".into(),
        metadata: Some(ContainerMetadata { name: "web".into() }),
        image: Some(ImageSpec { image: "docker.io/library/nginx:1.27".into(), user_specified_image: String::new() }),
        image_ref: "docker.io/library/nginx@sha256:aa".into(),
        labels: labels(&[("io.kubernetes.container.name", "web")]),
        mounts: vec![Mount { container_path: "/host".into(), host_path: "/".into(), readonly: true, propagation: 1 }],
        image_id: "sha256:bb".into(),
    }
}

fn told(answers: &Answers) -> ContainerFacts {
    facts(answers).expect("facts")
}

#[test]
fn containerd_tells_privileges_by_repeating_the_configuration() {
    let with = |security: serde_json::Value| Answers {
        runtime: "containerd".into(),
        container: Some(container()),
        container_info: Some(json!({"config": {"linux": {"security_context": security}}})),
        sandbox: Some(sandbox(NamespaceMode::Node)),
        ..Answers::default()
    };
    let facts = told(&with(json!({"privileged": true})));
    assert_eq!(facts.privileged, Some(true));
    assert_eq!((&*facts.name, &*facts.runtime, &*facts.image_id), ("web", "containerd", "bb"));
    assert_eq!((&*facts.repository, &*facts.tag, &*facts.digest), ("docker.io/library/nginx", "1.27", "sha256:aa"));
    assert_eq!((facts.host_network, facts.host_pid, facts.host_ipc), (Some(true), Some(false), Some(false)));
    assert_eq!(&*facts.ip, "10.1.2.3");
    let mount = facts.mounts.first().expect("one mount");
    assert_eq!((&*mount.source, &*mount.dest, mount.writable, &*mount.propagation), ("/", "/host", false, "rslave"));
    let pod = facts.pod.as_ref().expect("a pod");
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid, &*pod.sandbox_id), ("shop", "web-1", "uid", "sandbox"));
    assert!(!facts.sandbox);
    assert_eq!(told(&with(json!({}))).privileged, Some(false));
}

#[test]
fn cri_o_says_whether_a_container_is_privileged() {
    let answers = Answers {
        runtime: "cri-o".into(),
        container: Some(container()),
        container_info: Some(json!({"privileged": true, "runtimeSpec": {}})),
        ..Answers::default()
    };
    let facts = told(&answers);
    assert_eq!((facts.privileged, &*facts.runtime), (Some(true), "cri-o"));
    assert_eq!((facts.host_network, facts.pod), (None, None));
}

#[test]
fn what_a_runtime_does_not_say_is_not_made_up() {
    let facts = told(&Answers { container: Some(ContainerStatus::default()), ..Answers::default() });
    assert_eq!(facts, ContainerFacts::default());
    let odd = Answers {
        container: Some(container()),
        container_info: Some(json!(["not", {"an": "object"}])),
        sandbox_info: Some(json!(3)),
        ..Answers::default()
    };
    assert_eq!(told(&odd).privileged, None);
}

#[test]
fn the_container_that_holds_a_pod_together_is_known_as_such() {
    let answers = Answers {
        runtime: "containerd".into(),
        sandbox: Some(sandbox(NamespaceMode::Pod)),
        sandbox_info: Some(json!({"image": "registry.k8s.io/pause:3.10", "cniResult": {"Interfaces": {}}})),
        ..Answers::default()
    };
    let facts = told(&answers);
    assert!(facts.sandbox);
    assert_eq!((&*facts.name, &*facts.repository, &*facts.tag), ("web-1", "registry.k8s.io/pause", "3.10"));
    assert_eq!(&*facts.cni_json, r#"{"Interfaces":{}}"#);
}

#[test]
fn an_image_that_lost_its_name_is_named_as_it_was_asked_for() {
    let id = format!("sha256:{}", "c".repeat(64));
    let mut container = container();
    container.image = Some(ImageSpec { image: id.clone(), user_specified_image: "shop/web:2".into() });
    container.image_ref = id.clone();
    container.image_id = String::new();
    let facts = told(&Answers {
        container: Some(container.clone()),
        image: Some(Image { id, repo_tags: Vec::new(), repo_digests: Vec::new() }),
        ..Answers::default()
    });
    assert_eq!((&*facts.image, &*facts.tag, &*facts.image_id), ("shop/web:2", "2", "c".repeat(64).as_str()));
    container.image = None;
    assert_eq!(&*told(&Answers { container: Some(container), ..Answers::default() }).image, "");
}

#[test]
fn names_of_images_have_parts() {
    for (name, want) in [
        ("nginx", ("nginx", "", "")),
        ("docker.io/library/nginx:1.27", ("docker.io/library/nginx", "1.27", "")),
        ("localhost:5000/web", ("localhost:5000/web", "", "")),
        ("localhost:5000/web:2@sha256:aa", ("localhost:5000/web", "2", "sha256:aa")),
        ("sha256:aa", ("", "", "")),
    ] {
        let parts = parse_image(name);
        assert_eq!((parts.repository, parts.tag, parts.digest), want, "{name}");
    }
}
