//! Programs that are run to their end, and what they printed.

use std::fmt;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a program printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
    /// The command, for messages.
    shown: String,
}

impl Output {
    /// Its standard output, if it ended well.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("{self}");
        }
        Ok(self.stdout)
    }

    /// Its standard output as JSON, if it ended well.
    pub fn json(self) -> Result<Value> {
        let shown = self.shown.clone();
        serde_json::from_str(&self.success()?).with_context(|| format!("`{shown}` printed no JSON"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.shown, self.status)?;
        let said = [self.stdout.trim(), self.stderr.trim()];
        said.iter().filter(|text| !text.is_empty()).try_for_each(|text| write!(f, "\n{text}"))
    }
}

/// Runs a command to its end, with this on its standard input.
pub fn run(command: &mut Command, stdin: Option<&str>) -> Result<Output> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or(&program).to_owned();
    let shown = std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ");
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start `{shown}`"))?;
    let pipe = child.stdin.take();
    let output = thread::scope(|scope| {
        if let (Some(mut pipe), Some(text)) = (pipe, stdin) {
            // A program that does not read to the end says why on its standard error.
            scope.spawn(move || pipe.write_all(text.as_bytes()));
        }
        child.wait_with_output()
    });
    let output = output.with_context(|| format!("cannot wait for `{shown}`"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Output { stdout: text(output.stdout), stderr: text(output.stderr), status: output.status, shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_command_and_what_it_said() -> Result<()> {
        let output = run(Command::new("/bin/sh").args(["-c", "cat; echo no >&2; exit 3"]), Some("in"))?;
        assert_eq!(output.stdout, "in");
        let error = output.success().map_err(|error| error.to_string());
        assert_eq!(error, Err("`sh -c cat; echo no >&2; exit 3` ended with exit status: 3\nin\nno".to_owned()));
        Ok(())
    }
}
