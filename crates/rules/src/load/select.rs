//! Which rules are enabled: by name with `*`, or by tag.

/// One decision of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Enable or disable.
    pub enable: bool,
    /// Which rules.
    pub selector: Selector,
}

/// Which rules a selection is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Those with a name like this; `*` stands for any text.
    Rule(String),
    /// Those with this tag.
    Tag(String),
}

impl Selector {
    /// Whether a rule is meant.
    pub fn selects(&self, name: &str, tags: &[Box<str>]) -> bool {
        match self {
            Self::Rule(pattern) => wildcard(pattern, name),
            Self::Tag(wanted) => tags.iter().any(|tag| **tag == **wanted),
        }
    }
}

/// The last selection that is about a rule decides.
pub(super) fn is_enabled(name: &str, tags: &[Box<str>], enabled: bool, selection: &[Selection]) -> bool {
    let last = selection.iter().rev().find(|selection| selection.selector.selects(name, tags));
    last.map_or(enabled, |selection| selection.enable)
}

/// Whether a text is like a pattern, in which `*` stands for any text and nothing else is special.
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        match (parts.peek(), text.find(part)) {
            (None, _) => return text.ends_with(part),
            (Some(_), Some(at)) => text = &text[at + part.len()..],
            (Some(_), None) => return false,
        }
    }
    true
}
