//! Fields of the user and group it ran as.

use super::{Arg, Field};
use crate::{
    event::Event,
    users::UNKNOWN,
    value::{Value, ValueType::*},
};

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("user.uid", Uint(32), "effective uid of the thread").from(uid),
    Field::new("user.name", Text, "user name for uid, \"<NA>\" if unknown").from(name),
    Field::new("user.homedir", Text, "home directory, \"<NA>\" if unknown").from(homedir),
    Field::new("user.shell", Text, "login shell, \"<NA>\" if unknown").from(shell),
    Field::new("user.loginuid", Int(64), "audit uid; -1 when unset").from(loginuid),
    Field::new("user.loginname", Text, "name for audit uid, \"<NA>\" if unknown").from(loginname),
    Field::new("group.gid", Uint(32), "gid of the thread").from(gid),
    Field::new("group.name", Text, "group name, \"<NA>\" if unknown").from(group_name),
];

type Found<'a> = Option<Value<'a>>;

fn uid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(u64::from(e.record.header.uid)))
}

fn name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.users().user_name(e.record.header.uid)))
}

fn homedir<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.users().user(e.record.header.uid).map_or(UNKNOWN, |user| &user.home)))
}

fn shell<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.users().user(e.record.header.uid).map_or(UNKNOWN, |user| &user.shell)))
}

fn loginuid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let uid = e.record.header.loginuid;
    Some(Value::Int(if uid == u32::MAX { -1 } else { i64::from(uid) }))
}

fn loginname<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let uid = e.record.header.loginuid;
    Some(Value::Text(if uid == u32::MAX { UNKNOWN } else { e.state.users.user_name(uid) }))
}

fn gid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(u64::from(e.record.header.gid)))
}

fn group_name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.users().group_name(e.record.header.gid)))
}
