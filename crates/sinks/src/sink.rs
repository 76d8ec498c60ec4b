//! What a destination must be able to do, and which destinations there are.

use std::{error::Error, fmt, time::Duration};

use api::{
    condition::Reason,
    sink::{AlertSinkSpec, Destination},
};
use rules::alert::Alert;

use crate::{
    Loss,
    config::{SinkConfig, Target},
    file::File,
    http::{HttpError, Sender},
    slack::Slack,
    stdout::Stdout,
    webhook::Webhook,
    write::WriteError,
};

/// A destination. Lives on a thread of its own, so its calls may block, for ever if need be.
pub trait Sink: Send {
    /// Gets ready before the first alert, so that a mistake in the configuration shows at once. A failure is reported
    /// and otherwise harmless: sending tries again.
    fn prepare(&mut self) -> Result<(), SendError>;

    /// Delivers one alert, whole or not at all.
    fn send(&mut self, alert: &Alert) -> Result<(), SendError>;

    /// Lets go of open files: someone may have moved them.
    fn reopen(&mut self);
}

/// The sink that a configuration asks for.
pub fn build(config: &SinkConfig) -> Box<dyn Sink> {
    match &config.target {
        Target::Stdout(stdout) => Box::new(Stdout::new(*stdout)),
        Target::File(file) => Box::new(File::new(file.clone())),
        Target::Webhook(endpoint) => Box::new(Webhook::new(Sender::new(endpoint.clone(), config.timeout))),
        Target::Slack(endpoint) => Box::new(Slack::new(Sender::new(endpoint.clone(), config.timeout))),
    }
}

/// What kind of destination a sink has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SinkType {
    /// Standard output.
    Stdout,
    /// A file.
    File,
    /// An HTTP receiver.
    Webhook,
    /// A chat.
    Slack,
}

impl SinkType {
    /// Every type, in the order of the documentation.
    pub const ALL: &[Self] = &[Self::Stdout, Self::File, Self::Webhook, Self::Slack];

    /// The name of its field in the spec of a sink, and its metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File => "file",
            Self::Webhook => "webhook",
            Self::Slack => "slack",
        }
    }

    /// The type that a spec names; none when it names none or several.
    pub fn of(spec: &AlertSinkSpec) -> Option<Self> {
        spec.destination().map(|destination| match destination {
            Destination::Stdout(_) => Self::Stdout,
            Destination::File(_) => Self::File,
            Destination::Webhook(_) => Self::Webhook,
            Destination::Slack(_) => Self::Slack,
        })
    }

    /// How it behaves: the text of the generated documentation.
    pub fn doc(self) -> &'static str {
        match self {
            Self::Stdout => crate::stdout::DOC,
            Self::File => crate::file::DOC,
            Self::Webhook => crate::webhook::DOC,
            Self::Slack => crate::slack::DOC,
        }
    }
}

/// Why an alert was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Standard output or a file.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// An HTTP receiver.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Whether another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Yes, after the wait of the retry policy.
    Later,
    /// Yes, after the wait that the receiver asked for.
    After(Duration),
    /// No; the alert is lost under this cause.
    Never(Loss),
}

impl SendError {
    /// Whether another attempt makes sense.
    pub fn again(&self) -> Again {
        match self {
            Self::Write(error) => error.again(),
            Self::Http(error) => error.again(),
        }
    }

    /// The cause under which an alert is counted when no attempt succeeded.
    pub fn exhausted(&self) -> Loss {
        match self {
            Self::Write(_) => Loss::WriteFailed,
            Self::Http(_) => Loss::RetriesExhausted,
        }
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Write(error) => error.remedy(),
            Self::Http(error) => error.remedy(),
        }
    }

    /// The stable word for it, for conditions.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Write(_) => Reason::WriteFailed,
            Self::Http(error) => error.reason(),
        }
    }

    /// Status of the HTTP answer, where there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Write(_) => None,
            Self::Http(error) => error.code(),
        }
    }

    /// What happened and what to do about it, on one line.
    pub fn describe(&self) -> String {
        format!("{}; {}", Chain(self), self.remedy())
    }
}

/// An error and all its causes, on one line.
pub(crate) struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut last = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            // Libraries like to repeat the cause in their own text.
            let text = error.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}
