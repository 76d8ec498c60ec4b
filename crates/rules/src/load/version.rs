//! What rules require: an engine of some version, plugins of some version.

use super::{Report, read::PluginRequirement};
use crate::{
    diagnostic::{Code, ItemKind},
    source::Text,
};

/// `major.minor.patch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64, pub u64, pub u64);

/// The version of Falco's engine whose language this is.
pub const ENGINE: Version = Version(0, 63, 0);

/// The plugins whose fields and sources are built in, in the version whose behaviour they have.
pub const PLUGINS: &[(&str, Version)] = &[
    ("container", Version(0, 7, 0)),
    ("json", Version(0, 7, 3)),
    ("k8saudit", Version(0, 18, 0)),
    ("k8smeta", Version(0, 4, 1)),
];

impl Version {
    /// Reads `1.2.3`; what follows a `-` or `+` is ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['-', '+']).next()?.split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }

    /// Whether this version does for those who ask for `wanted`: same major version, not older.
    pub fn satisfies(self, wanted: Self) -> bool {
        self.0 == wanted.0 && self >= wanted
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// `required_engine_version`: a number is the minor version of the years when there was nothing else.
pub(super) fn check_engine(wanted: &Text, report: &mut Report<'_>) {
    let text = wanted.as_str();
    let version = text.parse().ok().map(|minor| Version(0, minor, 0)).or_else(|| Version::parse(text));
    let item = |d: crate::diagnostic::Diagnostic| d.item(ItemKind::EngineVersion, text);
    match version {
        None => {
            let message = format!("Unable to parse engine version '{text}' as a semver string");
            report.add(Code::InvalidVersion, wanted.whole(), message, item);
        }
        Some(version) if !ENGINE.satisfies(version) => {
            let message = format!("Rules require engine version {version}, but engine version is {ENGINE}");
            report.add(Code::EngineTooOld, wanted.whole(), message, item);
        }
        Some(_) => {}
    }
}

/// `required_plugin_versions`: one of the alternatives must be there.
pub(super) fn check_plugins(requirement: &PluginRequirement, report: &mut Report<'_>) {
    let mut satisfied = false;
    for (name, wanted) in &requirement.any_of {
        let Some(version) = Version::parse(wanted.as_str()) else {
            let message = format!("Unable to parse plugin version '{}' as a semver string", wanted.as_str());
            report.add(Code::InvalidVersion, wanted.whole(), message, |d| {
                d.item(ItemKind::PluginVersions, name.as_str())
            });
            return;
        };
        satisfied |= PLUGINS.iter().any(|(known, have)| *known == name.as_str() && have.satisfies(version));
    }
    if let (false, Some((name, wanted))) = (satisfied, requirement.any_of.first()) {
        let message =
            format!("Plugin '{}' of version {} or a newer compatible one is required", name.as_str(), wanted.as_str());
        let have: Vec<_> = PLUGINS.iter().map(|(name, version)| format!("{name} {version}")).collect();
        report.add(Code::PluginMissing, name.whole(), message, |d| {
            d.help(format!("built in are {}", have.join(", "))).item(ItemKind::PluginVersions, name.as_str())
        });
    }
}
