//! Text built in the arena of an event.

use std::fmt;

use bumpalo::collections::Vec as ArenaVec;

use crate::value::Arena;

/// Bytes under construction. Formatting into it cannot fail and touches no heap.
pub(crate) struct Text<'a>(ArenaVec<'a, u8>);

impl<'a> Text<'a> {
    pub fn new(arena: &'a Arena) -> Self {
        Self(ArenaVec::new_in(arena))
    }

    pub fn with_capacity(arena: &'a Arena, bytes: usize) -> Self {
        Self(ArenaVec::with_capacity_in(bytes, arena))
    }

    pub fn push(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice_copy(bytes);
        self
    }

    /// Puts `separator` in front of `bytes`, unless nothing was written yet.
    pub fn push_separated(&mut self, separator: &[u8], bytes: &[u8]) {
        if !self.0.is_empty() {
            self.push(separator);
        }
        self.push(bytes);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn finish(self) -> &'a [u8] {
        self.0.into_bump_slice()
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// `format!` into the arena.
macro_rules! text {
    ($arena:expr, $($format:tt)+) => {{
        let mut text = $crate::text::Text::new($arena);
        // Writing to the arena cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!($($format)+));
        text.finish()
    }};
}
pub(crate) use text;
