//! `gyrfalcon explain`: what a rule comes down to.

use std::fmt::Write;

use event::{
    catalogue::{EventSet, EventType},
    fields,
};
use rules::{
    diagnostic::closest,
    load::{Explanation, Options},
};
use serde_json::{Value, json};

use crate::{
    active::collected,
    cli,
    commands::{compile_options, print_messages},
    exit::Exit,
    input, log, out,
    pushdown::FILTERED,
    rules::{Specs, compile_and},
};

/// How many rules that may come first are shown by name.
const SHOWN: usize = 10;

/// Explains one rule.
pub fn explain(args: &cli::Explain) -> Exit {
    let (files, errors) = input::read(&args.paths);
    let options =
        Options { sources: fields::EventSource::ALL.to_vec(), ..compile_options(&args.compile, String::new()) };
    let look = |loader: &rules::load::Loader| {
        let found = loader.explain(&args.rule);
        let close = closest(&args.rule, loader.rules().map(|rule| rule.name)).map(str::to_owned);
        (found, close)
    };
    let (compiled, (found, close)) = compile_and(&files, &errors, &Specs::new(), options, log::colour(), look);
    let failed = compiled.messages.iter().any(|message| message.error);
    if found.is_empty() {
        print_messages(&compiled.messages);
        let help = close.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        eprintln!("error: no rule `{}` without mistakes in these files{help}", args.rule);
        return Exit::Input;
    }
    let text = match args.json {
        true => format!("{:#}\n", Value::Array(found.iter().map(as_json).collect())),
        false => found.iter().map(as_text).collect::<Vec<_>>().join("\n"),
    };
    let printed = out::print(&text);
    if failed {
        eprintln!("error: these files have errors, see `gyrfalcon check`");
        return Exit::Input;
    }
    printed
}

/// What the kernel asks of a call before it tells of it, by event.
fn in_kernel(rule: &Explanation) -> Vec<(&'static str, Vec<String>)> {
    let events = rule.events.iter().filter(|name| FILTERED.contains(name));
    let clauses = |name: &&'static str| {
        let event = EventType::by_name(name)?;
        Some((*name, rule.necessary(event).iter().map(ToString::to_string).collect()))
    };
    events.filter_map(clauses).collect()
}

fn waiting_events(rule: &Explanation) -> Vec<&'static str> {
    let collected: EventSet = collected();
    let waits = |name: &&&'static str| EventType::by_name(name).is_some_and(|ty| !collected.contains(ty));
    rule.events.iter().filter(waits).copied().collect()
}

fn waiting_fields(rule: &Explanation) -> Vec<&str> {
    let waits = |name: &&str| fields::lookup(name).is_some_and(|(field, _)| field.is_waiting());
    rule.fields.iter().map(String::as_str).filter(waits).collect()
}

fn as_json(rule: &Explanation) -> Value {
    let mut value = json!(rule);
    let kernel: serde_json::Map<_, _> =
        in_kernel(rule).into_iter().map(|(event, clauses)| (event.to_owned(), json!(clauses))).collect();
    if let Value::Object(object) = &mut value {
        object.insert("kernel".to_owned(), Value::Object(kernel));
        object.insert("waiting".to_owned(), json!({"events": waiting_events(rule), "fields": waiting_fields(rule)}));
    }
    value
}

/// Writing to a string cannot fail.
fn as_text(rule: &Explanation) -> String {
    let mut text = String::new();
    let place = &rule.place;
    let of = rule.namespace.as_ref().map(|namespace| format!(" of namespace {namespace}")).unwrap_or_default();
    let state = if rule.enabled { "" } else { ", not enabled" };
    let _ = writeln!(text, "{}{of} ({}, {}{state})", rule.rule, rule.priority, rule.source);
    let _ = writeln!(text, "  {}:{}:{}", place.source, place.line, place.column);
    let _ = writeln!(text, "\nas written\n{}", indented(&rule.written));
    let _ = writeln!(text, "\nwith everything put in\n{}", indented(&wrapped(&rule.condition)));
    if !rule.uses.is_empty() {
        let _ = writeln!(text, "\nmade of");
    }
    for used in &rule.uses {
        let place = &used.place;
        let at = format!("{}:{}:{}", place.source, place.line, place.column);
        let _ = writeln!(
            text,
            "  {} {} ({at}), in {}\n{}",
            used.kind,
            used.name,
            used.by,
            indented(&indented(&used.content))
        );
    }
    if !rule.exceptions.is_empty() {
        let _ = writeln!(text, "\nexceptions\n  {}", rule.exceptions.join(", "));
    }
    let _ = writeln!(text, "\nevents\n{}", indented(&filled(&rule.events.join(" "))));
    let waiting = waiting_events(rule);
    if !waiting.is_empty() && waiting.len() < rule.events.len() {
        let _ = writeln!(text, "  not collected yet:\n{}", indented(&indented(&filled(&waiting.join(" ")))));
    } else if !waiting.is_empty() {
        let _ = writeln!(text, "  none of them is collected yet: the rule cannot match");
    }
    let _ = writeln!(text, "\nfields\n{}", indented(&filled(&rule.fields.join(" "))));
    let waiting = waiting_fields(rule);
    if !waiting.is_empty() {
        let _ = writeln!(text, "  without values yet: {}", waiting.join(" "));
    }
    for (event, clauses) in in_kernel(rule) {
        let _ = writeln!(text, "\nthe kernel tells of {event} when it");
        for clause in clauses {
            let _ = writeln!(text, "  {clause}");
        }
    }
    let _ = writeln!(text, "\nwhile only the first match counts (--rule-matching first)");
    let (always, maybe): (Vec<_>, Vec<_>) = rule.shadows.iter().partition(|shadow| shadow.always);
    for shadow in &always {
        let _ = writeln!(text, "  it never alerts: `{}` comes first and matches whenever it does", shadow.rule);
    }
    if !maybe.is_empty() {
        let _ = writeln!(text, "  {} rules come first and see some of its events:", maybe.len());
    }
    for shadow in maybe.iter().take(SHOWN) {
        let _ = writeln!(text, "    {} ({})", shadow.rule, shortened(&shadow.events));
    }
    if maybe.len() > SHOWN {
        let _ = writeln!(text, "    and {} more; --json has them all", maybe.len() - SHOWN);
    }
    if rule.shadows.is_empty() {
        let _ = writeln!(text, "  nothing that comes first sees its events");
    }
    text
}

fn shortened(events: &[&str]) -> String {
    match events {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first} {second} {third} and {} more", rest.len())
        }
        events => events.join(" "),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Words in lines of at most 100 characters.
fn filled(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < 100 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Breaks before `and` and `or`, two blanks deeper for each parenthesis that is open there. Quoted text stays whole.
fn wrapped(condition: &str) -> String {
    let mut out = String::new();
    let (mut depth, mut quote) = (0_usize, None);
    let mut rest = condition;
    while let Some(char) = rest.chars().next() {
        let breaks = [" and ", " or "].into_iter().find(|word| quote.is_none() && rest.starts_with(word));
        if let Some(word) = breaks {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
            out.push_str(word.trim_start());
            rest = rest.get(word.len()..).unwrap_or_default();
            continue;
        }
        match (char, quote) {
            ('"' | '\'', None) => quote = Some(char),
            (char, Some(open)) if char == open && !out.ends_with('\\') => quote = None,
            ('(', None) => depth += 1,
            (')', None) => depth = depth.saturating_sub(1),
            _ => {}
        }
        out.push(char);
        rest = rest.get(char.len_utf8()..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn conditions_break_at_and_and_or_but_not_in_quotes() {
        assert_eq!(
            wrapped("(a.b = 1 and (c.d = \"x and y\" or e.f in (1, 2)))"),
            "(a.b = 1\n  and (c.d = \"x and y\"\n    or e.f in (1, 2)))"
        );
    }
}
