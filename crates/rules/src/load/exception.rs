//! Exceptions: what a rule shall not fire for, as rows of values. They become text, `and not (…)` behind the rule's
//! condition, in which lists and transformers work as in any condition.

use super::{
    Report,
    read::{Cell, ExceptionItem, OneOrMany},
};
use crate::{
    diagnostic::{Code, ItemKind},
    filter::{
        ast::{Modifier, Op, OpGroup, TextId},
        check::check_operand,
        names::Catalogue,
        parse::operand_prefix,
    },
    source::{Span, Text},
};

/// A checked exception.
#[derive(Debug, Clone)]
pub(crate) struct Exception {
    name: Text,
    fields: Fields,
    /// Each fits the fields.
    values: Vec<Cell>,
}

impl Exception {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether it says anything.
    pub(crate) fn has_values(&self) -> bool {
        !self.values.is_empty()
    }

    /// The texts of its values: names of lists may be among them.
    pub(crate) fn texts(&self) -> Vec<&str> {
        fn add<'c>(cell: &'c Cell, into: &mut Vec<&'c str>) {
            match cell {
                Cell::One(text) => into.push(text.as_str()),
                Cell::Many(cells, _) => cells.iter().for_each(|cell| add(cell, into)),
            }
        }
        let mut texts = Vec::new();
        self.values.iter().for_each(|cell| add(cell, &mut texts));
        texts
    }
}

/// What the values are compared with.
#[derive(Debug, Clone)]
enum Fields {
    /// One field; values are one flat list.
    One(Text, Text),
    /// Several; values are rows of as many cells.
    Many(Vec<(Text, Text)>),
}

/// Adds an exception; one of this name that is there already stays too.
pub(crate) fn define(
    item: ExceptionItem,
    exceptions: &mut Vec<Exception>,
    catalogue: Option<Catalogue>,
    rule: &str,
    report: &mut Report<'_>,
) {
    if exceptions.iter().any(|known| known.name.as_str() == item.name.as_str()) {
        let message = format!("Multiple definitions of exception '{}' in the same rule", item.name.as_str());
        report.add(Code::DuplicateException, item.name.whole(), message, |d| d.item(ItemKind::Rule, rule));
    }
    let Some(fields) = &item.fields else {
        let message =
            format!("Rule exception '{}' must have fields property with a list of fields", item.name.as_str());
        report.add(Code::InvalidException, item.name.whole(), message, |d| d.item(ItemKind::Rule, rule));
        return;
    };
    let Some(fields) = checked_fields(fields, item.comps.as_ref(), &item, catalogue, rule, report) else { return };
    let mut exception = Exception { name: item.name, fields, values: Vec::new() };
    exception.add_values(item.values.unwrap_or_default(), rule, report);
    exceptions.push(exception);
}

/// Adds values to the exception of this name, or adds a new one.
pub(crate) fn append(
    item: ExceptionItem,
    exceptions: &mut Vec<Exception>,
    catalogue: Option<Catalogue>,
    rule: &str,
    report: &mut Report<'_>,
) {
    let known = exceptions.iter_mut().find(|known| known.name.as_str() == item.name.as_str());
    let no_values = item.values.as_ref().is_none_or(Vec::is_empty);
    let mut wrong = |code: Code, span: Span, message: &str| {
        report.add(code, span, message, |d| d.item(ItemKind::Rule, rule));
    };
    match known {
        Some(_) if item.fields.is_some() || item.comps.is_some() => {
            let message = "Can not append exception fields to existing exception, only values";
            wrong(Code::InvalidException, item.name.whole(), message);
        }
        _ if no_values => {
            wrong(Code::ExceptionWithoutValues, item.name.whole(), "Overriding/appending exception with no values");
        }
        Some(known) => known.add_values(item.values.unwrap_or_default(), rule, report),
        None => define(item, exceptions, catalogue, rule, report),
    }
}

fn checked_fields(
    fields: &OneOrMany,
    comps: Option<&OneOrMany>,
    item: &ExceptionItem,
    catalogue: Option<Catalogue>,
    rule: &str,
    report: &mut Report<'_>,
) -> Option<Fields> {
    let mut wrong = |span: Span, message: String, help: Option<String>| {
        report.add(Code::InvalidException, span, message, |d| d.maybe_help(help).item(ItemKind::Rule, rule));
    };
    let name = item.name.as_str();
    let checked = match (fields, comps) {
        (OneOrMany::One(field), None) => Fields::One(field.clone(), Text::made("in", field.whole())),
        (OneOrMany::One(field), Some(OneOrMany::One(comp))) => {
            if !takes_list(comp.as_str()) {
                let message = format!(
                    "Rule exception '{name}': when fields is a single value, comps must be one of in, \
                                       pmatch, intersects, or an operator with oneof, anyof or allof"
                );
                wrong(comp.whole(), message, None);
                return None;
            }
            Fields::One(field.clone(), comp.clone())
        }
        (OneOrMany::Many(fields, _), None) => {
            Fields::Many(fields.iter().map(|field| (field.clone(), Text::made("=", field.whole()))).collect())
        }
        (OneOrMany::Many(fields, _), Some(OneOrMany::Many(comps, _))) if fields.len() == comps.len() => {
            Fields::Many(fields.iter().cloned().zip(comps.iter().cloned()).collect())
        }
        (OneOrMany::Many(_, span), Some(OneOrMany::Many(..))) => {
            wrong(*span, format!("Fields and comps lists must have equal length in exception '{name}'"), None);
            return None;
        }
        (OneOrMany::One(field), Some(OneOrMany::Many(..))) => {
            wrong(field.whole(), format!("Fields and comps must both be strings in exception '{name}'"), None);
            return None;
        }
        (OneOrMany::Many(_, span), Some(OneOrMany::One(_))) => {
            wrong(*span, format!("Fields and comps must both be lists in exception '{name}'"), None);
            return None;
        }
    };
    let pairs = match &checked {
        Fields::One(field, comp) => vec![(field, comp)],
        Fields::Many(pairs) => pairs.iter().map(|(field, comp)| (field, comp)).collect(),
    };
    let mut complete = true;
    for (field, comp) in pairs {
        if operator(comp.as_str()).is_none() {
            wrong(comp.whole(), format!("'{}' is not a supported comparison operator", comp.as_str()), None);
            complete = false;
        }
        if let Some(catalogue) = catalogue
            && let Some(help) = field_problem(field.as_str(), catalogue)
        {
            wrong(field.whole(), format!("'{}' is not a supported filter field", field.as_str()), help);
            complete = false;
        }
    }
    complete.then_some(checked)
}

/// Why the text isn't a field or transformer; the inner option is a remedy.
fn field_problem(field: &str, catalogue: Catalogue) -> Option<Option<String>> {
    let field = field.trim();
    match operand_prefix(field, TextId::default()) {
        Ok((operand, length)) if length == field.len() => check_operand(&operand, catalogue)
            .err()
            .map(|findings| findings.into_iter().find_map(|finding| finding.help)),
        _ => Some(None),
    }
}

/// The operator that a comparison of an exception names.
fn operator(comp: &str) -> Option<(Op, Option<Modifier>)> {
    let mut words = comp.split_ascii_whitespace();
    let word = words.next()?;
    let op = *Op::ALL.iter().find(|op| op.word() == word)?;
    let modifier = match words.next() {
        None => None,
        Some(word) => Some(*Modifier::ALL.iter().find(|modifier| modifier.word() == word)?),
    };
    let fits = words.next().is_none() && (modifier.is_none() || op.group() == OpGroup::Text);
    fits.then_some((op, modifier))
}

/// The right-hand side is a list.
fn takes_list(comp: &str) -> bool {
    operator(comp).is_some_and(|(op, modifier)| modifier.is_some() || op.group() == OpGroup::List)
}

impl Exception {
    fn add_values(&mut self, values: Vec<Cell>, rule: &str, report: &mut Report<'_>) {
        for row in values {
            match (&self.fields, &row) {
                (Fields::One(..), _) => self.values.push(row),
                (Fields::Many(pairs), Cell::Many(cells, _)) if cells.len() == pairs.len() => self.values.push(row),
                (Fields::Many(pairs), Cell::Many(_, span)) => {
                    let message = format!(
                        "Exception '{}': values need {} entries per row, one per field",
                        self.name.as_str(),
                        pairs.len()
                    );
                    report.add(Code::InvalidException, *span, message, |d| d.item(ItemKind::Rule, rule));
                }
                (Fields::Many(_), Cell::One(text)) => {
                    let message = format!("Exception '{}': values must be a sequence of sequences", self.name.as_str());
                    report.add(Code::InvalidException, text.whole(), message, |d| {
                        d.help("put brackets around the row, or name a single field without brackets")
                            .item(ItemKind::Rule, rule)
                    });
                }
            }
        }
    }
}

/// The condition of a rule with its exceptions behind it.
pub(crate) fn condition(condition: &Text, exceptions: &[Exception]) -> Text {
    let filled = || exceptions.iter().filter(|exception| !exception.values.is_empty());
    if filled().next().is_none() {
        return condition.clone();
    }
    let mut text = Text::made("(", condition.whole());
    text.push(condition);
    text.push_made(")", condition.whole());
    for exception in filled() {
        let place = exception.name.whole();
        text.push_made(" and not (", place);
        match &exception.fields {
            Fields::One(field, comp) => {
                text.push(field);
                text.push_made(" ", place);
                text.push(comp);
                text.push_made(" ", place);
                push_list(&mut text, &exception.values, place);
            }
            Fields::Many(pairs) => {
                for (index, row) in exception.values.iter().enumerate() {
                    text.push_made(if index > 0 { " or (" } else { "(" }, place);
                    push_row(&mut text, pairs, row, place);
                    text.push_made(")", place);
                }
            }
        }
        text.push_made(")", place);
    }
    text
}

fn push_row(text: &mut Text, pairs: &[(Text, Text)], row: &Cell, place: Span) {
    let Cell::Many(cells, _) = row else { return };
    for (index, ((field, comp), cell)) in pairs.iter().zip(cells).enumerate() {
        text.push_made(if index > 0 { " and " } else { "" }, place);
        text.push(field);
        text.push_made(" ", place);
        text.push(comp);
        text.push_made(" ", place);
        match cell {
            Cell::Many(cells, _) => push_list(text, cells, place),
            Cell::One(_) if takes_list(comp.as_str()) => push_list(text, std::slice::from_ref(cell), place),
            Cell::One(value) => push_quoted(text, value),
        }
    }
}

fn push_list(text: &mut Text, cells: &[Cell], place: Span) {
    text.push_made("(", place);
    push_items(text, cells, place);
    text.push_made(")", place);
}

fn push_items(text: &mut Text, cells: &[Cell], place: Span) {
    for (index, cell) in cells.iter().enumerate() {
        text.push_made(if index > 0 { ", " } else { "" }, place);
        match cell {
            Cell::One(value) => push_quoted(text, value),
            Cell::Many(cells, _) => push_items(text, cells, place),
        }
    }
}

/// Text with blanks gets quotes, unless it has them.
pub(crate) fn push_quoted(text: &mut Text, value: &Text) {
    let content = value.as_str();
    let quote = content.is_empty() || content.contains(' ') && !content.starts_with(['"', '\'']);
    text.push_made(if quote { "\"" } else { "" }, value.whole());
    text.push(value);
    text.push_made(if quote { "\"" } else { "" }, value.whole());
}
