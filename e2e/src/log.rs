//! Logs of the programs: one file each, whose end is shown when something fails.

use std::fs;
use std::path::Path;

/// Enough to find the cause in; the programs are talkative.
const LINES: usize = 30;

/// The last lines of a log, headed by its name.
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    format!("--- the end of {}\n{end}\n---", log.display())
}
