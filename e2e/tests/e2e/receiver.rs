//! An HTTP receiver in this process, which pods reach: what it got, and whether it takes anything.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use e2e::{Cluster, try_wait_for};

use crate::harness::LONG;

/// Takes requests until it is dropped.
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    bodies: Mutex<Vec<String>>,
    refuse: AtomicBool,
    ended: AtomicBool,
    token: Option<String>,
}

impl Receiver {
    /// Takes requests on all addresses of this machine that the cluster reaches; only those with the token, if there is one.
    pub fn start(token: Option<&str>) -> Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            bodies: Mutex::default(),
            refuse: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            token: token.map(str::to_owned),
        });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.ended.load(SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let served = Arc::clone(&served);
                thread::spawn(move || served.answer(stream));
            }
        });
        Ok(Self { port, shared })
    }

    /// Where pods reach it.
    pub fn url(&self, cluster: &Cluster) -> String {
        format!("http://{}:{}/", cluster.host_address(), self.port)
    }

    /// From now on, answers 503 to everything, or no longer.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, SeqCst);
    }

    /// The bodies of all requests that were taken.
    pub fn bodies(&self) -> Vec<String> {
        self.shared.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many requests were taken.
    pub fn wait(&self, count: usize) -> Result<Vec<String>> {
        try_wait_for(LONG, &format!("{count} alerts at the receiver"), || {
            let bodies = self.bodies();
            Ok((bodies.len() >= count).then_some(bodies))
        })
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) {
        let timeout = Some(Duration::from_secs(10));
        if stream.set_read_timeout(timeout).is_err() {
            return;
        }
        let Ok(reading) = stream.try_clone() else { return };
        let mut reader = BufReader::new(reading);
        loop {
            let (mut length, mut allowed, mut lines) = (0, self.token.is_none(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                lines += 1;
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                if let Some((name, value)) = line.split_once(':') {
                    if name.eq_ignore_ascii_case("content-length") {
                        length = value.trim().parse().unwrap_or(0);
                    }
                    if name.eq_ignore_ascii_case("authorization") {
                        allowed |= self.token.as_ref().is_some_and(|token| value.trim() == format!("Bearer {token}"));
                    }
                }
            }
            let mut body = vec![0; length];
            if lines == 0 || reader.read_exact(&mut body).is_err() {
                return;
            }
            let status = match (self.refuse.load(SeqCst), allowed) {
                (true, _) => "503 Service Unavailable",
                (false, false) => "401 Unauthorized",
                (false, true) => {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    self.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                    "200 OK"
                }
            };
            if stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_err() {
                return;
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        // Wakes the listener, so that it sees that it has ended.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}
