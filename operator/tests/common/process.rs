//! The operator as a process, and what it says about itself.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{SYSTEM, plane::Plane, until};

/// An operator. Killed when dropped.
pub struct Operator {
    /// Name of its pod.
    name: String,
    /// Where sensors connect.
    pub link: SocketAddr,
    health: SocketAddr,
    kubeconfig: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Arc<Mutex<Option<Child>>>,
}

impl Operator {
    /// Starts one; its state and its log are in this folder.
    pub fn start(plane: &Plane, folder: PathBuf, arguments: &[&str]) -> Result<Self> {
        Self::replica(plane, "operator-0", folder, arguments)
    }

    /// Starts one of several, in a pod of this name.
    pub fn replica(plane: &Plane, name: &str, folder: PathBuf, arguments: &[&str]) -> Result<Self> {
        Self::through(plane.cluster.kubeconfig(), name, folder, arguments)
    }

    /// Starts one that reaches the API server by this file.
    pub fn through(kubeconfig: PathBuf, name: &str, folder: PathBuf, arguments: &[&str]) -> Result<Self> {
        let operator = Self {
            name: name.to_owned(),
            link: free()?,
            health: free()?,
            kubeconfig,
            folder,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            child: Arc::default(),
        };
        operator.spawn()?;
        Ok(operator)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, as it was started before.
    pub fn spawn(&self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("operator.log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon-operator"));
        command.args(["run", "--no-webhook", "--namespace", SYSTEM, "--pod-name", &self.name]);
        command.args(["--pod-ip", "127.0.0.1", "--state-dir"]).arg(&self.folder);
        command.args(["--link-listen", &self.link.to_string(), "--health-listen", &self.health.to_string()]);
        command.args(&self.arguments).env("KUBECONFIG", &self.kubeconfig);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *self.child() = Some(command.spawn().context("the operator does not start")?);
        Ok(())
    }

    /// Ends it at once.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&self) -> Result<()> {
        let Some(mut child) = self.child().take() else { return Ok(()) };
        let pid = child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status()?;
        anyhow::ensure!(asked.success(), "cannot ask the operator to end");
        until(Duration::from_secs(60), "the operator has ended", async || Ok(child.try_wait()?.is_some())).await?;
        Ok(())
    }

    /// Whether it has ended by itself.
    pub fn ended(&self) -> Result<bool> {
        match &mut *self.child() {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Starts it again if it has ended, as a kubelet would. Whether it had.
    pub fn revive(&self) -> Result<bool> {
        let ended = self.ended()?;
        if ended {
            self.spawn()?;
        }
        Ok(ended)
    }

    /// Waits until it is ready.
    pub async fn ready(&self) -> Result<Duration> {
        let waited = until(Duration::from_secs(60), "the operator is ready", async || {
            Ok(self.get("/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
        });
        waited.await.with_context(|| self.log())
    }

    /// What it says about being ready: the answer without its headers.
    pub async fn readiness(&self) -> Result<String> {
        let answer = self.get("/readyz").await?;
        Ok(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("operator.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.health).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    /// Its metrics, by name with labels.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.get("/metrics").await?;
        let parse = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text.lines().filter(|line| line.starts_with("gyrfalcon_")).filter_map(parse).collect())
    }

    /// Largest resident memory so far, in MiB.
    pub fn peak_mib(&self) -> u64 {
        self.memory_mib("VmHWM:")
    }

    /// Resident memory now, in MiB.
    pub fn resident_mib(&self) -> u64 {
        self.memory_mib("VmRSS:")
    }

    fn memory_mib(&self, row: &str) -> u64 {
        let pid = self.child().as_ref().map_or(0, Child::id);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(row));
        let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or(0) >> 10
    }

    /// Seconds of CPU time so far.
    pub fn cpu(&self) -> f64 {
        let pid = self.child().as_ref().map_or(0, Child::id);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        // Fields 14 and 15, in hundredths of a second (USER_HZ).
        let times = fields.split(' ').skip(11).take(2).filter_map(|time| time.parse::<f64>().ok());
        times.sum::<f64>() / 100.0
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// The sum of a metric over all labels.
pub fn sum(metrics: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of = |full: &str| full.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
    metrics.iter().filter(|(full, _)| of(full)).map(|(_, value)| value).sum()
}

fn free() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
