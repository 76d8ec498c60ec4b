//! filter_eval_cases.json: filters and fields of events that are played, and filters over fields with fixed values.
//!
//! Every filter of a played event is judged by the compiled engine and by the oracle. Where a value or a step stands in
//! code that the data does not carry, a difference says nothing: such cases are counted apart.

use std::panic::AssertUnwindSafe;

use event::{
    catalogue::EventType,
    fields::Subject,
    value::{Arena, Value, ValueType},
};
use gyrfalcon_rules as rules;
use libtest_mimic::Failed;
use rules::{
    filter::{
        ast::TextId,
        parse::{Depth, parse},
    },
    output::Template,
};
use serde_json::{Value as Json, json};

use super::{
    Suite,
    mock::{self, MockEvent},
    reference, sample,
    world::{Played, PlayedEvent, World},
};

/// Runs the cases over mock fields.
pub fn run(data: &str) -> Result<(), Failed> {
    let data: Json = serde_json::from_str(data)?;
    let mut suite = Suite::new("eval");
    for test in data.get("tests").and_then(Json::as_array).into_iter().flatten() {
        played_cases(test, &mut suite);
    }
    param_cases(&data, &mut suite);
    mock_cases(&data, &mut suite)?;
    transformer_cases(&data, &mut suite)?;
    suite.finish("filter_eval_cases.json")
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

/// Events are played in order; between them, filters and fields are looked at.
fn played_cases(test: &Json, suite: &mut Suite) {
    let name = test["test"].as_str().unwrap_or_default();
    let mut world = World::default();
    for step in test["steps"].as_array().into_iter().flatten() {
        let Some(check) = step["check"].as_str() else {
            world.step(step);
            continue;
        };
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        let case = format!("{name} {}{}", text("field"), text("filter"));
        if check == "compiles" || step["expect"] == "throws" {
            suite.case(&case, compiles(text("filter"), step["expect"] == true));
            continue;
        }
        let Some((played, is_stated)) = world.event_of(step) else {
            suite.unstated(&case, Err("its event is not in the data".to_owned()));
            continue;
        };
        let arena = Arena::new();
        let record = played.record();
        let outcome = match PlayedEvent::new(played, &record, world.state(), &arena) {
            None => Err("no rule sees this event".to_owned()),
            Some(event) => match check {
                "filter" => judged(text("filter"), &event, step["expect"] == true),
                "has_value" => has_value(text("field"), &event, step["expect"] == true),
                "field" => match world.wanted(&step["equals"]) {
                    Some(want) => shown(text("field"), &event, &want),
                    None => {
                        suite.unstated(&case, Err("what is wanted is not in the data".to_owned()));
                        continue;
                    }
                },
                other => Err(format!("unknown check {other}")),
            },
        };
        if is_stated { suite.case(&case, outcome) } else { suite.unstated(&case, outcome) }
    }
}

/// Filters over an exec some of whose parameters arrived without content.
fn param_cases(data: &Json, suite: &mut Suite) {
    for case in data["param_cases"].as_array().into_iter().flatten() {
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let (filter, event) = (text("filter"), text("event"));
        let name = format!("{} {filter}", text("test"));
        if case["expect"] == "throws" {
            suite.case(&name, compiles(filter, false));
            continue;
        }
        let mut world = World::default();
        world.step(&json!({"preset": "default_init_thread"}));
        let Some(played) = described_exec(event, &mut world) else {
            suite.case(&name, Err(format!("unknown event {event:?}")));
            continue;
        };
        let (arena, record) = (Arena::new(), played.record());
        let outcome = match PlayedEvent::new(&played, &record, world.state(), &arena) {
            Some(event) => judged(filter, &event, case["expect"] == true),
            None => Err("no rule sees this event".to_owned()),
        };
        suite.case(&name, outcome);
    }
}

/// `execve exit, params 18..29 (…) empty; pid 1 exe /bin/test-exe comm test-exe`.
fn described_exec(text: &str, world: &mut World) -> Option<Played> {
    let (_, rest) = text.strip_prefix("execve exit, params ")?.split_once("; ")?;
    let range = text.strip_prefix("execve exit, params ")?.split_whitespace().next()?;
    let (first, last) = range.split_once("..")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|found| *found == word).and_then(|at| words.get(at + 1)).copied();
    world.empty_exec(
        after("pid")?.parse().ok()?,
        after("exe")?,
        after("comm")?,
        first.parse().ok()?..=last.parse().ok()?,
    )
}

fn compiles(filter: &str, want: bool) -> Result<(), String> {
    let got = mock::check_filter(filter, sample::catalogue());
    if got.is_ok() == want { Ok(()) } else { Err(format!("{got:?}, compiles: {want}")) }
}

/// The engine and the oracle must both say what is wanted.
fn judged<'a>(filter: &str, event: &impl Subject<'a>, want: bool) -> Result<(), String> {
    let catalogue = sample::catalogue();
    let compiled = mock::evaluate(filter, catalogue, event)?;
    let tree = parse(filter, TextId::default(), Depth::RULES).map_err(|error| error.message)?;
    let oracle = std::panic::catch_unwind(AssertUnwindSafe(|| reference::holds_with(&tree, event, catalogue)));
    let oracle = oracle.map_err(|_| "the oracle does not know this".to_owned())?;
    match (compiled == want, oracle == want) {
        (true, true) => Ok(()),
        _ => Err(format!("engine {compiled}, oracle {oracle}, want {want}")),
    }
}

fn template(field: &str) -> Result<Template, String> {
    Template::parse(&format!("%{field}"), sample::catalogue()).map_err(|errors| format!("{errors:?}"))
}

fn has_value<'a>(field: &str, event: &impl Subject<'a>, want: bool) -> Result<(), String> {
    let got = !template(field)?.single_value(event).is_null();
    if got == want { Ok(()) } else { Err(format!("has a value: {got}, want {want}")) }
}

fn shown<'a>(field: &str, event: &impl Subject<'a>, want: &str) -> Result<(), String> {
    let got = template(field)?.render(event);
    if got == want { Ok(()) } else { Err(format!("is {got:?}, want {want:?}")) }
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
