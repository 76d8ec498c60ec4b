//! A sensor as a user runs it: started, waited for, listened to, stopped.
//!
//! Standard output is read as alerts and standard error as log lines, each by a thread of its own; cases look at what has
//! arrived and wait for more with a deadline. What a test knows of the sensor is only what it prints.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::child;

/// The binary under test.
pub const GYRFALCON: &str = env!("CARGO_BIN_EXE_gyrfalcon");

/// How the sensor sees what an io_uring does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rings {
    /// By the kernel's functions.
    Functions,
    /// When it is completed.
    Completions,
    /// Not at all.
    Unseen,
}

/// What the sensor says of it: it depends on the kernel.
pub fn rings() -> Rings {
    static RINGS: OnceLock<Rings> = OnceLock::new();
    *RINGS.get_or_init(|| {
        let output = Command::new(GYRFALCON).arg("doctor").output().expect("a doctor");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.lines().find(|line| line.contains("what an io_uring does")).expect("a line about rings");
        match line {
            _ if line.starts_with("no") => Rings::Unseen,
            _ if line.contains("when it is completed") => Rings::Completions,
            _ => Rings::Functions,
        }
    })
}

/// Longer than anything takes that works, in an emulated guest as well.
pub const LONG: Duration = Duration::from_secs(120);

/// Whether this is an emulated guest (`cargo xtask kernel-test --vm`): many times slower than any machine, so that cases
/// do less there and assert no timings.
pub fn in_guest() -> bool {
    std::env::var_os("GYRFALCON_TEST_GUEST").is_some()
}

/// Whether this kernel may preempt a program that it runs at a typed tracepoint, and skips it for others on that processor
/// until it goes on: since Linux 7.0 (<https://git.kernel.org/torvalds/c/a46023d5616ed3ed781e56ca93400eb9490e3646>). The
/// program of fork is the only one that the sensor has there then (docs/kernels.md).
pub fn preempts_programs() -> bool {
    kernel() >= (7, 0)
}

/// The first two numbers of the kernel's release.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    numbers.next().zip(numbers.next()).expect("a kernel's release begins with two numbers")
}

/// A folder of one case's own, removed with it. Not in shared memory, where execution is a matter for rules; without
/// symbolic links in its path, so that the kernel's view of it is the same.
pub fn folder() -> TempDir {
    let parent = std::env::temp_dir().canonicalize().expect("a folder for temporary files");
    tempfile::Builder::new().prefix("gyrfalcon-test-").tempdir_in(parent).expect("a temporary folder")
}

/// Writes a file and says where.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("writing into a temporary folder");
    path
}

/// One line on standard output.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Falco's JSON.
    json: Value,
    /// When it arrived here.
    pub at: Instant,
}

impl Alert {
    /// Name of the rule.
    pub fn rule(&self) -> &str {
        self.text("rule")
    }

    /// A text of the alert itself: `output`, `priority`, `source`.
    pub fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    /// An output field as text; `None` when it is null or not there.
    pub fn field(&self, name: &str) -> Option<String> {
        match &self.json["output_fields"][name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Whether an output field has this text.
    pub fn has(&self, name: &str, text: &str) -> bool {
        self.field(name).is_some_and(|value| value == text)
    }

    /// The keys of Falco's JSON.
    pub fn keys(&self) -> Vec<&str> {
        self.json.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
    }
}

/// What a thread has read so far.
struct Feed<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: Vec<T>,
    ended: bool,
}

impl<T: Send + 'static> Feed<T> {
    fn read(pipe: impl Read + Send + 'static, parse: impl Fn(String) -> T + Send + 'static) -> Arc<Self> {
        let feed =
            Arc::new(Self { state: Mutex::new(State { items: Vec::new(), ended: false }), changed: Condvar::new() });
        let writer = Arc::clone(&feed);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                writer.lock().items.push(parse(line));
                writer.changed.notify_all();
            }
            writer.lock().ended = true;
            writer.changed.notify_all();
        });
        feed
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers what has arrived, in pieces, until something is made of it; `None` when nothing more comes in time.
    fn wait<R>(&self, deadline: Instant, mut look: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let mut state = self.lock();
        let mut seen = 0;
        loop {
            for item in &state.items[seen..] {
                if let Some(found) = look(item) {
                    return Some(found);
                }
            }
            seen = state.items.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_end(&self, deadline: Instant) {
        let mut state = self.lock();
        while !state.ended && Instant::now() < deadline {
            state =
                self.changed.wait_timeout(state, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A running sensor. Dropped, it is killed, and a failing case shows what it had to say.
pub struct Sensor {
    process: Child,
    alerts: Arc<Feed<Alert>>,
    log: Arc<Feed<String>>,
    fences: Fences,
}

/// Marks that only the sensor's fence rule looks for.
struct Fences {
    folder: TempDir,
    count: AtomicU32,
}

impl Fences {
    const RULE: &str = "fence of the kernel tests";

    fn new() -> Self {
        let folder = folder();
        let rule = format!(
            "- rule: {}\n  desc: Tells a test that everything before it was judged.\n  condition: >-\n    \
             evt.type in (open, openat) and fd.name startswith {}/fence-\n  output: fence=%fd.name\n  priority: DEBUG\n",
            Self::RULE,
            folder.path().display()
        );
        write(folder.path(), "fence.yaml", &rule);
        Self { folder, count: AtomicU32::new(0) }
    }
}

/// How a sensor ended.
#[derive(Debug)]
pub struct Summary {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// From the signal to the end.
    pub took: Duration,
    /// `key=value` of the last words.
    keys: BTreeMap<String, String>,
    /// Everything on standard error.
    pub log: Vec<String>,
    /// Every alert.
    pub alerts: Vec<Alert>,
}

impl Summary {
    /// A number of the last words.
    #[track_caller]
    pub fn count(&self, key: &str) -> u64 {
        let text = self.keys.get(key).unwrap_or_else(|| panic!("no `{key}=` in the summary: {:#?}", self.log));
        text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number"))
    }

    /// A good end, at which nothing was lost.
    ///
    /// Except to a storm of short-lived processes that somebody else has raised meanwhile: then rings for their records
    /// may have overflowed, which is counted, and no fault of the case. And except forks, to the kernel's way with programs
    /// that it has preempted: what the case is about has been waited for, so none of that was among it.
    #[track_caller]
    pub fn is_clean(&self) {
        self.is_clean_but(0);
    }

    /// Calls that the kernel skipped because it would not run a program then.
    pub fn skipped(&self, program: &str) -> u64 {
        let last = self.log.iter().skip_while(|line| !line.contains("stopping")).map(|line| keys(line));
        let is = |keys: &BTreeMap<String, String>, key: &str, word: &str| {
            keys.get(key).is_some_and(|found| found.trim_matches('"') == word)
        };
        let skipped = last.filter(|keys| is(keys, "cause", "recursion") && is(keys, "program", program));
        skipped.filter_map(|keys| keys.get("count")?.parse::<u64>().ok()).sum()
    }

    /// As [`Summary::is_clean`], with so many more losses that the case has looked at itself.
    #[track_caller]
    pub fn is_clean_but(&self, known: u64) {
        assert_eq!(self.code, Some(0), "exit code; log: {:#?}", self.log);
        let last = self.log.iter().skip_while(|line| !line.contains("stopping")).map(|line| keys(line));
        let excused = last.filter(|keys| {
            let is =
                |key: &str, names: &[&str]| keys.get(key).is_some_and(|name| names.contains(&name.trim_matches('"')));
            is("event", &["exec", "fork", "exit"]) && is("cause", &["ring_full"])
                || is("program", &["process_fork"]) && is("cause", &["recursion"]) && preempts_programs()
        });
        let excused: u64 = excused.filter_map(|keys| keys.get("count")?.parse::<u64>().ok()).sum();
        assert_eq!(self.count("lost"), excused + known, "events were lost; log: {:#?}", self.log);
    }
}

impl Sensor {
    /// Starts `gyrfalcon run` with rules files or folders, and waits until it watches.
    #[track_caller]
    pub fn start(paths: &[&Path], options: &[&str]) -> Self {
        Self::start_by(paths, options, |_| Command::new(GYRFALCON))
    }

    /// As [`Sensor::start`], with a table of hosts that is its own; it knows no other names.
    #[track_caller]
    pub fn start_where(paths: &[&Path], options: &[&str], hosts: &str) -> Self {
        Self::start_by(paths, options, |folder| {
            let hosts = write(folder, "hosts", hosts);
            // Nobody listens there: other names are unknown at once.
            let servers = write(folder, "resolv.conf", "nameserver 127.0.0.1\noptions attempts:1\n");
            child::where_names_are(&hosts, &servers, GYRFALCON)
        })
    }

    /// As [`Sensor::start`], by a command that becomes the sensor; it gets a folder for what it needs.
    #[track_caller]
    pub fn start_by(paths: &[&Path], options: &[&str], command: impl FnOnce(&Path) -> Command) -> Self {
        let fences = Fences::new();
        let fence_rule = fences.folder.path().join("fence.yaml");
        let mut args: Vec<OsString> =
            ["run", "--json"].into_iter().chain(options.iter().copied()).map(Into::into).collect();
        args.push(fence_rule.into());
        args.extend(paths.iter().map(|path| path.as_os_str().to_owned()));
        let mut command = command(fences.folder.path());
        child::dies_with_parent(&mut command);
        let mut process = command
            .args(&args)
            .env_remove("GYRFALCON_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sensor was built with this test");
        let (stdout, stderr) = (process.stdout.take().expect("piped"), process.stderr.take().expect("piped"));
        let alerts = Feed::read(stdout, |line| Alert {
            json: serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({ "no JSON": line })),
            at: Instant::now(),
        });
        let sensor = Self { process, alerts, log: Feed::read(stderr, |line| line), fences };
        sensor.expect_log("watching", |line| line.contains("watching"));
        sensor
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line on standard error.
    #[track_caller]
    pub fn expect_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = self.log.wait(Instant::now() + LONG, |line| wanted(line).then(|| line.clone()));
        found.unwrap_or_else(|| panic!("the sensor did not say: {what}"))
    }

    /// Waits for an alert.
    #[track_caller]
    pub fn expect(&self, what: &str, wanted: impl Fn(&Alert) -> bool) -> Alert {
        let found = self.alerts.wait(Instant::now() + LONG, |alert| wanted(alert).then(|| alert.clone()));
        found.unwrap_or_else(|| panic!("no alert: {what}; there were {:#?}", self.all()))
    }

    /// The alerts that have arrived, without fences.
    pub fn all(&self) -> Vec<Alert> {
        self.alerts.lock().items.iter().filter(|alert| alert.rule() != Fences::RULE).cloned().collect()
    }

    /// Makes sure that whatever happened before this call has been judged and its alerts have arrived: opens a file that
    /// a rule of the harness looks for, and waits for its alert. Events are judged in order of time, so the sum is: after
    /// a fence, an alert that is not there will not come. In a storm that the machine cannot keep up with the event of the
    /// fence can be lost like any other: it is made again, less and less often.
    #[track_caller]
    pub fn fence(&self) {
        let number = self.fences.count.fetch_add(1, Ordering::Relaxed);
        let path = self.fences.folder.path().join(format!("fence-{number}."));
        let name = path.display().to_string();
        let (end, mut patience) = (Instant::now() + LONG, Duration::from_secs(2));
        loop {
            // There is no such file; the attempt is enough.
            let _ = fs::File::open(&path);
            let until = end.min(Instant::now() + patience);
            let is_ours = |alert: &Alert| (alert.rule() == Fences::RULE && alert.has("fd.name", &name)).then_some(());
            if self.alerts.wait(until, is_ours).is_some() {
                return;
            }
            assert!(until < end, "no alert of a fence; there were {:#?}", self.all());
            patience *= 2;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("pids are small");
        kill(Pid::from_raw(pid), signal).expect("it is our child, and not yet waited for");
    }

    /// Stops it as a user would.
    #[track_caller]
    pub fn stop(self) -> Summary {
        self.stop_with(Signal::SIGINT)
    }

    /// Stops it with a signal and reads its last words.
    #[track_caller]
    pub fn stop_with(self, signal: Signal) -> Summary {
        let began = Instant::now();
        self.signal(signal);
        self.wait(began)
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(mut self, began: Instant) -> Summary {
        let status = wait_for(&mut self.process, LONG).expect("the sensor did not end");
        let took = began.elapsed();
        let deadline = Instant::now() + LONG;
        self.alerts.wait_for_end(deadline);
        self.log.wait_for_end(deadline);
        let log = self.log.lock().items.clone();
        let last = log.iter().rfind(|line| line.contains(" stopped") && line.contains("events=")).cloned();
        Summary { code: status.code(), took, keys: keys(last.as_deref().unwrap_or_default()), log, alerts: self.all() }
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let running = matches!(self.process.try_wait(), Ok(None));
        if running {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if thread::panicking() {
            eprintln!("--- what the sensor said");
            self.log.lock().items.iter().for_each(|line| eprintln!("{line}"));
            eprintln!("---");
        }
    }
}

/// `key=value` pairs of a log line.
pub fn keys(line: &str) -> BTreeMap<String, String> {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Waits for the end of a process; `None` when it did not end in time. Asking again and again is all that the system
/// offers without taking over SIGCHLD.
pub fn wait_for(process: &mut Child, longest: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(status) = process.try_wait().expect("it is our child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A process that is killed when the case is over, whatever becomes of it.
pub struct Helper(pub Child);

impl Helper {
    /// Starts a command.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program())))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has ended well, and returns what it printed, if that was piped.
    #[track_caller]
    pub fn finish(mut self, longest: Duration) -> String {
        let mut text = String::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            stdout.read_to_string(&mut text).expect("text from a process of ours");
        }
        let status = wait_for(&mut self.0, longest).expect("the process did not end");
        assert!(status.success(), "a process of the test failed: {status}; it printed {text}");
        text
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Runs a program to its end and returns its process id.
#[track_caller]
pub fn run(program: impl AsRef<OsStr>, args: &[&str]) -> u32 {
    let helper = Helper::start(Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()));
    let pid = helper.pid();
    helper.finish(LONG);
    pid
}

/// Name of this process's main thread, as the kernel has it.
pub fn own_name() -> String {
    fs::read_to_string("/proc/self/comm").expect("/proc is mounted").trim_end().to_owned()
}
