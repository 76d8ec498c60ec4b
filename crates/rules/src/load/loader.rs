//! The loader: takes files one after the other, keeps what they define, and makes the ruleset.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use event::fields::EventSource;

use super::{
    FileOptions, FileResult, Layer, Listing, Loaded, MAX_FILE_BYTES, Options, Report, RuleMatching, Schema,
    cache::{self, Layer as States},
    collect::{Applying, Definitions},
    compile::Checked,
    listing,
    read::{self, Item, Mode, PluginRequirement, RuleMode},
    select, version, yaml,
};
use crate::{
    diagnostic::{Code, Diagnostic, ItemKind, Place},
    ruleset::{Rule, Ruleset},
    source::{SourceId, SourceMap, Span, Text},
};

/// One file of a unit.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its name, unique among all files.
    pub name: &'a str,
    /// Its contents.
    pub bytes: &'a [u8],
}

/// What makes a diagnostic the same as another: kind, message and place.
type Seen = (Code, String, Option<(Arc<str>, u32)>);

/// What one layer has defined, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct LayerState {
    pub(super) definitions: Definitions,
    pub(super) states: States,
}

/// Loads rule files one after the other.
pub struct Loader {
    options: Options,
    /// By name of the file.
    file_options: HashMap<Box<str>, Arc<FileOptions>>,
    map: SourceMap,
    cluster: LayerState,
    /// In the order of their first files.
    namespaces: Vec<(Box<str>, LayerState)>,
    positions: HashMap<Box<str>, usize>,
    /// The texts that conditions were parsed from.
    texts: Vec<Text>,
    files: Vec<FileResult>,
    /// Diagnostics already given: compiling again finds some again.
    seen: HashSet<Seen>,
    last: Option<Unit>,
}

/// What must be known to take the last unit back.
struct Unit {
    layer: Layer,
    /// The unit began the layer.
    new_layer: bool,
    sources: usize,
    texts: usize,
    files: usize,
    seen: Vec<Seen>,
}

impl Loader {
    /// A loader without files.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            file_options: HashMap::new(),
            map: SourceMap::default(),
            cluster: LayerState::default(),
            namespaces: Vec::new(),
            positions: HashMap::new(),
            texts: Vec::new(),
            files: Vec::new(),
            seen: HashSet::new(),
            last: None,
        }
    }

    /// Adds a file, and compiles what it changes.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> &FileResult {
        self.add_with(name, bytes, FileOptions::default())
    }

    /// As [`Loader::add`], with options for the rules that the file defines. Names of files are unique.
    pub fn add_with(&mut self, name: &str, bytes: &[u8], options: FileOptions) -> &FileResult {
        self.add_unit(&[Part { name, bytes }], options);
        &self.files[self.files.len() - 1]
    }

    /// Adds files that belong together, in their order, and compiles what they change. Files of the cluster come before
    /// those of namespaces: conditions of a namespace that was begun do not see what the cluster defines later.
    pub fn add_unit(&mut self, parts: &[Part<'_>], options: FileOptions) -> &[FileResult] {
        self.keep();
        let options = Arc::new(options.confined());
        let new_layer = match &options.layer {
            Layer::Cluster => false,
            Layer::Namespace(name) => !self.positions.contains_key(name),
        };
        let first = self.files.len();
        let mut unit = Unit {
            layer: options.layer.clone(),
            new_layer,
            sources: self.map.len(),
            texts: self.texts.len(),
            files: first,
            seen: Vec::new(),
        };
        let mut read = Vec::new();
        for part in parts {
            self.file_options.insert(part.name.into(), options.clone());
            read.push(self.read(part));
        }
        let results = self.load(parts, read, &options);
        for (part, (diagnostics, schema)) in parts.iter().zip(results) {
            let fresh = diagnostics.into_iter().filter(|d| {
                let place = d.place.as_ref().map(|place: &Place| (place.source.clone(), place.offset));
                let seen = (d.code, d.message.clone(), place);
                let fresh = self.seen.insert(seen.clone());
                if fresh {
                    unit.seen.push(seen);
                }
                fresh
            });
            let diagnostics = fresh.collect();
            self.files.push(FileResult { name: part.name.into(), diagnostics, schema });
        }
        self.last = Some(unit);
        self.files.get(first..).unwrap_or_default()
    }

    /// Takes the last file or unit back, as if it had never been added. Only once: what came before is kept.
    pub fn undo(&mut self) {
        let Some(unit) = self.last.take() else { return };
        match &unit.layer {
            Layer::Namespace(name) if unit.new_layer => {
                self.positions.remove(name);
                self.namespaces.pop();
            }
            layer => {
                if let Some(state) = self.layer_mut(layer) {
                    state.definitions.undo();
                    state.states.undo();
                }
            }
        }
        for file in self.files.drain(unit.files..) {
            self.file_options.remove(&file.name);
        }
        for seen in unit.seen {
            self.seen.remove(&seen);
        }
        self.texts.truncate(unit.texts);
        self.map.truncate(unit.sources);
    }

    /// Keeps the last unit for good.
    fn keep(&mut self) {
        if let Some(unit) = self.last.take()
            && let Some(state) = self.layer_mut(&unit.layer)
        {
            state.definitions.keep();
            state.states.keep();
        }
    }

    fn layer_mut(&mut self, layer: &Layer) -> Option<&mut LayerState> {
        match layer {
            Layer::Cluster => Some(&mut self.cluster),
            Layer::Namespace(name) => {
                let at = *self.positions.get(name)?;
                self.namespaces.get_mut(at).map(|(_, state)| state)
            }
        }
    }

    fn read(&mut self, part: &Part<'_>) -> Result<SourceId, Box<Diagnostic>> {
        let (name, bytes) = (part.name, part.bytes);
        if bytes.len() > MAX_FILE_BYTES {
            let message = format!("{name} has {} bytes; at most {MAX_FILE_BYTES} are read", bytes.len());
            return Err(Box::new(Diagnostic::new(Code::FileTooLarge, message)));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(self.map.add(name, text.to_owned())),
            Err(error) => {
                let start = error.valid_up_to();
                let shown = String::from_utf8_lossy(bytes).into_owned();
                let id = self.map.add(name, shown);
                let span = Span { source: id, start: start as u32, end: start as u32 + 1 };
                Err(Box::new(Diagnostic::new(Code::InvalidUtf8, "the file isn't UTF-8").at(&self.map, span)))
            }
        }
    }

    /// Diagnostics and shape of each part.
    fn load(
        &mut self,
        parts: &[Part<'_>],
        read: Vec<Result<SourceId, Box<Diagnostic>>>,
        options: &FileOptions,
    ) -> Vec<(Vec<Diagnostic>, Schema)> {
        let Self { map, cluster, namespaces, positions, texts, options: all, .. } = self;
        let (state, base) = match &options.layer {
            Layer::Cluster => (cluster, None),
            Layer::Namespace(name) => {
                let at = *positions.entry(name.clone()).or_insert_with(|| {
                    let mut state = LayerState { states: States::over(Some(&cluster.states)), ..LayerState::default() };
                    state.definitions.clock = cluster.definitions.clock;
                    state.states.keep();
                    namespaces.push((name.clone(), state));
                    namespaces.len() - 1
                });
                match namespaces.get_mut(at) {
                    Some((_, state)) => (state, Some(&*cluster)),
                    None => (cluster, None),
                }
            }
        };
        let definitions = &mut state.definitions;
        definitions.unit = definitions.file + 1;
        let by = Applying {
            sources: &all.sources,
            catalogue: all.catalogue,
            base: base.map(|base| &base.definitions),
            active: options.rules,
        };
        let mut results = Vec::new();
        let mut plugins = Vec::new();
        for part in read {
            definitions.file += 1;
            let id = match part {
                Ok(id) => id,
                Err(diagnostic) => {
                    results.push((vec![*diagnostic], Schema::None));
                    plugins.push(Vec::new());
                    continue;
                }
            };
            let (diagnostics, schema, required) = apply(definitions, map, id, &by);
            results.push((diagnostics, schema));
            plugins.push(required);
        }
        let mut report = Report::new(map);
        let base = base.map(|base| (&base.definitions, &base.states));
        let work = options.work.unwrap_or(all.work);
        cache::update(definitions, &mut state.states, base, (texts, work), all, &mut report);
        for diagnostic in report.diagnostics {
            let of = |name: &str| parts.iter().position(|part| part.name == name);
            let at = diagnostic.place.as_ref().and_then(|place| of(&place.source));
            if let Some((diagnostics, _)) = results.get_mut(at.unwrap_or(0)) {
                diagnostics.push(diagnostic);
            }
        }
        for ((diagnostics, _), required) in results.iter_mut().zip(plugins) {
            let mut report = Report::new(map);
            required.iter().for_each(|requirement| version::check_plugins(requirement, &mut report));
            diagnostics.append(&mut report.diagnostics);
        }
        results
    }

    /// All that the cluster's files have defined so far, as `falco -L` describes it.
    pub fn listing(&self) -> Listing {
        listing::listing(&self.cluster.definitions, self.cluster.states.checked())
    }

    /// The enabled rules that are wanted, each judged by itself ([`RuleMatching::All`]). For trying rules out.
    pub fn ruleset_of(&self, wanted: impl Fn(&RuleInfo<'_>) -> bool) -> Ruleset {
        self.ruleset(RuleMatching::All, |rule| rule.enabled && wanted(rule))
    }

    /// The rules without mistakes of all that was added and not taken back, enabled or not, in load order.
    pub fn rules(&self) -> impl Iterator<Item = RuleInfo<'_>> {
        self.layers().flat_map(move |(layer, state)| {
            state.states.checked().filter_map(move |checked| self.info(checked, layer, state))
        })
    }

    /// Where something is defined that a layer has defined itself.
    pub fn place_of(&self, layer: &Layer, kind: ItemKind, name: &str) -> Option<Place> {
        let definitions = match layer {
            Layer::Cluster => &self.cluster.definitions,
            Layer::Namespace(namespace) => &self.namespaces.get(*self.positions.get(namespace)?)?.1.definitions,
        };
        let text = match kind {
            ItemKind::Rule => &definitions.rules.get(name)?.name,
            ItemKind::Macro => &definitions.macros.get(name)?.name,
            ItemKind::List => &definitions.lists.get(name)?.name,
            ItemKind::Exception | ItemKind::EngineVersion | ItemKind::PluginVersions => return None,
        };
        Some(Place::new(&self.map, text.whole()))
    }

    /// What the cluster's files have defined.
    pub(super) fn cluster(&self) -> &Definitions {
        &self.cluster.definitions
    }

    /// Where a text stands.
    pub(super) fn place(&self, text: &Text) -> Place {
        Place::new(&self.map, text.whole())
    }

    /// Compiles the enabled rules.
    pub fn finish(mut self) -> Loaded {
        let files = std::mem::take(&mut self.files);
        let diagnostics: Vec<_> = files.iter().flat_map(|file| file.diagnostics.iter().cloned()).collect();
        let failed = diagnostics.iter().any(Diagnostic::is_error);
        Loaded { ruleset: (!failed).then(|| self.compiled()), diagnostics, files }
    }

    /// The enabled rules of all that was added and not taken back, as far as they are without mistakes: for those who
    /// have taken back whatever has some. Otherwise see [`Loader::finish`].
    pub fn compiled(&self) -> Ruleset {
        self.ruleset(self.options.rule_matching, |rule| rule.selected && rule.enabled)
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = (Option<&str>, &LayerState)> {
        let namespaces = self.namespaces.iter().map(|(name, state)| (Some(&**name), state));
        std::iter::once((None, &self.cluster)).chain(namespaces)
    }

    fn ruleset(&self, matching: RuleMatching, choose: impl Fn(&RuleInfo<'_>) -> bool) -> Ruleset {
        let mut rules = Vec::new();
        for (layer, state) in self.layers() {
            for checked in state.states.checked() {
                if self.info(checked, layer, state).is_some_and(|info| choose(&info)) {
                    rules.extend(self.rule(checked, layer, state));
                }
            }
        }
        Ruleset::new(rules, self.options.resolver.clone(), matching, self.options.hostname.clone())
    }

    pub(super) fn info<'l>(
        &'l self,
        checked: &'l Checked,
        layer: Option<&'l str>,
        state: &'l LayerState,
    ) -> Option<RuleInfo<'l>> {
        let rule = state.definitions.rules.entries.get(checked.rule)?;
        let origin = &*self.map.source(rule.name.whole().source).name;
        let options = self.file_options.get(origin);
        let selected = options.is_none_or(|options| options.selects(rule.priority, &rule.tags));
        Some(RuleInfo {
            name: rule.name.as_str(),
            origin,
            namespace: layer,
            source: rule.known_source?,
            condition: &checked.canonical,
            enabled: select::is_enabled(rule.name.as_str(), &rule.tags, rule.enabled, &self.options.selection),
            selected: selected && rule.priority <= self.options.minimum_priority,
        })
    }

    fn rule(&self, checked: &Checked, layer: Option<&str>, state: &LayerState) -> Option<Rule> {
        let rule = state.definitions.rules.entries.get(checked.rule)?;
        let origin = self.map.source(rule.name.whole().source).name.clone();
        let scope = self.file_options.get(&*origin).and_then(|options| options.scope.clone());
        Some(Rule {
            name: rule.name.as_str().into(),
            description: rule.desc.as_str().trim().into(),
            priority: rule.priority,
            source: Arc::from(&*rule.source),
            tags: rule.tags.iter().cloned().collect(),
            origin,
            layer: layer.map(Into::into),
            scope,
            events: checked.events,
            condition: checked.condition.clone(),
            output: checked.output.clone(),
            extra: checked.extra.clone(),
        })
    }
}

/// A rule of a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleInfo<'l> {
    /// Its name.
    pub name: &'l str,
    /// Name of the file that defines it.
    pub origin: &'l str,
    /// The namespace that wrote it; `None` for rules of the cluster.
    pub namespace: Option<&'l str>,
    /// Its event source.
    pub source: EventSource,
    /// Its condition with lists, macros and exceptions put in, as text.
    pub condition: &'l str,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether priority, tags and the options of its file let it be loaded.
    pub selected: bool,
}

/// Reads a file and applies its items.
fn apply(
    definitions: &mut Definitions,
    map: &SourceMap,
    id: SourceId,
    by: &Applying<'_>,
) -> (Vec<Diagnostic>, Schema, Vec<PluginRequirement>) {
    let (documents, diagnostics) = yaml::read(map, id);
    let broken = diagnostics.iter().any(Diagnostic::is_error);
    let mut report = Report::new(map);
    diagnostics.into_iter().for_each(|diagnostic| report.push(diagnostic));
    let mut plugins = Vec::new();
    for document in &documents {
        for item in read::items(document, &mut report) {
            match item {
                Item::EngineVersion(wanted) => version::check_engine(&wanted, &mut report),
                Item::PluginVersions(wanted) => plugins.extend(wanted),
                Item::List(_) | Item::Macro(_) | Item::Rule(_) => definitions.apply(item, by, &mut report),
            }
        }
    }
    let schema = match (broken, report.schema_ok) {
        (true, _) => Schema::None,
        (false, true) => Schema::Ok,
        (false, false) => Schema::Failed,
    };
    (report.diagnostics, schema, plugins)
}

/// What a rules file defines, as far as it can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Names of the rules that it defines, not those that it only changes.
    pub rules: Vec<Box<str>>,
    /// Names of the rules that it changes: by `append`, `override` or `enabled`.
    pub changes: Vec<Box<str>>,
    /// How many macros it defines.
    pub macros: usize,
    /// How many lists it defines.
    pub lists: usize,
}

impl Outline {
    /// Reads a rules file and compiles nothing.
    pub fn of(text: &str) -> Self {
        let mut outline = Self::default();
        if text.len() > MAX_FILE_BYTES {
            return outline;
        }
        let mut map = SourceMap::default();
        let id = map.add("", text.to_owned());
        let (documents, _) = yaml::read(&map, id);
        let mut report = Report::new(&map);
        for item in documents.iter().flat_map(|document| read::items(document, &mut report)) {
            match item {
                Item::Rule(rule) if rule.mode == RuleMode::Define => outline.rules.push(rule.name.as_str().into()),
                Item::Macro(item) => outline.macros += usize::from(item.mode == Mode::Define),
                Item::List(item) => outline.lists += usize::from(item.mode == Mode::Define),
                Item::Rule(rule) => outline.changes.push(rule.name.as_str().into()),
                Item::EngineVersion(_) | Item::PluginVersions(_) => {}
            }
        }
        outline
    }
}
