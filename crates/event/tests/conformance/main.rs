//! Runs those cases of `filter_eval_cases.json` that state the value of a field for an event we collect. The folder is
//! named by `GYRFALCON_CONFORMANCE`; without it the suite is ignored and says so. Cases that cannot apply stand in
//! `testdata/excuses.txt` with their reason.

mod world;

use std::{path::PathBuf, process::ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value as Json;

use world::World;

static EXCUSES: &str = include_str!("../../testdata/excuses.txt");

fn is_excused(case: &str) -> bool {
    EXCUSES.lines().filter(|line| !line.starts_with('#')).any(|line| line.split(" — ").next() == Some(case))
}

fn run(text: &str) -> Result<(), Failed> {
    let file: Json = serde_json::from_str(text)?;
    let (mut passed, mut failed, mut excused, mut foreign) = (0, 0, 0, 0);
    for test in file["tests"].as_array().into_iter().flatten() {
        let name = test["test"].as_str().unwrap_or_default();
        let mut world = World::default();
        for step in test["steps"].as_array().into_iter().flatten() {
            if step.get("check").is_none() {
                world.step(step);
                continue;
            }
            let Some(outcome) = world.check(step) else {
                foreign += usize::from(step["check"] != "filter");
                continue;
            };
            let case = format!("{name} {}", step["field"].as_str().unwrap_or_default());
            match outcome {
                Ok(()) => passed += 1,
                Err(_) if is_excused(&case) => excused += 1,
                Err(difference) => {
                    failed += 1;
                    println!("field values: {case}: {difference}");
                }
            }
        }
    }
    println!(
        "filter_eval_cases.json, field values: {passed} passed, {failed} failed, {excused} excused, {foreign} of other events"
    );
    if failed == 0 { Ok(()) } else { Err(format!("{failed} field values differ").into()) }
}

fn main() -> ExitCode {
    let name = "conformance::field_values";
    let path =
        std::env::var_os("GYRFALCON_CONFORMANCE").map(|folder| PathBuf::from(folder).join("filter_eval_cases.json"));
    let trial = match path.filter(|path| path.exists()) {
        Some(path) => Trial::test(name, move || run(&std::fs::read_to_string(path)?)),
        None => {
            eprintln!("ignored: {name}: GYRFALCON_CONFORMANCE does not name a folder with filter_eval_cases.json");
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
    };
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}
