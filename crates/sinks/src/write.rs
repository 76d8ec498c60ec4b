//! Lines of alerts on something that takes bytes: standard output and files.
//!
//! A reader of the stream must be able to trust every line. So a line is written in one piece, control characters that
//! come from observed processes are escaped, and after a failure half-way the next line begins on a line of its own.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Write},
    path::PathBuf,
};

use api::sink::Format;
use rules::alert::Alert;

use crate::{Loss, sink::Again};

/// Why an alert was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Standard output cannot be used.
    #[error("cannot use standard output")]
    Stdout {
        /// The system's reason.
        source: io::Error,
    },
    /// The folder of a file cannot be created.
    #[error("cannot create the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be renamed to make place for the next.
    #[error("cannot rename {}", path.display())]
    Rotate {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Bytes were not taken.
    #[error("cannot write to {target}")]
    Write {
        /// The file, or standard output.
        target: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl WriteError {
    /// Whether another attempt makes sense.
    pub fn again(&self) -> Again {
        match self {
            Self::Write { source, .. } if source.kind() == ErrorKind::BrokenPipe => Again::Never(Loss::Closed),
            Self::Stdout { .. }
            | Self::Folder { .. }
            | Self::Open { .. }
            | Self::Rotate { .. }
            | Self::Write { .. } => Again::Later,
        }
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> &'static str {
        let (Self::Stdout { source }
        | Self::Folder { source, .. }
        | Self::Open { source, .. }
        | Self::Rotate { source, .. }
        | Self::Write { source, .. }) = self;
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "make room on the file system; writing resumes by itself"
            }
            ErrorKind::PermissionDenied => "give the sensor's user the right to write there",
            ErrorKind::NotFound => "create the folder above it",
            ErrorKind::ReadOnlyFilesystem => "choose a path on a file system that can be written to",
            ErrorKind::IsADirectory => "choose a path that is not a folder",
            ErrorKind::BrokenPipe => "restart the reader together with the sensor",
            _ => "see the system's reason",
        }
    }
}

/// The line for an alert, with its end.
pub(crate) fn line(alert: &Alert, format: Format) -> String {
    let mut line = match format {
        // A map with text keys and JSON values always has a JSON form.
        Format::Json => serde_json::to_string(alert).unwrap_or_default(),
        Format::Text => printable(&alert.text()),
    };
    line.push('\n');
    line
}

/// Escapes what would end the line early or speak to a terminal.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            // Writing to a string cannot fail.
            let _ = write!(printable, "{}", c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

/// Writes a line after the end of a line. `torn` says, before and after, whether the stream ends within one.
///
/// On failure also tells whether part of the line is in the stream.
pub(crate) fn write_line(out: &mut impl Write, line: &str, torn: &mut bool) -> Result<(), (io::Error, bool)> {
    let text = if *torn { format!("\n{line}") } else { line.to_owned() };
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), rest.len() < text.len())),
            Ok(written) => {
                rest = rest.get(written..).unwrap_or_default();
                *torn = !rest.is_empty();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((error, rest.len() < text.len())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rules::alert::Priority;

    use super::*;
    use crate::testing;

    /// Takes so many bytes, then fails; `usize::MAX` never does.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.1 - self.0.len();
            if room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(room).min(3);
            self.0.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let (mut out, mut torn) = (Full(Vec::new(), 5), false);
        assert!(write_line(&mut out, "a\n", &mut torn).is_ok());
        let failure = write_line(&mut out, "second\n", &mut torn);
        assert!(matches!(failure, Err((_, true))) && torn);
        out.1 = usize::MAX;
        assert!(write_line(&mut out, "third\n", &mut torn).is_ok());
        assert_eq!((out.0.as_slice(), torn), (b"a\nsec\nthird\n".as_slice(), false));
    }

    #[test]
    fn processes_cannot_forge_lines() {
        let mut alert = testing::alert("x", Priority::Notice, &[]);
        alert.message = "one\ntwo\x1b[2J\u{2028}é".into();
        let text = line(&alert, Format::Text);
        assert!(text.ends_with("Notice one\\ntwo\\u{1b}[2J\\u{2028}é\n"), "{text}");
        assert_eq!(line(&alert, Format::Json).matches('\n').count(), 1);
    }
}
