//! What is wrong with a resource, placed where its author wrote it.

use std::fmt;

use api::{condition::Reason, rule::RuleProblem};
use rules::diagnostic::Code;

/// A mistake in a resource, or what is probably one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable word for the kind of problem: `unknown-field`, or Falco's class of it in [`Problem::to_status`].
    pub code: &'static str,
    /// Falco's word for the class of the problem.
    pub falco: &'static str,
    /// Whether it keeps the resource from being accepted.
    pub error: bool,
    /// The word for a condition.
    pub reason: Reason,
    /// Name of the rule, macro or list concerned.
    pub item: Option<String>,
    /// Field of the resource: `spec.rule.condition`.
    pub path: String,
    /// Line in that field, from 1.
    pub line: u32,
    /// Column in that line, from 1.
    pub column: u32,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A mistake of the resource as a whole, or of one of its fields.
    pub(crate) fn of_field(code: &'static str, reason: Reason, path: &str, message: String, help: &str) -> Self {
        Self {
            code,
            falco: "LOAD_ERR_VALIDATE",
            error: true,
            reason,
            item: None,
            path: path.to_owned(),
            line: 1,
            column: 1,
            message,
            help: Some(help.to_owned()),
        }
    }

    /// The form that a status has.
    pub fn to_status(&self) -> RuleProblem {
        let cut = |text: &str, limit: usize| text.chars().take(limit).collect::<String>();
        let help = self.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
        RuleProblem {
            rule: self.item.as_deref().map(|item| cut(item, 256)),
            code: self.falco.to_owned(),
            message: cut(&format!("{}{help}", self.message), 1024),
            path: cut(&self.path, 256),
            line: self.line,
            column: self.column,
        }
    }
}

impl fmt::Display for Problem {
    /// One line: ``spec.rules:14:16: no field `proc.nme`; did you mean `proc.name`?``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// The word for a condition.
pub(crate) fn reason(code: Code) -> Reason {
    match code {
        Code::FileTooLarge | Code::TooMuchWork => Reason::QuotaExceeded,
        Code::InvalidUtf8
        | Code::InvalidYaml
        | Code::YamlTooComplex
        | Code::DuplicateKey
        | Code::WrongShape
        | Code::MissingKey
        | Code::UnknownPriority
        | Code::AppendAndOverride
        | Code::InvalidOverride
        | Code::InvalidVersion
        | Code::UnknownItem => Reason::ParseError,
        Code::EngineTooOld | Code::PluginMissing => Reason::EngineVersion,
        Code::NothingToOverride | Code::ForeignOverride => Reason::UnresolvedOverride,
        Code::UnknownKey => Reason::UnknownField,
        Code::SourceChanged
        | Code::InvalidException
        | Code::UndefinedMacro
        | Code::MacroLoop
        | Code::ConditionTooLarge
        | Code::TooManyMistakes
        | Code::Syntax
        | Code::UnknownField
        | Code::FieldArgument
        | Code::UnknownParameter
        | Code::WrongOperator
        | Code::InvalidValue
        | Code::UnknownEventType
        | Code::InvalidRegex
        | Code::TransformerArgument
        | Code::RightHandField
        | Code::InvalidOutput
        | Code::UnknownSource
        | Code::UnsafeNaCheck
        | Code::TooManyEventTypes
        | Code::RuleSkipped
        | Code::UnusedMacro
        | Code::UnusedList
        | Code::DeprecatedAppend
        | Code::DeprecatedEnabled
        | Code::DeprecatedField
        | Code::ExceptionWithoutValues
        | Code::DuplicateException
        | Code::InvalidMacroName
        | Code::InvalidListName
        | Code::FieldAsText
        | Code::NeedlessRegex
        | Code::PositionalArgument => Reason::CompileError,
    }
}
