//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

/// How long to rest between two looks; what is looked at are other processes, which do not tell us.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer; an error names what was waited for.
pub fn wait_for<T>(longest: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    try_wait_for(longest, what, || Ok(ask()))
}

/// Like [`wait_for`], for questions that can show that waiting is in vain.
pub fn try_wait_for<T>(longest: Duration, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("not within {:.0} s: {what}", longest.as_secs_f32());
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until somebody asks this process to end, as Ctrl-C does.
pub fn interrupted() -> Result<()> {
    let mut asked = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| asked.add(signal));
    asked.thread_block().context("cannot hold back signals")?;
    asked.wait().context("cannot wait for a signal")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_the_waiting_and_a_deadline_names_what_was_missed() {
        let mut left = 2;
        let answer = wait_for(Duration::from_secs(5), "a count", || {
            left -= 1;
            (left == 0).then_some("done")
        });
        assert_eq!(answer.ok(), Some("done"));
        let missed = wait_for(Duration::ZERO, "the moon", || None::<()>).map_err(|error| error.to_string());
        assert_eq!(missed, Err("not within 0 s: the moon".to_owned()));
    }
}
