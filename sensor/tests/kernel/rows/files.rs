//! Calls that change names, folders, modes and descriptors.

use libc::{AT_FDCWD, AT_REMOVEDIR, EBADF, EEXIST, EFAULT, ENOENT, ENOTEMPTY, O_CLOEXEC, RENAME_NOREPLACE};
use serde_json::json;

use super::{Case, Script, case};
use crate::child::{
    Arg::{Int, Nowhere, Text},
    call,
};

pub const CASES: &[Case] = &[
    case("unlink", "the path is that of the name, not of what it led to", unlink_link),
    case("unlink", "a failure is told with its path", unlink_failures),
    case("unlinkat", "a path relative to a descriptor is joined to its folder", unlinkat_descriptor),
    case("unlinkat", "a folder is removed with a flag", unlinkat_folder),
    case("rename", "both paths are joined to the working directory", rename_relative),
    case("rename", "a missing file is an error", rename_missing),
    case("renameat", "each path has its own folder", renameat_descriptors),
    case("renameat2", "flags have names", renameat2_flags),
    case("mkdir", "the mode is told in hexadecimal", mkdir_mode),
    case("mkdirat", "a path relative to a descriptor is joined to its folder", mkdirat_descriptor),
    case("rmdir", "a folder that is not empty stays", rmdir_both),
    case("chmod", "every bit of the mode has a name", chmod_bits),
    case("fchmod", "the descriptor has the name of its file", fchmod_descriptor),
    case("fchmodat", "a path relative to a descriptor is joined to its folder", fchmodat_descriptor),
    case("dup", "both descriptors stand for the same file", dup_file),
    case("dup", "a descriptor that is not open cannot be copied", dup_closed),
    case("dup2", "the copy has the number that was asked for", dup2_number),
    case("dup3", "flags have names", dup3_flags),
];

const CWD: i64 = AT_FDCWD as i64;

fn unlink_link(t: &mut Script) {
    let link = t.path("link");
    let result = call("unlink", &[Text("link")]);
    t.expect_done(result, json!({ "evt.arg.path": link, "fd.name": null }));
}

fn unlink_failures(t: &mut Script) {
    let missing = t.path("missing");
    let result = call("unlink", &[Text(&missing)]);
    t.expect_error(result, ENOENT, "ENOENT", json!({ "evt.arg.res": "ENOENT", "evt.arg.path": missing }));
    let result = call("unlink", &[Nowhere]);
    t.expect_error(result, EFAULT, "EFAULT", json!({ "evt.arg.res": "EFAULT", "evt.arg.path": "<NA>" }));
}

fn unlinkat_descriptor(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let result = call("unlinkat", &[Int(dirfd), Text("inner"), Int(0)]);
    let dir = format!("<d>{}", t.path("dir"));
    t.expect_done(result, json!({ "evt.arg.dirfd": dir, "evt.arg.name": t.path("dir/inner"), "evt.arg.flags": "0" }));
}

fn unlinkat_folder(t: &mut Script) {
    let result = call("unlinkat", &[Int(CWD), Text("dir/empty"), Int(AT_REMOVEDIR.into())]);
    let fields =
        json!({ "evt.arg.dirfd": "AT_FDCWD", "evt.arg.name": t.path("dir/empty"), "evt.arg.flags": "AT_REMOVEDIR" });
    t.expect_done(result, fields);
}

fn rename_relative(t: &mut Script) {
    let result = call("rename", &[Text("file"), Text("dir/./moved")]);
    t.expect_done(result, json!({ "evt.arg.oldpath": t.path("file"), "evt.arg.newpath": t.path("dir/moved") }));
}

fn rename_missing(t: &mut Script) {
    // An absolute path stays as it was passed.
    let (old, new) = (t.path("dir/../missing"), t.path("moved"));
    let result = call("rename", &[Text(&old), Text(&new)]);
    t.expect_error(result, ENOENT, "ENOENT", json!({ "evt.arg.oldpath": old, "evt.arg.newpath": new }));
}

fn renameat_descriptors(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let result = call("renameat", &[Int(dirfd), Text("inner"), Int(CWD), Text("moved")]);
    let fields = json!({
        "evt.arg.olddirfd": format!("<d>{}", t.path("dir")), "evt.arg.oldpath": t.path("dir/inner"),
        "evt.arg.newdirfd": "AT_FDCWD", "evt.arg.newpath": t.path("moved"),
    });
    t.expect_done(result, fields);
}

fn renameat2_flags(t: &mut Script) {
    let flags = Int(RENAME_NOREPLACE.into());
    let result = call("renameat2", &[Int(CWD), Text("file"), Int(CWD), Text("link"), flags]);
    let fields = json!({ "evt.arg.oldpath": t.path("file"), "evt.arg.newpath": t.path("link"), "evt.arg.flags": "RENAME_NOREPLACE" });
    t.expect_error(result, EEXIST, "EEXIST", fields);
    let result = call("renameat2", &[Int(CWD), Text("file"), Int(CWD), Text("link"), Int(0)]);
    t.expect_done(result, json!({ "evt.arg.flags": "0" }));
}

fn mkdir_mode(t: &mut Script) {
    let result = call("mkdir", &[Text("new"), Int(0o755)]);
    t.expect_done(result, json!({ "evt.arg.path": t.path("new"), "evt.arg.mode": "1ED" }));
    let result = call("mkdir", &[Text("dir"), Int(0o700)]);
    let fields = json!({ "evt.arg.res": "EEXIST", "evt.arg.path": t.path("dir"), "evt.arg.mode": "1C0" });
    t.expect_error(result, EEXIST, "EEXIST", fields);
}

fn mkdirat_descriptor(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let result = call("mkdirat", &[Int(dirfd), Text("new"), Int(0o700)]);
    let dir = format!("<d>{}", t.path("dir"));
    t.expect_done(result, json!({ "evt.arg.dirfd": dir, "evt.arg.path": t.path("dir/new"), "evt.arg.mode": "1C0" }));
}

fn rmdir_both(t: &mut Script) {
    let result = call("rmdir", &[Text("dir")]);
    t.expect_error(result, ENOTEMPTY, "ENOTEMPTY", json!({ "evt.arg.path": t.path("dir") }));
    let result = call("rmdir", &[Text("dir/empty")]);
    t.expect_done(result, json!({ "evt.arg.path": t.path("dir/empty") }));
}

/// Falco's order: others, group, owner, then the special bits.
const NAMED_755: &str = "S_IXOTH|S_IROTH|S_IXGRP|S_IRGRP|S_IXUSR|S_IWUSR|S_IRUSR";

fn chmod_bits(t: &mut Script) {
    let result = call("chmod", &[Text("file"), Int(0o6755)]);
    let mode = format!("{NAMED_755}|S_ISGID|S_ISUID");
    t.expect_done(result, json!({ "evt.arg.filename": t.path("file"), "evt.arg.mode": mode }));
    let result = call("chmod", &[Text("missing"), Int(0o755)]);
    t.expect_error(
        result,
        ENOENT,
        "ENOENT",
        json!({ "evt.arg.filename": t.path("missing"), "evt.arg.mode": NAMED_755 }),
    );
}

fn fchmod_descriptor(t: &mut Script) {
    let fd = t.open_aside("link");
    let result = call("fchmod", &[Int(fd), Int(0o755)]);
    // An open file is known by its own path, whatever link led to it.
    let file = t.path("file");
    let fields =
        json!({ "evt.arg.fd": format!("<f>{file}"), "fd.name": file, "fd.num": fd, "evt.arg.mode": NAMED_755 });
    t.expect_done(result, fields);
    let result = call("fchmod", &[Int(999), Int(0o755)]);
    t.expect_error(result, EBADF, "EBADF", json!({ "evt.arg.fd": "999" }));
}

fn fchmodat_descriptor(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let result = call("fchmodat", &[Int(dirfd), Text("inner"), Int(0o4755)]);
    let fields = json!({
        "evt.arg.dirfd": format!("<d>{}", t.path("dir")), "evt.arg.filename": t.path("dir/inner"),
        "evt.arg.mode": format!("{NAMED_755}|S_ISUID"),
    });
    t.expect_done(result, fields);
}

fn dup_file(t: &mut Script) {
    let fd = t.open_aside("file");
    let copy = call("dup", &[Int(fd)]);
    assert!(copy > fd, "a new number: {copy}");
    let shown = format!("<f>{}", t.path("file"));
    t.expect(json!({
        "evt.rawres": copy, "evt.failed": "false", "evt.arg.res": shown, "evt.arg.oldfd": shown, "fd.num": copy,
        "fd.name": t.path("file"), "fd.type": "file",
    }));
}

fn dup_closed(t: &mut Script) {
    let result = call("dup", &[Int(999)]);
    t.expect_error(result, EBADF, "EBADF", json!({ "evt.arg.res": "EBADF", "evt.arg.oldfd": "999", "fd.num": -1 }));
}

fn dup2_number(t: &mut Script) {
    let fd = t.open_aside("file");
    assert_eq!(call("dup2", &[Int(fd), Int(99)]), 99);
    let shown = format!("<f>{}", t.path("file"));
    t.expect(json!({
        "evt.rawres": 99, "evt.arg.res": shown, "evt.arg.oldfd": shown, "evt.arg.newfd": shown, "fd.num": 99,
        "fd.name": t.path("file"),
    }));
}

fn dup3_flags(t: &mut Script) {
    let fd = t.open_aside("file");
    assert_eq!(call("dup3", &[Int(fd), Int(98), Int(O_CLOEXEC.into())]), 98);
    let shown = format!("<f>{}", t.path("file"));
    t.expect(json!({
        "evt.rawres": 98, "evt.arg.res": shown, "evt.arg.oldfd": shown, "evt.arg.newfd": shown, "evt.arg.flags": "O_CLOEXEC",
    }));
}
