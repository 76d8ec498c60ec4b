//! Whose rules a resource changes, and who changes its rules: what each author should know of the other.

use std::collections::{BTreeSet, HashMap};

use super::Overrides;
use super::judge::Entry;

/// A rule: the namespace whose layer it is in, empty for the cluster's, and its name.
type Name = (Box<str>, Box<str>);

/// Who changes whose rules, for each entry; `order` is the load order of those that are in the bundle. A later definition
/// of a name takes the place of an earlier one, and whoever appends, overrides, disables or adds an exception changes it.
pub(super) fn overrides(entries: &[Entry<'_>], order: &[usize]) -> Vec<Overrides> {
    let mut found: Vec<Overrides> = entries.iter().map(|_| Overrides::default()).collect();
    let mut holders: HashMap<Name, usize> = HashMap::new();
    for at in order {
        let (Some(entry), Some(version)) = (entries.get(*at), entries.get(*at).and_then(Entry::version)) else {
            continue;
        };
        let id = &entry.candidate.id;
        let spec = version.spec();
        let outline = &version.outline;
        let named = spec.disable.iter().chain(spec.exceptions.iter().map(|exception| &exception.rule));
        let touched: BTreeSet<&str> =
            outline.rules.iter().chain(&outline.changes).map(|name| &**name).chain(named.map(String::as_str)).collect();
        for name in touched {
            let key: Name = (id.namespace.clone(), name.into());
            if let Some(holder) = holders.get(&key).copied().filter(|holder| holder != at)
                && let Some(other) = entries.get(holder)
            {
                note(&mut found, *at, |of| &mut of.overrides, name, &other.candidate.id.to_string());
                note(&mut found, holder, |of| &mut of.overridden_by, name, &id.to_string());
            }
        }
        holders.extend(outline.rules.iter().map(|name| ((id.namespace.clone(), name.clone()), *at)));
    }
    found
}

fn note(
    found: &mut [Overrides],
    at: usize,
    list: impl FnOnce(&mut Overrides) -> &mut Vec<(String, String)>,
    rule: &str,
    resource: &str,
) {
    if let Some(of) = found.get_mut(at) {
        list(of).push((rule.to_owned(), resource.to_owned()));
    }
}
