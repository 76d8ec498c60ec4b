//! Shell patterns as fnmatch(3) matches them without flags: over bytes, whole, and `*` and `?` take `/` and a
//! leading dot like any other byte. The crates for globs are about file trees and differ in all of these.

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Glob {
    parts: Vec<Part>,
    fold: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Byte(u8),
    Any,
    Star,
    Class {
        negated: bool,
        members: Vec<Member>,
    },
    /// Never matches: a pattern that ends in a lone backslash.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum Member {
    Range(u8, u8),
    Named(fn(&u8) -> bool),
}

impl Glob {
    /// Compiles a pattern. Every text is one: a bracket that isn't closed stands for itself.
    pub fn new(pattern: &[u8], fold_case: bool) -> Self {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            let part = match byte {
                b'*' if matches!(parts.last(), Some(Part::Star)) => continue,
                b'*' => Part::Star,
                b'?' => Part::Any,
                b'[' => match class(&pattern[at..], fold_case) {
                    Some((part, length)) => {
                        at += length;
                        part
                    }
                    None => Part::Byte(b'['),
                },
                b'\\' => match pattern.get(at) {
                    Some(&escaped) => {
                        at += 1;
                        Part::Byte(folded(escaped, fold_case))
                    }
                    None => Part::Nothing,
                },
                byte => Part::Byte(folded(byte, fold_case)),
            };
            parts.push(part);
        }
        Self { parts, fold: fold_case }
    }

    /// Whether the pattern matches the whole of the value.
    pub fn matches(&self, value: &[u8]) -> bool {
        let (mut part, mut at) = (0, 0);
        // The last star seen and how far its match reached: on failure it takes one byte more. Earlier stars need
        // no second thought, since the last one can make up for whatever they would take.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match (self.parts.get(part), value.get(at)) {
                (Some(Part::Star), _) => {
                    star = Some((part, at));
                    part += 1;
                    continue;
                }
                (Some(wanted), Some(&byte)) if wanted.takes(folded(byte, self.fold)) => {
                    (part, at) = (part + 1, at + 1);
                    continue;
                }
                (None, None) => return true,
                (Some(_) | None, _) => {}
            }
            let Some((star_part, taken)) = star.filter(|(_, taken)| *taken < value.len()) else { return false };
            star = Some((star_part, taken + 1));
            (part, at) = (star_part + 1, taken + 1);
        }
    }
}

impl Part {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::Any => true,
            Self::Star | Self::Nothing => false,
            Self::Class { negated, members } => members.iter().any(|member| member.has(byte)) != *negated,
        }
    }
}

impl Member {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Range(first, last) => (first..=last).contains(&byte),
            Self::Named(test) => test(&byte),
        }
    }
}

/// The longest run of plain bytes of a pattern: every value that the pattern matches has it, there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Literal {
    /// The pattern is nothing else.
    Whole(Vec<u8>),
    /// At the front.
    Front(Vec<u8>),
    /// Somewhere.
    Inside(Vec<u8>),
    /// At the end.
    End(Vec<u8>),
}

impl Literal {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Whole(bytes) | Self::Front(bytes) | Self::Inside(bytes) | Self::End(bytes) => bytes,
        }
    }
}

/// The longest run of plain bytes; of equally long ones, the first. Empty when there is none.
pub(super) fn longest_literal(pattern: &[u8]) -> Literal {
    let parts = Glob::new(pattern, false).parts;
    let (mut best, mut run) = (0..0, 0..0);
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Byte(_) => run.end = at + 1,
            Part::Any | Part::Star | Part::Class { .. } | Part::Nothing => run = at + 1..at + 1,
        }
        if run.len() > best.len() {
            best = run.clone();
        }
    }
    let byte = |part: &Part| if let Part::Byte(byte) = part { Some(*byte) } else { None };
    let bytes = parts[best.clone()].iter().filter_map(byte).collect();
    match (best.start == 0, best.end == parts.len()) {
        (true, true) => Literal::Whole(bytes),
        (true, false) => Literal::Front(bytes),
        (false, false) => Literal::Inside(bytes),
        (false, true) => Literal::End(bytes),
    }
}

fn folded(byte: u8, fold: bool) -> u8 {
    if fold { byte.to_ascii_lowercase() } else { byte }
}

/// A bracket expression behind its `[`, with its length; `None` if it isn't closed.
fn class(pattern: &[u8], fold: bool) -> Option<(Part, usize)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut members = Vec::new();
    loop {
        let byte = *pattern.get(at)?;
        at += 1;
        if byte == b']' && at - 1 > first {
            return Some((Part::Class { negated, members }, at));
        }
        if byte == b'[' && pattern.get(at) == Some(&b':') {
            let length = pattern[at + 1..].windows(2).position(|pair| pair == b":]")?;
            let member = Member::Named(named(&pattern[at + 1..at + 1 + length])?);
            members.push(member);
            at += length + 3;
            continue;
        }
        let low = unescaped(byte, pattern, &mut at)?;
        let high = match (pattern.get(at), pattern.get(at + 1)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                at += 2;
                unescaped(high, pattern, &mut at)?
            }
            _ => low,
        };
        members.push(Member::Range(folded(low, fold), folded(high, fold)));
    }
}

fn unescaped(byte: u8, pattern: &[u8], at: &mut usize) -> Option<u8> {
    if byte != b'\\' {
        return Some(byte);
    }
    let escaped = *pattern.get(*at)?;
    *at += 1;
    Some(escaped)
}

fn named(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| byte.is_ascii_whitespace() || *byte == 0x0b,
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, value: &str, want: bool) {
        assert_eq!(Glob::new(pattern.as_bytes(), false).matches(value.as_bytes()), want, "{pattern} ~ {value}");
    }

    #[test]
    fn stars_and_question_marks_cross_slashes() {
        check("/etc/*.conf", "/etc/a/b.conf", true);
        check("/etc?passwd", "/etc/passwd", true);
        check("*", "", true);
        check("*a*b", "xxaxxbxx", false);
    }

    #[test]
    fn brackets() {
        check("[!a]b", "cb", true);
        check("[^a]b", "ab", false);
        check("[]x]", "]", true);
        check("[a-c-]", "-", true);
        check("[[:digit:]x]", "7", true);
        check("[open", "[open", true);
    }

    #[test]
    fn a_backslash_quotes() {
        check(r"\*", "*", true);
        check(r"\*", "x", false);
        check("x\\", "x\\", false);
    }

    #[test]
    fn case_is_folded_on_request() {
        assert!(Glob::new(b"BASH[A-C]", true).matches(b"bashB"));
    }

    #[test]
    fn the_longest_literal_is_where_values_have_it() {
        let literal = |pattern: &str| longest_literal(pattern.as_bytes());
        assert_eq!(literal("/etc/x"), Literal::Whole(b"/etc/x".to_vec()));
        assert_eq!(literal("/etc/*.d"), Literal::Front(b"/etc/".to_vec()));
        assert_eq!(literal(r"/a/*/b\*cd/?"), Literal::Inside(b"/b*cd/".to_vec()));
        assert_eq!(literal("[ab]*.conf"), Literal::End(b".conf".to_vec()));
        assert_eq!(literal("*").bytes(), b"");
        assert_eq!(literal("").bytes(), b"");
    }

    #[test]
    fn many_stars_stay_fast() {
        let pattern = "*a".repeat(60) + "b";
        check(&pattern, &"a".repeat(20_000), false);
    }
}
