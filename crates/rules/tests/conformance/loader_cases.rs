//! loader_cases.json: steps on one engine.

use std::collections::{BTreeMap, BTreeSet};

use event::value::ValueType;
use gyrfalcon_rules as rules;
use libtest_mimic::Failed;
use rules::{
    diagnostic::Diagnostic,
    duration,
    filter::{
        ast::{Expr, TextId},
        check, details,
        names::Catalogue,
        parse::{Depth, parse},
    },
    load::{AppendOutput, ExtraField, FileResult, Loader, Options, Schema, Selector, wildcard},
};
use serde_json::{Value as Json, json};

use super::{Suite, mock};

/// Runs the file.
pub fn run(data: &str) -> Result<(), Failed> {
    let data: Json = serde_json::from_str(data)?;
    let mut suite = Suite::new("loader");
    for case in data.get("cases").and_then(Json::as_array).into_iter().flatten() {
        let steps = case.get("steps").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut engine = Engine::default();
        for (number, step) in steps.iter().enumerate() {
            let name = match text(step, "op") {
                "load" => format!("{} {number}", text(case, "name")),
                op => format!("{op} {}{number}", ["condition", "text", "pattern"].map(|key| text(step, key)).concat()),
            };
            suite.case(&name, engine.step(step));
        }
    }
    suite.finish("loader_cases.json")
}

fn text<'j>(value: &'j Json, key: &str) -> &'j str {
    value.get(key).and_then(Json::as_str).unwrap_or_default()
}

fn texts(value: &Json, key: &str) -> Vec<String> {
    let items = value.get(key).and_then(Json::as_array).into_iter().flatten();
    items.filter_map(|item| Some(item.as_str()?.to_owned())).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: {got:?}, want {want:?}")) }
}

/// What the steps of a case act on.
#[derive(Default)]
struct Engine {
    options: Options,
    loader: Option<Loader>,
    /// Enabled rules by ruleset.
    rulesets: BTreeMap<String, BTreeSet<String>>,
}

const DEFAULT: &str = "falco-default-ruleset";

impl Engine {
    fn step(&mut self, step: &Json) -> Result<(), String> {
        let expect = step.get("expect").unwrap_or(&Json::Null);
        match text(step, "op") {
            "load" => self.load(step)?,
            "add_extra_output_format" | "add_extra_output_formatted_field" => self.append_output(step),
            "enable_rule_by_tag" => self.enable(step, Selector::Tag(text(step, "pattern").to_owned())),
            "enable_rule_wildcard" => self.enable(step, Selector::Rule(text(step, "pattern").to_owned())),
            "matches_wildcard" => {
                let got = wildcard(text(step, "pattern"), text(step, "string"));
                return same("result", Some(got), expect.get("result").and_then(Json::as_bool));
            }
            "prometheus_interval_ms" => {
                let got = duration::nanoseconds(text(step, "text")).map_or(0, |ns| ns / 1_000_000);
                return same("result", Some(got), expect.get("result").and_then(Json::as_u64));
            }
            "condition_warnings" => return condition_warnings(step, expect),
            "resolve_macros" => return resolve_macros(step, expect),
            "condition_details" => return condition_details(step, expect),
            op => return Err(format!("unknown operation {op}")),
        }
        for (ruleset, count) in expect.get("enabled_rules_in_ruleset").and_then(Json::as_object).into_iter().flatten() {
            let got = self.rulesets.get(ruleset).map_or(0, BTreeSet::len);
            same(ruleset, Some(got as u64), count.as_u64())?;
        }
        Ok(())
    }

    fn append_output(&mut self, step: &Json) {
        let given = |key: &str| Some(text(step, key)).filter(|text| !text.is_empty()).map(str::to_owned);
        let fields = step.get("fields").and_then(Json::as_object).into_iter().flatten();
        let template = |(key, output): (&String, &Json)| ExtraField::Template {
            key: key.clone(),
            output: output.as_str().unwrap_or_default().to_owned(),
        };
        self.options.append_output.push(AppendOutput {
            source: given("source"),
            tags: texts(step, "tags"),
            rule: given("rule"),
            extra_output: given("format"),
            extra_fields: fields.map(template).collect(),
            suggested_output: false,
        });
    }

    fn enable(&mut self, step: &Json, selector: Selector) {
        let ruleset = Some(text(step, "ruleset")).filter(|name| !name.is_empty()).unwrap_or(DEFAULT);
        let Some(loader) = &self.loader else { return };
        let enabled = self.rulesets.entry(ruleset.to_owned()).or_default();
        for rule in loader.listing().rules {
            let tags: Vec<Box<str>> = rule.tags.iter().map(|tag| tag.as_str().into()).collect();
            if selector.selects(&rule.name, &tags) {
                match step.get("enabled").and_then(Json::as_bool) {
                    Some(true) => enabled.insert(rule.name),
                    _ => enabled.remove(&rule.name),
                };
            }
        }
    }

    fn load(&mut self, step: &Json) -> Result<(), String> {
        let loader = self.loader.get_or_insert_with(|| Loader::new(self.options.clone()));
        let result = loader.add("rules", text(step, "rules").as_bytes()).clone();
        let listing = loader.listing();
        let enabled = listing.rules.iter().filter(|rule| rule.enabled).map(|rule| rule.name.clone());
        self.rulesets.insert(DEFAULT.to_owned(), enabled.collect());
        self.rulesets.insert("sample-ruleset".to_owned(), listing.rules.iter().map(|rule| rule.name.clone()).collect());
        let expect = step.get("expect").unwrap_or(&Json::Null);
        diagnostics(&result, expect)?;
        let find = |name: &str| listing.rules.iter().find(|rule| rule.name == name);
        for (name, want) in expect.get("compiled_condition").and_then(Json::as_object).into_iter().flatten() {
            same(name, find(name).map(|rule| rule.condition.as_str()), want.as_str())?;
        }
        for (name, want) in expect.get("compiled_output").and_then(Json::as_object).into_iter().flatten() {
            same(name, find(name).map(|rule| rule.output.as_str()), want.as_str())?;
        }
        for (name, want) in expect.get("extra_output_formatted_fields").and_then(Json::as_object).into_iter().flatten()
        {
            let got = find(name).map(|rule| rule.extra_fields.iter().cloned().collect::<BTreeMap<_, _>>());
            same(name, json!(got), want.clone())?;
        }
        if let Some(unwanted) = expect.get("output_does_not_contain").and_then(Json::as_str)
            && let Some(rule) = listing.rules.iter().find(|rule| rule.output.contains(unwanted))
        {
            return Err(format!("output {:?}", rule.output));
        }
        describe(&listing, expect)
    }
}

fn diagnostics(result: &FileResult, expect: &Json) -> Result<(), String> {
    let of = |errors: bool| result.diagnostics.iter().filter(move |d| d.is_error() == errors).collect::<Vec<_>>();
    let (errors, warnings) = (of(true), of(false));
    if let Some(want) = expect.get("successful").and_then(Json::as_bool) {
        let messages: Vec<_> = errors.iter().map(|d| &d.message).collect();
        same(&format!("successful ({messages:?})"), errors.is_empty(), want)?;
    }
    if let Some(want) = expect.get("has_warnings").and_then(Json::as_bool) {
        let messages: Vec<_> = warnings.iter().map(|d| &d.message).collect();
        same(&format!("has_warnings ({messages:?})"), !warnings.is_empty(), want)?;
    }
    if let Some(want) = expect.get("schema_validation").and_then(Json::as_str) {
        let got = match result.schema {
            Schema::Ok => "ok",
            Schema::Failed => "failed",
            Schema::None => "none",
        };
        same("schema", got, want)?;
    }
    let contain = |found: &[&Diagnostic], key: &str| {
        let missing = texts(expect, key).into_iter().find(|want| !found.iter().any(|d| d.message.contains(want)));
        missing.map_or(Ok(()), |want| {
            Err(format!("no {want:?} among {:?}", found.iter().map(|d| &d.message).collect::<Vec<_>>()))
        })
    };
    contain(&errors, "error_messages_contain")?;
    contain(&warnings, "warning_messages_contain")?;
    let codes = |found: &[&Diagnostic], key: &str| {
        let missing = texts(expect, key).into_iter().find(|want| !found.iter().any(|d| d.code.falco().name() == *want));
        missing.map_or(Ok(()), |want| Err(format!("no {want}")))
    };
    codes(&errors, "error_codes_derived")?;
    codes(&warnings, "warning_codes_derived")?;
    for unwanted in texts(expect, "warning_messages_do_not_contain") {
        if let Some(found) = warnings.iter().find(|d| d.message.contains(&unwanted)) {
            return Err(format!("warning {:?}", found.message));
        }
    }
    if let Some(want) = expect.get("error_snippet_contains").and_then(Json::as_str) {
        let snippet = |d: &&Diagnostic| d.place.as_ref().is_some_and(|place| place.lines.join("\n").contains(want));
        if !errors.iter().any(snippet) {
            return Err(format!("no snippet with {want:?}"));
        }
    }
    Ok(())
}

/// Values of Falco's description of rules, looked up in ours.
fn describe(listing: &rules::load::Listing, expect: &Json) -> Result<(), String> {
    let info = |rule: &rules::load::RuleListing| json!({"info": {"capture": rule.capture, "capture_duration": rule.capture_duration_ms}});
    let rules: Vec<_> = listing.rules.iter().map(info).collect();
    let lists: Vec<_> =
        listing.lists.iter().map(|list| json!({"details": {"items_compiled": list.items, "lists": []}})).collect();
    let macros: Vec<_> = listing.macros.iter().map(|entry| json!({"info": {"condition": entry.condition}})).collect();
    let whole = json!({"rules": rules, "lists": lists, "macros": macros});
    let at = |entry: &Json| {
        let path = entry.get("path").and_then(Json::as_array).into_iter().flatten();
        path.fold(whole.clone(), |value, key| match (key.as_str(), key.as_u64()) {
            (Some(key), _) => value[key].clone(),
            (None, Some(index)) => value[index as usize].clone(),
            (None, None) => Json::Null,
        })
    };
    for entry in expect.get("describe_values").and_then(Json::as_array).into_iter().flatten() {
        same("describe", at(entry), entry["value"].clone())?;
    }
    for entry in expect.get("describe_sizes").and_then(Json::as_array).into_iter().flatten() {
        same("describe", at(entry).as_array().map(|array| array.len() as u64), entry["size"].as_u64())?;
    }
    Ok(())
}

fn tree(condition: &str) -> Result<Expr, String> {
    parse(condition, TextId::default(), Depth::RULES).map_err(|error| error.message)
}

fn condition_warnings(step: &Json, expect: &Json) -> Result<(), String> {
    let doubts = check::doubts(&tree(text(step, "condition"))?, Catalogue::default());
    match expect.get("has_warnings").and_then(Json::as_bool) {
        Some(want) => same("has_warnings", !doubts.is_empty(), want),
        None => Ok(()),
    }
}

/// Falco resolves macros over names that need not exist; here they become fields of the test.
fn resolve_macros(step: &Json, expect: &Json) -> Result<(), String> {
    let condition = text(step, "condition");
    let macros: Vec<_> = step
        .get("macros")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, condition)| Some((name.as_str(), condition.as_str()?)))
        .collect();
    let conditions = macros.iter().map(|(_, condition)| *condition).chain([condition]);
    let mut names = BTreeSet::new();
    for condition in conditions {
        names.extend(details::details(&tree(condition)?).fields);
    }
    let fields = names.iter().map(|name| mock::field(name, ValueType::Text, false)).collect();
    let mut loader = Loader::new(Options { catalogue: mock::catalogue(fields), ..Options::default() });
    let mut file = String::new();
    // A macro may only use those before it: the innermost first.
    for (name, condition) in macros.iter().rev() {
        file.push_str(&format!("- macro: {name}\n  condition: {condition}\n"));
    }
    file.push_str(&format!("- rule: r\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n"));
    let result = loader.add("rules", file.as_bytes());
    let undefined = |name: &String| format!("Undefined macro '{name}'");
    let unknown = texts(expect, "unknown");
    for name in &unknown {
        if !result.diagnostics.iter().any(|d| d.message.contains(&undefined(name))) {
            return Err(format!("{name} isn't reported as undefined"));
        }
    }
    match expect.get("result").and_then(Json::as_str).filter(|_| unknown.is_empty()) {
        Some(want) => {
            same("result", loader.listing().rules.first().map(|rule| rule.condition.clone()), Some(want.to_owned()))
        }
        None => Ok(()),
    }
}

fn condition_details(step: &Json, expect: &Json) -> Result<(), String> {
    let found = details::details(&tree(text(step, "condition"))?);
    let set = |key: &str| texts(expect, key).into_iter().collect::<BTreeSet<_>>();
    let known = |names: BTreeSet<String>, key: &str| {
        let known = texts(step, key);
        names.into_iter().filter(|name| known.contains(name)).collect::<BTreeSet<_>>()
    };
    let given = |key: &str| expect.get(key).is_some();
    let pairs = [
        ("fields", found.fields),
        ("operators", found.operators),
        ("transformers", found.transformers),
        ("macros", known(found.macros, "known_macros")),
        ("lists", known(found.constants, "known_lists")),
    ];
    pairs.into_iter().filter(|(key, _)| given(key)).try_for_each(|(key, got)| same(key, got, set(key)))
}
