//! `cargo xtask e2e`: tests on a real Kubernetes with a real node, as root.
//!
//! The tests are a target of the package in `e2e/`. First what they need: the programs of a Kubernetes
//! ([`crate::kubernetes`]) and images of ours ([`crate::image`]).

use std::path::Path;

use anyhow::{Result, bail};

use crate::checkout::Checkout;
use crate::tally::{self, Tally};
use crate::{ebpf, image, kubernetes, rooted};

/// The name of the test target.
pub const TARGET: &str = "e2e";
/// The operator's own targets that want a control plane: sensors that only speak the protocol, and the audit log.
const OPERATORS: [&str; 2] = ["fleet", "audit"];
/// Tells the tests where the sensor's program is.
const SENSOR_VAR: &str = "GYRFALCON_E2E_SENSOR";

/// Why these tests cannot run here, if they cannot.
pub fn cannot_run(checkout: &Checkout) -> Option<String> {
    if checkout.target_named("test", TARGET).is_none() {
        return Some(format!("there is no test target `{TARGET}`"));
    }
    rooted::refused()
}

/// Builds what the tests need, and nothing else.
pub fn prepare(checkout: &Checkout) -> Result<()> {
    kubernetes::tools(checkout)?;
    image::run(checkout, None)
}

/// Builds and runs the cases whose names contain one of the filters; says how they ended.
pub fn run(checkout: &Checkout, object: &Path, filters: &[String]) -> Result<(bool, Tally)> {
    let Some((package, _)) = checkout.target_named("test", TARGET) else {
        bail!("there is no test target `{TARGET}`\n  remedy: use a complete checkout");
    };
    let tools = kubernetes::tools(checkout)?;
    let images = image::default_folder(checkout);
    image::build(checkout, object, &images)?;
    // The whole workspace, so that features are unified as in the other tests and nothing is built twice.
    let program = rooted::build(checkout, &["test", "--workspace", "--test", TARGET], TARGET, object)?;
    let sensor = image::program(checkout, &image::OURS[0]);
    let variables =
        [(e2e::tools::FOLDER_VAR, tools.folder()), (e2e::image::FOLDER_VAR, images.as_path()), (SENSOR_VAR, &sensor)];
    let mut command = rooted::command(package, &program, &variables)?;
    let (status, mut tally) = tally::run(command.args(filters))?;
    let mut well = status.success();
    // They understand one filter.
    for target in OPERATORS.into_iter().filter(|_| filters.len() <= 1) {
        let Some((package, _)) = checkout.target_named("test", target) else { continue };
        let program = rooted::build(checkout, &["test", "--workspace", "--test", target], target, object)?;
        let mut command = rooted::command(package, &program, &variables)?;
        let (status, more) = tally::run(command.args(filters))?;
        well &= status.success();
        tally = tally + more;
    }
    Ok((well, tally))
}

/// The command: like a step of `cargo xtask test`, alone.
pub fn alone(checkout: &Checkout, filters: &[String]) -> Result<bool> {
    if let Some(reason) = cannot_run(checkout) {
        bail!("these tests cannot run: {reason}");
    }
    let object = ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?;
    let (well, tally) = run(checkout, &object, filters)?;
    println!("{tally}");
    Ok(well)
}
