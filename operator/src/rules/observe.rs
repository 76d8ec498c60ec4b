//! What there is to judge: rule resources, with the text of the ConfigMaps that they name.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use api::{
    Kind, ResourceId,
    rule::{ClusterFalcoRule, ConfigMapRef, FalcoRule, FalcoRuleSpec, FalcoRuleStatus},
};
use bundle::{Candidate, ConfigMap};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::{Cluster, ConfigMapKey, Lookup};

/// A rule resource of either kind.
#[derive(Debug, Clone)]
pub enum RuleResource {
    /// Of a namespace.
    Namespaced(Arc<FalcoRule>),
    /// Of the cluster.
    Cluster(Arc<ClusterFalcoRule>),
}

impl RuleResource {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespaced(rule) => &rule.metadata,
            Self::Cluster(rule) => &rule.metadata,
        }
    }

    /// Which one it is.
    pub fn id(&self) -> ResourceId {
        let (kind, metadata) = match self {
            Self::Namespaced(rule) => (Kind::FalcoRule, &rule.metadata),
            Self::Cluster(rule) => (Kind::ClusterFalcoRule, &rule.metadata),
        };
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        ResourceId { kind, namespace: text(&metadata.namespace), name: text(&metadata.name) }
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }

    /// Its generation.
    pub fn generation(&self) -> i64 {
        self.metadata().generation.unwrap_or_default()
    }

    /// What is wanted.
    pub fn spec(&self) -> &FalcoRuleSpec {
        match self {
            Self::Namespaced(rule) => &rule.spec,
            Self::Cluster(rule) => &rule.spec.0,
        }
    }

    /// What its status says.
    pub fn status(&self) -> Option<&FalcoRuleStatus> {
        match self {
            Self::Namespaced(rule) => rule.status.as_ref(),
            Self::Cluster(rule) => rule.status.as_ref(),
        }
    }

    /// The ConfigMap that it names.
    fn config_map(&self) -> Option<(ConfigMapKey, &ConfigMapRef)> {
        let named = self.spec().config_map_ref.as_ref()?;
        let own = self.metadata().namespace.as_ref();
        let namespace = own.or(named.namespace.as_ref())?;
        Some(((namespace.clone(), named.name.clone()), named))
    }

    /// The form in which it is judged.
    pub fn candidate(&self, config_map: ConfigMap, percent: Option<u8>) -> Candidate {
        let created = self.metadata().creation_timestamp.as_ref();
        Candidate {
            id: self.id(),
            uid: self.uid().to_owned(),
            generation: self.generation(),
            // One that is not stored yet is the newest.
            created: created.map_or(i64::MAX, |created| created.0.as_second()),
            spec: self.spec().clone(),
            config_map,
            percent,
        }
    }
}

/// All rule resources.
pub fn resources(cluster: &Cluster) -> Vec<RuleResource> {
    let namespaced = cluster.rules.state().into_iter().map(RuleResource::Namespaced);
    let all = namespaced.chain(cluster.cluster_rules.state().into_iter().map(RuleResource::Cluster));
    // What is being deleted is gone.
    let mut all: Vec<_> = all.filter(|rule| rule.metadata().deletion_timestamp.is_none()).collect();
    all.sort_by_cached_key(RuleResource::id);
    all
}

/// What there is to judge; none while the API server has not answered about a ConfigMap. Follows the ConfigMaps that
/// are named.
pub fn candidates(
    cluster: &Cluster,
    resources: &[RuleResource],
    percent: &HashMap<String, u8>,
) -> Option<Vec<Candidate>> {
    let named = resources.iter().filter_map(|rule| rule.config_map().map(|(key, _)| key));
    cluster.config_maps.follow(&named.collect::<BTreeSet<_>>());
    let candidate =
        |rule: &RuleResource| Some(rule.candidate(config_map(cluster, rule)?, percent.get(rule.uid()).copied()));
    resources.iter().map(candidate).collect()
}

/// The text of the ConfigMap that a resource names; none while that is not known.
pub fn config_map(cluster: &Cluster, rule: &RuleResource) -> Option<ConfigMap> {
    let Some((key, named)) = rule.config_map() else { return Some(ConfigMap::None) };
    let name = || format!("ConfigMap {}/{}", key.0, key.1);
    Some(match cluster.config_maps.get(&key)? {
        Lookup::Missing => ConfigMap::Missing(format!("there is no {}", name())),
        Lookup::Found(data) => match data.get(named.key()) {
            Some(text) => ConfigMap::Text(text.clone()),
            None => ConfigMap::Missing(format!("{} has no key `{}`", name(), named.key())),
        },
    })
}
