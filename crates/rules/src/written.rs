//! Events that people write down: fields and their values, for the tests inside of rule resources.
//!
//! An event is `evt.type` and whatever else its author gives; a field that is not given has no value, as in any event.
//! Nothing is computed from anything else, with these exceptions:
//! * `evt.type` also is `syscall.type`, for system calls.
//! * Without `evt.type`, fields of the audit log (`ka.…`, `jevt.…`) make it an event of the audit log.
//! * `jevt.obj` is a whole event of the audit log, in JSON: what is not given is read from it.
//! * Without any field of a container or pod, the event is one of the host: `container.id` is `host`.
//! * Fields of a container or pod make it an event of a container, in the namespace `k8s.ns.name`, of a pod with the
//!   labels `k8s.pod.label[…]`, in a namespace with the labels `k8s.ns.label[…]`; that is what scopes go by.
//! * `ka.target.namespace` is the namespace of an event of the audit log.
//! * `evt.rawtime` is the time of the event; without it, the time is the beginning of the epoch.

use std::{error::Error, net::IpAddr, sync::LazyLock};

use event::{
    audit::{AuditEvent, Surroundings, json::Limits},
    catalogue::{EventType, Origin},
    containers::{ContainerFacts, HOST, Labels, PodFacts, Whereabouts},
    fields::{Arg, EventSource, Field, Matching, Subject},
    value::{Arena, Value, ValueType},
};
use hashbrown::HashMap;
use ipnet::IpNet;

use crate::{
    diagnostic::closest,
    duration::nanoseconds,
    filter::{
        ast::{Op, Operand, TextId},
        constant::constant,
        names::{Catalogue, Resolved},
        parse::operand_prefix,
        typed::{Const, Shape, type_name},
    },
};

/// A value as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Given<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// Anything else in the form that conditions have: addresses, networks, names of ports; durations also as `5s`.
    Text(&'a str),
    /// Several values, for fields that have several.
    List(&'a [Self]),
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenError {
    /// The field as it was written.
    pub field: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// An event made of written fields.
#[derive(Debug, Clone)]
pub struct Written {
    ty: EventType,
    time_ns: u64,
    values: Values,
    place: Place,
    /// The whole event, of the audit log.
    document: Option<Box<[u8]>>,
}

/// Where it happened.
#[derive(Debug, Clone)]
enum Place {
    Host,
    Container(Box<ContainerFacts>, Option<Labels>),
    Object(Box<str>, Option<Labels>),
}

#[derive(Debug, Clone)]
enum Stored {
    Text(Box<[u8]>),
    Bytes(Box<[u8]>),
    Bool(bool),
    Int(i64),
    Uint(u64),
    Ip(IpAddr),
    Net(IpNet),
    List(Vec<Self>),
}

impl Written {
    /// Reads fields such as `("proc.aname[1]", Given::Text("bash"))`. All that is wrong is reported.
    pub fn new<'a>(
        fields: impl IntoIterator<Item = (&'a str, Given<'a>)> + Clone,
        catalogue: Catalogue,
    ) -> Result<Self, Vec<WrittenError>> {
        let of_audit = |(name, _): (&str, Given<'_>)| name.starts_with("ka.") || name.starts_with("jevt.");
        let source = match fields.clone().into_iter().any(of_audit) {
            true => EventSource::K8sAudit,
            false => EventSource::Syscall,
        };
        let catalogue = Catalogue { source, ..catalogue };
        let mut errors = Vec::new();
        let mut values = HashMap::default();
        let (mut ty, mut document) = (None, None);
        for (name, given) in fields {
            if let ("jevt.obj" | "json.obj", Given::Text(text)) = (name, given) {
                match whole(text.as_bytes(), &Arena::new()) {
                    Ok(_) => document = Some(text.as_bytes().into()),
                    Err(message) => errors.push(WrittenError { field: name.to_owned(), message, help: None }),
                }
                continue;
            }
            if name == "evt.type" {
                match event_type(given) {
                    Ok(found) => ty = Some(found),
                    Err((message, help)) => errors.push(WrittenError { field: name.to_owned(), message, help }),
                }
                continue;
            }
            let resolved = match resolve(name, catalogue) {
                Ok(resolved) => resolved,
                Err((message, help)) => {
                    errors.push(WrittenError { field: name.to_owned(), message, help });
                    continue;
                }
            };
            match stored(&resolved, given) {
                Ok(value) => drop(values.insert((resolved.field.name, resolved.arg), value)),
                Err(message) => errors.push(WrittenError { field: name.to_owned(), message, help: None }),
            }
        }
        if ty.is_none() && source == EventSource::K8sAudit {
            ty = source.event_types().iter().next();
        }
        let place = Place::of(source, &values, document.as_deref());
        let missing = errors.iter().all(|error| error.field != "evt.type");
        let Some(ty) = ty.filter(|_| errors.is_empty()) else {
            if ty.is_none() && missing {
                let message = "the event has no type".to_owned();
                let help = Some("write for example `evt.type: execve`".to_owned());
                errors.push(WrittenError { field: "evt.type".to_owned(), message, help });
            }
            return Err(errors);
        };
        values.insert(("evt.type", Arg::None), Stored::text(ty.name()));
        if matches!(ty.info().origin, Origin::Syscall | Origin::Generic) {
            values.insert(("syscall.type", Arg::None), Stored::text(ty.name()));
        }
        if matches!(place, Place::Host) {
            values.entry(("container.id", Arg::None)).or_insert(Stored::text(HOST));
        }
        let time_ns = match values.get(&("evt.rawtime", Arg::None)) {
            Some(Stored::Uint(time)) => *time,
            _ => document.as_deref().and_then(|text| whole(text, &Arena::new()).ok()?.time()).unwrap_or_default(),
        };
        Ok(Self { ty, time_ns, values, place, document })
    }

    /// The event for rules to see.
    pub fn subject<'a>(&'a self, arena: &'a Arena) -> WrittenSubject<'a> {
        let document = self.document.as_deref().and_then(|text| whole(text, arena).ok());
        WrittenSubject { written: self, arena, document }
    }

    /// Whether it is an event of the host: no rule of a namespace sees it.
    pub fn is_of_host(&self) -> bool {
        matches!(self.place, Place::Host)
    }
}

/// A written event during its evaluation.
pub struct WrittenSubject<'a> {
    written: &'a Written,
    arena: &'a Arena,
    document: Option<AuditEvent<'a>>,
}

/// Reads a whole event of the audit log.
fn whole<'a>(text: &'a [u8], arena: &'a Arena) -> Result<AuditEvent<'a>, String> {
    static SURROUNDINGS: LazyLock<Surroundings> = LazyLock::new(Surroundings::default);
    AuditEvent::parse(text, Limits::default(), 1, &SURROUNDINGS, arena).map_err(|error| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

impl<'a> Subject<'a> for WrittenSubject<'a> {
    fn event_type(&self) -> EventType {
        self.written.ty
    }

    fn time_ns(&self) -> u64 {
        self.written.time_ns
    }

    fn arena(&self) -> &'a Arena {
        self.arena
    }

    fn whereabouts(&self) -> Whereabouts<'a> {
        match &self.written.place {
            Place::Host => Whereabouts::Host,
            Place::Container(facts, labels) => Whereabouts::Container {
                facts: Some(facts),
                pod_labels: facts.pod.as_ref().map_or(&[], |pod| &pod.labels),
                namespace_labels: labels.as_deref(),
            },
            Place::Object(namespace, labels) => Whereabouts::Object { namespace, namespace_labels: labels.as_deref() },
        }
    }

    fn field(&self, field: &'static Field, arg: &Arg) -> Option<Value<'a>> {
        let given = self.written.values.get(&(field.name, arg.clone())).map(|stored| stored.value(self.arena));
        given.or_else(|| self.document.as_ref()?.field(field, arg))
    }
}

impl Stored {
    fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().into())
    }

    fn value<'a>(&'a self, arena: &'a Arena) -> Value<'a> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::Ip(ip) => Value::Ip(*ip),
            Self::Net(net) => Value::Net(*net),
            Self::List(items) => Value::List(arena.alloc_slice_fill_iter(items.iter().map(|item| item.value(arena)))),
        }
    }
}

type Values = HashMap<(&'static str, Arg), Stored, ahash::RandomState>;

impl Place {
    fn of(source: EventSource, values: &Values, document: Option<&[u8]>) -> Self {
        let text = |name: &'static str| match values.get(&(name, Arg::None)) {
            Some(Stored::Text(text)) => String::from_utf8_lossy(text).into_owned().into_boxed_str(),
            _ => "".into(),
        };
        let labels = |wanted: &str| -> Labels {
            let label = |((name, arg), value): (&(&'static str, Arg), &Stored)| match (arg, value) {
                (Arg::Key(key), Stored::Text(value)) if *name == wanted => {
                    Some((key.clone(), String::from_utf8_lossy(value).into()))
                }
                _ => None,
            };
            let mut labels: Vec<_> = values.iter().filter_map(label).collect();
            labels.sort_unstable();
            labels
        };
        let namespace_labels = Some(labels("k8s.ns.label")).filter(|labels| !labels.is_empty());
        if source == EventSource::K8sAudit {
            let namespace = match (text("ka.target.namespace"), document) {
                (namespace, Some(document)) if namespace.is_empty() => {
                    let arena = Arena::new();
                    whole(document, &arena).map(|event| event.target().namespace.into()).unwrap_or_default()
                }
                (namespace, _) => namespace,
            };
            return Self::Object(namespace, namespace_labels);
        }
        let named = |prefix: &str| values.keys().any(|(name, _)| name.starts_with(prefix));
        let pod = named("k8s.");
        if &*text("container.id") == HOST || !(pod || named("container.")) {
            return Self::Host;
        }
        let image =
            match (&*text("container.image"), &*text("container.image.repository"), &*text("container.image.tag")) {
                ("", repository, "") => repository.into(),
                ("", repository, tag) => format!("{repository}:{tag}").into(),
                (image, ..) => image.into(),
            };
        let pod = pod.then(|| PodFacts {
            name: text("k8s.pod.name"),
            namespace: text("k8s.ns.name"),
            uid: text("k8s.pod.uid"),
            labels: labels("k8s.pod.label"),
            ..PodFacts::default()
        });
        let facts = ContainerFacts { name: text("container.name"), image, pod, ..ContainerFacts::default() };
        Self::Container(Box::new(facts), namespace_labels)
    }
}

type Problem = (String, Option<String>);

fn event_type(given: Given<'_>) -> Result<EventType, Problem> {
    let Given::Text(name) = given else { return Err(("the event's type must be text".to_owned(), None)) };
    EventType::by_name(name).ok_or_else(|| {
        let close = closest(name, EventType::all().map(EventType::name));
        (format!("unknown event type `{name}`"), close.map(|name| format!("did you mean `{name}`?")))
    })
}

fn resolve(name: &str, catalogue: Catalogue) -> Result<Resolved, Problem> {
    match operand_prefix(name, TextId::default()) {
        Ok((Operand::Field(field), length)) if length == name.len() => {
            catalogue.resolve(&field).map_err(|error| (error.message, error.help))
        }
        Ok((Operand::Call(_), _)) => Err(("this is a transformer, not a field".to_owned(), None)),
        _ => Err((format!("`{name}` isn't the name of a field"), Some("for example `proc.name`".to_owned()))),
    }
}

/// Reads a value as one of the field.
fn stored(resolved: &Resolved, given: Given<'_>) -> Result<Stored, String> {
    let several = match (resolved.field.matching, &resolved.arg) {
        (Matching::EachAncestor | Matching::EitherEnd, Arg::None) => true,
        (Matching::Plain | Matching::EachAncestor | Matching::EitherEnd | Matching::HostName, _) => {
            resolved.field.list && matches!(resolved.arg, Arg::None)
        }
    };
    let ty = resolved.value_type();
    match (given, several) {
        (Given::List(items), true) => {
            items.iter().map(|item| single(ty, *item)).collect::<Result<_, _>>().map(Stored::List)
        }
        (Given::List(_), false) => Err(format!("`{}` has one value, not a list", resolved.field.name)),
        (given, true) => Ok(Stored::List(vec![single(ty, given)?])),
        (given, false) => single(ty, given),
    }
}

fn single(ty: ValueType, given: Given<'_>) -> Result<Stored, String> {
    let text = match given {
        Given::Bool(value) => value.to_string(),
        Given::Number(number) => number.to_string(),
        Given::Text(text) => text.to_owned(),
        Given::List(_) => return Err("a list can't contain lists".to_owned()),
    };
    match (ty, given) {
        (ValueType::Text, _) if text.contains('\0') => return Err("text can't contain a NUL byte".to_owned()),
        (ValueType::Text, _) => return Ok(Stored::text(&text)),
        (ValueType::Bytes, _) => return Ok(Stored::Bytes(text.into_bytes().into())),
        (ValueType::Dynamic, Given::Number(number)) => return Ok(Stored::Int(number)),
        (ValueType::Dynamic, Given::Bool(value)) => return Ok(Stored::Bool(value)),
        (ValueType::Dynamic, _) => return Ok(Stored::text(&text)),
        (ValueType::RelTime, Given::Text(text)) => {
            if let Some(ns) = nanoseconds(text) {
                return Ok(Stored::Uint(ns));
            }
        }
        _ => {}
    }
    let signed = matches!(ty, ValueType::Int(_));
    match constant(text.as_bytes(), Shape::one(ty), Op::Eq)? {
        Const::Bytes(bytes) => Ok(Stored::Text(bytes)),
        Const::Bool(value) => Ok(Stored::Bool(value)),
        Const::Ip(ip) => Ok(Stored::Ip(ip)),
        Const::Net(net) => Ok(Stored::Net(net)),
        Const::Int(number) => {
            let int = i64::try_from(number).map(Stored::Int);
            let uint = u64::try_from(number).map(Stored::Uint);
            let stored = if signed { int } else { uint.or(int) };
            stored.map_err(|_| format!("`{text}` isn't {}", type_name(Shape::one(ty))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fields: &[(&str, Given<'_>)]) -> Result<Written, Vec<String>> {
        let say =
            |error: WrittenError| format!("{}: {} {}", error.field, error.message, error.help.unwrap_or_default());
        Written::new(fields.iter().copied(), Catalogue::default())
            .map_err(|errors| errors.into_iter().map(say).collect())
    }

    fn value<'a>(written: &'a Written, arena: &'a Arena, name: &str) -> Option<Value<'a>> {
        let resolved = resolve(name, Catalogue::default()).expect("a field");
        written.subject(arena).field(resolved.field, &resolved.arg)
    }

    #[test]
    fn values_have_the_type_of_their_field() {
        use Given::{Bool, List, Number, Text};
        let arena = Arena::new();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (name, given, want) in [
            ("proc.name", Text("curl"), Value::Text(b"curl")),
            ("proc.name", Number(7), Value::Text(b"7")),
            ("proc.pid", Number(7), Value::Int(7)),
            ("proc.pid", Text("7"), Value::Int(7)),
            ("evt.is_open_read", Bool(true), Value::Bool(true)),
            ("evt.is_open_read", Text("false"), Value::Bool(false)),
            ("fd.sport", Text("https"), Value::Uint(443)),
            ("fd.sip", Text("10.0.0.1"), Value::Ip(ip("10.0.0.1"))),
            ("fd.ip", Text("::1"), Value::List(&[Value::Ip(ip("::1"))])),
            ("proc.aname", List(&[Text("a"), Text("b")]), Value::List(&[Value::Text(b"a"), Value::Text(b"b")])),
            ("proc.aname[2]", Text("b"), Value::Text(b"b")),
            ("proc.duration", Text("5s"), Value::Uint(5_000_000_000)),
            ("proc.duration", Number(5), Value::Uint(5)),
        ] {
            let written = written(&[("evt.type", Text("connect")), (name, given)]).expect(name);
            let found = value(&written, &arena, name).expect("a value");
            let same = match (found, want) {
                (Value::Uint(found), Value::Int(want)) | (Value::Int(want), Value::Uint(found)) => found as i64 == want,
                (found, want) => found == want,
            };
            assert!(same, "{name}: {found:?}");
        }
    }

    #[test]
    fn mistakes_are_all_reported() {
        use Given::{List, Number, Text};
        let fields = [
            ("evt.type", Text("exceve")),
            ("proc.nmae", Text("x")),
            ("proc.pid", Text("x")),
            ("proc.name", List(&[Number(1)])),
            ("fd.sport", Number(70_000)),
            ("tolower(proc.name)", Text("x")),
            ("ka.verb", Text("get")),
        ];
        let errors = written(&fields[..6]).expect_err("mistakes");
        expect_test::expect![[r#"
            evt.type: unknown event type `exceve` did you mean `execve`?
            proc.nmae: no field `proc.nmae` did you mean `proc.name`?
            proc.pid: `x` isn't a number 
            proc.name: `proc.name` has one value, not a list 
            fd.sport: `70000` isn't a port or the name of a known service 
            tolower(proc.name): this is a transformer, not a field "#]]
        .assert_eq(&errors.join("\n"));
        let mixed = written(&[fields[6], ("proc.name", Text("x"))]).expect_err("a mistake").join("\n");
        assert!(mixed.contains("it is a field of events of the source syscall"), "{mixed}");
        let typeless = written(&[("proc.name", Text("x"))]).expect_err("a mistake").join("\n");
        assert!(typeless.contains("the event has no type"), "{typeless}");
    }

    #[test]
    fn the_place_follows_from_what_is_written() {
        use Given::Text;
        let of = |fields: &[(&str, Given<'_>)]| {
            let mut fields = fields.to_vec();
            if !fields.iter().any(|(name, _)| name.starts_with("ka.")) {
                fields.push(("evt.type", Text("execve")));
            }
            written(&fields).expect("an event")
        };
        let arena = Arena::new();
        let host = of(&[("proc.name", Text("a"))]);
        assert!(matches!(host.subject(&arena).whereabouts(), Whereabouts::Host));
        assert_eq!(value(&host, &arena, "container.id"), Some(Value::Text(b"host")));
        let pod = of(&[
            ("k8s.ns.name", Text("shop")),
            ("k8s.pod.label[app]", Text("web")),
            ("k8s.ns.label[team]", Text("a")),
            ("container.image.repository", Text("nginx")),
            ("container.image.tag", Text("1")),
        ]);
        match pod.subject(&arena).whereabouts() {
            Whereabouts::Container { facts: Some(facts), namespace_labels: Some(labels), .. } => {
                let pod = facts.pod.as_ref().expect("a pod");
                assert_eq!((&*pod.namespace, &*facts.image), ("shop", "nginx:1"));
                assert_eq!(pod.labels, [("app".into(), "web".into())]);
                assert_eq!(*labels, [("team".into(), "a".into())]);
            }
            other => panic!("{other:?}"),
        }
        let audit = of(&[("ka.verb", Text("create")), ("ka.target.namespace", Text("shop"))]);
        assert_eq!(audit.ty.name(), "pluginevent");
        assert!(matches!(audit.subject(&arena).whereabouts(), Whereabouts::Object { namespace: "shop", .. }));
    }
}
