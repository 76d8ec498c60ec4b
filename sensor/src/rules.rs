//! From files to rules that can run: which resources are loaded in which order.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use api::{
    ResourceId, Spec,
    falco::{RulesText, rules_texts},
    manifest::{self, Manifest},
    resource::load_key,
    rule::{FalcoRuleSpec, Mode},
};
use rules::{
    diagnostic::{Colour, Diagnostic},
    load::{FileOptions, Loaded, Loader, Options},
};
use sinks::SinkConfig;

use link::chain;

use crate::{
    active::{Active, Unit},
    input::{Content, File, InputError},
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
    /// Namespaced rule resources: on a host they see all of it.
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
    let colour = if colour { Colour::Always } else { Colour::Never };
    let mut messages: Vec<Message> =
        errors.iter().map(|error| Message { error: true, text: format!("error: {}\n", chain(error)) }).collect();
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
    let mut specs = Specs::new();
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
        for (part, text) in rules_texts(&id, spec).into_iter().enumerate() {
            let source = format!("{}: {id} {part}", resource.path.display());
            loader.add_with(
                &source,
                text.text.as_bytes(),
                FileOptions {
                    minimum_priority: bundle::priority(spec.minimum_priority()),
                    rules: spec.mode() != Mode::Off,
                    ..FileOptions::default()
                },
            );
            sources.insert(source, (resource, text, spec.mode()));
        }
    }

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
        let shadow = |origin: &str| sources.get(origin).is_some_and(|(.., mode)| *mode == Mode::Shadow);
        let of_rule: Vec<_> = ruleset.rules().map(|rule| usize::from(shadow(rule.origin()))).collect();
        let units = [false, true].map(|shadow| Unit { uid: "".into(), shadow, throttle: None });
        Active::new(ruleset, units.into(), |rule| of_rule.get(rule).copied())
    });
    let namespaced = resources.iter().filter(|resource| resource.manifest.id().kind.namespaced()).count();
    Compiled { active, specs, sinks, messages, loaded: results, namespaced, foreign }
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
fn lead_back(diagnostic: &mut Diagnostic, sources: &HashMap<String, (&RuleResource<'_>, RulesText<'_>, Mode)>) {
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
