//! The selectors of a resource → the scope of its rules.

use std::sync::Arc;

use api::{
    ResourceId,
    rule::FalcoRuleSpec,
    selector::{LabelSelector, Operator, Requirement},
};
use rules::scope::{self, Containers, Scope, Selector, Want};

/// Where the rules of a resource look; `None` is everywhere.
pub(crate) fn scope(id: &ResourceId, spec: &FalcoRuleSpec) -> Option<Arc<Scope>> {
    let namespaced = id.kind.namespaced();
    let scope = Scope {
        namespace: namespaced.then(|| id.namespace.clone()),
        namespaces: spec.namespace_selector.as_ref().map(selector),
        pods: spec.pod_selector.as_ref().map(selector),
        containers: spec
            .container_selector
            .as_ref()
            .map(|selector| Containers::new(selector.names.iter().cloned(), selector.images.iter().cloned())),
        host: !namespaced && spec.include_host(),
    };
    (!scope.is_everything()).then(|| Arc::new(scope))
}

fn selector(selector: &LabelSelector) -> Selector {
    let labels = selector.match_labels.iter().map(|(key, value)| scope::Requirement {
        key: key.as_str().into(),
        want: Want::In(vec![value.as_str().into()]),
    });
    Selector(labels.chain(selector.match_expressions.iter().map(requirement)).collect())
}

fn requirement(requirement: &Requirement) -> scope::Requirement {
    let values = || requirement.values.iter().map(|value| value.as_str().into()).collect();
    let want = match requirement.operator {
        Operator::In => Want::In(values()),
        Operator::NotIn => Want::NotIn(values()),
        Operator::Exists => Want::Exists,
        Operator::DoesNotExist => Want::DoesNotExist,
    };
    scope::Requirement { key: requirement.key.as_str().into(), want }
}
