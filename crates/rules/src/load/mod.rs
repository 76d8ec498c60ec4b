//! Rule files → a ruleset, in stages: read (YAML → items), collect (items → definitions), resolve (lists and macros
//! into conditions), compile (names, types, outputs).
//!
//! As in Falco, everything is compiled after each file: a file may change what earlier files defined, and may only
//! refer to what they or it have defined. All mistakes of all files are reported.

mod collect;
mod compile;
mod exception;
mod listing;
mod read;
mod resolve;
mod select;
mod version;
mod yaml;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use event::fields::EventSource;
use serde_json::json;

use self::{
    collect::Definitions,
    compile::Checked,
    read::{Item, PluginRequirement},
};
pub use self::{
    listing::{ListListing, Listing, MacroListing, RuleListing},
    select::{Selection, Selector, wildcard},
    version::{ENGINE, PLUGINS, Version},
};
use crate::{
    alert::Priority,
    diagnostic::{Code, Diagnostic, Place},
    filter::{Resolver, names::Catalogue, program::Compiler},
    ruleset::{Rule, Ruleset},
    source::{SourceMap, Span},
};

/// Largest rules file that is read. The largest official one has 95 kB.
pub const MAX_FILE_BYTES: usize = 16 << 20;

/// Which rules get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleMatching {
    /// Only the first that matches, in load order.
    #[default]
    First,
    /// All that match.
    All,
}

/// Something appended to the outputs of the rules it is for. Falco: `append_output`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppendOutput {
    /// Rules of this source only.
    pub source: Option<String>,
    /// Rules with all of these tags only.
    pub tags: Vec<String>,
    /// This rule only.
    pub rule: Option<String>,
    /// Text behind the message.
    pub extra_output: Option<String>,
    /// Output fields that aren't in the message.
    pub extra_fields: Vec<ExtraField>,
    /// The fields that the catalogue suggests, behind the message of rules on system calls.
    pub suggested_output: bool,
}

impl AppendOutput {
    /// What Falco's default configuration appends: container and pod, to every rule on system calls.
    pub fn suggested() -> Self {
        Self { suggested_output: true, ..Self::default() }
    }
}

/// An output field beyond those of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtraField {
    /// A field or transformer, under its own name and with its type.
    Field(String),
    /// Text with tokens.
    Template {
        /// The key among the output fields.
        key: String,
        /// The text.
        output: String,
    },
}

/// What the configuration says about rules.
#[derive(Clone)]
pub struct Options {
    /// Which rules get an event.
    pub rule_matching: RuleMatching,
    /// Rules less serious than this are left out.
    pub minimum_priority: Priority,
    /// The node's name in alerts.
    pub hostname: Arc<str>,
    /// What is appended to outputs, in order.
    pub append_output: Vec<AppendOutput>,
    /// Which rules are enabled, in order; later ones win, and all of them over the rules' own `enabled`.
    pub selection: Vec<Selection>,
    /// Knows host names.
    pub resolver: Option<Arc<dyn Resolver>>,
    /// The event sources that there are.
    pub sources: Vec<EventSource>,
    /// The fields that there are.
    pub catalogue: Catalogue,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rule_matching: RuleMatching::First,
            minimum_priority: Priority::Debug,
            hostname: "".into(),
            append_output: Vec::new(),
            selection: Vec::new(),
            resolver: None,
            sources: vec![EventSource::Syscall],
            catalogue: Catalogue::default(),
        }
    }
}

/// Whether a file has the shape that Falco's schema of rules describes. Informs only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// It has.
    Ok,
    /// It hasn't.
    Failed,
    /// It isn't YAML.
    None,
}

/// What became of one file.
#[derive(Debug, Clone)]
pub struct FileResult {
    /// Its name.
    pub name: Box<str>,
    /// What is wrong with it, or with what it made of earlier files.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether it has the right shape.
    pub schema: Schema,
}

impl FileResult {
    /// No diagnostic is an error.
    pub fn is_successful(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// The outcome of a load.
#[derive(Debug)]
pub struct Loaded {
    /// The rules, unless there was an error.
    pub ruleset: Option<Ruleset>,
    /// Everything that was found, in order.
    pub diagnostics: Vec<Diagnostic>,
    /// The same by file.
    pub files: Vec<FileResult>,
}

impl Loaded {
    /// The report in the form of `falco --dry-run` with JSON output.
    pub fn falco_load_results(&self) -> serde_json::Value {
        let file = |file: &FileResult| {
            let of = |errors: bool| file.diagnostics.iter().filter(|d| d.is_error() == errors).collect::<Vec<_>>();
            json!({
                "name": file.name,
                "successful": file.is_successful(),
                "errors": of(true),
                "warnings": of(false),
                "schema_validation": match file.schema {
                    Schema::Ok => "ok",
                    Schema::Failed => "failed",
                    Schema::None => "none",
                },
            })
        };
        json!({"falco_load_results": self.files.iter().map(file).collect::<Vec<_>>()})
    }
}

/// Collects what a stage finds.
pub(crate) struct Report<'m> {
    map: &'m SourceMap,
    diagnostics: Vec<Diagnostic>,
    schema_ok: bool,
}

impl Report<'_> {
    fn add(&mut self, code: Code, span: Span, message: impl Into<String>, more: impl FnOnce(Diagnostic) -> Diagnostic) {
        self.diagnostics.push(more(Diagnostic::new(code, message).at(self.map, span)));
    }

    fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.is_error()).count()
    }

    fn schema_failed(&mut self) {
        self.schema_ok = false;
    }
}

/// What holds for the rules of one file only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOptions {
    /// Rules less serious than this are left out.
    pub minimum_priority: Priority,
    /// Whether its rules are loaded at all; its lists and macros always are.
    pub rules: bool,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { minimum_priority: Priority::Debug, rules: true }
    }
}

/// What makes a diagnostic the same as another: kind, message and place.
type Seen = (Code, String, Option<(Arc<str>, u32)>);

/// Loads rule files one after the other.
pub struct Loader {
    options: Options,
    file_options: HashMap<Box<str>, FileOptions>,
    map: SourceMap,
    definitions: Definitions,
    plugins: Vec<PluginRequirement>,
    files: Vec<FileResult>,
    /// Diagnostics already given: compiling everything after each file finds some again.
    seen: HashSet<Seen>,
    checked: Vec<Checked>,
}

impl Loader {
    /// A loader without files.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            file_options: HashMap::new(),
            map: SourceMap::default(),
            definitions: Definitions::default(),
            plugins: Vec::new(),
            files: Vec::new(),
            seen: HashSet::new(),
            checked: Vec::new(),
        }
    }

    /// As [`Loader::add`], with options for the rules that the file defines. Names of files are unique.
    pub fn add_with(&mut self, name: &str, bytes: &[u8], options: FileOptions) -> &FileResult {
        self.file_options.insert(name.into(), options);
        self.add(name, bytes)
    }

    /// Adds a file, and compiles all that is known with it.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> &FileResult {
        let (diagnostics, schema) = match self.text(name, bytes) {
            Ok(text) => self.load(name, text),
            Err(diagnostic) => (vec![*diagnostic], Schema::None),
        };
        let seen = &mut self.seen;
        let fresh = diagnostics.into_iter().filter(|d| {
            let place = d.place.as_ref().map(|place: &Place| (place.source.clone(), place.offset));
            seen.insert((d.code, d.message.clone(), place))
        });
        let file = FileResult { name: name.into(), diagnostics: fresh.collect(), schema };
        self.files.push(file);
        &self.files[self.files.len() - 1]
    }

    fn text(&mut self, name: &str, bytes: &[u8]) -> Result<String, Box<Diagnostic>> {
        if bytes.len() > MAX_FILE_BYTES {
            let message = format!("{name} has {} bytes; at most {MAX_FILE_BYTES} are read", bytes.len());
            return Err(Box::new(Diagnostic::new(Code::FileTooLarge, message)));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
            let start = error.valid_up_to();
            let shown = String::from_utf8_lossy(bytes).into_owned();
            let id = self.map.add(name, shown);
            let span = Span { source: id, start: start as u32, end: start as u32 + 1 };
            Box::new(Diagnostic::new(Code::InvalidUtf8, "the file isn't UTF-8").at(&self.map, span))
        })
    }

    fn load(&mut self, name: &str, text: String) -> (Vec<Diagnostic>, Schema) {
        let id = self.map.add(name, text);
        let (documents, diagnostics) = yaml::read(&self.map, id);
        let broken = diagnostics.iter().any(Diagnostic::is_error);
        let mut report = Report { map: &self.map, diagnostics, schema_ok: true };
        self.definitions.file += 1;
        for document in &documents {
            for item in read::items(document, &mut report) {
                match item {
                    Item::EngineVersion(wanted) => version::check_engine(&wanted, &mut report),
                    Item::PluginVersions(wanted) => self.plugins.extend(wanted),
                    Item::List(_) | Item::Macro(_) | Item::Rule(_) => {
                        self.definitions.apply(item, &self.options.sources, self.options.catalogue, &mut report);
                    }
                }
            }
        }
        self.checked = compile::compile(&self.definitions, &self.options, &mut report);
        let schema = match (broken, report.schema_ok) {
            (true, _) => Schema::None,
            (false, true) => Schema::Ok,
            (false, false) => Schema::Failed,
        };
        (report.diagnostics, schema)
    }

    /// All that is defined so far, as `falco -L` describes it.
    pub fn listing(&self) -> Listing {
        listing::listing(&self.definitions, &self.checked)
    }

    /// Checks requirements and compiles the enabled rules.
    pub fn finish(mut self) -> Loaded {
        let mut report = Report { map: &self.map, diagnostics: Vec::new(), schema_ok: true };
        self.plugins.iter().for_each(|requirement| version::check_plugins(requirement, &mut report));
        for diagnostic in report.diagnostics {
            let of =
                |file: &&mut FileResult| diagnostic.place.as_ref().is_some_and(|place| *place.source == *file.name);
            if let Some(file) = self.files.iter_mut().find(of) {
                file.diagnostics.push(diagnostic);
            }
        }
        let diagnostics: Vec<_> = self.files.iter().flat_map(|file| file.diagnostics.iter().cloned()).collect();
        let failed = diagnostics.iter().any(Diagnostic::is_error);
        let files = std::mem::take(&mut self.files);
        Loaded { ruleset: (!failed).then(|| self.ruleset()), diagnostics, files }
    }

    fn ruleset(self) -> Ruleset {
        let Self { options, file_options, map, definitions, checked, .. } = self;
        let mut compiler = Compiler::new(options.resolver.clone());
        let mut rules = Vec::new();
        for checked in checked {
            let rule = &definitions.rules.entries[checked.rule];
            let enabled = select::is_enabled(rule.name.as_str(), &rule.tags, rule.enabled, &options.selection);
            let origin = map.source(rule.name.whole().source).name.clone();
            let file = file_options.get(&*origin).copied().unwrap_or_default();
            let serious = rule.priority <= options.minimum_priority.min(file.minimum_priority);
            if !enabled || !file.rules || !serious {
                continue;
            }
            rules.push(Rule {
                name: rule.name.as_str().into(),
                description: rule.desc.as_str().trim().into(),
                priority: rule.priority,
                source: Arc::from(&*rule.source),
                tags: rule.tags.iter().cloned().collect(),
                origin,
                events: checked.events,
                entry: compiler.add(&checked.condition),
                condition: checked.condition,
                output: checked.output,
                extra: checked.extra,
            });
        }
        Ruleset::new(rules, compiler.finish(), options.rule_matching, options.hostname)
    }
}
