//! The configuration of one sink: a checked resource with its defaults applied.

use std::time::Duration;

use api::{
    Resource, ResourceId, Spec,
    sink::{AlertSinkSpec, Destination},
};

use crate::{
    SinkType,
    file::FileConfig,
    queue::QueueConfig,
    retry::Retry,
    route::Route,
    stdout::StdoutConfig,
    webhook::{WebhookConfig, WebhookConfigError},
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
    Webhook(WebhookConfig),
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
}

impl SinkConfig {
    /// The configuration that a resource describes; none for kinds that are no sinks.
    pub fn from_resource(resource: &Resource) -> Option<Result<Self, ConfigError>> {
        match resource.spec() {
            Spec::Sink(spec) => Some(Self::new(resource.id(), spec)),
            Spec::Rules(_) | Spec::Config(_) | Spec::Node => None,
        }
    }

    /// The configuration that a spec describes.
    pub fn new(id: ResourceId, spec: &AlertSinkSpec) -> Result<Self, ConfigError> {
        let secrets = spec.secrets().into_iter().map(|(field, _)| field);
        if let Some(field) = secrets.chain(spec.config_maps().into_iter().map(|(field, _)| field)).next() {
            return Err(ConfigError::Reference { id, field });
        }
        let target = match spec.destination() {
            Some(Destination::Stdout(stdout)) => Target::Stdout(StdoutConfig::new(&stdout)),
            Some(Destination::File(file)) => Target::File(FileConfig::new(&file)),
            Some(Destination::Webhook(webhook)) => match WebhookConfig::new(&webhook) {
                Ok(webhook) => Target::Webhook(webhook),
                Err(source) => return Err(ConfigError::Webhook { id, source }),
            },
            Some(Destination::Slack(_)) => return Err(ConfigError::Reference { id, field: "spec.slack.urlRef" }),
            None => return Err(ConfigError::Destination { id }),
        };
        Ok(Self {
            id,
            target,
            route: Route::new(spec.match_.as_ref()),
            queue: QueueConfig::new(spec.queue.as_ref()),
            retry: Retry::new(spec.retry.as_ref()),
            timeout: spec.timeout.map_or(Duration::from_secs(10), |timeout| timeout.duration()),
            suspended: spec.suspended(),
        })
    }

    /// What kind of destination it has.
    pub fn kind(&self) -> SinkType {
        match self.target {
            Target::Stdout(_) => SinkType::Stdout,
            Target::File(_) => SinkType::File,
            Target::Webhook(_) => SinkType::Webhook,
        }
    }
}
