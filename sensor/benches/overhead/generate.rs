//! Processes that make calls at a pace: this program, started again with a hidden argument.

use std::{
    env,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{open_and_close, pin};

/// The hidden argument; call, rate, seconds and CPU follow.
const GENERATE: &str = "--generate";

/// Calls that are made before the clock is looked at.
const BATCH: u64 = 500;

/// How long a generator sleeps that is ahead of its pace.
const AHEAD: Duration = Duration::from_micros(200);

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `sched_get_priority_min`, which does next to nothing and which hardly anybody else calls.
    Cheap,
    /// `open` and `close` of a file.
    Open,
}

impl Call {
    fn word(self) -> &'static str {
        match self {
            Self::Cheap => "cheap",
            Self::Open => "open",
        }
    }

    fn make(self) {
        match self {
            Self::Cheap => {
                // SAFETY: no memory involved.
                std::hint::black_box(unsafe { libc::sched_get_priority_min(libc::SCHED_OTHER) });
            }
            Self::Open => open_and_close(),
        }
    }
}

/// Generates when the arguments say so.
pub fn play(args: &[String]) -> bool {
    let [first, call, rate, seconds, cpu] = args else { return false };
    if first != GENERATE {
        return false;
    }
    let call = [Call::Cheap, Call::Open].into_iter().find(|known| known.word() == call).expect("a call");
    let seconds: f64 = seconds.parse().expect("seconds");
    pin(cpu.parse().expect("a CPU"));
    println!("{}", generate(call, rate.parse().expect("a rate"), Duration::from_secs_f64(seconds)));
    true
}

/// Makes calls for so long, so many a second, or with 0 as many as it can; how many it were. Who falls behind catches up.
fn generate(call: Call, rate: u32, time: Duration) -> u64 {
    let began = Instant::now();
    let mut made = 0;
    loop {
        let elapsed = began.elapsed().min(time);
        let due = if rate == 0 { u64::MAX } else { (elapsed.as_secs_f64() * f64::from(rate)) as u64 };
        if elapsed == time && (rate == 0 || made >= due) {
            return made;
        }
        if made >= due {
            thread::sleep(AHEAD);
            continue;
        }
        let batch = BATCH.min(due - made);
        (0..batch).for_each(|_| call.make());
        made += batch;
    }
}

/// Running generators.
pub struct Generators(Vec<Child>);

impl Generators {
    /// Starts two, each on a CPU of its own where there are two.
    pub fn start(call: Call, rate: u32, seconds: u32) -> Self {
        // This process is pinned, so it is not asked how many CPUs it may use.
        let cpus = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(1);
        let cpus = usize::try_from(cpus).unwrap_or(1).max(1);
        let own = env::current_exe().expect("this program has a path");
        let start = |index: usize| {
            let numbers = [rate.to_string(), seconds.to_string(), (index % cpus).to_string()];
            Command::new(&own)
                .args([GENERATE, call.word()])
                .args(numbers)
                .stdout(Stdio::piped())
                .spawn()
                .expect("this program starts")
        };
        Self((0..2).map(start).collect())
    }

    /// Whether one still runs.
    pub fn running(&mut self) -> bool {
        self.0.iter_mut().any(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for them; how many calls they made.
    pub fn finish(self) -> u64 {
        let made = |child: Child| {
            let output = child.wait_with_output().expect("a child");
            String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().expect("the number of calls")
        };
        self.0.into_iter().map(made).sum()
    }
}
