//! The field catalogue: everything a filter or an output can name.
//!
//! One table per class, one row per field: name, type, argument rule, doc and extractor side by side.
//! This module holds the row type and look-up; it knows no field by name.

mod container;
mod evt;
mod evt_audit;
mod fd;
mod fs_path;
mod json;
mod k8s_audit;
mod k8s_audit_pod;
mod proc;
mod sources;
pub(crate) mod time;
mod user;
mod waiting;

pub use sources::EventSource;

use crate::{
    audit::AuditEvent,
    catalogue::EventType,
    containers::Whereabouts,
    event::Event,
    value::{Arena, Radix, Value, ValueType},
};

/// What may stand in the brackets of a field, or behind its dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgRule {
    /// `proc.name`: no argument.
    None,
    /// `proc.aname` or `proc.aname[2]`.
    OptionalIndex,
    /// `proc.env` or `proc.env[HOME]`; the key is free text.
    OptionalKey,
    /// `proc.aenv[2]` or `proc.aenv[HOME]`.
    OptionalIndexOrKey,
    /// `proc.apid[2]` where the index can't be left out.
    RequiredIndex,
    /// `jevt.value[/stage]`.
    RequiredKey,
    /// `evt.arg[0]`, `evt.arg.name`, `evt.rawarg.name`: the name of an event parameter after a dot, or an index.
    Param,
    /// `evt.rawarg.name`: only the dotted form.
    ParamName,
    /// `thread.cgroup.cpu`: free text after a dot.
    DotSuffix,
}

/// A parsed argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Arg {
    /// No argument was given.
    None,
    /// A number in brackets.
    Index(u32),
    /// Text in brackets or behind the dot.
    Key(Box<str>),
}

/// How a comparison treats the candidates that an extractor returns as [`Value::List`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matching {
    /// The value itself is compared; a list only knows `in` (all of), `intersects` (any of) and `exists`.
    Plain,
    /// True when any candidate satisfies the operator, `!=` included: `proc.aname` without an index.
    EachAncestor,
    /// Either end of a connection: true when any candidate does, but `!=` only when all differ (`fd.ip`, `fd.port`, `fd.net`).
    EitherEnd,
    /// The constant is a host name; it is resolved outside and the address tested (`fd.sip.name`).
    HostName,
}

/// Restrictions and marks of a field. Falco: `EPF_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Can't stand on the right-hand side of a comparison.
    pub no_rhs: bool,
    /// Can't be given to a transformer.
    pub no_transformer: bool,
    /// Only meaningful in filters.
    pub filter_only: bool,
    /// Only meaningful in outputs.
    pub print_only: bool,
    /// Still accepted, with a warning.
    pub deprecated: bool,
    /// Added to every output of its source by `suggested_output`.
    pub suggested: bool,
    /// Not shown in listings.
    pub hidden: bool,
}

/// One row of the catalogue.
pub struct Field {
    /// Full name with its class: `proc.name`.
    pub name: &'static str,
    /// Type of the value, or of the elements when `list`.
    pub ty: ValueType,
    /// The field yields several values.
    pub list: bool,
    /// How integers are printed.
    pub radix: Radix,
    /// What its argument may be.
    pub arg: ArgRule,
    /// How comparisons treat several candidates.
    pub matching: Matching,
    /// Restrictions.
    pub marks: Marks,
    /// One line for `gyrfalcon fields` and docs/fields.md.
    pub doc: &'static str,
    /// Where the value comes from; `None` while nothing delivers it: no value.
    pub extract: Option<Extract>,
    /// The same for events of the audit log.
    pub audit: Option<AuditExtract>,
}

/// Reads one field of one event. `None` is Falco's "no value": every comparison with it is false.
pub type Extract = for<'a> fn(&Event<'a>, &Arg) -> Option<Value<'a>>;

/// Reads one field of one event of the audit log.
pub type AuditExtract = for<'a> fn(&AuditEvent<'a>, &Arg) -> Option<Value<'a>>;

/// What a rule is evaluated against: an event of the sensor, or fields written down in a test.
pub trait Subject<'a> {
    /// The event's type: selects the rules that can see it.
    fn event_type(&self) -> EventType;
    /// Time of the event, nanoseconds since the Unix epoch.
    fn time_ns(&self) -> u64;
    /// Memory that lives as long as the event's evaluation.
    fn arena(&self) -> &'a Arena;
    /// Where it happened: decides whether rules with a scope see it.
    fn whereabouts(&self) -> Whereabouts<'a>;
    /// The value of a field, or `None` for "no value".
    fn field(&self, field: &'static Field, arg: &Arg) -> Option<Value<'a>>;
}

impl Field {
    /// A field with one value, without argument or restriction, that nothing delivers.
    pub const fn new(name: &'static str, ty: ValueType, doc: &'static str) -> Self {
        let marks = Marks {
            no_rhs: false,
            no_transformer: false,
            filter_only: false,
            print_only: false,
            deprecated: false,
            suggested: false,
            hidden: false,
        };
        Self {
            name,
            ty,
            list: false,
            radix: Radix::Decimal,
            arg: ArgRule::None,
            matching: Matching::Plain,
            marks,
            doc,
            extract: None,
            audit: None,
        }
    }

    const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    const fn hex(mut self) -> Self {
        self.radix = Radix::Hex;
        self
    }

    const fn arg(mut self, rule: ArgRule) -> Self {
        self.arg = rule;
        self
    }

    const fn matching(mut self, matching: Matching) -> Self {
        self.matching = matching;
        self
    }

    const fn no_rhs(mut self) -> Self {
        self.marks.no_rhs = true;
        self
    }

    const fn no_transformer(mut self) -> Self {
        self.marks.no_transformer = true;
        self
    }

    const fn filter_only(mut self) -> Self {
        self.marks.filter_only = true;
        self
    }

    const fn print_only(mut self) -> Self {
        self.marks.print_only = true;
        self
    }

    const fn deprecated(mut self) -> Self {
        self.marks.deprecated = true;
        self
    }

    const fn suggested(mut self) -> Self {
        self.marks.suggested = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.marks.hidden = true;
        self
    }

    /// Whether nothing delivers it yet.
    pub fn is_waiting(&self) -> bool {
        waiting::WAITING.binary_search(&self.name).is_ok()
    }

    /// Names the extractor: from here on the field is delivered.
    const fn from(mut self, extract: Extract) -> Self {
        self.extract = Some(extract);
        self
    }

    /// The same for events of the audit log.
    const fn audit(mut self, extract: AuditExtract) -> Self {
        self.audit = Some(extract);
        self
    }
}

/// Two rows are the same field exactly when their names are equal: names are unique.
impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Field {}

impl std::hash::Hash for Field {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The tables in Falco's order of look-up.
static CLASSES: [&[Field]; 6] =
    [evt::FIELDS, proc::FIELDS, user::FIELDS, fd::FIELDS, fs_path::FIELDS, container::FIELDS];

/// The tables of the audit log's fields.
static AUDIT: [&[Field]; 8] = [
    json::FIELDS,
    k8s_audit::FIELDS,
    k8s_audit_pod::POD,
    k8s_audit_pod::CONTAINERS,
    k8s_audit_pod::INIT_CONTAINERS,
    k8s_audit_pod::EPHEMERAL_CONTAINERS,
    k8s_audit_pod::TEMPLATE,
    k8s_audit_pod::FORMER,
];

/// Every field, class by class.
pub fn all() -> impl Iterator<Item = &'static Field> {
    CLASSES.iter().chain(&AUDIT).copied().flatten()
}

/// The field with exactly this name.
pub fn by_name(name: &str) -> Option<&'static Field> {
    all().find(|field| field.name == name)
}

/// The fields that nothing delivers yet: null in filters, `<NA>` in output.
pub fn waiting() -> impl Iterator<Item = &'static Field> {
    all().filter(|field| field.is_waiting())
}

/// Finds the field that a filter or output names: the longest field name that is a prefix of `text`, as Falco
/// does. Returns the field and what follows its name (`[2]`, `.flags`, or nothing); whether that rest is a
/// proper argument is the caller's question.
pub fn lookup(text: &str) -> Option<(&'static Field, &str)> {
    all().filter_map(|field| Some((field, text.strip_prefix(field.name)?))).min_by_key(|(_, rest)| rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names: Vec<_> = all().map(|field| field.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(all().all(|field| !field.doc.is_empty()));
    }

    #[test]
    fn look_up_takes_the_longest_name() {
        let (field, rest) = lookup("proc.aname[2]").expect("a field");
        assert_eq!((field.name, rest), ("proc.aname", "[2]"));
        let (field, rest) = lookup("evt.arg.flags").expect("a field");
        assert_eq!((field.name, rest), ("evt.arg", ".flags"));
        assert!(lookup("nope.name").is_none());
    }
}
