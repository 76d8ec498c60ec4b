//! Fields of the pod in a request of the audit log: `ka.req.pod.*` of a Pod, and `ka.req.podspec.*` of whatever holds a pod, be it
//! a Pod or a workload with a template of pods.

use super::{
    Arg, ArgRule, Field,
    k8s_audit::{Found, chosen, several, strings, value},
};
use crate::{
    audit::{AuditEvent, json::Node},
    text::Text as Writer,
    value::{Arena, Value, ValueType::*},
};

/// Where the spec of a pod is.
type Spec = for<'a> fn(&AuditEvent<'a>) -> Option<Node<'a>>;

/// One value of a container, given the container and its pod's spec.
type OfContainer = for<'a> fn(Node<'a>, Node<'a>, &'a Arena) -> Found<'a>;

/// The rows of one list of containers.
#[rustfmt::skip]
macro_rules! containers {
    ($name:ident, $doc:literal, $(($prefix:literal, $list:literal, $what:literal, $spec:path, $capabilities:path, $note:literal)),+) => {
        #[doc = $doc]
        #[rustfmt::skip]
        pub(super) static $name: &[Field] = &[$(
            Field::new(concat!($prefix, $list, ".name"), Text, concat!($what, ": names")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["name"], a))),
            Field::new(concat!($prefix, $list, ".image"), Text, concat!($what, ": images")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["image"], a))),
            Field::new(concat!($prefix, $list, ".image.repository"), Text, concat!($what, ": images without tag and digest")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, _| repository(c))),
            Field::new(concat!($prefix, $list, ".command"), Text, concat!($what, ": commands, each joined by blanks")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| joined(c, "command", a))),
            Field::new(concat!($prefix, $list, ".args"), Text, concat!($what, ": arguments, each joined by blanks")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| joined(c, "args", a))),
            Field::new(concat!($prefix, $list, ".privileged"), Text, concat!($what, ": `privileged` where it is set")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["securityContext", "privileged"], a))),
            Field::new(concat!($prefix, $list, ".allow_privilege_escalation"), Text, concat!($what, ": `allowPrivilegeEscalation` where it is set")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["securityContext", "allowPrivilegeEscalation"], a))),
            Field::new(concat!($prefix, $list, ".read_only_fs"), Text, concat!($what, ": `readOnlyRootFilesystem` where it is set")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["securityContext", "readOnlyRootFilesystem"], a))),
            Field::new(concat!($prefix, $list, ".run_as_user"), Text, concat!($what, ": `runAsUser` where it is set")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["securityContext", "runAsUser"], a))),
            Field::new(concat!($prefix, $list, ".eff_run_as_user"), Text, concat!($what, ": `runAsUser` of the container, else of the pod, else 0")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, pod, a| effective(c, pod, "runAsUser", a))),
            Field::new(concat!($prefix, $list, ".run_as_group"), Text, concat!($what, ": `runAsGroup` where it is set")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["securityContext", "runAsGroup"], a))),
            Field::new(concat!($prefix, $list, ".eff_run_as_group"), Text, concat!($what, ": `runAsGroup` of the container, else of the pod, else 0")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, pod, a| effective(c, pod, "runAsGroup", a))),
            Field::new(concat!($prefix, $list, ".proc_mount"), Text, concat!($what, ": `procMount` where it is set")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| each(e, arg, $spec, $list, |c, _, a| get(c, &["securityContext", "procMount"], a))),
            Field::new(concat!($prefix, $list, ".add_capabilities"), Text, concat!($what, ": capabilities that are added", $note)).list().arg(ArgRule::OptionalIndex).audit(|e, arg| $capabilities(e, arg, $spec, $list)),
            Field::new(concat!($prefix, $list, ".host_port"), Text, concat!($what, ": host ports, else ports of the container")).list().arg(ArgRule::OptionalIndex).audit(|e, arg| ports(e, arg, $spec, $list)),
        )+];
    };
}

containers!(
    CONTAINERS,
    "Of the containers.",
    ("ka.req.pod.", "containers", "containers", spec, added_as_json, "; for each container one JSON array"),
    ("ka.req.podspec.", "containers", "containers", template, added, "")
);
containers!(
    INIT_CONTAINERS,
    "Of the containers that run first.",
    ("ka.req.pod.", "initContainers", "init containers", spec, added_as_json, "; for each container one JSON array"),
    ("ka.req.podspec.", "initContainers", "init containers", template, added, "")
);
containers!(
    EPHEMERAL_CONTAINERS,
    "Of the containers that are put into a running pod.",
    (
        "ka.req.pod.",
        "ephemeralContainers",
        "ephemeral containers",
        spec,
        added_as_json,
        "; for each container one JSON array"
    ),
    ("ka.req.podspec.", "ephemeralContainers", "ephemeral containers", template, added, "")
);

/// The rows of a pod as a whole.
macro_rules! pod {
    ($($prefix:literal, $spec:path);+) => { &[$(
        Field::new(concat!($prefix, "host_ipc"), Text, "`hostIPC`").audit(|e, _| of_pod(e, $spec, &["hostIPC"])),
        Field::new(concat!($prefix, "host_network"), Text, "`hostNetwork`").audit(|e, _| of_pod(e, $spec, &["hostNetwork"])),
        Field::new(concat!($prefix, "host_pid"), Text, "`hostPID`").audit(|e, _| of_pod(e, $spec, &["hostPID"])),
        Field::new(concat!($prefix, "run_as_user"), Text, "`runAsUser` of the pod").audit(|e, _| of_pod(e, $spec, &["securityContext", "runAsUser"])),
        Field::new(concat!($prefix, "run_as_group"), Text, "`runAsGroup` of the pod").audit(|e, _| of_pod(e, $spec, &["securityContext", "runAsGroup"])),
        Field::new(concat!($prefix, "fs_group"), Text, "`fsGroup`").audit(|e, _| of_pod(e, $spec, &["securityContext", "fsGroup"])),
        Field::new(concat!($prefix, "supplemental_groups"), Text, "supplemental groups").list().audit(|e, _| strings(e, $spec(e)?.at(&["securityContext", "supplementalGroups"])?.items())),
        Field::new(concat!($prefix, "volumes.hostpath"), Text, "paths of the host that are volumes").list().arg(ArgRule::OptionalIndex).audit(|e, arg| volumes(e, arg, $spec, &["hostPath", "path"])),
        Field::new(concat!($prefix, "volumes.flexvolume_driver"), Text, "drivers of flex volumes").list().arg(ArgRule::OptionalIndex).audit(|e, arg| volumes(e, arg, $spec, &["flexVolume", "driver"])),
        Field::new(concat!($prefix, "volumes.volume_type"), Text, "types of volumes: hostPath, configMap…").list().arg(ArgRule::OptionalIndex).audit(|e, arg| volume_types(e, arg, $spec)),
    )+] };
}

/// Of the pod in a request about a pod.
#[rustfmt::skip]
pub(super) static POD: &[Field] = pod!("ka.req.pod.", spec);

/// Of the pod in a request about whatever holds one.
#[rustfmt::skip]
pub(super) static TEMPLATE: &[Field] = pod!("ka.req.podspec.", template);

/// Names of former times.
#[rustfmt::skip]
pub(super) static FORMER: &[Field] = &[
    Field::new("ka.req.container.image", Text, "image of the first container").deprecated().audit(|e, _| value(e, first(e)?.get("image"))),
    Field::new("ka.req.container.image.repository", Text, "image of the first container without tag and digest").deprecated().audit(|e, _| repository(first(e)?)),
    Field::new("ka.req.container.host_network", Text, "`hostNetwork`").deprecated().audit(|e, _| of_pod(e, spec, &["hostNetwork"])),
    Field::new("ka.req.container.privileged", Text, "whether a container is privileged: true or false").deprecated().audit(|e, _| any_privileged(e)),
    Field::new("ka.req.volume.hostpath", Text, "whether a path of the host, or with `*` behind it what begins so, is a volume: true or false")
        .arg(ArgRule::RequiredKey).deprecated().audit(has_host_path),
];

/// The spec of the request's object, taken for that of a pod.
fn spec<'a>(e: &AuditEvent<'a>) -> Option<Node<'a>> {
    e.root.at(&["requestObject", "spec"])
}

/// The spec of the pod, or of the template of pods, that the request's object holds. Which it is, is told by its shape: so
/// also the workloads of others are seen that are built like those of Kubernetes.
fn template<'a>(e: &AuditEvent<'a>) -> Option<Node<'a>> {
    const TEMPLATES: [&[&str]; 3] =
        [&["spec", "jobTemplate", "spec", "template", "spec"], &["spec", "template", "spec"], &["template", "spec"]];
    const OF_POD: [&str; 4] = ["containers", "initContainers", "ephemeralContainers", "volumes"];
    let object = e.root.get("requestObject")?;
    if e.root.at(&["objectRef", "resource"]).and_then(Node::text) == Some("pods") {
        return object.get("spec");
    }
    let template = TEMPLATES.iter().find_map(|path| object.at(path));
    template.or_else(|| object.get("spec").filter(|spec| OF_POD.iter().any(|part| spec.get(part).is_some())))
}

fn of_pod<'a>(e: &AuditEvent<'a>, spec: Spec, path: &[&str]) -> Found<'a> {
    value(e, spec(e)?.at(path))
}

/// One value of each container that has it.
fn each<'a>(e: &AuditEvent<'a>, arg: &Arg, spec: Spec, list: &str, of: OfContainer) -> Found<'a> {
    let spec = spec(e)?;
    let containers = chosen(spec.get(list)?.items(), arg);
    several(e, containers.iter().filter_map(|container| of(*container, spec, e.arena())))
}

fn get<'a>(container: Node<'a>, path: &[&str], arena: &'a Arena) -> Found<'a> {
    Some(container.at(path)?.value(arena))
}

fn effective<'a>(container: Node<'a>, pod: Node<'a>, id: &str, arena: &'a Arena) -> Found<'a> {
    let path = ["securityContext", id];
    let id = container.at(&path).or_else(|| pod.at(&path));
    Some(id.map_or(Value::Text(b"0"), |id| id.value(arena)))
}

fn joined<'a>(container: Node<'a>, part: &str, arena: &'a Arena) -> Found<'a> {
    let words = container.get(part)?.items();
    let mut text = Writer::new(arena);
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            text.push(b" ");
        }
        if let Value::Text(word) = word.value(arena) {
            text.push(word);
        }
    }
    (!words.is_empty()).then(|| Value::Text(text.finish()))
}

/// An image's name without digest and tag. A colon in front of the last slash belongs to the port of the registry.
fn repository<'a>(container: Node<'a>) -> Found<'a> {
    let image = container.get("image")?.text()?;
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    let end = image.get(name..)?.find(':').map_or(image.len(), |colon| name + colon);
    Some(Value::Text(image.get(..end)?.as_bytes()))
}

fn added_as_json<'a>(e: &AuditEvent<'a>, arg: &Arg, spec: Spec, list: &str) -> Found<'a> {
    each(e, arg, spec, list, |container, _, arena| get(container, &["securityContext", "capabilities", "add"], arena))
}

fn added<'a>(e: &AuditEvent<'a>, arg: &Arg, spec: Spec, list: &str) -> Found<'a> {
    let containers = chosen(spec(e)?.get(list)?.items(), arg);
    let added = containers.iter().filter_map(|container| container.at(&["securityContext", "capabilities", "add"]));
    several(e, added.flat_map(Node::items).map(|capability| capability.value(e.arena())))
}

fn ports<'a>(e: &AuditEvent<'a>, arg: &Arg, spec: Spec, list: &str) -> Found<'a> {
    let containers = chosen(spec(e)?.get(list)?.items(), arg);
    let ports = containers.iter().filter_map(|container| container.get("ports")).flat_map(Node::items);
    let number = |port: &Node<'a>| port.get("hostPort").or_else(|| port.get("containerPort"));
    several(e, ports.filter_map(number).map(|port| port.value(e.arena())))
}

fn volumes<'a>(e: &AuditEvent<'a>, arg: &Arg, spec: Spec, path: &[&str]) -> Found<'a> {
    let volumes = chosen(spec(e)?.get("volumes")?.items(), arg);
    several(e, volumes.iter().filter_map(|volume| Some(volume.at(path)?.value(e.arena()))))
}

/// A volume's type is the name of the member that describes it.
fn volume_types<'a>(e: &AuditEvent<'a>, arg: &Arg, spec: Spec) -> Found<'a> {
    let volumes = chosen(spec(e)?.get("volumes")?.items(), arg);
    let types = volumes.iter().flat_map(|volume| match volume {
        Node::Object(members) => *members,
        _ => &[],
    });
    let types = types.filter(|(key, value)| *key != "name" && *value != Node::Null);
    several(e, types.map(|(key, _)| Value::Text(key.as_bytes())))
}

fn first<'a>(e: &AuditEvent<'a>) -> Option<Node<'a>> {
    spec(e)?.get("containers")?.items().first().copied()
}

fn truth<'a>(value: bool) -> Found<'a> {
    Some(Value::Text(if value { b"true" } else { b"false" }))
}

fn any_privileged<'a>(e: &AuditEvent<'a>) -> Found<'a> {
    let containers = spec(e)?.get("containers")?.items();
    truth(containers.iter().any(|c| c.at(&["securityContext", "privileged"]) == Some(Node::Bool(true))))
}

fn has_host_path<'a>(e: &AuditEvent<'a>, arg: &Arg) -> Found<'a> {
    let Arg::Key(wanted) = arg else { return None };
    let volumes = spec(e)?.get("volumes").map_or(&[][..], Node::items);
    let mut paths = volumes.iter().filter_map(|volume| volume.at(&["hostPath", "path"])?.text());
    truth(match wanted.strip_suffix('*') {
        Some(prefix) => paths.any(|path| path.starts_with(prefix)),
        None => paths.any(|path| path == &**wanted),
    })
}
