//! Writes the answer of a command to standard output.

use std::io::{ErrorKind, Write};

use tracing::error;

use crate::exit::Exit;

/// Prints a text whole. A reader that has seen enough (`gyrfalcon fields | head`) is no error.
pub fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Fine,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Fine,
        Err(error) => {
            error!(error = %error, "cannot write to standard output");
            Exit::System
        }
    }
}
