//! The body of a webhook's request → the events in it: an `EventList`, a single event, or an array of either.

use std::{borrow::Cow, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

/// Nesting of lists in lists that is followed.
const NESTING: usize = 2;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// Where the events are in a body.
///
/// # Errors
/// When it is no JSON, or neither an object nor an array of such.
pub fn events(body: &[u8]) -> Result<Vec<Range<usize>>, serde_json::Error> {
    let mut found = Vec::new();
    collect(body, body, NESTING, &mut found)?;
    Ok(found)
}

fn collect(body: &[u8], part: &[u8], nesting: usize, found: &mut Vec<Range<usize>>) -> Result<(), serde_json::Error> {
    let first = part.iter().find(|byte| !byte.is_ascii_whitespace());
    let items = match first {
        Some(b'[') => serde_json::from_slice(part)?,
        _ => {
            let envelope: Envelope<'_> = serde_json::from_slice(part)?;
            let list = envelope.kind.as_deref().is_none_or(|kind| kind.ends_with("List"));
            match envelope.items.filter(|_| list) {
                Some(items) => items,
                None => {
                    found.extend(within(body, part));
                    return Ok(());
                }
            }
        }
    };
    let items: Vec<&RawValue> = items;
    for item in items {
        let text = item.get().as_bytes();
        match nesting.checked_sub(1) {
            // Only a list in an array is looked into; the items of a list are events.
            Some(nesting) if first == Some(&b'[') && text.first() == Some(&b'{') => {
                collect(body, text, nesting, found)?
            }
            _ => found.extend(within(body, text)),
        }
    }
    Ok(())
}

/// Where a part of a body begins and ends.
fn within(body: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let range = start..start.checked_add(part.len())?;
    (range.end <= body.len()).then_some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(body: &str) -> Option<Vec<&str>> {
        let events = events(body.as_bytes()).ok()?;
        Some(events.into_iter().map(|range| &body[range]).collect())
    }

    #[test]
    fn single_events_arrays_and_lists_are_taken_apart() {
        assert_eq!(texts(r#" {"kind":"Event"}"#), Some(vec![r#" {"kind":"Event"}"#]));
        assert_eq!(texts(r#"[{"a":1}, {"b":2}]"#), Some(vec![r#"{"a":1}"#, r#"{"b":2}"#]));
        let list = r#"{"kind":"EventList","items":[{"a":1},{"b":[2]}],"metadata":{}}"#;
        assert_eq!(texts(list), Some(vec![r#"{"a":1}"#, r#"{"b":[2]}"#]));
        let lists = r#"[{"kind":"EventList","items":[{"a":1}]},{"kind":"EventList","items":[]},{"b":2}]"#;
        assert_eq!(texts(lists), Some(vec![r#"{"a":1}"#, r#"{"b":2}"#]));
        assert_eq!(texts(r#"{"kind":"Event","items":[1]}"#).map(|events| events.len()), Some(1));
        assert_eq!(texts("[]"), Some(vec![]));
    }

    #[test]
    fn what_is_no_list_of_events_is_an_error() {
        for body in ["", "x", "1", "{", "[{]", "{\"items\":1}", "{\"items\":[}", "null1"] {
            assert_eq!(texts(body), None, "{body}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("[{}{}]", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(events(deep.as_bytes()).map(|events| events.len()).ok(), Some(1));
        let deep = "[".repeat(1_000_000);
        assert!(events(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in "[\\[\\]{}\",:a0 ]{0,200}|.{0,100}") {
            if let Ok(events) = events(body.as_bytes()) {
                for range in events {
                    prop_assert!(body.as_bytes().get(range).is_some());
                }
            }
        }
    }
}
