//! A user's mistake in a manifest: its place, and what to do about it.

use std::fmt;

use crate::{names::words, yaml::Place};

/// A field inside of a resource, such as `spec.items[3].rule.condition`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Step>);

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Into a mapping.
    Key(Box<str>),
    /// Into a list, counted from 0.
    Index(usize),
}

impl Path {
    /// The field of a mapping.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        self.with(Step::Key(name.into()))
    }

    /// The entry of a list, counted from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The steps, outermost first.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) if at == 0 => write!(f, "{name}")?,
                Step::Key(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

words! {
    /// What kind of mistake it is.
    pub enum ProblemKind {
        /// The text is not YAML, or YAML that no resource is written in.
        Yaml,
        /// A document is no resource: no mapping, or without `apiVersion` or `kind`.
        NoResource,
        /// The group is ours, the kind or version isn't.
        UnknownKind,
        /// A field that the kind does not have.
        UnknownField,
        /// A field that occurs twice.
        DuplicateField,
        /// A field that is needed is missing.
        MissingField,
        /// A value of another type than the field has.
        WrongType,
        /// A value that the field cannot have: too long, too large, not one of the choices.
        InvalidValue,
        /// Fields that contradict each other, or a value that is not allowed here.
        Contradiction,
    }
}

/// A mistake. `kubectl apply` reports the same one, without the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of mistake it is.
    pub kind: ProblemKind,
    /// Where in the file.
    pub place: Place,
    /// Where in the resource; empty for the resource as a whole.
    pub path: Path,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
}

impl Problem {
    /// The mistake with its line and a mark below the place.
    ///
    /// ```text
    /// error[UnknownField]: spec.webhook: no field `hedaers`
    ///   sinks.yaml:8:5   hedaers: []
    ///                    ^ did you mean `headers`?
    /// ```
    pub fn render(&self, file: &str, text: &str) -> String {
        let Place { line, column } = self.place;
        let at = format!("  {file}:{line}:{column}   ");
        let source = text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
        let lead = source.chars().take_while(|c| *c == ' ').count();
        let shown: String = source.chars().skip(lead).take(120).collect();
        let mark = " ".repeat(at.chars().count() + (column as usize).saturating_sub(1).saturating_sub(lead).min(120));
        let path = if self.path.steps().is_empty() { String::new() } else { format!("{}: ", self.path) };
        let help = self.help.as_deref().map(|help| format!(" {help}")).unwrap_or_default();
        format!("error[{}]: {path}{}\n{at}{shown}\n{mark}^{help}\n", self.kind, self.message)
    }
}

impl fmt::Display for Problem {
    /// One line: `8:5: spec.webhook: no field `hedaers`; did you mean `headers`?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.place.line, self.place.column)?;
        if !self.path.steps().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}
