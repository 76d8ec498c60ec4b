//! A control plane with many nodes and none of their kubelets, an operator as a process of its own, and sensors that
//! only speak the protocol. Shared by the tests and the benchmark of a fleet.

#![allow(dead_code, reason = "each of the two targets that include it uses a part")]

pub mod plane;
pub mod process;
pub mod sensor;
pub mod storm;
pub mod throttle;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Namespace of the operator and its sensors.
pub const SYSTEM: &str = "gyrfalcon-system";
/// Service account of the sensors.
pub const ACCOUNT: &str = "gyrfalcon-sensor";
/// DNS name in the operator's certificate.
pub const OPERATOR: &str = "gyrfalcon-operator.gyrfalcon-system.svc";

/// Asks until it is so; the answer to `state` tells what was seen last when it never is.
pub async fn until(longest: Duration, what: &str, mut ask: impl AsyncFnMut() -> Result<bool>) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        if ask().await? {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > longest {
            bail!("not within {:.0} s: {what}", longest.as_secs_f32());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
