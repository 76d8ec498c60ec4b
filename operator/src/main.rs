//! The operator's process: reads the command line, starts the log, runs.
#![forbid(unsafe_code)]

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use operator::cli::{Cli, Command};
use tracing::error;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match &cli.command {
        Command::Run(args) => args.log_level.clone(),
        Command::Selftest(_) => "info".to_owned(),
    };
    let filter = match EnvFilter::try_new(&level) {
        Ok(filter) => filter,
        Err(wrong) => {
            eprintln!("error: --log-level {level}: {wrong}; use error, warn, info, debug or a tracing filter");
            return ExitCode::from(1);
        }
    };
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(failed) => {
            error!(error = %link::chain(&failed), "the system has no threads for the operator");
            return ExitCode::from(2);
        }
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => operator::run::run(*args).await,
            Command::Selftest(args) => operator::selftest::run(args).await,
        }
    });
    // Threads that wait for a destination are not waited for: what they had not sent is in the outbox.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            error!(error = %link::chain(&*failed), "the operator ends");
            ExitCode::from(2)
        }
    }
}
