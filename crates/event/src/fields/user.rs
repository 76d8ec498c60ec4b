//! Fields of the user and group it ran as.

use super::{ArgRule, Field, Matching};
use crate::value::ValueType::*;

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("user.uid", Uint(32), "effective uid of the thread"),
    Field::new("user.name", Text, "user name for uid, \"<NA>\" if unknown"),
    Field::new("user.homedir", Text, "home directory, \"<NA>\" if unknown"),
    Field::new("user.shell", Text, "login shell, \"<NA>\" if unknown"),
    Field::new("user.loginuid", Int(64), "audit uid; -1 when unset"),
    Field::new("user.loginname", Text, "name for audit uid, \"<NA>\" if unknown"),
    Field::new("group.gid", Uint(32), "gid of the thread"),
    Field::new("group.name", Text, "group name, \"<NA>\" if unknown"),
];
