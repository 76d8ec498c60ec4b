//! The command line as a user sees it, as far as it needs no kernel: what is wrong is told with its place and a remedy,
//! and every command prints what it promises.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use expect_test::{Expect, expect};
use serde_json::Value;
use tempfile::TempDir;

const GYRFALCON: &str = env!("CARGO_BIN_EXE_gyrfalcon");

/// A folder with files in it, from which the program is run: its messages then have the files' names as written here.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("writing into a temporary folder");
    }
    folder
}

/// How the program ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn command(folder: &Path, args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(GYRFALCON);
    command.args(args).current_dir(folder).env_remove("GYRFALCON_LOG").env("RUST_BACKTRACE", "0");
    command
}

#[track_caller]
fn end(mut command: Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().expect("the program was built with this test");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    ended
}

#[track_caller]
fn run(folder: &Path, args: &[impl AsRef<OsStr>]) -> Ended {
    end(command(folder, args))
}

/// The words of a log line begin behind its time.
fn without_times(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("Z ") {
        Some((time, rest)) if time.len() == "2026-01-01T00:00:00.000000".len() => rest.trim_start(),
        _ => line,
    });
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `check` and `run` refuse the input; `check` says this.
#[track_caller]
fn refused(files: &[(&str, &str)], paths: &[&str], want: Expect) {
    let folder = folder(files);
    let checked = run(folder.path(), &[&["check"], paths].concat());
    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    want.assert_eq(&without_times(&checked.stderr));
    let started = run(folder.path(), &[&["run"], paths].concat());
    assert_eq!(started.code, Some(1), "{}", started.stderr);
    let said = without_times(&started.stderr);
    assert!(said.contains(&without_times(&checked.stderr)), "`run` says something else: {said}");
}

const GOOD: &str = "\
- rule: A shell
  desc: A shell was started.
  condition: evt.type = execve and proc.name = bash
  output: shell %proc.cmdline
  priority: NOTICE
";

#[test]
fn an_unknown_field_is_told_with_the_one_that_was_meant() {
    let rule = GOOD.replace("proc.name", "proc.nmae");
    refused(
        &[("rules.yaml", &rule)],
        &["rules.yaml"],
        expect![[r#"
        error[unknown-field]: no field `proc.nmae`
          rules.yaml:3:36     condition: evt.type = execve and proc.nmae = bash
                                                               ^^^^^^^^^ did you mean `proc.name`?

    "#]],
    );
}

#[test]
fn an_unknown_macro_is_told_with_the_one_that_was_meant() {
    let rules = format!(
        "- macro: spawned\n  condition: evt.type = execve\n{}",
        GOOD.replace("evt.type = execve", "(spawned or spawed)")
    );
    refused(
        &[("rules.yaml", &rules)],
        &["rules.yaml"],
        expect![[r#"
        error[undefined-macro]: Undefined macro 'spawed' used in filter.
          rules.yaml:5:26     condition: (spawned or spawed) and proc.name = bash
                                                     ^^^^^^ did you mean `spawned`?

    "#]],
    );
}

#[test]
fn an_unknown_output_field_is_told_with_its_place() {
    let rule = GOOD.replace("%proc.cmdline", "%proc.cmdlin");
    let folder = folder(&[("rules.yaml", &rule)]);
    let checked = run(folder.path(), &["check", "rules.yaml"]);
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("rules.yaml:4:"), "{}", checked.stderr);
    assert!(checked.stderr.contains("did you mean `proc.cmdline`?"), "{}", checked.stderr);
}

#[test]
fn yaml_that_does_not_parse_is_told_with_its_place() {
    refused(
        &[("rules.yaml", "- rule: A shell\n  desc: [unfinished\n  priority: NOTICE\n")],
        &["rules.yaml"],
        expect![[r#"
            error[invalid-yaml]: invalid YAML: illegal placement of ':' indicator
              rules.yaml:3:11     priority: NOTICE
                                          ^

        "#]],
    );
}

#[test]
fn an_unknown_field_of_a_sink_is_told_with_those_there_are() {
    let sink = "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterAlertSink\nmetadata:\n  name: on-call\nspec:\n  webhook:\n    \
                url: http://127.0.0.1:1/\n    retries: 3\n";
    refused(
        &[("sink.yaml", sink), ("rules.yaml", GOOD)],
        &["."],
        expect![[r#"
            error[UnknownField]: spec.webhook: no field `retries`
              ./sink.yaml:8:5   retries: 3
                                ^ there are auth, caFile, caRef, headers, method, url, urlRef
        "#]],
    );
}

#[test]
fn a_missing_file_is_told() {
    refused(
        &[],
        &["missing.yaml"],
        expect![[r#"
        error: cannot read missing.yaml: is the path right?: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn an_empty_folder_is_no_rules() {
    refused(
        &[("notes.txt", "nothing")],
        &["."],
        expect![[r#"
        error: no rules in .: expected files ending in .yaml, .yml or .json with FalcoRule or ClusterFalcoRule manifests, or Falco rules
    "#]],
    );
}

#[test]
fn a_set_without_rules_is_not_run() {
    let folder = folder(&[("rules.yaml", "- list: names\n  items: [a]\n")]);
    let started = run(folder.path(), &["run", "rules.yaml"]);
    assert_eq!(started.code, Some(1), "{}", started.stderr);
    assert!(started.stderr.contains("no rules found"), "{}", started.stderr);
}

#[test]
fn every_mistake_is_told_not_only_the_first() {
    let one = GOOD.replace("proc.name", "proc.nmae");
    let two = GOOD.replace("evt.type", "evt.tpye").replace("A shell", "Another");
    let folder = folder(&[("one.yaml", &one), ("two.yaml", &two)]);
    let checked = run(folder.path(), &["check", "one.yaml", "two.yaml", "three.yaml"]);
    assert_eq!(checked.code, Some(1));
    for place in ["one.yaml:3:36", "two.yaml:3:14", "three.yaml"] {
        assert!(checked.stderr.contains(place), "no {place} in {}", checked.stderr);
    }
}

/// A copy of the program that anybody may run, for build folders are not always open to others.
///
/// Another process makes it: while this one holds it open for writing, a program that another test starts inherits that,
/// and the copy cannot be executed.
fn open_to_all(folder: &Path) -> PathBuf {
    let program = folder.join("gyrfalcon");
    let copied = Command::new("cp").arg(GYRFALCON).arg(&program).status();
    assert!(copied.is_ok_and(|status| status.success()), "a copy in a temporary folder");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("our folder");
    program
}

#[test]
fn a_folder_that_may_not_be_read_is_told_with_a_remedy() {
    let folder = folder(&[]);
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("a folder in a temporary folder");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("our folder");
    let mut command = Command::new(open_to_all(folder.path()));
    command.args(["check", "closed"]).current_dir(folder.path());
    if fs::read_dir(&closed).is_ok() {
        // Nothing is closed to root.
        command.uid(65534).gid(65534);
    }
    let ended = end(command);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    expect![[r#"
        error: cannot read closed: permission denied; run with sudo or change its mode: Permission denied (os error 13)
    "#]]
    .assert_eq(&ended.stderr);
}

#[test]
fn wrong_arguments_are_the_users_mistake() {
    let folder = folder(&[("rules.yaml", GOOD)]);
    for args in [
        &["frobnicate"][..],
        &["check"],
        &["run", "--minimum-priority", "loud", "rules.yaml"],
        &["run", "--rule-matching", "some", "rules.yaml"],
        &["run", "--append-output", "%proc.nmae", "rules.yaml"],
    ] {
        let ended = run(folder.path(), args);
        assert_eq!(ended.code, Some(1), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{args:?} fails without a word");
    }
}

#[test]
fn the_repositorys_own_configuration_is_fine() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    for path in [config.join("rules"), config.join("samples")] {
        let ended = run(&config, &[OsStr::new("check"), path.as_os_str()]);
        assert_eq!(ended.code, Some(0), "check {}: {}", path.display(), ended.stderr);
        assert!(ended.stdout.contains("are fine"), "{}", ended.stdout);
    }
}

#[test]
fn check_prints_falcos_results_as_json() {
    let folder = folder(&[("good.yaml", GOOD), ("bad.yaml", &GOOD.replace("proc.name", "proc.nmae"))]);
    let results = |file: &str, code: i32| {
        let ended = run(folder.path(), &["check", "--json", file]);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        let json: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        json["falco_load_results"][0].clone()
    };
    let good = results("good.yaml", 0);
    assert_eq!((&good["name"], &good["successful"]), (&"good.yaml".into(), &true.into()));
    let bad = results("bad.yaml", 1);
    assert_eq!((&bad["name"], &bad["successful"]), (&"bad.yaml".into(), &false.into()));
    let error = &bad["errors"][0];
    assert_eq!(error["code"], "LOAD_ERR_COMPILE_CONDITION");
    assert_eq!(error["context"]["locations"][0]["item_name"], "A shell");
}

#[test]
fn fields_are_listed_with_what_they_mean() {
    let folder = folder(&[]);
    let ended = run(folder.path(), &["fields", "proc.exep"]);
    assert_eq!(ended.code, Some(0));
    expect![[r#"
        proc.exepath                       Text       kernel-resolved path of the executable
    "#]]
    .assert_eq(&ended.stdout);
    let ended = run(folder.path(), &["fields", "--json"]);
    let fields: Vec<Value> = serde_json::from_str(&ended.stdout).expect("JSON");
    assert!(fields.len() > 200, "{} fields", fields.len());
    assert!(fields.iter().any(|field| field["name"] == "fd.realpath" && field["waiting"] == false));
}

#[test]
fn events_are_listed_with_their_parameters() {
    let folder = folder(&[]);
    let ended = run(folder.path(), &["events", "openat2"]);
    assert_eq!(ended.code, Some(0));
    expect![[r#"
        openat2                  collected  fd dirfd name flags mode resolve dev ino
    "#]]
    .assert_eq(&ended.stdout);
    let ended = run(folder.path(), &["events", "--json"]);
    let events: Vec<Value> = serde_json::from_str(&ended.stdout).expect("JSON");
    for row in abi::syscalls::SYSCALLS {
        let event = events.iter().find(|event| event["name"] == row.name);
        let event = event.unwrap_or_else(|| panic!("{} is traced and not listed", row.name));
        assert_eq!(event["collected"], true, "{}", row.name);
    }
}

#[test]
fn tests_inside_of_resources_are_run() {
    let rule = |count: u32| {
        format!(
            "apiVersion: gyrfalcon.dev/v1alpha1\nkind: FalcoRule\nmetadata: {{name: curl, namespace: shop}}\nspec:\n  rule:\n    condition: evt.type = execve and proc.name = curl\n    output: o\n    priority: INFO\n  tests:\n  - name: curl fires\n    events:\n    - {{evt.type: execve, proc.name: curl}}\n    expect:\n    - {{rule: curl, count: {count}}}\n"
        )
    };
    let folder = folder(&[("good.yaml", &rule(0)), ("bad.yaml", &rule(1))]);
    let ended = run(folder.path(), &["test", "good.yaml"]);
    assert_eq!((ended.code, &*ended.stdout), (Some(0), "1 tests passed, 0 failed, in 1 resources\n"));
    let ended = run(folder.path(), &["test", "bad.yaml"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    expect![[r#"
        bad.yaml:10:5: FalcoRule/shop/curl: test `curl fires` failed
          - want  curl: 1
          + got   curl: 0
              events[0] does not: it is not of the namespace, pods or nodes of the rule
          help  a FalcoRule does not see the host: give the event `k8s.ns.name: shop`
        0 tests passed, 1 failed, in 1 resources
    "#]]
    .assert_eq(&ended.stdout);
    let ended = run(folder.path(), &["test", "--json", "bad.yaml"]);
    let json: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(json["resources"][0]["failures"][0]["got"], "curl: 0");
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let ended = run(folder.path(), &[OsStr::new("test"), samples.as_os_str()]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(!ended.stdout.starts_with("0 tests"), "{}", ended.stdout);
}

#[test]
fn the_other_commands_print_something_sensible() {
    let folder = folder(&[]);
    let printed = |args: &[&str], words: &[&str]| {
        let ended = run(folder.path(), args);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        for word in words {
            assert!(ended.stdout.contains(word), "{args:?}: no {word} in {}", ended.stdout);
        }
    };
    printed(&["sinks"], &["stdout\n", "file\n", "webhook\n", "slack\n"]);
    printed(&["completions", "bash"], &["_gyrfalcon()", "--append-output"]);
    printed(&["--help"], &["run", "check", "fields", "events", "sinks", "doctor", "completions"]);
    printed(&["--version"], &["gyrfalcon "]);
}

#[test]
fn doctor_says_what_this_kernel_permits() {
    let folder = folder(&[]);
    let ended = run(folder.path(), &["doctor"]);
    // Whether it permits anything depends on the machine and on who asks.
    assert!(matches!(ended.code, Some(0 | 2)), "{:?}", ended.code);
    assert!(ended.stdout.contains("BTF"), "{}", ended.stdout);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = folder(&[]);
    for args in [&["events", "--json"][..], &["fields"], &["events"], &["sinks"], &["completions", "bash"]] {
        let mut child =
            command(folder.path(), args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
        // As `head` does.
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        child.wait().expect("our child");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
}
