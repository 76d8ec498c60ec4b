//! Names and types: tree → typed tree.
//!
//! All that can be wrong with a parsed condition is found here, and all of it is reported, not only the first
//! mistake; evaluation afterwards can't fail. What may be meant differently than it reads is a warning.

use event::{
    catalogue::{EventSet, EventType, Origin},
    fields::{Arg, Matching},
    value::ValueType,
};

use super::{
    ast::{At, Call, Check, Expr, Literal, Modifier, Op, Operand, Right, Test, TextId, Transformer},
    constant::constant,
    names::{Catalogue, NameError},
    parse::operand_prefix,
    pattern,
    typed::{Const, Leaf, LeafTest, Rhs, Shape, Typed, ValueExpr, type_name},
};
use crate::diagnostic::{Code, closest};

/// A mistake, or a doubt, in a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub at: At,
    /// What to do.
    pub help: Option<String>,
}

/// Findings of one filter, beyond which the next mistake is the last one that is looked for.
const MAX_FINDINGS: usize = 200;

/// Checks a filter whose macros have been put in. `None` when there was an error; doubts come with either result.
pub fn check(expr: &Expr, catalogue: Catalogue) -> (Option<Typed>, Vec<Finding>) {
    let mut checker = Checker { catalogue, findings: Vec::new() };
    let typed = checker.expr(expr);
    (typed, checker.findings)
}

/// Checks one operand (of an output).
pub(crate) fn check_operand(operand: &Operand, catalogue: Catalogue) -> Result<(ValueExpr, Shape), Vec<Finding>> {
    let mut checker = Checker { catalogue, findings: Vec::new() };
    checker.operand(operand).ok_or(checker.findings)
}

struct Checker {
    catalogue: Catalogue,
    findings: Vec<Finding>,
}

impl Checker {
    fn report(&mut self, code: Code, at: At, message: impl Into<String>) {
        self.findings.push(Finding { code, message: message.into(), at, help: None });
    }

    fn report_with(&mut self, code: Code, at: At, message: impl Into<String>, help: impl Into<String>) {
        self.findings.push(Finding { code, message: message.into(), at, help: Some(help.into()) });
    }

    fn expr(&mut self, expr: &Expr) -> Option<Typed> {
        match expr {
            Expr::And(parts, _) => self.parts(parts).map(Typed::And),
            Expr::Or(parts, _) => self.parts(parts).map(Typed::Or),
            Expr::Not(inner, _) => Some(Typed::Not(Box::new(self.expr(inner)?))),
            Expr::Check(check) => self.check(check).map(Typed::Leaf),
            Expr::Macro(name, at) => {
                self.report(Code::UndefinedMacro, *at, format!("undefined macro `{name}`"));
                None
            }
        }
    }

    /// Every part is checked, so that all mistakes show.
    fn parts(&mut self, parts: &[Expr]) -> Option<Vec<Typed>> {
        let parts: Vec<_> = parts.iter().map(|part| self.expr(part)).collect();
        parts.into_iter().collect()
    }

    /// Whether enough has been found to leave it at that. Doubts are not looked for once there are that many findings,
    /// so what goes beyond is a mistake.
    fn has_enough(&self) -> bool {
        self.findings.len() > MAX_FINDINGS
    }

    fn check(&mut self, check: &Check) -> Option<Leaf> {
        if self.has_enough() {
            return None;
        }
        if self.findings.len() < MAX_FINDINGS {
            self.doubts(check);
        }
        let left = self.operand(&check.left);
        let Test::Compare { op, op_at, modifier, right } = &check.test else {
            let (value, shape) = left?;
            let matching = matching(&value);
            return Some(Leaf { left: value, shape, matching, test: LeafTest::Exists });
        };
        let (value, shape) = left?;
        let op = op.normal();
        if !allowed(shape, op, *modifier) {
            let name = super::print::operand(&check.left);
            let message = format!("`{}` can't be used with `{name}`, which is {}", op.word(), type_name(shape));
            self.report_with(Code::WrongOperator, *op_at, message, suggestion(shape));
            return None;
        }
        if is_event_type(&check.left) {
            return self.event_type(check, value, shape, op, *modifier, right);
        }
        let matching = matching(&value);
        let right = self.right(check, &value, shape, op, right)?;
        Some(Leaf { left: value, shape, matching, test: LeafTest::Compare { op, modifier: *modifier, right } })
    }

    fn operand(&mut self, operand: &Operand) -> Option<(ValueExpr, Shape)> {
        match operand {
            Operand::Field(wanted) => match self.catalogue.resolve(wanted) {
                Ok(resolved) => {
                    let shape = Shape { ty: resolved.value_type(), list: resolved.field.list };
                    Some((self.catalogue.value(resolved), shape))
                }
                Err(NameError { code, message, help }) => {
                    self.findings.push(Finding { code, message, at: wanted.at, help });
                    None
                }
            },
            Operand::Call(call) => self.call(call),
            Operand::Literal(literal) => Some((ValueExpr::Literal(literal.bytes.clone()), Shape::one(ValueType::Text))),
            Operand::List(items, at) => {
                let items: Vec<_> = items.iter().map(|item| self.operand(item)).collect();
                let items = items.into_iter().collect::<Option<Vec<_>>>()?;
                if items.iter().any(|(_, shape)| shape.list || !as_text(shape.ty)) {
                    self.report(Code::TransformerArgument, *at, "a list holds texts and numbers only");
                    return None;
                }
                let values = items.into_iter().map(|(value, _)| value).collect();
                Some((ValueExpr::List(values), Shape { ty: ValueType::Text, list: true }))
            }
        }
    }

    fn call(&mut self, call: &Call) -> Option<(ValueExpr, Shape)> {
        let args: Vec<_> = call.args.iter().map(|arg| self.operand(arg)).collect();
        let args = args.into_iter().collect::<Option<Vec<_>>>()?;
        for ((value, _), written) in args.iter().zip(&call.args) {
            if let ValueExpr::Field(field, _) = value
                && field.marks.no_transformer
            {
                let message = format!("`{}` can't be given to a transformer", field.name);
                self.report(Code::TransformerArgument, written.at(), message);
                return None;
            }
        }
        let unary = !matches!(call.transformer, Transformer::Join | Transformer::Concat | Transformer::Getopt);
        if unary && call.args.iter().any(is_event_type) {
            let message = "the event type can't be transformed: it decides which events a rule sees";
            self.report(Code::TransformerArgument, call.at, message);
            return None;
        }
        let shapes: Vec<_> = args.iter().map(|(_, shape)| *shape).collect();
        match result(call.transformer, &shapes, call.selector.is_some()) {
            Ok(shape) => {
                let args = args.into_iter().map(|(value, _)| value).collect();
                let value = ValueExpr::Call { transformer: call.transformer, args, selector: call.selector.clone() };
                Some((value, shape))
            }
            Err(wanted) => {
                let message = format!("`{}` takes {wanted}", call.transformer.word());
                self.report(Code::TransformerArgument, call.at, message);
                None
            }
        }
    }

    fn right(&mut self, check: &Check, left: &ValueExpr, shape: Shape, op: Op, right: &Right) -> Option<Rhs> {
        match right {
            Right::Value(literal) => match op {
                Op::In | Op::Intersects | Op::PMatch => Some(Rhs::Many(vec![self.constant(literal, shape, op)?])),
                _ => self.constant(literal, shape, op).map(Rhs::One),
            },
            Right::List(items, _) => {
                let items: Vec<_> = items.iter().map(|item| self.constant(item, shape, op)).collect();
                Some(Rhs::Many(items.into_iter().collect::<Option<_>>()?))
            }
            Right::Operand(operand) => {
                let (value, right_shape) = self.operand(operand)?;
                let problem = right_hand_problem(left, shape, op, &value, right_shape);
                let Some(problem) = problem else { return Some(Rhs::Value(value)) };
                self.report(Code::RightHandField, operand.at(), format!("{problem}: `{}`", text_of(check)));
                None
            }
        }
    }

    fn constant(&mut self, literal: &Literal, shape: Shape, op: Op) -> Option<Const> {
        match constant(&literal.bytes, shape, op) {
            Ok(Const::Bytes(pattern)) if op == Op::Regex => match pattern::regex(&pattern) {
                Ok(_) => Some(Const::Bytes(pattern)),
                Err(problem) => {
                    self.report(Code::InvalidRegex, literal.at, problem);
                    None
                }
            },
            Ok(value) => Some(value),
            Err(message) => {
                self.report(Code::InvalidValue, literal.at, message);
                None
            }
        }
    }

    /// `evt.type` and `syscall.type` are known before anything is evaluated.
    fn event_type(
        &mut self,
        check: &Check,
        left: ValueExpr,
        shape: Shape,
        op: Op,
        modifier: Option<Modifier>,
        right: &Right,
    ) -> Option<Leaf> {
        let names = match right {
            Right::Value(literal) => std::slice::from_ref(literal),
            Right::List(items, _) => items,
            Right::Operand(operand) => {
                let message = "the event type can't be compared with another value of the event";
                self.report(Code::RightHandField, operand.at(), message);
                return None;
            }
        };
        let exact = matches!(op, Op::Eq | Op::Ne | Op::In | Op::Intersects);
        let types: Vec<_> = names.iter().map(|name| self.event_name(name, exact)).collect();
        if exact && modifier.is_none() {
            let types = types.into_iter().collect::<Option<EventSet>>()?;
            let mut set = if op == Op::Ne { types.complement() } else { types };
            if matches!(&check.left, Operand::Field(field) if &*field.name == "syscall.type") {
                let syscall = |ty: &EventType| matches!(ty.info().origin, Origin::Syscall | Origin::Generic);
                set = set.intersection(EventType::all().filter(syscall).collect());
            }
            return Some(Leaf { left, shape, matching: Matching::Plain, test: LeafTest::EventType(set) });
        }
        if exact && types.iter().any(Option::is_none) {
            return None;
        }
        let right = self.right(check, &left, shape, op, right)?;
        Some(Leaf { left, shape, matching: Matching::Plain, test: LeafTest::Compare { op, modifier, right } })
    }

    fn event_name(&mut self, literal: &Literal, exact: bool) -> Option<EventType> {
        let name = String::from_utf8_lossy(&literal.bytes);
        let found = EventType::by_name(&name);
        if found.is_none() && exact {
            let message = format!("unknown event type `{name}`");
            let known = (!self.has_enough()).then(|| EventType::all().map(EventType::name));
            let close = closest(&name, known.into_iter().flatten());
            let help = close.map(|name| format!("did you mean `{name}`?"));
            self.findings.push(Finding { code: Code::UnknownEventType, message, at: literal.at, help });
        }
        found
    }

    /// What is legal but may not be what was meant.
    fn doubts(&mut self, check: &Check) {
        check.left.fields(&mut |field| {
            if let Ok(resolved) = self.catalogue.resolve(field)
                && resolved.field.marks.deprecated
            {
                let message = format!("usage of deprecated field '{}' has been detected", field.name);
                self.findings.push(Finding { code: Code::DeprecatedField, message, at: field.at, help: None });
            }
        });
        let Test::Compare { op, right, .. } = &check.test else { return };
        let constants = match right {
            Right::Value(literal) => std::slice::from_ref(literal),
            Right::List(items, _) => items,
            Right::Operand(_) => return,
        };
        for literal in constants {
            self.looks_like_a_field(literal);
            if *op == Op::Regex {
                self.needless_regex(literal);
            }
            self.not_available(check, literal, *op);
        }
    }

    fn looks_like_a_field(&mut self, literal: &Literal) {
        let Ok(text) = std::str::from_utf8(&literal.bytes) else { return };
        let trimmed = text.trim();
        if !trimmed.contains('.') {
            return;
        }
        let Ok((operand, length)) = operand_prefix(trimmed, TextId::default()) else { return };
        let mut known = length == trimmed.len();
        operand.fields(&mut |field| known &= self.catalogue.has(&field.name));
        if !known || check_operand(&operand, self.catalogue).is_err() {
            return;
        }
        let (what, help) = match operand {
            Operand::Call(_) => ("field transformer", "without quotes and blanks it would be one".to_owned()),
            _ => ("field", format!("`val({trimmed})` compares with the field's value")),
        };
        let message = format!("'{text}' may be a valid {what} misused as a const string value");
        self.report_with(Code::FieldAsText, literal.at, message, help);
    }

    fn needless_regex(&mut self, literal: &Literal) {
        let Ok(text) = std::str::from_utf8(&literal.bytes) else { return };
        if let Some(better) = pattern::simpler(text) {
            let message = format!("regular expression '{text}' could be `{better}`, which is faster");
            self.report(Code::NeedlessRegex, literal.at, message);
        }
    }

    fn not_available(&mut self, check: &Check, literal: &Literal, op: Op) {
        let compares = matches!(op.normal(), Op::Eq | Op::Ne | Op::In | Op::Intersects | Op::PMatch);
        let mut may_be_absent = false;
        check.left.fields(&mut |field| {
            may_be_absent |= field.name.starts_with("ka.") || field.name.starts_with("jevt.");
        });
        if compares && may_be_absent && &*literal.bytes == b"<NA>" {
            let message = "comparing a field value with <NA> is unsafe: a missing value is not the text <NA>";
            self.report_with(Code::UnsafeNaCheck, literal.at, message, "use `exists`, or `not … exists`");
        }
    }
}

/// Doubts about a condition whose names need not exist: Falco's warnings on syntax alone.
pub fn doubts(expr: &Expr, catalogue: Catalogue) -> Vec<Finding> {
    let mut checker = Checker { catalogue, findings: Vec::new() };
    expr.checks().for_each(|check| checker.doubts(check));
    checker.findings
}

/// The fields that stand for the event's type.
pub(super) fn is_event_type(operand: &Operand) -> bool {
    matches!(operand, Operand::Field(field) if matches!(&*field.name, "evt.type" | "syscall.type"))
}

/// Candidates are a matter of the field itself, not of what is computed from it. With an index there is only one.
fn matching(value: &ValueExpr) -> Matching {
    match value {
        ValueExpr::Field(field, arg) => match (field.matching, arg) {
            (Matching::EachAncestor, Arg::Index(_)) => Matching::Plain,
            (matching, _) => matching,
        },
        ValueExpr::Call { .. } | ValueExpr::Literal(_) | ValueExpr::List(_) => Matching::Plain,
    }
}

/// Whether an operator can be used with a type.
fn allowed(shape: Shape, op: Op, modifier: Option<Modifier>) -> bool {
    if shape.list {
        return matches!(op, Op::In | Op::Intersects);
    }
    let equality = matches!(op, Op::Eq | Op::Ne);
    let set = matches!(op, Op::In | Op::Intersects);
    let order = matches!(op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
    match shape.ty {
        ValueType::Text => !matches!(op, Op::BContains | Op::BStartsWith),
        ValueType::Bytes => {
            let parts = matches!(op, Op::Contains | Op::StartsWith | Op::EndsWith | Op::BContains | Op::BStartsWith);
            equality || set || parts
        }
        ValueType::Bool | ValueType::Ip | ValueType::Net => equality || (set && modifier.is_none()),
        ValueType::Int(_)
        | ValueType::Uint(_)
        | ValueType::Port
        | ValueType::RelTime
        | ValueType::AbsTime
        | ValueType::Double => equality || set || order,
        ValueType::Dynamic => equality || set,
    }
}

fn suggestion(shape: Shape) -> String {
    let every = Op::ALL.iter().filter(|op| **op != Op::EqEq && allowed(shape, **op, None));
    let words: Vec<_> = every.map(|op| op.word()).collect();
    format!("possible are: exists, {}", words.join(", "))
}

/// What can be made into text where a transformer wants it.
fn as_text(ty: ValueType) -> bool {
    matches!(ty, ValueType::Text | ValueType::Uint(64) | ValueType::Int(64))
}

/// The type a transformer gives for arguments of these types, or what it wants instead.
fn result(transformer: Transformer, args: &[Shape], selector: bool) -> Result<Shape, &'static str> {
    let text = Shape::one(ValueType::Text);
    let texts = Shape { ty: ValueType::Text, list: true };
    match (transformer, args) {
        (Transformer::ToLower | Transformer::ToUpper | Transformer::Basename, [arg]) if arg.ty == ValueType::Text => {
            Ok(*arg)
        }
        (Transformer::ToLower | Transformer::ToUpper | Transformer::Basename, _) => Err("one text"),
        (Transformer::B64, [arg]) if matches!(arg.ty, ValueType::Text | ValueType::Bytes) => Ok(*arg),
        (Transformer::B64, _) => Err("one text or byte string"),
        (Transformer::Len, [arg]) if arg.list || matches!(arg.ty, ValueType::Text | ValueType::Bytes) => {
            Ok(Shape::one(ValueType::Uint(64)))
        }
        (Transformer::Len, _) => Err("one list, text or byte string"),
        (Transformer::Join, [separator, list]) if *separator == text && list.list && as_text(list.ty) => Ok(text),
        (Transformer::Join, _) => Err("a separator and a list"),
        (Transformer::Concat, [_, _, ..]) if args.iter().all(|arg| *arg == text) => Ok(text),
        (Transformer::Concat, _) => Err("at least two texts"),
        (Transformer::Getopt, [list, options]) if list.ty == ValueType::Text && *options == text => {
            Ok(if selector { text } else { texts })
        }
        (Transformer::Getopt, _) => Err("a list of arguments and the text of possible options"),
        (Transformer::Val, _) => Err("its place on the right-hand side of a comparison"),
    }
}

/// Why the value can't be a right-hand side, if it can't.
fn right_hand_problem(
    left: &ValueExpr,
    shape: Shape,
    op: Op,
    right: &ValueExpr,
    right_shape: Shape,
) -> Option<&'static str> {
    let barred = |value: &ValueExpr| matches!(value, ValueExpr::Field(field, _) if field.marks.no_rhs);
    if barred(left) {
        return Some("the left-hand field can only be compared with constants");
    }
    if barred(right) {
        return Some("this field can't stand on the right-hand side");
    }
    if matches!(op, Op::PMatch | Op::Regex) || shape.ty == ValueType::Net {
        return Some("this comparison takes constants only");
    }
    match (shape.ty == right_shape.ty, shape.list == right_shape.list) {
        (true, true) => None,
        (true, false) => Some("a list and a single value can't be compared"),
        (false, _) => Some("both sides must have the same type"),
    }
}

fn text_of(check: &Check) -> String {
    super::print::canonical(&Expr::Check(Box::new(check.clone())))
}
