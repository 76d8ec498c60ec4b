//! Fields of the paths named by calls that have no descriptor.

use super::{Arg, Field};
use crate::{
    event::Event,
    params::ParamType,
    value::{Value, ValueType::*},
};

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("fs.path.name", Text, "resolved path of a path-taking syscall").from(name),
    Field::new("fs.path.nameraw", Text, "unresolved path of a path-taking syscall").from(nameraw),
    Field::new("fs.path.source", Text, "resolved source path (rename, link, mount, ...)").from(source),
    Field::new("fs.path.sourceraw", Text, "unresolved source path").from(sourceraw),
    Field::new("fs.path.target", Text, "resolved target path (rename, link, mount, ...)").from(target),
    Field::new("fs.path.targetraw", Text, "unresolved target path").from(targetraw),
];

type Found<'a> = Option<Value<'a>>;

/// The paths of a call by their role: indices of parameters. Only calls that did what they were asked have any.
fn paths(e: &Event<'_>) -> Option<(usize, Option<usize>)> {
    if e.failed() || !e.is_syscall() || matches!(e.info().name, "execve" | "execveat") {
        return None;
    }
    let is_path = |ty: ParamType| matches!(ty, ParamType::Path | ParamType::RelPath { .. });
    let mut found = e.info().params.iter().enumerate().filter(|(_, p)| is_path(p.ty) || p.name == "target");
    let (first, _) = found.next()?;
    Some((first, found.next().map(|(second, _)| second)))
}

/// Source and target of a call that has two paths. Links point from the new name (source) to the old one (target).
fn ends(e: &Event<'_>) -> Option<(usize, usize)> {
    let (first, second) = paths(e)?;
    let second = second?;
    let links = matches!(e.info().name, "link" | "linkat" | "symlink" | "symlinkat");
    Some(if links { (second, first) } else { (first, second) })
}

fn only(e: &Event<'_>) -> Option<usize> {
    match paths(e)? {
        (only, None) => Some(only),
        (_, Some(_)) => None,
    }
}

fn resolved<'a>(e: &Event<'a>, index: usize) -> Found<'a> {
    e.full_path(index).map(Value::Text)
}

fn as_passed<'a>(e: &Event<'a>, index: usize) -> Found<'a> {
    e.record.param(index)?.text().map(Value::Text)
}

fn name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    resolved(e, only(e)?)
}

fn nameraw<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    as_passed(e, only(e)?)
}

fn source<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    resolved(e, ends(e)?.0)
}

fn sourceraw<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    as_passed(e, ends(e)?.0)
}

fn target<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    resolved(e, ends(e)?.1)
}

fn targetraw<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    as_passed(e, ends(e)?.1)
}
