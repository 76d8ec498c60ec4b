//! Which units of a bundle a node runs: all nodes get the same bundle, and each knows what is for it.

use std::collections::BTreeMap;

use api::selector::LabelSelector;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a sensor knows about its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Name of the Node.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It stands for no node: no selector leaves it out.
    #[serde(default)]
    pub everywhere: bool,
}

impl NodeFacts {
    /// Whether the selector selects the node; no selector selects all.
    pub fn is_selected(&self, selector: Option<&LabelSelector>) -> bool {
        self.everywhere
            || selector.is_none_or(|selector| selector.selects(|key| self.labels.get(key).map(String::as_str)))
    }

    /// Whether the node is among the first `percent` of all nodes for a resource. Nodes stay where they are while the
    /// percentage grows, and come in another order for each resource.
    pub fn is_within(&self, percent: u8, uid: &str) -> bool {
        let mut hash = Sha256::new();
        hash.update(uid.as_bytes());
        hash.update([0]);
        hash.update(self.name.as_bytes());
        let digest = hash.finalize();
        let place = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) % 100;
        place < u64::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeFacts {
        NodeFacts { name: name.into(), ..NodeFacts::default() }
    }

    #[test]
    fn a_share_of_the_nodes_is_about_as_large_as_it_says_and_only_grows() {
        let nodes: Vec<_> = (0..2000).map(|n| node(&format!("node-{n}"))).collect();
        for percent in [0, 1, 10, 50, 99, 100] {
            let within = nodes.iter().filter(|node| node.is_within(percent, "uid")).count();
            assert!(within.abs_diff(usize::from(percent) * 20) < 100, "{percent}: {within}");
            assert!(nodes.iter().all(|node| !node.is_within(percent, "uid") || node.is_within(percent + 1, "uid")));
        }
        assert!(nodes.iter().all(|node| node.is_within(100, "uid") && !node.is_within(0, "uid")));
        assert!(nodes.iter().any(|node| node.is_within(50, "uid") != node.is_within(50, "other")));
    }
}
