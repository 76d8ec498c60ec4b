//! SPDX licence expressions: whether what we may choose from is enough.
//!
//! `AND` binds tighter than `OR`, `WITH` belongs to the licence before it, and old manifests write `/` for `OR`.

use std::iter::Peekable;

/// Whether the expression can be satisfied with allowed licences. An expression that cannot be read is not allowed.
pub fn allowed(expression: &str, allow: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = any(&mut words, allow);
    words.next().is_none() && verdict == Some(true)
}

/// `a OR b …`
fn any<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allow: &[&str]) -> Option<bool> {
    let mut verdict = all(words, allow)?;
    while words.next_if_eq(&"OR").is_some() {
        verdict |= all(words, allow)?;
    }
    Some(verdict)
}

/// `a AND b …`
fn all<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allow: &[&str]) -> Option<bool> {
    let mut verdict = one(words, allow)?;
    while words.next_if_eq(&"AND").is_some() {
        verdict &= one(words, allow)?;
    }
    Some(verdict)
}

/// A licence, or an expression in parentheses.
fn one<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allow: &[&str]) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        // `dyn`, because the type would otherwise contain itself.
        let inner: &mut dyn Iterator<Item = &'a str> = words;
        let group: Vec<&str> = group(inner)?;
        let mut group = group.into_iter().peekable();
        let verdict = any(&mut group, allow)?;
        return group.next().is_none().then_some(verdict);
    }
    let licence = match words.next_if_eq(&"WITH") {
        Some(_) => format!("{word} WITH {}", words.next()?),
        None => word.to_owned(),
    };
    Some(allow.contains(&licence.as_str()))
}

/// The words up to the parenthesis that closes.
fn group<'a>(words: &mut dyn Iterator<Item = &'a str>) -> Option<Vec<&'a str>> {
    let mut depth = 1;
    let mut group = Vec::new();
    for word in words {
        depth += i32::from(word == "(") - i32::from(word == ")");
        if depth == 0 {
            return Some(group);
        }
        group.push(word);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_means_them() {
        let allow = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
        for good in [
            "MIT",
            "GPL-3.0-only OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-3.0-only AND ISC OR MIT",
            "Apache-2.0 WITH LLVM-exception",
            "((MIT))",
        ] {
            assert!(allowed(good, &allow), "{good}");
        }
        for bad in
            ["", "ISC", "MIT AND ISC", "(ISC OR GPL-3.0-only) AND MIT", "Apache-2.0", "MIT )", "( MIT", "MIT MIT"]
        {
            assert!(!allowed(bad, &allow), "{bad}");
        }
    }
}
