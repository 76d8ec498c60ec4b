//! What is wrong with a rule file, where, and what to do about it.
//!
//! A [`Diagnostic`] is complete in itself: it carries the lines it talks about, so it can outlive the load, travel
//! to a resource's status and be printed by anyone. The codes are stable: users write them into tools and tickets.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use crate::source::{SourceMap, Span};

/// Whether the rules can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The rules aren't loaded.
    Error,
    /// They are, but not all of what was written has an effect, or the author may have meant something else.
    Warning,
}

/// Falco's classes of load results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "documented by `description`, in Falco's words")]
pub enum FalcoCode {
    ErrFileRead,
    ErrYamlParse,
    ErrYamlValidate,
    ErrCompileCondition,
    ErrCompileOutput,
    ErrValidate,
    ErrExtension,
    UnknownSource,
    UnsafeNaCheck,
    NoEvttype,
    UnknownFilter,
    UnusedMacro,
    UnusedList,
    UnknownItem,
    DeprecatedItem,
    WarningExtension,
    AppendNoValues,
    ExceptionNameNotUnique,
    InvalidMacroName,
    InvalidListName,
    CompileCondition,
    UnknownKey,
}

impl FalcoCode {
    /// The word in Falco's load results.
    pub fn name(self) -> &'static str {
        match self {
            Self::ErrFileRead => "LOAD_ERR_FILE_READ",
            Self::ErrYamlParse => "LOAD_ERR_YAML_PARSE",
            Self::ErrYamlValidate => "LOAD_ERR_YAML_VALIDATE",
            Self::ErrCompileCondition => "LOAD_ERR_COMPILE_CONDITION",
            Self::ErrCompileOutput => "LOAD_ERR_COMPILE_OUTPUT",
            Self::ErrValidate => "LOAD_ERR_VALIDATE",
            Self::ErrExtension => "LOAD_ERR_EXTENSION",
            Self::UnknownSource => "LOAD_UNKNOWN_SOURCE",
            Self::UnsafeNaCheck => "LOAD_UNSAFE_NA_CHECK",
            Self::NoEvttype => "LOAD_NO_EVTTYPE",
            Self::UnknownFilter => "LOAD_UNKNOWN_FILTER",
            Self::UnusedMacro => "LOAD_UNUSED_MACRO",
            Self::UnusedList => "LOAD_UNUSED_LIST",
            Self::UnknownItem => "LOAD_UNKNOWN_ITEM",
            Self::DeprecatedItem => "LOAD_DEPRECATED_ITEM",
            Self::WarningExtension => "LOAD_WARNING_EXTENSION",
            Self::AppendNoValues => "LOAD_APPEND_NO_VALUES",
            Self::ExceptionNameNotUnique => "LOAD_EXCEPTION_NAME_NOT_UNIQUE",
            Self::InvalidMacroName => "LOAD_INVALID_MACRO_NAME",
            Self::InvalidListName => "LOAD_INVALID_LIST_NAME",
            Self::CompileCondition => "LOAD_COMPILE_CONDITION",
            Self::UnknownKey => "LOAD_UNKNOWN_KEY",
        }
    }

    /// What the class means.
    pub fn description(self) -> &'static str {
        match self {
            Self::ErrFileRead => "The file can't be read.",
            Self::ErrYamlParse => "The text isn't YAML.",
            Self::ErrYamlValidate => "The YAML doesn't have the shape of rules.",
            Self::ErrCompileCondition => "A condition can't be compiled.",
            Self::ErrCompileOutput => "An output can't be compiled.",
            Self::ErrValidate => "Items don't fit together.",
            Self::ErrExtension => "An extension item is wrong.",
            Self::UnknownSource => "The rule is for an event source that isn't there; it is skipped.",
            Self::UnsafeNaCheck => "A comparison with <NA> never holds: a missing value isn't text.",
            Self::NoEvttype => "The condition can hold for too many event types; that is expensive.",
            Self::UnknownFilter => "The rule names something unknown and asked to be skipped then.",
            Self::UnusedMacro => "A macro that nothing uses.",
            Self::UnusedList => "A list that nothing uses.",
            Self::UnknownItem => "An item that isn't a rule, macro, list or requirement; it is ignored.",
            Self::DeprecatedItem => "Something that will stop working.",
            Self::WarningExtension => "An extension item has a flaw.",
            Self::AppendNoValues => "An exception without values has no effect.",
            Self::ExceptionNameNotUnique => "Two exceptions of a rule share a name.",
            Self::InvalidMacroName => "A macro whose name can't be used in a condition.",
            Self::InvalidListName => "A list whose name can't be used in a condition.",
            Self::CompileCondition => "A condition may not mean what it says.",
            Self::UnknownKey => "A key that has no meaning here; it is ignored.",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $severity:ident, $falco:ident;)+) => {
        /// Every kind of mistake. The name is stable; severity and Falco's class are fixed by it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every code, for docs/diagnostics.md.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name: `unknown-field`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether it prevents loading.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }

            /// Falco's class.
            pub fn falco(self) -> FalcoCode {
                match self { $(Self::$variant => FalcoCode::$falco,)+ }
            }

            /// One or two sentences for docs/diagnostics.md.
            pub fn doc(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

codes! {
    /// The file is larger than the loader accepts.
    FileTooLarge = "file-too-large", Error, ErrFileRead;
    /// The file isn't UTF-8.
    InvalidUtf8 = "invalid-utf8", Error, ErrYamlParse;
    /// The text isn't YAML.
    InvalidYaml = "invalid-yaml", Error, ErrYamlParse;
    /// YAML nests deeper, or its aliases expand to more, than the loader accepts.
    YamlTooComplex = "yaml-too-complex", Error, ErrYamlParse;
    /// A key stands twice in one mapping; the first one counts, as in Falco.
    DuplicateKey = "duplicate-key", Warning, UnknownKey;
    /// A value has the wrong shape: a sequence where text is expected, `enabled: maybe`.
    WrongShape = "wrong-shape", Error, ErrYamlValidate;
    /// A required key is absent.
    MissingKey = "missing-key", Error, ErrYamlValidate;
    /// A priority that Falco doesn't know.
    UnknownPriority = "unknown-priority", Error, ErrYamlValidate;
    /// `append: true` and `override` exclude each other.
    AppendAndOverride = "append-and-override", Error, ErrYamlValidate;
    /// An override names a key that can't be overridden in this way.
    InvalidOverride = "invalid-override", Error, ErrYamlValidate;
    /// A version that isn't a number or `major.minor.patch`.
    InvalidVersion = "invalid-version", Error, ErrYamlValidate;
    /// The rules need a newer engine than this one.
    EngineTooOld = "engine-too-old", Error, ErrValidate;
    /// The rules need a plugin, or a version of it, that isn't there.
    PluginMissing = "plugin-missing", Error, ErrValidate;
    /// Appending to, or overriding, something that hasn't been defined before.
    NothingToOverride = "nothing-to-override", Error, ErrValidate;
    /// A namespace appends to, overrides, enables or disables something that belongs to the cluster.
    ForeignOverride = "foreign-override", Error, ErrValidate;
    /// A rule is defined again for another event source.
    SourceChanged = "source-changed", Error, ErrValidate;
    /// An exception whose fields, comparisons and values don't fit together.
    InvalidException = "invalid-exception", Error, ErrValidate;
    /// A macro that isn't defined, or not yet at this point.
    UndefinedMacro = "undefined-macro", Error, ErrValidate;
    /// A macro that refers to itself.
    MacroLoop = "macro-loop", Error, ErrValidate;
    /// A condition that grows too large once lists and macros are put in.
    ConditionTooLarge = "condition-too-large", Error, ErrCompileCondition;
    /// The conditions of files that are loaded together are too much work: too many regular expressions, or macros and
    /// lists that make them too long.
    TooMuchWork = "too-much-work", Error, ErrCompileCondition;
    /// More mistakes than are reported at once.
    TooManyMistakes = "too-many-mistakes", Error, ErrValidate;
    /// The condition can't be parsed.
    Syntax = "syntax", Error, ErrCompileCondition;
    /// No such field, or not for this event source.
    UnknownField = "unknown-field", Error, ErrCompileCondition;
    /// The field takes no argument, needs one, or needs one of another kind.
    FieldArgument = "field-argument", Error, ErrCompileCondition;
    /// `evt.arg.x` names a parameter that no event has.
    UnknownParameter = "unknown-parameter", Error, ErrCompileCondition;
    /// The comparison can't be used with a field of this type.
    WrongOperator = "wrong-operator", Error, ErrCompileCondition;
    /// The constant isn't a value of the field's type.
    InvalidValue = "invalid-value", Error, ErrCompileCondition;
    /// `evt.type` is compared with something that isn't an event.
    UnknownEventType = "unknown-event-type", Error, ErrCompileCondition;
    /// A regular expression that doesn't compile, or is too large.
    InvalidRegex = "invalid-regex", Error, ErrCompileCondition;
    /// A transformer is given too many, too few or unfit arguments.
    TransformerArgument = "transformer-argument", Error, ErrCompileCondition;
    /// The right-hand field can't be compared with the left-hand one.
    RightHandField = "right-hand-field", Error, ErrCompileCondition;
    /// The output names a field that doesn't exist, or is cut short.
    InvalidOutput = "invalid-output", Error, ErrCompileOutput;
    /// The rule is for an event source that isn't there; it is skipped.
    UnknownSource = "unknown-source", Warning, UnknownSource;
    /// A comparison with the text `<NA>` never holds for a missing value.
    UnsafeNaCheck = "unsafe-na-check", Warning, UnsafeNaCheck;
    /// The condition doesn't narrow the event types down.
    TooManyEventTypes = "too-many-event-types", Warning, NoEvttype;
    /// A rule with `skip-if-unknown-filter` names something unknown and is skipped.
    RuleSkipped = "rule-skipped", Warning, UnknownFilter;
    /// A macro that nothing uses.
    UnusedMacro = "unused-macro", Warning, UnusedMacro;
    /// A list that nothing uses.
    UnusedList = "unused-list", Warning, UnusedList;
    /// An item that is none of rule, macro, list, required_engine_version, required_plugin_versions.
    UnknownItem = "unknown-item", Warning, UnknownItem;
    /// The key `append` is deprecated in favour of `override`.
    DeprecatedAppend = "deprecated-append", Warning, DeprecatedItem;
    /// An item that only sets `enabled` is deprecated in favour of `override`.
    DeprecatedEnabled = "deprecated-enabled", Warning, DeprecatedItem;
    /// A field that will go away.
    DeprecatedField = "deprecated-field", Warning, DeprecatedItem;
    /// An exception is appended to, without values.
    ExceptionWithoutValues = "exception-without-values", Warning, AppendNoValues;
    /// Two exceptions of a rule share a name.
    DuplicateException = "duplicate-exception", Warning, ExceptionNameNotUnique;
    /// A macro whose name isn't an identifier can't be used.
    InvalidMacroName = "invalid-macro-name", Warning, InvalidMacroName;
    /// A list whose name isn't a bare word can't be used.
    InvalidListName = "invalid-list-name", Warning, InvalidListName;
    /// A constant that reads like a field or transformer.
    FieldAsText = "field-as-text", Warning, CompileCondition;
    /// A regular expression that a plain operator does better.
    NeedlessRegex = "needless-regex", Warning, CompileCondition;
    /// An argument of an event is named by its place, which says little and may change.
    PositionalArgument = "positional-argument", Warning, CompileCondition;
    /// A key that has no meaning here.
    UnknownKey = "unknown-key", Warning, UnknownKey;
}

/// A place in a source, with the lines it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the source.
    pub source: Arc<str>,
    /// Byte offset in the source.
    pub offset: u32,
    /// First line, from 1.
    pub line: u32,
    /// First column in characters, from 1.
    pub column: u32,
    /// Last line.
    pub end_line: u32,
    /// Column behind the last character.
    pub end_column: u32,
    /// The lines from `line` to `end_line`, at most [`Place::LINES`] of them.
    pub lines: Box<[Box<str>]>,
    /// How many characters were cut off at the left of the lines, as they are very long.
    pub cut: u32,
}

impl Place {
    /// How many lines a place quotes at most.
    pub const LINES: u32 = 6;
    /// How many characters of a line it quotes at most.
    const WIDTH: usize = 160;
    /// How many of them stand before the column, when the beginning of the line is cut off.
    const CONTEXT: u32 = 60;

    /// Resolves a span.
    pub fn new(map: &SourceMap, span: Span) -> Self {
        let source = map.source(span.source);
        let start = source.position(span.start);
        let covered = source.text.get(span.start as usize..span.end as usize).unwrap_or_default();
        let end = source.position(span.start + covered.trim_end().len().max(1).min(covered.len()) as u32);
        let last = end.line.min(start.line + Self::LINES - 1);
        let far = start.column as usize > Self::WIDTH - Self::CONTEXT as usize;
        let cut = if far && start.line == last { start.column - Self::CONTEXT } else { 0 };
        let part = |line| source.line(line).chars().skip(cut as usize).take(Self::WIDTH).collect();
        let lines = (start.line..=last).map(part);
        Self {
            source: source.name.clone(),
            offset: span.start,
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            lines: lines.collect::<Vec<String>>().into_iter().map(Into::into).collect(),
            cut,
        }
    }
}

/// What an item of a rules file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// `- rule:`
    Rule,
    /// `- macro:`
    Macro,
    /// `- list:`
    List,
    /// An exception of a rule.
    Exception,
    /// `- required_engine_version:`
    EngineVersion,
    /// `- required_plugin_versions:`
    PluginVersions,
}

impl ItemKind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Macro => "macro",
            Self::List => "list",
            Self::Exception => "exception",
            Self::EngineVersion => "required_engine_version",
            Self::PluginVersions => "required_plugin_versions",
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
    /// The item it was found in.
    pub item: Option<(ItemKind, Box<str>)>,
}

impl Diagnostic {
    /// A diagnostic without a place.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, help: None, item: None }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, map: &SourceMap, span: Span) -> Self {
        self.place = Some(Place::new(map, span));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says what to do, when something is known.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Says which item it is about.
    #[must_use]
    pub fn item(mut self, kind: ItemKind, name: &str) -> Self {
        self.item = Some((kind, name.into()));
        self
    }

    /// Whether it prevents loading.
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }

    /// Shows it as text, with the source line and a caret under the culprit.
    pub fn render(&self, colour: Colour) -> Rendered<'_> {
        Rendered { diagnostic: self, colour }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(Colour::Never).fmt(f)
    }
}

/// Whether to use terminal colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI escapes.
    Always,
}

/// A diagnostic on its way to a terminal or status.
pub struct Rendered<'a> {
    diagnostic: &'a Diagnostic,
    colour: Colour,
}

impl Rendered<'_> {
    fn paint(&self, f: &mut fmt::Formatter<'_>, code: &str, text: impl fmt::Display) -> fmt::Result {
        match self.colour {
            Colour::Never => write!(f, "{text}"),
            Colour::Always => write!(f, "\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { code, message, place, help, .. } = self.diagnostic;
        let (word, tint) = match code.severity() {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        self.paint(f, tint, format_args!("{word}[{}]", code.name()))?;
        writeln!(f, ": {message}")?;
        let Some(place) = place else {
            return help.iter().try_for_each(|help| writeln!(f, "  help: {help}"));
        };
        let head = format!("{}:{}:{}", place.source, place.line, place.column);
        let margin = head.chars().count() + 2;
        for (index, line) in place.lines.iter().enumerate() {
            let line_number = place.line + index as u32;
            let text = line.replace('\t', " ");
            let indent = text.chars().count() - text.trim_start().chars().count();
            let shown = |column: u32| ((column - 1).saturating_sub(place.cut) as usize).min(text.chars().count());
            let first = if index == 0 { shown(place.column) } else { indent };
            let last = if line_number == place.end_line { shown(place.end_column) } else { text.chars().count() };
            match index {
                0 => write!(f, "  {head}")?,
                _ => write!(f, "{:margin$}", "")?,
            }
            writeln!(f, "   {}", text.trim_end())?;
            write!(f, "{:width$}", "", width = margin + 3 + first)?;
            self.paint(f, tint, "^".repeat(last.saturating_sub(first).max(1)))?;
            let is_last = index + 1 == place.lines.len();
            match help {
                Some(help) if is_last => writeln!(f, " {help}")?,
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl Serialize for Diagnostic {
    /// The form of an entry of `errors` and `warnings` in Falco's `falco_load_results`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde_json::json;
        let place = self.place.as_ref();
        let position = place.map_or_else(
            || json!({"name": "", "line": 0, "column": 0, "offset": 0}),
            |p| json!({"name": &*p.source, "line": p.line - 1, "column": p.column - 1, "offset": p.offset}),
        );
        let (kind, name) = match &self.item {
            Some((kind, name)) => (kind.name(), &**name),
            None => ("rules content", ""),
        };
        let snippet = place.map_or_else(String::new, |place| place.lines.join("\n"));
        let mut message = self.message.clone();
        if let Some(help) = &self.help {
            message.push_str(" (");
            message.push_str(help);
            message.push(')');
        }
        json!({
            "code": self.code.falco().name(),
            "codedesc": self.code.falco().description(),
            "message": message,
            "context": {
                "locations": [{"item_type": kind, "item_name": name, "position": position}],
                "snippet": snippet,
            },
        })
        .serialize(serializer)
    }
}

/// The name in `known` that is closest to `wanted`, when it is close enough to be a slip of the pen.
pub fn closest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let budget = (wanted.chars().count() / 3).min(3);
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(wanted.len()) <= budget && letters_differ(wanted, name) <= 2 * budget)
        .map(|name| (edits(wanted, name, budget), name))
        .filter(|(distance, _)| *distance <= budget)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters one word has more often than the other: a lower bound of twice the edits, at little cost.
fn letters_differ(a: &str, b: &str) -> usize {
    let mut counts = [0_i32; 256];
    a.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    b.bytes().for_each(|byte| counts[usize::from(byte)] -= 1);
    counts.iter().map(|count| count.unsigned_abs() as usize).sum()
}

/// Edits (insert, delete, replace, swap of neighbours) between two words; may stop early above `budget`.
fn edits(a: &str, b: &str, budget: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        if row.iter().min().is_none_or(|least| *least > budget + 1) {
            return budget + 1;
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_mistake_is_shown_with_its_line_and_a_caret() {
        let mut map = SourceMap::default();
        let id = map.add("rules/web.yaml", "- rule: x\n  condition: proc.nmae = nginx\n".to_owned());
        let span = Span { source: id, start: 23, end: 32 };
        let diagnostic = Diagnostic::new(Code::UnknownField, "no field `proc.nmae`")
            .at(&map, span)
            .help("did you mean `proc.name`?");
        expect![[r#"
            error[unknown-field]: no field `proc.nmae`
              rules/web.yaml:2:14     condition: proc.nmae = nginx
                                                 ^^^^^^^^^ did you mean `proc.name`?
        "#]]
        .assert_eq(&diagnostic.to_string());
    }

    #[test]
    fn a_mistake_over_several_lines_underlines_each() {
        let mut map = SourceMap::default();
        let id = map.add("a.yaml", "x: one\n   two\n".to_owned());
        let diagnostic = Diagnostic::new(Code::Syntax, "wrong").at(&map, Span { source: id, start: 3, end: 13 });
        expect![[r#"
            error[syntax]: wrong
              a.yaml:1:4   x: one
                              ^^^
                              two
                              ^^^
        "#]]
        .assert_eq(&diagnostic.to_string());
    }

    #[test]
    fn codes_have_unique_names() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn slips_of_the_pen_are_recognised() {
        assert_eq!(closest("proc.nmae", ["proc.exe", "proc.name"]), Some("proc.name"));
        assert_eq!(closest("completely", ["different"]), None);
    }
}
