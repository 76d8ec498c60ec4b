//! What the webhook says about resources: the same judgement that their status will have.

use std::{sync::Arc, time::Duration};

use api::{
    Kind, Resource,
    config::SensorConfig,
    rule::{ClusterFalcoRule, FalcoRule},
};
use bundle::{Bundle, ConfigMap, Limits, Problem, Settings};
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{runtime::Handle, sync::watch};
use tracing::debug;

use super::{
    judge::Judged,
    keep::Keep,
    observe::{self, RuleResource},
};
use crate::{
    cluster::Cluster,
    webhook::{Judge, Opinion},
};

/// Judges resources before they are stored.
pub struct Reviewer {
    cluster: Cluster,
    judged: watch::Receiver<Option<Judged>>,
    kept: Kept,
}

/// Gives the bundle that the leader keeps in the cluster. May block for a while.
pub type Kept = Box<dyn Fn() -> Option<Bundle> + Send + Sync>;

/// How long the API server may take to give it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bundle in the cluster; to be called on a thread that may block, while this runtime lives.
pub fn kept(keep: Keep, runtime: Handle) -> Kept {
    Box::new(move || {
        let loaded = runtime.block_on(tokio::time::timeout(PATIENCE, keep.load()));
        match loaded {
            Ok(Ok(bytes)) => bytes.and_then(|bytes| Bundle::read(&bytes, &Bundle::hash(&bytes)).ok()),
            Ok(Err(error)) => {
                debug!(error = %link::chain(&error), "cannot read the bundle that the leader keeps");
                None
            }
            Err(_) => {
                debug!("cannot read the bundle that the leader keeps in time");
                None
            }
        }
    })
}

impl Reviewer {
    /// Judges among the resources of this cluster. `judged` has the leader's judgement in its own process; `kept` is asked
    /// where there is none.
    pub fn new(cluster: Cluster, judged: watch::Receiver<Option<Judged>>, kept: Kept) -> Self {
        Self { cluster, judged, kept }
    }

    /// The last good versions: what the leader's judgement begins with.
    fn previous(&self) -> Arc<Bundle> {
        let judged = self.judged.borrow().as_ref().map(|judged| Arc::clone(&judged.bundle));
        judged.unwrap_or_else(|| Arc::new((self.kept)().unwrap_or_default()))
    }

    fn rule(&self, rule: &RuleResource, object: &DynamicObject) -> Opinion {
        let id = rule.id();
        let others = observe::resources(&self.cluster).into_iter().filter(|other| other.id() != id);
        // A ConfigMap that is not known yet is not the author's mistake.
        let config_map = |rule: &RuleResource| observe::config_map(&self.cluster, rule);
        let unread = || ConfigMap::Unreadable("not read yet".to_owned());
        let mut candidates: Vec<_> =
            others.map(|other| other.candidate(config_map(&other).unwrap_or_else(unread), None)).collect();
        let text = config_map(rule);
        let unknown = text.is_none();
        candidates.push(rule.candidate(text.unwrap_or_else(unread), None));
        let config = self.cluster.configuration();
        let previous = self.previous();
        let accepted = bundle::accept(&candidates, &previous, &Settings::of(&config), &Limits::of(&config));
        let Some(verdict) = accepted.verdicts.get(&id) else { return Opinion::default() };
        let show = |problem: &Problem| show(problem, object);
        let warnings = verdict.warnings.iter().map(show).collect();
        if unknown {
            let text = "not checked: the ConfigMap is not known yet; see the status of the resource".to_owned();
            return Opinion { errors: Vec::new(), warnings: vec![text] };
        }
        Opinion { errors: verdict.errors.iter().map(show).collect(), warnings }
    }
}

impl Judge for Reviewer {
    fn opinion(&self, object: &DynamicObject) -> Opinion {
        let kind = object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default();
        let rule = match Kind::ALL.iter().find(|known| known.name() == kind) {
            Some(Kind::FalcoRule) => typed::<FalcoRule>(object).map(|rule| RuleResource::Namespaced(Arc::new(rule))),
            Some(Kind::ClusterFalcoRule) => {
                typed::<ClusterFalcoRule>(object).map(|rule| RuleResource::Cluster(Arc::new(rule)))
            }
            Some(Kind::AlertSink) => return checked(typed(object).map(Box::new).map(Resource::AlertSink)),
            Some(Kind::ClusterAlertSink) => {
                return checked(typed(object).map(Box::new).map(Resource::ClusterAlertSink));
            }
            Some(Kind::SensorConfig) => return configuration(typed(object)),
            Some(Kind::SensorNode) | None => return Opinion::default(),
        };
        match rule {
            Ok(rule) => self.rule(&rule, object),
            Err(error) => unreadable(&error),
        }
    }
}

/// What can be said about a resource by itself.
fn checked(resource: Result<Resource, serde_json::Error>) -> Opinion {
    match resource {
        Ok(resource) => {
            let broken = api::check::check(&resource).into_iter();
            Opinion {
                errors: broken.map(|(path, message)| format!("{path}: {message}")).collect(),
                warnings: Vec::new(),
            }
        }
        Err(error) => unreadable(&error),
    }
}

/// What can be said about a configuration.
fn configuration(config: Result<SensorConfig, serde_json::Error>) -> Opinion {
    match config {
        Ok(config) => Opinion { errors: mistakes(&config), warnings: Vec::new() },
        Err(error) => unreadable(&error),
    }
}

/// What of a configuration cannot hold, each with its place and remedy. It is left out, the rest holds.
pub fn mistakes(config: &SensorConfig) -> Vec<String> {
    let (_, outputs) = bundle::appended(&config.spec.outputs());
    let outputs = outputs.into_iter().map(|mistake| format!("{}: {}", mistake.path, mistake.message));
    checked(Ok(Resource::SensorConfig(Box::new(config.clone())))).errors.into_iter().chain(outputs).collect()
}

fn unreadable(error: &serde_json::Error) -> Opinion {
    Opinion { errors: vec![format!("the resource cannot be read: {error}")], warnings: Vec::new() }
}

fn typed<T: DeserializeOwned>(object: &DynamicObject) -> Result<T, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(object)?)
}

/// A problem with the line that it is in, and a caret under its place.
fn show(problem: &Problem, object: &DynamicObject) -> String {
    let text = problem.to_string();
    let field = field(&object.data, &problem.path);
    let line = field.and_then(|field| field.lines().nth(problem.line.checked_sub(1)? as usize));
    let Some(line) = line.filter(|line| line.chars().count() <= 200) else { return text };
    // Tabs stay, so that the caret stands where it should whatever their width.
    let before = line.chars().take(problem.column.saturating_sub(1) as usize);
    let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    format!("{text}\n    {line}\n    {indent}^")
}

/// The text of a field such as `spec.items[3].rule.condition`.
fn field<'o>(object: &'o Value, path: &str) -> Option<&'o str> {
    let mut value = object;
    for part in path.split('.') {
        let (name, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
            Some((name, index)) => (name, Some(index.parse::<usize>().ok()?)),
            None => (part, None),
        };
        value = value.get(name)?;
        if let Some(index) = index {
            value = value.get(index)?;
        }
    }
    value.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_found_by_its_path() {
        let object = json!({"spec": {"items": [{"rule": {"condition": "a"}}], "rules": "b"}});
        assert_eq!(field(&object, "spec.items[0].rule.condition"), Some("a"));
        assert_eq!(field(&object, "spec.rules"), Some("b"));
        assert_eq!(field(&object, "spec.items[1].rule.condition"), None);
        assert_eq!(field(&object, "spec.items"), None);
    }

    #[test]
    fn a_setting_that_the_api_server_cannot_check_is_refused_with_its_place() {
        let object = json!({
            "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": "SensorConfig", "metadata": {"name": "default"},
            "spec": {"events": {"redact": ["good", "bad("]}, "outputs": {"appendFields": ["proc.nme"]}},
        });
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let opinion = configuration(typed(&object));
        assert_eq!(opinion.errors[0], "spec.events.redact[1]: redact: not a regular expression");
        assert!(opinion.errors[1].starts_with("spec.outputs.appendFields[0]: "), "{opinion:?}");
        assert!(opinion.errors[1].contains("did you mean `proc.name`"), "{opinion:?}");
    }
}
