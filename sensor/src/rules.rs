//! From files to rules that can run: which resources are loaded in which order.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ::bundle::{Bundle, Candidate, ConfigMap, Limits, NodeFacts, Settings, accept};
use api::{
    ResourceId, Spec,
    falco::{RulesText, rules_texts},
    manifest::{self, Manifest},
    resource::load_key,
    rule::{FalcoRuleSpec, Mode},
};
use rules::{
    diagnostic::{Colour, Diagnostic},
    load::{Loaded, Loader, Options, Part},
};
use sinks::SinkConfig;

use link::chain;

use crate::{
    active::{Active, Unit},
    input::{Content, File, InputError},
    throttle::Throttle,
};

/// The specs of the rule resources that are loaded.
pub type Specs = HashMap<ResourceId, FalcoRuleSpec>;

/// What compiling gave.
pub struct Compiled {
    /// The rules; none when there is an error.
    pub active: Option<Active>,
    /// What they were made of.
    pub specs: Specs,
    /// The sinks; what is wrong with one is among the messages.
    pub sinks: Vec<SinkConfig>,
    /// Everything there is to say, errors first.
    pub messages: Vec<Message>,
    /// The loader's own results, for `check --json`; without the rules.
    pub loaded: Loaded,
    /// Namespaced rule resources: they see the pods of their namespace only.
    pub namespaced: usize,
    /// Objects that are not ours.
    pub foreign: usize,
}

/// Something to tell the user about the files.
pub struct Message {
    /// Nothing was loaded because of it.
    pub error: bool,
    /// The text, with place and remedy.
    pub text: String,
}

/// One resource with rules.
struct RuleResource<'a> {
    path: &'a Path,
    text: &'a str,
    manifest: &'a Manifest,
}

/// Compiles everything that was read.
///
/// Plain rules files come first, in the order of the command line; then the resources, by their order and name. A
/// suspended resource stays as it is in `loaded`, or out if it is not there.
pub fn compile(files: &[File], errors: &[InputError], loaded: &Specs, options: Options, colour: bool) -> Compiled {
    compile_and(files, errors, loaded, options, colour, |_| ()).0
}

/// As [`compile`]; `look` sees the loader with everything in it.
pub fn compile_and<T>(
    files: &[File],
    errors: &[InputError],
    loaded: &Specs,
    options: Options,
    colour: bool,
    look: impl FnOnce(&Loader) -> T,
) -> (Compiled, T) {
    let colour = if colour { Colour::Always } else { Colour::Never };
    let mut messages: Vec<Message> =
        errors.iter().map(|error| Message { error: true, text: format!("error: {}\n", chain(error)) }).collect();
    let (hostname, catalogue) = (options.hostname.to_string(), options.catalogue);
    let mut loader = Loader::new(options);
    let mut foreign = 0;
    let mut resources = Vec::new();
    let mut sinks = Vec::new();
    for file in files {
        match &file.content {
            Content::Rules(bytes) => {
                loader.add(&file.path.display().to_string(), bytes);
            }
            Content::Manifests { file: content, text } => {
                let name = file.path.display().to_string();
                messages.extend(content.problems.iter().map(|p| Message { error: true, text: p.render(&name, text) }));
                foreign += content.foreign.len();
                for manifest in &content.manifests {
                    match manifest.resource.spec() {
                        Spec::Rules(_) => resources.push(RuleResource { path: &file.path, text, manifest }),
                        Spec::Sink(_) => sinks.extend(sink(&file.path, manifest, &mut messages)),
                        // Settings and reports of a cluster.
                        Spec::Config(_) | Spec::Node => {}
                    }
                }
            }
        }
    }
    messages.extend(duplicates(files));

    resources.sort_by_cached_key(|resource| match resource.manifest.resource.spec() {
        Spec::Rules(spec) => Some(load_key(&resource.manifest.id(), spec)),
        Spec::Sink(_) | Spec::Config(_) | Spec::Node => None,
    });
    let mut sources = HashMap::new();
    let mut units = Vec::new();
    let mut specs = Specs::new();
    let node = NodeFacts { name: hostname, ..NodeFacts::default() };
    for resource in &resources {
        let Spec::Rules(spec) = resource.manifest.resource.spec() else { continue };
        let id = resource.manifest.id();
        let spec = match (spec.suspended(), loaded.get(&id)) {
            (false, _) => spec,
            (true, Some(before)) => before,
            (true, None) => continue,
        };
        if spec.config_map_ref.is_some() {
            let place = resource.manifest.place(&api::problem::Path::default().key("spec").key("configMapRef"));
            let (path, line, column) = (resource.path.display(), place.line, place.column);
            let text = format!(
                "error: {path}:{line}:{column}: {id}: spec.configMapRef: there is no cluster to read it from; write its text in spec.rules\n"
            );
            messages.push(Message { error: true, text });
        }
        specs.insert(id.clone(), spec.clone());
        let selected = node.is_selected(spec.node_selector.as_ref());
        if !selected {
            let place = resource.manifest.place;
            let (path, line, column) = (resource.path.display(), place.line, place.column);
            let text = format!(
                "warning: {path}:{line}:{column}: {id}: spec.nodeSelector selects no host outside of a cluster: its rules do not run\n"
            );
            messages.push(Message { error: false, text });
        }
        let unit = units.len();
        units.push((&resource.path, id.clone(), spec));
        let texts = rules_texts(&id, spec);
        let names: Vec<_> = (0..texts.len()).map(|part| format!("{}: {id} {part}", resource.path.display())).collect();
        let parts: Vec<_> =
            names.iter().zip(&texts).map(|(name, text)| Part { name, bytes: text.text.as_bytes() }).collect();
        let work = Limits::default().work(id.kind);
        loader.add_unit(&parts, bundle::file_options(&id, spec, selected, Some(work)));
        sources.extend(names.into_iter().zip(texts).map(|(name, text)| (name, (resource, text, unit))));
    }
    messages.extend(claims(&units));

    let seen = look(&loader);
    let mut results = loader.finish();
    let by_file = results.files.iter_mut().flat_map(|file| &mut file.diagnostics);
    for diagnostic in results.diagnostics.iter_mut().chain(by_file) {
        lead_back(diagnostic, &sources);
    }
    messages.extend(
        results.diagnostics.iter().map(|d| Message { error: d.is_error(), text: format!("{}\n", d.render(colour)) }),
    );
    messages.sort_by_key(|message| !message.error);
    let failed = messages.iter().any(|message| message.error);
    let active = results.ruleset.take().filter(|_| !failed).map(|ruleset| {
        let of = |origin: &str| sources.get(origin).map(|(.., unit)| *unit);
        let of_rule: Vec<_> = ruleset.rules().map(|rule| of(rule.origin())).collect();
        let unit = |(_, id, spec): &(_, ResourceId, &FalcoRuleSpec)| Unit {
            uid: "".into(),
            shadow: spec.mode() == Mode::Shadow,
            throttle: Throttle::of(spec.throttle.as_ref(), &id.to_string(), catalogue),
        };
        Active::new(ruleset, units.iter().map(unit).collect(), |rule| of_rule.get(rule).copied().flatten())
    });
    let namespaced = resources.iter().filter(|resource| resource.manifest.id().kind.namespaced()).count();
    (Compiled { active, specs, sinks, messages, loaded: results, namespaced, foreign }, seen)
}

/// What a cluster refuses of sound resources: more than they may have, or what another one has already.
fn claims(units: &[(&&Path, ResourceId, &FalcoRuleSpec)]) -> Vec<Message> {
    let candidate = |(number, (_, id, spec)): (usize, &(_, ResourceId, &FalcoRuleSpec))| Candidate {
        id: id.clone(),
        uid: format!("{number:08}"),
        generation: 1,
        created: 0,
        spec: FalcoRuleSpec { tests: Vec::new(), ..(*spec).clone() },
        config_map: ConfigMap::None,
        percent: None,
    };
    let candidates: Vec<_> = units.iter().enumerate().map(candidate).collect();
    let accepted = accept(&candidates, &Bundle::default(), &Settings::default(), &Limits::default());
    let of_unit = |(path, id, _): &(&&Path, ResourceId, &FalcoRuleSpec)| {
        let verdict = accepted.verdicts.get(id)?;
        let claim = verdict.errors.iter().find(|problem| matches!(problem.code, "name-conflict" | "quota-exceeded"))?;
        Some(Message { error: true, text: format!("error: {}: {id}: {claim}\n", path.display()) })
    };
    units.iter().filter_map(of_unit).collect()
}

fn sink(path: &Path, manifest: &Manifest, messages: &mut Vec<Message>) -> Option<SinkConfig> {
    match SinkConfig::from_resource(&manifest.resource)? {
        Ok(config) => Some(config),
        Err(error) => {
            let place = manifest.place;
            let text = format!("error: {}:{}:{}: {}\n", path.display(), place.line, place.column, chain(&error));
            messages.push(Message { error: true, text });
            None
        }
    }
}

/// Resources that are given twice.
fn duplicates(files: &[File]) -> Vec<Message> {
    let (paths, manifests): (Vec<&PathBuf>, Vec<_>) = files
        .iter()
        .filter_map(|file| match &file.content {
            Content::Manifests { file: manifests, .. } => Some((&file.path, manifests)),
            Content::Rules(_) => None,
        })
        .unzip();
    let twice = manifest::duplicates(manifests);
    twice
        .into_iter()
        .filter_map(|(id, at, place)| {
            let text = format!(
                "error: {}:{}:{}: {id} is given twice; remove one of them or rename it\n",
                paths.get(at)?.display(),
                place.line,
                place.column
            );
            Some(Message { error: true, text })
        })
        .collect()
}

/// Moves a diagnostic from the text that was made of a resource to the file that the user wrote.
fn lead_back(diagnostic: &mut Diagnostic, sources: &HashMap<String, (&RuleResource<'_>, RulesText<'_>, usize)>) {
    let Some(place) = &mut diagnostic.place else { return };
    let Some((resource, text, _)) = sources.get(&*place.source) else { return };
    let at = resource.manifest.place_of(&text.origin(place.line, place.column));
    let end = resource.manifest.place_of(&text.origin(place.end_line, place.end_column));
    let count = place.lines.len();
    place.source = resource.path.display().to_string().into();
    (place.line, place.column) = (at.line, at.column);
    (place.end_line, place.end_column) = (end.line.max(at.line), end.column);
    let first = at.line.saturating_sub(1) as usize;
    place.lines = resource.text.lines().skip(first).take(count.max(1)).map(Into::into).collect();
}
