//! The event loop's end of the way to the spool.

use std::sync::Arc;

use link::proto;
use rules::alert::Alert;

use super::spool::{Hit, Queue};
use crate::pipeline::{Origin, Publish};

/// Puts alerts into the spool's queue.
pub struct Deliver {
    /// The queue.
    pub queue: Arc<Queue>,
}

impl Publish for Deliver {
    fn publish(&self, alert: Arc<Alert>, origin: &Origin<'_>) {
        let pod = origin.container.map(|container| {
            let facts = origin.facts;
            let pod = facts.and_then(|facts| facts.pod.as_ref());
            proto::Pod {
                namespace: pod.map_or_else(String::new, |pod| pod.namespace.to_string()),
                name: pod.map_or_else(String::new, |pod| pod.name.to_string()),
                uid: origin.pod_uid.to_owned(),
                container: facts.map_or_else(String::new, |facts| facts.name.to_string()),
                container_id: container.full_id().to_owned(),
                image: facts.map_or_else(String::new, |facts| facts.image.to_string()),
            }
        });
        self.queue.push(Hit { alert, active: Arc::clone(origin.active), rule: origin.rule, pod, object: None });
    }
}
