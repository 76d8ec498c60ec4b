//! Turns the spec of a rule resource into the text of Falco rules files, which is what the rule loader reads.
//!
//! Verbatim text stays as it is. Typed rules are written out so that each line and column of a condition or an output
//! has its own in the resource: [`RulesText::origin`] leads back. So there is one loader and one kind of diagnostic,
//! however a rule was written.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use crate::{
    problem::Path,
    resource::ResourceId,
    rule::{ExceptionSpec, FalcoRuleSpec, ListSpec, MacroSpec, Override, RuleException, RuleSpec},
    scalar::{Cell, Scalar},
};

/// The text of one rules file, and where its parts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesText<'a> {
    /// Falco YAML.
    pub text: Cow<'a, str>,
    /// In ascending order of `first_line`.
    parts: Vec<Part>,
}

/// Consecutive lines that come from one field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// Line in the text, from 1.
    first_line: u32,
    /// Characters in front of the field's text in each line; none where lines do not correspond.
    indent: Option<u32>,
    path: Path,
}

/// A place in a field of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The field.
    pub path: Path,
    /// Line in its text, from 1.
    pub line: u32,
    /// Column in that line, from 1.
    pub column: u32,
}

impl RulesText<'_> {
    /// Where a line and column of the text (both from 1) come from.
    pub fn origin(&self, line: u32, column: u32) -> Origin {
        let after = self.parts.partition_point(|part| part.first_line <= line);
        let Some(part) = after.checked_sub(1).and_then(|at| self.parts.get(at)) else {
            return Origin { path: Path::default().key("spec"), line: 1, column: 1 };
        };
        match part.indent {
            Some(indent) => Origin {
                path: part.path.clone(),
                line: line.saturating_sub(part.first_line) + 1,
                column: column.saturating_sub(indent).max(1),
            },
            None => Origin { path: part.path.clone(), line: 1, column: 1 },
        }
    }
}

/// The rules files that stand for a spec, to be loaded one after the other: what it defines, the exceptions that it
/// adds, what it disables.
///
/// What has no form as text is left to the caller: `mode`, `suspend`, `order`, `minimumPriority`, `tagsInclude`,
/// `tagsExclude`, the selectors, `throttle`. So is `configMapRef`: its text is put into `rules` by whoever can read
/// it. `id` names the rule of `spec.rule` where it has no name of its own.
pub fn rules_texts<'a>(id: &ResourceId, spec: &'a FalcoRuleSpec) -> Vec<RulesText<'a>> {
    let path = Path::default().key("spec");
    let mut texts = Vec::new();
    if let Some(rules) = &spec.rules {
        let part = Part { first_line: 1, indent: Some(0), path: path.key("rules") };
        texts.push(RulesText { text: Cow::Borrowed(rules), parts: vec![part] });
    }
    let mut writer = Writer::default();
    if let Some(rule) = &spec.rule {
        writer.rule(rule, &id.name, &path.key("rule"));
    }
    for (at, item) in spec.items.iter().enumerate() {
        let path = path.key("items").index(at);
        if let Some(rule) = &item.rule {
            writer.rule(rule, &item.name, &path.key("rule"));
        }
        if let Some(macro_) = &item.macro_ {
            writer.macro_(macro_, &item.name, &path.key("macro"));
        }
        if let Some(list) = &item.list {
            writer.list(list, &item.name, &path.key("list"));
        }
    }
    texts.extend(writer.finish());
    let mut writer = Writer::default();
    for (at, exception) in spec.exceptions.iter().enumerate() {
        writer.added_exception(exception, &path.key("exceptions").index(at));
    }
    texts.extend(writer.finish());
    let mut writer = Writer::default();
    for (at, name) in spec.disable.iter().enumerate() {
        let path = path.key("disable").index(at);
        writer.word("- rule", name, &path);
        writer.raw("  enabled: false", &path);
        writer.raw("  override: {enabled: replace}", &path);
    }
    texts.extend(writer.finish());
    texts
}

#[derive(Default)]
struct Writer {
    text: String,
    lines: u32,
    parts: Vec<Part>,
}

impl Writer {
    fn finish(self) -> Option<RulesText<'static>> {
        (!self.text.is_empty()).then_some(RulesText { text: Cow::Owned(self.text), parts: self.parts })
    }

    fn rule(&mut self, rule: &RuleSpec, name: &str, path: &Path) {
        self.word("- rule", rule.rule.as_deref().unwrap_or(name), &path.key("rule"));
        // Falco wants a description of every rule; for typed ones it is optional.
        let desc = rule.desc.as_deref().or(rule.override_.is_none().then_some(""));
        self.text_field("  desc", desc, &path.key("desc"));
        self.text_field("  condition", rule.condition.as_deref(), &path.key("condition"));
        self.text_field("  output", rule.output.as_deref(), &path.key("output"));
        if let Some(priority) = rule.priority {
            self.word("  priority", priority.name(), &path.key("priority"));
        }
        if let Some(source) = &rule.source {
            self.word("  source", source, &path.key("source"));
        }
        self.flag("  enabled", rule.enabled, &path.key("enabled"));
        if !rule.tags.is_empty() {
            self.raw(&format!("  tags: [{}]", join(&rule.tags, |tag| quoted(tag))), &path.key("tags"));
        }
        if !rule.exceptions.is_empty() {
            self.raw("  exceptions:", &path.key("exceptions"));
        }
        for (at, exception) in rule.exceptions.iter().enumerate() {
            let ExceptionSpec { name, fields, comps, values } = exception;
            self.exception(name, (fields, comps, values), &path.key("exceptions").index(at));
        }
        self.flag("  warn_evttypes", rule.warn_evttypes, &path.key("warn_evttypes"));
        let key = "skip-if-unknown-filter";
        self.flag("  skip-if-unknown-filter", rule.skip_if_unknown_filter, &path.key(key));
        self.override_(rule.override_.as_ref(), path);
    }

    /// An exception of `spec.exceptions`: a change to a rule that is there.
    fn added_exception(&mut self, exception: &RuleException, path: &Path) {
        let RuleException { rule, name, fields, comps, values } = exception;
        self.word("- rule", rule, &path.key("rule"));
        self.raw("  exceptions:", path);
        self.exception(name, (fields, comps, values), path);
        self.raw("  override: {exceptions: append}", path);
    }

    fn exception(&mut self, name: &str, parts: (&[String], &[String], &[Vec<Cell>]), path: &Path) {
        let (fields, comps, values) = parts;
        self.raw(&format!("  - name: {}", quoted(name)), &path.key("name"));
        if !fields.is_empty() {
            self.raw(&format!("    fields: [{}]", join(fields, |field| quoted(field))), &path.key("fields"));
        }
        if !comps.is_empty() {
            self.raw(&format!("    comps: [{}]", join(comps, |comp| quoted(comp))), &path.key("comps"));
        }
        if !values.is_empty() {
            self.raw("    values:", &path.key("values"));
        }
        for (at, row) in values.iter().enumerate() {
            self.raw(&format!("    - [{}]", join(row, cell)), &path.key("values").index(at));
        }
    }

    fn macro_(&mut self, macro_: &MacroSpec, name: &str, path: &Path) {
        self.word("- macro", macro_.macro_.as_deref().unwrap_or(name), &path.key("macro"));
        self.text_field("  condition", Some(&macro_.condition), &path.key("condition"));
        self.override_(macro_.override_.as_ref(), path);
    }

    fn list(&mut self, list: &ListSpec, name: &str, path: &Path) {
        self.word("- list", list.list.as_deref().unwrap_or(name), &path.key("list"));
        self.raw("  items:", &path.key("items"));
        if list.items.is_empty() {
            self.raw("    []", &path.key("items"));
        }
        for (at, item) in list.items.iter().enumerate() {
            self.raw(&format!("  - {}", scalar(item)), &path.key("items").index(at));
        }
        self.override_(list.override_.as_ref(), path);
    }

    fn override_(&mut self, overrides: Option<&BTreeMap<String, Override>>, path: &Path) {
        let Some(overrides) = overrides else { return };
        let path = path.key("override");
        self.raw("  override:", &path);
        for (key, how) in overrides {
            let how = match how {
                Override::Append => "append",
                Override::Replace => "replace",
            };
            self.raw(&format!("    {}: {how}", quoted(key)), &path.key(key));
        }
    }

    fn flag(&mut self, key: &str, value: Option<bool>, path: &Path) {
        if let Some(value) = value {
            self.raw(&format!("{key}: {value}"), path);
        }
    }

    fn text_field(&mut self, key: &str, value: Option<&str>, path: &Path) {
        if let Some(value) = value {
            self.field(key, value, path);
        }
    }

    fn word(&mut self, key: &str, value: &str, path: &Path) {
        self.raw(&format!("{key}: {}", quoted(value)), path);
    }

    /// Writes a text as a block whose lines are those of the field, where YAML can express it so.
    fn field(&mut self, key: &str, value: &str, path: &Path) {
        const INDENT: &str = "    ";
        let plain = |c: char| matches!(c, '\n' | '\t' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}');
        let body = value.strip_suffix('\n').unwrap_or(value);
        if body.is_empty() || body.ends_with('\n') || !body.chars().all(plain) {
            return self.word(key, value, path);
        }
        let chomp = if value.ends_with('\n') { "" } else { "-" };
        self.raw(&format!("{key}: |2{chomp}"), path);
        let indent = Some(4);
        self.parts.push(Part { first_line: self.lines + 1, indent, path: path.clone() });
        for line in body.split('\n') {
            self.line(&format!("{INDENT}{line}"));
        }
    }

    fn raw(&mut self, line: &str, path: &Path) {
        self.parts.push(Part { first_line: self.lines + 1, indent: None, path: path.clone() });
        self.line(line);
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
        self.lines += 1;
    }
}

fn join<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    values.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::One(value) => scalar(value),
        Cell::Many(values) => format!("[{}]", join(values, scalar)),
        // A mistake that was reported; the loader refuses it, too.
        Cell::Other(value) => value.to_string(),
    }
}

fn scalar(value: &Scalar) -> String {
    match value {
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => quoted(text),
    }
}

/// A JSON text, which is a double-quoted YAML text once the characters are escaped that YAML does not allow.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut quoted = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::Kind;

    fn texts(spec: &FalcoRuleSpec) -> Vec<RulesText<'_>> {
        rules_texts(&ResourceId { kind: Kind::ClusterFalcoRule, namespace: "".into(), name: "core".into() }, spec)
    }

    fn spec(json: serde_json::Value) -> FalcoRuleSpec {
        serde_json::from_value(json).expect("a spec")
    }

    #[test]
    fn verbatim_rules_stay_verbatim() {
        let spec = spec(json!({ "rules": "# mine\n- list: a\n  items: [b]\n" }));
        let texts = texts(&spec);
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].text, "# mine\n- list: a\n  items: [b]\n");
        let origin = texts[0].origin(3, 4);
        assert_eq!((origin.path.to_string().as_str(), origin.line, origin.column), ("spec.rules", 3, 4));
    }

    #[test]
    fn typed_rules_become_a_rules_file() {
        let spec = spec(json!({
            "items": [
                { "name": "shells", "list": { "items": ["bash", 7, "a b"] } },
                { "name": "run", "macro": { "condition": "evt.type = execve\nand x\n" } },
                { "name": "more", "macro": { "macro": "run", "condition": "or y", "override": { "condition": "append" } } },
                { "name": "A shell", "rule": {
                    "condition": "run",
                    "output": "%proc.name: \u{7}",
                    "priority": "warning",
                    "enabled": true,
                    "tags": ["T1059"],
                    "exceptions": [{ "name": "e", "fields": ["proc.name"], "comps": ["in"], "values": [[["b", 1]], ["c"]] }],
                    "skip-if-unknown-filter": true,
                } },
            ],
            "exceptions": [
                { "rule": "A shell", "name": "jobs", "fields": ["proc.pname"], "values": [["cron"]] },
                { "rule": "A shell", "name": "e", "values": [["d"]] },
            ],
            "disable": ["Other"],
        }));
        let texts: Vec<String> = texts(&spec).into_iter().map(|text| text.text.into_owned()).collect();
        expect![[r#"
            - list: "shells"
              items:
              - "bash"
              - 7
              - "a b"
            - macro: "run"
              condition: |2
                evt.type = execve
                and x
            - macro: "run"
              condition: |2-
                or y
              override:
                "condition": append
            - rule: "A shell"
              desc: ""
              condition: |2-
                run
              output: "%proc.name: \u0007"
              priority: "Warning"
              enabled: true
              tags: ["T1059"]
              exceptions:
              - name: "e"
                fields: ["proc.name"]
                comps: ["in"]
                values:
                - [["b", 1]]
                - ["c"]
              skip-if-unknown-filter: true
            -- next file --
            - rule: "A shell"
              exceptions:
              - name: "jobs"
                fields: ["proc.pname"]
                values:
                - ["cron"]
              override: {exceptions: append}
            - rule: "A shell"
              exceptions:
              - name: "e"
                values:
                - ["d"]
              override: {exceptions: append}
            -- next file --
            - rule: "Other"
              enabled: false
              override: {enabled: replace}
        "#]]
        .assert_eq(&texts.join("-- next file --\n"));
    }

    #[test]
    fn places_lead_back_to_the_field() {
        let spec = spec(json!({
            "rule": { "condition": "a = 1 and\n  b = 2", "output": "x", "priority": "INFO", "tags": ["t"] },
        }));
        let texts = texts(&spec);
        let text = &texts[0].text;
        let line_of = |part: &str| text.lines().position(|line| line.contains(part)).expect("there") as u32 + 1;
        let column = text.lines().find_map(|line| line.find("b = 2")).expect("there") as u32 + 1;
        let origin = texts[0].origin(line_of("b = 2"), column);
        assert_eq!((origin.path.to_string().as_str(), origin.line, origin.column), ("spec.rule.condition", 2, 3));
        assert_eq!(texts[0].origin(line_of("tags"), 9).path.to_string(), "spec.rule.tags");
        assert_eq!(texts[0].origin(0, 0).path.to_string(), "spec");
    }

    #[test]
    fn texts_that_a_block_cannot_hold_are_quoted() {
        for text in [
            "",
            "\n",
            "a\n\n",
            "a\u{7f}",
            "a\r\nb",
            " ",
            "- a: b",
            "  indented\nless",
            "tab\there",
            "é ü",
            "a\u{2028}b",
            "😀",
        ] {
            let spec = spec(json!({ "rule": { "condition": "a", "output": text, "priority": "INFO" } }));
            let yaml = texts(&spec)[0].text.clone().into_owned();
            let read: serde_json::Value = serde_yaml_ng::from_str(&yaml).expect("YAML");
            assert_eq!(read[0]["output"], text, "{yaml}");
        }
    }
}
