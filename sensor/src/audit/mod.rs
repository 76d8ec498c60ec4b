//! `gyrfalcon audit`: rules on the audit log of the Kubernetes API server.
//!
//! Events come over the API server's webhook ([`server`], [`body`]) or from a file ([`file`]), wait in a queue that is bounded in
//! bytes ([`queue`]), and are judged on a thread of their own ([`judge`]). Rules and sinks come from files
//! ([`standalone`]), or rules from the operator and alerts go to it ([`cluster`]). What the API server must log for the
//! rules, [`policy`] says.

mod body;
mod certificates;
mod cluster;
mod file;
mod judge;
mod metrics;
mod policy;
mod queue;
mod server;
mod standalone;
#[cfg(test)]
mod tests;

use event::{
    audit::{Surroundings, json::Limits},
    fields::EventSource,
};
use rules::load::Options;

use crate::{cli, commands::compile_options, exit::Exit};

/// Runs the receiver, or one of the tools around it.
pub fn run(args: &cli::Audit) -> Exit {
    match &args.command {
        Some(cli::AuditCommand::Policy(policy)) => policy::print(policy),
        Some(cli::AuditCommand::Certificates(certificates)) => certificates::make(certificates),
        None if args.run.cluster => cluster::run(&args.run),
        None => standalone::run(&args.run),
    }
}

/// What rules of the audit log are compiled with.
fn options(compile: &cli::Compile, hostname: String) -> Options {
    Options { sources: vec![EventSource::K8sAudit], ..compile_options(compile, hostname) }
}

fn surroundings(hostname: &str) -> Surroundings {
    Surroundings { hostname: hostname.into(), utc_offset_s: crate::clock::utc_offset_s() }
}

fn limits(args: &cli::AuditRun) -> Limits {
    Limits { bytes: args.max_event_kib as usize * 1024, ..Limits::default() }
}

/// Bytes that may wait to be judged: room for one more than the largest request.
fn queue_bytes(args: &cli::AuditRun) -> usize {
    let largest = (args.max_body_mib as usize) << 20;
    ((args.queue_mib as usize) << 20).max(largest + (1 << 20))
}

/// The port of the webhook, with its certificates looked at.
async fn listen(args: &cli::AuditRun) -> Result<(tokio::net::TcpListener, server::Files), crate::sensor::Failed> {
    let files = server::Files {
        certificate: args.tls_cert.clone(),
        key: args.tls_key.clone(),
        client_ca: args.client_ca.clone(),
    };
    files.check()?;
    Ok((server::bind(args.listen, "--listen").await?, files))
}

/// Says once how the API server is to be told.
fn announce(args: &cli::AuditRun, rules: usize) {
    tracing::info!(
        address = %args.listen, rules,
        "waiting for events of the API server; `gyrfalcon audit policy` prints what it has to be told"
    );
}
