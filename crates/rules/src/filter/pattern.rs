//! Regular expressions: RE2's over the whole value, on an engine that is linear in time as RE2 is.

use regex::{Regex, RegexBuilder};

/// Bytes of compiled program at most: more is a condition that costs every event too much.
const SIZE_LIMIT: usize = 1 << 20;

/// Compiles a pattern that must match the whole value. The error is a sentence.
pub(super) fn regex(pattern: &[u8]) -> Result<Regex, String> {
    let pattern = std::str::from_utf8(pattern).map_err(|_| "a regular expression must be UTF-8".to_owned())?;
    // On its own first: put between anchors, an unbalanced `a)(b` would pass.
    build(pattern)?;
    // Lines: in RE2's POSIX syntax `^` and `$` also match at line breaks.
    build(&format!(r"\A(?m:{pattern})\z"))
}

fn build(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).nest_limit(100).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("invalid regular expression: {reason}")
        }
    })
}

/// The comparison that does the same as a pattern without a need for regular expressions, if there is one.
pub(super) fn simpler(pattern: &str) -> Option<&'static str> {
    let (start, rest) = match ["^", ".*", ".+", ".?"].into_iter().find(|open| pattern.starts_with(open)) {
        Some(open) => (open, &pattern[open.len()..]),
        None => ("", pattern),
    };
    let (end, middle) = match ["$", ".*", ".+", ".?"].into_iter().find(|close| rest.ends_with(close)) {
        Some(close) => (close, &rest[..rest.len() - close.len()]),
        None => ("", rest),
    };
    let literal = !middle.is_empty() && !middle.contains(|char: char| r"\.+*?()|[]{}^$".contains(char));
    if !literal {
        return None;
    }
    match (start.starts_with('.'), end.starts_with('.')) {
        (false, false) => Some("="),
        (false, true) => Some("startswith"),
        (true, false) => Some("endswith"),
        (true, true) => Some("contains"),
    }
}
