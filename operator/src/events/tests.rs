//! Everything together, against an API server of a few lines that answers as it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
};

use axum::http::{Method, Request, Response};
use k8s_openapi::api::events::v1::Event;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;
use crate::events::{
    object::{
        COUNT, WRITER,
        tests::{hit, pod, rule},
        validation::objections,
    },
    writer::Result as Written,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// What the API server does with the next request of a method.
#[derive(Clone)]
enum Answer {
    /// It fails with a status, and perhaps asks to wait so many seconds.
    Fail(u16, Option<u64>),
    /// It does what it is asked, but the answer never comes.
    Silence,
    /// The namespace is being deleted.
    Ending,
}

#[derive(Default)]
struct Api {
    events: BTreeMap<String, Value>,
    script: VecDeque<(Method, Answer)>,
    requests: Vec<(Method, String)>,
}

fn merge(into: &mut Value, patch: &Value) {
    match (into.as_object_mut(), patch.as_object()) {
        (Some(into), Some(patch)) => {
            patch.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
        }
        _ => *into = patch.clone(),
    }
}

impl Api {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        match *method {
            Method::POST => {
                let event: Event = serde_json::from_slice(body).expect("an Event");
                assert_eq!(objections(&event), Vec::<String>::new());
                let path = format!("{path}/{}", event.metadata.name.clone().unwrap_or_default());
                if self.events.contains_key(&path) {
                    return (409, json!({ "kind": "Status", "reason": "AlreadyExists" }));
                }
                self.events.insert(path, json!(event));
                (201, json!(event))
            }
            Method::PATCH => match self.events.get_mut(path) {
                Some(event) => {
                    merge(event, &serde_json::from_slice(body).expect("JSON"));
                    let event: Event = serde_json::from_value(event.clone()).expect("still an Event");
                    assert_eq!(objections(&event), Vec::<String>::new());
                    (200, json!(event))
                }
                None => (404, json!({ "kind": "Status" })),
            },
            _ => self.events.get(path).map_or((404, json!({ "kind": "Status" })), |event| (200, event.clone())),
        }
    }
}

struct NoPods;

impl Regarding for NoPods {
    fn pod_uid(&self, _: &str, name: &str, _: &str) -> Option<String> {
        (name == "static").then(|| "mirror-uid".to_owned())
    }
}

type SharedApi = Arc<Mutex<Api>>;

/// An API server with a script, and Events that are written to it.
fn start(script: Vec<(Method, Answer)>) -> (SharedApi, Events, watch::Sender<Settings>) {
    let api = Arc::new(Mutex::new(Api { script: script.into(), ..Api::default() }));
    let (sender, settings) = watch::channel(Settings::default());
    let identity = Identity { namespace: "gyrfalcon".into(), instance: "me".into() };
    let clock = {
        let start = Instant::now();
        let now = move || {
            let since_start = start.elapsed();
            let nanos = u64::try_from(since_start.as_nanos()).expect("a short test");
            Now { since_start, unix_ns: 1_700_000_000_000_000_000 + nanos }
        };
        Arc::new(now)
    };
    let events = Events::start(client(Arc::clone(&api)), settings, identity, Arc::new(NoPods), clock);
    (api, events, sender)
}

fn client(api: SharedApi) -> Client {
    let service = service_fn(move |request: Request<Body>| {
        let api = Arc::clone(&api);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let body = axum::body::to_bytes(axum::body::Body::new(request.into_body()), 1 << 20).await;
            let body = body.expect("a body");
            let (status, retry_after, answer, silent) = {
                let mut api = api.lock().expect("no test has failed");
                api.requests.push((method.clone(), path.clone()));
                let scripted = api.script.pop_front_if(|(of, _)| *of == method).map(|(_, answer)| answer);
                match scripted {
                    None => {
                        let (status, answer) = api.answer(&method, &path, &body);
                        (status, None, answer, false)
                    }
                    Some(Answer::Fail(status, after)) => (status, after, json!({}), false),
                    Some(Answer::Silence) => {
                        let (status, answer) = api.answer(&method, &path, &body);
                        (status, None, answer, true)
                    }
                    Some(Answer::Ending) => {
                        let causes = [json!({ "reason": "NamespaceTerminating", "message": "shop is going" })];
                        (403, None, json!({ "details": { "causes": causes } }), false)
                    }
                }
            };
            if silent {
                std::future::pending::<()>().await;
            }
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            Ok::<_, Infallible>(response.body(Body::from(answer.to_string().into_bytes())).expect("a response"))
        }
    });
    Client::new(service, "default")
}

fn alert() -> Hit {
    hit(&rule("r"), pod("shop", "web"), "node", "output")
}

/// Counts of all Events.
fn counts(api: &SharedApi) -> Vec<u64> {
    let api = api.lock().expect("no test has failed");
    let count = |event: &Value| event["metadata"]["annotations"][COUNT].as_str()?.parse().ok();
    api.events.values().map(|event| count(event).expect("a count")).collect()
}

fn requests(api: &SharedApi, method: Method) -> usize {
    api.lock().expect("no test has failed").requests.iter().filter(|(of, _)| *of == method).count()
}

fn result(counters: &Counters, result: Written) -> u64 {
    counters.writes.iter().find(|(of, _)| *of == result).map_or(0, |(_, count)| *count)
}

#[tokio::test(start_paused = true)]
async fn alerts_are_events_when_all_is_well() {
    let (api, events, _settings) = start(vec![]);
    events.hits(vec![alert()]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(counts(&api), [1], "within a second");
    events.hits(vec![alert(), alert()]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(counts(&api), [3], "at the first heartbeat");
    events.hits(vec![alert()]);
    let counters = events.stop(PATIENCE).await;
    assert_eq!(counts(&api), [4], "at the end");
    assert_eq!((result(&counters, Written::Created), result(&counters, Written::Patched)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_written_twice_when_the_answer_is_lost() {
    let (api, events, _settings) = start(vec![(Method::POST, Answer::Silence)]);
    events.hits(vec![alert()]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let counters = events.stop(PATIENCE).await;
    assert_eq!(counts(&api), [1]);
    assert_eq!((result(&counters, Written::Timeout), requests(&api, Method::POST)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_predecessors_event_is_taken_over() {
    let (api, events, _settings) = start(vec![]);
    events.hits(vec![alert(), alert()]);
    events.stop(PATIENCE).await;
    let (other, events, _settings) = start(vec![]);
    {
        let mut old = api.lock().expect("no test has failed");
        let mut there = std::mem::take(&mut old.events);
        there.values_mut().for_each(|event| event["metadata"]["annotations"][WRITER] = json!("other.1"));
        other.lock().expect("no test has failed").events = there;
    }
    events.hits(vec![alert()]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    events.hits(vec![alert(), alert()]);
    let counters = events.stop(PATIENCE).await;
    assert_eq!(counts(&other), [5]);
    assert_eq!(result(&counters, Written::Adopted), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_api_server_asks_for_is_kept() {
    let (api, events, _settings) = start(vec![(Method::POST, Answer::Fail(429, Some(20)))]);
    events.hits(vec![alert()]);
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert_eq!(requests(&api, Method::POST), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((requests(&api, Method::POST), counts(&api)), (2, vec![1]));
    assert_eq!(result(&events.counters(), Written::Throttled), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_asked_again_and_less_often() {
    let failures = vec![(Method::POST, Answer::Fail(500, None)); 10];
    let (api, events, _settings) = start(failures);
    events.hits(vec![alert()]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(requests(&api, Method::POST) < 10, "{}", requests(&api, Method::POST));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(counts(&api), [1]);
    drop(events);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_gone_is_created_anew() {
    let (api, events, _settings) = start(vec![]);
    events.hits(vec![alert()]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    api.lock().expect("no test has failed").events.clear();
    events.hits(vec![alert()]);
    let counters = events.stop(PATIENCE).await;
    assert_eq!(counts(&api), [2]);
    assert_eq!(result(&counters, Written::Gone), 1);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_ends_has_its_alerts_told_of_the_node() {
    let (api, events, _settings) = start(vec![(Method::POST, Answer::Ending)]);
    events.hits(vec![alert()]);
    events.stop(PATIENCE).await;
    let api = api.lock().expect("no test has failed");
    let event = api.events.values().next().expect("an Event");
    assert_eq!((&event["metadata"]["namespace"], &event["regarding"]["kind"]), (&json!("default"), &json!("Node")));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_counted() {
    let (_api, events, _settings) = start(vec![(Method::POST, Answer::Fail(422, None))]);
    events.hits(vec![alert(), alert()]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counters = events.counters();
    assert!(counters.suppressed.contains(&(Cause::Refused, 2)), "{counters:?}");
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_has_the_uid_of_its_mirror() {
    let (api, events, _settings) = start(vec![]);
    events.hits(vec![hit(&rule("r"), pod("kube-system", "static"), "node", "output")]);
    events.stop(PATIENCE).await;
    let api = api.lock().expect("no test has failed");
    assert!(api.events.values().all(|event| event["regarding"]["uid"] == json!("mirror-uid")));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever() {
    let (_api, events, _settings) = start(vec![(Method::POST, Answer::Fail(500, None)); 1000]);
    events.hits(vec![alert()]);
    let counters = events.stop(Duration::from_secs(5)).await;
    assert!(counters.suppressed.contains(&(Cause::Stopped, 1)), "{counters:?}");
}
