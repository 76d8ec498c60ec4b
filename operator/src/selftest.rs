//! `helm test`: the way from the kernel to the resource, tried from within a pod.
//!
//! Applies a FalcoRule for its own pod that counts and sends nothing, waits until it is Ready, opens the file that it
//! is about, waits until the status counts it, and removes it.

use std::{error::Error, fs, path::PathBuf, time::Duration};

use api::{
    condition::ConditionStatus,
    rule::{FalcoRule, FalcoRuleStatus},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;
use tracing::info;

use crate::cli::Selftest;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// A step took too long.
    #[error("waited {seconds} s for {what}; the last that was seen: {last}")]
    TimedOut {
        /// For what.
        what: &'static str,
        /// How long.
        seconds: u64,
        /// What there was instead.
        last: String,
    },
}

/// Runs the test.
///
/// # Errors
/// At the first step that fails.
pub async fn run(args: Selftest) -> Result<(), Box<dyn Error>> {
    let client = Client::try_default().await?;
    let rules: Api<FalcoRule> = Api::namespaced(client, &args.namespace);
    let name = format!("{}-selftest", args.pod_name);
    let file = PathBuf::from(format!("/tmp/gyrfalcon-selftest-{}", args.pod_name));
    let outcome = test(&rules, &name, &file, &args).await;
    // The rule goes whatever came of the test; what is gone already need not.
    let removed = rules.delete(&name, &DeleteParams::default()).await;
    outcome?;
    removed?;
    info!("the test passed: a rule was applied, loaded, triggered, counted and removed");
    Ok(())
}

async fn test(
    rules: &Api<FalcoRule>,
    name: &str,
    file: &std::path::Path,
    args: &Selftest,
) -> Result<(), Box<dyn Error>> {
    let rule = json!({
        "apiVersion": "gyrfalcon.dev/v1alpha1",
        "kind": "FalcoRule",
        "metadata": {"name": name},
        "spec": {
            "mode": "Shadow",
            "rule": {
                "rule": "Gyrfalcon self-test",
                "condition": format!("evt.type in (open, openat, openat2, creat) and fd.name = {}", file.display()),
                "output": "the self-test opened %fd.name",
                "priority": "Debug",
            },
        },
    });
    let apply = PatchParams::apply("gyrfalcon.dev/selftest").force();
    rules.patch(name, &apply, &Patch::Apply(&rule)).await?;
    info!(rule = name, "rule applied");
    let ready = |status: &FalcoRuleStatus| {
        status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == ConditionStatus::True)
    };
    let status = wait(rules, name, args.timeout, "the rule to become Ready", ready).await?;
    info!(nodes = status.loaded_nodes.unwrap_or_default(), "rule ready");
    fs::write(file, b"")?;
    fs::remove_file(file)?;
    let hit = |status: &FalcoRuleStatus| status.hits.as_ref().is_some_and(|hits| hits.total >= 1);
    let status = wait(rules, name, args.timeout, "the hit in the rule's status", hit).await?;
    info!(hits = status.hits.unwrap_or_default().total, "hit counted");
    Ok(())
}

async fn wait(
    rules: &Api<FalcoRule>,
    name: &str,
    seconds: u64,
    what: &'static str,
    done: impl Fn(&FalcoRuleStatus) -> bool,
) -> Result<FalcoRuleStatus, Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let status = rules.get(name).await?.status.unwrap_or_default();
        if done(&status) {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            let last = match status.conditions.iter().find(|c| c.type_ == "Ready") {
                Some(ready) => format!("Ready={:?}, {}: {}", ready.status, ready.reason, ready.message),
                None => "no status at all; is the operator running?".to_owned(),
            };
            return Err(Failed::TimedOut { what, seconds, last }.into());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
