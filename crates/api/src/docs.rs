//! `docs/crds.md`: the reference of all kinds, from the same schemas that clusters enforce.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use crate::{
    condition::{ConditionType, Reason},
    crd::{GENERATED_BY, crds, schema},
};

/// Text of the page.
pub(crate) fn crds_md() -> String {
    let mut page = format!("<!-- {GENERATED_BY} -->\n# Custom resources\n\n{INTRODUCTION}\n");
    for crd in crds() {
        page += &kind(&crd);
    }
    page += "\n## Conditions\n\n| Type | Means |\n|---|---|\n";
    for type_ in ConditionType::ALL {
        line(&mut page, &format!("| `{type_}` | {} |", type_.doc()));
    }
    page += "\n| Reason | Means |\n|---|---|\n";
    for reason in Reason::ALL {
        line(&mut page, &format!("| `{reason}` | {} |", reason.doc()));
    }
    page
}

const INTRODUCTION: &str = "\
Group `gyrfalcon.dev`, version `v1alpha1`. A sensor without a cluster reads the same manifests from files and checks
them in the same way. No field of a spec has a default that a cluster would write into it; what happens without a field
stands in its description. Fields of `status` are written by the operator.
";

fn kind(crd: &CustomResourceDefinition) -> String {
    let names = &crd.spec.names;
    let mut text = format!("\n## {}\n\n", names.kind);
    let Some(root) = schema(crd) else { return text };
    if let Some(description) = &root.description {
        line(&mut text, description);
    }
    let short = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    line(&mut text, &format!("\n{}; short names {short}.", crd.spec.scope));
    for rule in root.x_kubernetes_validations.iter().flatten() {
        line(&mut text, &format!("\n* {}", rule.message.as_deref().unwrap_or(&rule.rule)));
    }
    text += "\n| Field | Type | Description |\n|---|---|---|\n";
    for part in ["spec", "status"] {
        if let Some(schema) = root.properties.as_ref().and_then(|properties| properties.get(part)) {
            fields(&mut text, part, false, schema);
        }
    }
    text
}

/// One row for the field at `path`, then one for each field inside of it.
fn fields(text: &mut String, path: &str, required: bool, schema: &JSONSchemaProps) {
    let mark = if required { " (required)" } else { "" };
    let mut description = schema.description.clone().unwrap_or_default();
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        let _ = write!(description, " *{}.*", rule.message.as_deref().unwrap_or(&rule.rule));
    }
    let row = format!("| `{path}`{mark} | {} | {} |", type_of(schema), description.trim().replace('|', "\\|"));
    line(text, &row);
    children(text, path, schema);
}

fn children(text: &mut String, path: &str, schema: &JSONSchemaProps) {
    let required = |name: &String| schema.required.iter().flatten().any(|required| required == name);
    for (name, property) in schema.properties.iter().flatten() {
        fields(text, &format!("{path}.{name}"), required(name), property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        children(text, &format!("{path}[]"), items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        children(text, &format!("{path}.*"), values);
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    if let Some(choices) = &schema.enum_ {
        return choices
            .iter()
            .map(|choice| format!("`{}`", choice.0.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        return "text or number".into();
    }
    match schema.type_.as_deref() {
        Some("array") => {
            let items = match &schema.items {
                Some(JSONSchemaPropsOrArray::Schema(items)) => type_of(items),
                Some(JSONSchemaPropsOrArray::Schemas(_)) | None => "anything".into(),
            };
            format!("list{} of {items}", limit("", schema.max_items))
        }
        Some("object") => match &schema.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(values)) => {
                format!("map{} of {}", limit("", schema.max_properties), type_of(values))
            }
            Some(JSONSchemaPropsOrBool::Bool(_)) | None => "object".into(),
        },
        Some("string") if schema.format.as_deref() == Some("date-time") => "time".into(),
        Some("string") => format!("text{}", limit(" characters", schema.max_length)),
        Some("boolean") => "true or false".into(),
        Some("integer") => match (schema.minimum, schema.maximum) {
            (Some(min), Some(max)) => format!("number, {min} to {max}"),
            (Some(min), None) => format!("number, from {min}"),
            (None, _) => "number".into(),
        },
        Some("number") => match (schema.minimum, schema.maximum) {
            (Some(min), Some(max)) => format!("number or fraction, {min} to {max}"),
            (_, _) => "number or fraction".into(),
        },
        Some(_) | None => "anything".into(),
    }
}

fn limit(unit: &str, max: Option<i64>) -> String {
    max.map(|max| format!(" (at most {max}{unit})")).unwrap_or_default()
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
