//! `cargo xtask test`: everything a checkout can test on this machine, and what `.ci/run` calls.
//!
//! A failing step does not stop the others: one run tells everything. What dominates is building the dependencies,
//! once for clippy and once for the tests (cargo shares nothing between the two but build scripts), so every cargo
//! call takes the whole workspace in the dev profile, with the same kernel programs handed over: then features are
//! the same everywhere and nothing is built a third time.
//! Generated files are compared by tests of the crates that make them ([`crate::generated`]), so they are no step.

mod report;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};

use crate::checkout::{self, Checkout};
use crate::codegen::Mode;
use crate::tally::{self, Tally};
use crate::{binaries, chart, deny, e2e_test, ebpf, kernel_test, kubernetes, process, tidy};
use report::{Outcome, Row};

/// One part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Formatting.
    Fmt,
    /// What [`crate::tidy`] checks.
    Tidy,
    /// Licences and sources of dependencies.
    Deny,
    /// The Helm chart, its renders and `config/install.yaml`.
    Chart,
    /// The kernel programs build.
    Ebpf,
    /// Lints; a warning is a failure.
    Clippy,
    /// Every test that needs no root.
    Unit,
    /// The sensor against this kernel, as root.
    Kernel,
    /// Everything on a real Kubernetes, as root.
    E2e,
}

impl Step {
    /// In the order in which they run: the quick ones first.
    pub const ALL: [Self; 9] =
        [Self::Fmt, Self::Tidy, Self::Deny, Self::Chart, Self::Ebpf, Self::Clippy, Self::Unit, Self::Kernel, Self::E2e];

    /// The word for `--only`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::Deny => "deny",
            Self::Chart => "chart",
            Self::Ebpf => "ebpf",
            Self::Clippy => "clippy",
            Self::Unit => "unit",
            Self::Kernel => "kernel",
            Self::E2e => "e2e",
        }
    }

    /// The step of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    /// Whether it has tests that a filter can choose from.
    fn has_tests(self) -> bool {
        matches!(self, Self::Unit | Self::Kernel | Self::E2e)
    }
}

/// What was asked for.
pub struct Request {
    /// These steps; none means all.
    pub only: Vec<Step>,
    /// Tests whose names contain one of these; none means all.
    pub filters: Vec<String>,
    /// A kernel test that cannot run is a failure. From the environment: `REQUIRE_KERNEL=1`.
    pub require_kernel: bool,
}

impl Request {
    fn steps(&self) -> Vec<Step> {
        let asked = |step: &Step| match self.only.as_slice() {
            [] => self.filters.is_empty() || step.has_tests(),
            only => only.contains(step),
        };
        Step::ALL.into_iter().filter(asked).collect()
    }
}

/// Runs the steps and prints the summary, whose last line is the sum of all tests. Says whether all is well.
pub fn run(checkout: &Checkout, request: &Request) -> Result<bool> {
    let mut suite = Suite { checkout, request, object: None };
    let mut rows = Vec::new();
    for step in request.steps() {
        process::announce(format_args!("── {} ──", step.name()));
        let began = Instant::now();
        let outcome = suite.take(step).unwrap_or_else(|error| Outcome::broken(&error));
        report::tell_failure(&outcome);
        rows.push(Row { step, outcome, took: began.elapsed() });
    }
    Ok(report::print(&rows))
}

struct Suite<'a> {
    checkout: &'a Checkout,
    request: &'a Request,
    /// The kernel programs, once built.
    object: Option<std::path::PathBuf>,
}

impl Suite<'_> {
    fn take(&mut self, step: Step) -> Result<Outcome> {
        match step {
            Step::Fmt => fmt(self.checkout).map(|()| Outcome::Passed(Tally::default())),
            Step::Tidy => tidy::run(self.checkout).map(|()| Outcome::Passed(Tally::default())),
            Step::Deny => deny::run(self.checkout).map(|()| Outcome::Passed(Tally::default())),
            Step::Chart => self.chart(),
            Step::Ebpf => self.object().map(|_| Outcome::Passed(Tally::default())),
            Step::Clippy => clippy(self.checkout, self.object()?).map(|()| Outcome::Passed(Tally::default())),
            Step::Unit => {
                let (checkout, filters) = (self.checkout, &self.request.filters);
                let object = self.object()?.to_owned();
                unit(checkout, &object, filters)
            }
            Step::Kernel => self.kernel(),
            Step::E2e => self.e2e(),
        }
    }

    fn chart(&self) -> Result<Outcome> {
        // A fresh machine has no helm. When the tests on a cluster come later, what they need is built anyway.
        if self.request.steps().contains(&Step::E2e) && e2e_test::cannot_run(self.checkout).is_none() {
            kubernetes::tools(self.checkout)?;
        }
        match chart::cannot_run() {
            Some(reason) => Ok(Outcome::CannotRun(reason)),
            None => chart::run(self.checkout, Mode::Check).map(|()| Outcome::Passed(Tally::default())),
        }
    }

    fn e2e(&mut self) -> Result<Outcome> {
        if let Some(reason) = e2e_test::cannot_run(self.checkout) {
            if self.request.require_kernel {
                bail!("tests on a cluster cannot run, and REQUIRE_KERNEL=1 wants them: {reason}");
            }
            return Ok(Outcome::CannotRun(reason));
        }
        let object = self.object()?.to_owned();
        let (well, tally) = e2e_test::run(self.checkout, &object, &self.request.filters)?;
        Ok(Outcome::of_tests(well, tally))
    }

    fn kernel(&mut self) -> Result<Outcome> {
        if let Some(reason) = kernel_test::cannot_run(self.checkout) {
            if self.request.require_kernel {
                bail!("kernel tests cannot run, and REQUIRE_KERNEL=1 wants them: {reason}");
            }
            return Ok(Outcome::CannotRun(reason));
        }
        let object = self.object()?.to_owned();
        let (well, tally) = kernel_test::run(self.checkout, &object, &self.request.filters)?;
        Ok(Outcome::of_tests(well, tally))
    }

    /// Builds the kernel programs at the first call.
    fn object(&mut self) -> Result<&Path> {
        if self.object.is_none() {
            self.object = Some(ebpf::build(self.checkout, ebpf::Arch::of_this_machine()?)?);
        }
        self.object.as_deref().ok_or_else(|| anyhow!("the kernel programs were not built"))
    }
}

fn fmt(checkout: &Checkout) -> Result<()> {
    let remedy = "cargo fmt --all";
    let mut workspace = checkout::cargo();
    workspace.current_dir(&checkout.root).args(["fmt", "--all", "--check"]);
    let mut well = process::run(&mut workspace, "checking the format", remedy);
    for outside in ["sensor-ebpf", "fuzz"] {
        let manifest = checkout.root.join(outside).join("Cargo.toml");
        if manifest.is_file() {
            let mut command = checkout::cargo();
            command.args(["fmt", "--check", "--manifest-path"]).arg(&manifest);
            let remedy = format!("cargo fmt --manifest-path {outside}/Cargo.toml");
            well = well.and(process::run(&mut command, "checking the format", &remedy));
        }
    }
    well
}

fn clippy(checkout: &Checkout, object: &Path) -> Result<()> {
    lint(checkout, object, &["--all-targets"])?;
    // `--all-targets` means those that a plain `cargo test` runs.
    let mut untested = checkout.targets("test").filter(|(_, target)| !target.tested);
    untested.try_for_each(|(_, target)| lint(checkout, object, &["--test", &target.name]))
}

fn lint(checkout: &Checkout, object: &Path, targets: &[&str]) -> Result<()> {
    let mut command = checkout::cargo();
    command.current_dir(&checkout.root).args(["clippy", "--workspace"]).args(targets).args(["--", "-D", "warnings"]);
    ebpf::hand_over(&mut command, object);
    process::run(&mut command, "linting", binaries::READ_ABOVE)
}

fn unit(checkout: &Checkout, object: &Path, filters: &[String]) -> Result<Outcome> {
    let mut command = checkout::cargo();
    command.current_dir(&checkout.root).args(["test", "--workspace", "--no-fail-fast", "--"]).args(filters);
    ebpf::hand_over(&mut command, object);
    let (status, tally) = tally::run(&mut command)?;
    Ok(Outcome::of_tests(status.success(), tally))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(only: &[Step], filters: &[&str]) -> Vec<Step> {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        Request { only: only.to_vec(), filters, require_kernel: false }.steps()
    }

    #[test]
    fn a_filter_leaves_out_what_has_no_tests() {
        assert_eq!(steps(&[], &[]), Step::ALL);
        assert_eq!(steps(&[], &["glob"]), [Step::Unit, Step::Kernel, Step::E2e]);
        assert_eq!(steps(&[Step::Unit, Step::Fmt], &["glob"]), [Step::Fmt, Step::Unit]);
    }
}
