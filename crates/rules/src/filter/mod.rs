//! The filter language: text ↔ tree → typed tree → program.

mod access;
pub mod ast;
pub mod check;
pub(crate) mod constant;
pub mod details;
pub mod eval;
pub mod glob;
pub(crate) mod index;
mod lex;
mod matcher;
pub mod names;
mod nets;
pub mod parse;
pub mod path_set;
mod pattern;
pub(crate) mod positional;
pub mod print;
pub mod program;
mod text_index;
mod transform;
mod trie;
pub mod typed;
pub mod types;

pub use lex::{EscapeError, unescape};
pub use matcher::Resolver;
