//! YAML as a tree in which every node knows its place.
//!
//! Serde's readers forget where a value stood; a mistake in a resource needs the line. Typing follows YAML 1.2's core
//! schema. Aliases are expanded, with a bound: a file of a few lines must not become gigabytes.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Number, Value};

/// A place in a file: line and column, both from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

/// How the text of a node stands in the file; decides how a place in the text becomes one in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// As it is, starting at the node's place.
    Plain,
    /// Between quotes.
    Quoted,
    /// As a block of lines (`|`), each after so many blanks.
    Literal { first_line: u32, indent: u32 },
    /// As a block whose lines were joined (`>`).
    Folded { first_line: u32 },
}

/// A node and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub place: Place,
    pub kind: NodeKind,
}

#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String, Written),
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub place: Place,
    pub name: String,
}

/// Text that is not YAML, or not the YAML of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct YamlError {
    pub place: Place,
    pub message: String,
}

/// Nodes of one file, aliases expanded. The largest official ruleset has about 10,000.
const MAX_NODES: usize = 500_000;
/// Levels of nesting.
const MAX_DEPTH: usize = 64;

impl Node {
    /// What a mapping has under a key.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Mapping(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text, where the node is one.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text, _) => Some(text),
            _ => None,
        }
    }

    /// The same as JSON. Of two equal keys the last one holds.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(value) => Value::Bool(*value),
            NodeKind::Number(number) => Value::Number(number.clone()),
            NodeKind::Text(text, _) => Value::String(text.clone()),
            NodeKind::Sequence(nodes) => nodes.iter().map(Node::to_json).collect(),
            NodeKind::Mapping(entries) => {
                entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect()
            }
        }
    }

    fn count(&self) -> usize {
        1 + match &self.kind {
            NodeKind::Null | NodeKind::Bool(_) | NodeKind::Number(_) | NodeKind::Text(..) => 0,
            NodeKind::Sequence(nodes) => nodes.iter().map(Node::count).sum::<usize>(),
            NodeKind::Mapping(entries) => entries.iter().map(|(_, node)| node.count()).sum(),
        }
    }
}

/// Reads the documents of a stream; empty ones are left out. What was read before a mistake is given, too.
pub(crate) fn read(text: &str) -> (Vec<Node>, Option<YamlError>) {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), lines: text.lines().collect(), anchors: HashMap::new(), nodes: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.document() {
            Ok(Some(node)) if matches!(node.kind, NodeKind::Null) => {}
            Ok(Some(node)) => documents.push(node),
            Ok(None) => return (documents, None),
            Err(error) => return (documents, Some(error)),
        }
    }
}

/// Whether the first document is a sequence: the form of a Falco rules file.
pub(crate) fn starts_with_sequence(text: &str) -> bool {
    let mut parser = Parser::new_from_str(text);
    while let Some(Ok((event, _))) = parser.next_event() {
        match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::Scalar(value, ScalarStyle::Plain, ..) if value.is_empty() => {}
            Event::SequenceStart(..) => return true,
            Event::Scalar(..) | Event::Alias(_) | Event::MappingStart(..) => return false,
            Event::SequenceEnd | Event::MappingEnd | Event::StreamEnd => return false,
        }
    }
    false
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    lines: Vec<&'a str>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Option<Node>, YamlError> {
        while let Some((event, span)) = self.next()? {
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(None),
                event => return self.node(event, span, 0).map(Some),
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, YamlError> {
        let event = self.parser.next_event().transpose();
        event.map_err(|error| YamlError {
            place: place(Span::empty(*error.marker())),
            message: format!("not YAML: {}", error.info()),
        })
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, YamlError> {
        let place = place(span);
        let error = |message: String| Err(YamlError { place, message });
        if depth > MAX_DEPTH {
            return error(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.nodes += 1;
        let (anchor, kind) = match event {
            Event::Scalar(value, style, anchor, tag) => (anchor, self.scalar(&value, style, tag.as_deref(), span)),
            Event::SequenceStart(anchor, _) => (anchor, NodeKind::Sequence(self.sequence(depth)?)),
            Event::MappingStart(anchor, _) => (anchor, NodeKind::Mapping(self.mapping(depth)?)),
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor) else {
                    return error("the alias is used inside of what it names".into());
                };
                self.nodes += target.count();
                if self.nodes > MAX_NODES {
                    return error(format!("more than {MAX_NODES} values"));
                }
                return Ok(Node { place, kind: target.kind.clone() });
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return error("expected a value".into()),
        };
        if self.nodes > MAX_NODES {
            return error(format!("more than {MAX_NODES} values"));
        }
        let node = Node { place, kind };
        if anchor != 0 {
            self.nodes += node.count();
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, YamlError> {
        let mut nodes = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            nodes.push(self.node(event, span, depth + 1)?);
        }
        Ok(nodes)
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, YamlError> {
        let mut entries = Vec::new();
        while let Some((event, span)) = self.next()? {
            let place = place(span);
            let name = match event {
                Event::MappingEnd => break,
                Event::Scalar(name, ..) => name.into_owned(),
                _ => return Err(YamlError { place, message: "a key must be a text".into() }),
            };
            let Some((event, span)) = self.next()? else { break };
            entries.push((Key { place, name }, self.node(event, span, depth + 1)?));
        }
        Ok(entries)
    }

    fn scalar(&self, value: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> NodeKind {
        let written = match style {
            ScalarStyle::Plain => Written::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Written::Quoted,
            ScalarStyle::Literal => {
                let (first_line, indent) = self.block(value, span);
                Written::Literal { first_line, indent }
            }
            ScalarStyle::Folded => Written::Folded { first_line: self.block(value, span).0 },
        };
        let text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        if style != ScalarStyle::Plain || text {
            return NodeKind::Text(value.into(), written);
        }
        match value {
            "" | "~" | "null" | "Null" | "NULL" => NodeKind::Null,
            "true" | "True" | "TRUE" => NodeKind::Bool(true),
            "false" | "False" | "FALSE" => NodeKind::Bool(false),
            _ => number(value).map_or_else(|| NodeKind::Text(value.into(), written), NodeKind::Number),
        }
    }

    /// First line of a block scalar's text (from 1) and its indentation.
    fn block(&self, value: &str, span: Span) -> (u32, u32) {
        let (line, column) = (span.start.line(), span.start.col());
        let source = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        if source.chars().take(column).all(|c| c == ' ') {
            // The parser marks the first line that is not empty.
            let empty = value.bytes().take_while(|b| *b == b'\n').count();
            return (narrow(line.saturating_sub(empty)), narrow(column));
        }
        // It marks an anchor or a tag in front of the `|`.
        let blanks = |line: &&str| line.len() - line.trim_start_matches(' ').len();
        let indent = self.lines.iter().skip(line).find(|line| !line.trim().is_empty()).map_or(0, blanks);
        (narrow(line + 1), narrow(indent))
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.trim_start_matches(['-', '+']);
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(number.into());
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

fn place(span: Span) -> Place {
    Place { line: narrow(span.start.line().max(1)), column: narrow(span.start.col() + 1) }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        let (mut documents, error) = read(text);
        assert_eq!(error, None);
        documents.remove(0)
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let node = one("{a: 1, b: true, c: on, d: ~, e: 1.5, f: 0x1F, g: '1', h: !!str 1, i: 1.2.3, j: -x, k: 0777}");
        let want = r#"{"a":1,"b":true,"c":"on","d":null,"e":1.5,"f":31,"g":"1","h":"1","i":"1.2.3","j":"-x","k":777}"#;
        assert_eq!(node.to_json().to_string(), want);
    }

    #[test]
    fn places_are_those_of_the_values() {
        let node = one("a: 1\nb:\n  - x\n  - {c: y}\n");
        let NodeKind::Sequence(entries) = &node.get("b").expect("b").kind else { panic!("a sequence") };
        assert_eq!(entries[0].place, Place { line: 3, column: 5 });
        assert_eq!(entries[1].get("c").expect("c").place, Place { line: 4, column: 9 });
    }

    #[test]
    fn block_texts_know_their_first_line_and_indentation() {
        for (text, first_line, indent) in [
            ("a: |\n  x\n  y\n", 2, 2),
            ("a: |- # why\n\n    x\n", 2, 4),
            ("b: 1\na:   |\n x\n", 3, 1),
            ("a: |\n  # c\n  - r: 1\n\nb: 2\n", 2, 2),
            ("a: |2\n    x\n", 2, 2),
            ("a: &x |\n\n   q\n", 2, 3),
        ] {
            let node = one(text);
            let NodeKind::Text(_, written) = &node.get("a").expect("a").kind else { panic!("a text") };
            assert_eq!(*written, Written::Literal { first_line, indent }, "{text:?}");
        }
    }

    #[test]
    fn aliases_cannot_grow_without_bound() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let (this, last) = (format!("a{i}"), format!("*a{}", i - 1));
            text += &format!("{this}: &{this} [{}]\n", vec![last; 10].join(", "));
        }
        let error = read(&text).1.expect("refused");
        assert!(error.message.contains("more than"), "{}", error.message);
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(read(&"[".repeat(100_000)).1.is_some());
        let error = read(&"- ".repeat(100)).1.expect("refused");
        assert!(error.message.contains("nested deeper"), "{}", error.message);
    }

    #[test]
    fn what_stands_before_a_mistake_is_read() {
        let (documents, error) = read("a: 1\n---\nb: [1\n---\nc: 1\n");
        assert_eq!(documents.len(), 1);
        assert!(error.is_some_and(|error| error.place.line >= 3));
    }

    #[test]
    fn rules_files_are_told_from_manifests() {
        assert!(starts_with_sequence("# rules\n---\n- rule: x\n"));
        assert!(!starts_with_sequence("apiVersion: v1\n"));
        assert!(!starts_with_sequence(""));
    }
}
