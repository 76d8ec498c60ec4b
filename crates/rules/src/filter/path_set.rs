//! Paths of `pmatch`: which of them are the value, or a parent of it, component by component?

use std::ops::ControlFlow;

use hashbrown::HashMap;

use super::glob::Glob;

/// A trie of path components.
#[derive(Debug, Default)]
pub struct PathSet {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The number of the path that ends here.
    end: Option<u32>,
    exact: HashMap<Box<[u8]>, usize, ahash::RandomState>,
    globs: Vec<(Box<[u8]>, Glob, usize)>,
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// The path as its components: equal for paths that `pmatch` takes for the same.
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    components(path).collect::<Vec<_>>().join(&b'/')
}

impl PathSet {
    /// The set of these paths, with numbers. Of paths with the same components, one number is kept.
    pub fn new<'a>(paths: impl IntoIterator<Item = (&'a [u8], u32)>) -> Self {
        let mut set = Self { nodes: vec![Node::default()] };
        for (path, id) in paths {
            let mut node = 0;
            for component in components(path) {
                node = set.child(node, component);
            }
            set.nodes[node].end = Some(id);
        }
        set
    }

    fn child(&mut self, node: usize, component: &[u8]) -> usize {
        let next = self.nodes.len();
        let Node { exact, globs, .. } = &mut self.nodes[node];
        let child = if component.iter().any(|byte| b"*?[".contains(byte)) {
            match globs.iter().find(|(text, ..)| **text == *component) {
                Some((.., child)) => *child,
                None => {
                    globs.push((component.into(), Glob::new(component, false), next));
                    next
                }
            }
        } else {
            *exact.entry(component.into()).or_insert(next)
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }

    /// Calls `found` with the number of each path that is the value or a parent of it, until it says that this is enough.
    pub fn visit(&self, value: &[u8], found: &mut impl FnMut(u32) -> ControlFlow<()>) -> ControlFlow<()> {
        self.visit_from(0, value, found)
    }

    /// Each node is reached along one path only, so none is visited twice; the recursion is as deep as paths of the set,
    /// which are constants, have components.
    fn visit_from(&self, index: usize, rest: &[u8], found: &mut impl FnMut(u32) -> ControlFlow<()>) -> ControlFlow<()> {
        let Some(node) = self.nodes.get(index) else { return ControlFlow::Continue(()) };
        if let Some(id) = node.end {
            found(id)?;
        }
        let start = rest.iter().position(|byte| *byte != b'/').unwrap_or(rest.len());
        let rest = &rest[start..];
        let (component, behind) = rest.split_at(memchr::memchr(b'/', rest).unwrap_or(rest.len()));
        if component.is_empty() {
            return ControlFlow::Continue(());
        }
        if let Some(child) = node.exact.get(component) {
            self.visit_from(*child, behind, found)?;
        }
        for (_, glob, child) in &node.globs {
            if glob.matches(component) {
                self.visit_from(*child, behind, found)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether a path of the set is the value or a parent of it.
    pub fn covers(&self, value: &[u8]) -> bool {
        self.visit(value, &mut |_| ControlFlow::Break(())).is_break()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(paths: &[&str], value: &str, want: bool) {
        let set = PathSet::new(paths.iter().map(|path| (path.as_bytes(), 0)));
        assert_eq!(set.covers(value.as_bytes()), want, "{paths:?} ~ {value}");
    }

    #[test]
    fn paths_are_prefixes_by_component() {
        check(&["/var/run"], "/var/run/docker", true);
        check(&["/var/run"], "/var/run", true);
        check(&["/var/run"], "/var/running", false);
        check(&["/var/run"], "/var", false);
        check(&["/var/run/"], "//var//run/x", true);
        check(&[], "/var", false);
    }

    #[test]
    fn components_may_be_patterns() {
        check(&["/opt/*/bin"], "/opt/app/bin/x", true);
        check(&["/opt/a*", "/opt/*b"], "/opt/cb", true);
        check(&["/opt/*"], "/opt", false);
    }
}
