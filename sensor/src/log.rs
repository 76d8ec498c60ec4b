//! Logging: one line per fact on standard error, so that standard output belongs to alerts.

use std::{io::IsTerminal, sync::OnceLock};

use tracing::Level;
use tracing_subscriber::EnvFilter;

/// Whether standard error is a terminal that wants colours (<https://no-color.org>).
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Changes the level; none is the one at the start.
static SET: OnceLock<Box<dyn Fn(Option<Level>) + Send + Sync>> = OnceLock::new();

/// Starts logging at a level; `GYRFALCON_LOG` takes directives as `RUST_LOG` does elsewhere.
pub fn start(level: Level) {
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(std::io::stderr)
        .with_ansi(colour())
        .with_target(false)
        .with_filter_reloading();
    let handle = logger.reload_handle();
    logger.init();
    // The logger lives as long as the program: a reload does not fail. Nor is logging started twice.
    let _ = SET.set(Box::new(move |other| drop(handle.reload(filter(other.unwrap_or(level))))));
}

/// Logs at another level from now on, or at the one of the start again.
pub fn set(level: Option<Level>) {
    if let Some(set) = SET.get() {
        set(level);
    }
}

fn filter(level: Level) -> EnvFilter {
    EnvFilter::builder().with_default_directive(level.into()).with_env_var("GYRFALCON_LOG").from_env_lossy()
}
