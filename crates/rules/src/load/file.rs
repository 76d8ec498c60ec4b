//! What holds for the rules of some files only: whose they are, where they look, which of them are loaded.

use std::sync::Arc;

use crate::{alert::Priority, scope::Scope};

/// Whose rules they are.
///
/// The cluster's files come first. A namespace can use the macros and lists of the cluster; what it defines itself is
/// its own and hides what the cluster has of that name, from its own conditions only. It can't append to, override,
/// enable or disable what is the cluster's. Rule names are unique in a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// The cluster's.
    #[default]
    Cluster,
    /// This namespace's. Its rules see what happens in the namespace, whatever their scope and conditions say.
    Namespace(Box<str>),
}

/// What holds for the rules of one file, or of the files of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// Rules less serious than this are left out.
    pub minimum_priority: Priority,
    /// Whether its rules are loaded at all. If not, its lists and macros are there for others to use, but it changes
    /// nothing that others have defined.
    pub rules: bool,
    /// Only rules with one of these tags are loaded; all when empty.
    pub tags_include: Vec<Box<str>>,
    /// Rules with one of these tags are left out.
    pub tags_exclude: Vec<Box<str>>,
    /// Where its rules look; everywhere when there is none.
    pub scope: Option<Arc<Scope>>,
    /// Whose its rules are.
    pub layer: Layer,
    /// How much work its conditions may be, instead of [`Options::work`](super::Options::work).
    pub work: Option<usize>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            minimum_priority: Priority::Debug,
            rules: true,
            tags_include: Vec::new(),
            tags_exclude: Vec::new(),
            scope: None,
            layer: Layer::Cluster,
            work: None,
        }
    }
}

impl FileOptions {
    /// The same with the scope that the layer imposes.
    pub(super) fn confined(mut self) -> Self {
        if let Layer::Namespace(name) = &self.layer {
            let asked = self.scope.as_deref().cloned().unwrap_or_default();
            self.scope = Some(Arc::new(Scope { namespace: Some(name.clone()), host: false, ..asked }));
        }
        self
    }

    /// Whether a rule with these tags and priority is loaded.
    pub(super) fn selects(&self, priority: Priority, tags: &[Box<str>]) -> bool {
        let any = |wanted: &[Box<str>]| tags.iter().any(|tag| wanted.contains(tag));
        self.rules
            && priority <= self.minimum_priority
            && (self.tags_include.is_empty() || any(&self.tags_include))
            && !any(&self.tags_exclude)
    }
}
