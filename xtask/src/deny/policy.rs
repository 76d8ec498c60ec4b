//! Those parts of deny.toml that our own check knows. A key that it does not know is an error, not ignored: the file
//! would promise more than is checked.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

/// What is said about something that is not on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing.
    Allow,
    /// A warning.
    Warn,
    /// An error.
    Deny,
}

/// What deny.toml allows.
#[derive(Debug)]
pub struct Policy {
    /// Systems that we build for.
    pub targets: Vec<String>,
    /// Several versions of one crate.
    pub duplicates: Severity,
    /// Registries other than crates.io.
    pub registries: Severity,
    /// Git repositories.
    pub git: Severity,
    licences: Vec<String>,
    exceptions: Vec<(String, Vec<String>)>,
}

const KNOWN: [(&str, &[&str]); 4] = [
    ("graph", &["targets"]),
    ("licenses", &["allow", "exceptions"]),
    ("bans", &["multiple-versions"]),
    ("sources", &["unknown-registry", "unknown-git"]),
];

impl Policy {
    /// Reads deny.toml.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Reads its text.
    pub fn parse(text: &str) -> Result<Self> {
        let all: Table = text.parse().context("this is no TOML")?;
        refuse_unknown(&all)?;
        let value = |section: &str, key: &str| all.get(section).and_then(|section| section.get(key));
        Ok(Self {
            targets: strings(value("graph", "targets"))?,
            duplicates: severity(value("bans", "multiple-versions"))?,
            registries: severity(value("sources", "unknown-registry"))?,
            git: severity(value("sources", "unknown-git"))?,
            licences: strings(value("licenses", "allow"))?,
            exceptions: exceptions(value("licenses", "exceptions"))?,
        })
    }

    /// The licences that a crate may have.
    pub fn licences_for(&self, name: &str) -> Vec<&str> {
        let exceptions = self.exceptions.iter().filter(|(excepted, _)| excepted == name).flat_map(|(_, allow)| allow);
        self.licences.iter().chain(exceptions).map(String::as_str).collect()
    }
}

fn refuse_unknown(all: &Table) -> Result<()> {
    for (section, keys) in all {
        let known = KNOWN.iter().find(|(name, _)| name == section).map(|(_, keys)| *keys);
        let unknown = match known {
            None => Some(format!("[{section}]")),
            Some(known) => {
                let mut keys = keys.as_table().into_iter().flat_map(Table::keys);
                keys.find(|key| !known.contains(&key.as_str())).map(|key| format!("{key} in [{section}]"))
            }
        };
        if let Some(unknown) = unknown {
            bail!("our own check does not know {unknown}\n  remedy: teach xtask/src/deny.rs, or install cargo-deny");
        }
    }
    Ok(())
}

/// cargo-deny's own default is a warning.
fn severity(value: Option<&Value>) -> Result<Severity> {
    match value.map(Value::as_str) {
        None | Some(Some("warn")) => Ok(Severity::Warn),
        Some(Some("allow")) => Ok(Severity::Allow),
        Some(Some("deny")) => Ok(Severity::Deny),
        Some(_) => bail!("a severity is one of allow, warn, deny"),
    }
}

fn strings(value: Option<&Value>) -> Result<Vec<String>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().context("a list is expected")?;
    list.iter().map(|one| one.as_str().map(str::to_owned).context("a list of strings is expected")).collect()
}

fn exceptions(value: Option<&Value>) -> Result<Vec<(String, Vec<String>)>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().context("exceptions are a list")?;
    list.iter()
        .map(|one| {
            let name = one.get("crate").and_then(Value::as_str).context("an exception names its crate")?;
            Ok((name.to_owned(), strings(one.get("allow"))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_understood() -> Result<()> {
        let policy = Policy::read(&crate::checkout::root().join("deny.toml"))?;
        assert!(policy.licences_for("any").contains(&"MIT"));
        assert_eq!((policy.git, policy.registries), (Severity::Deny, Severity::Deny));
        Ok(())
    }

    #[test]
    fn a_key_that_is_not_checked_is_an_error() {
        assert!(Policy::parse("[advisories]\n").is_err());
        assert!(Policy::parse("[bans]\nwildcards = \"deny\"\n").is_err());
    }
}
