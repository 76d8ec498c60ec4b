//! Alerts on standard output, one a line.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

use api::sink::{Format, StdoutSink};
use rules::alert::Alert;

use crate::{
    SendError, Sink,
    write::{WriteError, line, write_line},
};

pub(crate) const DOC: &str = "Each alert is one line on the standard output of the sensor, in a cluster of the operator, as Falco's text or JSON. Control \
    characters in a text line are escaped. When nobody reads the other end any more, alerts are counted as `closed` \
    and it goes on.";

/// How alerts are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StdoutConfig {
    /// Text or JSON.
    pub format: Format,
}

impl StdoutConfig {
    /// The configuration that a spec describes, with its defaults.
    pub fn new(spec: &StdoutSink) -> Self {
        Self { format: spec.format.unwrap_or(Format::Text) }
    }
}

/// Whether standard output ends within a line. All sinks that write there take turns here, line by line.
static TORN: Mutex<bool> = Mutex::new(false);

/// Standard output.
#[derive(Debug)]
pub(crate) struct Stdout {
    config: StdoutConfig,
    out: Option<File>,
}

impl Stdout {
    pub fn new(config: StdoutConfig) -> Self {
        Self { config, out: None }
    }

    /// The file behind standard output. The buffer that std keeps in front of it would hold back the rest of a line
    /// after a failure and write it later, into the middle of something else.
    fn out(&mut self) -> Result<&mut File, WriteError> {
        match &mut self.out {
            Some(out) => Ok(out),
            none => {
                let owned =
                    io::stdout().as_fd().try_clone_to_owned().map_err(|source| WriteError::Stdout { source })?;
                Ok(none.insert(File::from(owned)))
            }
        }
    }
}

impl Sink for Stdout {
    fn prepare(&mut self) -> Result<(), SendError> {
        self.out()?;
        Ok(())
    }

    fn send(&mut self, alert: &Alert) -> Result<(), SendError> {
        let line = line(alert, self.config.format);
        let out = self.out()?;
        let mut torn = TORN.lock().unwrap_or_else(PoisonError::into_inner);
        write_line(out, &line, &mut torn)
            .map_err(|(source, _)| WriteError::Write { target: "standard output".into(), source }.into())
    }

    fn reopen(&mut self) {}
}
