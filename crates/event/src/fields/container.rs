//! Fields of the container and pod.

use super::{Arg, ArgRule, Field};
use crate::{
    containers::{Container, ContainerFacts, HOST, Labels, Membership, Mount, Pod, PodFacts, glob, shown},
    event::Event,
    text::Text as Writer,
    value::{Value, ValueType::*},
};

/// One row per field: name, type, what it means, and behind it the argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("container.id", Text, "12-char container id, or \"host\"").suggested().from(id),
    Field::new("container.full_id", Text, "64-char container id").from(full_id),
    Field::new("container.name", Text, "container name, or \"host\"").suggested().from(name),
    Field::new("container.image", Text, "image reference as configured").from(image),
    Field::new("container.image.id", Text, "image id").from(image_id),
    Field::new("container.type", Text, "runtime kind such as docker or containerd").from(ty),
    Field::new("container.privileged", Bool, "container runs privileged").from(privileged),
    Field::new("container.mounts", Text, "all mounts as source:dest:mode:rdwr:propagation").from(mounts),
    Field::new("container.mount", Text, "one mount by index or source glob").arg(ArgRule::RequiredKey).from(mount),
    Field::new("container.mount.source", Text, "mount source by index or destination glob").arg(ArgRule::RequiredKey).from(mount_source),
    Field::new("container.mount.dest", Text, "mount destination by index or source glob").arg(ArgRule::RequiredKey).from(mount_dest),
    Field::new("container.mount.mode", Text, "mount mode by index or source glob").arg(ArgRule::RequiredKey).from(mount_mode),
    Field::new("container.mount.rdwr", Text, "mount writability by index or source glob").arg(ArgRule::RequiredKey).from(mount_rdwr),
    Field::new("container.mount.propagation", Text, "mount propagation by index or source glob").arg(ArgRule::RequiredKey).from(mount_propagation),
    Field::new("container.image.repository", Text, "image name without tag or digest").suggested().from(repository),
    Field::new("container.image.tag", Text, "image tag").suggested().from(tag),
    Field::new("container.image.digest", Text, "image digest").from(digest),
    Field::new("container.healthcheck", Text, "deprecated; never extracted").deprecated(),
    Field::new("container.liveness_probe", Text, "deprecated; never extracted").deprecated(),
    Field::new("container.readiness_probe", Text, "deprecated; never extracted").deprecated(),
    Field::new("container.start_ts", AbsTime, "container start, epoch ns, from pid namespace"),
    Field::new("container.duration", RelTime, "ns since container.start_ts"),
    Field::new("container.ip", Text, "primary IPv4 address").from(ip),
    Field::new("container.cni.json", Text, "raw CNI result JSON").from(cni_json),
    Field::new("container.host_pid", Bool, "shares host pid namespace").from(host_pid),
    Field::new("container.host_network", Bool, "shares host network namespace").from(host_network),
    Field::new("container.host_ipc", Bool, "shares host ipc namespace").from(host_ipc),
    Field::new("container.label", Text, "one container label by key").arg(ArgRule::RequiredKey).from(label),
    Field::new("container.labels", Text, "all labels as k:v, comma joined").from(labels),
    Field::new("k8s.pod.name", Text, "pod name from runtime labels").suggested().from(pod_name),
    Field::new("k8s.ns.name", Text, "namespace from runtime labels").suggested().from(pod_namespace),
    Field::new("k8s.pod.id", Text, "legacy alias of k8s.pod.uid").from(pod_uid),
    Field::new("k8s.pod.uid", Text, "pod UID from runtime labels").from(pod_uid),
    Field::new("k8s.pod.sandbox_id", Text, "12-char pod sandbox id").from(sandbox_id),
    Field::new("k8s.pod.full_sandbox_id", Text, "full pod sandbox id").from(full_sandbox_id),
    Field::new("k8s.pod.label", Text, "one pod label by key").arg(ArgRule::RequiredKey).from(pod_label),
    Field::new("k8s.pod.labels", Text, "all pod labels, comma joined").from(pod_labels),
    Field::new("k8s.pod.ip", Text, "pod IPv4 address").from(pod_ip),
    Field::new("k8s.pod.cni.json", Text, "pod CNI result JSON").from(pod_cni_json),
    Field::new("k8s.rc.name", Text, "name of the ReplicationController that the pod belongs to").from(replication_controller),
    Field::new("k8s.rc.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.rc.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.rc.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.svc.name", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.svc.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.svc.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.svc.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.ns.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.ns.label", Text, "one label of the pod's namespace by key").arg(ArgRule::RequiredKey).from(namespace_label),
    Field::new("k8s.ns.labels", Text, "all labels of the pod's namespace, comma joined").from(namespace_labels),
    Field::new("k8s.rs.name", Text, "name of the ReplicaSet that the pod belongs to").from(replica_set),
    Field::new("k8s.rs.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.rs.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.rs.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.deployment.name", Text, "name of the Deployment that the pod belongs to").from(deployment),
    Field::new("k8s.deployment.id", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
    Field::new("k8s.deployment.label", Text, "deprecated; never extracted (use k8smeta plugin)").arg(ArgRule::RequiredKey).deprecated(),
    Field::new("k8s.deployment.labels", Text, "deprecated; never extracted (use k8smeta plugin)").deprecated(),
];

type Found<'a> = Option<Value<'a>>;

/// A text of the host, or of the container.
fn of<'a>(e: &Event<'a>, host: &'static str, container: impl FnOnce(&'a Container) -> Option<&'a str>) -> Found<'a> {
    let text = match e.membership() {
        Membership::Unknown => return None,
        Membership::Host => host,
        Membership::Container(known) => container(known)?,
    };
    Some(Value::Text(text.as_bytes()))
}

fn facts<'a>(e: &Event<'a>) -> Option<&'a ContainerFacts> {
    e.state.container_facts(e.membership())
}

/// A text that the runtime gives; null until it has, and empty on the host.
fn told<'a>(e: &Event<'a>, read: impl FnOnce(&'a ContainerFacts) -> &'a str) -> Found<'a> {
    of(e, "", |_| facts(e).map(read))
}

/// A text of the pod; null for what is in none, and null on the host: unlike `container.*`, as Falco has it.
fn of_pod<'a>(e: &Event<'a>, read: impl FnOnce(&'a PodFacts) -> &'a str) -> Found<'a> {
    Some(Value::Text(read(facts(e)?.pod.as_ref()?).as_bytes()))
}

fn id<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    of(e, HOST, |container| Some(container.id()))
}

fn full_id<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    of(e, "", |container| Some(container.full_id()))
}

fn name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    of(e, HOST, |_| facts(e).map(|facts| &*facts.name))
}

fn ty<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.runtime)
}

fn image<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.image)
}

fn image_id<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.image_id)
}

fn repository<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.repository)
}

fn tag<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.tag)
}

fn digest<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.digest)
}

fn ip<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.ip)
}

fn cni_json<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    told(e, |facts| &facts.cni_json)
}

fn flag<'a>(value: Option<bool>) -> Found<'a> {
    value.map(Value::Bool)
}

fn privileged<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    flag(facts(e)?.privileged)
}

fn host_pid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    flag(facts(e)?.host_pid)
}

fn host_network<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    flag(facts(e)?.host_network)
}

fn host_ipc<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    flag(facts(e)?.host_ipc)
}

// ---- mounts

fn write_mount(out: &mut Writer<'_>, mount: &Mount) {
    for (i, part) in
        [&*mount.source, &mount.dest, &mount.mode, mount.rdwr(), &mount.propagation].into_iter().enumerate()
    {
        if i > 0 {
            out.push(b":");
        }
        out.push(part.as_bytes());
    }
}

fn mounts<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    if *e.membership() == Membership::Host {
        return Some(Value::Text(b""));
    }
    let mut out = Writer::new(e.arena());
    for mount in &facts(e)?.mounts {
        if !out.is_empty() {
            out.push(b",");
        }
        write_mount(&mut out, mount);
    }
    Some(Value::Text(out.finish()))
}

/// The mount with this index, or the first whose path matches the pattern.
fn find_mount<'a>(e: &Event<'a>, arg: &Arg, path: fn(&Mount) -> &str) -> Option<&'a Mount> {
    let mounts = &facts(e)?.mounts;
    match arg {
        Arg::Index(index) => mounts.get(usize::try_from(*index).ok()?),
        Arg::Key(key) => match key.parse::<usize>() {
            Ok(index) => mounts.get(index),
            Err(_) => mounts.iter().find(|mount| glob(key.as_bytes(), path(mount).as_bytes())),
        },
        Arg::None => None,
    }
}

fn by_source<'a>(e: &Event<'a>, arg: &Arg) -> Option<&'a Mount> {
    find_mount(e, arg, |mount| &mount.source)
}

fn mount<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    let mut out = Writer::new(e.arena());
    write_mount(&mut out, by_source(e, arg)?);
    Some(Value::Text(out.finish()))
}

fn mount_source<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    find_mount(e, arg, |mount| &mount.dest).map(|mount| Value::Text(mount.source.as_bytes()))
}

fn mount_dest<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    by_source(e, arg).map(|mount| Value::Text(mount.dest.as_bytes()))
}

fn mount_mode<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    by_source(e, arg).map(|mount| Value::Text(mount.mode.as_bytes()))
}

fn mount_rdwr<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    by_source(e, arg).map(|mount| Value::Text(mount.rdwr().as_bytes()))
}

fn mount_propagation<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    by_source(e, arg).map(|mount| Value::Text(mount.propagation.as_bytes()))
}

// ---- labels

type Label = (Box<str>, Box<str>);

fn find_label<'a>(labels: &'a [Label], arg: &Arg) -> Found<'a> {
    let Arg::Key(key) = arg else { return None };
    labels.iter().find(|(name, _)| name == key).map(|(_, value)| Value::Text(value.as_bytes()))
}

/// `name:value`, separated by comma and blank; those that the runtime made for itself are left out.
fn join_labels<'a>(e: &Event<'a>, labels: &[Label]) -> &'a [u8] {
    let mut out = Writer::new(e.arena());
    let own = |name: &str| name.starts_with("annotation.") || name.starts_with("io.kubernetes.");
    for (name, value) in labels.iter().filter(|(name, _)| !own(name)) {
        out.push_separated(b", ", name.as_bytes());
        if !value.is_empty() {
            out.push(b":").push(value.as_bytes());
        }
    }
    out.finish()
}

fn label<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    find_label(&facts(e)?.labels, arg)
}

fn labels<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    match e.membership() {
        Membership::Host => Some(Value::Text(b"")),
        Membership::Unknown | Membership::Container(_) => Some(Value::Text(join_labels(e, &facts(e)?.labels))),
    }
}

// ---- pod

fn pod_name<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    of_pod(e, |pod| &pod.name)
}

fn pod_namespace<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    of_pod(e, |pod| &pod.namespace)
}

/// What the runtime takes for the uid of a static pod is a hash of its manifest: the cluster knows better.
fn pod_uid<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let state = e.state;
    of_pod(e, |pod| state.pod(pod).map_or(&*pod.uid, |known| &known.uid))
}

fn sandbox_id<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    of_pod(e, |pod| shown(&pod.sandbox_id))
}

fn full_sandbox_id<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    of_pod(e, |pod| &pod.sandbox_id)
}

/// The pod as the cluster has it.
fn in_cluster<'a>(e: &Event<'a>) -> Option<&'a Pod> {
    e.state.pod(facts(e)?.pod.as_ref()?)
}

fn owner<'a>(e: &Event<'a>, kind: &str) -> Found<'a> {
    in_cluster(e)?.owner(kind).map(|name| Value::Text(name.as_bytes()))
}

fn deployment<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    owner(e, "Deployment")
}

fn replica_set<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    owner(e, "ReplicaSet")
}

fn replication_controller<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    owner(e, "ReplicationController")
}

fn labels_of_namespace<'a>(e: &Event<'a>) -> Option<&'a Labels> {
    let pod = facts(e)?.pod.as_ref()?;
    Some(&e.state.namespace(&pod.namespace)?.labels)
}

fn namespace_label<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    find_label(labels_of_namespace(e)?, arg)
}

fn namespace_labels<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(join_labels(e, labels_of_namespace(e)?)))
}

/// Labels of a pod can change while it runs: the cluster's are newer, the runtime's are there earlier and have more.
fn pod_label<'a>(e: &Event<'a>, arg: &Arg) -> Found<'a> {
    let newer = in_cluster(e).and_then(|pod| find_label(&pod.labels, arg));
    newer.or_else(|| find_label(&facts(e)?.pod.as_ref()?.labels, arg))
}

fn pod_labels<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let told = &facts(e)?.pod.as_ref()?.labels;
    Some(Value::Text(join_labels(e, in_cluster(e).map_or(told, |pod| &pod.labels))))
}

/// Containers of a pod share its network: the container's address is the pod's.
fn pod_ip<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let facts = facts(e)?;
    facts.pod.as_ref()?;
    Some(Value::Text(facts.ip.as_bytes()))
}

fn pod_cni_json<'a>(e: &Event<'a>, _: &Arg) -> Found<'a> {
    let facts = facts(e)?;
    facts.pod.as_ref()?;
    Some(Value::Text(facts.cni_json.as_bytes()))
}
