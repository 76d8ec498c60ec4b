//! Runs the conformance data: facts about how Falco behaves, found through `GYRFALCON_CONFORMANCE` (a folder with
//! files of known names) and `GYRFALCON_FALCO_RULES` (Falco's official rulesets). Without them the suites are
//! ignored and say so. Cases that cannot apply stand in `testdata/excuses.txt` with their reason.

mod audit_cases;
mod eval_cases;
mod filter_cases;
mod loader_cases;
mod mock;
#[path = "../common/reference.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod reference;
mod rulesets;
mod sample;
mod world;

use std::{path::PathBuf, process::ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// Counts cases and prints the failing ones.
pub struct Suite {
    name: &'static str,
    passed: usize,
    failed: usize,
    excused: usize,
    unstated: usize,
}

static EXCUSES: &str = include_str!("../../testdata/excuses.txt");

impl Suite {
    fn new(name: &'static str) -> Self {
        Self { name, passed: 0, failed: 0, excused: 0, unstated: 0 }
    }

    /// Records one case; the error says what is different.
    pub fn case(&mut self, case: &str, outcome: Result<(), String>) {
        let case = case.replace('\n', "\\n");
        match outcome {
            Ok(()) => self.passed += 1,
            Err(_) if self.is_excused(&case) => self.excused += 1,
            Err(difference) => {
                self.failed += 1;
                println!("{}: {case}: {difference}", self.name);
            }
        }
    }

    /// Records a case of which the data does not state everything: a difference says nothing.
    pub fn unstated(&mut self, case: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(difference) => {
                self.unstated += 1;
                if std::env::var_os("GYRFALCON_CONFORMANCE_ALL").is_some() {
                    println!("{}: {case}: {difference} (not all of it is in the data)", self.name);
                }
            }
        }
    }

    fn is_excused(&self, case: &str) -> bool {
        let excuses = EXCUSES.lines().filter(|line| !line.starts_with('#'));
        excuses
            .filter_map(|line| line.split_once(" — ")?.0.split_once(' '))
            .any(|(suite, excused)| suite == self.name && gyrfalcon_rules::load::wildcard(excused, case))
    }

    /// Prints the figures.
    pub fn finish(self, file: &str) -> Result<(), Failed> {
        let Self { passed, failed, excused, unstated, .. } = self;
        let not_stated = match unstated {
            0 => String::new(),
            cases => format!(", {cases} not fully stated in the data"),
        };
        println!("{file}: {passed} passed, {failed} failed, {excused} excused{not_stated}");
        if self.failed == 0 { Ok(()) } else { Err(format!("{} cases of {file} failed", self.failed).into()) }
    }
}

/// A trial over one file of a folder named by an environment variable.
fn trial(name: &str, variable: &'static str, file: &'static str, run: fn(&str) -> Result<(), Failed>) -> Trial {
    let path = std::env::var_os(variable).map(|folder| PathBuf::from(folder).join(file));
    let Some(path) = path.filter(|path| path.exists()) else {
        eprintln!("ignored: {name}: {variable} does not name a folder with {file}");
        return Trial::test(name, || Ok(())).with_ignored_flag(true);
    };
    Trial::test(name, move || run(&std::fs::read_to_string(path)?))
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let data = "GYRFALCON_CONFORMANCE";
    let rules = "GYRFALCON_FALCO_RULES";
    let trials = vec![
        trial("conformance::filter_parse_cases", data, "filter_parse_cases.json", filter_cases::run),
        trial("conformance::loader_cases", data, "loader_cases.json", loader_cases::run),
        trial("conformance::filter_eval_cases", data, "filter_eval_cases.json", eval_cases::run),
        trial("conformance::falco_rules", rules, "falco_rules.yaml", rulesets::run),
        trial("conformance::incubating_rules", rules, "falco-incubating_rules.yaml", rulesets::run),
        trial("conformance::sandbox_rules", rules, "falco-sandbox_rules.yaml", rulesets::run),
        trial("conformance::k8s_audit_rules", rules, "k8s_audit_rules.yaml", rulesets::run),
        trial("conformance::k8s_audit_events", rules, "k8s_audit_rules.yaml", audit_cases::run),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
