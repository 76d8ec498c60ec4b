//! What must not be in the tree at all.

use super::{File, Finding};

/// Binaries above this size belong where they can be made again, not into every clone for ever.
const BINARY_KIB: usize = 512;

/// Checks a tracked file.
pub fn check(file: &File) -> Option<Finding> {
    let kib = file.bytes.len() / 1024;
    let is_binary = file.bytes.contains(&0);
    let message = || format!("a binary of {kib} KiB: build or download it instead");
    (is_binary && kib > BINARY_KIB).then(|| Finding::error(&file.path, 1, message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_binaries_are_refused_and_large_texts_are_not() {
        let file = |byte| File { path: "a".into(), bytes: vec![byte; (BINARY_KIB + 1) * 1024] };
        assert!(check(&file(0)).is_some());
        assert_eq!(check(&file(b'a')), None);
    }
}
