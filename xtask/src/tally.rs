//! Counts of tests, read from what test runners print.
//!
//! libtest and libtest-mimic end with the same line; there is no stable machine-readable form of it.

use std::fmt;
use std::io::{self, Read, Write};
use std::iter::Sum;
use std::ops::Add;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use crate::process;

/// How tests ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Ended well.
    pub passed: usize,
    /// Did not.
    pub failed: usize,
    /// Were not run, for a reason that the runner prints.
    pub skipped: usize,
}

impl Tally {
    /// One failure that no test runner counted: a check, or a runner that died.
    pub const ONE_FAILURE: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// Whether any test is in it.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Reads `test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; …`.
    pub fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let count = |word: &str| {
            let entry = counts.split(';').map(str::trim).find(|entry| entry.ends_with(word))?;
            entry.split(' ').next()?.parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            passed: self.passed + more.passed,
            failed: self.failed + more.failed,
            skipped: self.skipped + more.skipped,
        }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs test runners, showing their output as it comes, and adds up the counts in it.
pub fn run(command: &mut Command) -> Result<(ExitStatus, Tally)> {
    let shown = process::shown(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = child.stdout.take().context("the child's stdout was not piped")?;
    let tally = copy_and_count(stdout, &mut io::stdout().lock()).context("cannot pass on what the tests print")?;
    let status = child.wait().context("cannot wait for the tests")?;
    Ok((status, tally))
}

fn copy_and_count(mut from: impl Read, to: &mut impl Write) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let length = from.read(&mut buffer)?;
        let chunk = &buffer[..length];
        if chunk.is_empty() {
            return Ok(tally);
        }
        to.write_all(chunk)?;
        to.flush()?;
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                tally = tally + Tally::of_line(&String::from_utf8_lossy(&line)).unwrap_or_default();
                line.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time: lines come in pieces.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            (&mut self.0).take(1).read(buffer)
        }
    }

    #[test]
    fn results_of_several_runners_add_up_and_all_output_passes() -> io::Result<()> {
        let text = "running 3 tests\n\
            test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            noise: test result\n\
            test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let mut shown = Vec::new();
        let tally = copy_and_count(Slow(text.as_bytes()), &mut shown)?;
        assert_eq!(tally, Tally { passed: 11, failed: 3, skipped: 1 });
        assert_eq!(shown, text.as_bytes());
        Ok(())
    }

    #[test]
    fn the_last_line_names_skipped_tests_only_when_there_are_some() {
        assert_eq!(Tally { passed: 5, failed: 0, skipped: 0 }.to_string(), "5 passed, 0 failed");
        assert_eq!(Tally { passed: 5, failed: 1, skipped: 2 }.to_string(), "5 passed, 1 failed, 2 skipped");
    }
}
