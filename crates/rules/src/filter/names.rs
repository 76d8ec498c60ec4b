//! Names in filters and outputs → rows of the field catalogue, with their arguments.

use std::{collections::BTreeMap, sync::LazyLock};

use event::{
    catalogue::EventType,
    fields::{Arg, ArgRule, EventSource, Field},
    params::ParamType,
    value::ValueType,
};

use super::{ast::FieldRef, typed::ValueExpr};
use crate::diagnostic::{Code, closest};

/// The fields that rules of one load may name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Catalogue {
    /// Fields beyond those of [`event::fields`]: static fields of the configuration, or those of a test.
    pub extra: &'static [Field],
    /// The event source of the rule: it decides which fields there are.
    pub source: EventSource,
    /// Values of the fields that are the same for all events: name and text.
    pub statics: &'static [(&'static str, &'static str)],
}

/// Why a name doesn't work out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    /// The kind of mistake.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl NameError {
    fn new(code: Code, message: String) -> Self {
        Self { code, message, help: None }
    }
}

/// A field with its argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resolved {
    /// The row.
    pub field: &'static Field,
    /// The argument.
    pub arg: Arg,
}

impl Resolved {
    /// The type of the value, where the row leaves it to the event parameter.
    pub fn value_type(&self) -> ValueType {
        match (&self.field.ty, &self.arg) {
            (ValueType::Dynamic, Arg::Key(param)) => match PARAMETERS.get(&**param) {
                // One event's signed parameter is another's unsigned one; the value knows, the constant need not.
                Some(ValueType::Int(_) | ValueType::Uint(_)) => ValueType::Int(64),
                Some(ty) => *ty,
                None => ValueType::Dynamic,
            },
            (ty, _) => *ty,
        }
    }
}

/// Every parameter name of every event, with the type that most of them have.
static PARAMETERS: LazyLock<BTreeMap<&'static str, ValueType>> = LazyLock::new(|| {
    let mut seen: BTreeMap<&'static str, Vec<(ValueType, usize)>> = BTreeMap::new();
    for param in EventType::all().flat_map(|ty| ty.info().params) {
        let types = seen.entry(param.name).or_default();
        let ty = value_type(param.ty);
        match types.iter_mut().find(|(known, _)| *known == ty) {
            Some((_, count)) => *count += 1,
            None => types.push((ty, 1)),
        }
    }
    let mut parameters: BTreeMap<_, _> = seen
        .into_iter()
        .filter_map(|(name, types)| Some((name, types.into_iter().max_by_key(|(_, count)| *count)?.0)))
        .collect();
    // Falco goes by the first event of its table: bind(2), whose address is a socket's.
    parameters.insert("addr", ValueType::Ip);
    parameters
});

/// What a parameter is compared as.
fn value_type(ty: ParamType) -> ValueType {
    match ty {
        ParamType::Errno | ParamType::Fd | ParamType::Pid => ValueType::Int(64),
        ParamType::Uid | ParamType::Gid | ParamType::Flags(_) | ParamType::Enum(_) | ParamType::Mode(_) => {
            ValueType::Uint(32)
        }
        ParamType::Int(bits) => ValueType::Int(bits),
        ParamType::Uint(bits) => ValueType::Uint(bits),
        ParamType::Text | ParamType::Path | ParamType::RelPath { .. } => ValueType::Text,
        ParamType::TextList | ParamType::TextPairs => ValueType::Text,
        ParamType::Bytes | ParamType::FdList => ValueType::Bytes,
        ParamType::SockAddr | ParamType::SockTuple | ParamType::Ipv4 | ParamType::Ipv6 => ValueType::Ip,
        ParamType::AbsTime => ValueType::AbsTime,
        ParamType::RelTime => ValueType::RelTime,
        ParamType::Signal => ValueType::Uint(8),
        ParamType::SignalSet => ValueType::Uint(32),
        ParamType::Port => ValueType::Port,
        ParamType::SyscallId => ValueType::Uint(16),
        ParamType::Dynamic => ValueType::Dynamic,
    }
}

impl Catalogue {
    /// This catalogue with fields that have the same text in every event: `static.KEY` for each key. They live as long as
    /// the program: a configuration is read once.
    ///
    /// # Errors
    /// A key that is no name of letters, digits and `_`.
    pub fn with_statics(self, statics: &[(String, String)]) -> Result<Self, String> {
        let is_name = |key: &str| {
            key.starts_with(|char: char| char.is_ascii_alphabetic())
                && key.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
        };
        if let Some((key, _)) = statics.iter().find(|(key, _)| !is_name(key)) {
            return Err(format!("`{key}` is no name for a static field: letters, digits and `_`, a letter first"));
        }
        let rows: Vec<(&'static str, &'static str)> =
            statics.iter().map(|(key, value)| (&*format!("static.{key}").leak(), &*value.clone().leak())).collect();
        let field = |(name, _): &(&'static str, &'static str)| {
            Field::new(name, ValueType::Text, "a static field of the configuration")
        };
        let extra: Vec<Field> = rows.iter().map(field).collect();
        Ok(Self { extra: extra.leak(), statics: rows.leak(), ..self })
    }

    /// How a field is computed: static ones are constants.
    pub(crate) fn value(&self, resolved: Resolved) -> ValueExpr {
        match self.statics.iter().find(|(name, _)| *name == resolved.field.name) {
            Some((_, value)) => ValueExpr::Literal(value.as_bytes().into()),
            None => ValueExpr::Field(resolved.field, resolved.arg),
        }
    }

    /// Whether a field has this name; what its argument must be is another question.
    pub fn has(&self, name: &str) -> bool {
        self.lookup(name).is_some_and(|(field, rest)| rest.is_empty() || takes_suffix(field.arg))
    }

    fn lookup<'a>(&self, name: &'a str) -> Option<(&'static Field, &'a str)> {
        let extra = self.extra.iter().filter_map(|field| Some((field, name.strip_prefix(field.name)?)));
        extra.chain(self.source.lookup(name)).min_by_key(|(_, rest)| rest.len())
    }

    /// Every name, for "did you mean".
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.extra.iter().chain(self.source.fields()).map(|field| field.name)
    }

    /// The field that a filter names.
    pub fn resolve(&self, wanted: &FieldRef) -> Result<Resolved, NameError> {
        let Some((field, rest)) = self.lookup(&wanted.name) else { return Err(self.unknown(&wanted.name)) };
        let complete = rest.is_empty() || rest.starts_with('.') && takes_suffix(field.arg);
        if !complete {
            return Err(self.unknown(&wanted.name));
        }
        let arg = argument(field, rest.strip_prefix('.'), wanted.arg.as_deref())?;
        Ok(Resolved { field, arg })
    }

    /// The field that an output names: the longest one that `wanted` begins with, and the length of its name.
    pub fn resolve_prefix(&self, wanted: &FieldRef) -> Result<(Resolved, usize), NameError> {
        match self.resolve(wanted) {
            Ok(resolved) => Ok((resolved, wanted.name.len())),
            Err(error) => {
                let shorter = |length: usize| {
                    let name = wanted.name.get(..length).filter(|name| name.contains('.'))?;
                    let shorter = FieldRef { name: name.into(), arg: None, at: wanted.at };
                    Some((self.resolve(&shorter).ok()?, length))
                };
                (1..wanted.name.len()).rev().find_map(shorter).ok_or(error)
            }
        }
    }

    fn unknown(&self, name: &str) -> NameError {
        let elsewhere = EventSource::ALL.into_iter().filter(|source| *source != self.source);
        let elsewhere = elsewhere.filter(|source| source.lookup(name).is_some_and(|(_, rest)| rest.is_empty()));
        let help = match (closest(name, self.names()), elsewhere.map(EventSource::name).next()) {
            (_, Some(source)) => Some(format!("it is a field of events of the source {source}")),
            (Some(name), None) => Some(format!("did you mean `{name}`?")),
            (None, None) => None,
        };
        NameError { help, ..NameError::new(Code::UnknownField, format!("no field `{name}`")) }
    }
}

fn takes_suffix(rule: ArgRule) -> bool {
    match rule {
        ArgRule::Param | ArgRule::ParamName | ArgRule::DotSuffix => true,
        ArgRule::None
        | ArgRule::OptionalIndex
        | ArgRule::OptionalKey
        | ArgRule::OptionalIndexOrKey
        | ArgRule::RequiredIndex
        | ArgRule::RequiredKey => false,
    }
}

fn argument(field: &Field, suffix: Option<&str>, brackets: Option<&[u8]>) -> Result<Arg, NameError> {
    let name = field.name;
    let wrong = |message: String| Err(NameError::new(Code::FieldArgument, message));
    let key = brackets.map(|inside| String::from_utf8_lossy(inside).into_owned());
    let index = || match &key {
        Some(key) if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit()) => key.parse().ok(),
        _ => None,
    };
    match field.arg {
        ArgRule::None => match key {
            None => Ok(Arg::None),
            Some(_) => wrong(format!("`{name}` takes no argument")),
        },
        ArgRule::OptionalIndex | ArgRule::RequiredIndex => match (&key, index()) {
            (_, Some(index)) => Ok(Arg::Index(index)),
            (None, None) if field.arg == ArgRule::OptionalIndex => Ok(Arg::None),
            (None, None) => wrong(format!("`{name}` needs an index: `{name}[0]`")),
            (Some(key), None) => wrong(format!("`{key}` isn't an index of `{name}`")),
        },
        ArgRule::OptionalKey | ArgRule::RequiredKey => match key {
            Some(key) => Ok(Arg::Key(key.into())),
            None if field.arg == ArgRule::OptionalKey => Ok(Arg::None),
            None => wrong(format!("`{name}` needs an argument: `{name}[…]`")),
        },
        ArgRule::OptionalIndexOrKey => match (index(), key) {
            (Some(index), _) => Ok(Arg::Index(index)),
            (None, Some(key)) => Ok(Arg::Key(key.into())),
            (None, None) => Ok(Arg::None),
        },
        ArgRule::Param | ArgRule::ParamName => match (suffix, index()) {
            (Some(param), None) if key.is_none() => parameter(param),
            (None, Some(index)) if field.arg == ArgRule::Param => Ok(Arg::Index(index)),
            _ => wrong(format!("`{name}` needs the name of a parameter: `{name}.name`")),
        },
        ArgRule::DotSuffix => match (suffix, key) {
            (Some(suffix), None) => Ok(Arg::Key(suffix.into())),
            _ => wrong(format!("`{name}` needs a name behind a dot: `{name}.name`")),
        },
    }
}

fn parameter(name: &str) -> Result<Arg, NameError> {
    if PARAMETERS.contains_key(name) {
        return Ok(Arg::Key(name.into()));
    }
    let help = closest(name, PARAMETERS.keys().copied()).map(|name| format!("did you mean `{name}`?"));
    Err(NameError { help, ..NameError::new(Code::UnknownParameter, format!("unknown event argument `{name}`")) })
}
