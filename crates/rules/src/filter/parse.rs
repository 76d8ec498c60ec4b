//! Text → tree.
//!
//! ```ebnf
//! filter      = or, EOF ;
//! or          = and, { "or", and } ;
//! and         = not, { "and", not } ;                   (* binds tighter; a blank or "(" follows either word *)
//! not         = "not", not | "(", or, ")" | check ;     (* a blank or "(" follows "not" *)
//! check       = operand, "exists"
//!             | operand, ( "<" | "<=" | ">" | ">=" ), ( number | call )
//!             | operand, textop, ( constant | call | modifier, ( list | identifier ) )
//!             | operand, ( "in" | "intersects" | "pmatch" ), ( list | constant | call )
//!             | identifier ;                            (* a macro *)
//! operand     = field | call ;
//! field       = identifier, ".", identifier, { ".", identifier }, [ "[", arg, "]" ] ;
//! call        = transformer, "(", [ item, { ",", item } ], ")", [ "[", arg, "]" ] ;
//! item        = operand | quoted | "(", [ operand | quoted, { ",", operand | quoted } ], ")" ;
//! list        = "(", [ constant, { ",", constant } ], ")" ;
//! constant    = quoted | bare ;
//! ```
//!
//! Parentheses are kept on a stack of our own, so a filter of ten thousand of them costs memory, not the thread.

use super::{
    ast::{At, Call, Check, Expr, FieldRef, Literal, Modifier, Op, OpGroup, Operand, Right, Test, TextId, Transformer},
    lex::{Cursor, EscapeError, is_blank},
};

/// How deep parentheses and transformers may nest.
#[derive(Debug, Clone, Copy)]
pub struct Depth(pub usize);

impl Depth {
    /// Falco's own default.
    pub const FALCO_DEFAULT: Self = Self(100);
    /// What Falco sets for rule files.
    pub const RULES: Self = Self(1000);
}

/// Transformers are parsed by recursion, so they nest less deeply than parentheses.
const MAX_CALL_DEPTH: usize = 64;

/// Why text isn't a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes.
    pub start: usize,
    /// Up to where.
    pub end: usize,
    /// What to do about it.
    pub help: Option<&'static str>,
}

/// Parses a filter.
pub fn parse(text: &str, id: TextId, depth: Depth) -> Result<Expr, SyntaxError> {
    Parser { cursor: Cursor::new(text), id, depth: depth.0 }.filter()
}

/// Parses one operand at the start of `text` (for outputs). Returns it with the number of bytes it takes.
pub(crate) fn operand_prefix(text: &str, id: TextId) -> Result<(Operand, usize), SyntaxError> {
    let mut parser = Parser { cursor: Cursor::new(text), id, depth: MAX_CALL_DEPTH };
    match parser.operand(0)? {
        Some(operand) => Ok((operand, parser.cursor.at())),
        None => Err(parser.error("expected a field or transformer")),
    }
}

/// A parenthesis that is still open, or the filter itself.
#[derive(Default)]
struct Level {
    /// Finished alternatives.
    ors: Vec<Expr>,
    /// Finished parts of the alternative at hand.
    ands: Vec<Expr>,
    /// Where `not`s before the operand at hand begin, and whether they are an odd number.
    nots: Option<(usize, bool)>,
    /// Where an `or` of this level begins: at the first operand; that of the whole filter at its first byte, as in Falco.
    start: Option<usize>,
    /// Where the first operand of the alternative at hand begins.
    alternative: Option<usize>,
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    id: TextId,
    depth: usize,
}

impl Parser<'_> {
    fn filter(mut self) -> Result<Expr, SyntaxError> {
        let mut levels = vec![Level { start: Some(0), ..Level::default() }];
        loop {
            let level = levels.last_mut().ok_or_else(|| self.error("unbalanced parentheses"))?;
            self.cursor.blanks();
            level.start.get_or_insert(self.cursor.at());
            level.alternative.get_or_insert(self.cursor.at());
            level.nots = self.nots();
            if self.cursor.take("(") {
                if levels.len() > self.depth {
                    return Err(self.error(format!("exceeded max depth limit of {}", self.depth)));
                }
                levels.push(Level::default());
                continue;
            }
            let operand = self.check()?;
            if let Some(filter) = self.after_operand(&mut levels, operand)? {
                return Ok(filter);
            }
        }
    }

    /// What follows an operand: `and`, `or`, closing parentheses, or the end, which gives the finished tree.
    fn after_operand(&mut self, levels: &mut Vec<Level>, operand: Expr) -> Result<Option<Expr>, SyntaxError> {
        let mut operand = operand;
        loop {
            let Some(level) = levels.last_mut() else { return Err(self.error("unbalanced parentheses")) };
            if let Some((start, true)) = level.nots.take() {
                operand = Expr::Not(Box::new(operand), self.since(start));
            }
            self.cursor.blanks();
            if self.conjunction("and")? {
                level.ands.push(operand);
                return Ok(None);
            }
            if self.conjunction("or")? {
                level.ands.push(operand);
                let start = level.alternative.take();
                let alternative = self.joined(std::mem::take(&mut level.ands), start, Expr::And);
                level.ors.extend(alternative);
                return Ok(None);
            }
            level.ands.push(operand);
            let level = std::mem::take(level);
            let mut alternatives = level.ors;
            alternatives.extend(self.joined(level.ands, level.alternative, Expr::And));
            let Some(whole) = self.joined(alternatives, level.start, Expr::Or) else {
                return Err(self.error("expected a comparison"));
            };
            levels.pop();
            if levels.is_empty() {
                return match self.cursor.is_end() {
                    true => Ok(Some(whole)),
                    false => Err(self.left_over()),
                };
            }
            if !self.cursor.take(")") {
                return Err(match self.cursor.is_end() {
                    true => self.error("expected a ')' token"),
                    false => self.left_over(),
                });
            }
            operand = whole;
        }
    }

    /// Several parts as one node, one part as itself.
    fn joined(&self, mut parts: Vec<Expr>, start: Option<usize>, node: fn(Vec<Expr>, At) -> Expr) -> Option<Expr> {
        if parts.len() < 2 {
            return parts.pop();
        }
        let (first, last) = (parts.first()?.at(), parts.last()?.at());
        let start = start.map_or(first.start, |start| start as u32);
        Some(node(parts, At { start, end: last.end, ..first }))
    }

    fn nots(&mut self) -> Option<(usize, bool)> {
        let mut found: Option<(usize, bool)> = None;
        while self.cursor.rest().starts_with("not")
            && self.cursor.byte_behind(3).is_some_and(|byte| is_blank(byte) || byte == b'(')
        {
            let at = self.cursor.at();
            let (start, odd) = found.unwrap_or((at, false));
            found = Some((start, !odd));
            self.cursor.skip(3);
            self.cursor.blanks();
        }
        found
    }

    fn conjunction(&mut self, word: &str) -> Result<bool, SyntaxError> {
        if !self.cursor.rest().starts_with(word) {
            return Ok(false);
        }
        match self.cursor.byte_behind(word.len()) {
            Some(byte) if is_blank(byte) || byte == b'(' => {
                self.cursor.skip(word.len());
                Ok(true)
            }
            _ => Err(self.error(format!("expected a whitespace or '(' after '{word}'"))),
        }
    }

    fn check(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.cursor.at();
        if let Some(left) = self.operand(0)? {
            let test = self.test()?;
            return Ok(Expr::Check(Box::new(Check { left, test, at: self.since(start) })));
        }
        match self.cursor.identifier() {
            Some(name) => Ok(Expr::Macro(name.into(), self.since(start))),
            None => Err(self.error("expected a field, a macro, 'not' or '('")),
        }
    }

    fn test(&mut self) -> Result<Test, SyntaxError> {
        self.cursor.blanks();
        if self.cursor.take("exists") {
            return Ok(Test::Exists);
        }
        let start = self.cursor.at();
        let Some(&op) = Op::ALL.iter().find(|op| self.operator(**op)) else {
            let message = "expected a valid operator: one of exists, <, <=, >, >=, =, ==, !=, glob, iglob, contains, \
                           icontains, bcontains, startswith, bstartswith, endswith, regex, in, intersects, pmatch";
            return Err(self.word_error(message));
        };
        let op_at = self.since(start);
        let spaced = self.cursor.byte().is_some_and(is_blank);
        self.cursor.blanks();
        let (modifier, right) = match op.group() {
            OpGroup::Number => (None, self.number()?),
            OpGroup::Text => match self.modifier(spaced) {
                Some(modifier) => (Some(modifier), self.list_or_value()?),
                None => (None, self.value()?),
            },
            OpGroup::List => (None, self.list_or_value()?),
        };
        Ok(Test::Compare { op, op_at, modifier, right })
    }

    /// Takes an operator. Those of letters that want text need a blank behind them.
    fn operator(&mut self, op: Op) -> bool {
        let word = op.word();
        let wordy = op.group() == OpGroup::Text && word.as_bytes()[0].is_ascii_alphabetic();
        self.cursor.rest().starts_with(word)
            && (!wordy || self.cursor.byte_behind(word.len()).is_some_and(is_blank))
            && self.cursor.take(word)
    }

    /// Takes a modifier, unless the word is meant as a constant.
    fn modifier(&mut self, spaced: bool) -> Option<Modifier> {
        let start = self.cursor.at();
        let modifier = *Modifier::ALL.iter().find(|modifier| spaced && self.cursor.take(modifier.word()))?;
        let blank = self.cursor.byte().is_some_and(is_blank);
        self.cursor.blanks();
        let before_list = self.cursor.at();
        let list = match self.cursor.byte() {
            Some(b'(') => true,
            _ => self.cursor.identifier().is_some_and(|word| !matches!(word, "and" | "or" | "not")),
        };
        let is_modifier = blank && list;
        self.cursor.back_to(if is_modifier { before_list } else { start });
        is_modifier.then_some(modifier)
    }

    fn number(&mut self) -> Result<Right, SyntaxError> {
        if let Some(call) = self.right_operand()? {
            return Ok(call);
        }
        let start = self.cursor.at();
        match self.cursor.number() {
            Some(number) => Ok(Right::Value(self.literal(number.as_bytes(), start))),
            None => Err(self.word_error("expected a number")),
        }
    }

    fn value(&mut self) -> Result<Right, SyntaxError> {
        match self.right_operand()? {
            Some(call) => Ok(call),
            None => Ok(Right::Value(self.constant()?)),
        }
    }

    fn list_or_value(&mut self) -> Result<Right, SyntaxError> {
        let start = self.cursor.at();
        if !self.cursor.take("(") {
            return self.value();
        }
        let mut items = Vec::new();
        self.cursor.blanks();
        while !self.cursor.take(")") {
            if !items.is_empty() {
                if !self.cursor.take(",") {
                    return Err(self.word_error("expected a ')' token or a ',' in the list"));
                }
                self.cursor.blanks();
            }
            items.push(self.constant()?);
            self.cursor.blanks();
        }
        Ok(Right::List(items, self.since(start)))
    }

    fn constant(&mut self) -> Result<Literal, SyntaxError> {
        if let Some(quoted) = self.quoted()? {
            return Ok(quoted);
        }
        let start = self.cursor.at();
        match self.cursor.bare() {
            Some(bare) => Ok(self.literal(bare.as_bytes(), start)),
            None => Err(SyntaxError {
                help: (!self.cursor.is_end())
                    .then_some("text with blanks, quotes, commas, `=` or parentheses needs quotes"),
                ..self.error("expected a value: a number, a bare string, or a quoted string")
            }),
        }
    }

    fn quoted(&mut self) -> Result<Option<Literal>, SyntaxError> {
        let start = self.cursor.at();
        match self.cursor.quoted() {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(Literal { bytes, at: self.since(start) })),
            Some(Err(EscapeError::Unterminated)) => Err(SyntaxError {
                message: "the closing quote is missing".to_owned(),
                start,
                end: start + 1,
                help: Some("a quote behind a backslash doesn't close the text"),
            }),
            Some(Err(EscapeError::Invalid(offset))) => Err(SyntaxError {
                message: "invalid escape sequence in a quoted string".to_owned(),
                start: start + offset,
                end: start + offset + 2,
                help: Some(r#"possible are \b \f \n \r \t \\ \/ \xHH and the quote itself"#),
            }),
        }
    }

    /// A field or a call on the left of a comparison or inside of a call.
    fn operand(&mut self, depth: usize) -> Result<Option<Operand>, SyntaxError> {
        if let Some(call) = self.call(depth, |transformer| transformer != Transformer::Val)? {
            return Ok(Some(call));
        }
        Ok(self.field()?.map(Operand::Field))
    }

    /// `val(field)` or a transformer on the right of a comparison.
    fn right_operand(&mut self) -> Result<Option<Right>, SyntaxError> {
        let Some(operand) = self.call(0, |_| true)? else { return Ok(None) };
        Ok(Some(Right::Operand(match operand {
            Operand::Call(call) if call.transformer == Transformer::Val => val(call)?,
            operand => operand,
        })))
    }

    fn field(&mut self) -> Result<Option<FieldRef>, SyntaxError> {
        let start = self.cursor.at();
        let Some(name) = self.cursor.field_name() else { return Ok(None) };
        let arg = self.brackets()?;
        Ok(Some(FieldRef { name: name.into(), arg, at: self.since(start) }))
    }

    fn brackets(&mut self) -> Result<Option<Box<[u8]>>, SyntaxError> {
        if !self.cursor.take("[") {
            return Ok(None);
        }
        let inside = match self.quoted()? {
            Some(quoted) => quoted.bytes,
            None => match self.cursor.bare_arg() {
                Some(bare) => bare.as_bytes().into(),
                None => return Err(self.error("expected a valid field argument: a quoted string or a bare string")),
            },
        };
        match self.cursor.take("]") {
            true => Ok(Some(inside)),
            false => Err(self.error("expected a ']' token")),
        }
    }

    fn call(&mut self, depth: usize, allowed: fn(Transformer) -> bool) -> Result<Option<Operand>, SyntaxError> {
        let start = self.cursor.at();
        let called = |transformer: &&Transformer| {
            allowed(**transformer)
                && self.cursor.rest().strip_prefix(transformer.word()).is_some_and(|rest| rest.starts_with('('))
        };
        let Some(&transformer) = Transformer::ALL.iter().find(called) else { return Ok(None) };
        if depth >= MAX_CALL_DEPTH.min(self.depth) {
            return Err(self.error(format!("exceeded max depth limit of {}", MAX_CALL_DEPTH.min(self.depth))));
        }
        self.cursor.skip(transformer.word().len() + 1);
        let args = self.items(depth + 1, true)?;
        let selector = self.brackets()?;
        let at = self.since(start);
        if selector.is_some() && transformer != Transformer::Getopt {
            let message = format!("transformer '{}' does not support field arguments", transformer.word());
            return Err(SyntaxError { message, start, end: self.cursor.at(), help: None });
        }
        Ok(Some(Operand::Call(Call { transformer, args, selector, at })))
    }

    /// What stands in the parentheses of a call, or of a list in it, up to and with the closing one.
    fn items(&mut self, depth: usize, lists: bool) -> Result<Vec<Operand>, SyntaxError> {
        let mut items = Vec::new();
        self.cursor.blanks();
        while !self.cursor.take(")") {
            if !items.is_empty() {
                if !self.cursor.take(",") {
                    return Err(self.word_error("expected a ')' token or a ',' between arguments"));
                }
                self.cursor.blanks();
            }
            items.push(self.item(depth, lists)?);
            self.cursor.blanks();
        }
        Ok(items)
    }

    fn item(&mut self, depth: usize, lists: bool) -> Result<Operand, SyntaxError> {
        let start = self.cursor.at();
        if let Some(quoted) = self.quoted()? {
            return Ok(Operand::Literal(quoted));
        }
        if lists && self.cursor.take("(") {
            let items = self.items(depth, false)?;
            return Ok(Operand::List(items, self.since(start)));
        }
        match self.operand(depth)? {
            Some(operand) => Ok(operand),
            None => Err(self.word_error("expected a field, a transformer or a quoted string")),
        }
    }

    fn literal(&self, bytes: &[u8], start: usize) -> Literal {
        Literal { bytes: bytes.into(), at: self.since(start) }
    }

    fn since(&self, start: usize) -> At {
        At { text: self.id, start: start as u32, end: self.cursor.at() as u32 }
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        let start = self.cursor.at();
        SyntaxError { message: message.into(), start, end: start + 1, help: None }
    }

    /// An error about the word at hand.
    fn word_error(&self, message: impl Into<String>) -> SyntaxError {
        let mut word = self.cursor.clone();
        word.bare();
        let start = self.cursor.at();
        SyntaxError { message: message.into(), start, end: word.at().max(start + 1), help: None }
    }

    fn left_over(&self) -> SyntaxError {
        let help = match self.cursor.byte() {
            Some(b'(') => Some("a list takes `in`, `intersects`, `pmatch` or a modifier such as `= anyof`"),
            Some(b'"' | b'\'' | b',' | b'=') => {
                Some("text with blanks, quotes, commas, `=` or parentheses needs quotes")
            }
            _ => None,
        };
        SyntaxError { help, ..self.word_error("unexpected token, expecting 'or', 'and'") }
    }
}

/// The field inside of `val()`.
fn val(call: Call) -> Result<Operand, SyntaxError> {
    let (start, end) = (call.at.start as usize, call.at.end as usize);
    let mut args = call.args.into_iter();
    match (args.next(), args.next()) {
        (Some(Operand::Field(field)), None) => Ok(Operand::Field(field)),
        _ => Err(SyntaxError { message: "val() takes exactly one field".to_owned(), start, end, help: None }),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{super::print::print, *};

    #[track_caller]
    fn check(text: &str, want: Expect) {
        let got = match parse(text, TextId(0), Depth::FALCO_DEFAULT) {
            Ok(tree) => print(&tree),
            Err(error) => format!("{}..{}: {}", error.start, error.end, error.message),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn and_binds_tighter_than_or() {
        check("a.b=1 or c.d=2 and e.f=3", expect!["(a.b = 1 or (c.d = 2 and e.f = 3))"]);
    }

    #[test]
    fn repeated_not_collapses_by_parity() {
        check("not not not(a)", expect!["not a"]);
        check("not (not a)", expect!["not (not a)"]);
    }

    #[test]
    fn a_modifier_word_without_a_list_is_a_constant() {
        check("p.n = oneof and p.n != anyof (a, b)", expect!["(p.n = oneof and p.n != anyof (a, b))"]);
    }

    #[test]
    fn an_escaped_quote_does_not_end_the_text() {
        check(r#"a.b = "x\\""#, expect!["6..7: the closing quote is missing"]);
        check(r#"a.b = "x\"y""#, expect![[r#"a.b = "x\"y""#]]);
    }

    #[test]
    fn val_is_for_the_right_hand_side() {
        check("a.b = val(c.d[2])", expect!["a.b = val(c.d[2])"]);
        check("val(a.b) exists", expect!["3..4: unexpected token, expecting 'or', 'and'"]);
    }

    #[test]
    fn ten_thousand_parentheses_are_an_error_and_not_a_crash() {
        check(&"(".repeat(10_000), expect!["101..102: exceeded max depth limit of 100"]);
    }
}
