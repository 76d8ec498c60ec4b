//! What transformers do with values. A failure gives no value, and no value makes every comparison false.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bumpalo::collections::Vec as ArenaVec;
use event::value::{Arena, Value};

use super::ast::Transformer;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Applies a transformer to its arguments.
pub(crate) fn apply<'a>(
    transformer: Transformer,
    args: &[Value<'a>],
    selector: Option<&[u8]>,
    arena: &'a Arena,
) -> Option<Value<'a>> {
    match (transformer, args) {
        (Transformer::ToLower, [value]) => each(*value, arena, &|text| fold(text, arena, <[u8]>::make_ascii_lowercase)),
        (Transformer::ToUpper, [value]) => each(*value, arena, &|text| fold(text, arena, <[u8]>::make_ascii_uppercase)),
        (Transformer::Basename, [value]) => each(*value, arena, &|text| {
            let start = text.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            Some(&text[start..])
        }),
        (Transformer::B64, [value]) => each(*value, arena, &|text| decode(text, arena)),
        (Transformer::Len, [Value::List(items)]) => Some(Value::Uint(items.len() as u64)),
        (Transformer::Len, [Value::Text(bytes) | Value::Bytes(bytes)]) => Some(Value::Uint(bytes.len() as u64)),
        (Transformer::Join, [Value::Text(separator), Value::List(items)]) => {
            let mut joined = ArenaVec::new_in(arena);
            for (index, item) in items.iter().enumerate() {
                joined.extend_from_slice(if index > 0 { separator } else { b"" });
                write_text(&mut joined, *item)?;
            }
            Some(Value::Text(joined.into_bump_slice()))
        }
        (Transformer::Concat, _) => {
            let mut joined = ArenaVec::new_in(arena);
            args.iter().try_for_each(|item| write_text(&mut joined, *item))?;
            Some(Value::Text(joined.into_bump_slice()))
        }
        (Transformer::Getopt, [list, Value::Text(options)]) => {
            let mut words = ArenaVec::new_in(arena);
            match list {
                Value::List(items) => words.extend(items.iter().filter_map(|item| match item {
                    Value::Text(text) => Some(*text),
                    _ => None,
                })),
                Value::Text(text) => words.extend(text.split(|byte| *byte == b' ')),
                _ => return None,
            }
            match selector {
                Some(selector) => option(&words, options, selector),
                None => {
                    let mut found = ArenaVec::new_in(arena);
                    getopt(&words, options, |letter, value| {
                        found.push(Value::Text(letter));
                        found.extend(value.map(Value::Text));
                    });
                    Some(Value::List(found.into_bump_slice()))
                }
            }
        }
        _ => None,
    }
}

/// Applies a function of text to a text, or to every text of a list.
fn each<'a>(value: Value<'a>, arena: &'a Arena, change: &dyn Fn(&'a [u8]) -> Option<&'a [u8]>) -> Option<Value<'a>> {
    match value {
        Value::Text(text) => change(text).map(|text| {
            // Text ends at a NUL, as C strings do.
            Value::Text(&text[..memchr::memchr(0, text).unwrap_or(text.len())])
        }),
        Value::Bytes(bytes) => change(bytes).map(Value::Bytes),
        Value::List(items) => {
            let mut changed = ArenaVec::with_capacity_in(items.len(), arena);
            for item in items {
                match item {
                    Value::Text(text) => changed.push(Value::Text(change(text)?)),
                    _ => return None,
                }
            }
            Some(Value::List(changed.into_bump_slice()))
        }
        _ => None,
    }
}

fn fold<'a>(text: &[u8], arena: &'a Arena, change: fn(&mut [u8])) -> Option<&'a [u8]> {
    let copy = arena.alloc_slice_copy(text);
    change(copy);
    Some(copy)
}

fn decode<'a>(text: &[u8], arena: &'a Arena) -> Option<&'a [u8]> {
    let buffer = arena.alloc_slice_fill_copy(text.len() / 4 * 3 + 3, 0);
    let length = BASE64.decode_slice(text, buffer).ok()?;
    Some(&buffer[..length])
}

fn write_text(out: &mut ArenaVec<'_, u8>, value: Value<'_>) -> Option<()> {
    match value {
        Value::Text(text) => {
            out.extend_from_slice(text);
            Some(())
        }
        Value::Int(number) => write_number(out, i128::from(number)),
        Value::Uint(number) => write_number(out, i128::from(number)),
        _ => None,
    }
}

fn write_number(out: &mut ArenaVec<'_, u8>, number: i128) -> Option<()> {
    let text = bumpalo::format!(in out.bump(), "{}", number);
    out.extend_from_slice(text.as_bytes());
    Some(())
}

/// Walks over short options as getopt(3) does: calls `found` with each letter and its value.
fn getopt<'a>(words: &[&'a [u8]], options: &[u8], mut found: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
    let takes_value = |letter: u8| {
        let at = options.iter().position(|option| *option == letter && letter != b':')?;
        Some(options.get(at + 1) == Some(&b':'))
    };
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if word.len() > 2 && word.starts_with(b"--") {
            continue;
        }
        if word == b"--" || word == b"-" || !word.starts_with(b"-") {
            return;
        }
        for at in 1..word.len() {
            match takes_value(word[at]) {
                None => found(b"?", None),
                Some(false) => found(&word[at..=at], None),
                Some(true) => {
                    let attached = &word[at + 1..];
                    let value = if attached.is_empty() { words.next().unwrap_or(b"") } else { attached };
                    found(&word[at..=at], Some(value));
                    break;
                }
            }
        }
    }
}

/// The value of one option, the last if it is repeated; a flag's value is its letter.
fn option<'a>(words: &[&'a [u8]], options: &[u8], selector: &[u8]) -> Option<Value<'a>> {
    let mut last = None;
    getopt(words, options, |letter, value| {
        if letter == selector {
            last = Some(value.unwrap_or(letter));
        }
    });
    last.map(Value::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: Option<Value<'_>>) -> String {
        match value {
            Some(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn base64_without_padding_is_decoded_and_rubbish_is_no_value() {
        let arena = Arena::new();
        assert_eq!(text(apply(Transformer::B64, &[Value::Text(b"aGVsbG8")], None, &arena)), "hello");
        assert_eq!(apply(Transformer::B64, &[Value::Text(b"*")], None, &arena), None);
    }

    #[test]
    fn options_are_read_as_getopt_reads_them() {
        let arena = Arena::new();
        let words = [&b"-xv"[..], b"-oout", b"--long", b"-o", b"two", b"file", b"-z"].map(Value::Text);
        let args = [Value::List(&words), Value::Text(b"xvo:")];
        let found = apply(Transformer::Getopt, &args, None, &arena);
        let joined = apply(Transformer::Join, &[Value::Text(b" "), found.expect("a list")], None, &arena);
        assert_eq!(text(joined), "x v o out o two");
        assert_eq!(text(apply(Transformer::Getopt, &args, Some(b"o"), &arena)), "two");
        assert_eq!(text(apply(Transformer::Getopt, &args, Some(b"x"), &arena)), "x");
        assert_eq!(apply(Transformer::Getopt, &args, Some(b"q"), &arena), None);
    }
}
