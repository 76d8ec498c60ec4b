//! Running other programs: announced, and with errors that name the step and the remedy.
//!
//! Output of what runs goes to the terminal untouched; our own lines start with `xtask:` and go to stderr.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// Says what happens next. Every step that takes time or changes something is announced before it runs.
pub fn announce(what: impl Display) {
    eprintln!("xtask: {what}");
}

/// Runs a command to its end; a failure names the step and what to do about it.
pub fn run(command: &mut Command, step: &str, remedy: &str) -> Result<()> {
    let status = command.status().map_err(|error| cannot_start(command, step, remedy, error))?;
    if status.success() {
        return Ok(());
    }
    bail!("{step}: `{}` ended with {status}\n  remedy: {remedy}", shown(command))
}

/// Like [`run`], for what may hang (a download without a network): killed after `limit`.
pub fn run_within(command: &mut Command, limit: Duration, step: &str, remedy: &str) -> Result<()> {
    let mut child = command.spawn().map_err(|error| cannot_start(command, step, remedy, error))?;
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().context("cannot wait for a child process")? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{step}: `{}` ended with {status}\n  remedy: {remedy}", shown(command)),
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            None => {
                child.kill().context("cannot end a child process")?;
                child.wait().context("cannot wait for a child process")?;
                bail!("{step}: `{}` took longer than {} s\n  remedy: {remedy}", shown(command), limit.as_secs())
            }
        }
    }
}

/// What a command prints on stdout; its stderr is shown only when it fails.
pub fn stdout_of(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", shown(command), output.status, stderr.trim())
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed something that is no UTF-8", shown(command)))
}

/// The program's full path, if PATH has it.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    // The owner of /proc/self is the effective user: no libc call, no unsafe.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// What to add to the announcement of a command that [`as_root`] makes.
pub fn root_note() -> &'static str {
    if is_root() { "" } else { ", through sudo, which may ask for your password" }
}

/// A command that runs as root: itself when we are root, through sudo otherwise.
pub fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if on_path("sudo").is_none() {
        bail!("`{}` needs root and there is no sudo\n  remedy: run this as root", program.as_ref().display());
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// The command as a user would type it: the cargo that runs us is just `cargo`.
pub fn shown(command: &Command) -> String {
    let program = command.get_program();
    let is_our_cargo = env::var_os("CARGO").is_some_and(|cargo| cargo == program);
    let program = if is_our_cargo { "cargo".into() } else { program.to_string_lossy() };
    let words = std::iter::once(program).chain(command.get_args().map(|arg| arg.to_string_lossy()));
    words.collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command, step: &str, remedy: &str, error: std::io::Error) -> anyhow::Error {
    anyhow!(error).context(format!("{step}: cannot start `{}` (remedy: {remedy})", shown(command)))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
