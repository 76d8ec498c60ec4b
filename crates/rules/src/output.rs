//! The output of a rule: text with `%field` tokens, parsed once and rendered for each alert.
//!
//! A missing value is `<NA>` in the text and null among the output fields. The message may end up on a terminal
//! or in a log file, so control characters in values, which an attacker chooses, are escaped.

use std::{fmt::Write, sync::Arc};

use event::{
    fields::{Arg, Field, Subject},
    params::Form,
    value::{Radix, Value, ValueType},
};

use crate::{
    diagnostic::Code,
    filter::{
        ast::{FieldRef, Operand, TextId},
        check::{Finding, check_operand},
        eval,
        names::Catalogue,
        parse::operand_prefix,
        print,
        typed::ValueExpr,
    },
};

/// A parsed output.
#[derive(Debug, Default)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(Box<str>),
    Token(Token),
}

/// One `%field`.
#[derive(Debug)]
struct Token {
    /// The token as written, without `%`: the key among the output fields.
    key: Arc<str>,
    value: ValueExpr,
    radix: Radix,
    /// `%20field`: exactly so many characters, cut or padded on the right.
    width: Option<usize>,
}

/// Why a text isn't an output.
#[derive(Debug)]
pub struct OutputError {
    /// What is wrong.
    pub finding: Finding,
    /// Where, in bytes of the text.
    pub start: usize,
    /// Up to where.
    pub end: usize,
}

/// Widest column that `%NNfield` may ask for.
const MAX_WIDTH: usize = 1024;

impl Template {
    /// Parses an output; all tokens are checked. Findings of the second kind are doubts.
    pub fn parse(text: &str, catalogue: Catalogue) -> Result<Self, Vec<OutputError>> {
        let mut pieces = Vec::new();
        let mut errors = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].into()));
            }
            let start = text.len() - rest.len() + at;
            let behind = &rest[at + 1..];
            match token(behind, catalogue) {
                Ok((token, length)) => {
                    pieces.push(Piece::Token(token));
                    rest = &behind[length..];
                }
                Err(finding) => {
                    let word = behind.find(|char: char| char.is_whitespace() || char == '%').unwrap_or(behind.len());
                    errors.push(OutputError { finding, start, end: start + 1 + word });
                    rest = &behind[word..];
                }
            }
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        if errors.is_empty() { Ok(Self { pieces }) } else { Err(errors) }
    }

    fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Token(token) => Some(token),
            Piece::Text(_) => None,
        })
    }

    /// The fields it names.
    pub fn fields(&self) -> Vec<(&'static Field, &Arg)> {
        let mut fields = Vec::new();
        self.tokens().for_each(|token| token.value.fields(&mut |field, arg| fields.push((field, arg))));
        fields
    }

    /// The text for one event.
    pub fn render<'a>(&self, subject: &impl Subject<'a>) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Token(token) => token.render(subject, &mut out),
            }
        }
        out
    }

    /// The value of a template that is one token, with its type; otherwise the text.
    pub fn single_value<'a>(&self, subject: &impl Subject<'a>) -> serde_json::Value {
        match &self.pieces[..] {
            [Piece::Token(token)] => token.json(subject),
            _ => self.render(subject).into(),
        }
    }

    /// The values for one event, by key.
    pub fn values<'a>(&self, subject: &impl Subject<'a>, into: &mut Vec<(Arc<str>, serde_json::Value)>) {
        for token in self.tokens() {
            into.push((token.key.clone(), token.json(subject)));
        }
    }
}

impl Token {
    fn render<'a>(&self, subject: &impl Subject<'a>, out: &mut String) {
        let start = out.len();
        match self.value_of(subject) {
            Some(value) => write_value(out, value, self.radix_of(subject)),
            None => out.push_str("<NA>"),
        }
        let Some(width) = self.width else { return };
        let length = out[start..].chars().count();
        out.extend(std::iter::repeat_n(' ', width.saturating_sub(length)));
        if let Some((cut, _)) = out[start..].char_indices().nth(width) {
            out.truncate(start + cut);
        }
    }

    fn json<'a>(&self, subject: &impl Subject<'a>) -> serde_json::Value {
        if let ValueExpr::Field(field, _) = &self.value
            && is_clock(field)
        {
            return subject.time_ns().into();
        }
        self.value_of(subject).map_or(serde_json::Value::Null, |value| json(value, self.radix_of(subject)))
    }

    /// The value; of a raw number that did not arrive Falco prints 0, though no comparison with it holds.
    fn value_of<'a>(&self, subject: &impl Subject<'a>) -> Option<Value<'a>> {
        eval::value(&self.value, subject).or_else(|| {
            let ValueExpr::Field(field, Arg::Key(name)) = &self.value else { return None };
            let params = subject.event_type().info().params;
            let param = params.iter().find(|param| field.ty == ValueType::Dynamic && *param.name == **name)?;
            matches!(param.ty.form(), Form::Signed | Form::Unsigned).then_some(Value::Uint(0))
        })
    }

    /// How its numbers are written: a raw parameter's as the event's row says.
    fn radix_of<'a>(&self, subject: &impl Subject<'a>) -> Radix {
        match &self.value {
            ValueExpr::Field(field, Arg::Key(name)) if field.ty == ValueType::Dynamic => {
                let params = subject.event_type().info().params;
                params.iter().find(|param| *param.name == **name).map_or(self.radix, |param| param.radix)
            }
            _ => self.radix,
        }
    }
}

/// The fields of wall-clock time, which Falco's JSON gives as nanoseconds whatever their text form.
fn is_clock(field: &Field) -> bool {
    matches!(field.name, "evt.time" | "evt.time.s" | "evt.time.iso8601" | "evt.datetime" | "evt.datetime.s")
}

/// The longest token at the start of `text`, and its length.
fn token(text: &str, catalogue: Catalogue) -> Result<(Token, usize), Finding> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let width = text[..digits].parse().ok().filter(|width| (1..=MAX_WIDTH).contains(width));
    let text = &text[digits..];
    let error = |message: &str| Finding {
        code: Code::InvalidOutput,
        message: message.to_owned(),
        at: Default::default(),
        help: Some("a token is `%field`, `%field[argument]`, `%20field` or `%transformer(field)`".to_owned()),
    };
    let (operand, length) = match operand_prefix(text, TextId::default()) {
        Ok(found) => found,
        // `%proc.name[x` is the field and then text, where the field may stand alone.
        Err(_) => match field_alone(text) {
            Some(field) => (Operand::Field(field.0), field.1),
            None => return Err(error("no field behind `%`")),
        },
    };
    let invalid = |finding: Finding| Finding { code: Code::InvalidOutput, ..finding };
    let finish = |value: ValueExpr, key: &str, length: usize| {
        let radix = match &value {
            ValueExpr::Field(field, _) => field.radix,
            ValueExpr::Call { .. } | ValueExpr::Literal(_) | ValueExpr::List(_) => Radix::Decimal,
        };
        (Token { key: key.into(), value, radix, width }, digits + length)
    };
    match check_operand(&operand, catalogue) {
        Ok((value, _)) => Ok(finish(value, &print::operand(&operand), length)),
        Err(findings) => {
            let first = findings.into_iter().next().map_or_else(|| error("no such field"), invalid);
            let Operand::Field(field) = operand else { return Err(first) };
            match catalogue.resolve_prefix(&field) {
                Ok((resolved, length)) => Ok(finish(catalogue.value(resolved), &field.name[..length], length)),
                Err(_) => Err(first),
            }
        }
    }
}

/// The name at the start, when what follows it isn't a proper argument.
fn field_alone(text: &str) -> Option<(FieldRef, usize)> {
    let end = text.find('[')?;
    match operand_prefix(&text[..end], TextId::default()).ok()? {
        (Operand::Field(field), length) if length == end => Some((field, length)),
        _ => None,
    }
}

/// A value as it stands in the message.
pub fn write_value(out: &mut String, value: Value<'_>, radix: Radix) {
    let written = match value {
        Value::Text(text) | Value::Bytes(text) => {
            write_escaped(out, text);
            Ok(())
        }
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(number) => match radix {
            Radix::Decimal => write!(out, "{number}"),
            Radix::Hex => write!(out, "{number:X}"),
            Radix::Octal => write!(out, "{number:#o}").map(|()| fix_octal(out)),
        },
        Value::Uint(number) => match radix {
            Radix::Decimal => write!(out, "{number}"),
            Radix::Hex => write!(out, "{number:X}"),
            Radix::Octal => write!(out, "{number:#o}").map(|()| fix_octal(out)),
        },
        Value::Ip(ip) => write!(out, "{ip}"),
        Value::Net(net) => write!(out, "{net}"),
        Value::Double(number) => write!(out, "{number:.1}"),
        Value::List(items) => {
            out.push('(');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write_value(out, *item, radix);
            }
            out.push(')');
            Ok(())
        }
    };
    debug_assert!(written.is_ok(), "writing to a string can't fail");
}

/// Rust writes `0o17`, C and Falco `017`.
fn fix_octal(out: &mut String) {
    if let Some(at) = out.rfind("0o") {
        out.remove(at + 1);
    }
}

/// Text with control characters escaped and what isn't UTF-8 replaced.
fn write_escaped(out: &mut String, text: &[u8]) {
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char.is_ascii_control() => out.push_str(&format!("\\x{:02x}", char as u32)),
            char if char.is_control() => out.push_str(&format!("\\u{:04x}", char as u32)),
            char => out.push(char),
        }
    }
}

/// A value as it stands among the output fields.
pub fn json(value: Value<'_>, radix: Radix) -> serde_json::Value {
    match value {
        Value::Text(text) | Value::Bytes(text) => String::from_utf8_lossy(text).into(),
        Value::Bool(value) => value.into(),
        Value::Int(number) if radix == Radix::Decimal => number.into(),
        Value::Uint(number) if radix == Radix::Decimal => number.into(),
        Value::Int(_) | Value::Uint(_) | Value::Ip(_) | Value::Net(_) => {
            let mut text = String::new();
            write_value(&mut text, value, radix);
            text.into()
        }
        Value::Double(number) => number.into(),
        Value::List(items) => items.iter().map(|item| json(*item, radix)).collect(),
    }
}
