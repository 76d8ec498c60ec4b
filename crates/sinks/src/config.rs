//! The configuration of one sink: a checked resource with its defaults applied.

use std::time::Duration;

use api::{
    Resource, ResourceId, Spec,
    condition::Reason,
    sink::{AlertSinkSpec, Destination},
};

use crate::{
    SinkType,
    file::FileConfig,
    http::{Authorities, Endpoint},
    pace::Rate,
    queue::QueueConfig,
    retry::Retry,
    route::Route,
    secrets::Secrets,
    slack,
    stdout::StdoutConfig,
    webhook::{self, WebhookConfigError},
};

/// The configuration of one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    /// The resource that asks for the sink.
    pub id: ResourceId,
    /// Where alerts go.
    pub target: Target,
    /// Which alerts.
    pub route: Route,
    /// Where they wait.
    pub queue: QueueConfig,
    /// How failures are retried.
    pub retry: Retry,
    /// How fast alerts are delivered; none where there is no limit.
    pub rate: Option<Rate>,
    /// Longest time for one attempt, where an attempt can be cut short.
    pub timeout: Duration,
    /// Send nothing.
    pub suspended: bool,
}

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout(StdoutConfig),
    /// A file.
    File(FileConfig),
    /// An HTTP receiver.
    Webhook(Endpoint),
    /// A chat.
    Slack(Endpoint),
}

/// Why a resource is no configuration. Reading a manifest finds all but the details of addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// None or several destinations.
    #[error("{id}: exactly one of stdout, file, webhook and slack")]
    Destination {
        /// The resource.
        id: ResourceId,
    },
    /// A destination that needs a Secret or a ConfigMap.
    #[error("{id}: {field} names an object of a cluster, and there is none; leave the field out")]
    Reference {
        /// The resource.
        id: ResourceId,
        /// The field that names it.
        field: &'static str,
    },
    /// A webhook that cannot be called.
    #[error("{id}: spec.webhook")]
    Webhook {
        /// The resource.
        id: ResourceId,
        /// What is wrong with it.
        source: WebhookConfigError,
    },
    /// A chat that cannot be called.
    #[error("{id}: spec.slack")]
    Slack {
        /// The resource.
        id: ResourceId,
        /// What is wrong with it.
        source: WebhookConfigError,
    },
    /// A file, in a cluster.
    #[error("{id}: {field} names a file on one host, and a cluster has many; {remedy}")]
    Unsupported {
        /// The resource.
        id: ResourceId,
        /// The field.
        field: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
}

impl ConfigError {
    /// The stable word for it, for conditions.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Destination { .. } | Self::Reference { .. } => Reason::InvalidSpec,
            Self::Webhook { source, .. } | Self::Slack { source, .. } => source.reason(),
            Self::Unsupported { .. } => Reason::Unsupported,
        }
    }
}

impl SinkConfig {
    /// The configuration that a resource describes, where there are no Secrets; none for kinds that are no sinks.
    pub fn from_resource(resource: &Resource) -> Option<Result<Self, ConfigError>> {
        let spec = match resource.spec() {
            Spec::Sink(spec) => spec,
            Spec::Rules(_) | Spec::Config(_) | Spec::Node => return None,
        };
        let id = resource.id();
        let secrets = spec.secrets().into_iter().map(|(field, _)| field);
        let reference = secrets.chain(spec.config_maps().into_iter().map(|(field, _)| field)).next();
        Some(match reference {
            Some(field) => Err(ConfigError::Reference { id, field }),
            None => Self::new(id, spec, &Secrets::default()),
        })
    }

    /// The configuration that a spec describes, with what the Secrets and ConfigMaps contain that it names.
    pub fn new(id: ResourceId, spec: &AlertSinkSpec, secrets: &Secrets) -> Result<Self, ConfigError> {
        let target = match spec.destination() {
            Some(Destination::Stdout(stdout)) => Target::Stdout(StdoutConfig::new(&stdout)),
            Some(Destination::File(file)) => Target::File(FileConfig::new(&file)),
            Some(Destination::Webhook(webhook)) => match webhook::endpoint(&webhook, secrets) {
                Ok(endpoint) => Target::Webhook(endpoint),
                Err(source) => return Err(ConfigError::Webhook { id, source }),
            },
            Some(Destination::Slack(slack)) => match slack::endpoint(&slack, secrets) {
                Ok(endpoint) => Target::Slack(endpoint),
                Err(source) => return Err(ConfigError::Slack { id, source }),
            },
            None => return Err(ConfigError::Destination { id }),
        };
        let chat = matches!(target, Target::Slack(_)).then_some(Rate::CHAT);
        Ok(Self {
            id,
            target,
            route: Route::new(spec.match_.as_ref()),
            queue: QueueConfig::new(spec.queue.as_ref()),
            retry: Retry::new(spec.retry.as_ref()),
            rate: spec.rate_limit.as_ref().map(Rate::new).or(chat),
            timeout: spec.timeout.map_or(Duration::from_secs(10), |timeout| timeout.duration()),
            suspended: spec.suspended(),
        })
    }

    /// The same sink in a cluster: a namespace's sink gets alerts of its namespace only and, unless `allow_local`, may
    /// not send to the host of the sender (see [`crate::guard`]); files are refused, of which a cluster has no one.
    pub fn in_cluster(mut self, allow_local: bool) -> Result<Self, ConfigError> {
        let namespaced = self.id.kind.namespaced();
        match &mut self.target {
            Target::Stdout(_) => {}
            Target::File(_) => {
                let remedy = "use stdout, which is the operator's log, or webhook";
                return Err(ConfigError::Unsupported { id: self.id, field: "spec.file", remedy });
            }
            Target::Webhook(endpoint) | Target::Slack(endpoint) => {
                if namespaced && matches!(endpoint.authorities, Authorities::File(_)) {
                    let field = "spec.webhook.caFile";
                    return Err(ConfigError::Unsupported { id: self.id, field, remedy: "use caRef" });
                }
                endpoint.guarded = namespaced && !allow_local;
            }
        }
        if namespaced {
            self.route = self.route.only_namespace(&self.id.namespace);
        }
        Ok(self)
    }

    /// What kind of destination it has.
    pub fn kind(&self) -> SinkType {
        match self.target {
            Target::Stdout(_) => SinkType::Stdout,
            Target::File(_) => SinkType::File,
            Target::Webhook(_) => SinkType::Webhook,
            Target::Slack(_) => SinkType::Slack,
        }
    }
}
