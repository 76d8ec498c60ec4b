//! The conformance data as cases: which steps a process takes, what must be there for them, and what must be told.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::steps;

/// One activity that must set off a rule.
pub struct Case {
    /// Where it stands in the data.
    pub id: String,
    /// The rule.
    pub rule: String,
    /// Whether the rule is off by default.
    pub disabled: bool,
    /// The processes, each the parent of the next; the last takes the steps.
    pub chain: Vec<Value>,
    /// What the last process does.
    pub steps: Vec<Value>,
    /// What it has at hand.
    pub resources: Vec<Value>,
    /// What comes first.
    pub before: Option<String>,
    /// Whether it happens in a container, and whether that is privileged.
    pub container: Option<bool>,
    /// Most alerts of the rule: one for each step that can set it off.
    pub most: usize,
    /// Other rules that the same activity sets off, for it is what they are about as well.
    pub also: Vec<&'static str>,
    /// Output fields of the alert.
    pub expected: BTreeMap<String, String>,
    /// Other keys of the alert.
    pub said: BTreeMap<String, String>,
    /// Files that must exist meanwhile.
    files: Vec<PathBuf>,
    /// Files that the steps make.
    made: Vec<PathBuf>,
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
    /// Whether most of its time is spent asleep.
    pub fn sleeps(&self) -> bool {
        self.before.as_deref().is_some_and(|before| before.starts_with("sleep"))
            || self.steps.iter().any(|step| step["op"] == "sleep")
    }

    /// Whether a runtime must say that its container is privileged.
    pub fn is_about_privileges(&self) -> bool {
        self.container == Some(true) && self.rule.contains("Privileged Container")
    }

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
}

/// The cases of a file, and why others of it cannot be played here.
pub fn read(file: &Path) -> (Vec<Case>, Vec<String>) {
    let text = fs::read_to_string(file).expect("a need of the case");
    let data: Value = serde_json::from_str(&text).expect("JSON");
    let list = |key: &str| data[key].as_array().cloned().unwrap_or_default();
    let mut cases: Vec<Case> = list("actions").iter().map(of_action).collect();
    for test in list("e2e_suite") {
        let items = instances(&test["parameters"]);
        cases.extend(items.iter().enumerate().filter_map(|(n, item)| of_test(&test, n, item)));
    }
    let mut left_out = Vec::new();
    cases.retain(|case| {
        let reason = case.obstacle();
        left_out.extend(reason.as_ref().map(|reason| format!("{}: {reason}", case.id)));
        reason.is_none()
    });
    (cases, left_out)
}

/// Rules that say the same of an activity as another.
const SAME: &[(&str, &[&str])] = &[
    ("Contact EC2 Instance Metadata Service From Container", &["Contact cloud metadata service from container"]),
    ("Adding ssh keys to authorized_keys", &["Write below monitored dir", "Write below root"]),
    ("Read ssh information", &["Write below monitored dir", "Write below root"]),
    ("Read sensitive file trusted after startup", &["Read sensitive file untrusted"]),
    ("Directory traversal monitored file read", &["Read sensitive file untrusted", "Read ssh information"]),
    ("DB program spawned process", &["Run shell untrusted"]),
    (
        "Run shell untrusted",
        &["DB program spawned process", "Web Server Spawned Shell", "Web Server Spawned Suspicious Child Process"],
    ),
    ("Modify binary dirs", &["Write below binary dir"]),
    ("Write below monitored dir", &["Write below binary dir"]),
    ("Unprivileged Delegation of Page Faults Handling to a Userspace Process", &["Non sudo setuid"]),
    ("System procs network activity", &["Unexpected UDP Traffic"]),
    ("System user interactive", &["User mgmt binaries"]),
    ("Unexpected UDP Traffic", &["Launch Suspicious Network Tool on Host"]),
    ("Detect release_agent File Container Escapes", &["Write below root"]),
    ("Clear Log Activities", &["Write below monitored dir"]),
    ("Create Hardlink Over Sensitive Files", &["Write below root"]),
    ("Netcat Remote Code Execution in Container", &["Launch Suspicious Network Tool in Container"]),
    ("Launch Suspicious Network Tool in Container", &["Netcat Remote Code Execution in Container"]),
];

impl Case {
    /// Why it cannot be played here, if so.
    fn obstacle(&self) -> Option<String> {
        let missing = self.files.iter().find(|file| !file.exists() && !is_ours(file));
        if let Some(file) = missing {
            return Some(format!("this host has no {}", file.display()));
        }
        if let Some(step) = self.steps.iter().find(|step| !steps::is_known(step)) {
            return Some(format!("nobody knows how to {}", step["op"]));
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |value: &Value| value["user"].as_str().map(str::to_owned);
        let wanted = self.chain.iter().chain(&self.steps).filter_map(user);
        for name in wanted {
            if !users.lines().any(|line| line.starts_with(&format!("{name}:"))) {
                return Some(format!("this host has no user {name}"));
            }
        }
        let absolute =
            self.steps.iter().filter_map(|step| step["argv"][0].as_str()).find(|program| program.starts_with('/'));
        absolute
            .filter(|program| {
                !program.contains(&placeholder()) && !program.starts_with("/proc/") && !Path::new(program).exists()
            })
            .map(|program| format!("this host has no {program}"))
    }
}

/// What the data has in names where each run puts a word of its own: four times the letter, as in mktemp(1).
pub fn placeholder() -> String {
    "X".repeat(4)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of_action(action: &Value) -> Case {
    let needs = action["needs"].as_array().cloned().unwrap_or_default();
    let needs: Vec<String> = needs.iter().map(text).collect();
    let mut steps = action["steps"].as_array().cloned().unwrap_or_default();
    let mut chain = vec![json!({ "name": "event-generator" })];
    while steps.first().is_some_and(|step| step["op"] == "fork_as") {
        chain.push(json!({ "name": steps.remove(0)["comm"] }));
    }
    let is_privileged =
        |need: &String| need == "privileged" || need.contains("CAP_SYS_ADMIN") && !need.starts_with("no ");
    let rule = text(&action["rule"]);
    Case {
        id: text(&action["action"]),
        disabled: action["rule_enabled"] == false,
        container: needs.iter().any(|need| need == "container").then(|| needs.iter().any(is_privileged)),
        // A shell starts another program.
        most: (2 * steps.len()).max(1),
        also: same(&rule, steps.iter().any(|step| step["user"].is_string())),
        rule,
        chain,
        resources: Vec::new(),
        before: None,
        files: Vec::new(),
        made: Vec::new(),
        expected: BTreeMap::new(),
        said: BTreeMap::new(),
        steps,
    }
}

/// A process that becomes somebody else does so by `setuid`, which is a matter for a rule of its own.
fn same(rule: &str, becomes_user: bool) -> Vec<&'static str> {
    let same = SAME.iter().filter(|(one, _)| *one == rule).flat_map(|(_, also)| also.iter().copied());
    same.chain(becomes_user.then_some("Non sudo setuid")).collect()
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
    let steps: Vec<Value> = each("steps").iter().map(as_step).collect();
    let mut chain = vec![json!({ "name": "event-generator" })];
    chain.extend(template["context"]["processes"].as_array().cloned().unwrap_or_default());
    let made = steps.iter().flat_map(|step| [paths(step, "newPath"), paths(step, "linkPath")]).flatten().collect();
    let (files, resources): (Vec<_>, Vec<_>) = each("resources").into_iter().partition(|one| one["subtype"] == "file");
    let outcome = &template["expectedOutcome"];
    let entries = outcome["outputFields"].as_object().into_iter().flatten();
    let said =
        ["priority", "source"].into_iter().filter_map(|key| Some((key.to_owned(), outcome[key].as_str()?.to_owned())));
    let rule = text(&test["rule"]);
    Some(Case {
        id: format!("{}#{number}", text(&test["name"])),
        disabled: false,
        container: template["context"]["container"].is_object().then_some(true),
        most: 1,
        also: same(&rule, chain.iter().any(|link| link["user"].is_string())),
        rule,
        chain,
        before: template["before"].as_str().map(str::to_owned),
        made,
        files: if template["context"]["container"].is_object() {
            Vec::new()
        } else {
            files.iter().filter_map(|one| paths(one, "filePath")).collect()
        },
        resources,
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
