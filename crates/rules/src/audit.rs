//! What rules of the source `k8s_audit` need to see: which requests, and how much of each. From that follow the audit policy
//! that an API server needs for them, and which rules are blind when it logs less.
//!
//! What a condition asks of a request is derived from its tree: a list of [`Clause`]s, one of which holds whenever the
//! condition does. What cannot be told is taken to hold, so a clause may cover too much, never too little.

use std::collections::{BTreeMap, BTreeSet};

use event::{
    audit::Level,
    fields::{Arg, Field},
};

use crate::{
    filter::{
        ast::Op,
        typed::{Const, Leaf, LeafTest, Rhs, Typed, ValueExpr},
    },
    ruleset::RuleRef,
};

/// Clauses of one condition, beyond which it is taken for one that may match anything.
const CLAUSES: usize = 64;

/// Words, or all there are.
pub type Words = Option<BTreeSet<Box<str>>>;

/// Which part of a resource a request is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Part {
    /// The whole, or any part.
    #[default]
    Any,
    /// The whole.
    Whole,
    /// Any part.
    Some,
    /// One of these parts.
    In(BTreeSet<Box<str>>),
}

/// Requests that a rule can match: those that meet all of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Clause {
    /// The resource is one of these.
    pub resources: Words,
    /// The part of it.
    pub part: Part,
    /// The verb is one of these.
    pub verbs: Words,
    /// The stage is one of these.
    pub stages: Words,
}

/// What one rule needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Which requests; none when it can match nothing.
    pub clauses: Vec<Clause>,
    /// The level at which its condition can be judged.
    pub condition: Level,
    /// The level at which its output has all its values.
    pub output: Level,
    /// Which part of the request's object it looks at, where a clause names no resource.
    pub kinds: Kinds,
}

/// The kinds of objects whose fields a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Kinds {
    /// None: it looks at the request only.
    #[default]
    None,
    /// Of these resources only.
    Of(BTreeSet<&'static str>),
    /// It can be anything.
    Any,
}

impl Kinds {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => Self::Any,
            (Self::None, other) | (other, Self::None) => other,
            (Self::Of(mut one), Self::Of(other)) => {
                one.extend(other);
                Self::Of(one)
            }
        }
    }
}

/// Resources that hold a pod or a template of pods.
pub const WORKLOADS: [&str; 9] = [
    "cronjobs",
    "daemonsets",
    "deployments",
    "jobs",
    "pods",
    "podtemplates",
    "replicasets",
    "replicationcontrollers",
    "statefulsets",
];

/// What a rule needs.
pub fn needs(rule: RuleRef<'_>) -> Needs {
    let (condition, output) = rule.parts();
    let mut needs = Needs {
        clauses: clauses(condition, false).unwrap_or_else(|| vec![Clause::default()]),
        condition: Level::Metadata,
        output: Level::Metadata,
        kinds: Kinds::None,
    };
    fields(condition, &mut |field, arg| {
        let (level, kinds) = field_needs(field, arg);
        needs.condition = needs.condition.max(level);
        needs.kinds = std::mem::take(&mut needs.kinds).and(kinds);
    });
    for (field, arg) in output {
        needs.output = needs.output.max(field_needs(field, arg).0);
    }
    needs.clauses.sort();
    needs.clauses.dedup();
    needs
}

fn fields(condition: &Typed, visit: &mut impl FnMut(&'static Field, &Arg)) {
    match condition {
        Typed::And(parts) | Typed::Or(parts) => parts.iter().for_each(|part| fields(part, visit)),
        Typed::Not(inner) => fields(inner, visit),
        Typed::Leaf(leaf) => {
            leaf.left.fields(&mut |field, arg| visit(field, arg));
            if let LeafTest::Compare { right: Rhs::Value(value), .. } = &leaf.test {
                value.fields(&mut |field, arg| visit(field, arg));
            }
        }
    }
}

/// The level that has a field's value, and the kinds of objects that have it.
fn field_needs(field: &Field, arg: &Arg) -> (Level, Kinds) {
    let of = |resources: &[&'static str]| (Level::Request, Kinds::Of(resources.iter().copied().collect()));
    let name = field.name;
    match name {
        "ka.resp.name" | "ka.target.pod.name" => return (Level::RequestResponse, Kinds::None),
        "ka.req.configmap.name" => return (Level::Metadata, Kinds::None),
        "jevt.obj" | "json.obj" => return (Level::Metadata, Kinds::None),
        "jevt.value" | "json.value" => {
            let Arg::Key(pointer) = arg else { return (Level::Metadata, Kinds::None) };
            let below =
                |root: &str| pointer.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            return match (below("/requestObject"), below("/responseObject")) {
                (true, _) => (Level::Request, Kinds::Any),
                (_, true) => (Level::RequestResponse, Kinds::Any),
                _ => (Level::Metadata, Kinds::None),
            };
        }
        _ => {}
    }
    let kind = |prefix: &str| name.starts_with(prefix);
    match () {
        () if kind("ka.req.podspec.") => of(&WORKLOADS),
        () if kind("ka.req.pod.") || kind("ka.req.container.") || kind("ka.req.volume.") => of(&["pods"]),
        () if kind("ka.req.role.") => of(&["clusterroles", "roles"]),
        () if kind("ka.req.binding.") => of(&["clusterrolebindings", "rolebindings"]),
        () if kind("ka.req.service.") => of(&["services"]),
        () if kind("ka.req.configmap.") => of(&["configmaps"]),
        () => (Level::Metadata, Kinds::None),
    }
}

/// Clauses of a condition, or of its opposite; `None` when there are too many. No clauses: it never holds.
fn clauses(condition: &Typed, negated: bool) -> Option<Vec<Clause>> {
    match (condition, negated) {
        (Typed::And(parts), false) | (Typed::Or(parts), true) => {
            let mut all = vec![Clause::default()];
            for part in parts {
                // A part that is too much to tell narrows nothing.
                let Some(part) = clauses(part, negated) else { continue };
                let pairs = all.iter().flat_map(|one| part.iter().filter_map(|other| one.and(other)));
                let next: BTreeSet<Clause> = pairs.collect();
                if next.len() > CLAUSES {
                    return None;
                }
                all = next.into_iter().collect();
            }
            Some(all)
        }
        (Typed::Or(parts), false) | (Typed::And(parts), true) => {
            let mut any = BTreeSet::new();
            for part in parts {
                any.extend(clauses(part, negated)?);
            }
            (any.len() <= CLAUSES).then(|| any.into_iter().collect())
        }
        (Typed::Not(inner), _) => clauses(inner, !negated),
        (Typed::Leaf(leaf), _) => Some(of_leaf(leaf, negated)),
    }
}

fn of_leaf(leaf: &Leaf, negated: bool) -> Vec<Clause> {
    let anything = vec![Clause::default()];
    let ValueExpr::Field(field, arg) = &leaf.left else { return anything };
    let words = || match &leaf.test {
        LeafTest::Compare { op: Op::Eq | Op::In | Op::Intersects, modifier: None, right } => {
            let constants = match right {
                Rhs::One(constant) => std::slice::from_ref(constant),
                Rhs::Many(constants) => constants,
                Rhs::Value(_) => return None,
            };
            let word = |constant: &Const| match constant {
                Const::Bytes(bytes) => Some(Box::from(std::str::from_utf8(bytes).ok()?)),
                Const::Int(_) | Const::Bool(_) | Const::Ip(_) | Const::Net(_) => None,
            };
            constants.iter().map(word).collect::<Words>()
        }
        LeafTest::Compare { .. } | LeafTest::Exists | LeafTest::EventType(_) => None,
    };
    let exists = matches!(leaf.test, LeafTest::Exists);
    let stage = |arg: &Arg| matches!(arg, Arg::Key(pointer) if &**pointer == "/stage");
    let clause = match (field.name, negated) {
        // Every event has a time, and none is at the beginning of the epoch: the official rules say so "always" and "never".
        ("jevt.rawtime" | "json.rawtime", _) if exists => return if negated { Vec::new() } else { anything },
        ("jevt.rawtime" | "json.rawtime", false)
            if words().is_some_and(|words| words.iter().all(|word| &**word == "0")) =>
        {
            return Vec::new();
        }
        ("ka.target.resource", false) => Clause { resources: words(), ..Clause::default() },
        ("ka.verb", false) => Clause { verbs: words(), ..Clause::default() },
        ("ka.stage", false) => Clause { stages: words(), ..Clause::default() },
        ("jevt.value" | "json.value", false) if stage(arg) => Clause { stages: words(), ..Clause::default() },
        ("ka.target.subresource", true) if exists => Clause { part: Part::Whole, ..Clause::default() },
        ("ka.target.subresource", false) if exists => Clause { part: Part::Some, ..Clause::default() },
        ("ka.target.subresource", false) => {
            let part = words().map_or(Part::Some, Part::In);
            Clause { part, ..Clause::default() }
        }
        _ => return anything,
    };
    vec![clause]
}

fn both(one: &Words, other: &Words) -> Words {
    match (one, other) {
        (None, words) | (words, None) => words.clone(),
        (Some(one), Some(other)) => Some(one.intersection(other).cloned().collect()),
    }
}

impl Clause {
    /// What meets both; `None` when nothing can.
    fn and(&self, other: &Self) -> Option<Self> {
        let clause = Self {
            resources: both(&self.resources, &other.resources),
            part: self.part.and(&other.part)?,
            verbs: both(&self.verbs, &other.verbs),
            stages: both(&self.stages, &other.stages),
        };
        let possible = |words: &Words| words.as_ref().is_none_or(|words| !words.is_empty());
        (possible(&clause.resources) && possible(&clause.verbs) && possible(&clause.stages)).then_some(clause)
    }

    /// Whether a request meets it.
    pub fn admits(&self, resource: &str, subresource: &str, verb: &str, stage: &str) -> bool {
        let among = |words: &Words, word: &str| words.as_ref().is_none_or(|words| words.contains(word));
        let part = match &self.part {
            Part::Any => true,
            Part::Whole => subresource.is_empty(),
            Part::Some => !subresource.is_empty(),
            Part::In(parts) => parts.contains(subresource),
        };
        part && among(&self.resources, resource) && among(&self.verbs, verb) && among(&self.stages, stage)
    }
}

impl Part {
    fn and(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, part) | (part, Self::Any) => Some(part.clone()),
            (Self::Whole, Self::Whole) => Some(Self::Whole),
            (Self::Whole, Self::Some | Self::In(_)) | (Self::Some | Self::In(_), Self::Whole) => None,
            (Self::Some, part) | (part, Self::Some) => Some(part.clone()),
            (Self::In(one), Self::In(other)) => {
                let parts: BTreeSet<_> = one.intersection(other).cloned().collect();
                (!parts.is_empty()).then_some(Self::In(parts))
            }
        }
    }
}

impl Needs {
    /// The clauses with the resources that they come down to: where a condition names none, those of the kinds of
    /// objects that it looks at.
    pub fn requests(&self) -> Vec<Clause> {
        let narrowed = |clause: &Clause| match (&clause.resources, &self.kinds) {
            (None, Kinds::Of(kinds)) => {
                Clause { resources: Some(kinds.iter().map(|kind| (*kind).into()).collect()), ..clause.clone() }
            }
            _ => clause.clone(),
        };
        self.clauses.iter().map(narrowed).collect()
    }
}

/// API groups of the resources that Kubernetes itself has; the core's is empty.
pub fn group_of(resource: &str) -> Option<&'static str> {
    const GROUPS: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "configmaps",
                "endpoints",
                "events",
                "limitranges",
                "namespaces",
                "nodes",
                "persistentvolumeclaims",
                "persistentvolumes",
                "pods",
                "podtemplates",
                "replicationcontrollers",
                "resourcequotas",
                "secrets",
                "serviceaccounts",
                "services",
            ],
        ),
        (
            "admissionregistration.k8s.io",
            &[
                "mutatingadmissionpolicies",
                "mutatingwebhookconfigurations",
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings",
                "validatingwebhookconfigurations",
            ],
        ),
        ("apiextensions.k8s.io", &["customresourcedefinitions"]),
        ("apiregistration.k8s.io", &["apiservices"]),
        ("apps", &["controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"]),
        ("authentication.k8s.io", &["tokenreviews"]),
        ("authorization.k8s.io", &["subjectaccessreviews"]),
        ("autoscaling", &["horizontalpodautoscalers"]),
        ("batch", &["cronjobs", "jobs"]),
        ("certificates.k8s.io", &["certificatesigningrequests"]),
        ("networking.k8s.io", &["ingressclasses", "ingresses", "networkpolicies"]),
        ("policy", &["poddisruptionbudgets"]),
        ("rbac.authorization.k8s.io", &["clusterrolebindings", "clusterroles", "rolebindings", "roles"]),
        ("scheduling.k8s.io", &["priorityclasses"]),
        ("storage.k8s.io", &["csidrivers", "csinodes", "storageclasses", "volumeattachments"]),
    ];
    GROUPS.iter().find(|(_, resources)| resources.contains(&resource)).map(|(group, _)| *group)
}

/// One line of an audit policy, of which the first that fits a request counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// How much is logged.
    pub level: Level,
    /// Resources with their parts (`pods/exec`), by API group; empty: everything.
    pub resources: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    /// Verbs; all when there are none.
    pub verbs: BTreeSet<Box<str>>,
}

impl PolicyRule {
    /// Whether it fits every request.
    pub fn is_everything(&self) -> bool {
        self.resources.is_empty() && self.verbs.is_empty()
    }
}

/// A least audit policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Its rules; what none fits is not logged.
    pub rules: Vec<PolicyRule>,
    /// Some rule asks for the stage before a request is worked on.
    pub received: bool,
    /// Resources whose API group is not known, so that no policy rule can name them.
    pub unknown: BTreeSet<Box<str>>,
    /// Some rule looks into objects of any kind.
    pub any_object: bool,
}

/// The least policy for these needs. With `outputs`, also the values of outputs are logged, not only what conditions ask for.
pub fn policy<'n>(needs: impl IntoIterator<Item = &'n Needs>, outputs: bool) -> Policy {
    let mut policy = Policy::default();
    // Level → verbs → resources: one line for each.
    type Lines = BTreeMap<BTreeSet<Box<str>>, BTreeSet<Box<str>>>;
    let mut lines: BTreeMap<Level, (Lines, Lines)> = BTreeMap::new();
    for need in needs {
        let level = if outputs { need.condition.max(need.output) } else { need.condition };
        for clause in need.requests() {
            policy.received |= clause.stages.as_ref().is_some_and(|stages| stages.contains("RequestReceived"));
            policy.any_object |= clause.resources.is_none() && level > Level::Metadata;
            let verbs = clause.verbs.clone().unwrap_or_default();
            let (named, all) = lines.entry(level).or_default();
            match &clause.resources {
                None => {
                    let names = part_names("*", &clause.part);
                    all.entry(verbs).or_default().extend(names);
                }
                Some(resources) => {
                    let names = resources.iter().flat_map(|resource| part_names(resource, &clause.part));
                    named.entry(verbs).or_default().extend(names);
                }
            }
        }
    }
    for (level, (named, all)) in lines.into_iter().rev() {
        for (verbs, names) in named {
            let mut resources: BTreeMap<Box<str>, BTreeSet<Box<str>>> = BTreeMap::new();
            for name in names {
                let resource = name.split('/').next().unwrap_or_default();
                match group_of(resource) {
                    Some(group) => drop(resources.entry(group.into()).or_default().insert(name)),
                    None => drop(policy.unknown.insert(resource.into())),
                }
            }
            if !resources.is_empty() {
                policy.rules.push(PolicyRule { level, resources, verbs });
            }
        }
        for (verbs, names) in all {
            // The API server's words for parts of any resource: `*/exec`. Every group has resources of its own.
            let only_parts = names.iter().all(|name| name.contains('/'));
            let mut resources = BTreeMap::new();
            if only_parts {
                let mut groups: BTreeSet<&str> = names.iter().flat_map(|name| groups_of_part(name)).copied().collect();
                if groups.is_empty() {
                    groups.insert("");
                }
                resources.extend(groups.into_iter().map(|group| (group.into(), names.clone())));
            }
            policy.rules.push(PolicyRule { level, resources, verbs });
        }
    }
    // What fits everything makes lines of its level in front of it, and all behind it, superfluous.
    if let Some(at) = policy.rules.iter().position(PolicyRule::is_everything) {
        let everything = policy.rules.swap_remove(at);
        policy.rules.truncate(at);
        policy.rules.retain(|rule| rule.level > everything.level);
        policy.rules.push(everything);
    }
    policy
}

/// The groups that have a part of this name.
fn groups_of_part(name: &str) -> &'static [&'static str] {
    match name.rsplit('/').next() {
        Some(
            "exec"
            | "attach"
            | "portforward"
            | "proxy"
            | "log"
            | "ephemeralcontainers"
            | "eviction"
            | "binding"
            | "token",
        ) => &[""],
        _ => &["", "apps", "batch"],
    }
}

/// Names of parts of a resource, as a policy has them.
fn part_names(resource: &str, part: &Part) -> Vec<Box<str>> {
    match part {
        Part::Any if resource == "*" => vec!["*".into()],
        Part::Any => vec![resource.into(), format!("{resource}/*").into()],
        Part::Whole => vec![resource.into()],
        Part::Some => vec![format!("{resource}/*").into()],
        Part::In(parts) => parts.iter().map(|part| format!("{resource}/{part}").into()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use event::fields::EventSource;
    use expect_test::{Expect, expect};

    use super::*;
    use crate::load::{Loader, Options};

    fn needs_of(rules: &[(&str, &str)]) -> Vec<Needs> {
        let rule = |(condition, output): &(&str, &str)| {
            format!(
                "- {{rule: '{condition}', desc: d, condition: '{condition}', output: '{output}', priority: INFO, source: k8s_audit}}\n"
            )
        };
        let mut loader = Loader::new(Options { sources: EventSource::ALL.to_vec(), ..Options::default() });
        loader.add("r.yaml", rules.iter().map(rule).collect::<String>().as_bytes());
        let ruleset = loader.finish().ruleset.expect("good rules");
        ruleset.rules().map(needs).collect()
    }

    #[track_caller]
    fn check(rules: &[(&str, &str)], want: Expect) {
        let policy = policy(&needs_of(rules), true);
        let lines = policy.rules.iter().map(|rule| {
            let resources =
                rule.resources.iter().map(|(group, names)| format!(" {group}{names:?}")).collect::<String>();
            format!("{} {:?}{resources}\n", rule.level.name(), rule.verbs)
        });
        want.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn bodies_are_logged_of_what_rules_look_into_only() {
        check(
            &[
                (
                    "ka.target.resource = pods and not ka.target.subresource exists and ka.verb = create and ka.req.pod.host_network intersects (true)",
                    "x",
                ),
                ("ka.target.resource = deployments and ka.verb = delete", "x"),
            ],
            expect![[r#"
                Request {"create"} {"pods"}
                Metadata {"delete"} apps{"deployments", "deployments/*"}
            "#]],
        );
    }

    #[test]
    fn an_output_can_ask_for_more_than_its_condition() {
        let rules = [("ka.target.resource = pods and ka.verb = create", "%ka.resp.name")];
        check(
            &rules,
            expect![[r#"
            RequestResponse {"create"} {"pods", "pods/*"}
        "#]],
        );
        assert_eq!(policy(&needs_of(&rules), false).rules[0].level, Level::Metadata);
    }

    #[test]
    fn a_rule_on_everything_makes_other_lines_of_its_level_superfluous() {
        check(
            &[
                ("ka.user.name = eve", "x"),
                ("ka.target.resource = secrets and ka.verb = get", "x"),
                ("ka.req.role.rules.verbs intersects (\"*\")", "x"),
            ],
            expect![[r#"
                Request {} rbac.authorization.k8s.io{"clusterroles", "clusterroles/*", "roles", "roles/*"}
                Metadata {}
            "#]],
        );
    }

    #[test]
    fn parts_of_any_resource_are_named_with_a_star() {
        check(
            &[("ka.target.subresource in (portforward)", "x")],
            expect![[r#"
            Metadata {} {"*/portforward"}
        "#]],
        );
    }

    #[test]
    fn what_can_never_match_needs_nothing() {
        check(
            &[
                ("jevt.rawtime = 0 and ka.target.resource = pods", "x"),
                ("not (jevt.rawtime exists) and ka.verb = get", "x"),
                ("ka.verb = get and ka.verb = list", "x"),
            ],
            expect![""],
        );
    }

    #[test]
    fn pods_are_looked_for_in_all_that_holds_some_and_stages_are_known() {
        let needs = needs_of(&[("jevt.value[/stage] = RequestReceived and ka.req.podspec.host_pid = true", "x")]);
        let policy = policy(&needs, true);
        assert!(policy.received && !policy.any_object);
        assert_eq!(policy.rules[0].resources.keys().map(|group| &**group).collect::<Vec<_>>(), ["", "apps", "batch"]);
        let needs = needs_of(&[("jevt.value[/requestObject/spec/x] exists", "x")]);
        assert!(super::policy(&needs, true).any_object);
    }

    #[test]
    fn too_many_alternatives_are_taken_for_anything() {
        let many =
            (0..70).map(|n| format!("(ka.target.resource = r{n} and ka.verb = v{n})")).collect::<Vec<_>>().join(" or ");
        let needs = needs_of(&[(&many, "x")]);
        assert_eq!(needs[0].clauses, [Clause::default()]);
    }
}
