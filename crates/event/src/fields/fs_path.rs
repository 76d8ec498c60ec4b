//! Fields of the paths named by calls that have no descriptor.

use super::{ArgRule, Field, Matching};
use crate::value::ValueType::*;

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("fs.path.name", Text, "resolved path of a path-taking syscall"),
    Field::new("fs.path.nameraw", Text, "unresolved path of a path-taking syscall"),
    Field::new("fs.path.source", Text, "resolved source path (rename, link, mount, ...)"),
    Field::new("fs.path.sourceraw", Text, "unresolved source path"),
    Field::new("fs.path.target", Text, "resolved target path (rename, link, mount, ...)"),
    Field::new("fs.path.targetraw", Text, "unresolved target path"),
];
