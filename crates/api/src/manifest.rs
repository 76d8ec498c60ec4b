//! Reads manifests from text, as `kubectl apply -f` would, without a cluster.
//!
//! All mistakes of a file are reported, each with its place, and a mistake in one document does not keep the others
//! from being read. Objects of other groups (a Namespace beside the rules) are listed, not refused: people keep such
//! files together.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde::de::DeserializeOwned;

use crate::{
    check, crd,
    falco::Origin,
    problem::{Path, Problem, ProblemKind, Step},
    resource::{GROUP, Kind, Resource, ResourceId, VERSION},
    schema,
    yaml::{self, Node, NodeKind, Place, Written},
};

/// What a file of manifests holds.
#[derive(Debug, Default)]
pub struct ManifestFile {
    /// Our resources that are free of mistakes, in the order of the file.
    pub manifests: Vec<Manifest>,
    /// Objects of other groups, which are not ours to read.
    pub foreign: Vec<Foreign>,
    /// Every mistake.
    pub problems: Vec<Problem>,
}

/// A resource and the places of its fields.
#[derive(Debug)]
pub struct Manifest {
    /// The resource.
    pub resource: Resource,
    /// Where its document begins.
    pub place: Place,
    tree: Node,
}

/// An object of another group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// Where its document begins.
    pub place: Place,
}

/// Whether a text is a plain Falco rules file (a list) and not a manifest (a mapping).
pub fn is_rules_file(text: &str) -> bool {
    yaml::starts_with_sequence(text)
}

/// Reads all documents of a text, YAML or JSON.
///
/// ```
/// let file = gyrfalcon_api::manifest::read("
/// apiVersion: gyrfalcon.dev/v1alpha1
/// kind: ClusterAlertSink
/// metadata: {name: out}
/// spec:
///   stdot: {}
/// ");
/// assert_eq!(
///     file.problems[0].to_string(),
///     "6:3: spec: no field `stdot`; did you mean `stdout`?"
/// );
/// ```
pub fn read(text: &str) -> ManifestFile {
    let (documents, error) = yaml::read(text);
    let mut file = ManifestFile::default();
    for document in documents {
        read_document(document, &mut file, true);
    }
    if let Some(error) = error {
        file.problems.push(Problem {
            kind: ProblemKind::Yaml,
            place: error.place,
            path: Path::default(),
            message: error.message,
            help: None,
        });
    }
    file
}

impl Manifest {
    /// What tells the resource from all others.
    pub fn id(&self) -> ResourceId {
        self.resource.id()
    }

    /// Place in the file of a field, or of what is nearest to it.
    pub fn place(&self, path: &Path) -> Place {
        nearest_node(&self.tree, path).0.place
    }

    /// Place in the file of what a rules text was made from: see [`crate::falco::RulesText::origin`].
    pub fn place_of(&self, origin: &Origin) -> Place {
        self.place_in_text(&origin.path, origin.line, origin.column)
    }

    /// Place in the file of a line and column (from 1) inside of the text of a field.
    ///
    /// Exact for block texts (`|`) and for texts on one line; for folded ones (`>`) the beginning of the text.
    pub fn place_in_text(&self, path: &Path, line: u32, column: u32) -> Place {
        let (node, found) = nearest_node(&self.tree, path);
        let NodeKind::Text(_, written) = &node.kind else { return node.place };
        match *written {
            Written::Literal { first_line, indent } if found => {
                Place { line: first_line.saturating_add(line.saturating_sub(1)), column: column.saturating_add(indent) }
            }
            Written::Plain if found && line == 1 => at_column(node.place, column.saturating_sub(1)),
            Written::Quoted if found && line == 1 => at_column(node.place, column),
            Written::Folded { first_line } => Place { line: first_line, column: 1 },
            Written::Literal { .. } | Written::Plain | Written::Quoted => node.place,
        }
    }
}

fn at_column(place: Place, right: u32) -> Place {
    Place { column: place.column.saturating_add(right), ..place }
}

/// The node at a path, or its nearest ancestor; and whether it is the node itself.
fn nearest_node<'a>(tree: &'a Node, path: &Path) -> (&'a Node, bool) {
    let mut node = tree;
    for step in path.steps() {
        let next = match (step, &node.kind) {
            (Step::Key(name), NodeKind::Mapping(_)) => node.get(name),
            (Step::Index(index), NodeKind::Sequence(nodes)) => nodes.get(*index),
            (Step::Key(_) | Step::Index(_), _) => None,
        };
        match next {
            Some(next) => node = next,
            None => return (node, false),
        }
    }
    (node, true)
}

fn read_document(document: Node, file: &mut ManifestFile, lists: bool) {
    let problem = |kind, message: String, help: &str| Problem {
        kind,
        place: document.place,
        path: Path::default(),
        message,
        help: Some(help.into()),
    };
    let word = |name| document.get(name).and_then(Node::text);
    let (Some(api_version), Some(type_)) = (word("apiVersion"), word("kind")) else {
        let help = "a resource begins with `apiVersion: gyrfalcon.dev/v1alpha1` and `kind:`";
        file.problems.push(problem(ProblemKind::NoResource, "this is no resource".into(), help));
        return;
    };
    if lists && api_version == "v1" && type_ == "List" {
        // What `kubectl get -o yaml` prints. Lists in lists are not a thing.
        if let Some(NodeKind::Sequence(items)) = document.get("items").map(|items| items.kind.clone()) {
            items.into_iter().for_each(|item| read_document(item, file, false));
        }
        return;
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if group != GROUP {
        let (api_version, kind) = (api_version.into(), type_.into());
        file.foreign.push(Foreign { api_version, kind, place: document.place });
        return;
    }
    if version != VERSION {
        let message = format!("no version `{version}` of {GROUP}");
        file.problems.push(problem(ProblemKind::UnknownKind, message, "write `apiVersion: gyrfalcon.dev/v1alpha1`"));
        return;
    }
    let Some(kind) = Kind::ALL.iter().copied().find(|kind| kind.name() == type_) else {
        let names = || Kind::ALL.iter().map(|kind| kind.name());
        let help = match schema::nearest(type_, names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        file.problems.push(problem(ProblemKind::UnknownKind, format!("no kind `{type_}` in {GROUP}"), &help));
        return;
    };
    let before = file.problems.len();
    check_metadata(kind, &document, &mut file.problems);
    if let Some(schema) = SCHEMAS.get(&kind) {
        schema::check(schema, &document, &Path::default(), &mut file.problems);
    }
    if let Some(problems) = file.problems.get_mut(before..) {
        explain_cluster_only(kind, &document, problems);
    }
    if file.problems.len() > before {
        return;
    }
    match resource(kind, &document) {
        Ok(resource) => {
            for (path, message) in check::check(&resource) {
                let (kind, place) = (ProblemKind::Contradiction, nearest_node(&document, &path).0.place);
                file.problems.push(Problem { kind, place, path, message: message.into(), help: None });
            }
            if file.problems.len() == before {
                file.manifests.push(Manifest { resource, place: document.place, tree: document });
            }
        }
        Err(problem) => file.problems.push(problem),
    }
}

/// Says so where a field is unknown only because the kind is the namespaced one of two.
fn explain_cluster_only(kind: Kind, document: &Node, problems: &mut [Problem]) {
    let unknown = |problem: &Problem| problem.kind == ProblemKind::UnknownField;
    let Some(twin) = kind.cluster_wide().filter(|_| problems.iter().any(unknown)) else { return };
    let Some(schema) = SCHEMAS.get(&twin) else { return };
    let mut of_twin = Vec::new();
    schema::check(schema, document, &Path::default(), &mut of_twin);
    let metadata = Path::default().key("metadata");
    for problem in problems.iter_mut().filter(|problem| unknown(problem) && problem.path != metadata) {
        if !of_twin.iter().any(|other| unknown(other) && other.place == problem.place) {
            problem.help = Some(format!("only a {twin} has it"));
        }
    }
}

static SCHEMAS: LazyLock<HashMap<Kind, JSONSchemaProps>> = LazyLock::new(|| {
    let schema = |kind: Kind| crd::schema(&crd::crd(kind)).cloned().map(|schema| (kind, schema));
    Kind::ALL.iter().copied().filter_map(schema).collect()
});

/// Fields of `metadata` that a user writes, or finds in what `kubectl get` prints.
const METADATA_FIELDS: &[&str] = &[
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Checks what the API server asks of the metadata of all objects.
fn check_metadata(kind: Kind, document: &Node, problems: &mut Vec<Problem>) {
    let metadata = Path::default().key("metadata");
    let Some(node) = document.get("metadata") else {
        problems.push(Problem {
            kind: ProblemKind::MissingField,
            place: document.place,
            path: Path::default(),
            message: "`metadata` is missing".into(),
            help: Some("write `metadata: {name: …}`".into()),
        });
        return;
    };
    if let NodeKind::Mapping(entries) = &node.kind {
        for (key, _) in entries.iter().filter(|(key, _)| !METADATA_FIELDS.contains(&key.name.as_str())) {
            let nearest = schema::nearest(&key.name, METADATA_FIELDS.iter().copied());
            problems.push(Problem {
                kind: ProblemKind::UnknownField,
                place: key.place,
                path: metadata.clone(),
                message: format!("no field `{}`", key.name),
                help: nearest.map(|name| format!("did you mean `{name}`?")),
            });
        }
    }
    let labels = |text: &str| text.split('.').all(is_label);
    // A SensorNode has the name of a Node.
    let longest = if kind == Kind::SensorNode { 253 } else { 63 };
    let mut check = |field: &str, required: bool, valid: &dyn Fn(&str) -> bool, help: &str| {
        let kind = match node.get(field).map(|value| (value, value.text())) {
            None if required => (ProblemKind::MissingField, node.place, format!("`{field}` is missing")),
            None => return,
            Some((_, Some(text))) if text.len() <= longest && valid(text) => return,
            Some((value, Some(_))) => (ProblemKind::InvalidValue, value.place, format!("this cannot be a {field}")),
            Some((value, None)) => (ProblemKind::WrongType, value.place, format!("a {field} is a text")),
        };
        let (kind, place, message) = kind;
        problems.push(Problem { kind, place, path: metadata.key(field), message, help: Some(help.into()) });
    };
    check("name", true, &labels, "at most 63 of a-z, 0-9, `-` and `.`, not beginning or ending with a sign");
    check("namespace", false, &is_label, "at most 63 of a-z, 0-9 and `-`, not beginning or ending with a sign");
}

fn is_label(text: &str) -> bool {
    let sign = |c: char| c == '-';
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || sign(c))
        && !text.starts_with(sign)
        && !text.ends_with(sign)
}

fn resource(kind: Kind, document: &Node) -> Result<Resource, Problem> {
    Ok(match kind {
        Kind::FalcoRule => Resource::FalcoRule(typed(document)?),
        Kind::ClusterFalcoRule => Resource::ClusterFalcoRule(typed(document)?),
        Kind::AlertSink => Resource::AlertSink(typed(document)?),
        Kind::ClusterAlertSink => Resource::ClusterAlertSink(typed(document)?),
        Kind::SensorConfig => Resource::SensorConfig(typed(document)?),
        Kind::SensorNode => Resource::SensorNode(typed(document)?),
    })
}

/// The typed form of a document that fits its schema. What can still fail is what a schema has no words for.
fn typed<T: DeserializeOwned>(document: &Node) -> Result<Box<T>, Problem> {
    let mut json = document.to_json();
    drop_nulls(&mut json);
    serde_path_to_error::deserialize(json).map(Box::new).map_err(|error| {
        let path = error.path().iter().fold(Path::default(), |path, segment| match segment {
            serde_path_to_error::Segment::Seq { index } => path.index(*index),
            serde_path_to_error::Segment::Map { key } => path.key(key),
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => path,
        });
        Problem {
            kind: ProblemKind::InvalidValue,
            place: nearest_node(document, &path).0.place,
            path,
            message: error.into_inner().to_string(),
            help: None,
        }
    })
}

/// A null in a mapping counts as absent.
fn drop_nulls(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(entries) => {
            let kept = std::mem::take(entries).into_iter().filter(|(_, value)| !value.is_null());
            *entries = kept.collect();
            entries.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Resources that occur more than once, with the places of all but the first: `(id, file index, place)`.
pub fn duplicates<'a>(files: impl IntoIterator<Item = &'a ManifestFile>) -> Vec<(ResourceId, usize, Place)> {
    let mut first = BTreeMap::new();
    let mut duplicates = Vec::new();
    for (at, file) in files.into_iter().enumerate() {
        for manifest in &file.manifests {
            if first.insert(manifest.id(), at).is_some() {
                duplicates.push((manifest.id(), at, manifest.place));
            }
        }
    }
    duplicates
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Longer than other resources may be named: a Node can have such a name.
    const NODE: &str = "node-0123456789-0123456789-0123456789-0123456789-0123456789.example.com";
    const HEAD: &str = "apiVersion: gyrfalcon.dev/v1alpha1\n";

    #[track_caller]
    fn problems(text: &str, want: Expect) {
        let lines: Vec<String> = read(text).problems.iter().map(|p| format!("[{}] {p}\n", p.kind)).collect();
        want.assert_eq(&lines.concat());
    }

    fn sink(spec: &str) -> String {
        format!("{HEAD}kind: AlertSink\nmetadata: {{name: x}}\nspec:\n{spec}")
    }

    #[test]
    fn resources_of_all_kinds_are_read() {
        let text = format!(
            "{HEAD}kind: FalcoRule\nmetadata: {{name: a, namespace: shop}}\nspec: {{rules: '- list: x'}}\n---\n\
             {HEAD}kind: ClusterFalcoRule\nmetadata: {{name: b}}\nspec: {{order: 3, rules: '- list: x'}}\n---\n\
             {HEAD}kind: AlertSink\nmetadata: {{name: c}}\nspec: {{stdout: {{}}}}\n---\n\
             {HEAD}kind: ClusterAlertSink\nmetadata: {{name: d}}\nspec: {{stdout: {{format: json}}}}\n---\n\
             {HEAD}kind: SensorConfig\nmetadata: {{name: default}}\nspec: {{quotas: {{perNamespaceRules: 10}}}}\n---\n\
             {HEAD}kind: SensorNode\nmetadata: {{name: {NODE}}}\nspec: {{}}\nstatus: {{state: Ready}}\n"
        );
        let file = read(&text);
        assert_eq!(file.problems, []);
        let ids: Vec<String> = file.manifests.iter().map(|manifest| manifest.id().to_string()).collect();
        assert_eq!(
            ids,
            [
                "FalcoRule/shop/a",
                "ClusterFalcoRule/b",
                "AlertSink/default/c",
                "ClusterAlertSink/d",
                "SensorConfig/default",
                &format!("SensorNode/{NODE}")
            ]
        );
    }

    #[test]
    fn unknown_fields_are_reported_where_they_stand() {
        problems(
            &sink("  webhok: {}\n  stdout: {colour: red}\n"),
            expect![[r#"
            [UnknownField] 5:3: spec: no field `webhok`; did you mean `webhook`?
            [UnknownField] 6:12: spec.stdout: no field `colour`; there are format
        "#]],
        );
    }

    #[test]
    fn values_are_checked_against_the_schema() {
        problems(
            &sink(
                "  file: {path: a/b}\n  queue: {memory: 0, overflow: Block}\n  retry: {maxAttempts: many}\n  suspend: yes\n",
            ),
            expect![[r#"
                [InvalidValue] 5:16: spec.file.path: `a/b` has the wrong form; Absolute path of the file
                [InvalidValue] 6:19: spec.queue.memory: 0 is out of range; from 1 to 1000000
                [InvalidValue] 6:32: spec.queue.overflow: no such choice: `Block`; one of DropOldest, DropNewest, DropLowestPriority
                [WrongType] 7:24: spec.retry.maxAttempts: this is a text; must be a whole number
                [WrongType] 8:12: spec.suspend: this is a text; must be true or false
            "#]],
        );
    }

    #[test]
    fn fields_that_contradict_each_other_are_reported() {
        problems(
            &sink("  stdout: {}\n  timeout: 5s\n"),
            expect![[r#"
            [Contradiction] 6:12: spec.timeout: timeout: only webhook and slack have one
        "#]],
        );
        problems(
            &sink("  suspend: true\n"),
            expect![[r#"
            [Contradiction] 5:3: spec: exactly one of stdout, file, webhook and slack
        "#]],
        );
    }

    #[test]
    fn fields_given_twice_are_reported() {
        problems(
            &sink("  stdout: {}\n  stdout: {}\n  match: {rules: [a, b, a]}\n"),
            expect![[r#"
                [DuplicateField] 6:3: spec: `stdout` is given twice
                [DuplicateField] 7:25: spec.match.rules[2]: `a` is given twice
            "#]],
        );
    }

    #[test]
    fn the_order_of_the_cluster_is_not_for_namespaces() {
        problems(
            &format!("{HEAD}kind: FalcoRule\nmetadata: {{name: x}}\nspec: {{rules: x, order: 1}}\n"),
            expect![[r#"
                [UnknownField] 4:18: spec: no field `order`; only a ClusterFalcoRule has it
            "#]],
        );
    }

    #[test]
    fn other_fields_of_the_cluster_are_not_either() {
        problems(
            &format!(
                "{HEAD}kind: FalcoRule\nmetadata: {{name: x}}\nspec:\n  configMapRef: {{name: x, namespace: y}}\n  \
                 nodeSelector: {{}}\n  nodeselector: {{}}\n  throttle: {{perKeys: 1, interval: 1s}}\n"
            ),
            expect![[r#"
                [UnknownField] 5:27: spec.configMapRef: no field `namespace`; only a ClusterFalcoRule has it
                [UnknownField] 6:3: spec: no field `nodeSelector`; only a ClusterFalcoRule has it
                [UnknownField] 7:3: spec: no field `nodeselector`; did you mean `podSelector`?
                [UnknownField] 8:14: spec.throttle: no field `perKeys`; did you mean `perKey`?
                [MissingField] 8:13: spec.throttle: `perKey` is missing; How many alerts of one rule with equal values of `key` are sent in one `interval`
            "#]],
        );
        problems(
            &sink("  stdout: {}\n  match: {namespaces: [x]}\n"),
            expect![[r#"
            [UnknownField] 6:11: spec.match: no field `namespaces`; only a ClusterAlertSink has it
        "#]],
        );
    }

    #[test]
    fn values_of_test_events_are_scalars_or_lists_of_them() {
        problems(
            &format!(
                "{HEAD}kind: FalcoRule\nmetadata: {{name: x}}\nspec:\n  rules: x\n  tests:\n  - name: t\n    events:\n    \
                 - {{evt.type: open, evt.is_open_read: true, fd.num: [3, 4]}}\n    - {{fd.num: [[3]]}}\n    \
                 expect: [{{rule: x, count: 1}}]\n"
            ),
            expect![[r#"
                [Contradiction] 10:16: spec.tests[0].events[1].fd.num: this must be a text, a whole number, true or false, or a list of those
            "#]],
        );
    }

    #[test]
    fn fractions_have_bounds() {
        problems(&sink("  stdout: {}\n  rateLimit: {perSecond: 0.5}\n"), expect![[""]]);
        problems(
            &sink("  stdout: {}\n  rateLimit: {perSecond: 0}\n"),
            expect![[r#"
            [InvalidValue] 6:26: spec.rateLimit.perSecond: 0 is out of range; from 0.001 to 10000
        "#]],
        );
        problems(
            &sink("  stdout: {}\n  rateLimit: {perSecond: fast}\n"),
            expect![[r#"
            [WrongType] 6:26: spec.rateLimit.perSecond: this is a text; must be a number
        "#]],
        );
    }

    #[test]
    fn kinds_and_versions_that_do_not_exist_are_reported() {
        problems(
            "apiVersion: gyrfalcon.dev/v1alpha1\nkind: FalcoRules\n---\napiVersion: gyrfalcon.dev/v1\nkind: FalcoRule\n---\nfoo: 1\n---\n[1]\n",
            expect![[r#"
                [UnknownKind] 1:1: no kind `FalcoRules` in gyrfalcon.dev; did you mean `FalcoRule`?
                [UnknownKind] 4:1: no version `v1` of gyrfalcon.dev; write `apiVersion: gyrfalcon.dev/v1alpha1`
                [NoResource] 7:1: this is no resource; a resource begins with `apiVersion: gyrfalcon.dev/v1alpha1` and `kind:`
                [NoResource] 9:1: this is no resource; a resource begins with `apiVersion: gyrfalcon.dev/v1alpha1` and `kind:`
            "#]],
        );
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        problems(
            &format!(
                "{HEAD}kind: AlertSink\nmetadata: {{name: My_Sink, namespace: a.b}}\nspec: {{stdout: {{}}}}\n---\n\
                      {HEAD}kind: AlertSink\nspec: {{stdout: {{}}}}\n"
            ),
            expect![[r#"
                [InvalidValue] 3:18: metadata.name: this cannot be a name; at most 63 of a-z, 0-9, `-` and `.`, not beginning or ending with a sign
                [InvalidValue] 3:38: metadata.namespace: this cannot be a namespace; at most 63 of a-z, 0-9 and `-`, not beginning or ending with a sign
                [MissingField] 6:1: `metadata` is missing; write `metadata: {name: …}`
            "#]],
        );
    }

    #[test]
    fn metadata_has_no_other_fields() {
        problems(
            &format!("{HEAD}kind: AlertSink\nmetadata: {{name: x, lables: {{a: b}}}}\nspec: {{stdout: {{}}}}\n"),
            expect![[r#"
                [UnknownField] 3:21: metadata: no field `lables`; did you mean `labels`?
            "#]],
        );
    }

    #[test]
    fn exceptions_hold_texts_numbers_and_lists() {
        problems(
            &format!(
                "{HEAD}kind: FalcoRule\nmetadata: {{name: x}}\nspec:\n  rule:\n    condition: a\n    output: b\n    \
                      priority: INFO\n    exceptions:\n    - name: e\n      fields: [proc.name]\n      values:\n      \
                      - [a]\n      - [[b, 1]]\n      - [{{}}]\n"
            ),
            expect![[r#"
                [Contradiction] 15:10: spec.rule.exceptions[0].values[2][0]: this must be a text, a whole number, or a list of them
            "#]],
        );
    }

    #[test]
    fn a_mistake_does_not_hide_other_documents() {
        let text = format!("{}---\n{}---\na: [\n", sink("  stdot: {}\n"), sink("  stdout: {}\n"));
        let file = read(&text);
        assert_eq!(file.manifests.len(), 1);
        assert_eq!(file.problems.len(), 2);
    }

    #[test]
    fn objects_of_other_groups_are_listed() {
        let file = read("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
        let place = Place { line: 1, column: 1 };
        assert_eq!(file.foreign, [Foreign { api_version: "v1".into(), kind: "Namespace".into(), place }]);
        assert_eq!(file.problems, []);
    }

    #[test]
    fn lists_of_kubectl_are_read() {
        let item = "apiVersion: gyrfalcon.dev/v1alpha1, kind: AlertSink, metadata: {name: x}, spec: {stdout: {}}";
        let file = read(&format!("apiVersion: v1\nkind: List\nitems: [{{{item}}}]\n"));
        assert_eq!((file.manifests.len(), file.problems.len()), (1, 0));
    }

    #[test]
    fn places_inside_of_texts_are_places_of_the_file() {
        let text = format!(
            "{HEAD}kind: ClusterFalcoRule\nmetadata: {{name: x}}\nspec:\n  rules: |\n    - list: a\n      items: []\n"
        );
        let file = read(&text);
        let rules = Path::default().key("spec").key("rules");
        assert_eq!(file.manifests[0].place_in_text(&rules, 2, 3), Place { line: 7, column: 7 });
        let rule = format!(
            "{HEAD}kind: FalcoRule\nmetadata: {{name: x}}\nspec:\n  rule:\n    condition: a = b\n    output: 'x'\n    priority: INFO\n"
        );
        let file = read(&rule);
        let rule = Path::default().key("spec").key("rule");
        assert_eq!(file.manifests[0].place_in_text(&rule.key("condition"), 1, 5), Place { line: 6, column: 20 });
        assert_eq!(file.manifests[0].place_in_text(&rule.key("output"), 1, 1), Place { line: 7, column: 14 });
        assert_eq!(file.manifests[0].place_in_text(&rule.key("desc"), 1, 1), Place { line: 6, column: 5 });
    }

    #[test]
    fn a_rendered_problem_marks_the_place() {
        let text = sink("  stdot: {}\n");
        expect![[r#"
            error[UnknownField]: spec: no field `stdot`
              sinks.yaml:5:3   stdot: {}
                               ^ did you mean `stdout`?
        "#]]
        .assert_eq(&read(&text).problems[0].render("sinks.yaml", &text));
    }
}
