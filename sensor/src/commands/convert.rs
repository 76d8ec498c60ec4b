//! `gyrfalcon convert`: between Falco's rules files and rule resources, both ways.
//!
//! The text of a rules file is carried as it is, comments and all, so that the way back gives the same bytes. What a
//! resource has beyond a rules file cannot be written into one; it is named on standard error.

use std::{fmt::Write, fs, path::Path};

use api::{
    Kind, ResourceId, Spec,
    falco::rules_texts,
    resource::load_key,
    rule::{FalcoRuleSpec, Mode},
};

use crate::{
    cli,
    exit::Exit,
    input::{self, Content, File},
    out,
};

/// Most characters of rules that a resource may have.
const MAX_RULES: usize = 524_288;

/// Longest name of a resource.
const MAX_NAME: usize = 253;

/// Converts.
pub fn convert(args: &cli::Convert) -> Exit {
    let (files, errors) = input::read(&args.paths);
    for error in &errors {
        eprintln!("error: {}", link::chain(error));
    }
    if !errors.is_empty() {
        return Exit::Input;
    }
    let plain = files.iter().filter(|file| matches!(file.content, Content::Rules(_))).count();
    let converted = match (plain, files.len() - plain) {
        (0, _) => to_rules(&files),
        (_, 0) => to_resources(args, &files),
        _ => Err("there are rules files and manifests: convert them one after the other".to_owned()),
    };
    let (text, notes) = match converted {
        Ok(converted) => converted,
        Err(message) => {
            eprintln!("error: {message}");
            return Exit::Input;
        }
    };
    notes.iter().for_each(|note| eprintln!("warning: {note}"));
    match &args.output {
        None => out::print(&text),
        Some(path) => match fs::write(path, text) {
            Ok(()) => Exit::Fine,
            Err(error) => {
                eprintln!("error: cannot write {}: {error}", path.display());
                Exit::System
            }
        },
    }
}

/// The text, and what there is to say about it.
type Converted = Result<(String, Vec<String>), String>;

fn to_resources(args: &cli::Convert, files: &[File]) -> Converted {
    if args.name.is_some() && files.len() > 1 {
        return Err(format!("--name is for one rules file, there are {}", files.len()));
    }
    let mut text = String::new();
    let mut names: Vec<String> = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let Content::Rules(bytes) = &file.content else { continue };
        let path = file.path.display();
        let rules = std::str::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))?;
        let rules = rules.strip_prefix('\u{feff}').unwrap_or(rules);
        let name = args.name.clone().unwrap_or_else(|| resource_name(&file.path));
        if names.contains(&name) {
            return Err(format!("{path}: another file gives a resource named `{name}`, too; convert it with --name"));
        }
        // Files are loaded in their order: so are resources with an order.
        let order = (files.len() > 1).then_some(number);
        let manifest =
            manifest(&name, args.namespace.as_deref(), order, rules).map_err(|error| format!("{path}: {error}"))?;
        let _ = write!(text, "{}{manifest}", if text.is_empty() { "" } else { "---\n" });
        names.push(name);
    }
    Ok((text, Vec::new()))
}

/// A resource name made of a file's name: lower-case letters, digits and hyphens.
fn resource_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut name = String::new();
    for char in stem.chars() {
        match char {
            'a'..='z' | '0'..='9' => name.push(char),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(MAX_NAME);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "rules".to_owned() } else { name.to_owned() }
}

/// One resource with a rules file in it.
fn manifest(name: &str, namespace: Option<&str>, order: Option<usize>, rules: &str) -> Result<String, String> {
    let length = rules.chars().count();
    if length > MAX_RULES {
        return Err(format!(
            "{length} characters; a resource has at most {MAX_RULES}: split the file, or put it into a ConfigMap and name it in spec.configMapRef"
        ));
    }
    if rules.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let kind = if namespace.is_some() { "FalcoRule" } else { "ClusterFalcoRule" };
    let mut text = format!("apiVersion: gyrfalcon.dev/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\n");
    if let Some(namespace) = namespace {
        let _ = writeln!(text, "  namespace: {namespace}");
    }
    text.push_str("spec:\n");
    if let Some(order) = order.filter(|_| namespace.is_none()) {
        let _ = writeln!(text, "  order: {order}");
    }
    text.push_str("  rules: ");
    text.push_str(&scalar(rules));
    Ok(text)
}

/// A text as a YAML block where that gives it back byte by byte, else between quotes.
fn scalar(text: &str) -> String {
    let plain = |char: char| matches!(char, '\n' | '\t' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..);
    let body = text.strip_suffix('\n').unwrap_or(text);
    // A block of blank lines only, and one that ends in a line of blanks, are read in more than one way.
    let clear = text.lines().last().is_some_and(|line| !line.trim().is_empty());
    if !text.chars().all(plain) || !clear {
        // JSON's quotes are YAML's.
        return format!("{}\n", serde_json::Value::from(text));
    }
    let chomp = if text.ends_with('\n') { "" } else { "-" };
    let mut out = format!("|2{chomp}\n");
    for line in body.split('\n') {
        if !line.is_empty() {
            out.push_str("    ");
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn to_rules(files: &[File]) -> Converted {
    let mut resources = Vec::new();
    let mut problems = String::new();
    for file in files {
        let Content::Manifests { file: content, text } = &file.content else { continue };
        let name = file.path.display().to_string();
        content.problems.iter().for_each(|problem| problems.push_str(&problem.render(&name, text)));
        for manifest in &content.manifests {
            if let Spec::Rules(spec) = manifest.resource.spec() {
                resources.push((manifest.id(), spec));
            }
        }
    }
    if !problems.is_empty() {
        return Err(format!("the manifests have mistakes\n{problems}"));
    }
    if resources.is_empty() {
        return Err("there is no FalcoRule or ClusterFalcoRule in these manifests".to_owned());
    }
    resources.sort_by_cached_key(|(id, spec)| load_key(id, spec));
    let mut text = String::new();
    let mut notes = Vec::new();
    for (id, spec) in &resources {
        notes.extend(beyond(id, spec).into_iter().map(|field| format!("{id}: {field}")));
        let before = text.len();
        for part in rules_texts(id, spec) {
            text.push_str(&part.text);
            if !text.ends_with('\n') && resources.len() > 1 {
                text.push('\n');
            }
        }
        if resources.len() > 1 && text.len() > before {
            text.insert_str(before, &format!("# From {id}.\n"));
        }
    }
    Ok((text, notes))
}

/// What of a resource a rules file cannot say.
fn beyond(id: &ResourceId, spec: &FalcoRuleSpec) -> Vec<String> {
    let lost = |field: &str, why: &str| format!("{field} is not in the rules file: {why}");
    let mut notes = Vec::new();
    if id.kind == Kind::FalcoRule {
        notes.push(lost("its namespace", "the rules see everything there"));
    }
    if spec.config_map_ref.is_some() {
        notes.push(lost("spec.configMapRef", "its text is in the cluster"));
    }
    if spec.mode() != Mode::Alert {
        notes.push(lost("spec.mode", "the rules alert there"));
    }
    let fields = [
        ("spec.suspend", spec.suspended()),
        ("spec.minimumPriority", spec.minimum_priority.is_some()),
        ("spec.tagsInclude", !spec.tags_include.is_empty()),
        ("spec.tagsExclude", !spec.tags_exclude.is_empty()),
        ("spec.nodeSelector", spec.node_selector.is_some()),
        ("spec.namespaceSelector", spec.namespace_selector.is_some()),
        ("spec.podSelector", spec.pod_selector.is_some()),
        ("spec.containerSelector", spec.container_selector.is_some()),
        ("spec.includeHost", spec.include_host.is_some()),
        ("spec.throttle", spec.throttle.is_some()),
        ("spec.events", spec.events.is_some()),
        ("spec.tests", !spec.tests.is_empty()),
    ];
    let there = fields.into_iter().filter(|(_, there)| *there);
    notes.extend(there.map(|(field, _)| lost(field, "Falco has no such thing")));
    notes
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use api::manifest;
    use proptest::prelude::*;

    use super::*;

    /// There and back.
    fn back(rules: &str) -> String {
        let text = manifest("x", None, None, rules).expect("not too long");
        let file =
            File { path: PathBuf::from("x.yaml"), content: Content::Manifests { file: manifest::read(&text), text } };
        to_rules(&[file]).expect("a sound manifest").0
    }

    #[test]
    fn names_of_files_become_names_of_resources() {
        assert_eq!(resource_name(Path::new("/a/falco_rules.local.yaml")), "falco-rules-local");
        assert_eq!(resource_name(Path::new("__.yml")), "rules");
    }

    #[test]
    fn official_rulesets_come_back_byte_by_byte() {
        let Some(folder) = std::env::var_os("GYRFALCON_FALCO_RULES") else { return };
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let text = fs::read_to_string(entry.path()).expect("a rules file");
            assert!(back(&text) == text, "{}", entry.path().display());
        }
    }

    #[test]
    fn texts_that_are_hard_to_quote_come_back() {
        for text in [
            "- a",
            "- a\n",
            "\n\n- a\n",
            "  - a\n- b\n",
            "- a  \n\n\n",
            "\t- a\n",
            "- a\r\n- b\r\n",
            "# é 漢 \u{1f600}\n",
            " \n",
            "- 'x'\n   ",
            "...\n",
            "---\n- a\n---\n- b\n",
        ] {
            assert_eq!(back(text), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "[a-z:#'\"|>&* \\n\\t\\r%@-]{1,40}") {
            prop_assert_eq!(back(&text), text);
        }
    }
}
