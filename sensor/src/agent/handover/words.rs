//! What two sensors say to each other: lines of a word and its operands. Pure.
//!
//! A release that knows more words must say a higher version in its hello, and be content when it is refused.

use std::fmt;

/// The version that this release speaks.
pub const VERSION: u32 = 1;

/// Longest line in bytes, its end included.
pub const LINE: u64 = 512;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// New to old: I begin. Its name, which its next start will have, too; empty when it has none.
    Hello(u32, String),
    /// Old to new: so be it. Its name.
    Welcome(String),
    /// Old to new: not to you.
    No,
    /// New to old: I am ready and run the bundle with this hash; empty for none. None: whichever you run.
    Take(Option<String>),
    /// Old to new: I run another bundle.
    Bundle,
    /// Old to new: so many bytes follow, a `PodFacts` of the link: what the operator has said about pods and namespaces.
    Facts(u32),
    /// Old to new: I judge what happens before.
    Until(u64),
    /// New to old: and I what happens from then on.
    Mine,
    /// Old to new: everything is yours.
    Done,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(version, name) => write!(f, "hello {version} {name}"),
            Self::Welcome(name) => write!(f, "welcome {name}"),
            Self::No => f.write_str("no"),
            Self::Take(None) => f.write_str("take *"),
            Self::Take(Some(bundle)) => write!(f, "take {bundle}"),
            Self::Bundle => f.write_str("bundle"),
            Self::Facts(bytes) => write!(f, "facts {bytes}"),
            Self::Until(time) => write!(f, "until {time}"),
            Self::Mine => f.write_str("mine"),
            Self::Done => f.write_str("done"),
        }
    }
}

impl Word {
    /// Reads a line without its end; none when it means nothing.
    pub fn read(line: &str) -> Option<Self> {
        let (word, operands) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "hello" => {
                let (version, name) = operands.split_once(' ')?;
                Self::Hello(version.parse().ok()?, name.to_owned())
            }
            "welcome" => Self::Welcome(operands.to_owned()),
            "no" => Self::No,
            "take" if operands == "*" => Self::Take(None),
            "take" => Self::Take(Some(operands.to_owned())),
            "bundle" => Self::Bundle,
            "facts" => Self::Facts(operands.parse().ok()?),
            "until" => Self::Until(operands.parse().ok()?),
            "mine" => Self::Mine,
            "done" => Self::Done,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let words = [
            Word::Hello(1, "gyrfalcon-sensor-x7k2p".to_owned()),
            Word::Hello(1, String::new()),
            Word::Welcome("gyrfalcon-sensor-b9d4m".to_owned()),
            Word::Welcome(String::new()),
            Word::No,
            Word::Take(None),
            Word::Take(Some("a1".to_owned())),
            Word::Take(Some(String::new())),
            Word::Bundle,
            Word::Facts(u32::MAX),
            Word::Until(u64::MAX),
            Word::Mine,
            Word::Done,
        ];
        for word in words {
            assert_eq!(Word::read(&word.to_string()), Some(word));
        }
    }

    #[test]
    fn nonsense_is_no_word() {
        for line in ["", "hello", "hello x y", "until", "until -1", "until 18446744073709551616", "until 1 2", "MINE"] {
            assert_eq!(Word::read(line), None, "{line}");
        }
    }
}
