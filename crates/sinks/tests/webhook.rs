//! Webhooks against a real server on the loopback interface.

mod common;

use std::{
    fs,
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{Answer, Server, alert, closed_port, config, counters, losses, start, wait_for};
use gyrfalcon_sinks::Loss;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

const FAST: &str = "retry: {initialBackoff: 1ms, maxBackoff: 5s, maxAttempts: 3}";

fn webhook(server: &Server) -> String {
    format!("webhook: {{url: '{}?token=secret'}}, {FAST}", server.url())
}

#[test]
fn an_alert_is_sent_as_falcos_json() {
    let server = Server::ok();
    let headers = "headers: [{name: X-Team, value: security}]";
    let spec = format!("webhook: {{url: '{}?a=b', method: PUT, {headers}}}", server.url());
    let mut sinks = start(vec![config("hook", &spec)]);
    sinks.publish(alert("Read shadow"));
    let request = server.wait(1).remove(0);
    assert_eq!(request.line, "put /hook?a=b http/1.1");
    for header in ["content-type: application/json", "x-team: security"] {
        assert!(request.headers.iter().any(|line| line == header), "{:?}", request.headers);
    }
    let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
    assert_eq!(body["rule"], "Read shadow");
    assert_eq!(body["time"], "2023-11-14T22:13:20.000000000Z");
    assert_eq!(body["output_fields"]["proc.name"], "nc");
    let counters = wait_for(&mut sinks, "hook", |counters| counters.sent == 1);
    assert_eq!((counters.queued, counters.retried, losses(&counters)), (0, 0, vec![]));
}

#[test]
fn a_busy_receiver_gets_the_alert_again_when_it_asked_for_it() {
    let busy = "503 Service Unavailable\r\nRetry-After: 1";
    let server = Server::start(move |number| Answer::status(if number == 0 { busy } else { "200 OK" }));
    let mut sinks = start(vec![config("hook", &webhook(&server))]);
    sinks.publish(alert("a"));
    let requests = server.wait(2);
    assert_eq!(requests[0].body, requests[1].body);
    let waited = requests[1].at - requests[0].at;
    assert!(waited >= Duration::from_millis(950), "after {waited:?}");
    let counters = wait_for(&mut sinks, "hook", |counters| counters.sent == 1);
    assert_eq!((counters.retried, counters.failure.clone(), losses(&counters)), (1, None, vec![]));
}

#[test]
fn an_alert_is_given_up_after_the_last_attempt() {
    let server = Server::start(|_| Answer::status("500 Internal Server Error"));
    let mut sinks = start(vec![config("hook", &webhook(&server))]);
    sinks.publish(alert("a"));
    let counters = wait_for(&mut sinks, "hook", |counters| counters.dropped_total() == 1);
    assert_eq!(losses(&counters), [(Loss::RetriesExhausted, 1)]);
    assert_eq!((counters.retried, server.requests().len()), (2, 3));
}

#[test]
fn a_refused_alert_is_not_sent_again_and_the_next_one_is_sent() {
    let server = Server::start(|number| Answer::status(if number == 0 { "400 Bad Request" } else { "204 No Content" }));
    let mut sinks = start(vec![config("hook", &webhook(&server))]);
    sinks.publish(alert("a"));
    sinks.publish(alert("b"));
    let counters = wait_for(&mut sinks, "hook", |counters| counters.sent == 1);
    assert_eq!(losses(&counters), [(Loss::Refused, 1)]);
    let rules: Vec<String> = server.requests().iter().map(common::Request::rule).collect();
    assert_eq!(rules, ["a", "b"]);
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Server::ok();
    let redirect = format!("307 Temporary Redirect\r\nLocation: {}", elsewhere.url());
    let server = Server::start(move |_| Answer::status(&redirect));
    let mut sinks = start(vec![config("hook", &webhook(&server))]);
    sinks.publish(alert("a"));
    let counters = wait_for(&mut sinks, "hook", |counters| counters.dropped_total() == 1);
    assert_eq!(losses(&counters), [(Loss::Refused, 1)]);
    let failure = counters.failure.expect("failing");
    assert!(failure.contains("307") && failure.contains("final address"), "{failure}");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn a_failure_names_the_address_and_the_remedy_and_no_secret() {
    let spec = format!("webhook: {{url: 'http://{}/hook?token=secret'}}, {FAST}", closed_port());
    let mut sinks = start(vec![config("hook", &spec)]);
    sinks.publish(alert("a"));
    let counters = wait_for(&mut sinks, "hook", |counters| counters.dropped_total() == 1);
    assert_eq!(losses(&counters), [(Loss::RetriesExhausted, 1)]);
    let failure = counters.failure.expect("failing");
    assert!(failure.starts_with("cannot connect to http://127.0.0.1:"), "{failure}");
    assert!(failure.contains("/hook") && failure.contains("Connection refused"), "{failure}");
    assert!(failure.contains("check the address") && !failure.contains("secret"), "{failure}");
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let server = Server::start(|number| if number == 0 { Answer::Hang } else { Answer::status("200 OK") });
    let spec = format!("{}, timeout: 100ms", webhook(&server));
    let mut sinks = start(vec![config("hook", &spec)]);
    sinks.publish(alert("a"));
    let counters = wait_for(&mut sinks, "hook", |counters| counters.sent == 1);
    assert_eq!(counters.retried, 1);
}

#[test]
fn a_full_queue_is_counted_exactly() {
    let server = Server::start(|_| Answer::Hang);
    let spec = format!("{}, timeout: 10m, queue: {{memory: 5, overflow: DropNewest}}", webhook(&server));
    let mut sinks = start(vec![config("hook", &spec)]);
    sinks.publish(alert("first"));
    // It is in hand now, and the queue is empty.
    server.wait(1);
    (0..100).for_each(|_| sinks.publish(alert("more")));
    let counters = counters(&mut sinks, "hook");
    assert_eq!((counters.queued, losses(&counters)), (6, vec![(Loss::QueueFull, 95)]));
    let left = sinks.stop(Instant::now() + Duration::from_millis(50));
    assert_eq!((left.len(), left[0].alerts), (1, 6));
}

#[test]
fn a_sink_that_hangs_harms_no_other() {
    let (hanging, working) = (Server::start(|_| Answer::Hang), Server::ok());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("alerts");
    let mut sinks = start(vec![
        config("hanging", &format!("{}, timeout: 10m, queue: {{memory: 10}}", webhook(&hanging))),
        config("working", &webhook(&working)),
        config("file", &format!("file: {{path: {}}}", path.display())),
    ]);
    sinks.publish(alert("0"));
    hanging.wait(1);
    for number in 1..200 {
        sinks.publish(alert(&number.to_string()));
    }
    let done = wait_for(&mut sinks, "working", |counters| counters.sent == 200);
    assert_eq!(losses(&done), []);
    let rules: Vec<String> = working.requests().iter().map(common::Request::rule).collect();
    assert_eq!(rules, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    wait_for(&mut sinks, "file", |counters| counters.sent == 200);
    assert_eq!(fs::read_to_string(path).expect("a file").lines().count(), 200);
    let counters = counters(&mut sinks, "hanging");
    assert_eq!((counters.queued, losses(&counters)), (11, vec![(Loss::QueueFull, 189)]));
}

#[test]
fn stopping_sends_what_waits() {
    let server = Server::ok();
    let sinks = start(vec![config("hook", &webhook(&server))]);
    (0..50).for_each(|number| sinks.publish(alert(&number.to_string())));
    assert_eq!(sinks.stop(Instant::now() + common::LONG), []);
    assert_eq!(server.requests().len(), 50);
}

#[test]
fn stopping_gives_a_failing_receiver_one_more_chance() {
    let server = Server::start(|number| Answer::status(if number == 0 { "503 Service Unavailable" } else { "200 OK" }));
    let spec = format!("webhook: {{url: '{}'}}, retry: {{initialBackoff: 1h, maxBackoff: 1h}}", server.url());
    let mut sinks = start(vec![config("hook", &spec)]);
    sinks.publish(alert("a"));
    server.wait(1);
    wait_for(&mut sinks, "hook", |counters| counters.failure.is_some());
    assert_eq!(sinks.stop(Instant::now() + common::LONG), []);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn changing_sinks_keeps_what_is_unchanged_and_drains_the_rest() {
    let (kept, changed, removed, added) = (Server::start(|_| Answer::Hang), Server::ok(), Server::ok(), Server::ok());
    let hanging = config("kept", &format!("{}, timeout: 10m", webhook(&kept)));
    let mut sinks =
        start(vec![hanging.clone(), config("changed", &webhook(&changed)), config("removed", &webhook(&removed))]);
    let fanout = sinks.fanout();
    fanout.publish(alert("a"));
    fanout.publish(alert("b"));
    kept.wait(1);
    let configs = vec![
        hanging,
        config("changed", &webhook(&added)),
        config("added", &format!("{}, match: {{rules: ['c*']}}", webhook(&added))),
    ];
    sinks.reconfigure(configs, common::LONG).expect("changed");
    fanout.publish(alert("c"));
    assert_eq!(counters(&mut sinks, "kept").queued, 3);
    assert_eq!((changed.wait(2).len(), removed.wait(2).len()), (2, 2));
    let total = wait_for(&mut sinks, "changed", |counters| counters.sent == 3);
    assert_eq!(losses(&total), []);
    wait_for(&mut sinks, "added", |counters| counters.sent == 1);
    assert_eq!(added.wait(2).len(), 2);
    assert_eq!((changed.requests().len(), removed.requests().len()), (2, 2));
}

#[test]
fn a_suspended_sink_sends_nothing() {
    let server = Server::ok();
    let mut sinks = start(vec![config("hook", &format!("{}, suspend: true", webhook(&server)))]);
    sinks.publish(alert("a"));
    sinks.reconfigure(vec![config("hook", &webhook(&server))], common::LONG).expect("changed");
    sinks.publish(alert("b"));
    assert_eq!(server.wait(1)[0].rule(), "b");
    assert_eq!(sinks.stop(Instant::now() + common::LONG), []);
    assert_eq!(server.requests().len(), 1);
}

/// A server with TLS, and the PEM text of the authority of its certificate.
fn tls_server() -> (Server, String, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(certified.signing_key.serialize_pem().as_bytes()).expect("a key");
    let chain = vec![CertificateDer::from(certified.cert.der().to_vec())];
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = Server::ok();
    let this = server.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            this.serve(rustls::StreamOwned::new(session, stream), &|_| Answer::status("200 OK"));
        }
    });
    (server, format!("https://localhost:{port}/hook"), certified.cert.pem())
}

#[test]
fn an_authority_from_a_file_is_trusted() {
    let (server, url, pem) = tls_server();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ca.pem");
    fs::write(&path, pem).expect("written");
    let sinks = start(vec![config("hook", &format!("webhook: {{url: '{url}', caFile: {}}}", path.display()))]);
    sinks.publish(alert("a"));
    assert_eq!(server.wait(1)[0].rule(), "a");
}

#[test]
fn an_unknown_authority_is_not_trusted() {
    let (server, url, _) = tls_server();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("ca.pem");
    fs::write(&path, other.cert.pem()).expect("written");
    let spec = format!("webhook: {{url: '{url}', caFile: {}}}, {FAST}", path.display());
    let mut sinks = start(vec![config("hook", &spec)]);
    sinks.publish(alert("a"));
    let counters = wait_for(&mut sinks, "hook", |counters| counters.dropped_total() == 1);
    assert_eq!(losses(&counters), [(Loss::RetriesExhausted, 1)]);
    let failure = counters.failure.expect("failing");
    assert!(failure.contains("no certificate that can be trusted") && failure.contains("caFile"), "{failure}");
    assert_eq!(server.requests().len(), 0);
}
