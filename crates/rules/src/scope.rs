//! Where a rule looks: the part of the cluster whose events it may see.
//!
//! A scope is asked before the condition and knows nothing of it, so no condition can widen it. What is not known to be
//! in scope is out of it: an event of an unknown container, of a pod that the runtime has not described, of a namespace
//! without known labels.

use event::containers::{ContainerFacts, Whereabouts};

use crate::filter::glob::Glob;

/// The events that a rule may see: those that pass every part that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Pods, and objects of the Kubernetes API, in this namespace only.
    pub namespace: Option<Box<str>>,
    /// Those in namespaces with these labels only.
    pub namespaces: Option<Selector>,
    /// Pods with these labels only.
    pub pods: Option<Selector>,
    /// These containers only.
    pub containers: Option<Containers>,
    /// Also what happens outside of containers; never with `namespace`.
    pub host: bool,
}

/// Requirements on labels that must all be met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selector(pub Vec<Requirement>);

/// What the value of one label must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// Name of the label.
    pub key: Box<str>,
    /// What it must be.
    pub want: Want,
}

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Want {
    /// One of these.
    In(Vec<Box<str>>),
    /// None of these; absent will do.
    NotIn(Vec<Box<str>>),
    /// There, with any value.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl Selector {
    /// Whether labels meet all requirements.
    pub fn selects(&self, labels: &[(Box<str>, Box<str>)]) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.iter().find(|(key, _)| *key == requirement.key).map(|(_, value)| value);
            match (&requirement.want, value) {
                (Want::In(values), Some(value)) => values.contains(value),
                (Want::NotIn(values), Some(value)) => !values.contains(value),
                (Want::Exists, Some(_)) | (Want::NotIn(_) | Want::DoesNotExist, None) => true,
                (Want::DoesNotExist, Some(_)) | (Want::In(_) | Want::Exists, None) => false,
            }
        })
    }
}

/// Containers by patterns, in which `*` stands for any text and `?` for any character.
#[derive(Debug, Clone, Default)]
pub struct Containers {
    names: Vec<(Box<str>, Glob)>,
    images: Vec<(Box<str>, Glob)>,
}

impl Containers {
    /// Those with one of the names and one of the images; an empty list stands for all.
    pub fn new(
        names: impl IntoIterator<Item = impl Into<Box<str>>>,
        images: impl IntoIterator<Item = impl Into<Box<str>>>,
    ) -> Self {
        fn compile(pattern: impl Into<Box<str>>) -> (Box<str>, Glob) {
            let pattern = pattern.into();
            let glob = Glob::new(pattern.as_bytes(), false);
            (pattern, glob)
        }
        Self { names: names.into_iter().map(compile).collect(), images: images.into_iter().map(compile).collect() }
    }

    fn select(&self, facts: &ContainerFacts) -> bool {
        let any = |patterns: &[(Box<str>, Glob)], text: &str| {
            patterns.is_empty() || patterns.iter().any(|(_, glob)| glob.matches(text.as_bytes()))
        };
        any(&self.names, &facts.name) && any(&self.images, &facts.image)
    }

    fn patterns(&self) -> impl Iterator<Item = (bool, &str)> {
        let names = self.names.iter().map(|(pattern, _)| (false, &**pattern));
        names.chain(self.images.iter().map(|(pattern, _)| (true, &**pattern)))
    }
}

/// A pattern is its text.
impl PartialEq for Containers {
    fn eq(&self, other: &Self) -> bool {
        self.patterns().eq(other.patterns())
    }
}

impl Eq for Containers {}

impl std::hash::Hash for Containers {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.patterns().for_each(|pattern| pattern.hash(state));
    }
}

impl Scope {
    /// What a namespace sees at most.
    pub fn namespace(name: &str) -> Self {
        Self { namespace: Some(name.into()), ..Self::default() }
    }

    /// Everything, like no scope at all.
    pub fn is_everything(&self) -> bool {
        let Self { namespace, namespaces, pods, containers, host } = self;
        namespace.is_none() && namespaces.is_none() && pods.is_none() && containers.is_none() && *host
    }

    /// Whether a rule of this scope may see what happened there.
    pub fn admits(&self, place: Whereabouts<'_>) -> bool {
        match place {
            Whereabouts::Unknown => false,
            Whereabouts::Host => self.host && self.namespace.is_none(),
            Whereabouts::Container { facts, pod_labels, namespace_labels } => {
                let pod = facts.and_then(|facts| facts.pod.as_ref());
                self.admits_namespace(pod.map_or("", |pod| &pod.namespace), namespace_labels)
                    && self.pods.as_ref().is_none_or(|pods| pod.is_some() && pods.selects(pod_labels))
                    && self.admits_container(facts)
            }
            Whereabouts::Object { namespace, namespace_labels } => {
                self.pods.is_none() && self.containers.is_none() && self.admits_namespace(namespace, namespace_labels)
            }
        }
    }

    fn admits_container(&self, facts: Option<&ContainerFacts>) -> bool {
        self.containers.as_ref().is_none_or(|containers| facts.is_some_and(|facts| containers.select(facts)))
    }

    /// `name` is empty for what is in no namespace, or in an unknown one.
    fn admits_namespace(&self, name: &str, labels: Option<&[(Box<str>, Box<str>)]>) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| !name.is_empty() && wanted == name)
            && self.namespaces.as_ref().is_none_or(|wanted| labels.is_some_and(|labels| wanted.selects(labels)))
    }
}

/// Name of the namespace, where the place tells one.
pub(crate) fn namespace_of<'a>(place: Whereabouts<'a>) -> Option<&'a str> {
    match place {
        Whereabouts::Unknown | Whereabouts::Host => None,
        Whereabouts::Container { facts, .. } => Some(&*facts?.pod.as_ref()?.namespace),
        Whereabouts::Object { namespace, .. } => Some(namespace),
    }
}

#[cfg(test)]
mod tests {
    use event::containers::{Labels, PodFacts};

    use super::*;

    fn labels(labels: &[(&str, &str)]) -> Labels {
        labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn facts(namespace: &str, pod_labels: &[(&str, &str)]) -> ContainerFacts {
        let pod = PodFacts { namespace: namespace.into(), labels: labels(pod_labels), ..PodFacts::default() };
        ContainerFacts {
            name: "app".into(),
            image: "docker.io/library/nginx:1".into(),
            pod: Some(pod),
            ..Default::default()
        }
    }

    fn at(facts: &ContainerFacts) -> Whereabouts<'_> {
        let pod_labels = facts.pod.as_ref().map_or(&[][..], |pod| &pod.labels);
        Whereabouts::Container { facts: Some(facts), pod_labels, namespace_labels: None }
    }

    #[test]
    fn a_namespace_sees_its_pods_and_nothing_else() {
        let scope = Scope::namespace("shop");
        let no_pod = ContainerFacts::default();
        assert!(scope.admits(at(&facts("shop", &[]))));
        for place in [
            Whereabouts::Unknown,
            Whereabouts::Host,
            Whereabouts::Container { facts: None, pod_labels: &[], namespace_labels: None },
            at(&no_pod),
            at(&facts("", &[])),
            at(&facts("shop2", &[])),
            Whereabouts::Object { namespace: "", namespace_labels: None },
        ] {
            assert!(!scope.admits(place), "{place:?}");
        }
        assert!(!Scope { host: true, ..scope.clone() }.admits(Whereabouts::Host));
        assert!(!Scope::namespace("").admits(at(&facts("", &[]))));
        assert!(scope.admits(Whereabouts::Object { namespace: "shop", namespace_labels: None }));
    }

    #[test]
    fn selectors_want_known_labels() {
        let wants = |want| Some(Selector(vec![Requirement { key: "app".into(), want }]));
        let pods = |want| Scope { pods: wants(want), ..Scope::default() };
        let web = facts("shop", &[("app", "web")]);
        let none = facts("shop", &[]);
        for (want, has, lacks) in [
            (Want::In(vec!["web".into()]), true, false),
            (Want::NotIn(vec!["web".into()]), false, true),
            (Want::Exists, true, false),
            (Want::DoesNotExist, false, true),
        ] {
            assert_eq!(pods(want.clone()).admits(at(&web)), has, "{want:?}");
            assert_eq!(pods(want.clone()).admits(at(&none)), lacks, "{want:?}");
            assert!(!pods(want).admits(Whereabouts::Container {
                facts: None,
                pod_labels: &[],
                namespace_labels: None
            }));
        }
        let scope = Scope { namespaces: wants(Want::DoesNotExist), ..Scope::default() };
        assert!(!scope.admits(at(&web)), "nobody has said which labels the namespace has");
        let known = labels(&[]);
        assert!(scope.admits(Whereabouts::Container {
            facts: Some(&web),
            pod_labels: &[],
            namespace_labels: Some(&known)
        }));
    }

    #[test]
    fn containers_are_selected_by_name_and_image() {
        let scope = |names: &[&str], images: &[&str]| Scope {
            containers: Some(Containers::new(names.iter().copied(), images.iter().copied())),
            ..Scope::default()
        };
        let app = facts("shop", &[]);
        assert!(scope(&["side*", "ap?"], &[]).admits(at(&app)));
        assert!(scope(&["app"], &["*/nginx:*"]).admits(at(&app)));
        assert!(!scope(&["app"], &["*/redis:*"]).admits(at(&app)));
        assert!(!scope(&["side*"], &[]).admits(at(&app)));
        assert!(!scope(&["*"], &[]).admits(Whereabouts::Host));
    }
}
