//! Docker's answers, and a Docker that the test plays over a real socket.

use axum::{Json, Router, extract::Path as UrlPath, http::StatusCode, routing::get};
use expect_test::expect;
use serde_json::json;
use tokio::net::UnixListener;

use super::*;

const ID: &str = "3fe8ff7f1b1a3a4b1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab";
const IMAGE: &str = "a1b2c3d4e5f60718a1b2c3d4e5f60718a1b2c3d4e5f60718a1b2c3d4e5f60718";

/// As Docker 28 shows a container, the parts that are of interest.
fn container() -> Value {
    json!({
        "Id": ID, "Name": "/web", "Image": format!("sha256:{IMAGE}"),
        "Config": {"Image": "example.org:5000/shop/web:1.4", "Labels": {"tier": "front", "app": "web"}},
        "HostConfig": {"Privileged": true, "PidMode": "host", "NetworkMode": "bridge", "IpcMode": "private"},
        "Mounts": [{"Type": "bind", "Source": "/etc", "Destination": "/host/etc", "Mode": "ro", "RW": false,
                    "Propagation": "rprivate"}],
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
    })
}

fn image() -> Value {
    json!({"RepoTags": ["example.org:5000/shop/web:1.4"], "RepoDigests": ["example.org:5000/shop/web@sha256:0123"]})
}

#[test]
fn facts_are_what_inspect_shows() {
    expect![[r#"
        ContainerFacts {
            name: "web",
            runtime: "docker",
            image: "example.org:5000/shop/web:1.4",
            image_id: "a1b2c3d4e5f60718a1b2c3d4e5f60718a1b2c3d4e5f60718a1b2c3d4e5f60718",
            repository: "example.org:5000/shop/web",
            tag: "1.4",
            digest: "sha256:0123",
            privileged: Some(
                true,
            ),
            host_pid: Some(
                true,
            ),
            host_network: Some(
                false,
            ),
            host_ipc: Some(
                false,
            ),
            mounts: [
                Mount {
                    source: "/etc",
                    dest: "/host/etc",
                    mode: "ro",
                    writable: false,
                    propagation: "rprivate",
                },
            ],
            labels: [
                (
                    "app",
                    "web",
                ),
                (
                    "tier",
                    "front",
                ),
            ],
            ip: "172.17.0.2",
            cni_json: "",
            pod: None,
            sandbox: false,
        }
    "#]]
    .assert_debug_eq(&facts("docker", &container(), Some(&image())));
}

#[test]
fn events_of_both_are_understood() {
    let docker =
        format!(r#"{{"Type":"container","Action":"destroy","Actor":{{"ID":"{ID}"}},"status":"destroy","id":"{ID}"}}"#);
    let podman = format!(r#"{{"status":"start","id":"{ID}","Type":"container"}}"#);
    assert_eq!(happened(docker.as_bytes()), Happened::Gone(ID.into()));
    assert_eq!(happened(podman.as_bytes()), Happened::Appeared(ID.into()));
    for other in [r#"{"Action":"start","Actor":{"ID":"../../etc"}}"#, r#"{"Action":"exec_start: sh"}"#, "no JSON"] {
        assert_eq!(happened(other.as_bytes()), Happened::Other, "{other}");
    }
}

/// A Docker with one container; it tells of its start, and of the end of another.
fn play(socket: &Path) {
    let events = || async {
        let line = |action: &str| format!("{{\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"{ID}\"}}}}\n");
        line("start") + &line("destroy")
    };
    let inspect = |UrlPath(id): UrlPath<String>| async move {
        if id == ID { Ok(Json(container())) } else { Err(StatusCode::NOT_FOUND) }
    };
    let version = || async { Json(json!({"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]})) };
    let router = Router::new()
        .route("/version", get(version))
        .route("/containers/json", get(|| async { Json(json!([{"Id": ID}])) }))
        .route("/containers/{id}/json", get(inspect))
        .route("/images/{id}/json", get(|| async { Json(image()) }))
        .route("/events", get(events));
    let listener = UnixListener::bind(socket).expect("a socket in a temporary folder");
    spawn_local(async move { axum::serve(listener, router).await });
}

#[tokio::test]
async fn a_runtime_is_asked_and_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("podman.sock");
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            assert!(matches!(Docker::connect(&socket).await, Err(DockerError::Connect { .. })));
            play(&socket);
            let docker = Docker::connect(&socket).await.expect("it listens");
            assert_eq!((docker.name(), docker.version()), ("podman", "4.3.1"));
            assert_eq!(docker.list().await.expect("a list"), [ID]);
            let Found::Facts(found) = docker.find(ID).await.expect("an answer") else { panic!("no facts") };
            assert_eq!((&*found.name, &*found.runtime, &*found.digest), ("web", "podman", "sha256:0123"));
            assert!(matches!(docker.find(&"0".repeat(64)).await, Ok(Found::Nothing)));
            assert!(matches!(docker.find("../images/json").await, Ok(Found::Nothing)));
            let mut events = docker.events().await.expect("a stream");
            assert_eq!(events.next().await, Some(Happened::Appeared(ID.into())));
            assert_eq!(events.next().await, Some(Happened::Gone(ID.into())));
            assert_eq!(events.next().await, None);
        })
        .await;
}
