//! The kinds, and what is common to resources of all kinds.

use std::fmt;

use crate::{
    config::{SensorConfig, SensorConfigSpec},
    names::words,
    node::SensorNode,
    rule::{ClusterFalcoRule, FalcoRule, FalcoRuleSpec},
    sink::{AlertSink, AlertSinkSpec, ClusterAlertSink},
};

/// API group of all kinds.
pub const GROUP: &str = "gyrfalcon.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";

words! {
    /// A kind of resource.
    pub enum Kind {
        /// Detection rules of one namespace.
        FalcoRule,
        /// Detection rules of the whole cluster.
        ClusterFalcoRule,
        /// Destination of one namespace's alerts.
        AlertSink,
        /// Destination of the whole cluster's alerts.
        ClusterAlertSink,
        /// Settings of all sensors and of the operator.
        SensorConfig,
        /// What the sensor of one node does.
        SensorNode,
    }
}

impl Kind {
    /// Whether resources of this kind live in a namespace.
    pub fn namespaced(self) -> bool {
        match self {
            Self::FalcoRule | Self::AlertSink => true,
            Self::ClusterFalcoRule | Self::ClusterAlertSink | Self::SensorConfig | Self::SensorNode => false,
        }
    }

    /// The kind with the same spec that is for the whole cluster, where there is one.
    pub fn cluster_wide(self) -> Option<Self> {
        match self {
            Self::FalcoRule => Some(Self::ClusterFalcoRule),
            Self::AlertSink => Some(Self::ClusterAlertSink),
            Self::ClusterFalcoRule | Self::ClusterAlertSink | Self::SensorConfig | Self::SensorNode => None,
        }
    }

    /// Whether a sensor without a cluster has a use for resources of this kind.
    pub fn standalone(self) -> bool {
        match self {
            Self::FalcoRule | Self::ClusterFalcoRule | Self::AlertSink | Self::ClusterAlertSink => true,
            Self::SensorConfig | Self::SensorNode => false,
        }
    }
}

/// What tells one resource from all others. Ordered by kind, namespace, name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without, and `default` where a manifest leaves it out.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

impl fmt::Display for ResourceId {
    /// `ClusterFalcoRule/core`, `FalcoRule/shop/no-curl`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.namespaced() {
            true => write!(f, "{}/{}/{}", self.kind, self.namespace, self.name),
            false => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// Detection rules of one namespace.
    FalcoRule(Box<FalcoRule>),
    /// Detection rules of the whole cluster.
    ClusterFalcoRule(Box<ClusterFalcoRule>),
    /// Destination of one namespace's alerts.
    AlertSink(Box<AlertSink>),
    /// Destination of the whole cluster's alerts.
    ClusterAlertSink(Box<ClusterAlertSink>),
    /// Settings of all sensors and of the operator.
    SensorConfig(Box<SensorConfig>),
    /// What the sensor of one node does.
    SensorNode(Box<SensorNode>),
}

/// The spec of a resource, whichever kind it has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spec<'a> {
    /// Detection rules.
    Rules(&'a FalcoRuleSpec),
    /// A destination of alerts.
    Sink(&'a AlertSinkSpec),
    /// Settings of all sensors and of the operator.
    Config(&'a SensorConfigSpec),
    /// Nothing: a SensorNode is only a report.
    Node,
}

impl Resource {
    /// What tells the resource from all others.
    pub fn id(&self) -> ResourceId {
        let (kind, metadata) = match self {
            Self::FalcoRule(r) => (Kind::FalcoRule, &r.metadata),
            Self::ClusterFalcoRule(r) => (Kind::ClusterFalcoRule, &r.metadata),
            Self::AlertSink(r) => (Kind::AlertSink, &r.metadata),
            Self::ClusterAlertSink(r) => (Kind::ClusterAlertSink, &r.metadata),
            Self::SensorConfig(r) => (Kind::SensorConfig, &r.metadata),
            Self::SensorNode(r) => (Kind::SensorNode, &r.metadata),
        };
        let namespace = match kind.namespaced() {
            true => metadata.namespace.as_deref().unwrap_or("default"),
            false => "",
        };
        ResourceId { kind, namespace: namespace.into(), name: metadata.name.as_deref().unwrap_or_default().into() }
    }

    /// What is wanted.
    pub fn spec(&self) -> Spec<'_> {
        match self {
            Self::FalcoRule(r) => Spec::Rules(&r.spec),
            Self::ClusterFalcoRule(r) => Spec::Rules(&r.spec.0),
            Self::AlertSink(r) => Spec::Sink(&r.spec),
            Self::ClusterAlertSink(r) => Spec::Sink(&r.spec.0),
            Self::SensorConfig(r) => Spec::Config(&r.spec),
            Self::SensorNode(_) => Spec::Node,
        }
    }
}

/// Key by which rule resources are sorted before they are loaded: cluster rules by order and name, then the rules of
/// namespaces, by namespace and name.
pub fn load_key(id: &ResourceId, spec: &FalcoRuleSpec) -> (bool, u16, Box<str>, Box<str>) {
    let order = if id.kind.namespaced() { 0 } else { spec.order() };
    (id.kind.namespaced(), order, id.namespace.clone(), id.name.clone())
}
