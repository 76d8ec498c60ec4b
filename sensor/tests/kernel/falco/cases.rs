//! The conformance data as cases: which steps a process takes, what must be there for them, and what must be told.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// One activity that must set off a rule.
pub struct Case {
    /// Where it stands in the data.
    pub id: String,
    /// What the last process does.
    pub steps: Vec<Value>,
    /// Files that must exist meanwhile.
    files: Vec<PathBuf>,
    /// Files that the steps make.
    made: Vec<PathBuf>,
    /// Whether it happens in a container, where a process is all there is.
    pub in_container: bool,
    /// Output fields of the alert.
    pub expected: BTreeMap<String, String>,
    /// Other keys of the alert.
    pub said: BTreeMap<String, String>,
}

/// What a case put on this host, removed when dropped.
pub struct Resources(Vec<PathBuf>);

impl Drop for Resources {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _ = if path.is_dir() && !path.is_symlink() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

/// Whether a path is made for such cases only, so that it may be created and removed.
fn is_ours(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("eg_"))
}

impl Case {
    /// Creates the files that must be there.
    pub fn prepare(&self) -> Resources {
        let mut resources = Resources(Vec::new());
        for file in &self.files {
            let folders = file.ancestors().skip(1).filter(|folder| !folder.exists());
            let mut folders: Vec<PathBuf> = folders.map(Path::to_owned).collect();
            folders.reverse();
            for folder in folders {
                fs::create_dir(&folder).expect("a folder for a case");
                resources.0.push(folder);
            }
            if !file.exists() {
                fs::write(file, "").expect("a file for a case");
                resources.0.push(file.clone());
            }
        }
        for file in self.made.iter().filter(|file| is_ours(file)) {
            let _ = fs::remove_file(file);
            resources.0.push(file.clone());
        }
        resources
    }

    /// The first process of the container: the one command of the steps. No shell starts it, for busybox's runs what
    /// busybox can do without an exec of that name.
    pub fn container_command(&self) -> Vec<String> {
        let [step] = &self.steps[..] else { panic!("{}: a container case is a single command", self.id) };
        step["argv"].as_array().expect("a command").iter().map(text).collect()
    }
}

/// The cases of a rule, and why others of it cannot be played here.
pub fn of_rule(file: &Path, rule: &str) -> (Vec<Case>, Vec<String>) {
    let text = fs::read_to_string(file).expect("a need of the case");
    let data: Value = serde_json::from_str(&text).expect("JSON");
    let list =
        |key: &str| data[key].as_array().cloned().unwrap_or_default().into_iter().filter(|one| one["rule"] == rule);
    let mut cases: Vec<Case> = list("actions").map(|action| of_action(&action)).collect();
    for test in list("e2e_suite") {
        cases.extend(instances(&test["parameters"]).iter().enumerate().filter_map(|(n, item)| of_test(&test, n, item)));
    }
    let mut left_out = Vec::new();
    cases.retain(|case| {
        let missing = case.files.iter().find(|file| !file.exists() && !is_ours(file));
        left_out.extend(missing.map(|file| format!("{}: this host has no {}", case.id, file.display())));
        missing.is_none()
    });
    (cases, left_out)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of_action(action: &Value) -> Case {
    let needs = action["needs"].as_array().cloned().unwrap_or_default();
    Case {
        id: text(&action["action"]),
        steps: action["steps"].as_array().cloned().unwrap_or_default(),
        files: Vec::new(),
        made: Vec::new(),
        in_container: needs.iter().any(|need| need == "container"),
        expected: BTreeMap::new(),
        said: BTreeMap::new(),
    }
}

/// One instance of a test; `None` when it is for another architecture.
fn of_test(test: &Value, number: usize, item: &BTreeMap<String, Value>) -> Option<Case> {
    let template = substitute(&test["template"], item);
    let arch = &template["runIf"]["arch"];
    let is_here = arch["val"] == if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    match arch["op"].as_str() {
        Some("ne") if is_here => return None,
        Some("eq") if !is_here => return None,
        _ => {}
    }
    let paths = |value: &Value, key: &str| value[key].as_str().map(PathBuf::from);
    let each = |key: &str| template[key].as_array().cloned().unwrap_or_default();
    let mut steps: Vec<Value> = each("steps").iter().map(as_step).collect();
    let in_container = template["context"]["container"].is_object();
    for process in template["context"]["processes"].as_array().into_iter().flatten() {
        let words = [text(&process["name"]), text(&process["args"])].join(" ");
        steps.push(json!({ "op": "spawn", "argv": words.split_whitespace().collect::<Vec<_>>() }));
    }
    let made = steps.iter().flat_map(|step| [paths(step, "newPath"), paths(step, "linkPath")]).flatten().collect();
    let resources = each("resources").into_iter().filter(|one| one["subtype"] == "file");
    let outcome = &template["expectedOutcome"];
    let entries = outcome["outputFields"].as_object().into_iter().flatten();
    let said =
        ["priority", "source"].into_iter().filter_map(|key| Some((key.to_owned(), outcome[key].as_str()?.to_owned())));
    Some(Case {
        id: format!("{}#{number}", text(&test["name"])),
        made,
        files: resources.filter_map(|one| paths(&one, "filePath")).collect(),
        in_container,
        expected: entries.map(|(field, value)| (field.clone(), text(value))).collect(),
        said: said.collect(),
        steps,
    })
}

/// A step of a test in the form of an action's.
fn as_step(step: &Value) -> Value {
    let mut flat = json!({ "op": step["syscall"] });
    let arguments = step["args"].as_object().into_iter().flatten().flat_map(|(key, value)| match value.as_object() {
        Some(nested) if key == "how" => nested.clone().into_iter().collect::<Vec<_>>(),
        _ => vec![(if key == "pathname" { "path".to_owned() } else { key.clone() }, value.clone())],
    });
    if let Some(fields) = flat.as_object_mut() {
        fields.extend(arguments);
    }
    flat
}

/// Replaces `%{ item.NAME }` by its value.
fn substitute(value: &Value, item: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), substitute(value, item))).collect(),
        Value::Array(values) => values.iter().map(|value| substitute(value, item)).collect(),
        Value::String(text) => {
            let whole = text.strip_prefix("%{ item.").and_then(|rest| rest.strip_suffix(" }"));
            whole.and_then(|name| item.get(name)).cloned().unwrap_or_else(|| value.clone())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Every combination of a matrix's values, and every vector, as items.
fn instances(parameters: &Value) -> Vec<BTreeMap<String, Value>> {
    let mut items = Vec::new();
    for set in parameters.as_array().into_iter().flatten() {
        let values = set["values"].as_object().cloned().unwrap_or_default();
        let mut product = vec![BTreeMap::new()];
        for (name, choices) in values {
            let choices = match (&set["strategy"], choices) {
                (strategy, Value::Array(choices)) if strategy == "matrix" => choices,
                (_, single) => vec![single],
            };
            let extend = |item: BTreeMap<String, Value>| {
                let name = name.clone();
                choices.clone().into_iter().map(move |choice| {
                    let mut item = item.clone();
                    item.insert(name.clone(), choice);
                    item
                })
            };
            product = product.into_iter().flat_map(extend).collect();
        }
        items.extend(product);
    }
    if items.is_empty() { vec![BTreeMap::new()] } else { items }
}
