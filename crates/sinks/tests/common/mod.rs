//! What the tests of sinks share: alerts, configurations, waiting, and a small HTTP server.
#![allow(dead_code, reason = "each test target uses a part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use api::{Kind, ResourceId};
use gyrfalcon_sinks::{Loss, SinkConfig, SinkCounters, Sinks};
use rules::alert::{Alert, Priority};

/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(30);

pub fn alert(rule: &str) -> Arc<Alert> {
    Arc::new(Alert {
        hostname: "node-1".into(),
        time_ns: 1_700_000_000_000_000_000,
        rule: rule.into(),
        priority: Priority::Notice,
        source: "syscall".into(),
        tags: ["T1059".into()].into(),
        message: format!("{rule} happened").into(),
        output_fields: vec![("proc.name".into(), "nc".into())],
    })
}

pub fn id(name: &str) -> ResourceId {
    ResourceId { kind: Kind::ClusterAlertSink, namespace: "".into(), name: name.into() }
}

/// A configuration from a spec, as a user writes it.
pub fn config(name: &str, spec: &str) -> SinkConfig {
    let manifest = format!(
        "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterAlertSink\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    );
    let file = api::manifest::read(&manifest);
    assert_eq!(file.problems, []);
    let config = SinkConfig::from_resource(&file.manifests[0].resource).expect("a sink");
    config.expect("a configuration")
}

#[track_caller]
pub fn start(configs: Vec<SinkConfig>) -> Sinks {
    Sinks::start(configs).expect("started")
}

/// Waits for a condition on the counters of one sink.
#[track_caller]
pub fn wait_for(sinks: &mut Sinks, name: &str, condition: impl Fn(&SinkCounters) -> bool) -> SinkCounters {
    let deadline = Instant::now() + LONG;
    loop {
        let counters = counters(sinks, name);
        if condition(&counters) {
            return counters;
        }
        assert!(Instant::now() < deadline, "still {counters:?}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[track_caller]
pub fn counters(sinks: &mut Sinks, name: &str) -> SinkCounters {
    sinks.counters().into_iter().find(|counters| counters.id == id(name)).expect("the sink")
}

/// All losses that are not zero.
pub fn losses(counters: &SinkCounters) -> Vec<(Loss, u64)> {
    let all = Loss::ALL.iter().map(|loss| (*loss, counters.dropped(*loss)));
    all.filter(|(_, alerts)| *alerts > 0).collect()
}

/// What the server was sent.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub headers: Vec<String>,
    pub body: String,
    pub at: Instant,
}

impl Request {
    /// The rule of the alert in the body.
    pub fn rule(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        body["rule"].as_str().expect("a rule").to_owned()
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A status line and headers.
    Status(String),
    /// Nothing, and the connection stays open.
    Hang,
}

impl Answer {
    pub fn status(line: &str) -> Self {
        Self::Status(line.into())
    }
}

/// A server on the loopback interface. Its threads end with the process.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<(Mutex<Vec<Request>>, Condvar)>,
}

impl Server {
    /// Answers each request by its number, from 0.
    pub fn start(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self { address: listener.local_addr().expect("an address"), seen: Arc::default() };
        let (this, answer) = (server.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (this, answer) = (this.clone(), Arc::clone(&answer));
                thread::spawn(move || this.serve(stream, &*answer));
            }
        });
        server
    }

    pub fn ok() -> Self {
        Self::start(|_| Answer::status("200 OK"))
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.0.lock().expect("not poisoned").clone()
    }

    /// Waits until so many requests have come.
    #[track_caller]
    pub fn wait(&self, requests: usize) -> Vec<Request> {
        let seen = self.seen.0.lock().expect("not poisoned");
        let enough = self.seen.1.wait_timeout_while(seen, LONG, |seen| seen.len() < requests).expect("not poisoned");
        assert!(enough.0.len() >= requests, "only {} requests", enough.0.len());
        enough.0.clone()
    }

    /// Serves one connection.
    pub fn serve(&self, stream: impl Read + Write, answer: &dyn Fn(usize) -> Answer) {
        let mut stream = BufReader::new(stream);
        while let Some(request) = read(&mut stream) {
            let number = {
                let mut seen = self.seen.0.lock().expect("not poisoned");
                seen.push(request);
                self.seen.1.notify_all();
                seen.len() - 1
            };
            match answer(number) {
                Answer::Status(status) => {
                    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
                    if stream.get_mut().write_all(text.as_bytes()).is_err() {
                        return;
                    }
                }
                // The client gives up at some time, and then there is no next request.
                Answer::Hang => {}
            }
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_lowercase()),
        }
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let line = lines.remove(0);
    Some(Request { line, headers: lines, body: String::from_utf8(body).ok()?, at: Instant::now() })
}

/// A port on which nobody listens.
pub fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}
