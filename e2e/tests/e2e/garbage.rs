//! Bad input of every kind, through a real API server: each gets a refusal, or a status with reason, place and remedy, and
//! nobody else is disturbed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::{Cluster, Namespace, try_wait_for};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::case;
use crate::steps::{
    condition, container_of, falco_rule, installed, past_the_webhook, ready, restarts, rule, wait_hits,
};

pub fn trials() -> Vec<Trial> {
    vec![case("garbage_is_refused_with_its_place_and_disturbs_nobody", garbage)]
}

/// What becomes of a resource.
enum Fate {
    /// It is not stored; the API server says this.
    Refused(&'static str),
    /// It is stored, and not accepted for this reason; its first error says this.
    NotAccepted(&'static str, &'static str),
    /// It is stored and runs.
    Ready,
}

use Fate::{NotAccepted, Ready, Refused};

/// The longest that a resource may take from `kubectl create` to its status; most take less than a second on a machine
/// that does nothing else.
const SOON: Duration = Duration::from_secs(30);

/// Most that an answer may take: three seconds of the webhook, and the rest.
const ANSWER: Duration = Duration::from_secs(15);

/// Most memory that the operator has ever had, in KiB: what the chart allows, less what would be too near.
const MEMORY_KIB: u64 = 450 << 10;

/// The rules file of one rule with this condition.
fn file(condition: &str) -> String {
    format!(
        "- rule: Garbage\n  desc: d\n  condition: {}\n  output: o\n  priority: INFO\n",
        serde_json::to_string(condition).unwrap_or_default()
    )
}

fn rules(text: impl Into<String>) -> Value {
    json!({"rules": text.into()})
}

/// Macros that each name the one before twice.
fn doubling(count: usize) -> String {
    let first = "- macro: m0\n  condition: proc.name = a\n".to_owned();
    let rest = (1..=count).map(|at| format!("- macro: m{at}\n  condition: m{} or m{}\n", at - 1, at - 1));
    std::iter::once(first).chain(rest).collect::<String>() + &file(&format!("evt.type = execve and m{count}"))
}

/// Lists that each contain the one before ten times.
fn tenfold(count: usize) -> String {
    let first = "- list: l0\n  items: [a, b, c]\n".to_owned();
    let rest =
        (1..=count).map(|at| format!("- list: l{at}\n  items: [{}]\n", vec![format!("l{}", at - 1); 10].join(", ")));
    std::iter::once(first).chain(rest).collect::<String>()
        + &file(&format!("evt.type = execve and proc.name in (l{count})"))
}

fn many_rules(count: usize) -> String {
    let one = |at| format!("- {{rule: r{at}, desc: d, condition: evt.type=open, output: o, priority: INFO}}\n");
    (0..count).map(one).collect()
}

fn cases() -> Vec<(&'static str, Value, Fate)> {
    let nested = |open: &str, close: &str, count| format!("{}a{}", open.repeat(count), close.repeat(count));
    let items = |count| {
        (0..count).map(|at| json!({"name": format!("i{at}"), "list": {"list": format!("l{at}"), "items": [1]}}))
    };
    let long_list: Vec<String> = (0..60_000).map(|at| format!("w{at}")).collect();
    let mut wide = rule("Garbage", "x");
    wide["condition"] = json!(format!("evt.type = execve and proc.name in ({})", long_list[..10_000].join(", ")));
    vec![
        ("wrong-type", json!({"rules": 7}), Refused("must be of type string")),
        (
            "nested-json",
            json!({"rules": (0..500).fold(json!("x"), |inner, _| json!([inner]))}),
            Refused("must be of type string"),
        ),
        ("unknown-field", json!({"rulez": "x"}), Refused("unknown field \"spec.rulez\"")),
        ("no-source", json!({"suspend": true}), Refused("exactly one of")),
        ("two-sources", json!({"rules": "x", "rule": rule("a", "b")}), Refused("exactly one of")),
        ("two-megabytes", rules("# comment\n".repeat(210_000)), Refused("Too long")),
        ("many-items", json!({"items": items(600).collect::<Vec<_>>()}), Refused("must have at most 500 items")),
        ("not-yaml", rules("- rule: [unclosed\n  desc: d\n"), NotAccepted("ParseError", "")),
        ("a-scalar", rules("just words"), NotAccepted("ParseError", "")),
        ("control-characters", rules("- rule: a\u{1}b\u{7f}\n  desc: \u{0}\n"), NotAccepted("ParseError", "")),
        ("nested-yaml", rules(nested("[", "]", 20_000)), NotAccepted("ParseError", "")),
        ("nested-maps", rules(nested("{a: ", "}", 20_000)), NotAccepted("ParseError", "")),
        (
            "a-large-value-often",
            rules(format!(
                "- list: a\n  items: &a [{}]\n- list: b\n  items: [{}]\n",
                vec!["x"; 10_000].join(", "),
                vec!["*a"; 50_000].join(", ")
            )),
            NotAccepted("ParseError", "aliases"),
        ),
        (
            "anchors",
            rules((1..=12).fold("- list: l0\n  items: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, at| {
                let before = vec![format!("*a{}", at - 1); 10].join(", ");
                format!("{text}- list: l{at}\n  items: &a{at} [{before}]\n")
            })),
            NotAccepted("ParseError", ""),
        ),
        ("parentheses", rules(file(&nested("(", ")", 10_000))), NotAccepted("CompileError", "")),
        ("nots", rules(file(&format!("{} proc.name = a", "not ".repeat(10_000)))), Ready),
        (
            "functions",
            rules(file(&format!("{} = a", nested("tolower(", ")", 10_000)))),
            NotAccepted("CompileError", ""),
        ),
        ("many-terms", rules(file(&vec!["proc.name = a"; 20_000].join(" or "))), Ready),
        ("regex-of-exponents", rules(file("evt.type = execve and proc.cmdline regex '(a+)+(b|c|d)*$'")), Ready),
        (
            "regex-too-large",
            rules(file("evt.type = execve and proc.cmdline regex '((a{1000}){1000}){1000}'")),
            NotAccepted("CompileError", ""),
        ),
        ("globs", rules(file(&format!("evt.type = execve and proc.cmdline glob '{}b'", "*a".repeat(100)))), Ready),
        ("macros", rules(doubling(40)), NotAccepted("CompileError", "")),
        (
            "a-macro-of-itself",
            rules(format!("- macro: m\n  condition: m or m\n{}", file("m"))),
            NotAccepted("CompileError", ""),
        ),
        ("lists", rules(tenfold(12)), Ready),
        (
            "a-long-list",
            rules(format!(
                "- list: l\n  items: [{}]\n{}",
                long_list.join(", "),
                file("evt.type = execve and proc.name in (l)")
            )),
            Ready,
        ),
        ("a-wide-condition", json!({"rule": wide}), Refused("spec.rule.condition: Too long")),
        ("too-many-rules", rules(many_rules(5_000)), NotAccepted("QuotaExceeded", "")),
        (
            "a-field-that-is-none",
            rules(file("evt.type = execve and proc.nme = a")),
            NotAccepted("CompileError", "did you mean"),
        ),
        ("an-operator-that-is-none", rules(file("evt.type === execve")), NotAccepted("CompileError", "")),
        ("a-bom", rules(format!("\u{feff}{}", file("evt.type = execve and proc.name = a-bom"))), Ready),
        ("windows", rules(file("evt.type = execve and proc.name = crlf").replace('\n', "\r\n")), Ready),
    ]
}

/// What comes from ConfigMaps, which hold bytes of any kind, and a megabyte of them.
fn config_maps(space: &Namespace<'_>) -> Result<Vec<(&'static str, Value, Fate)>> {
    let map = |name: &str, more: Value| {
        let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        if let (Some(map), Some(more)) = (map.as_object_mut(), more.as_object()) {
            map.extend(more.clone());
        }
        // Not applied: what was applied last is kept in an annotation, which holds a quarter of a megabyte.
        space.create_from(&map.to_string()).map(drop)
    };
    map("ten-thousand", json!({"data": {"rules.yaml": many_rules(10_000)}}))?;
    map("no-text", json!({"binaryData": {"rules.yaml": BASE64.encode(b"- list: a\n  items: [\xff\xfe]\n")}}))?;
    map("other-key", json!({"data": {"other.yaml": "x"}}))?;
    let of = |name: &str| json!({"configMapRef": {"name": name}});
    Ok(vec![
        ("ten-thousand", of("ten-thousand"), NotAccepted("QuotaExceeded", "10000")),
        ("no-text", of("no-text"), NotAccepted("RefNotFound", "")),
        ("other-key", of("other-key"), NotAccepted("RefNotFound", "rules.yaml")),
    ])
}

fn garbage(cluster: &Cluster) -> Result<()> {
    installed(cluster)?;
    let space = cluster.namespace("garbage")?;
    space.busybox("web", "sleep 1000")?;
    let operator = container_of(cluster, "operator")?;
    space.apply(&falco_rule("neighbour", &json!({"rule": rule("Neighbour", "sixteenth-word")})))?;
    ready(&space, "neighbour")?;
    let before = (restarts(cluster, "operator")?, restarts(cluster, "sensor")?);
    let mut failures = Vec::new();
    let mut said = 0;
    let of_maps = config_maps(&space)?;
    for (name, spec, fate) in cases().into_iter().chain(of_maps) {
        match one(cluster, &space, name, &spec, &fate) {
            Ok(line) => println!("{name}: {line}"),
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
        // The others go on.
        said += 1;
        space.exec("web", ["echo", "sixteenth-word"])?;
    }
    wait_hits(&space, "neighbour", said)?;
    // Who says so has unknown fields left out, with a warning.
    let manifest = falco_rule("lenient", &json!({"rulez": "x", "rule": rule("Lenient", "none")}));
    let args = ["--namespace", space.name(), "create", "--validate=warn", "--filename=-"];
    let output = cluster.kubectl_args(&args, Some(&manifest))?;
    ensure!(output.status.success() && output.stderr.contains("unknown field \"spec.rulez\""), "{}", output.stderr);
    ready(&space, "lenient")?;
    let memory = memory_kib(cluster, &operator)?;
    println!("the operator had at most {} MiB", memory >> 10);
    let after = (restarts(cluster, "operator")?, restarts(cluster, "sensor")?);
    if before != after {
        failures.push(format!("operator and sensor have begun anew: {before:?} before, {after:?} after"));
    }
    if memory > MEMORY_KIB {
        failures.push(format!("the operator had {memory} KiB"));
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Creates a resource and sees what becomes of it. Returns how long that took, and what was said.
fn one(cluster: &Cluster, space: &Namespace<'_>, name: &str, spec: &Value, fate: &Fate) -> Result<String> {
    let manifest = falco_rule(name, spec);
    let create = |dry: bool| {
        let begun = Instant::now();
        let args = ["--namespace", space.name(), "create", "--filename=-", "--dry-run=server"];
        let output = cluster.kubectl_args(if dry { &args } else { &args[..4] }, Some(&manifest))?;
        ensure!(begun.elapsed() < ANSWER, "the answer took {:?}", begun.elapsed());
        anyhow::Ok((output, begun.elapsed()))
    };
    let first = |text: &str| text.lines().next().unwrap_or_default().chars().take(200).collect::<String>();
    match fate {
        Refused(words) => {
            let (output, took) = create(false)?;
            ensure!(!output.status.success(), "it was stored");
            ensure!(output.stderr.contains(words), "{}", output.stderr);
            Ok(format!("refused in {took:?}: {}", first(&output.stderr)))
        }
        NotAccepted(reason, words) => {
            let (output, took) = create(true)?;
            // What is in a ConfigMap that nobody has asked for yet, or may come later, is not the webhook's to judge.
            let elsewhere = spec.get("configMapRef").is_some();
            ensure!(elsewhere || !output.status.success(), "the webhook let it pass: {}", output.stderr);
            let refusal = first(&output.stderr);
            past_the_webhook(cluster, || create(false)?.0.success().map(drop))?;
            let begun = Instant::now();
            let mut seen = Value::Null;
            let accepted = try_wait_for(SOON, "it has a status", || {
                seen = space.kubectl_json(["get", "falcorule", name])?["status"].take();
                Ok(condition(&json!({"status": seen}), "Accepted").cloned())
            })?;
            ensure!(accepted["status"] == "False" && accepted["reason"] == *reason, "{seen:#}");
            let message = accepted["message"].as_str().unwrap_or_default();
            let error = &seen["errors"][0];
            let place = error["line"].as_i64().is_some_and(|line| line > 0);
            ensure!(place || matches!(*reason, "QuotaExceeded" | "RefNotFound"), "no place: {seen:#}");
            ensure!(seen["errors"].to_string().contains(words), "{seen:#}");
            Ok(format!("webhook in {took:?}: {refusal}\n  status after {:?}: {message}: {error}", begun.elapsed()))
        }
        Ready => {
            let (output, took) = create(false)?;
            output.success()?;
            ready(space, name)?;
            space.kubectl(["delete", "falcorule", name])?.success()?;
            Ok(format!("stored in {took:?}, ready"))
        }
    }
}

/// The most memory that the program in a container has ever had.
fn memory_kib(cluster: &Cluster, container: &str) -> Result<u64> {
    let tasks = cluster.ctr(["tasks", "list"])?.success()?;
    let line = tasks.lines().find(|line| line.starts_with(container)).context("no such container runs")?;
    let pid = line.split_whitespace().nth(1).context("it has no process")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no memory")?;
    Ok(peak.trim().trim_end_matches("kB").trim().parse()?)
}
