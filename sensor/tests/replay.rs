//! `gyrfalcon replay` as a user sees it: recordings that this test writes, judged by rules.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use event::testing::Encoder;
use expect_test::expect;
use recording::{End, Frame, Head, Kinds, Writer};
use tempfile::TempDir;

const RULES: &str = "
- rule: Shadow read
  desc: Somebody reads password hashes.
  condition: evt.type = openat and fd.name = /etc/shadow
  output: read | cmd=%proc.cmdline cpu=%evt.cpu
  priority: WARNING
";

/// A folder with rules, and a recording of an exec and three opens.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("rules.yaml"), RULES).expect("room");
    let file = fs::File::create(folder.path().join("day.gyr")).expect("room");
    let head = Head { hostname: "web-1".into(), complete: true, kinds: Kinds::ours(), ..Head::default() };
    let mut writer = Writer::new(file, &head).expect("room");
    let second = 1_000_000_000;
    let exec = Encoder::exec().process(9, 5).comm("cat").time(second).args(&["cat", "-n"]).exepath("/bin/cat").encode();
    writer.write(&Frame::Begin).expect("room");
    writer.write(&Frame::Record(1, &exec)).expect("room");
    for (number, name) in ["/etc/passwd", "/etc/shadow", "/etc/shadow"].into_iter().enumerate() {
        let open = Encoder::syscall("openat").process(9, 5).comm("cat").time(second * (2 + number as u64)).ret(3);
        let open = open.int("fd", 3).int("dirfd", -100).text("name", name).int("flags", 0).encode();
        writer.write(&Frame::Record(number as u16, &open)).expect("room");
        // Each stands in a block of its own.
        writer.flush().expect("room");
    }
    let end = End { lost: vec![("kernel: ring_full".into(), 7)], ..End::default() };
    writer.write(&Frame::End(Box::new(end))).expect("room");
    writer.flush().expect("room");
    folder
}

/// Exit code, standard output, standard error without times.
fn replay(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon"));
    command.arg("replay").args(args).current_dir(folder).env_remove("GYRFALCON_LOG").stdin(Stdio::null());
    let output = command.output().expect("the program was built with this test");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = stderr.lines().map(|line| line.split_once("Z ").map_or(line, |(_, rest)| rest.trim_start()));
    let stderr = lines.map(|line| line.split(" seconds=").next().unwrap_or(line)).collect::<Vec<_>>().join("\n");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), stderr)
}

#[test]
fn alerts_have_the_time_of_the_recording_and_the_rest_is_summed_up() {
    let folder = folder();
    let (code, stdout, stderr) = replay(folder.path(), &["day.gyr", "rules.yaml", "--no-suggested-output"]);
    assert_eq!(code, Some(0), "{stderr}");
    expect![[r#"
        00:00:03.000000000: Warning read | cmd=cat -n cpu=1
        00:00:04.000000000: Warning read | cmd=cat -n cpu=2
    "#]]
    .assert_eq(&stdout);
    expect![[r#"
        INFO rule matched rule="Shadow read" matches=2
        WARN missing in the recording cause="kernel: ring_full" count=7
        INFO replayed events=4 alerts=2 rules=1"#]]
    .assert_eq(&stderr);
}

#[test]
fn rules_are_tested_on_a_recording() {
    let folder = folder();
    let test = |expect: &str, json: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon"));
        command.args(["test", "rules.yaml", "--recording", "day.gyr", "--expect", expect]).args(json);
        let output = command.current_dir(folder.path()).stdin(Stdio::null()).output();
        let output = output.expect("the program was built with this test");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, stdout) = test("Shadow read=2", &[]);
    assert_eq!(code, Some(0), "{stdout}");
    expect![[r#"
        day.gyr: 1 of 1 expectations met
        0 tests passed, 0 failed, in 0 resources
    "#]]
    .assert_eq(&stdout);
    let (code, stdout) = test("Shadow read=3", &[]);
    assert_eq!(code, Some(1));
    expect![[r#"
        day.gyr: the recording has other matches
          - want  Shadow read: 3
          + got   Shadow read: 2
        day.gyr: 0 of 1 expectations met
        0 tests passed, 0 failed, in 0 resources
    "#]]
    .assert_eq(&stdout);
    let (code, stdout) = test("Shadows=0", &["--json"]);
    assert_eq!(code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(json["recording"]["rules"][0], serde_json::json!({"rule": "Shadows", "want": 0, "got": null}));
}

#[test]
fn json_has_falcos_keys_and_the_recordings_host() {
    let folder = folder();
    let (_, stdout, _) = replay(folder.path(), &["day.gyr", "rules.yaml", "--json"]);
    let alert: serde_json::Value = serde_json::from_str(stdout.lines().next().expect("an alert")).expect("JSON");
    assert_eq!((&alert["hostname"], &alert["rule"]), (&"web-1".into(), &"Shadow read".into()));
    assert_eq!(alert["time"], "1970-01-01T00:00:03.000000000Z");
}

#[test]
fn a_recording_that_is_cut_off_is_judged_up_to_there() {
    let folder = folder();
    let path = folder.path().join("day.gyr");
    let bytes = fs::read(&path).expect("the recording");
    fs::write(&path, &bytes[..bytes.len() - 150]).expect("room");
    let (code, stdout, stderr) = replay(folder.path(), &["day.gyr", "rules.yaml"]);
    assert_eq!(code, Some(1));
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    assert!(stderr.contains("the recording is cut off after byte"), "{stderr}");
    assert!(stderr.contains("the recording was replayed up to here"), "{stderr}");
}

#[test]
fn other_files_are_refused_before_rules_are_read() {
    let folder = folder();
    let (code, stdout, stderr) = replay(folder.path(), &["rules.yaml", "rules.yaml"]);
    assert_eq!((code, &*stdout), (Some(1), ""));
    assert!(stderr.contains("this is no recording: `gyrfalcon record` makes them"), "{stderr}");
}

#[test]
fn rules_with_mistakes_end_it_with_their_place() {
    let folder = folder();
    fs::write(folder.path().join("rules.yaml"), RULES.replace("fd.name", "fd.nme")).expect("room");
    let (code, _, stderr) = replay(folder.path(), &["day.gyr", "rules.yaml"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("did you mean `fd.name`?"), "{stderr}");
}

#[test]
fn resources_mean_here_what_they_mean_in_a_cluster() {
    let folder = folder();
    let resource = |name: &str, spec: &str| {
        format!(
            "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterFalcoRule\nmetadata: {{name: {name}}}\nspec:\n  rules: |\n    - rule: {name}\n      desc: d\n      condition: evt.type = openat and fd.name = /etc/shadow\n      output: o\n      priority: WARNING\n      tags: [red]\n{spec}---\n"
        )
    };
    let manifests = [
        resource("plain", ""),
        resource("throttled", "  throttle: {perKey: 1, interval: 1h}\n"),
        resource("of-web", "  containerSelector: {names: [web]}\n"),
        resource("of-pods", "  includeHost: false\n"),
        resource("blue", "  tagsInclude: [blue]\n"),
        resource("shadow", "  mode: Shadow\n"),
        resource("urgent", "  minimumPriority: Critical\n"),
        resource("of-nodes", "  nodeSelector: {matchLabels: {disk: ssd}}\n"),
    ];
    fs::write(folder.path().join("rules.yaml"), manifests.concat()).expect("room");
    let args = ["day.gyr", "rules.yaml", "--rule-matching", "all", "--json"];
    let (code, stdout, stderr) = replay(folder.path(), &args);
    assert_eq!(code, Some(0), "{stderr}");
    let rule = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["rule"].clone();
    let rules: Vec<_> = stdout.lines().map(rule).collect();
    assert_eq!(rules, ["plain", "throttled", "plain"]);
    assert!(stderr.contains("of-nodes: spec.nodeSelector selects no host outside of a cluster"), "{stderr}");
}

#[test]
fn two_resources_with_a_rule_of_the_same_name_are_refused_as_in_a_cluster() {
    let folder = folder();
    let resource = |name: &str| {
        format!(
            "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterFalcoRule\nmetadata: {{name: {name}}}\nspec:\n  rule:\n    rule: same\n    condition: evt.type = openat\n    output: o\n    priority: INFO\n---\n"
        )
    };
    fs::write(folder.path().join("rules.yaml"), [resource("a"), resource("b")].concat()).expect("room");
    let (code, _, stderr) = replay(folder.path(), &["day.gyr", "rules.yaml"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("error: rules.yaml: ClusterFalcoRule/b: spec:1:1: "), "{stderr}");
}

#[test]
fn what_was_expected_of_rules_is_compared() {
    let folder = folder();
    let (code, ..) = replay(folder.path(), &["day.gyr", "rules.yaml", "--expect", "Shadow read=2"]);
    assert_eq!(code, Some(0));
    let expect = ["--expect", "Shadow read=3", "--expect", "Shadow raed=1"];
    let (code, _, stderr) = replay(folder.path(), &[&["day.gyr", "rules.yaml"][..], &expect].concat());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("matched another number of times rule=\"Shadow read\" want=3 got=2"), "{stderr}");
    assert!(stderr.contains("no such rule is loaded rule=\"Shadow raed\" did_you_mean=\"Shadow read\""), "{stderr}");
}

#[test]
fn static_fields_of_the_command_line_are_added_to_outputs() {
    let folder = folder();
    let (_, stdout, _) = replay(folder.path(), &["day.gyr", "rules.yaml", "--static-field", "site=berlin"]);
    assert!(stdout.lines().all(|line| line.ends_with(" static_site=berlin")), "{stdout}");
    let (code, ..) = replay(folder.path(), &["day.gyr", "rules.yaml", "--static-field", "a-b=c"]);
    assert_eq!(code, Some(1));
}
