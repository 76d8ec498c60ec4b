//! filter_eval_cases.json: those that need no event, only fields with fixed values.

use event::{
    catalogue::EventType,
    value::{Arena, Value, ValueType},
};
use gyrfalcon_rules as rules;
use libtest_mimic::Failed;
use rules::output::Template;
use serde_json::Value as Json;

use super::{
    Suite,
    mock::{self, MockEvent},
};

/// Runs the cases over mock fields.
pub fn run(data: &str) -> Result<(), Failed> {
    let data: Json = serde_json::from_str(data)?;
    let mut suite = Suite::new("eval");
    mock_cases(&data, &mut suite)?;
    transformer_cases(&data, &mut suite)?;
    compile_cases(&data, &mut suite);
    suite.finish("filter_eval_cases.json (without events)")
}

fn mock_cases(data: &Json, suite: &mut Suite) -> Result<(), Failed> {
    let arena = Arena::new();
    let list = arena.alloc_slice_copy(&[Value::Text(b"value1"), Value::Text(b"charbuf")]);
    let long = arena.alloc_slice_fill_copy(257, b'a');
    let rows: [(&str, ValueType, bool, Value<'_>); 7] = [
        ("test.int64", ValueType::Int(64), false, Value::Int(1)),
        ("test.charbuf", ValueType::Text, false, Value::Text(b"charbuf")),
        ("test.bytebuf", ValueType::Bytes, false, Value::Bytes(b"bytebuf")),
        ("test.list", ValueType::Text, true, Value::List(list)),
        ("test.another_list", ValueType::Text, true, Value::List(list)),
        ("test.more_than_256", ValueType::Text, false, Value::Text(long)),
        ("test.base64", ValueType::Text, false, Value::Text(b"Y2hhcmJ1Zg==")),
    ];
    let catalogue = mock::catalogue(rows.iter().map(|(name, ty, list, _)| mock::field(name, *ty, *list)).collect());
    let ty = EventType::by_name("getcwd").ok_or("no getcwd")?;
    let values = rows.iter().map(|(name, _, _, value)| (*name, *value)).collect();
    let event = MockEvent { arena: &arena, ty, values };
    let groups = data.get("mock_cases").and_then(Json::as_array).into_iter().flatten();
    for case in groups.filter_map(|group| group.get("cases")?.as_array()).flatten() {
        let (Some(filter), Some(want)) = (case.get(0).and_then(Json::as_str), case.get(1)) else { continue };
        let got = mock::evaluate(&repeated(filter), catalogue, &event);
        let agrees = match (&got, want) {
            (Ok(got), Json::Bool(want)) => got == want,
            (Err(_), Json::String(_)) => true,
            _ => false,
        };
        suite.case(filter, if agrees { Ok(()) } else { Err(format!("{got:?}, want {want}")) });
    }
    Ok(())
}

/// Filters over real fields are compiled here; what they match is tested where events are made.
fn compile_cases(data: &Json, suite: &mut Suite) {
    let of = |key: &str| data.get(key).and_then(Json::as_array).into_iter().flatten();
    let steps = of("tests").filter_map(|test| test.get("steps")?.as_array()).flatten();
    for case in of("param_cases").chain(steps) {
        let Some(filter) = case.get("filter").and_then(Json::as_str) else { continue };
        // Fields of a sample plugin.
        if case.get("extra_args").is_some() {
            continue;
        }
        let text = |key: &str| case.get(key).and_then(Json::as_str);
        let refused = text("check") == Some("compiles") && case.get("expect") == Some(&Json::Bool(false));
        let throws = refused || text("expect") == Some("throws");
        let got = mock::check_filter(filter, Default::default());
        suite.case(filter, if got.is_err() == throws { Ok(()) } else { Err(format!("{got:?}, throws: {throws}")) });
    }
}

/// `"a"*257` stands for so many of them.
fn repeated(filter: &str) -> String {
    let Some((before, count)) = filter.rsplit_once("\"*") else { return filter.to_owned() };
    match (before.rsplit_once('"'), count.parse()) {
        (Some((head, unit)), Ok(count)) => format!("{head}\"{}\"", unit.repeat(count)),
        _ => filter.to_owned(),
    }
}

fn transformer_cases(data: &Json, suite: &mut Suite) -> Result<(), Failed> {
    let ty = EventType::by_name("getcwd").ok_or("no getcwd")?;
    for case in data.get("transformer_value_cases").and_then(Json::as_array).into_iter().flatten() {
        let text = |key: &str| case.get(key).and_then(Json::as_str).unwrap_or_default();
        let of = |key: &str| case.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
        let is_list = text("type").starts_with("list");
        let arena = Arena::new();
        let inputs: Vec<_> = of("input").iter().filter_map(|input| Some(input.as_str()?.to_owned())).collect();
        let inputs: Vec<_> = inputs.iter().map(|input| Value::Text(arena.alloc_slice_copy(input.as_bytes()))).collect();
        let value = match (is_list, inputs.first()) {
            (true, _) => Value::List(arena.alloc_slice_copy(&inputs)),
            (false, Some(first)) => *first,
            (false, None) => Value::Text(b""),
        };
        let mut field = mock::field("test.input", ValueType::Text, is_list);
        field.marks.no_transformer = false;
        let catalogue = mock::catalogue(vec![field]);
        let event = MockEvent { arena: &arena, ty, values: [("test.input", value)].into_iter().collect() };
        let output = format!("%{}(test.input)", text("transformer"));
        let got = match Template::parse(&output, catalogue) {
            Ok(template) => template.single_value(&event),
            Err(errors) => format!("{errors:?}").into(),
        };
        let want = of("output");
        let want = if got.is_array() { Json::Array(want) } else { want.into_iter().next().unwrap_or_default() };
        let outcome = if got == want { Ok(()) } else { Err(format!("{got}, want {want}")) };
        suite.case(&format!("{} {:?}", text("transformer"), of("input")), outcome);
    }
    Ok(())
}
