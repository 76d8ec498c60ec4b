//! The cluster itself: what other cases take for granted.

use anyhow::{Result, ensure};
use e2e::{Cluster, ClusterOptions, Component};
use libtest_mimic::Trial;
use serde_json::json;

use crate::harness::{case, case_alone, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial("a_control_plane_alone_serves_on_loopback", false, control_plane_alone)]
}

fn control_plane_alone() -> Result<()> {
    let began = std::time::Instant::now();
    let cluster = Cluster::start(ClusterOptions::default())?;
    eprintln!("up in {:.1} s", began.elapsed().as_secs_f32());
    ensure!(cluster.server().starts_with("https://127.0.0.1:"));
    let namespace = cluster.namespace("small")?;
    namespace.apply(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }).to_string())?;
    cluster.kill(Component::ApiServer)?;
    cluster.start_component(Component::ApiServer)?;
    namespace.kubectl(["get", "configmap", "a"])?.success()?;
    drop(namespace);
    let dir = cluster.dir().to_owned();
    cluster.stop()?;
    ensure!(!dir.exists());
    Ok(())
}
