//! What several resources claim and only one can have: names of rules, and room in quotas. The older one has it.

use std::collections::HashMap;

use api::{condition::Reason, resource::load_key};

use super::judge::{Entry, Version};
use crate::{Limits, Problem};

/// The order in which claims are heard.
fn by_age(entries: &[Entry<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|at| {
        let candidate = entries[*at].candidate;
        (candidate.id.kind.namespaced(), candidate.created, &candidate.uid, &candidate.id)
    });
    order
}

/// What has been granted.
#[derive(Default)]
struct Granted {
    bytes: usize,
    /// FalcoRules and their rules, by namespace.
    namespaces: HashMap<String, (usize, usize)>,
}

/// Refuses versions that are larger than allowed, or for which there is no room left.
pub(super) fn quotas(entries: &mut [Entry<'_>], limits: &Limits) {
    let mut granted = Granted::default();
    for at in by_age(entries) {
        while let Some(version) = entries[at].version() {
            let namespace = entries[at].namespace();
            let Err((message, help)) = granted.claim(version, namespace, limits) else { break };
            let problem = Problem::of_field("quota-exceeded", Reason::QuotaExceeded, "spec", message, help);
            entries[at].refuse(vec![problem]);
        }
    }
}

impl Granted {
    /// Grants what a version asks for, or says why not and what to do. `namespace`: the one that pays for it.
    fn claim(
        &mut self,
        version: &Version<'_>,
        namespace: Option<&str>,
        limits: &Limits,
    ) -> Result<(), (String, &'static str)> {
        let (bytes, rules) = (version.bytes, version.outline.rules.len());
        if bytes > limits.resource_bytes {
            let message = format!("the rules have {bytes} bytes; at most {} are accepted", limits.resource_bytes);
            return Err((message, "split the resource"));
        }
        if rules > limits.resource_rules {
            let message = format!("the resource defines {rules} rules; at most {} are accepted", limits.resource_rules);
            return Err((message, "split the resource"));
        }
        if self.bytes + bytes > limits.total_bytes {
            let message = format!("the rules of all resources would have more than {} bytes", limits.total_bytes);
            return Err((message, "remove rules that are not needed"));
        }
        if let Some(namespace) = namespace {
            let (resources, of_namespace) = self.namespaces.get(namespace).copied().unwrap_or_default();
            let (resources, of_namespace) = (resources + 1, of_namespace + rules);
            if resources > limits.namespace_resources {
                let message = format!("the namespace would have more than {} FalcoRules", limits.namespace_resources);
                return Err((message, "put more rules into one, or ask for a larger quota in the SensorConfig"));
            }
            if of_namespace > limits.namespace_rules {
                let most = limits.namespace_rules;
                let message = format!("the namespace would have {of_namespace} rules; at most {most} are accepted");
                return Err((message, "remove rules, or ask for a larger quota in the SensorConfig"));
            }
            self.namespaces.insert(namespace.to_owned(), (resources, of_namespace));
        }
        self.bytes += bytes;
        Ok(())
    }
}

/// Where the name of a rule is unique: in a namespace, or at one place of the cluster's load order.
type Room = (Box<str>, u16);

/// Refuses versions that define a rule of a name that an older resource has in the same room. Elsewhere in the cluster's
/// order a later definition takes the place of an earlier one, as in Falco. Gives those that others made way for.
pub(super) fn names(entries: &mut [Entry<'_>]) -> Vec<usize> {
    let mut taken: HashMap<(Room, Box<str>), usize> = HashMap::new();
    let mut holders = Vec::new();
    for at in by_age(entries) {
        while let Some(version) = entries[at].version() {
            let id = &entries[at].candidate.id;
            let (_, order, namespace, _) = load_key(id, version.spec());
            let claim = |name: &str| ((namespace.clone(), order), Box::<str>::from(name));
            let holder = |name: &str| taken.get(&claim(name)).copied().filter(|holder| *holder != at);
            let conflict = version.outline.rules.iter().find_map(|name| Some((name, holder(name)?)));
            let Some((name, holder)) = conflict else {
                taken.extend(version.outline.rules.iter().map(|name| (claim(name), at)));
                break;
            };
            holders.push(holder);
            let older = &entries[holder].candidate.id;
            let message = format!("the rule `{name}` is defined already by {older}, which is older");
            let help = match id.kind.namespaced() {
                true => "give the rule another name",
                false => "give the rule another name, use `override`, or set another `spec.order`",
            };
            let mut problem = Problem::of_field("name-conflict", Reason::NameConflict, "spec", message, help);
            problem.item = Some(name.to_string());
            entries[at].refuse(vec![problem]);
        }
    }
    holders
}
