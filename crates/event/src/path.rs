//! Paths: from the kernel's names to text, joined and normalised as Falco does.

use crate::{
    decode::{Block, Status},
    text::Text,
    value::Arena,
};

/// Longest path that a join yields; beyond it stands [`TOO_LONG`]. Falco: `SCAP_MAX_PATH_SIZE`.
pub const MAX: usize = 1024;

/// What Falco says instead of a path longer than [`MAX`].
pub const TOO_LONG: &[u8] = b"/DIR_TOO_LONG/FILENAME_TOO_LONG";

/// The directory of a relative path whose base nobody knows.
pub const UNKNOWN: &[u8] = b"<UNKNOWN>";

/// The path that a block of components spells. What is no path (`memfd:x`) keeps its bare name; where the root end is
/// missing stands [`UNKNOWN`].
pub fn spell<'a>(block: Block<'_>, arena: &'a Arena) -> &'a [u8] {
    let names = block.components();
    match block.status {
        Status::Pseudo => return arena.alloc_slice_copy(names.last().unwrap_or_default()),
        Status::Fault | Status::Null => return UNKNOWN,
        Status::Ok | Status::Truncated => {}
    }
    let front: &[u8] = if block.status == Status::Truncated { UNKNOWN } else { b"" };
    let len = front.len() + names.map(|name| name.len() + 1).sum::<usize>();
    if len == 0 {
        return b"/";
    }
    let path = arena.alloc_slice_fill_copy(len, b'/');
    path[..front.len()].copy_from_slice(front);
    let mut end = len;
    for name in names {
        let start = end - name.len();
        path[start..end].copy_from_slice(name);
        end = start - 1;
    }
    path
}

/// Whether `path` is absolute and has no `.`, `..`, doubled or trailing slash.
fn is_normal(path: &[u8]) -> bool {
    match path {
        [b'/'] => true,
        [b'/', rest @ ..] => is_plain(rest),
        _ => false,
    }
}

/// Whether no name of a relative path is empty, `.` or `..`.
fn is_plain(names: &[u8]) -> bool {
    let doubtful = |names| has_pair(names, |a, b| (a == b'/') & ((b == b'/') | (b == b'.')));
    let ends = matches!((names.first(), names.last()), (None | Some(b'/' | b'.'), _) | (_, Some(b'/')));
    !ends && !doubtful(names) || names.split(|b| *b == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
}

/// Whether two bytes that follow each other are such a pair. Blocks of fixed size without a way out in the middle are what
/// the compiler compares all bytes of at once, so the last block overlaps the one before.
fn has_pair(bytes: &[u8], wanted: impl Fn(u8, u8) -> bool) -> bool {
    const BLOCK: usize = 16;
    let any = |first: &[u8], second: &[u8]| first.iter().zip(second).fold(false, |any, (a, b)| any | wanted(*a, *b));
    let all = |first: &[u8; BLOCK], second: &[u8; BLOCK]| any(first, second);
    let Some((_, next)) = bytes.split_first() else { return false };
    let last = bytes.split_last().and_then(|(_, front)| front.last_chunk().zip(next.last_chunk()));
    let Some((first, second)) = last else { return any(bytes, next) };
    all(first, second) || bytes.as_chunks().0.iter().zip(next.as_chunks().0).any(|(first, second)| all(first, second))
}

/// Joins `name` to the directory `base` unless it is absolute, and removes `.`, `..`, doubled and trailing slashes.
/// An absolute path that needs no change is returned as it is.
pub fn join<'a>(base: &[u8], name: &'a [u8], arena: &'a Arena) -> &'a [u8] {
    let absolute = name.starts_with(b"/");
    if absolute && name.len() <= MAX && is_normal(name) {
        return name;
    }
    if !absolute && base.len() + 1 + name.len() <= MAX && is_normal(base) && is_plain(name) {
        let base = if base.len() == 1 { b"" } else { base };
        let mut out = Text::with_capacity(arena, base.len() + 1 + name.len());
        out.push(base).push(b"/").push(name);
        return out.finish();
    }
    let base = if absolute { b"/" } else { base };
    if base.len() + 1 + name.len() > 4 * MAX {
        return TOO_LONG;
    }
    let rooted = base.starts_with(b"/");
    let out = arena.alloc_slice_fill_copy(base.len() + 1 + name.len(), 0u8);
    let mut len = 0;
    for part in base.split(|b| *b == b'/').chain(name.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." if len > 0 => len = out[..len].iter().rposition(|b| *b == b'/').unwrap_or(0),
            b".." if rooted => {}
            _ => {
                if len > 0 || rooted {
                    out[len] = b'/';
                    len += 1;
                }
                out[len..len + part.len()].copy_from_slice(part);
                len += part.len();
            }
        }
    }
    match len {
        0 if rooted => b"/",
        0 => b".",
        _ if len > MAX => TOO_LONG,
        _ => &out[..len],
    }
}

/// `path` with runs of slashes collapsed: Falco's `fd.nameraw`.
pub fn collapse_slashes<'a>(path: &'a [u8], arena: &'a Arena) -> &'a [u8] {
    if !has_pair(path, |a, b| (a == b'/') & (b == b'/')) {
        return path;
    }
    let mut out = Text::with_capacity(arena, path.len());
    let mut last = 0;
    for byte in path {
        if !(*byte == b'/' && last == b'/') {
            out.push(&[*byte]);
        }
        last = *byte;
    }
    out.finish()
}

/// Directory of a file, as Falco's `fd.directory` cuts it: a trailing slash stays.
pub fn directory(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        None | Some(0) => b"/",
        Some(at) if at + 1 < path.len() => &path[..at],
        Some(_) => path,
    }
}

/// Last component of a file's path, as Falco's `fd.filename` cuts it.
pub fn filename(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        None => b"/",
        Some(at) if at + 1 < path.len() => &path[at + 1..],
        Some(_) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, name: &str, want: &str) {
        let arena = Arena::new();
        assert_eq!(String::from_utf8_lossy(join(base.as_bytes(), name.as_bytes(), &arena)), want);
    }

    #[test]
    fn joins_and_normalises() {
        check("/srv", "/etc/passwd", "/etc/passwd");
        check("/srv", "a", "/srv/a");
        check("/", "a", "/a");
        check("/srv/", "./a//b/../c/", "/srv/a/c");
        check("/", "../../..", "/");
        check("/srv", "", "/srv");
        check("<UNKNOWN>", "a/b", "<UNKNOWN>/a/b");
        check("/srv", ".hidden/...", "/srv/.hidden/...");
        check("/srv", "a/", "/srv/a");
        check("/srv", "a/..", "/srv");
        check("/srv", "a/.", "/srv/a");
        check("/x/.", "a", "/x/a");
        check("/", "/a/.git/config", "/a/.git/config");
        check("/", "/etc/../etc//shadow", "/etc/shadow");
        check("/", &"/a".repeat(600), "/DIR_TOO_LONG/FILENAME_TOO_LONG");
    }

    #[test]
    fn a_pair_is_found_at_every_place() {
        let wanted = |a, b| (a == b'/') & (b == b'.');
        for len in 0..70 {
            let mut bytes = vec![b'a'; len];
            assert!(!has_pair(&bytes, wanted), "{len}");
            for at in 1..len {
                (bytes[at - 1], bytes[at]) = (b'.', b'/');
                assert!(!has_pair(&bytes, wanted), "{at} of {len}");
                (bytes[at - 1], bytes[at]) = (b'/', b'.');
                assert!(has_pair(&bytes, wanted), "{at} of {len}");
                (bytes[at - 1], bytes[at]) = (b'a', b'a');
            }
        }
    }

    #[test]
    fn a_normal_absolute_path_is_not_copied() {
        let arena = Arena::new();
        let name = b"/etc/passwd";
        assert!(std::ptr::eq(join(b"/", name, &arena), &name[..]));
    }

    #[test]
    fn spells_components() {
        let arena = Arena::new();
        let spell = |status, bytes: &[u8]| String::from_utf8_lossy(spell(Block { status, bytes }, &arena)).into_owned();
        assert_eq!(spell(Status::Ok, b"\x06passwd\x03etc"), "/etc/passwd");
        assert_eq!(spell(Status::Ok, b""), "/");
        assert_eq!(spell(Status::Truncated, b"\x01c\x01b"), "<UNKNOWN>/b/c");
        assert_eq!(spell(Status::Pseudo, b"\x07memfd:x"), "memfd:x");
        assert_eq!(spell(Status::Ok, b"\x09short"), "/");
    }

    #[test]
    fn cuts_directory_and_file_name() {
        assert_eq!((directory(b"/a/b"), filename(b"/a/b")), (&b"/a"[..], &b"b"[..]));
        assert_eq!((directory(b"/a"), filename(b"/a")), (&b"/"[..], &b"a"[..]));
        assert_eq!((directory(b"x"), filename(b"x")), (&b"/"[..], &b"/"[..]));
    }
}
