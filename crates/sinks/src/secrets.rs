//! Credentials on their way from whoever may read them into a configuration.
//!
//! This crate reads no Secret; it is told what they contain. Their values are never printed.

use std::{collections::BTreeMap, fmt};

use api::secret::{ConfigMapKeyRef, SecretKeyRef};

/// A value that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// A value without the line end that `echo` and editors leave behind it.
    pub fn new(value: &str) -> Self {
        Self(value.trim_end_matches(['\n', '\r']).into())
    }

    /// The value, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the Secrets and ConfigMaps contain that a spec names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Keys of Secrets.
    pub secrets: BTreeMap<SecretKeyRef, Secret>,
    /// Keys of ConfigMaps.
    pub config_maps: BTreeMap<ConfigMapKeyRef, String>,
}

/// A field names a key whose value is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: no key `{key}` of `{name}`")]
pub struct Missing {
    /// The field that names it.
    pub field: &'static str,
    /// Name of the object.
    pub name: String,
    /// Key in it.
    pub key: String,
}

impl Secrets {
    pub(crate) fn secret(&self, field: &'static str, key: &SecretKeyRef) -> Result<&Secret, Missing> {
        self.secrets.get(key).ok_or_else(|| Missing { field, name: key.name.clone(), key: key.key.clone() })
    }

    pub(crate) fn config_map(&self, field: &'static str, key: &ConfigMapKeyRef) -> Result<&str, Missing> {
        let missing = || Missing { field, name: key.name.clone(), key: key.key.clone() };
        self.config_maps.get(key).map(String::as_str).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_printed_and_have_no_line_end() {
        let secret = Secret::new("hunter2\n");
        assert_eq!((secret.reveal(), format!("{secret:?}").contains("hunter2")), ("hunter2", false));
    }
}
