//! Checks a tree against the schema that the API server would check it against.
//!
//! So a manifest on disk is accepted exactly when a cluster would accept it, and a mistake is found where it stands.
//! CEL expressions are left to [`crate::check`].

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::Number;

use crate::{
    problem::{Path, Problem, ProblemKind},
    yaml::{Key, Node, NodeKind, Place},
};

/// Adds every way in which the node doesn't fit.
pub(crate) fn check(schema: &JSONSchemaProps, node: &Node, path: &Path, problems: &mut Vec<Problem>) {
    if schema.x_kubernetes_int_or_string == Some(true) {
        match &node.kind {
            NodeKind::Number(number) if number.is_i64() => {}
            NodeKind::Text(text, _) => check_text(schema, text, node.place, path, problems),
            _ => problems.push(wrong_type("a text or a whole number", node, path)),
        }
        return;
    }
    match (schema.type_.as_deref(), &node.kind) {
        (Some("object"), NodeKind::Mapping(entries)) => check_mapping(schema, entries, node.place, path, problems),
        (Some("array"), NodeKind::Sequence(nodes)) => check_sequence(schema, nodes, node.place, path, problems),
        (Some("string"), NodeKind::Text(text, _)) => check_text(schema, text, node.place, path, problems),
        (Some("boolean"), NodeKind::Bool(_)) => {}
        (Some("integer"), NodeKind::Number(number)) if number.is_i64() => {
            range(schema, number, node.place, path, problems);
        }
        (Some("number"), NodeKind::Number(number)) => {
            range(schema, number, node.place, path, problems);
        }
        (Some("object"), _) => problems.push(wrong_type("a mapping", node, path)),
        (Some("array"), _) => problems.push(wrong_type("a list", node, path)),
        (Some("string"), _) => problems.push(wrong_type("a text", node, path)),
        (Some("boolean"), _) => problems.push(wrong_type("true or false", node, path)),
        (Some("integer"), _) => problems.push(wrong_type("a whole number", node, path)),
        (Some("number"), _) => problems.push(wrong_type("a number", node, path)),
        // Anything goes; reading the value decides.
        (Some(_) | None, _) => {}
    }
}

fn range(schema: &JSONSchemaProps, number: &Number, place: Place, path: &Path, problems: &mut Vec<Problem>) {
    let value = number.as_f64().unwrap_or_default();
    let (min, max) = (schema.minimum.unwrap_or(f64::MIN), schema.maximum.unwrap_or(f64::MAX));
    if value < min || value > max {
        let help = Some(format!("from {min} to {max}"));
        problems.push(invalid(format!("{number} is out of range"), place, path, help));
    }
}

fn check_mapping(
    schema: &JSONSchemaProps,
    entries: &[(Key, Node)],
    place: Place,
    path: &Path,
    problems: &mut Vec<Problem>,
) {
    let mut seen = HashSet::new();
    for (key, node) in entries {
        if !seen.insert(&key.name) {
            let (kind, message) = (ProblemKind::DuplicateField, format!("`{}` is given twice", key.name));
            problems.push(Problem { kind, place: key.place, path: path.clone(), message, help: None });
        }
        let property = schema.properties.as_ref().and_then(|properties| properties.get(&key.name));
        let value = match (property, &schema.additional_properties) {
            (Some(property), _) => Some(property),
            (None, Some(JSONSchemaPropsOrBool::Schema(values))) => Some(&**values),
            (None, Some(JSONSchemaPropsOrBool::Bool(_)) | None) => None,
        };
        match value {
            // A null counts as absent, as it does in a cluster.
            Some(_) if matches!(node.kind, NodeKind::Null) => {}
            Some(value) => check(value, node, &path.key(&key.name), problems),
            None if schema.properties.is_none() => {}
            None => problems.push(unknown_field(schema, key, path)),
        }
    }
    let given = |key: &Key, node: &Node, name: &str| key.name == name && !matches!(node.kind, NodeKind::Null);
    let present = |name: &str| entries.iter().any(|(key, node)| given(key, node, name));
    for name in schema.required.iter().flatten().filter(|name| !present(name)) {
        let (kind, message) = (ProblemKind::MissingField, format!("`{name}` is missing"));
        let help = property(schema, name).and_then(|property| property.description.as_deref()).map(first_sentence);
        problems.push(Problem { kind, place, path: path.clone(), message, help });
    }
    bounds(entries.len(), "entries", schema.min_properties, schema.max_properties, place, path, problems);
}

fn check_sequence(schema: &JSONSchemaProps, nodes: &[Node], place: Place, path: &Path, problems: &mut Vec<Problem>) {
    bounds(nodes.len(), "entries", schema.min_items, schema.max_items, place, path, problems);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        for (at, node) in nodes.iter().enumerate() {
            check(items, node, &path.index(at), problems);
        }
    }
    let keys: Vec<&str> = schema.x_kubernetes_list_map_keys.iter().flatten().map(String::as_str).collect();
    let identity = |node: &Node| match schema.x_kubernetes_list_type.as_deref() {
        Some("map") => keys.iter().map(|key| node.get(key).and_then(Node::text).map(str::to_owned)).collect(),
        Some("set") => node.text().map(|text| Some(text.to_owned())).into_iter().collect(),
        Some(_) | None => Vec::new(),
    };
    let mut seen = HashSet::new();
    for (at, node) in nodes.iter().enumerate() {
        let identity: Vec<Option<String>> = identity(node);
        let name = identity.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        if !identity.is_empty() && !seen.insert(identity) {
            let (kind, message) = (ProblemKind::DuplicateField, format!("`{name}` is given twice"));
            problems.push(Problem { kind, place: node.place, path: path.index(at), message, help: None });
        }
    }
}

fn check_text(schema: &JSONSchemaProps, text: &str, place: Place, path: &Path, problems: &mut Vec<Problem>) {
    bounds(text.chars().count(), "characters", schema.min_length, schema.max_length, place, path, problems);
    if let Some(choices) = &schema.enum_ {
        let choices: Vec<&str> = choices.iter().filter_map(|choice| choice.0.as_str()).collect();
        if !choices.contains(&text) {
            let help = Some(match nearest(text, choices.iter().copied()) {
                Some(choice) => format!("did you mean `{choice}`?"),
                None => format!("one of {}", choices.join(", ")),
            });
            problems.push(invalid(format!("no such choice: `{}`", brief(text)), place, path, help));
        }
    }
    // A pattern that doesn't compile would be refused by the API server; a test sees to it that all do.
    let pattern = schema.pattern.as_deref().and_then(|pattern| Regex::new(pattern).ok());
    if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
        let help = schema.description.as_deref().map(first_sentence);
        problems.push(invalid(format!("`{}` has the wrong form", brief(text)), place, path, help));
    }
}

fn bounds(
    size: usize,
    what: &str,
    min: Option<i64>,
    max: Option<i64>,
    place: Place,
    path: &Path,
    problems: &mut Vec<Problem>,
) {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    if let Some(max) = max.filter(|max| size > *max) {
        problems.push(invalid(format!("{size} {what}"), place, path, Some(format!("at most {max}"))));
    }
    if let Some(min) = min.filter(|min| size < *min) {
        problems.push(invalid(format!("{size} {what}"), place, path, Some(format!("at least {min}"))));
    }
}

fn property<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    schema.properties.as_ref()?.get(name)
}

fn unknown_field(schema: &JSONSchemaProps, key: &Key, path: &Path) -> Problem {
    let known = || schema.properties.iter().flat_map(|properties| properties.keys()).map(String::as_str);
    let help = match nearest(&key.name, known()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
    };
    Problem {
        kind: ProblemKind::UnknownField,
        place: key.place,
        path: path.clone(),
        message: format!("no field `{}`", brief(&key.name)),
        help: Some(help),
    }
}

fn wrong_type(want: &str, node: &Node, path: &Path) -> Problem {
    let is = match &node.kind {
        NodeKind::Null => "nothing",
        NodeKind::Bool(_) => "true or false",
        NodeKind::Number(_) => "a number",
        NodeKind::Text(..) => "a text",
        NodeKind::Sequence(_) => "a list",
        NodeKind::Mapping(_) => "a mapping",
    };
    Problem {
        kind: ProblemKind::WrongType,
        place: node.place,
        path: path.clone(),
        message: format!("this is {is}"),
        help: Some(format!("must be {want}")),
    }
}

fn invalid(message: String, place: Place, path: &Path, help: Option<String>) -> Problem {
    Problem { kind: ProblemKind::InvalidValue, place, path: path.clone(), message, help }
}

/// The word that was probably meant.
pub(crate) fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = brief(text).to_lowercase();
    let near = |word: &str| strsim::damerau_levenshtein(&text, &word.to_lowercase());
    words.map(|word| (near(word), word)).min().filter(|(far, word)| *far <= 1 + word.len() / 4).map(|(_, word)| word)
}

fn first_sentence(text: &str) -> String {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.').into()
}

/// Enough of a text to recognise it by.
fn brief(text: &str) -> String {
    text.chars().take(64).collect()
}
