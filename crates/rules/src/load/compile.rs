//! Definitions → checked rules: the last stage that can find a mistake.

use std::sync::Arc;

use event::{catalogue::EventSet, fields::EventSource};

use super::{
    AppendOutput, ExtraField, Options, Report,
    cache::{Layer, RuleState},
    collect::{Definitions, RuleDef},
    resolve::{Uses, View},
};
use crate::{
    diagnostic::{Code, ItemKind},
    filter::{
        ast::Expr,
        check::{self, Finding},
        names::Catalogue,
        positional,
        print::canonical,
        typed::Typed,
        types::event_types,
    },
    output::Template,
    source::Text,
};

/// More event types than this draw a warning.
const MANY_TYPES: usize = 100;

/// A rule without mistakes.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Its index among the definitions.
    pub(crate) rule: usize,
    pub(crate) condition: Arc<Typed>,
    /// The condition with lists, macros and exceptions, as text.
    pub(crate) canonical: String,
    pub(crate) events: EventSet,
    /// The output as text, with what the configuration appends.
    pub(crate) output_text: String,
    pub(crate) output: Arc<Template>,
    pub(crate) extra: Arc<[(Arc<str>, Template)]>,
    /// The texts of the extra fields, for listings.
    pub(crate) extra_texts: Vec<(String, String)>,
}

/// Reports lists and macros of this unit that nothing uses.
pub(crate) fn unused(definitions: &Definitions, layer: &Layer, report: &mut Report<'_>) {
    let lists = || definitions.lists.entries.iter().enumerate().filter(|(_, list)| list.file >= definitions.unit);
    let macros = || definitions.macros.entries.iter().enumerate().filter(|(_, known)| known.file >= definitions.unit);
    if lists().next().is_none() && macros().next().is_none() {
        return;
    }
    let (used_lists, used_macros) = layer.used();
    for (_, list) in lists().filter(|(at, _)| !used_lists.contains(at)) {
        let name = list.name.as_str();
        let message = format!("List '{name}' not referred to by any other rule/macro/list");
        report.add(Code::UnusedList, list.name.whole(), message, |d| d.item(ItemKind::List, name));
    }
    for (_, definition) in macros().filter(|(at, _)| !used_macros.contains(at)) {
        let name = definition.name.as_str();
        let message = format!("Macro '{name}' not referred to by any other rule/macro");
        report.add(Code::UnusedMacro, definition.name.whole(), message, |d| d.item(ItemKind::Macro, name));
    }
}

/// Compiles a rule and reports what is wrong with it.
pub(crate) fn rule(at: usize, view: &mut View<'_>, options: &Options, report: &mut Report<'_>) -> RuleState {
    let mut uses = Uses::default();
    let own = view.own;
    let known = own.rules.entries.get(at).and_then(|rule| Some((rule, rule.known_source?)));
    let Some((rule, source)) = known else { return RuleState { checked: None, failed: false, uses } };
    let Some(tree) = view.rule(at, &mut uses, report) else { return RuleState { checked: None, failed: true, uses } };
    let before = report.errors();
    let checked = check_rule(at, rule, source, &tree, view, options, report);
    let failed = report.errors() > before;
    RuleState { checked: checked.map(Arc::new), failed, uses }
}

fn check_rule(
    at: usize,
    rule: &RuleDef,
    source: EventSource,
    tree: &Expr,
    resolver: &View<'_>,
    options: &Options,
    report: &mut Report<'_>,
) -> Option<Checked> {
    let name = rule.name.as_str();
    let catalogue = Catalogue { source, ..options.catalogue };
    let (condition, findings) = check::check(tree, catalogue);
    let output = output_text(rule, options);
    let mut faults: Vec<_> = findings.into_iter().map(|finding| (resolver.span(finding.at), finding)).collect();
    let template = Template::parse(output.as_str(), catalogue).unwrap_or_else(|errors| {
        faults.extend(errors.into_iter().map(|error| (output.span(error.start..error.end), error.finding)));
        Template::default()
    });
    let mut extra = Vec::new();
    let extra_texts = extra_fields(rule, options);
    for (key, text) in &extra_texts {
        match Template::parse(text, catalogue) {
            Ok(template) => extra.push((Arc::from(key.as_str()), template)),
            Err(errors) => faults.extend(errors.into_iter().map(|error| (rule.output.whole(), error.finding))),
        }
    }
    let failed = faults.iter().any(|(_, finding)| is_error(finding));
    if failed
        && rule.skip_if_unknown_filter
        && faults.iter().all(|(_, finding)| !is_error(finding) || is_unknown(finding))
    {
        if let Some((span, finding)) = faults.into_iter().find(|(_, finding)| is_error(finding)) {
            let message = format!("rule is skipped: {}", finding.message);
            report.add(Code::RuleSkipped, span, message, |d| d.maybe_help(finding.help).item(ItemKind::Rule, name));
        }
        return None;
    }
    for (span, finding) in faults {
        report.add(finding.code, span, finding.message, |d| d.maybe_help(finding.help).item(ItemKind::Rule, name));
    }
    if failed {
        return None;
    }
    let written = rule.output.as_str();
    for (offset, field) in deprecated_in_output(&template, written) {
        let message = format!("usage of deprecated field '{field}' has been detected in the rule output");
        let span = rule.output.span(offset..offset + field.len());
        report.add(Code::DeprecatedField, span, message, |d| d.item(ItemKind::Rule, name));
    }
    let events = event_types(tree).intersection(source.event_types());
    for finding in positional::doubts(tree, &events) {
        let span = resolver.span(finding.at);
        report.add(finding.code, span, finding.message, |d| d.maybe_help(finding.help).item(ItemKind::Rule, name));
    }
    if rule.warn_evttypes && source == EventSource::Syscall && events.len() > MANY_TYPES {
        let message = "Rule matches too many evt.type values. This has a significant performance penalty.";
        report.add(Code::TooManyEventTypes, rule.condition.whole(), message, |d| {
            d.help("narrow it down with `evt.type in (…) and`").item(ItemKind::Rule, name)
        });
    }
    Some(Checked {
        rule: at,
        condition: Arc::new(condition?),
        canonical: canonical(tree),
        events,
        output_text: output.as_str().to_owned(),
        output: Arc::new(template),
        extra: extra.into(),
        extra_texts,
    })
}

fn is_error(finding: &Finding) -> bool {
    finding.code.severity() == crate::diagnostic::Severity::Error
}

fn is_unknown(finding: &Finding) -> bool {
    matches!(finding.code, Code::UnknownField | Code::UnknownEventType | Code::UnknownParameter | Code::InvalidOutput)
}

/// Deprecated tokens of an output and where they stand, `%container.info` among them.
fn deprecated_in_output(template: &Template, text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<_> = template.fields().into_iter().filter(|(field, _)| field.marks.deprecated).collect();
    found.dedup();
    let mut places: Vec<_> = found
        .into_iter()
        .filter_map(|(field, _)| Some((text.find(&format!("%{}", field.name))? + 1, field.name.to_owned())))
        .collect();
    places.extend(text.find(CONTAINER_INFO).map(|at| (at + 1, CONTAINER_INFO[1..].to_owned())));
    places
}

/// A token of former times that stood for what a command line option said, and for nothing without it.
const CONTAINER_INFO: &str = "%container.info";

/// The output with what the configuration appends.
fn output_text(rule: &RuleDef, options: &Options) -> Text {
    let mut text = Text::made("", rule.output.whole());
    let mut from = 0;
    let written = rule.output.as_str();
    while let Some(at) = written[from..].find(CONTAINER_INFO) {
        text.push(&rule.output.slice(from..from + at));
        from += at + CONTAINER_INFO.len();
    }
    text.push(&rule.output.slice(from..written.len()));
    for append in appended(rule, options) {
        if let Some(more) = &append.extra_output {
            text.push_made(&format!(" {}", more.trim_start()), rule.output.whole());
        }
        if append.suggested_output
            && let Some(source) = rule.known_source
        {
            let suggested = source.fields().filter(|field| field.marks.suggested).map(|field| field.name);
            let statics = options.catalogue.statics.iter().map(|(name, _)| *name);
            for name in suggested.chain(statics) {
                let token = format!(" {}=%{name}", name.replace('.', "_"));
                text.push_made(&token, rule.output.whole());
            }
        }
    }
    text
}

/// Key and template of each extra field.
fn extra_fields(rule: &RuleDef, options: &Options) -> Vec<(String, String)> {
    let fields = appended(rule, options).flat_map(|append| &append.extra_fields);
    let pair = |field: &ExtraField| match field {
        ExtraField::Field(name) => (name.clone(), format!("%{name}")),
        ExtraField::Template { key, output } => (key.clone(), output.clone()),
    };
    fields.map(pair).collect()
}

fn appended<'o>(rule: &RuleDef, options: &'o Options) -> impl Iterator<Item = &'o AppendOutput> {
    options.append_output.iter().filter(|append| {
        append.source.as_deref().is_none_or(|source| source == &*rule.source)
            && append.rule.as_deref().is_none_or(|name| name == rule.name.as_str())
            && append.tags.iter().all(|tag| rule.tags.iter().any(|known| **known == **tag))
    })
}
