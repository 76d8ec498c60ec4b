//! filter_parse_cases.json: from text to tree, and what can be said of a tree.

use std::fmt::Write;

use event::{
    catalogue::{EventSet, EventType},
    value::{Arena, Value, ValueType},
};
use gyrfalcon_rules as rules;
use libtest_mimic::Failed;
use rules::filter::{
    ast::{At, Expr, Operand, Right, Test, TextId},
    parse::{Depth, SyntaxError, parse},
    print, types, unescape,
};
use serde_json::Value as Json;

use super::{
    Suite,
    mock::{self, MockEvent},
};

fn tree(text: &str) -> Result<Expr, SyntaxError> {
    parse(text, TextId::default(), Depth::FALCO_DEFAULT)
}

fn text<'j>(case: &'j Json, key: &str) -> Option<&'j str> {
    case.get(key)?.as_str()
}

fn cases<'j>(data: &'j Json, key: &str) -> impl Iterator<Item = &'j Json> {
    data.get(key).and_then(Json::as_array).into_iter().flatten()
}

/// Code points stand for bytes in this data.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|char| char as u32 as u8).collect()
}

/// Runs the file.
pub fn run(data: &str) -> Result<(), Failed> {
    let data: Json = serde_json::from_str(data)?;
    let mut suite = Suite::new("filter");
    for case in cases(&data, "parse_cases") {
        let expr = match case.get("expr_repeat").and_then(Json::as_array).map(Vec::as_slice) {
            Some([unit, count]) => {
                unit.as_str().unwrap_or_default().repeat(count.as_u64().unwrap_or_default() as usize)
            }
            _ => text(case, "expr").unwrap_or_default().to_owned(),
        };
        suite.case(&expr.chars().take(80).collect::<String>(), parse_case(case, &expr));
    }
    for key in ["ast_cases", "string_cases"] {
        for case in cases(&data, key) {
            let expr = text(case, "expr").unwrap_or_default();
            suite.case(expr, string_case(case, expr));
        }
    }
    for case in cases(&data, "position_cases") {
        let expr = text(case, "expr").unwrap_or_default();
        suite.case(expr, position_case(case, expr));
    }
    for case in cases(&data, "escape_cases") {
        suite.case(text(case, "input").unwrap_or_default(), escape_case(case));
    }
    let arena = Arena::new();
    let text_field = |name| mock::field(name, ValueType::Text, false);
    let fields = vec![
        text_field("c.true"),
        text_field("c.false"),
        text_field("c.doublequote"),
        text_field("c.singlequote"),
        mock::field("c.buffer", ValueType::Bytes, false),
    ];
    let catalogue = mock::catalogue(fields);
    let values = [
        ("c.true", Value::Text(b"1")),
        ("c.false", Value::Text(b"0")),
        ("c.doublequote", Value::Text(b"hello \"quoted\"")),
        ("c.singlequote", Value::Text(b"hello 'quoted'")),
    ];
    let ty = EventType::by_name("getcwd").ok_or("no getcwd")?;
    let event = MockEvent { arena: &arena, ty, values: values.into_iter().collect() };
    for case in cases(&data, "boolean_eval_cases") {
        let expr = text(case, "expr").unwrap_or_default();
        let want = case.get("result").and_then(Json::as_bool).unwrap_or_default();
        let got = mock::evaluate(expr, catalogue, &event);
        suite.case(expr, same(&got, &Ok(want)));
    }
    for case in cases(&data, "compile_cases") {
        let expr = text(case, "expr").unwrap_or_default();
        let got = mock::check_filter(expr, catalogue);
        let outcome = match (&got, text(case, "expect"), case.get("warnings").and_then(Json::as_u64)) {
            (Ok(got), Some("accept"), Some(want)) => same(got, &(want as usize)),
            (Ok(_), Some("accept"), None) => Ok(()),
            (Err(got), Some("reject"), _) => match text(case, "message") {
                Some(want) if !got.contains(want.trim_start_matches("filter error: ")) => {
                    Err(format!("message {got:?}, want {want:?}"))
                }
                _ => Ok(()),
            },
            (got, want, _) => Err(format!("{got:?}, want {want:?}")),
        };
        suite.case(expr, outcome);
    }
    for case in cases(&data, "event_type_set_cases") {
        let expr = text(case, "expr").unwrap_or_default();
        suite.case(expr, types_case(case, expr));
    }
    suite.finish("filter_parse_cases.json")
}

fn same<T: PartialEq + std::fmt::Debug>(got: &T, want: &T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{got:?}, want {want:?}")) }
}

fn parse_case(case: &Json, expr: &str) -> Result<(), String> {
    let got = tree(expr);
    match (text(case, "expect"), got) {
        (Some("reject"), Err(error)) => match text(case, "message") {
            Some(message) if !error.message.contains(message) => {
                Err(format!("message {:?}, want {message:?}", error.message))
            }
            _ => Ok(()),
        },
        (Some("accept"), Ok(_)) => {
            if let Some(end) = case.get("end_pos") {
                // A filter is parsed to its end, so the position behind it is that of the text.
                let idx = end.get("idx").and_then(Json::as_u64);
                let column = expr.len() - expr.rfind('\n').map_or(0, |at| at + 1) + 1;
                same(&idx, &Some(expr.len() as u64))?;
                same(&end.get("col").and_then(Json::as_u64), &Some(column as u64))?;
            }
            if case.get("whitespace_variants").and_then(Json::as_bool) == Some(true) {
                let lines = expr.replace(' ', "\n");
                for variant in [format!(" {expr} "), lines.clone(), lines.replace('\n', "\t")] {
                    tree(&variant).map_err(|error| format!("{variant:?}: {}", error.message))?;
                }
            }
            Ok(())
        }
        (want, Ok(tree)) => Err(format!("accepted as {}, want {want:?}", print::print(&tree))),
        (want, Err(error)) => Err(format!("{}, want {want:?}", error.message)),
    }
}

fn string_case(case: &Json, expr: &str) -> Result<(), String> {
    let parsed = tree(expr).map_err(|error| error.message)?;
    if let Some(want) = text(case, "as_string").or_else(|| text(case, "canonical")) {
        same(&print::canonical(&parsed).as_str(), &want)?;
    }
    let again = tree(&print::print(&parsed)).map_err(|error| error.message)?;
    same(&again, &parsed)
}

fn position_case(case: &Json, expr: &str) -> Result<(), String> {
    let mut dump = String::new();
    positions(&tree(expr).map_err(|error| error.message)?, expr, &mut dump).map_err(|error| error.to_string())?;
    if let Some(want) = text(case, "node_positions") {
        return same(&dump.as_str(), &want);
    }
    let parts = case.get("node_positions_contains").and_then(Json::as_array);
    match parts.into_iter().flatten().find(|part| !part.as_str().is_some_and(|part| dump.contains(part))) {
        Some(part) => Err(format!("no {part} in {dump}")),
        None => Ok(()),
    }
}

/// Kind, offset, line and column of each node, parents first.
fn positions(expr: &Expr, text: &str, out: &mut String) -> std::fmt::Result {
    match expr {
        Expr::And(parts, at) => {
            place("and", *at, text, out)?;
            parts.iter().try_for_each(|part| positions(part, text, out))
        }
        Expr::Or(parts, at) => {
            place("or", *at, text, out)?;
            parts.iter().try_for_each(|part| positions(part, text, out))
        }
        Expr::Not(inner, at) => {
            place("not", *at, text, out)?;
            positions(inner, text, out)
        }
        Expr::Macro(_, at) => place("identifier", *at, text, out),
        Expr::Check(check) => {
            let Test::Compare { right, .. } = &check.test else {
                place("unary", check.at, text, out)?;
                return operand(&check.left, text, out);
            };
            place("binary", check.at, text, out)?;
            operand(&check.left, text, out)?;
            match right {
                Right::Value(literal) => place("value", literal.at, text, out),
                Right::List(_, at) => place("list", *at, text, out),
                Right::Operand(Operand::Field(field)) => {
                    let before = &text[..field.at.start as usize];
                    let val = At { start: before.rfind("val(").unwrap_or_default() as u32, ..field.at };
                    place("transformer", val, text, out)?;
                    place("field", field.at, text, out)
                }
                Right::Operand(other) => operand(other, text, out),
            }
        }
    }
}

fn operand(wanted: &Operand, text: &str, out: &mut String) -> std::fmt::Result {
    match wanted {
        Operand::Field(field) => place("field", field.at, text, out),
        Operand::Literal(literal) => place("value", literal.at, text, out),
        Operand::List(items, at) => {
            place("transformer_list", *at, text, out)?;
            items.iter().try_for_each(|item| operand(item, text, out))
        }
        Operand::Call(call) => {
            place("transformer", call.at, text, out)?;
            call.args.iter().try_for_each(|arg| operand(arg, text, out))
        }
    }
}

fn place(kind: &str, at: At, text: &str, out: &mut String) -> std::fmt::Result {
    let before = &text[..at.start as usize];
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
    write!(out, "{kind}{} {line} {column}", at.start)
}

fn escape_case(case: &Json) -> Result<(), String> {
    let input = latin1(text(case, "input").unwrap_or_default());
    let want = text(case, "output");
    match text(case, "fn") {
        Some("escape") => same(&print::escape(&input).as_str(), &want.unwrap_or_default()),
        Some("unescape") => match (unescape(&input), want) {
            (Ok(got), Some(want)) => same(&got.to_vec(), &latin1(want)),
            (Err(_), None) => Ok(()),
            (got, want) => Err(format!("{got:?}, want {want:?}")),
        },
        _ => {
            let escaped = print::escape(&input);
            let back =
                if escaped.starts_with('"') { unescape(escaped.as_bytes()) } else { Ok(escaped.into_bytes().into()) };
            same(&back.map(Vec::from), &Ok(input))
        }
    }
}

fn types_case(case: &Json, expr: &str) -> Result<(), String> {
    if let Some(want) = text(case, "expect") {
        let got = mock::check_filter(expr, Default::default());
        return match (want, &got) {
            ("ok", Ok(_)) | ("throws", Err(_)) => Ok(()),
            _ => Err(format!("{got:?}, want {want}")),
        };
    }
    let set = |text: &str| tree(text).map(|tree| types::event_types(&tree)).map_err(|error| error.message);
    let got = set(expr)?;
    if let Some(other) = text(case, "same_set_as") {
        return same(&got, &set(other)?);
    }
    let wanted = text(case, "set").unwrap_or_default();
    let names = |list: &str| -> EventSet {
        list.trim_matches(['{', '}']).split(',').filter_map(|name| EventType::by_name(name.trim())).collect()
    };
    let want = match wanted.split_once(" - ") {
        Some(("ALL", except)) => names(except).complement(),
        _ if wanted == "ALL" => EventSet::all(),
        _ if wanted == "NONE" => EventSet::EMPTY,
        _ => names(wanted),
    };
    match got == want {
        true => Ok(()),
        false => Err(format!("{} types, want {wanted}", got.len())),
    }
}
