//! All prefixes of a value among many, or all suffixes, in one walk along the value.

/// No text ends at a node.
const NONE: u32 = u32::MAX;

/// A radix trie over the beginnings of values, or, with `BACK`, over their ends.
#[derive(Debug)]
pub(super) struct Trie<const BACK: bool> {
    nodes: Vec<Node>,
    /// The labels of all nodes, each in the order of the value.
    labels: Vec<u8>,
    /// The children of all nodes: first bytes, sorted within a node, and nodes.
    firsts: Vec<u8>,
    children: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    label: u32,
    label_len: u16,
    child_count: u16,
    child: u32,
    /// The text that ends here.
    id: u32,
}

impl<const BACK: bool> Trie<BACK> {
    /// A trie of texts with their numbers; of equal texts, one is kept.
    pub(super) fn new<'t>(texts: impl IntoIterator<Item = (&'t [u8], u32)>) -> Self {
        let ordered = |text: &[u8]| -> Vec<u8> {
            match BACK {
                true => text.iter().rev().copied().collect(),
                false => text.to_vec(),
            }
        };
        let mut texts: Vec<_> = texts.into_iter().map(|(text, id)| (ordered(text), id)).collect();
        texts.sort();
        texts.dedup_by(|a, b| a.0 == b.0);
        let mut trie = Self { nodes: Vec::new(), labels: Vec::new(), firsts: Vec::new(), children: Vec::new() };
        trie.add(&texts, 0);
        trie
    }

    /// Adds the node for texts that agree in their first `depth` bytes. Constants are short, so the recursion is not deep.
    fn add(&mut self, texts: &[(Vec<u8>, u32)], depth: usize) -> u32 {
        let at = self.nodes.len();
        let common = match texts {
            [(first, _), .., (last, _)] => first.iter().zip(last).skip(depth).take_while(|(a, b)| a == b).count(),
            [(only, _)] => only.len() - depth,
            [] => 0,
        };
        // A label is as long as its length can say; what is longer goes on in a node of its own.
        let end = depth + common.min(usize::from(u16::MAX));
        let label = self.labels.len() as u32;
        if let Some((first, _)) = texts.first() {
            let part = &first[depth..end];
            match BACK {
                true => self.labels.extend(part.iter().rev()),
                false => self.labels.extend_from_slice(part),
            }
        }
        let (id, rest) = match texts.split_first() {
            Some(((text, id), rest)) if text.len() == end => (*id, rest),
            _ => (NONE, texts),
        };
        self.nodes.push(Node { label, label_len: (end - depth) as u16, child_count: 0, child: 0, id });
        let groups: Vec<_> = rest.chunk_by(|a, b| a.0[end] == b.0[end]).collect();
        let children: Vec<_> = groups.iter().map(|group| (group[0].0[end], self.add(group, end))).collect();
        self.nodes[at].child = self.children.len() as u32;
        self.nodes[at].child_count = children.len() as u16;
        self.firsts.extend(children.iter().map(|(first, _)| first));
        self.children.extend(children.iter().map(|(_, child)| child));
        at as u32
    }

    /// Calls `found` with the number of every text that the value begins with, or ends with.
    pub(super) fn visit(&self, value: &[u8], mut found: impl FnMut(u32)) {
        let mut rest = value;
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            let label = &self.labels[node.label as usize..][..usize::from(node.label_len)];
            let behind = if BACK { rest.strip_suffix(label) } else { rest.strip_prefix(label) };
            let Some(behind) = behind else { return };
            rest = behind;
            if node.id != NONE {
                found(node.id);
            }
            let next = if BACK { rest.last() } else { rest.first() };
            let Some(next) = next else { return };
            let start = node.child as usize;
            let firsts = &self.firsts[start..start + usize::from(node.child_count)];
            let Some(child) = memchr::memchr(*next, firsts) else { return };
            at = self.children[start + child] as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<const BACK: bool>(texts: &[&str], value: &str) -> Vec<u32> {
        let trie = Trie::<BACK>::new(texts.iter().zip(0..).map(|(text, id)| (text.as_bytes(), id)));
        let mut found = Vec::new();
        trie.visit(value.as_bytes(), |id| found.push(id));
        found.sort_unstable();
        found
    }

    #[test]
    fn every_prefix_is_found() {
        let texts = ["/etc/", "/etc/ssh", "/etc/ssh/sshd", "/e", "/var", "", "x"];
        assert_eq!(found::<false>(&texts, "/etc/ssh/config"), [0, 1, 3, 5]);
        assert_eq!(found::<false>(&texts, "/va"), [5]);
        assert_eq!(found::<false>(&texts[..5], ""), [] as [u32; 0]);
    }

    #[test]
    fn every_suffix_is_found() {
        let texts = [".conf", "x.conf", "sh", "bash", "nf"];
        assert_eq!(found::<true>(&texts, "/etc/x.conf"), [0, 1, 4]);
        assert_eq!(found::<true>(&texts, "/bin/bash"), [2, 3]);
        assert_eq!(found::<true>(&texts, "h"), [] as [u32; 0]);
    }

    #[test]
    fn an_empty_trie_finds_nothing() {
        assert_eq!(found::<false>(&[], "/etc"), [] as [u32; 0]);
    }
}
