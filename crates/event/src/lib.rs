//! What happened: bytes from the kernel become an [`Event`](event::Event) that rules can ask about.
//!
//! Pure: no IO, no clock, no async. Time, host facts and user names arrive as arguments, so the same
//! input gives the same answer in the sensor, in the operator and in `gyrfalcon test`.
#![forbid(unsafe_code)]

pub mod args;
pub mod audit;
pub mod catalogue;
pub mod containers;
pub mod decode;
pub mod descriptor;
pub mod docs;
pub mod errno;
pub mod event;
pub mod fields;
pub mod flags;
pub mod loss;
pub mod params;
pub mod path;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
pub mod users;
pub mod value;

pub use docs::generated;
