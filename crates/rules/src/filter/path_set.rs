//! The set of paths of a `pmatch`: is one of them the value, or a parent of it, component by component?

use hashbrown::HashMap;

use super::glob::Glob;

/// A trie of path components.
#[derive(Debug, Default)]
pub struct PathSet {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// A path of the set ends here.
    end: bool,
    exact: HashMap<Box<[u8]>, usize, ahash::RandomState>,
    globs: Vec<(Box<[u8]>, Glob, usize)>,
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

impl PathSet {
    /// The set of these paths.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut set = Self { nodes: vec![Node::default()] };
        for path in paths {
            let mut node = 0;
            for component in components(path) {
                node = set.child(node, component);
            }
            set.nodes[node].end = true;
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

    /// Whether a path of the set is the value or a parent of it.
    pub fn covers(&self, value: &[u8]) -> bool {
        // Each node is reached along one path only, so the search visits no node twice.
        let mut open = vec![(0, value)];
        while let Some((index, rest)) = open.pop() {
            let Some(node) = self.nodes.get(index) else { continue };
            if node.end {
                return true;
            }
            let start = rest.iter().position(|byte| *byte != b'/').unwrap_or(rest.len());
            let rest = &rest[start..];
            let (component, behind) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
            if component.is_empty() {
                continue;
            }
            open.extend(node.exact.get(component).map(|child| (*child, behind)));
            let fitting = node.globs.iter().filter(|(_, glob, _)| glob.matches(component));
            open.extend(fitting.map(|(.., child)| (*child, behind)));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(paths: &[&str], value: &str, want: bool) {
        let set = PathSet::new(paths.iter().map(|path| path.as_bytes()));
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
