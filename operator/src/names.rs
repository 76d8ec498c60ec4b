//! Names of the objects that the operator keeps in its own namespace, and by which it is known to others.

pub use api::labels::FIELD_MANAGER;

/// Secret with the certificates and their keys.
pub const TLS_SECRET: &str = "gyrfalcon-tls";
/// Key of the Secret.
pub const TLS_KEY: &str = "certificates.json";
/// ConfigMap with the certificates that sensors trust.
pub const CA_CONFIG_MAP: &str = "gyrfalcon-ca";
/// Key of that ConfigMap.
pub const CA_KEY: &str = "ca.crt";
/// ConfigMaps with the bundle that was accepted last.
pub const BUNDLE_CONFIG_MAP: &str = "gyrfalcon-bundle";
