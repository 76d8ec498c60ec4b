//! Prints an error with everything that caused it, once, at the edge of either program.

use std::{error::Error, fmt};

/// Displays an error and its causes on one line.
pub struct Chain<'a>(&'a dyn Error);

/// See [`Chain`].
pub fn chain(error: &dyn Error) -> Chain<'_> {
    Chain(error)
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            next = cause.source();
            let text = cause.to_string();
            // Some libraries repeat the cause in their own text.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
        }
        Ok(())
    }
}
