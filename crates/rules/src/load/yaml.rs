//! YAML → nodes that know their place. Scalars stay text as written: `1`, `true` and `~` are what Falco's loader
//! makes of them where it wants a number or a flag, and text in lists.
//!
//! The input is untrusted: depth and the size that aliases expand to are bounded.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle as YamlStyle};

use crate::{
    diagnostic::{Code, Diagnostic},
    source::{ScalarStyle, SourceId, SourceMap, Span, Text},
};

/// Deepest nesting. Rules need seven levels.
const MAX_DEPTH: usize = 64;
/// Most nodes, and most bytes of scalars, that aliases may expand a file to.
const MAX_NODES: usize = 1_000_000;
const MAX_BYTES: usize = 64 << 20;

/// A YAML value.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    /// Text, and whether it was written without quotes.
    Scalar(Text, ScalarStyle),
    /// A sequence.
    Seq(Vec<Self>, Span),
    /// A mapping with its entries in order.
    Map(Vec<(Text, Self)>, Span),
}

impl Node {
    /// Where it stands.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Scalar(text, _) => text.whole(),
            Self::Seq(_, span) | Self::Map(_, span) => *span,
        }
    }

    /// Nothing was written.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(text, ScalarStyle::Plain) if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// Nodes and bytes of it.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Scalar(text, _) => (1, text.as_str().len()),
            Self::Seq(items, _) => sum(items.iter().map(Self::size)),
            Self::Map(entries, _) => {
                sum(entries.iter().map(|(key, value)| sum([(1, key.as_str().len()), value.size()].into_iter())))
            }
        }
    }
}

fn sum(sizes: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    sizes.fold((1, 0), |(nodes, bytes), (more_nodes, more_bytes)| (nodes + more_nodes, bytes + more_bytes))
}

/// A collection that is still open.
enum Open {
    Seq(Vec<Node>, usize, Span),
    Map(Vec<(Text, Node)>, Option<Text>, usize, Span),
}

/// Reads all documents of a source.
pub(crate) fn read(map: &SourceMap, id: SourceId) -> (Vec<Node>, Vec<Diagnostic>) {
    let text: &str = &map.source(id).text;
    let mut reader = Reader { map, id, documents: Vec::new(), diagnostics: Vec::new(), open: Vec::new(), anchors: HashMap::new(), nodes: 0, bytes: 0 };
    let offsets = Offsets::new(text);
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => {
                let span = Span { source: id, start: offsets.byte(span.start.index()), end: offsets.byte(span.end.index()) };
                reader.event(event, span)
            }
            Err(error) => {
                let at = offsets.byte(error.marker().index());
                let diagnostic = Diagnostic::new(Code::InvalidYaml, format!("invalid YAML: {}", error.info()));
                let help = text[..at as usize].rsplit('\n').next().is_some_and(|line| line.contains('\t'));
                let help = help.then(|| "YAML is indented with blanks, not with tabs".to_owned());
                Err(diagnostic.at(map, Span { source: id, start: at, end: at + 1 }).maybe_help(help))
            }
        };
        if let Err(diagnostic) = step {
            reader.diagnostics.push(diagnostic);
            return (Vec::new(), reader.diagnostics);
        }
    }
    (reader.documents, reader.diagnostics)
}

struct Reader<'m> {
    map: &'m SourceMap,
    id: SourceId,
    documents: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

impl Reader<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        match event {
            Event::Scalar(value, style, anchor, _) => {
                let style = match style {
                    YamlStyle::Plain => ScalarStyle::Plain,
                    YamlStyle::SingleQuoted => ScalarStyle::SingleQuoted,
                    YamlStyle::DoubleQuoted => ScalarStyle::DoubleQuoted,
                    YamlStyle::Literal | YamlStyle::Folded => ScalarStyle::Block,
                };
                let text = Text::scalar(value.into_owned(), style, span, self.map.source(self.id));
                self.value(Node::Scalar(text, style), anchor)
            }
            Event::SequenceStart(anchor, _) => self.start(Open::Seq(Vec::new(), anchor, span)),
            Event::MappingStart(anchor, _) => self.start(Open::Map(Vec::new(), None, anchor, span)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Seq(items, anchor, start)) => self.value(Node::Seq(items, joined(start, span)), anchor),
                Some(Open::Map(entries, _, anchor, start)) => self.value(Node::Map(entries, joined(start, span)), anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.value(node, 0),
                None => Err(self.too_complex(span, "an alias inside of what it stands for")),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
        }
    }

    fn start(&mut self, open: Open) -> Result<(), Diagnostic> {
        if self.open.len() >= MAX_DEPTH {
            let (Open::Seq(.., span) | Open::Map(.., span)) = open;
            return Err(self.too_complex(span, "YAML that nests too deeply"));
        }
        self.open.push(open);
        Ok(())
    }

    /// A complete value: part of the innermost open collection, or a document.
    fn value(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        let (nodes, bytes) = match self.open.last() {
            Some(_) if matches!(node, Node::Scalar(..)) => node.size(),
            _ => (1, 0),
        };
        (self.nodes, self.bytes) = (self.nodes + nodes, self.bytes + bytes);
        if self.nodes > MAX_NODES || self.bytes > MAX_BYTES {
            return Err(self.too_complex(node.span(), "YAML that is too large with its aliases put in"));
        }
        if anchor > 0 {
            // Paid for in advance, as often as it may come.
            let (nodes, bytes) = node.size();
            (self.nodes, self.bytes) = (self.nodes + nodes, self.bytes + bytes);
            self.anchors.insert(anchor, node.clone());
        }
        let key = match self.open.last_mut() {
            None => {
                self.documents.push(node);
                return Ok(());
            }
            Some(Open::Seq(items, ..)) => {
                items.push(node);
                return Ok(());
            }
            Some(Open::Map(_, key, ..)) => key,
        };
        match (key.take(), node) {
            (None, Node::Scalar(text, _)) => *key = Some(text),
            (None, node) => {
                let diagnostic = Diagnostic::new(Code::InvalidYaml, "a key must be plain text");
                return Err(diagnostic.at(self.map, node.span()));
            }
            (Some(text), node) => self.entry(text, node),
        }
        Ok(())
    }

    fn entry(&mut self, key: Text, node: Node) {
        let Some(Open::Map(entries, ..)) = self.open.last_mut() else { return };
        if entries.iter().any(|(known, _)| known.as_str() == key.as_str()) {
            let message = format!("key '{}' stands twice here, the first one counts", key.as_str());
            self.diagnostics.push(Diagnostic::new(Code::DuplicateKey, message).at(self.map, key.whole()));
        }
        entries.push((key, node));
    }

    fn too_complex(&self, span: Span, what: &str) -> Diagnostic {
        Diagnostic::new(Code::YamlTooComplex, format!("{what} isn't accepted")).at(self.map, span)
    }
}

fn joined(start: Span, end: Span) -> Span {
    Span { end: end.end.max(start.end), ..start }
}

/// Character offsets, in which the parser counts, to byte offsets.
struct Offsets {
    /// Empty when the text is ASCII.
    bytes: Vec<u32>,
    length: u32,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let bytes = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(at, _)| at as u32).collect(),
        };
        Self { bytes, length: text.len() as u32 }
    }

    fn byte(&self, char: usize) -> u32 {
        match self.bytes.is_empty() {
            true => (char as u32).min(self.length),
            false => self.bytes.get(char).copied().unwrap_or(self.length),
        }
    }
}
