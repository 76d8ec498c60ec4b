//! A namespace of a test's own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kubectl::Output;
use crate::wait::{try_wait_for, wait_for};

/// Longer than a container takes to start.
const LONG: Duration = Duration::from_secs(60);

/// A namespace; dropped, it is deleted with all that is in it, without waiting.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    /// Makes one whose name begins with this word, ready for pods.
    pub(crate) fn create(cluster: &'a Cluster, word: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{word}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster.kubectl(["create", "namespace", &name])?.success()?;
        let namespace = Self { cluster, name };
        // Pods are refused before their service account is there, and wait for the certificate of the API server.
        wait_for(LONG, "a namespace's service account", || {
            let get = ["get", "serviceaccount/default", "configmap/kube-root-ca.crt"];
            namespace.kubectl(get).ok().filter(|output| output.status.success())
        })?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in this namespace.
    pub fn kubectl<const N: usize>(&self, args: [&str; N]) -> Result<Output> {
        self.cluster.kubectl_args(&[&["--namespace", &self.name], &args[..]].concat(), None)
    }

    /// Runs kubectl in this namespace and reads the JSON that it prints.
    pub fn kubectl_json<const N: usize>(&self, args: [&str; N]) -> Result<Value> {
        self.cluster.kubectl_args(&[&["--namespace", &self.name], &args[..], &["--output=json"]].concat(), None)?.json()
    }

    /// Applies manifests, given as YAML or JSON.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let args = ["--namespace", &self.name, "apply", "--filename=-"];
        self.cluster.kubectl_args(&args, Some(manifests))?.success()
    }

    /// Creates what manifests say, given as YAML or JSON: of any size that the API server takes.
    pub fn create_from(&self, manifests: &str) -> Result<String> {
        let args = ["--namespace", &self.name, "create", "--filename=-"];
        self.cluster.kubectl_args(&args, Some(manifests))?.success()
    }

    /// A pod that runs a shell command in the busybox image, and waits until it runs. A command that ends is not run again.
    pub fn busybox(&self, pod: &str, script: &str) -> Result<()> {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "labels": { "app": pod } },
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main", "image": crate::image::BUSYBOX, "imagePullPolicy": "Never",
                    "command": ["sh", "-c", script],
                }],
            },
        });
        self.apply(&manifest.to_string())?;
        self.pod_runs(pod)
    }

    /// Waits until a pod's containers run, or have ended well.
    pub fn pod_runs(&self, pod: &str) -> Result<()> {
        let mut seen = Value::Null;
        let runs = try_wait_for(LONG, &format!("pod {pod} runs"), || {
            seen = self.kubectl_json(["get", "pod", pod])?["status"].take();
            let ready =
                seen["containerStatuses"].as_array().is_some_and(|all| all.iter().all(|one| one["ready"] == true));
            match seen["phase"].as_str() {
                Some("Failed") => bail!("pod {pod} failed: {seen}"),
                Some("Succeeded") => Ok(Some(())),
                _ => Ok(ready.then_some(())),
            }
        });
        runs.map_err(|error| error.context(format!("pod {pod} is {seen}")))
    }

    /// Runs a command in a pod, and returns what it printed if it ended well.
    pub fn exec<const N: usize>(&self, pod: &str, command: [&str; N]) -> Result<String> {
        self.cluster
            .kubectl_args(&[&["--namespace", &self.name, "exec", pod, "--"], &command[..]].concat(), None)?
            .success()
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // The cluster may be gone, or its API server stopped by a test: then nothing is left to delete.
        let _ = self.cluster.kubectl(["delete", "namespace", &self.name, "--wait=false", "--request-timeout=5s"]);
    }
}
