//! Exit codes: DESIGN.md's promise to scripts.

use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything went well.
    Fine,
    /// The user's input is wrong: a rule, a manifest, a flag.
    Input,
    /// The system refused: no rights, no BTF, a full disk.
    System,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => Self::SUCCESS,
            Exit::Input => Self::from(1),
            Exit::System => Self::from(2),
        }
    }
}
