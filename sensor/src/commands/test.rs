//! `gyrfalcon test`: runs the tests inside of rule resources, as the operator does before it accepts a change.
//!
//! All resources of the command line are judged together, as in a cluster that has only them: rules of a namespace see
//! only their namespace, and macros of the cluster are there for them. With a recording, its events are judged by the same rules,
//! and the matches of each compared.

use std::{fmt::Write, path::Path};

use api::{Kind, ResourceId, Spec, condition::Reason, falco::Origin, manifest::Manifest, problem, rule::FalcoRuleSpec};
use bundle::{Accepted, Bundle, Candidate, ConfigMap, Limits, Settings, Verdict, accept, trial::Failure};
use serde_json::{Value, json};

use crate::{
    cli,
    commands::replay::{self, Compared},
    exit::Exit,
    input::{self, Content, File},
    out,
};

/// A resource and where it stands.
struct Source<'a> {
    path: &'a Path,
    manifest: &'a Manifest,
}

/// Runs the tests and reports.
pub fn test(args: &cli::Test) -> Exit {
    let (files, errors) = input::read(&args.paths);
    let mut problems: Vec<String> = errors.iter().map(|error| format!("error: {}\n", link::chain(error))).collect();
    let mut candidates = Vec::new();
    let mut sources = Vec::new();
    for (number, file) in files.iter().enumerate() {
        read(file, number, &mut candidates, &mut sources, &mut problems);
    }
    let limits = Limits { explain_tests: true, ..Limits::default() };
    let accepted = accept(&candidates, &Bundle::default(), &Settings::default(), &limits);
    for (number, file) in files.iter().enumerate() {
        if matches!(file.content, Content::Rules(_)) {
            let verdict = accepted.verdicts.get(&rules_file_id(number));
            let errors = verdict.into_iter().flat_map(|verdict| &verdict.errors);
            problems.extend(errors.map(|error| format!("error: {}: {error}\n", file.path.display())));
        }
    }
    let recorded = match args.recording.as_deref().map(|file| Recorded::new(file, args)).transpose() {
        Ok(recorded) => recorded,
        Err(exit) => return exit,
    };
    let unmet = recorded.as_ref().is_some_and(|recorded| !recorded.is_met());
    let failed = unmet || !problems.is_empty() || accepted.verdicts.values().any(has_failed);
    let text = match args.json {
        true => format!("{:#}\n", as_json(&sources, &accepted, recorded.as_ref())),
        false => as_text(&sources, &accepted, recorded.as_ref()),
    };
    eprint!("{}", problems.concat());
    let printed = out::print(&text);
    if failed { Exit::Input } else { printed }
}

/// What came of a recording.
struct Recorded<'a> {
    file: &'a Path,
    rules: Vec<Compared<'a>>,
}

impl<'a> Recorded<'a> {
    fn new(file: &'a Path, args: &'a cli::Test) -> Result<Self, Exit> {
        Ok(Self { file, rules: replay::compare(file, &args.paths, &args.expect)? })
    }

    fn is_met(&self) -> bool {
        self.rules.iter().all(Compared::is_met)
    }

    fn write(&self, text: &mut String) {
        let file = self.file.display();
        for Compared { rule, want, got, close } in self.rules.iter().filter(|rule| !rule.is_met()) {
            let got = got.map_or("no such rule is loaded".to_owned(), |got| got.to_string());
            let _ = writeln!(
                text,
                "{file}: the recording has other matches\n  - want  {rule}: {want}\n  + got   {rule}: {got}"
            );
            if let Some(close) = close {
                let _ = writeln!(text, "  help  did you mean `{close}`?");
            }
        }
        let met = self.rules.iter().filter(|rule| rule.is_met()).count();
        let _ = writeln!(text, "{file}: {met} of {} expectations met", self.rules.len());
    }

    fn to_json(&self) -> Value {
        let rule = |compared: &Compared<'_>| json!({"rule": compared.rule, "want": compared.want, "got": compared.got});
        json!({"file": self.file.display().to_string(), "rules": self.rules.iter().map(rule).collect::<Vec<_>>()})
    }
}

/// Something is wrong with the resource, or one of its tests failed.
fn has_failed(verdict: &Verdict) -> bool {
    !verdict.errors.is_empty() || !verdict.trial.is_passed()
}

fn read<'a>(
    file: &'a File,
    number: usize,
    candidates: &mut Vec<Candidate>,
    sources: &mut Vec<Source<'a>>,
    problems: &mut Vec<String>,
) {
    let candidate = |id: ResourceId, uid: String, spec: FalcoRuleSpec| Candidate {
        id,
        uid,
        generation: 1,
        created: 0,
        spec,
        config_map: ConfigMap::None,
        percent: None,
    };
    match &file.content {
        Content::Rules(bytes) => {
            let rules = Some(String::from_utf8_lossy(bytes).into_owned());
            let spec = FalcoRuleSpec { rules, order: Some(0), ..FalcoRuleSpec::default() };
            candidates.push(candidate(rules_file_id(number), format!("{number:08}"), spec));
        }
        Content::Manifests { file: content, text } => {
            let name = file.path.display().to_string();
            problems.extend(content.problems.iter().map(|problem| problem.render(&name, text)));
            for manifest in &content.manifests {
                let Spec::Rules(spec) = manifest.resource.spec() else { continue };
                let id = manifest.id();
                if candidates.iter().any(|known| known.id == id) {
                    let place = manifest.place;
                    let text = format!("error: {name}:{}:{}: {id} is given twice\n", place.line, place.column);
                    problems.push(text);
                    continue;
                }
                candidates.push(candidate(id, format!("{number:08}"), spec.clone()));
                sources.push(Source { path: &file.path, manifest });
            }
        }
    }
}

/// The resource that stands for a plain rules file.
fn rules_file_id(number: usize) -> ResourceId {
    ResourceId { kind: Kind::ClusterFalcoRule, namespace: "".into(), name: format!("rules-file-{number:08}").into() }
}

/// Where a test stands.
fn place(source: &Source<'_>, failure: &Failure) -> api::Place {
    let path = problem::Path::default().key("spec").key("tests").index(failure.index);
    source.manifest.place_of(&Origin { path, line: 1, column: 1 })
}

fn as_text(sources: &[Source<'_>], accepted: &Accepted, recorded: Option<&Recorded<'_>>) -> String {
    let mut text = String::new();
    let (mut passed, mut failed) = (0, 0);
    for source in sources {
        let id = source.manifest.id();
        let Some(verdict) = accepted.verdicts.get(&id) else { continue };
        let file = source.path.display();
        passed += verdict.trial.passed as usize;
        failed += verdict.trial.failures.len();
        // Writing to a string cannot fail.
        for error in verdict.errors.iter().filter(|error| error.reason != Reason::TestsFailed) {
            let _ = writeln!(text, "{file}: {id}\n  {error}");
        }
        for failure in &verdict.trial.failures {
            let api::Place { line, column } = place(source, failure);
            let _ = writeln!(text, "{file}:{line}:{column}: {id}: test `{}` failed", failure.name);
            let _ = writeln!(text, "  - want  {}\n  + got   {}", failure.want, failure.got);
            for event in &failure.events {
                let _ = writeln!(text, "      {event}");
            }
            if let Some(help) = &failure.help {
                let _ = writeln!(text, "  help  {help}");
            }
        }
    }
    if let Some(recorded) = recorded {
        recorded.write(&mut text);
    }
    let _ = writeln!(text, "{passed} tests passed, {failed} failed, in {} resources", sources.len());
    text
}

fn as_json(sources: &[Source<'_>], accepted: &Accepted, recorded: Option<&Recorded<'_>>) -> Value {
    let resource = |source: &Source<'_>| {
        let id = source.manifest.id();
        let verdict = accepted.verdicts.get(&id)?;
        let failure = |failure: &Failure| {
            let api::Place { line, column } = place(source, failure);
            json!({
                "test": failure.name, "want": failure.want, "got": failure.got, "events": failure.events,
                "help": failure.help, "line": line, "column": column,
            })
        };
        let errors = verdict.errors.iter().filter(|error| error.reason != Reason::TestsFailed);
        Some(json!({
            "file": source.path.display().to_string(),
            "resource": id.to_string(),
            "passed": verdict.trial.passed,
            "failures": verdict.trial.failures.iter().map(failure).collect::<Vec<_>>(),
            "errors": errors.map(ToString::to_string).collect::<Vec<_>>(),
        }))
    };
    json!({
        "resources": sources.iter().filter_map(resource).collect::<Vec<_>>(),
        "recording": recorded.map(Recorded::to_json),
    })
}
