//! Hard and symbolic links: which name was made, and for what.

use libc::{AT_FDCWD, AT_SYMLINK_FOLLOW, EEXIST, ENOENT};
use serde_json::json;

use super::{Case, Script, case};
use crate::child::{
    Arg::{Int, Text},
    call,
};

pub const CASES: &[Case] = &[
    case("link", "both paths are joined to the working directory", link_relative),
    case("link", "a missing file is an error", link_missing),
    case("linkat", "each path has its own folder", linkat_descriptors),
    case("symlink", "the target stays as it was passed", symlink_target),
    case("symlink", "a name that exists is an error", symlink_exists),
    case("symlinkat", "only the link is joined to the folder", symlinkat_descriptor),
];

fn link_relative(t: &mut Script) {
    let result = call("link", &[Text("file"), Text("hard")]);
    t.expect_done(
        result,
        json!({ "evt.arg.oldpath": t.path("file"), "evt.arg.newpath": t.path("hard"), "fd.name": null }),
    );
}

fn link_missing(t: &mut Script) {
    let result = call("link", &[Text("missing"), Text("hard")]);
    let fields =
        json!({ "evt.arg.res": "ENOENT", "evt.arg.oldpath": t.path("missing"), "evt.arg.newpath": t.path("hard") });
    t.expect_error(result, ENOENT, "ENOENT", fields);
}

fn linkat_descriptors(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let flags = Int(AT_SYMLINK_FOLLOW.into());
    let result = call("linkat", &[Int(AT_FDCWD.into()), Text("link"), Int(dirfd), Text("hard"), flags]);
    let fields = json!({
        "evt.arg.olddir": "AT_FDCWD", "evt.arg.oldpath": t.path("link"), "evt.arg.newdir": format!("<d>{}", t.path("dir")),
        "evt.arg.newpath": t.path("dir/hard"), "evt.arg.flags": "AT_SYMLINK_FOLLOW",
    });
    t.expect_done(result, fields);
}

fn symlink_target(t: &mut Script) {
    let result = call("symlink", &[Text("../anything at all"), Text("dir/new")]);
    t.expect_done(result, json!({ "evt.arg.target": "../anything at all", "evt.arg.linkpath": t.path("dir/new") }));
}

fn symlink_exists(t: &mut Script) {
    let link = t.path("link");
    let result = call("symlink", &[Text("/etc/shadow"), Text(&link)]);
    t.expect_error(result, EEXIST, "EEXIST", json!({ "evt.arg.target": "/etc/shadow", "evt.arg.linkpath": link }));
}

fn symlinkat_descriptor(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let result = call("symlinkat", &[Text("inner"), Int(dirfd), Text("new")]);
    let fields = json!({
        "evt.arg.target": "inner", "evt.arg.linkdirfd": format!("<d>{}", t.path("dir")), "evt.arg.linkpath": t.path("dir/new"),
    });
    t.expect_done(result, fields);
}
