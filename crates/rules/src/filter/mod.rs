//! The filter language: text ↔ tree → typed tree → program.

pub mod ast;
pub mod check;
pub(crate) mod constant;
pub mod details;
pub mod eval;
pub mod glob;
mod lex;
mod matcher;
pub mod names;
pub mod parse;
pub mod path_set;
mod pattern;
pub mod print;
pub mod program;
mod transform;
pub mod typed;
pub mod types;

pub use lex::{EscapeError, unescape};
pub use matcher::Resolver;
