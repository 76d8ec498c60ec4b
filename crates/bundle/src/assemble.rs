//! Resources → a rule loader, one after the other. What does not load is taken back, so that the others go on.

use std::collections::HashMap;

use api::{
    ResourceId,
    falco::{RulesText, rules_texts},
    rule::{FalcoRuleSpec, Mode},
};
use rules::{
    diagnostic::{Diagnostic, Place},
    load::{FileOptions, Layer, Loader, Options, Part, RuleInfo},
    ruleset::Ruleset,
};

use crate::{bundle::priority, problem, problem::Problem, scope::scope};

/// How the rules of a resource are loaded: the same wherever they are, in a cluster or on a host. Rules of a namespace see
/// that namespace only. `active`: whether they are to run; `work` bounds what compiling them may cost.
pub fn file_options(id: &ResourceId, spec: &FalcoRuleSpec, active: bool, work: Option<usize>) -> FileOptions {
    FileOptions {
        minimum_priority: priority(spec.minimum_priority()),
        rules: active && spec.mode() != Mode::Off,
        tags_include: spec.tags_include.iter().map(|tag| tag.as_str().into()).collect(),
        tags_exclude: spec.tags_exclude.iter().map(|tag| tag.as_str().into()).collect(),
        scope: scope(id, spec),
        layer: layer(id),
        work,
    }
}

fn layer(id: &ResourceId) -> Layer {
    match id.kind.namespaced() {
        true => Layer::Namespace(id.namespace.clone()),
        false => Layer::Cluster,
    }
}

/// A loader with resources in it.
pub struct Assembly<'a> {
    loader: Loader,
    /// By name of the file that was made of it.
    files: HashMap<String, File<'a>>,
    names: Vec<String>,
}

struct File<'a> {
    id: ResourceId,
    resource: usize,
    text: RulesText<'a>,
    from_config_map: bool,
}

impl<'a> Assembly<'a> {
    /// Nothing yet.
    pub fn new(options: Options) -> Self {
        Self { loader: Loader::new(options), files: HashMap::new(), names: Vec::new() }
    }

    /// Adds a resource; `number` is the caller's for it. `active`: whether its rules are to run; if not, only its lists
    /// and macros are there for others to use. Gives everything there is to say, errors first; when there are errors,
    /// the resource is not there.
    pub fn add(
        &mut self,
        number: usize,
        id: &ResourceId,
        spec: &'a FalcoRuleSpec,
        active: bool,
        work: usize,
    ) -> Vec<Problem> {
        self.names.clear();
        let options = file_options(id, spec, active, Some(work));
        let layer = options.layer.clone();
        let texts = rules_texts(id, spec);
        self.names = (0..texts.len()).map(|part| format!("{id} {part}")).collect();
        let parts: Vec<_> =
            self.names.iter().zip(&texts).map(|(name, text)| Part { name, bytes: text.text.as_bytes() }).collect();
        let diagnostics: Vec<Diagnostic> =
            self.loader.add_unit(&parts, options).iter().flat_map(|file| file.diagnostics.iter().cloned()).collect();
        let from_config_map = spec.config_map_ref.is_some();
        for (name, text) in self.names.iter().zip(texts) {
            self.files.insert(name.clone(), File { id: id.clone(), resource: number, text, from_config_map });
        }
        let mut problems: Vec<_> = diagnostics.iter().map(|diagnostic| self.problem(diagnostic, &layer)).collect();
        problems.sort_by_key(|problem| !problem.error);
        if problems.first().is_some_and(|problem| problem.error) {
            self.undo();
        }
        problems
    }

    /// Takes the resource back that was added last.
    pub fn undo(&mut self) {
        self.loader.undo();
        for name in self.names.drain(..) {
            self.files.remove(&name);
        }
    }

    /// The rules that run.
    pub fn ruleset(&self) -> Ruleset {
        self.loader.compiled()
    }

    /// The rules of the resource that was added last and those of the same layer with one of these names, each judged by
    /// itself and whether it is left out or not; and the names of all rules that are known there, disabled ones too.
    pub(crate) fn on_trial(&self, id: &ResourceId, names: &[&str]) -> (Ruleset, Vec<RuleInfo<'_>>) {
        let namespace = id.kind.namespaced().then_some(&*id.namespace);
        let meant = |rule: &RuleInfo<'_>| {
            rule.namespace == namespace
                && (self.names.iter().any(|name| name == rule.origin) || names.contains(&rule.name))
        };
        let known = self.loader.rules().filter(meant).collect();
        (self.loader.ruleset_of(meant), known)
    }

    /// All rules, with the number of their resource.
    pub fn rules(&self) -> impl Iterator<Item = (Option<usize>, RuleInfo<'_>)> {
        self.loader.rules().map(|rule| (self.resource_of(rule.origin), rule))
    }

    /// The number of the resource that a file was made of.
    pub fn resource_of(&self, file: &str) -> Option<usize> {
        self.files.get(file).map(|file| file.resource)
    }

    /// Leads a diagnostic back to the resource that was added last.
    fn problem(&self, diagnostic: &Diagnostic, layer: &Layer) -> Problem {
        let mut message = diagnostic.message.clone();
        let own = |place: &&Place| self.names.iter().any(|name| **name == *place.source);
        let item = diagnostic.item.as_ref();
        let of_item = || {
            let (kind, name) = item?;
            self.loader.place_of(layer, *kind, name).filter(|place| own(&place))
        };
        let (path, line, column) = match diagnostic.place.as_ref() {
            Some(place) if own(&place) => self.lead_back(place),
            // It became wrong by what we use, or by what we changed: somewhere else.
            Some(elsewhere) => {
                if let Some(file) = self.files.get(&*elsewhere.source) {
                    let (path, line, column) = self.lead_back(elsewhere);
                    message = format!("{message} (at {} {path}:{line}:{column})", file.id);
                }
                of_item().map_or_else(|| ("spec".to_owned(), 1, 1), |place| self.lead_back(&place))
            }
            None => ("spec".to_owned(), 1, 1),
        };
        Problem {
            code: diagnostic.code.name(),
            falco: diagnostic.code.falco().name(),
            error: diagnostic.is_error(),
            reason: problem::reason(diagnostic.code),
            item: item.map(|(_, name)| name.to_string()),
            path,
            line,
            column,
            message,
            help: diagnostic.help.clone(),
        }
    }

    /// Field, line and column of a place in a text that was made of a resource.
    fn lead_back(&self, place: &Place) -> (String, u32, u32) {
        let Some(file) = self.files.get(&*place.source) else { return ("spec".to_owned(), 1, 1) };
        let origin = file.text.origin(place.line, place.column);
        let path = match file.from_config_map {
            true => origin.path.to_string().replacen("spec.rules", "spec.configMapRef", 1),
            false => origin.path.to_string(),
        };
        (path, origin.line, origin.column)
    }
}
