//! How the steps ended: a line for each, and at the very end the sum of all tests.

use std::time::Duration;

use anyhow::Error;

use super::Step;
use crate::tally::Tally;

/// How a step ended.
#[derive(Debug)]
pub enum Outcome {
    /// Well. The counts are empty for a step without tests.
    Passed(Tally),
    /// With failures, counted or not.
    Failed(Tally, String),
    /// Not at all, and that is no failure.
    CannotRun(String),
}

/// A step and how it ended.
pub struct Row {
    /// The step.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// How long that took.
    pub took: Duration,
}

impl Outcome {
    /// Of a step whose work could not be done or was refused.
    pub fn broken(error: &Error) -> Self {
        Self::Failed(Tally::ONE_FAILURE, format!("{error:#}"))
    }

    /// Of a test runner. One that fails without a failed test has died, or did not compile: that is a failure too.
    pub fn of_tests(well: bool, tally: Tally) -> Self {
        match (well, tally.failed) {
            (true, _) => Self::Passed(tally),
            (false, 0) => {
                let reason = "a test runner did not build, or died before it could count; see above".to_owned();
                Self::Failed(tally + Tally::ONE_FAILURE, reason)
            }
            (false, failed) => Self::Failed(tally, format!("{failed} tests failed; see above")),
        }
    }

    fn tally(&self) -> Tally {
        match self {
            Self::Passed(tally) | Self::Failed(tally, _) => *tally,
            Self::CannotRun(_) => Tally::default(),
        }
    }
}

/// Says why a step failed as soon as that is known.
pub fn tell_failure(outcome: &Outcome) {
    if let Outcome::Failed(_, reason) = outcome {
        eprintln!("error: {reason}");
    }
}

/// Prints the summary; its last line is the last thing that is printed. Says whether all is well.
pub fn print(rows: &[Row]) -> bool {
    println!("\n{}", summary(rows));
    rows.iter().all(|row| !matches!(row.outcome, Outcome::Failed(..)))
}

fn summary(rows: &[Row]) -> String {
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.push(rows.iter().map(|row| row.outcome.tally()).sum::<Tally>().to_string());
    lines.join("\n")
}

fn line(row: &Row) -> String {
    let about = match &row.outcome {
        Outcome::Passed(tally) if tally.is_empty() => "ok".to_owned(),
        Outcome::Passed(tally) => format!("ok: {tally}"),
        Outcome::Failed(_, reason) => format!("FAILED: {}", reason.lines().next().unwrap_or_default()),
        Outcome::CannotRun(reason) => format!("cannot run here: {reason}"),
    };
    format!("{:<7} {:>6.1} s  {about}", row.step.name(), row.took.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: Step, outcome: Outcome) -> Row {
        Row { step, outcome, took: Duration::from_millis(1500) }
    }

    #[test]
    fn a_check_that_failed_is_in_the_sum() {
        let tally = Tally { passed: 7, failed: 0, skipped: 1 };
        let rows = [
            row(Step::Fmt, Outcome::Passed(Tally::default())),
            row(Step::Clippy, Outcome::broken(&anyhow::anyhow!("linting\n  remedy: read"))),
            row(Step::Unit, Outcome::of_tests(true, tally)),
            row(Step::Kernel, Outcome::CannotRun("no root".into())),
        ];
        let want = "fmt        1.5 s  ok\nclippy     1.5 s  FAILED: linting\nunit       1.5 s  ok: 7 passed, 0 failed, 1 skipped\n\
             kernel     1.5 s  cannot run here: no root\n7 passed, 1 failed, 1 skipped";
        assert_eq!(summary(&rows), want);
    }

    #[test]
    fn a_runner_that_dies_before_it_counts_is_a_failure() {
        let outcome = Outcome::of_tests(false, Tally { passed: 3, failed: 0, skipped: 0 });
        assert_eq!(outcome.tally(), Tally { passed: 3, failed: 1, skipped: 0 });
    }
}
