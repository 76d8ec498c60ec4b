//! Trees as text: Falco's canonical form, which its `-L` listing and the conformance cases show.
//!
//! `parse(print(tree))` gives the same tree again. The one liberty Falco takes, constants of transformers without
//! quotes, is taken in [`canonical`] only.

use std::fmt::{self, Write};

use super::ast::{Call, Check, Expr, FieldRef, Literal, Operand, Right, Test};

/// Whether constant arguments of transformers keep their quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Exact,
    Canonical,
}

/// Text that parses to the same tree.
pub fn print(expr: &Expr) -> String {
    written(expr, Form::Exact)
}

/// Text as Falco would print it.
pub fn canonical(expr: &Expr) -> String {
    written(expr, Form::Canonical)
}

fn written(expr: &Expr, form: Form) -> String {
    let mut out = String::new();
    let done = Printer { out: &mut out, form }.expr(expr);
    debug_assert!(done.is_ok(), "writing to a string can't fail");
    out
}

/// The text of an operand: the key of an output field.
pub fn operand(operand: &Operand) -> String {
    let mut out = String::new();
    let done = Printer { out: &mut out, form: Form::Canonical }.operand(operand);
    debug_assert!(done.is_ok(), "writing to a string can't fail");
    out
}

struct Printer<'a> {
    out: &'a mut String,
    form: Form,
}

impl Printer<'_> {
    fn expr(&mut self, expr: &Expr) -> fmt::Result {
        match expr {
            Expr::And(parts, _) => self.joined(parts, " and "),
            Expr::Or(parts, _) => self.joined(parts, " or "),
            Expr::Not(inner, _) => {
                self.out.write_str("not ")?;
                // `not not x` would be read as `x`.
                let nested = matches!(**inner, Expr::Not(..)) && self.form == Form::Exact;
                self.out.write_str(if nested { "(" } else { "" })?;
                self.expr(inner)?;
                self.out.write_str(if nested { ")" } else { "" })
            }
            Expr::Macro(name, _) => self.out.write_str(name),
            Expr::Check(check) => self.check(check),
        }
    }

    fn joined(&mut self, parts: &[Expr], between: &str) -> fmt::Result {
        self.out.write_char('(')?;
        for (index, part) in parts.iter().enumerate() {
            self.out.write_str(if index > 0 { between } else { "" })?;
            self.expr(part)?;
        }
        self.out.write_char(')')
    }

    fn check(&mut self, check: &Check) -> fmt::Result {
        self.operand(&check.left)?;
        match &check.test {
            Test::Exists => self.out.write_str(" exists"),
            Test::Compare { op, modifier, right, .. } => {
                write!(self.out, " {} ", op.word())?;
                if let Some(modifier) = modifier {
                    write!(self.out, "{} ", modifier.word())?;
                }
                match right {
                    Right::Value(literal) => self.literal(literal),
                    Right::List(items, _) => {
                        self.out.write_char('(')?;
                        for (index, item) in items.iter().enumerate() {
                            self.out.write_str(if index > 0 { ", " } else { "" })?;
                            self.literal(item)?;
                        }
                        self.out.write_char(')')
                    }
                    Right::Operand(Operand::Field(field)) => {
                        self.out.write_str("val(")?;
                        self.field(field)?;
                        self.out.write_char(')')
                    }
                    Right::Operand(operand) => self.operand(operand),
                }
            }
        }
    }

    fn operand(&mut self, operand: &Operand) -> fmt::Result {
        match operand {
            Operand::Field(field) => self.field(field),
            Operand::Call(call) => self.call(call),
            Operand::Literal(literal) if self.form == Form::Canonical && !needs_quotes(&literal.bytes) => {
                self.out.write_str(&String::from_utf8_lossy(&literal.bytes))
            }
            Operand::Literal(literal) => self.out.write_str(&quoted(&literal.bytes)),
            Operand::List(items, _) => {
                self.out.write_char('(')?;
                self.operands(items, ", ")?;
                self.out.write_char(')')
            }
        }
    }

    fn operands(&mut self, operands: &[Operand], between: &str) -> fmt::Result {
        for (index, operand) in operands.iter().enumerate() {
            self.out.write_str(if index > 0 { between } else { "" })?;
            self.operand(operand)?;
        }
        Ok(())
    }

    fn field(&mut self, field: &FieldRef) -> fmt::Result {
        self.out.write_str(&field.name)?;
        self.brackets(field.arg.as_deref())
    }

    fn call(&mut self, call: &Call) -> fmt::Result {
        write!(self.out, "{}(", call.transformer.word())?;
        self.operands(&call.args, ",")?;
        self.out.write_char(')')?;
        self.brackets(call.selector.as_deref())
    }

    fn brackets(&mut self, inside: Option<&[u8]>) -> fmt::Result {
        let Some(inside) = inside else { return Ok(()) };
        let bare =
            !inside.is_empty() && inside.iter().all(|byte| byte.is_ascii_graphic() && !b"[]\"'\\".contains(byte));
        match bare {
            true => write!(self.out, "[{}]", String::from_utf8_lossy(inside)),
            false => write!(self.out, "[{}]", quoted(inside)),
        }
    }

    fn literal(&mut self, literal: &Literal) -> fmt::Result {
        self.out.write_str(&escape(&literal.bytes))
    }
}

fn needs_quotes(bytes: &[u8]) -> bool {
    let special = |byte: &u8| byte.is_ascii_control() || b" =,()\"'\\".contains(byte);
    bytes.is_empty() || bytes.iter().any(special) || std::str::from_utf8(bytes).is_err()
}

/// A constant as it is written in a filter: in quotes only when it must be.
pub fn escape(bytes: &[u8]) -> String {
    match needs_quotes(bytes) {
        true => quoted(bytes),
        false => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A constant in double quotes. Bytes that aren't UTF-8 become `\x` escapes.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                char if char.is_ascii_control() => out.push_str(&format!("\\x{:02x}", char as u32)),
                char => out.push(char),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    // A backslash before the closing quote would hide it: Falco's lexer looks one byte back only.
    if bytes.ends_with(b"\\") {
        out.truncate(out.len() - 2);
        out.push_str("\\x5c");
    }
    out.push('"');
    out
}
