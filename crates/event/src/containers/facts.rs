//! What a container runtime knows about a container: plain data, brought by the sensor.

/// Facts about one container. Text that is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Name.
    pub name: Box<str>,
    /// Kind of the runtime, in Falco's words: `containerd`, `cri-o`, `docker`, `podman`…
    pub runtime: Box<str>,
    /// Image as it was asked for.
    pub image: Box<str>,
    /// Id of the image.
    pub image_id: Box<str>,
    /// Image without tag and digest.
    pub repository: Box<str>,
    /// Tag of the image.
    pub tag: Box<str>,
    /// Digest of the image.
    pub digest: Box<str>,
    /// Whether it runs privileged; `None` when the runtime does not say.
    pub privileged: Option<bool>,
    /// Whether it shares the host's pid namespace.
    pub host_pid: Option<bool>,
    /// Whether it shares the host's network namespace.
    pub host_network: Option<bool>,
    /// Whether it shares the host's ipc namespace.
    pub host_ipc: Option<bool>,
    /// Mounts, in the runtime's order.
    pub mounts: Vec<Mount>,
    /// Labels.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Primary IPv4 address.
    pub ip: Box<str>,
    /// What the network plugin said, as JSON.
    pub cni_json: Box<str>,
    /// The pod it belongs to.
    pub pod: Option<PodFacts>,
    /// Whether it is the one that holds a pod together (`pause`), not one that the pod's author named.
    pub sandbox: bool,
}

/// One mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// Path on the host.
    pub source: Box<str>,
    /// Path in the container.
    pub dest: Box<str>,
    /// Mount options.
    pub mode: Box<str>,
    /// Whether it may be written to.
    pub writable: bool,
    /// How mounts below it travel between namespaces.
    pub propagation: Box<str>,
}

impl Mount {
    /// `true` or `false`, as Falco prints it.
    pub(crate) const fn rdwr(&self) -> &'static str {
        if self.writable { "true" } else { "false" }
    }
}

/// Facts about a pod, as the runtime's labels give them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Name.
    pub name: Box<str>,
    /// Namespace.
    pub namespace: Box<str>,
    /// Uid.
    pub uid: Box<str>,
    /// Id of its sandbox.
    pub sandbox_id: Box<str>,
    /// Labels.
    pub labels: Vec<(Box<str>, Box<str>)>,
}

/// `fnmatch(3)` without flags, over bytes: `*`, `?`, `[a-z]`, `[!a]`, `\x`; `*` crosses slashes.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the rest does not match: behind the last star, one byte later each time.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(len) = one(&pattern[p..], text[t]) {
            p += len;
            t += 1;
        } else if let Some((star, from)) = retry {
            p = star;
            t = from + 1;
            retry = Some((star, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Length of the pattern's first element when it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => {
            let negated = matches!(rest, [b'!' | b'^', ..]);
            let set = &rest[usize::from(negated)..];
            // A bracket that is the first member is a member.
            let end = set.iter().skip(1).position(|b| *b == b']')? + 1;
            let members = &set[..end];
            (is_member(members, byte) != negated).then_some(1 + usize::from(negated) + end + 1)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

fn is_member(mut members: &[u8], byte: u8) -> bool {
    while let [first, rest @ ..] = members {
        if let [b'-', last, rest @ ..] = rest {
            if (*first..=*last).contains(&byte) {
                return true;
            }
            members = rest;
        } else {
            if *first == byte {
                return true;
            }
            members = rest;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn globs_are_those_of_fnmatch() {
        for (pattern, text) in [
            ("/proc*", "/proc/1/fd"),
            ("/etc", "/etc"),
            ("*", ""),
            ("/?tc", "/etc"),
            ("[a-c]x", "bx"),
            ("[!a]x", "bx"),
            ("a*b*c", "a1b2b3c"),
            ("[]]", "]"),
            ("\\*", "*"),
        ] {
            assert!(glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("/etc", "/etc/x"), ("/proc*", "/pro"), ("[a-c]", "d"), ("\\*", "x"), ("?", "")] {
            assert!(!glob(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }
}
