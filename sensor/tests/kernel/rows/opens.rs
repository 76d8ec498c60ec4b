//! `open`, `openat`, `openat2`, `creat`: which file was meant, and which one it was.

use std::fs;

use libc::{
    AT_FDCWD, EACCES, EBADF, EFAULT, ENOENT, EXDEV, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, O_TMPFILE, O_TRUNC,
    O_WRONLY,
};
use serde_json::{Value, json};

use super::{Case, Play, Script, case, merged};
use crate::{
    child::{
        self,
        Arg::{Bytes, Int, Nowhere, Text},
        call, call32_with_text, device_and_inode,
    },
    needs::Need,
};

pub const CASES: &[Case] = &[
    case("open", "an absolute path is told as it was passed", open_absolute),
    case("open", "a relative path is joined to the working directory", open_relative),
    case("open", "a symbolic link has the name that was passed and the path of its target", open_link),
    case("open", "a new file is told with its mode and as created", open_new),
    case("open", "a folder is a directory when the flags say so", open_folder),
    case("open", "a file without a name is told by its folder", open_unnamed),
    case("open", "a missing file has an error and the name it would have had", open_missing),
    case("open", "a path that cannot be read is not available", open_nowhere),
    case("open", "a path through mounts and links of /proc is resolved", open_through_mounts),
    case("open", "a name of odd bytes is one line of JSON", open_odd_name),
    case("open", "another user is named, and what is refused", open_as_nobody),
    case("open", "a thread has its own name, its process that of the main thread", open_in_thread),
    case("open", "a long path is whole", open_long),
    case("open", "a path that is too long is called so", open_too_long),
    Case {
        row: "open",
        name: "the 32-bit call is seen like the other",
        needs: &[Need::Tracing, Need::Calls32],
        play: Play::Script(open_32_bit),
    },
    case("openat", "a path relative to the working directory is joined to it", openat_cwd),
    case("openat", "a path relative to a descriptor is joined to its folder", openat_descriptor),
    case("openat", "a path relative to no folder has an unknown base", openat_no_descriptor),
    Case {
        row: "openat",
        name: "a 32-bit call that has the same number is another call",
        needs: &[Need::Tracing, Need::Calls32],
        play: Play::Script(openat_number_32_bit),
    },
    case("openat", "an absolute path does not mind the descriptor", openat_absolute),
    case("openat", "a traversal is told as passed and resolved in the name", openat_traversal),
    case("openat2", "flags, mode and restrictions come from the structure", openat2_how),
    case("openat2", "a forbidden way out is an error", openat2_beneath),
    case("openat2", "a structure that cannot be read leaves its parameters out", openat2_nowhere),
    case("creat", "a created file is told with its mode", creat_new),
    case("creat", "a missing folder is an error", creat_missing_folder),
];

/// What is told of a file that was opened.
fn opened(t: &Script, fd: i64, name: &str, realpath: &str) -> Value {
    assert!(fd >= 0, "cannot open {name}: {fd}");
    let (dev, ino) = t.aside(|| device_and_inode(fd));
    json!({
        "evt.rawres": fd, "evt.failed": "false", "fd.num": fd, "fd.name": name, "fd.realpath": realpath, "fd.type": "file",
        "fd.typechar": "f", "evt.arg.fd": format!("<f>{name}"), "evt.arg.dev": format!("{dev:X}"), "evt.arg.ino": ino.to_string(),
    })
}

/// What is told of a file that was not.
fn not_opened(name: &str, error: &str) -> Value {
    json!({
        "fd.num": -1, "fd.name": name, "fd.realpath": null, "fd.typechar": "f", "evt.arg.fd": error, "evt.arg.dev": "0",
        "evt.arg.ino": "0",
    })
}

fn open_absolute(t: &mut Script) {
    let file = t.path("file");
    let fd = call("open", &[Text(&file), Int(O_RDWR.into()), Int(0)]);
    let more = json!({ "evt.arg.name": file, "evt.arg.flags": "O_RDWR", "evt.arg.mode": "0", "fd.nameraw": file });
    t.expect(merged(opened(t, fd, &file, &file), more));
}

fn open_relative(t: &mut Script) {
    let fd = call("open", &[Text("dir/../file"), Int(O_RDONLY.into()), Int(0)]);
    let file = t.path("file");
    let more = json!({ "evt.arg.name": file, "evt.arg.flags": "O_RDONLY", "fd.nameraw": "dir/../file" });
    t.expect(merged(opened(t, fd, &file, &file), more));
}

fn open_link(t: &mut Script) {
    let (link, file) = (t.path("link"), t.path("file"));
    let fd = call("open", &[Text(&link), Int(O_WRONLY.into()), Int(0)]);
    t.expect(merged(opened(t, fd, &link, &file), json!({ "evt.arg.name": link, "evt.arg.flags": "O_WRONLY" })));
}

fn open_new(t: &mut Script) {
    let new = t.path("new");
    let fd = call("open", &[Text(&new), Int((O_WRONLY | O_CREAT | O_TRUNC).into()), Int(0o640)]);
    let more =
        json!({ "evt.arg.name": new, "evt.arg.flags": "O_TRUNC|O_CREAT|O_WRONLY|O_F_CREATED", "evt.arg.mode": "0640" });
    t.expect(merged(opened(t, fd, &new, &new), more));
}

fn open_folder(t: &mut Script) {
    let dir = t.path("dir");
    let fd = call("open", &[Text(&dir), Int((O_RDONLY | O_DIRECTORY).into()), Int(0)]);
    let more = json!({
        "fd.type": "directory", "fd.typechar": "d", "evt.arg.fd": format!("<d>{dir}"), "evt.arg.flags": "O_DIRECTORY|O_RDONLY",
    });
    t.expect(merged(opened(t, fd, &dir, &dir), more));
}

/// As in Falco, the descriptor has the kind of what the path names: rules about files that are written are not about it.
fn open_unnamed(t: &mut Script) {
    let dir = t.path("dir");
    let fd = call("open", &[Text(&dir), Int((O_RDWR | O_TMPFILE).into()), Int(0o600)]);
    let (_, ino) = t.aside(|| device_and_inode(fd));
    let more = json!({
        "fd.type": "directory", "fd.typechar": "d", "evt.arg.fd": format!("<d>{dir}"),
        "evt.arg.flags": "O_DIRECTORY|O_RDWR|O_TMPFILE", "evt.arg.mode": "0600",
    });
    t.expect(merged(opened(t, fd, &dir, &format!("{dir}/#{ino}")), more));
}

fn open_missing(t: &mut Script) {
    let missing = t.path("missing");
    let result = call("open", &[Text(&missing), Int(O_RDONLY.into()), Int(0)]);
    let more = json!({ "evt.arg.name": missing, "fd.nameraw": missing, "evt.arg.flags": "O_RDONLY" });
    t.expect_error(result, ENOENT, "ENOENT", merged(not_opened(&missing, "ENOENT"), more));
}

fn open_nowhere(t: &mut Script) {
    let result = call("open", &[Nowhere, Int(O_RDONLY.into()), Int(0)]);
    t.expect_error(result, EFAULT, "EFAULT", json!({ "evt.arg.fd": "EFAULT", "evt.arg.name": "<NA>", "fd.num": -1 }));
}

fn open_through_mounts(t: &mut Script) {
    let real = format!("/proc/{}/status", std::process::id());
    let fd = call("open", &[Text("/proc/self/status"), Int(O_RDONLY.into()), Int(0)]);
    t.expect(opened(t, fd, "/proc/self/status", &real));
    let fd = call("open", &[Text("/dev/null"), Int(O_WRONLY.into()), Int(0)]);
    t.expect(opened(t, fd, "/dev/null", "/dev/null"));
}

fn open_odd_name(t: &mut Script) {
    let name = b"a\nb\x1b[31m\xff\"\0";
    let fd = call("open", &[Bytes(name), Int((O_RDWR | O_CREAT).into()), Int(0o600)]);
    let path = t.path("a\nb\u{1b}[31m\u{fffd}\"");
    t.expect(opened(t, fd, &path, &path));
}

fn open_as_nobody(t: &mut Script) {
    let nobody = nix::unistd::Uid::from_raw(65534);
    let user = t.aside(|| nix::unistd::User::from_uid(nobody).expect("a table of users"));
    let name = user.map_or_else(|| "<NA>".to_owned(), |user| user.name);
    t.aside(|| nix::unistd::setuid(nobody).expect("root may"));
    let result = call("open", &[Text("/etc/shadow"), Int(O_RDONLY.into()), Int(0)]);
    let more = json!({ "user.name": name, "user.uid": 65534 });
    t.expect_error(result, EACCES, "EACCES", merged(not_opened("/etc/shadow", "EACCES"), more));
}

fn open_in_thread(t: &mut Script) {
    let file = t.path("file");
    child::rename("traced");
    let mark = t.mark().to_owned();
    let path = file.clone();
    let opened_there = std::thread::spawn(move || {
        child::rename(&mark);
        let fd = call("open", &[Text(&path), Int(O_RDONLY.into()), Int(0)]);
        child::rename("aside");
        fd
    });
    let fd = opened_there.join().expect("a thread");
    t.expect(merged(opened(t, fd, &file, &file), json!({ "proc.aname[0]": "traced", "proc.pid": std::process::id() })));
}

/// The longest name that Linux has for a file.
const LONGEST_NAME: usize = 255;

/// Folders on the stage, one in the other, whose path has at least `length` bytes. They are made aside.
///
/// Names are as long as names can be.
fn deep(t: &Script, length: usize) -> String {
    let mut path = String::new();
    while path.len() < length {
        path.push_str(&"d".repeat(LONGEST_NAME.min(length - path.len())));
        path.push('/');
    }
    t.aside(|| fs::create_dir_all(&path).expect("folders on the stage"));
    path
}

fn open_long(t: &mut Script) {
    let path = t.path(&format!("{}file", deep(t, 900)));
    let fd = call("open", &[Text(&path), Int((O_RDWR | O_CREAT).into()), Int(0o600)]);
    t.expect(merged(opened(t, fd, &path, &path), json!({ "evt.arg.name": path })));
}

fn open_too_long(t: &mut Script) {
    let path = t.path(&format!("{}file", deep(t, 2000)));
    let fd = call("open", &[Text(&path), Int((O_RDWR | O_CREAT).into()), Int(0o600)]);
    let name = "/DIR_TOO_LONG/FILENAME_TOO_LONG";
    // The kernel's own view has room for the path that the call had.
    t.expect(merged(opened(t, fd, name, &path), json!({ "evt.arg.name": path })));
}

fn open_32_bit(t: &mut Script) {
    let file = t.path("file");
    let fd = call32_with_text("open", &file, O_RDWR as u32, 0);
    let more = json!({ "evt.arg.name": file, "evt.arg.flags": "O_RDWR", "evt.arg.mode": "0" });
    t.expect(merged(opened(t, fd, &file, &file), more));
    let missing = t.path("missing");
    let result = call32_with_text("open", &missing, O_RDONLY as u32, 0);
    t.expect_error(result, ENOENT, "ENOENT", not_opened(&missing, "ENOENT"));
}

fn openat_cwd(t: &mut Script) {
    let fd = call("openat", &[Int(AT_FDCWD.into()), Text("file"), Int(O_RDONLY.into()), Int(0)]);
    let file = t.path("file");
    let more =
        json!({ "evt.arg.name": file, "evt.arg.dirfd": "AT_FDCWD", "evt.arg.flags": "O_RDONLY", "fd.nameraw": "file" });
    t.expect(merged(opened(t, fd, &file, &file), more));
}

fn openat_descriptor(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let fd = call("openat", &[Int(dirfd), Text("inner"), Int(O_RDONLY.into()), Int(0)]);
    let inner = t.path("dir/inner");
    let more =
        json!({ "evt.arg.name": inner, "evt.arg.dirfd": format!("<d>{}", t.path("dir")), "fd.nameraw": "inner" });
    t.expect(merged(opened(t, fd, &inner, &inner), more));
}

fn openat_no_descriptor(t: &mut Script) {
    let result = call("openat", &[Int(999), Text("inner"), Int(O_RDONLY.into()), Int(0)]);
    let more = json!({ "evt.arg.name": "<UNKNOWN>/inner", "evt.arg.dirfd": "999" });
    t.expect_error(result, EBADF, "EBADF", merged(not_opened("<UNKNOWN>/inner", "EBADF"), more));
}

fn openat_number_32_bit(t: &mut Script) {
    // Old remap_file_pages, which does nothing with these arguments.
    let number = child::number("openat").expect("a number");
    assert!(child::call32(number, [0; 3]).is_some_and(|result| result < 0));
    let file = t.path("file");
    let fd = call("openat", &[Int(AT_FDCWD.into()), Text(&file), Int(O_RDONLY.into()), Int(0)]);
    t.expect(opened(t, fd, &file, &file));
}

fn openat_absolute(t: &mut Script) {
    let file = t.path("file");
    let fd = call("openat", &[Int(999), Text(&file), Int(O_RDONLY.into()), Int(0)]);
    t.expect(merged(opened(t, fd, &file, &file), json!({ "evt.arg.name": file, "evt.arg.dirfd": "999" })));
}

fn openat_traversal(t: &mut Script) {
    let (raw, file) = (t.path("dir/../dir/.././file"), t.path("file"));
    let fd = call("openat", &[Int(AT_FDCWD.into()), Text(&raw), Int(O_RDONLY.into()), Int(0)]);
    t.expect(merged(opened(t, fd, &file, &file), json!({ "evt.arg.name": raw, "fd.nameraw": raw })));
}

/// `struct open_how`.
fn how(flags: i32, mode: u64, resolve: u64) -> Vec<u8> {
    [u64::from(flags as u32), mode, resolve].into_iter().flat_map(u64::to_ne_bytes).collect()
}

const RESOLVE_BENEATH: u64 = 8;

fn openat2_how(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let how = how(O_RDWR | O_CREAT, 0o604, RESOLVE_BENEATH);
    let fd = call("openat2", &[Int(dirfd), Text("new"), Bytes(&how), Int(24)]);
    let new = t.path("dir/new");
    let more = json!({
        "evt.arg.name": new, "evt.arg.dirfd": format!("<d>{}", t.path("dir")), "evt.arg.mode": "0604",
        "evt.arg.flags": "O_CREAT|O_RDWR|O_F_CREATED", "evt.arg.resolve": "RESOLVE_BENEATH",
    });
    t.expect(merged(opened(t, fd, &new, &new), more));
}

fn openat2_beneath(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let result = call("openat2", &[Int(dirfd), Text("../file"), Bytes(&how(O_RDONLY, 0, RESOLVE_BENEATH)), Int(24)]);
    let file = t.path("file");
    t.expect_error(result, EXDEV, "EXDEV", merged(not_opened(&file, "EXDEV"), json!({ "fd.nameraw": "../file" })));
}

fn openat2_nowhere(t: &mut Script) {
    let result = call("openat2", &[Int(AT_FDCWD.into()), Text("file"), Nowhere, Int(24)]);
    let more = json!({ "evt.arg.name": t.path("file"), "evt.arg.flags": "<NA>", "evt.arg.mode": "<NA>", "evt.arg.resolve": "<NA>" });
    t.expect_error(result, EFAULT, "EFAULT", more);
}

fn creat_new(t: &mut Script) {
    let new = t.path("new");
    let fd = call("creat", &[Text(&new), Int(0o755)]);
    let more = json!({ "evt.arg.name": new, "evt.arg.mode": "0755", "evt.arg.creat_flags": "0" });
    t.expect(merged(opened(t, fd, &new, &new), more));
}

fn creat_missing_folder(t: &mut Script) {
    let path = t.path("missing/new");
    let result = call("creat", &[Text(&path), Int(0o600)]);
    t.expect_error(result, ENOENT, "ENOENT", merged(not_opened(&path, "ENOENT"), json!({ "evt.arg.mode": "0600" })));
}
