//! The tools of rule authors as a user sees them: `explain` and `convert`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use expect_test::expect;
use tempfile::TempDir;

const RULES: &str = "
- list: secrets
  items: [/etc/shadow, keys]
- list: keys
  items: [/root/.ssh/id_ed25519]
- macro: reads
  condition: evt.type in (open, openat) and evt.is_open_read = true and fd.name startswith /etc/
- rule: Any read
  desc: d
  condition: reads
  output: o
  priority: INFO
- rule: Secret read
  desc: d
  condition: reads and fd.name in (secrets) and not proc.name in (keys)
  output: read | threads=%proc.nthreads
  priority: WARNING
";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).expect("room"));
    folder
}

/// Exit code, standard output, standard error.
fn gyrfalcon(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon"));
    let output = command.args(args).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.expect("the program was built with this test");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_rule_is_explained() {
    let folder = folder(&[("rules.yaml", RULES)]);
    let (code, stdout, stderr) =
        gyrfalcon(folder.path(), &["explain", "Secret read", "rules.yaml", "--no-suggested-output"]);
    assert_eq!(code, Some(0), "{stderr}");
    expect![[r#"
        Secret read (Warning, syscall)
          rules.yaml:13:9

        as written
          reads and fd.name in (secrets) and not proc.name in (keys)

        with everything put in
          ((evt.type in (open, openat)
              and evt.is_open_read = true
              and fd.name startswith /etc/)
            and fd.name in (/etc/shadow, /root/.ssh/id_ed25519)
            and not proc.name in (/root/.ssh/id_ed25519))

        made of
          list secrets (rules.yaml:2:9), in the rule
            (/etc/shadow, keys)
          list keys (rules.yaml:4:9), in list secrets
            (/root/.ssh/id_ed25519)
          macro reads (rules.yaml:6:10), in the rule
            evt.type in (open, openat) and evt.is_open_read = true and fd.name startswith /etc/

        events
          open openat

        fields
          evt.is_open_read evt.type fd.name proc.name proc.nthreads
          without values yet: proc.nthreads

        the kernel tells of open when it
          opens for reading, path begins with /etc/shadow, /root/.ssh/id_ed25519

        the kernel tells of openat when it
          opens for reading, path begins with /etc/shadow, /root/.ssh/id_ed25519

        while only the first match counts (--rule-matching first)
          it never alerts: `Any read` comes first and matches whenever it does
    "#]]
    .assert_eq(&stdout);
    let (_, stdout, _) = gyrfalcon(folder.path(), &["explain", "Secret read", "rules.yaml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(json[0]["shadows"][0]["rule"], "Any read");
    assert_eq!(json[0]["uses"][2]["place"], "rules.yaml:6:10");
    let (code, _, stderr) = gyrfalcon(folder.path(), &["explain", "Secret raed", "rules.yaml"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("did you mean `Secret read`?"), "{stderr}");
}

#[test]
fn rules_become_a_resource_and_the_same_rules_again() {
    let folder = folder(&[("web_rules.yaml", RULES)]);
    let (code, manifest, stderr) = gyrfalcon(folder.path(), &["convert", "web_rules.yaml", "-o", "resource.yaml"]);
    assert_eq!((code, &*manifest, &*stderr), (Some(0), "", ""));
    let manifest = fs::read_to_string(folder.path().join("resource.yaml")).expect("written");
    assert!(manifest.starts_with(
        "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterFalcoRule\nmetadata:\n  name: web-rules\nspec:\n  rules: |2\n\n    - list: secrets\n"
    ));
    let (code, back, stderr) = gyrfalcon(folder.path(), &["convert", "resource.yaml"]);
    assert_eq!((code, &*back, &*stderr), (Some(0), RULES, ""));
    let (code, ..) = gyrfalcon(folder.path(), &["convert", "resource.yaml", "web_rules.yaml"]);
    assert_eq!(code, Some(1), "one after the other");
}

#[test]
fn what_a_rules_file_cannot_say_is_named() {
    let resource = "apiVersion: gyrfalcon.dev/v1alpha1\nkind: FalcoRule\nmetadata: {name: a, namespace: shop}\nspec:\n  mode: Shadow\n  throttle: {perKey: 1, interval: 1m}\n  rule:\n    rule: A\n    condition: evt.type = open # why\n    output: o\n    priority: INFO\n";
    let folder = folder(&[("a.yaml", resource)]);
    let (code, stdout, stderr) = gyrfalcon(folder.path(), &["convert", "a.yaml"]);
    assert_eq!(code, Some(0));
    expect![[r#"
        - rule: "A"
          desc: ""
          condition: |2-
            evt.type = open
          output: |2-
            o
          priority: "Informational"
    "#]]
    .assert_eq(&stdout);
    expect![[r#"
        warning: FalcoRule/shop/a: its namespace is not in the rules file: the rules see everything there
        warning: FalcoRule/shop/a: spec.mode is not in the rules file: the rules alert there
        warning: FalcoRule/shop/a: spec.throttle is not in the rules file: Falco has no such thing
    "#]]
    .assert_eq(&stderr);
}

/// The official rulesets, if they are there: the resource compiles to the same rules.
#[test]
fn official_rulesets_are_the_same_rules_as_resources() {
    let Some(rulesets) = std::env::var_os("GYRFALCON_FALCO_RULES") else {
        return eprintln!("ignored: GYRFALCON_FALCO_RULES does not name a folder with Falco's rules");
    };
    for entry in fs::read_dir(rulesets).expect("a folder").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a rules file");
        let folder = folder(&[("rules.yaml", &text)]);
        let (code, ..) = gyrfalcon(folder.path(), &["convert", "rules.yaml", "-o", "resource.yaml"]);
        assert_eq!(code, Some(0));
        let names = text.lines().filter_map(|line| line.strip_prefix("- rule: ")).map(|name| name.trim_matches('"'));
        let mut compared = 0;
        // Each is a run of the program.
        for name in names.step_by(7) {
            let explained = |file: &str| {
                let (code, stdout, stderr) = gyrfalcon(folder.path(), &["explain", name, file, "--json"]);
                assert_eq!(code, Some(0), "{name}: {stderr}");
                let mut json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
                let rule = &mut json[0];
                for used in rule["uses"].as_array_mut().into_iter().flatten() {
                    used["place"] = serde_json::Value::Null;
                }
                rule["place"] = serde_json::Value::Null;
                json
            };
            assert_eq!(explained("rules.yaml"), explained("resource.yaml"), "{name}");
            compared += 1;
        }
        assert!(compared > 2, "{}", entry.path().display());
    }
}

#[test]
fn fields_with_several_values_are_written_as_lists_in_tests() {
    let resource = "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterFalcoRule\nmetadata: {name: a}\nspec:\n  rule:\n    rule: A\n    condition: evt.type = execve and proc.aname = sshd and fd.sport in (22, 80)\n    output: o\n    priority: INFO\n  tests:\n  - name: by ancestors\n    events:\n    - {evt.type: execve, proc.aname: [bash, sshd], fd.sport: 22}\n    - {evt.type: execve, proc.aname: [bash, cron], fd.sport: 22}\n    expect: [{rule: A, count: COUNT}]\n";
    let folder = folder(&[("a.yaml", &resource.replace("COUNT", "1")), ("b.yaml", &resource.replace("COUNT", "2"))]);
    let (code, stdout, stderr) = gyrfalcon(folder.path(), &["test", "a.yaml"]);
    assert_eq!((code, &*stdout), (Some(0), "1 tests passed, 0 failed, in 1 resources\n"), "{stderr}");
    let (code, stdout, _) = gyrfalcon(folder.path(), &["test", "b.yaml"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("- want  A: 2\n  + got   A: 1\n      events[0] matches\n      events[1] does not: `proc.aname = sshd` does not hold\n"), "{stdout}");
}
