//! What the audit log costs: a file read to its end, and a webhook under load, both by the program itself and measured from
//! outside.
//!
//! ```text
//! GYRFALCON_FALCO_RULES=/path/to/falco-rules cargo bench -p gyrfalcon-sensor --bench audit
//! ```
//!
//! Without the variable the rules are those of `config/rules/audit`. The events are made up in the sizes and shares that an API
//! server has with the policy of `gyrfalcon audit policy`: mostly metadata, some pods with request and answer.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

#[path = "../../crates/rules/benches/audit/events.rs"]
mod events;

use events::event;
use nix::{sys::signal, unistd::Pid};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// Size of the file.
const FILE: usize = 100 << 20;
/// Events a second that the webhook is given, in batches of the API server's size.
const RATE: usize = 4000;
const BATCH: usize = 400;
const SECONDS: u64 = 30;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = rules();
    println!("rules: {}", rules.display());
    file(folder.path(), &rules);
    webhook(folder.path(), &rules);
}

fn rules() -> PathBuf {
    let falco = env::var_os("GYRFALCON_FALCO_RULES").map(|folder| Path::new(&folder).join("k8s_audit_rules.yaml"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/rules/audit");
    falco.filter(|path| path.exists()).unwrap_or(own)
}

/// A running program, and what it used.
struct Program(Child);

impl Program {
    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default()
    }

    fn peak_mib(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }

    fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        // Fields 14 and 15, in hundredths of a second (USER_HZ).
        fields.split(' ').skip(11).take(2).filter_map(|time| time.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, args: &[&str]) -> Program {
    let log = fs::File::create(folder.join("log")).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon"));
    command.arg("audit").args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Program(command.spawn().expect("the program starts"))
}

fn file(folder: &Path, rules: &Path) {
    let path = folder.join("audit.log");
    let mut text = String::with_capacity(FILE + 8192);
    let mut events = 0;
    while text.len() < FILE {
        text += &event(events);
        text.push('\n');
        events += 1;
    }
    fs::write(&path, &text).expect("the file is written");
    let (rules, path) = (rules.display().to_string(), path.display().to_string());
    let begun = Instant::now();
    let mut program = start(folder, &[&rules, "--file", &path, "--json", "--output", "/dev/null", "--no-watch"]);
    let (mut cpu, mut peak) = (0.0, 0.0_f64);
    let status = loop {
        // What a dead process used is not to be had any more: the last look counts.
        (cpu, peak) = (f64::max(cpu, program.cpu()), peak.max(program.peak_mib()));
        match program.0.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let took = begun.elapsed().as_secs_f64();
    assert!(status.success(), "{}", fs::read_to_string(folder.join("log")).unwrap_or_default());
    let megabytes = text.len() as f64 / 1e6;
    println!(
        "file: {events} events, {megabytes:.0} MB in {took:.2} s ({cpu:.2} s of CPU): {:.0} MB/s, {:.0} MB/s per core, {:.0} events/s; {peak:.0} MiB",
        megabytes / took,
        megabytes / cpu,
        f64::from(u32::try_from(events).unwrap_or(u32::MAX)) / took
    );
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// A connection to the receiver, with the API server's certificate.
fn connect(pki: &Path, address: SocketAddr) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.crt")).expect("a certificate")).expect("an authority");
    let chain = vec![CertificateDer::from_pem_file(pki.join("client.crt")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(pki.join("client.key")).expect("a key");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("an identity");
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    Ok(StreamOwned::new(session, tcp))
}

/// The status of the answer to one request.
fn post(stream: &mut StreamOwned<ClientConnection, TcpStream>, body: &str) -> std::io::Result<u16> {
    let head = format!(
        "POST /k8s-audit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let length = text.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0))
}

fn webhook(folder: &Path, rules: &Path) {
    let pki = folder.join("pki");
    drop(fs::remove_dir_all(&pki));
    let made = start(folder, &["certificates", &pki.display().to_string(), "--name", "localhost"]).0.wait();
    assert!(made.expect("a child").success());
    let (address, health) = (free(), free());
    let file = |name: &str| pki.join(name).display().to_string();
    let program = start(
        folder,
        &[
            &rules.display().to_string(),
            "--json",
            "--output",
            "/dev/null",
            "--no-watch",
            "--listen",
            &address.to_string(),
            "--health-listen",
            &health.to_string(),
            "--tls-cert",
            &file("tls.crt"),
            "--tls-key",
            &file("tls.key"),
            "--client-ca",
            &file("ca.crt"),
        ],
    );
    let patience = Instant::now();
    let mut stream = loop {
        match connect(&pki, address) {
            Ok(stream) => break stream,
            Err(error) => assert!(patience.elapsed() < Duration::from_secs(20), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let batches: Vec<String> = (0..20)
        .map(|batch| {
            let events: Vec<_> = (batch * BATCH..(batch + 1) * BATCH).map(event).collect();
            format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}"#, events.join(","))
        })
        .collect();
    let begun = Instant::now();
    let (mut sent, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    for (number, body) in (0..RATE / BATCH * SECONDS as usize).zip(batches.iter().cycle()) {
        let due = begun + Duration::from_secs_f64(number as f64 * BATCH as f64 / RATE as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        match post(&mut stream, body).expect("an answer") {
            200 => sent += BATCH,
            _ => refused += 1,
        }
        slowest = slowest.max(asked.elapsed());
    }
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    let (cpu, peak) = (program.cpu(), program.peak_mib());
    println!(
        "webhook: {sent} events at {rate:.0}/s, {refused} batches refused, slowest answer {:.0} ms; {:.0} % of a CPU, {peak:.0} MiB",
        slowest.as_secs_f64() * 1e3,
        cpu / begun.elapsed().as_secs_f64() * 100.0
    );
    // As fast as it goes, on the same connection.
    let (begun, before) = (Instant::now(), program.cpu());
    let (mut sent, mut refused) = (0_usize, 0);
    for body in batches.iter().cycle().take(500) {
        match post(&mut stream, body).expect("an answer") {
            200 => sent += BATCH,
            _ => refused += 1,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "webhook, as fast as it goes: {:.0} events/s, {refused} of 500 batches refused; {:.0} % of a CPU, {:.0} MiB",
        sent as f64 / seconds,
        (program.cpu() - before) / seconds * 100.0,
        program.peak_mib()
    );
    let pid = Pid::from_raw(i32::try_from(program.0.id()).expect("a pid"));
    signal::kill(pid, signal::Signal::SIGTERM).expect("it runs");
}
