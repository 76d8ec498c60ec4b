//! Rule files → a ruleset, in stages: read (YAML → items), collect (items → definitions), resolve (lists and macros
//! into conditions), compile (names, types, outputs).
//!
//! As in Falco, everything is compiled after each file, or after each unit of files that belong together: a file may
//! change what earlier files defined, and may only refer to what they or it have defined. All mistakes of all files are
//! reported. What a file does not touch is not compiled again, and the last unit can be taken back.
//!
//! Rules of a namespace are in a layer of their own over that of the cluster: see [`Layer`].

mod cache;
mod collect;
mod compile;
mod exception;
mod explain;
mod file;
mod listing;
mod read;
mod resolve;
mod select;
mod version;
mod yaml;

mod loader;

use std::sync::Arc;

use event::fields::EventSource;
use serde_json::json;

pub use self::{
    explain::{Explanation, Shadow, Use},
    file::{FileOptions, Layer},
    listing::{ListListing, Listing, MacroListing, RuleListing},
    loader::{Loader, Outline, Part, RuleInfo},
    select::{Selection, Selector, wildcard},
    version::{ENGINE, PLUGINS, Version},
};
use crate::{
    alert::Priority,
    diagnostic::{Code, Diagnostic, Severity},
    filter::{Resolver, names::Catalogue},
    ruleset::Ruleset,
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
    /// How much work the conditions of one unit may be, roughly in nodes of their trees; a regular expression counts
    /// as some thousand.
    pub work: usize,
}

impl Options {
    /// Work of one unit where nothing else is said: the largest official ruleset takes a hundredth.
    pub const WORK: usize = 5_000_000;
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
            work: Self::WORK,
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

/// Most diagnostics of one unit. Beyond, doubts are left out, and mistakes are summed up.
const MAX_DIAGNOSTICS: usize = 1000;

/// Collects what a stage finds.
pub(crate) struct Report<'m> {
    map: &'m SourceMap,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    schema_ok: bool,
}

impl<'m> Report<'m> {
    fn new(map: &'m SourceMap) -> Self {
        Self { map, diagnostics: Vec::new(), errors: 0, schema_ok: true }
    }

    fn add(&mut self, code: Code, span: Span, message: impl Into<String>, more: impl FnOnce(Diagnostic) -> Diagnostic) {
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            return self.push(more(Diagnostic::new(code, message).at(self.map, span)));
        }
        if code.severity() == Severity::Error {
            if self.diagnostics.len() == MAX_DIAGNOSTICS {
                let message = format!("more than {MAX_DIAGNOSTICS} mistakes and doubts; the rest is left out");
                self.diagnostics.push(Diagnostic::new(Code::TooManyMistakes, message).at(self.map, span));
            }
            self.errors += 1;
        }
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.is_error());
        self.diagnostics.push(diagnostic);
    }

    /// Mistakes so far.
    fn errors(&self) -> usize {
        self.errors
    }

    /// Whether there are so many diagnostics that looking for more is idle.
    fn is_full(&self) -> bool {
        self.diagnostics.len() > MAX_DIAGNOSTICS
    }

    fn schema_failed(&mut self) {
        self.schema_ok = false;
    }
}
