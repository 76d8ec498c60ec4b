//! Logging: one line per fact on standard error, so that standard output belongs to alerts.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Whether standard error is a terminal that wants colours (<https://no-color.org>).
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Starts logging; `GYRFALCON_LOG` takes directives as `RUST_LOG` does elsewhere.
pub fn start() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("GYRFALCON_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour())
        .with_target(false)
        .init();
}
