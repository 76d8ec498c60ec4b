//! Where the API server sends its audit log.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use crate::layout::Layout;

/// A receiver of audit events, and what it wants to hear of.
#[derive(Debug, Clone, Default)]
pub struct AuditWebhook {
    /// Where the API server posts to. `{host}` stands for the address under which it reaches this process
    /// ([`crate::Cluster::host_address`]). With a node that address is there only when the cluster is, so the receiver
    /// starts listening late; the API server tries again, and what it could not deliver in the first seconds is lost.
    pub url: String,
    /// An audit policy as YAML; `None` is everything, with bodies of requests.
    pub policy: Option<String>,
    /// The webhook's kubeconfig, when it is to be more than the address.
    pub config: Option<String>,
    /// How long the API server waits before it tries a second time; `None` is one second.
    pub initial_backoff: Option<String>,
}

impl AuditWebhook {
    /// Writes the files that the API server reads, and returns its arguments.
    pub(crate) fn arguments(&self, layout: &Layout) -> Result<Vec<String>> {
        let (policy, config) = (layout.file("audit-policy.yaml"), layout.file("audit-webhook.json"));
        let all = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{ "level": "Request" }],
            "omitStages": ["RequestReceived"],
        });
        let text = self.policy.clone().unwrap_or_else(|| all.to_string());
        fs::write(&policy, text).context("cannot write the audit policy")?;
        let url = self.url.replace("{host}", &layout.host_address());
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "audit",
            "clusters": [{ "name": "audit", "cluster": { "server": url, "insecure-skip-tls-verify": url.starts_with("https") } }],
            "users": [{ "name": "audit", "user": {} }],
            "contexts": [{ "name": "audit", "context": { "cluster": "audit", "user": "audit" } }],
        });
        let text = self.config.clone().unwrap_or_else(|| kubeconfig.to_string());
        fs::write(&config, text).context("cannot write the audit webhook's configuration")?;
        Ok(vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-webhook-config-file={}", config.display()),
            "--audit-webhook-batch-max-wait=200ms".to_owned(),
            format!("--audit-webhook-initial-backoff={}", self.initial_backoff.as_deref().unwrap_or("1s")),
        ])
    }
}
