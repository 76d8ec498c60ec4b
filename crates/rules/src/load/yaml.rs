//! YAML → nodes that know their place. Scalars stay text as written: `1`, `true` and `~` are what Falco's loader
//! makes of them where it wants a number or a flag, and text in lists.
//!
//! The input is untrusted: depth and the size that aliases expand to are bounded.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle as YamlStyle, ScanError};

use crate::{
    diagnostic::{Code, Diagnostic},
    source::{ScalarStyle, SourceId, SourceMap, Span, Text},
};

/// Deepest nesting. Rules need seven levels.
const MAX_DEPTH: usize = 64;
/// Most nodes, and most bytes of scalars, of a file.
const MAX_NODES: usize = 1_000_000;
const MAX_BYTES: usize = 64 << 20;
/// Most nodes, and most bytes, that aliases may add to a file: a few hundred bytes of memory for each.
const MAX_ADDED: (usize, usize) = (100_000, 8 << 20);
/// Most keys of a mapping. A rule has a dozen.
const MAX_KEYS: usize = 1000;

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
    let offsets = Offsets::new(text);
    let mut patched = Cow::Borrowed(text);
    for _ in 0..(PATCH_BYTES / text.len().max(1)).clamp(8, 1000) {
        let mut reader = Reader::new(map, id);
        match reader.documents(&patched, &offsets) {
            Ok(()) => return (reader.documents, reader.diagnostics),
            Err(Stop::Indentation(char)) => match outdented(&patched, char) {
                Some(better) => patched = Cow::Owned(better),
                None => break,
            },
            Err(Stop::Wrong(diagnostic)) => {
                reader.diagnostics.push(*diagnostic);
                return (Vec::new(), reader.diagnostics);
            }
        }
    }
    let diagnostic = Diagnostic::new(Code::InvalidYaml, "invalid YAML: lines in brackets must be indented");
    (Vec::new(), vec![diagnostic.at(map, Span { source: id, start: 0, end: 1 })])
}

/// How many bytes are read again, in all, because of outdented lines.
const PATCH_BYTES: usize = 64 << 20;

/// Why reading stopped.
enum Stop {
    /// A line in brackets isn't indented enough; the offset of its first word, in characters.
    Indentation(usize),
    /// Anything else.
    Wrong(Box<Diagnostic>),
}

/// YAML wants lines in brackets indented deeper than what they belong to; Falco's parser doesn't care, and official
/// rules close brackets at the margin. Line breaks before such lines become blanks, and comments before them are
/// blanked out: offsets stay, and there is no indentation left to judge. That is done for every line that begins with
/// a closing bracket, and for the lines from that at `char` on that are indented no deeper than it.
fn outdented(text: &str, char: usize) -> Option<String> {
    let mut chars: Vec<char> = text.chars().collect();
    let wrong = (0..char.min(chars.len())).rev().find(|at| chars[*at] == '\n')?;
    let indent = char - wrong;
    let (mut line, mut at) = (0, 0);
    let mut in_group = false;
    while let Some(end) = (at..chars.len()).find(|at| chars[*at] == '\n') {
        let first = (end + 1..chars.len()).find(|at| !matches!(chars[*at], ' ' | '\r')).unwrap_or(chars.len());
        let closes = matches!(chars.get(first), Some(']' | '}'));
        in_group = end == wrong || in_group && first - end <= indent;
        if closes || in_group {
            blank_comment(&mut chars[line..end]);
            chars[end] = ' ';
        }
        // Nested brackets that go on behind this one are the next round's business.
        in_group &= !chars[first..].iter().take_while(|char| **char != '\n').any(|char| matches!(char, ']' | '}'));
        (line, at) = (end + 1, end + 1);
    }
    Some(chars.into_iter().collect())
}

/// Blanks out a comment at the end of a line.
fn blank_comment(line: &mut [char]) {
    let mut quote = None;
    for at in 0..line.len() {
        match (quote, line[at]) {
            (None, '#') if at == 0 || line[at - 1] == ' ' => {
                line[at..].fill(' ');
                return;
            }
            (None, mark @ ('"' | '\'')) => quote = Some(mark),
            (Some(open), mark) if open == mark => quote = None,
            _ => {}
        }
    }
}

struct Reader<'m> {
    map: &'m SourceMap,
    id: SourceId,
    documents: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
    open: Vec<Open>,
    /// What aliases stand for, and how large it is.
    anchors: HashMap<usize, (Node, (usize, usize))>,
    nodes: usize,
    bytes: usize,
    /// What anchors and aliases have added, in nodes and bytes.
    added: (usize, usize),
}

impl<'m> Reader<'m> {
    fn new(map: &'m SourceMap, id: SourceId) -> Self {
        let (documents, diagnostics, open, anchors) = Default::default();
        Self { map, id, documents, diagnostics, open, anchors, nodes: 0, bytes: 0, added: (0, 0) }
    }

    fn documents(&mut self, text: &str, offsets: &Offsets) -> Result<(), Stop> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| self.scan_error(text, &error, offsets))?;
            let (start, end) = (offsets.byte(span.start.index()), offsets.byte(span.end.index()));
            self.event(event, Span { source: self.id, start, end }).map_err(Stop::Wrong)?;
        }
        Ok(())
    }

    fn scan_error(&self, text: &str, error: &ScanError, offsets: &Offsets) -> Stop {
        let char = error.marker().index();
        if matches!(error.info(), "invalid indentation" | "invalid indentation in flow construct") {
            return Stop::Indentation(char);
        }
        let at = offsets.byte(char);
        let line: String = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default().into();
        let indented = line.trim_start_matches(' ').starts_with('\t') || error.info().contains("tab");
        let help = indented.then(|| "YAML is indented with blanks, not with tabs".to_owned());
        let diagnostic = Diagnostic::new(Code::InvalidYaml, format!("invalid YAML: {}", error.info()));
        let span = Span { source: self.id, start: at, end: at + 1 };
        Stop::Wrong(Box::new(diagnostic.at(self.map, span).maybe_help(help)))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Box<Diagnostic>> {
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
                Some(Open::Map(entries, _, anchor, start)) => {
                    self.value(Node::Map(entries, joined(start, span)), anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).map(|(_, size)| *size) {
                Some(size) => {
                    // Before it is copied.
                    self.add(size, span)?;
                    match self.anchors.get(&anchor).map(|(node, _)| node.clone()) {
                        Some(node) => self.value(node, 0),
                        None => Ok(()),
                    }
                }
                None => Err(self.too_complex(span, "an alias inside of what it stands for")),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn start(&mut self, open: Open) -> Result<(), Box<Diagnostic>> {
        if self.open.len() >= MAX_DEPTH {
            let (Open::Seq(.., span) | Open::Map(.., span)) = open;
            return Err(self.too_complex(span, "YAML that nests too deeply"));
        }
        self.open.push(open);
        Ok(())
    }

    /// A copy of something of this size is about to be made.
    fn add(&mut self, (nodes, bytes): (usize, usize), span: Span) -> Result<(), Box<Diagnostic>> {
        self.added = (self.added.0.saturating_add(nodes), self.added.1.saturating_add(bytes));
        if self.added.0 > MAX_ADDED.0 || self.added.1 > MAX_ADDED.1 {
            return Err(self.too_complex(span, "YAML that is too large with its aliases put in"));
        }
        Ok(())
    }

    /// A complete value: part of the innermost open collection, or a document.
    fn value(&mut self, node: Node, anchor: usize) -> Result<(), Box<Diagnostic>> {
        let (nodes, bytes) = match self.open.last() {
            Some(_) if matches!(node, Node::Scalar(..)) => node.size(),
            _ => (1, 0),
        };
        (self.nodes, self.bytes) = (self.nodes + nodes, self.bytes + bytes);
        if self.nodes > MAX_NODES || self.bytes > MAX_BYTES {
            return Err(self.too_complex(node.span(), "YAML that is too large"));
        }
        if anchor > 0 {
            let size = node.size();
            self.add(size, node.span())?;
            self.anchors.insert(anchor, (node.clone(), size));
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
                return Err(Box::new(diagnostic.at(self.map, node.span())));
            }
            (Some(text), node) => return self.entry(text, node),
        }
        Ok(())
    }

    fn entry(&mut self, key: Text, node: Node) -> Result<(), Box<Diagnostic>> {
        let Some(Open::Map(entries, ..)) = self.open.last_mut() else { return Ok(()) };
        if entries.len() >= MAX_KEYS {
            return Err(self.too_complex(key.whole(), "a mapping of so many keys"));
        }
        if entries.iter().any(|(known, _)| known.as_str() == key.as_str()) {
            let message = format!("key '{}' stands twice here, the first one counts", key.as_str());
            self.diagnostics.push(Diagnostic::new(Code::DuplicateKey, message).at(self.map, key.whole()));
        }
        entries.push((key, node));
        Ok(())
    }

    fn too_complex(&self, span: Span, what: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::new(Code::YamlTooComplex, format!("{what} isn't accepted")).at(self.map, span))
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
