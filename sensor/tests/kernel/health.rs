//! What a sensor says about itself: metrics, readiness, and the alert that it lost events.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use libtest_mimic::Trial;

use crate::{
    harness::{self, LONG, Sensor},
    needs::{Need, trial},
};

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![trial("health: a standalone sensor serves metrics and says that it is ready", &[Need::Tracing], serves)]
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// What is served at a path.
pub fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the sensor listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Value of a metric, labels included in its name.
pub fn value(metrics: &str, name: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn serves() {
    let folder = harness::folder();
    let program = folder.path().join("program");
    std::fs::copy("/bin/true", &program).expect("a copy in a temporary folder");
    let rule = format!(
        "- rule: a program ran\n  desc: A program of the case was started.\n  condition: evt.type = execve and proc.exepath = \
         {}\n  output: ran\n  priority: NOTICE\n",
        program.display()
    );
    let rules = harness::write(folder.path(), "rule.yaml", &rule);
    let address = free_address();
    let sensor = Sensor::start(&[&rules], &["--health-listen", &address.to_string()]);
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200"));
    let deadline = Instant::now() + LONG;
    while !get(address, "/readyz").starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "{}", get(address, "/readyz"));
    }
    for _ in 0..3 {
        harness::run(&program, &[]);
    }
    sensor.fence();
    // What is served was looked at within the last second.
    let deadline = Instant::now() + LONG;
    let metrics = loop {
        let metrics = get(address, "/metrics");
        let matched = value(&metrics, "gyrfalcon_sensor_rule_matches_total{rule=\"a program ran\"}");
        // The sink sends when the event has been judged, and the kernel's counters are read by another thread.
        let sent = value(&metrics, "gyrfalcon_sensor_sink_sent_total{sink=\"ClusterAlertSink/command-line\"}");
        let execs = value(&metrics, "gyrfalcon_sensor_kernel_sent_total{event=\"exec\"}");
        if matched == Some(3) && sent >= Some(3) && execs >= Some(3) {
            break metrics;
        }
        assert!(matched.unwrap_or(0) <= 3 && Instant::now() < deadline, "{metrics}");
    };
    for (name, least) in [
        ("gyrfalcon_sensor_events_total", 3),
        ("gyrfalcon_sensor_processes", 2),
        ("gyrfalcon_sensor_ring_size_bytes{cpu=\"0\",ring=\"bulk\"}", 1 << 20),
        ("gyrfalcon_sensor_memory_bytes", 1 << 20),
    ] {
        assert!(value(&metrics, name).is_some_and(|value| value >= least), "{name} is not there in {metrics}");
    }
    assert_eq!(value(&metrics, "gyrfalcon_sensor_losses_total{cause=\"ring_full\"}"), Some(0));
    assert!(!metrics.contains("spool"), "a standalone sensor has no spool");
    sensor.stop().is_clean();
}
