//! Fields of the container and pod.

use super::{Arg, ArgRule, Field};
use crate::{
    containers::{Container, HOST, Membership},
    event::Event,
    value::{Value, ValueType::*},
};

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("container.id", Text, "12-char container id, or \"host\"").suggested().from(id),
    Field::new("container.full_id", Text, "64-char container id").from(full_id),
    Field::new("container.name", Text, "container name, or \"host\"").suggested().from(name),
    Field::new("container.image", Text, "image reference as configured").from(empty_on_host),
    Field::new("container.image.id", Text, "image id").from(empty_on_host),
    Field::new("container.type", Text, "runtime kind such as docker or containerd").from(empty_on_host),
    Field::new("container.privileged", Bool, "container runs privileged"),
    Field::new("container.mounts", Text, "all mounts as source:dest:mode:rdwr:propagation").from(empty_on_host),
    Field::new("container.mount", Text, "one mount by index or source glob").arg(ArgRule::RequiredKey),
    Field::new("container.mount.source", Text, "mount source by index or destination glob").arg(ArgRule::RequiredKey),
    Field::new("container.mount.dest", Text, "mount destination by index or source glob").arg(ArgRule::RequiredKey),
    Field::new("container.mount.mode", Text, "mount mode by index or source glob").arg(ArgRule::RequiredKey),
    Field::new("container.mount.rdwr", Text, "mount writability by index or source glob").arg(ArgRule::RequiredKey),
    Field::new("container.mount.propagation", Text, "mount propagation by index or source glob").arg(ArgRule::RequiredKey),
    Field::new("container.image.repository", Text, "image name without tag or digest").suggested().from(empty_on_host),
    Field::new("container.image.tag", Text, "image tag").suggested().from(empty_on_host),
    Field::new("container.image.digest", Text, "image digest").from(empty_on_host),
    Field::new("container.healthcheck", Text, "deprecated; never extracted").deprecated(),
    Field::new("container.liveness_probe", Text, "deprecated; never extracted").deprecated(),
    Field::new("container.readiness_probe", Text, "deprecated; never extracted").deprecated(),
    Field::new("container.start_ts", AbsTime, "container start, epoch ns, from pid namespace"),
    Field::new("container.duration", RelTime, "ns since container.start_ts"),
    Field::new("container.ip", Text, "primary IPv4 address").from(empty_on_host),
    Field::new("container.cni.json", Text, "raw CNI result JSON").from(empty_on_host),
    Field::new("container.host_pid", Bool, "shares host pid namespace"),
    Field::new("container.host_network", Bool, "shares host network namespace"),
    Field::new("container.host_ipc", Bool, "shares host ipc namespace"),
    Field::new("container.label", Text, "one container label by key").arg(ArgRule::RequiredKey),
    Field::new("container.labels", Text, "all labels as k:v, comma joined").from(empty_on_host),
    Field::new("k8s.pod.name", Text, "pod name from runtime labels").suggested(),
    Field::new("k8s.ns.name", Text, "namespace from runtime labels").suggested(),
    Field::new("k8s.pod.id", Text, "legacy alias of k8s.pod.uid"),
    Field::new("k8s.pod.uid", Text, "pod UID from runtime labels"),
    Field::new("k8s.pod.sandbox_id", Text, "12-char pod sandbox id"),
    Field::new("k8s.pod.full_sandbox_id", Text, "full pod sandbox id"),
    Field::new("k8s.pod.label", Text, "one pod label by key").arg(ArgRule::RequiredKey),
    Field::new("k8s.pod.labels", Text, "all pod labels, comma joined"),
    Field::new("k8s.pod.ip", Text, "pod IPv4 address"),
    Field::new("k8s.pod.cni.json", Text, "pod CNI result JSON"),
    Field::new("k8s.rc.name", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.rc.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.rc.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.rc.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.svc.name", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.svc.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.svc.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.svc.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.ns.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.ns.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.ns.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.rs.name", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.rs.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.rs.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.rs.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.deployment.name", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.deployment.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.deployment.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.deployment.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
];

type Found<'a> = Option<Value<'a>>;

/// A text of the host, or of the container when there are facts about it: so far nobody brings any.
fn text_of<'a>(
    e: &Event<'a>,
    host: &'static str,
    container: impl FnOnce(&'a Container) -> Option<&'a str>,
) -> Found<'a> {
    let text = match e.membership() {
        Membership::Unknown => return None,
        Membership::Host => host,
        Membership::Container(known) => container(known)?,
    };
    Some(Value::Text(text.as_bytes()))
}

fn id<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    text_of(e, HOST, |container| Some(container.id()))
}

fn full_id<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    text_of(e, "", |container| Some(container.full_id()))
}

fn name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    text_of(e, HOST, |_| None)
}

fn empty_on_host<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    text_of(e, "", |_| None)
}
