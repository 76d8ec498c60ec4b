//! Which kind of object a resource is: the audit log speaks of `pods`, Events of `Pod`. The API server knows all of them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use kube::{Client, discovery::Discovery};
use tracing::warn;

/// How often the API server is asked: kinds come and go with their definitions.
const LOOK: Duration = Duration::from_secs(300);
/// How soon it is asked again after that failed.
const RETRY: Duration = Duration::from_secs(10);

type Table = HashMap<(Box<str>, Box<str>), Kind>;

#[derive(Debug, Clone)]
struct Kind {
    version: Box<str>,
    kind: Box<str>,
}

/// The kinds that the cluster has. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Kinds(Arc<RwLock<Table>>);

impl Kinds {
    /// Group and version, as `apiVersion` has them, and kind of a resource; the preferred version when none is given.
    pub fn of(&self, group: &str, version: &str, resource: &str) -> Option<(Box<str>, Box<str>)> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = table.get(&(group.into(), resource.into()))?;
        let version = if version.is_empty() { &known.version } else { version };
        let api_version = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        Some((api_version, known.kind.clone()))
    }

    /// Asks the API server now and then. Never ends.
    pub async fn follow(self, client: Client) {
        loop {
            let wait = match Discovery::new(client.clone()).run().await {
                Ok(discovery) => {
                    let groups = discovery.groups();
                    let resources = groups.flat_map(|group| group.recommended_resources());
                    let entry = |resource: kube::discovery::ApiResource| {
                        let kind = Kind { version: resource.version.into(), kind: resource.kind.into() };
                        ((resource.group.into(), resource.plural.into()), kind)
                    };
                    let table: Table = resources.map(|(resource, _)| entry(resource)).collect();
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) = table;
                    LOOK
                }
                Err(error) => {
                    warn!(error = %link::chain(&error), "the API server does not say which kinds it has; trying again");
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}
