//! The cluster that all cases share, and what becomes of a case on a machine that cannot have it.

use std::env;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::Result;
use e2e::{Cluster, ClusterOptions, Tools};
use libtest_mimic::{Completion, Failed, Trial};

use crate::audit;

/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(60);

/// Makes outages as long as people fear them, and crowds as large.
const LONG_VAR: &str = "GYRFALCON_E2E_LONG";

/// For how long something is away: longer than what notices it takes, or as long as somebody asked for.
pub fn outage(short: Duration, long: Duration) -> Duration {
    if is_long() { long } else { short }
}

/// Whether somebody has asked for cases at full length.
pub fn is_long() -> bool {
    env::var_os(LONG_VAR).is_some_and(|value| value == "1")
}

/// `None` before the first case and after the last. Whoever reads it leaves it as it is; who writes is alone.
static CLUSTER: RwLock<Option<Cluster>> = RwLock::new(None);

/// A case that works beside others: a sentence, and what it does with the cluster.
pub fn case(name: &str, run: fn(&Cluster) -> Result<()>) -> Trial {
    trial(name, true, move || match &*shared()? {
        Some(cluster) => run(cluster),
        None => unreachable!("shared() has started it"),
    })
}

/// A case that disturbs the cluster, and leaves it as it was.
pub fn case_alone(name: &str, run: fn(&Cluster) -> Result<()>) -> Trial {
    trial(name, true, move || match &*alone()? {
        Some(cluster) => run(cluster),
        None => unreachable!("alone() has started it"),
    })
}

/// A case that needs what a cluster needs, with a node or without, but brings its own.
pub fn trial(name: &str, node: bool, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        let missing = Tools::locate().map_or_else(|error| Some(format!("{error:#}")), |tools| tools.missing(node));
        match missing {
            Some(reason) if env::var_os("REQUIRE_KERNEL").is_some_and(|value| value == "1") => {
                Err(Failed::from(format!("REQUIRE_KERNEL=1, but {reason}")))
            }
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => run().map(|()| Completion::Completed).map_err(|error| Failed::from(format!("{error:#}"))),
        }
    })
}

fn shared() -> Result<RwLockReadGuard<'static, Option<Cluster>>> {
    loop {
        let cluster = CLUSTER.read().unwrap_or_else(PoisonError::into_inner);
        if cluster.is_some() {
            return Ok(cluster);
        }
        drop(cluster);
        drop(alone()?);
    }
}

fn alone() -> Result<RwLockWriteGuard<'static, Option<Cluster>>> {
    let mut cluster = CLUSTER.write().unwrap_or_else(PoisonError::into_inner);
    if cluster.is_none() {
        let audit_webhook = audit::webhook()?;
        *cluster = Some(Cluster::start(ClusterOptions { node: true, audit_webhook, ..ClusterOptions::default() })?);
    }
    Ok(cluster)
}

/// Ends the cluster, if a case has started it.
pub fn stop() {
    drop(CLUSTER.write().unwrap_or_else(PoisonError::into_inner).take());
}
