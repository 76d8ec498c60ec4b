//! How much resources may ask for: what is beyond it is refused before it costs anything.

use api::{Kind, config::SensorConfigSpec};

/// Bounds on rule resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the rules of one resource, its ConfigMap included.
    pub resource_bytes: usize,
    /// Rules that one resource defines.
    pub resource_rules: usize,
    /// Bytes of the rules of all resources. Those that were created last are refused first.
    pub total_bytes: usize,
    /// FalcoRules in one namespace. Those that were created last are refused first.
    pub namespace_resources: usize,
    /// Rules of all FalcoRules of one namespace.
    pub namespace_rules: usize,
    /// Work of compiling one ClusterFalcoRule: see [`rules::load::Options::work`].
    pub cluster_work: usize,
    /// Work of compiling one FalcoRule.
    pub namespace_work: usize,
    /// Whether it is found out why events of failed tests do not match. That costs as much as loading the rule once more for each
    /// expectation that is not met, so whoever judges what strangers write does without.
    pub explain_tests: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resource_bytes: 1 << 20,
            resource_rules: 1000,
            total_bytes: 16 << 20,
            namespace_resources: 50,
            namespace_rules: 200,
            cluster_work: 2_000_000,
            namespace_work: 400_000,
            explain_tests: false,
        }
    }
}

impl Limits {
    /// Work of compiling one resource of this kind.
    pub fn work(&self, kind: Kind) -> usize {
        if kind.namespaced() { self.namespace_work } else { self.cluster_work }
    }

    /// The bounds with the quotas that the SensorConfig sets.
    pub fn of(config: &SensorConfigSpec) -> Self {
        let quotas = config.quotas();
        Self {
            namespace_resources: quotas.per_namespace_resources() as usize,
            namespace_rules: quotas.per_namespace_rules() as usize,
            ..Self::default()
        }
    }
}
