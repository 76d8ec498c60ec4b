//! Where text came from, so that every mistake can be shown where its author wrote it.
//!
//! A condition seldom stands in a file as the parser sees it: YAML folds its lines, lists are spliced into it,
//! later files append to it, exceptions are generated around it. [`Text`] is therefore a string that knows, run by
//! run, the place in a [`SourceMap`] that each of its bytes stems from; slicing and joining keep that knowledge.

use std::{ops::Range, sync::Arc};

/// One file (or resource) that was loaded.
#[derive(Debug)]
pub struct Source {
    /// The name that diagnostics show: a path, or `namespace/name` of a resource.
    pub name: Arc<str>,
    /// Its text, without a byte order mark.
    pub text: Box<str>,
    lines: Vec<u32>,
}

/// Index of a [`Source`] in its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

/// A stretch of one source, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The source.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

/// A place as people count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineColumn {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// All sources of one load.
#[derive(Debug, Default)]
pub struct SourceMap {
    sources: Vec<Source>,
}

impl SourceMap {
    /// Adds a source. `text` must be shorter than 4 GiB, which the loader's own limit guarantees.
    pub fn add(&mut self, name: &str, text: String) -> SourceId {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(newlines.map(|(at, _)| at as u32 + 1)).collect();
        self.sources.push(Source { name: name.into(), text: text.into(), lines });
        SourceId(self.sources.len() as u32 - 1)
    }

    /// How many sources there are.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Forgets the sources from this one on. Nothing may refer to them any more.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.sources.truncate(len);
    }

    /// The source with this index.
    pub fn source(&self, id: SourceId) -> &Source {
        &self.sources[id.0 as usize]
    }
}

impl Source {
    /// Index in `lines` of the line that holds this byte.
    fn line_index(&self, offset: u32) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Line and column of a byte.
    pub fn position(&self, offset: u32) -> LineColumn {
        let index = self.line_index(offset);
        let start = self.lines[index] as usize;
        let before = self.text.get(start..offset as usize).unwrap_or_default();
        LineColumn { line: index as u32 + 1, column: before.chars().count() as u32 + 1 }
    }

    /// The text of a line counted from 1, without its line break.
    pub fn line(&self, line: u32) -> &str {
        let index = line.saturating_sub(1) as usize;
        let Some(&start) = self.lines.get(index) else { return "" };
        let end = self.lines.get(index + 1).map_or(self.text.len(), |next| *next as usize);
        self.text.get(start as usize..end).unwrap_or_default().trim_end_matches(['\n', '\r'])
    }
}

/// How a stretch of a [`Text`] relates to its origin.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Where the run begins in the value.
    at: u32,
    /// What it stems from.
    origin: Span,
    /// Byte `at + n` stems from byte `origin.start + n`; otherwise the whole run stems from the whole origin.
    literal: bool,
}

/// A string that knows the origin of each of its bytes.
#[derive(Debug, Clone)]
pub struct Text {
    value: String,
    runs: Vec<Run>,
    span: Span,
}

impl Text {
    /// Text that was made up on behalf of `origin`.
    pub fn made(value: impl Into<String>, origin: Span) -> Self {
        Self { value: value.into(), runs: vec![Run { at: 0, origin, literal: false }], span: origin }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// The whole of it in the source: of the first part, when it was joined from several.
    pub fn whole(&self) -> Span {
        self.span
    }

    /// Where a stretch of the text stems from.
    pub fn span(&self, range: Range<usize>) -> Span {
        let first = self.origin(range.start);
        let last = self.origin(range.end.saturating_sub(1).max(range.start));
        let end = if last.source == first.source && last.end >= first.start { last.end } else { first.end };
        Span { end: end.max(first.start), ..first }
    }

    /// The place of one byte.
    fn origin(&self, at: usize) -> Span {
        let index = self.runs.partition_point(|run| run.at as usize <= at);
        let Some(run) = index.checked_sub(1).and_then(|index| self.runs.get(index)) else { return self.span };
        if !run.literal {
            return run.origin;
        }
        let start = (run.origin.start + (at as u32).saturating_sub(run.at)).min(run.origin.end.max(1) - 1);
        Span { start, end: start + 1, ..run.origin }
    }

    /// Appends another text.
    pub fn push(&mut self, other: &Self) {
        let base = self.value.len() as u32;
        self.value.push_str(&other.value);
        self.runs.extend(other.runs.iter().map(|run| Run { at: run.at + base, ..*run }));
    }

    /// Appends made-up text that stands for `origin`.
    pub fn push_made(&mut self, value: &str, origin: Span) {
        let at = self.value.len() as u32;
        self.value.push_str(value);
        self.runs.push(Run { at, origin, literal: false });
    }

    /// A copy of one stretch. `range` must lie on character boundaries of the value.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let mut runs = Vec::new();
        let first = self.runs.partition_point(|run| (run.at as usize) <= range.start).saturating_sub(1);
        for run in &self.runs[first.min(self.runs.len())..] {
            if run.at as usize >= range.end {
                break;
            }
            let skipped = (range.start as u32).saturating_sub(run.at);
            let mut origin = run.origin;
            if run.literal {
                origin.start = (origin.start + skipped).min(origin.end);
            }
            runs.push(Run { at: run.at.saturating_sub(range.start as u32), origin, literal: run.literal });
        }
        let span = self.span(range.clone());
        Self { value: self.value[range].to_owned(), runs, span }
    }

    /// The text without blanks at both ends.
    pub fn trimmed(&self) -> Self {
        let start = self.value.len() - self.value.trim_start().len();
        let end = self.value.trim_end().len().max(start);
        self.slice(start..end)
    }
}

/// How a YAML scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarStyle {
    /// Without quotes.
    Plain,
    /// In single quotes.
    SingleQuoted,
    /// In double quotes.
    DoubleQuoted,
    /// A literal (`|`) or folded (`>`) block.
    Block,
}

impl Text {
    /// Maps the value of a scalar back onto the source.
    ///
    /// `span` is where the scalar stands, quotes and block header included. What YAML does to a scalar changes
    /// white space and escapes only, so value and source are walked together: other characters must pair up.
    pub fn scalar(value: String, style: ScalarStyle, span: Span, source: &Source) -> Self {
        let end = (span.end as usize).min(source.text.len());
        let mut walk = Walk { text: source.text.as_bytes(), at: span.start as usize, end };
        match style {
            ScalarStyle::Plain => {}
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => walk.at += 1,
            // Whether the parser places a block at its header or at its text is not something to rely on.
            ScalarStyle::Block => walk.skip_header(),
        }
        let mut runs: Vec<Run> = Vec::new();
        for (at, char) in value.char_indices() {
            let origin = walk.next(char, style);
            let (start, end) = (origin.start as u32, origin.end as u32);
            let literal = origin.len() == char.len_utf8();
            if let Some(run) = runs.last_mut()
                && run.literal
                && literal
                && run.origin.end == start
                && at as u32 - run.at == start - run.origin.start
            {
                run.origin.end = end;
                continue;
            }
            runs.push(Run { at: at as u32, origin: Span { start, end, ..span }, literal });
        }
        Self { value, runs, span }
    }
}

/// A position in the source while a scalar is mapped.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    end: usize,
}

impl Walk<'_> {
    fn peek(&self) -> Option<u8> {
        self.text[..self.end].get(self.at).copied()
    }

    /// Skips `>` or `|` and the rest of its line, if the scalar begins with that.
    fn skip_header(&mut self) {
        let line = self.text[self.at.min(self.end)..self.end].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_header = matches!(line.first(), Some(b'>' | b'|'))
            && line[1..]
                .iter()
                .take_while(|byte| !byte.is_ascii_whitespace())
                .all(|byte| b"+-123456789".contains(byte));
        if is_header {
            self.at += line.len();
        }
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// The source bytes of the next character of the value.
    fn next(&mut self, char: char, style: ScalarStyle) -> Range<usize> {
        let escapes = style == ScalarStyle::DoubleQuoted;
        if char.is_ascii_whitespace() && !(escapes && self.peek() == Some(b'\\')) {
            let start = self.at;
            // A fold: the line break and the indentation behind it are one blank of the value.
            self.at += usize::from(self.peek().is_some_and(|byte| byte.is_ascii_whitespace()));
            return start..self.at.max(start + 1).min(self.end.max(start));
        }
        self.skip_blanks();
        while escapes && self.text[self.at.min(self.end)..self.end].starts_with(b"\\\n") {
            self.at += 1;
            self.skip_blanks();
        }
        let start = self.at.min(self.end);
        let length = match self.peek() {
            Some(b'\\') if escapes => match self.text.get(start + 1) {
                Some(b'x') => 4,
                Some(b'u') => 6,
                Some(b'U') => 10,
                _ => 2,
            },
            Some(b'\'') if style == ScalarStyle::SingleQuoted => 2,
            _ => char.len_utf8(),
        };
        self.at = (start + length).min(self.end);
        start..self.at.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(source: &str, raw: &str, value: &str, style: ScalarStyle) -> (SourceMap, Text) {
        let mut map = SourceMap::default();
        let id = map.add("t.yaml", source.to_owned());
        let start = source.find(raw).expect("part of the source") as u32;
        let span = Span { source: id, start, end: start + raw.len() as u32 };
        let text = Text::scalar(value.to_owned(), style, span, map.source(id));
        (map, text)
    }

    /// Every word of the value is found where it stands in the source.
    #[track_caller]
    fn check(source: &str, raw: &str, value: &str, style: ScalarStyle) {
        let (map, text) = scalar(source, raw, value, style);
        for word in value.split_whitespace() {
            let at = value.find(word).expect("a word of it");
            let span = text.span(at..at + word.len());
            assert_eq!(&map.source(span.source).text[span.start as usize..span.end as usize], word);
        }
    }

    #[test]
    fn folded_and_literal_blocks_map_back() {
        let source = "- condition: >\n    one two\n     three\n\n    four\n  x: y\n";
        check(source, ">\n    one two\n     three\n\n    four\n", "one two\n three\n\nfour\n", ScalarStyle::Block);
    }

    #[test]
    fn plain_scalars_of_several_lines_map_back() {
        check("a: one\n   two\n\n   three\n", "one\n   two\n\n   three", "one two\nthree", ScalarStyle::Plain);
    }

    #[test]
    fn quotes_and_escapes_map_back() {
        let (map, text) = scalar(r#"a: "x\ty \u0041 z""#, r#""x\ty \u0041 z""#, "x\ty A z", ScalarStyle::DoubleQuoted);
        let z = text.span(6..7);
        assert_eq!(map.source(z.source).position(z.start).column, 17);
        let (map, text) = scalar("a: 'it''s z'", "'it''s z'", "it's z", ScalarStyle::SingleQuoted);
        let z = text.span(5..6);
        assert_eq!(map.source(z.source).position(z.start).column, 11);
    }

    #[test]
    fn slices_and_joins_keep_their_origin() {
        let (map, text) = scalar("k: alpha beta", "alpha beta", "alpha beta", ScalarStyle::Plain);
        let mut joined = text.slice(6..10);
        joined.push_made(" and ", text.whole());
        joined.push(&text.slice(0..5));
        assert_eq!(joined.as_str(), "beta and alpha");
        let span = joined.span(9..14);
        assert_eq!(map.source(span.source).position(span.start), LineColumn { line: 1, column: 4 });
    }
}
