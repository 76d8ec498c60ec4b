//! From what a runtime answers to what events show. Pure: the answers come in, facts go out.

use event::containers::{ContainerFacts, Mount, PodFacts};
use serde_json::Value;

use super::cri::{ContainerStatus, Image, MountPropagation, NamespaceMode, NamespaceOption, PodSandboxStatus};

/// Most labels and mounts of one container, and most bytes of what a network plugin said: the author of a pod chooses them.
pub(super) const ITEMS_MAX: usize = 512;
const CNI_MAX: usize = 16 << 10;

/// What a runtime answers about one container, or about a sandbox alone.
#[derive(Debug, Default)]
pub struct Answers {
    /// Name of the runtime.
    pub runtime: String,
    /// The container; none when the sandbox itself is asked for.
    pub container: Option<ContainerStatus>,
    /// What the runtime adds about the container: JSON.
    pub container_info: Option<Value>,
    /// The sandbox of its pod.
    pub sandbox: Option<PodSandboxStatus>,
    /// What the runtime adds about the sandbox: JSON.
    pub sandbox_info: Option<Value>,
    /// The image, when it had to be asked for.
    pub image: Option<Image>,
}

/// Puts the facts together. `None` when the answers name nothing.
pub fn facts(answers: &Answers) -> Option<ContainerFacts> {
    let pod = answers.sandbox.as_ref().map(pod);
    let mut facts = match (&answers.container, &pod) {
        (Some(container), _) => of_container(answers, container),
        (None, Some(pod)) => of_sandbox(answers, pod),
        (None, None) => return None,
    };
    facts.runtime = runtime_word(&answers.runtime).into();
    if let Some(sandbox) = &answers.sandbox {
        if let Some(options) = namespaces(sandbox) {
            facts.host_network = Some(options.network() == NamespaceMode::Node);
            facts.host_pid = Some(options.pid() == NamespaceMode::Node);
            facts.host_ipc = Some(options.ipc() == NamespaceMode::Node);
        }
        facts.ip = primary_ip(sandbox).into();
        facts.cni_json = cni_json(answers.sandbox_info.as_ref()).into();
    }
    facts.pod = pod;
    Some(facts)
}

fn of_container(answers: &Answers, container: &ContainerStatus) -> ContainerFacts {
    let name = image_name(answers, container);
    let named = parse_image(name);
    let image = answers.image.as_ref();
    let digest = [container.image_ref.as_str()]
        .into_iter()
        .chain(image.iter().flat_map(|image| image.repo_digests.iter().map(String::as_str)))
        .find_map(|reference| reference.split_once('@').map(|(_, digest)| digest))
        .unwrap_or(named.digest);
    let id = [container.image_id.as_str(), image.map_or("", |image| &image.id), &container.image_ref]
        .into_iter()
        .find(|id| !id.is_empty() && !id.contains('@'))
        .unwrap_or_default();
    ContainerFacts {
        name: container.metadata.as_ref().map_or("", |metadata| &metadata.name).into(),
        image: name.into(),
        image_id: bare_id(id).into(),
        repository: named.repository.into(),
        tag: named.tag.into(),
        digest: digest.into(),
        privileged: answers.container_info.as_ref().and_then(privileged),
        mounts: container.mounts.iter().take(ITEMS_MAX).map(mount).collect(),
        labels: labels(&container.labels),
        ..ContainerFacts::default()
    }
}

/// The container that holds a pod together has the pod's name.
fn of_sandbox(answers: &Answers, pod: &PodFacts) -> ContainerFacts {
    let info = answers.sandbox_info.as_ref();
    let image = info.and_then(|info| info.get("image")?.as_str()).unwrap_or_default();
    let named = parse_image(image);
    ContainerFacts {
        name: pod.name.clone(),
        image: image.into(),
        repository: named.repository.into(),
        tag: named.tag.into(),
        digest: named.digest.into(),
        privileged: info.and_then(privileged),
        labels: pod.labels.clone(),
        sandbox: true,
        ..ContainerFacts::default()
    }
}

fn pod(sandbox: &PodSandboxStatus) -> PodFacts {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    PodFacts {
        name: metadata.name.into(),
        namespace: metadata.namespace.into(),
        uid: metadata.uid.into(),
        sandbox_id: sandbox.id.as_str().into(),
        labels: labels(&sandbox.labels),
    }
}

/// Falco's word for a runtime.
pub fn runtime_word(name: &str) -> &str {
    match name {
        "cri-o" | "crio" => "cri-o",
        other => other,
    }
}

fn namespaces(sandbox: &PodSandboxStatus) -> Option<&NamespaceOption> {
    sandbox.linux.as_ref()?.namespaces.as_ref()?.options.as_ref()
}

/// The first IPv4 address; another one when there is none.
fn primary_ip(sandbox: &PodSandboxStatus) -> &str {
    let Some(network) = &sandbox.network else { return "" };
    let mut all = [network.ip.as_str()].into_iter().chain(network.additional_ips.iter().map(|ip| ip.ip.as_str()));
    all.clone().find(|ip| ip.contains('.')).or_else(|| all.find(|ip| !ip.is_empty())).unwrap_or_default()
}

fn cni_json(info: Option<&Value>) -> String {
    let result = info.and_then(|info| info.get("cniResult")).filter(|result| !result.is_null());
    result.map(Value::to_string).filter(|text| text.len() <= CNI_MAX).unwrap_or_default()
}

fn labels(map: &std::collections::HashMap<String, String>) -> Vec<(Box<str>, Box<str>)> {
    let mut labels: Vec<(Box<str>, Box<str>)> =
        map.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
    labels.sort_unstable();
    labels.truncate(ITEMS_MAX);
    labels
}

fn mount(mount: &super::cri::Mount) -> Mount {
    Mount {
        source: mount.host_path.as_str().into(),
        dest: mount.container_path.as_str().into(),
        mode: "".into(),
        writable: !mount.readonly,
        propagation: match mount.propagation() {
            MountPropagation::PropagationPrivate => "private",
            MountPropagation::PropagationHostToContainer => "rslave",
            MountPropagation::PropagationBidirectional => "rshared",
        }
        .into(),
    }
}

/// Whether a container, or a sandbox, is privileged, by what the runtime adds: CRI-O says it; containerd repeats the
/// configuration, in which what is false is left out.
fn privileged(info: &Value) -> Option<bool> {
    if let Some(said) = info.get("privileged").and_then(Value::as_bool) {
        return Some(said);
    }
    let linux = info.get("config")?.get("linux")?;
    Some(linux.pointer("/security_context/privileged").and_then(Value::as_bool).unwrap_or(false))
}

/// The image by the best name that somebody has for it; the bare id when nobody has any.
fn image_name<'a>(answers: &'a Answers, container: &'a ContainerStatus) -> &'a str {
    let spec = container.image.as_ref();
    let asked = spec.map_or("", |spec| &spec.image);
    let user = spec.map_or("", |spec| &spec.user_specified_image);
    let info = answers.container_info.as_ref();
    let configured = |name: &str| info.and_then(|info| info.pointer(&format!("/config/image/{name}"))?.as_str());
    let tags = answers.image.iter().flat_map(|image| image.repo_tags.iter().chain(&image.repo_digests));
    [asked]
        .into_iter()
        .chain(tags.map(String::as_str))
        .chain([user, configured("user_specified_image").unwrap_or_default()])
        .find(|name| !is_bare_id(name))
        .unwrap_or(asked)
}

/// Whether the container's image goes by no name in the answers so far: then the image itself must be asked for.
pub fn needs_image(container: &ContainerStatus) -> bool {
    let spec = container.image.as_ref().map_or("", |spec| &spec.image);
    container.image_id.is_empty() || is_bare_id(spec) || !container.image_ref.contains('@')
}

fn is_bare_id(name: &str) -> bool {
    name.is_empty() || name.starts_with("sha256:") || name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(super) fn bare_id(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// The parts of an image's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageName<'a> {
    pub(super) repository: &'a str,
    pub(super) tag: &'a str,
    pub(super) digest: &'a str,
}

/// `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`; a bare id has no parts.
pub(super) fn parse_image(name: &str) -> ImageName<'_> {
    if is_bare_id(name) {
        return ImageName { repository: "", tag: "", digest: "" };
    }
    let (name, digest) = name.split_once('@').unwrap_or((name, ""));
    // A colon before the last slash belongs to the port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((front, tag)) if !tag.contains('/') => (front, tag),
        Some(_) | None => (name, ""),
    };
    ImageName { repository, tag, digest }
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
