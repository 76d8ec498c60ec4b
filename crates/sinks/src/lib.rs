//! Where alerts go: routing, queues, retries, and one module per type of destination.
//!
//! Threads, not tasks: every sink has a thread and a bounded queue of its own. Opening and writing a file on a hung disk
//! cannot be cancelled, nor can looking up a name, and on a shared runtime either would hold up other sinks; here a
//! sink that hangs has only itself to stop, by construction, and each is straight code from top to bottom. Sinks are
//! few and alerts rare, so threads cost nothing that counts. Only the HTTP client is asynchronous, and it stays inside
//! of [`http`].
//!
//! A further type of destination is one file and its row in [`SinkType`] and [`config::Target`]; the compiler lists the
//! rest.
//!
//! The event loop calls [`Fanout::publish`], which never waits for any of this. What does not arrive is counted under
//! a [`Loss`].
#![forbid(unsafe_code)]

pub mod config;
mod docs;
pub mod fanout;
pub mod file;
pub mod guard;
pub mod http;
mod loss;
pub mod pace;
pub mod queue;
pub mod retry;
pub mod route;
pub mod secrets;
mod sink;
mod slack;
pub mod stdout;
mod tally;
#[cfg(test)]
mod testing;
pub mod webhook;
mod worker;
pub mod write;

pub use config::{ConfigError, SinkConfig};
pub use docs::generated;
pub use fanout::{Fanout, Leftover, Sinks, StartError};
pub use loss::Loss;
pub use secrets::{Secret, Secrets};
pub use sink::{Again, SendError, Sink, SinkType, build};
pub use tally::SinkCounters;
