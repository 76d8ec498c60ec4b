//! The bundle: everything that sensors run, in load order, as bytes that are named by their hash.

use api::{
    Kind, ResourceId,
    config::{LogLevel, Outputs, RuleMatching, SensorConfigSpec},
    rule::FalcoRuleSpec,
    scalar::Priority,
};
use rules::load::{self, Options};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::outputs::appended;

/// Everything that sensors run. Equal bundles have equal bytes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bundle {
    /// What holds for all rules.
    pub settings: Settings,
    /// The rule resources, in load order.
    pub units: Vec<Unit>,
    /// Resources that this program cannot read, as they come from a newer one. Only a bundle that was read has some,
    /// and it does not write them again.
    pub unreadable: Vec<Unreadable>,
}

/// One rule resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// `FalcoRule` or `ClusterFalcoRule`.
    #[serde(serialize_with = "write_kind", deserialize_with = "read_kind")]
    pub kind: Kind,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a resource that was deleted and made again is another one.
    pub uid: String,
    /// The generation that `spec` is.
    pub generation: i64,
    /// What is wanted. The text of a ConfigMap is in `rules`; tests and rollout are left out.
    pub spec: FalcoRuleSpec,
    /// When only some nodes run it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Staged>,
}

/// A unit that only some nodes run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Staged {
    /// Share of the nodes that run `spec`: see [`NodeFacts::is_within`](crate::NodeFacts::is_within).
    pub percent: u8,
    /// The generation that the other nodes run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_generation: Option<i64>,
    /// What the other nodes run; nothing when the resource is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<FalcoRuleSpec>>,
}

/// A unit that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What it is of, as far as that can be read.
    pub id: Option<ResourceId>,
    /// Its uid; empty when that cannot be read.
    pub uid: String,
    /// Its generation; 0 when that cannot be read.
    pub generation: i64,
    /// Why, in one sentence.
    pub message: String,
}

/// What holds for all rules of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Which rules get an event.
    pub rule_matching: RuleMatching,
    /// Rules less serious than this are left out.
    pub minimum_priority: Priority,
    /// What is added to alerts.
    pub outputs: Outputs,
    /// How much the sensors log, when the cluster says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&SensorConfigSpec::default())
    }
}

impl Settings {
    /// The settings of a SensorConfig.
    pub fn of(config: &SensorConfigSpec) -> Self {
        Self {
            rule_matching: config.rule_matching(),
            minimum_priority: config.minimum_priority(),
            outputs: config.outputs(),
            log_level: config.log_level,
        }
    }

    /// Options of the rule loader: those of `base` with the settings put in, as far as they are right.
    pub fn options(&self, base: &Options) -> Options {
        Options {
            rule_matching: match self.rule_matching {
                RuleMatching::First => load::RuleMatching::First,
                RuleMatching::All => load::RuleMatching::All,
            },
            minimum_priority: priority(self.minimum_priority),
            append_output: appended(&self.outputs).0,
            ..base.clone()
        }
    }
}

/// The rule loader's word for a priority.
pub fn priority(priority: Priority) -> rules::alert::Priority {
    rules::alert::Priority::parse(priority.name()).unwrap_or(rules::alert::Priority::Debug)
}

impl Unit {
    /// What it is of.
    pub fn id(&self) -> ResourceId {
        ResourceId { kind: self.kind, namespace: self.namespace.as_str().into(), name: self.name.as_str().into() }
    }
}

/// Why bytes are no bundle for us.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More bytes than any operator sends.
    #[error("the bundle has {bytes} bytes; at most {} are read", Bundle::MAX_BYTES)]
    TooLarge {
        /// How many there are.
        bytes: usize,
    },
    /// They were changed on the way, or on the disk.
    #[error("the bundle's hash is {found}, not {wanted}")]
    Hash {
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The operator speaks a newer form of the format.
    #[error("the bundle has format {found}; this program reads format {}", Bundle::FORMAT)]
    Format {
        /// What it has.
        found: u64,
    },
    /// They are no JSON, or lack what a bundle has.
    #[error("the bundle cannot be read")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u64,
    settings: Settings,
    units: Vec<Value>,
}

impl Bundle {
    /// The version of the format. It changes when a sensor that does not know it must not guess.
    pub const FORMAT: u64 = 1;
    /// Largest bundle that is read, in bytes.
    pub const MAX_BYTES: usize = 64 << 20;

    /// The bytes: JSON without blanks, with sorted keys.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let units = self.units.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        let document = Document { format: Self::FORMAT, settings: self.settings.clone(), units };
        let mut bytes = Vec::new();
        canonical(&serde_json::to_value(document)?, &mut bytes)?;
        Ok(bytes)
    }

    /// Name of the bytes: SHA-256 in lower-case hexadecimal.
    pub fn hash(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads bytes that must have this hash.
    pub fn read(bytes: &[u8], hash: &str) -> Result<Self, ReadError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(ReadError::TooLarge { bytes: bytes.len() });
        }
        let found = Self::hash(bytes);
        if found != hash {
            return Err(ReadError::Hash { wanted: hash.chars().take(64).collect(), found });
        }
        let whole: Value = serde_json::from_slice(bytes)?;
        let format = whole.get("format").and_then(Value::as_u64).unwrap_or_default();
        if format != Self::FORMAT {
            return Err(ReadError::Format { found: format });
        }
        let document: Document = serde_json::from_value(whole)?;
        let mut bundle = Self { settings: document.settings, ..Self::default() };
        for value in document.units {
            match read_unit(&value) {
                Ok(unit) => bundle.units.push(unit),
                Err(message) => bundle.unreadable.push(unreadable(&value, message)),
            }
        }
        Ok(bundle)
    }
}

/// A unit whose every field we know: an unknown one may be what keeps rules from seeing too much.
fn read_unit(value: &Value) -> Result<Unit, String> {
    let unit: Unit = Unit::deserialize(value).map_err(|error| format!("the resource cannot be read: {error}"))?;
    match serde_json::to_value(&unit) {
        Ok(known) if known == *value => Ok(unit),
        _ => Err("the resource has fields that this sensor does not know; update the sensor".to_owned()),
    }
}

fn unreadable(value: &Value, message: String) -> Unreadable {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = kind_of(text("kind"));
    Unreadable {
        id: kind.map(|kind| ResourceId { kind, namespace: text("namespace").into(), name: text("name").into() }),
        uid: text("uid").to_owned(),
        generation: value.get("generation").and_then(Value::as_i64).unwrap_or_default(),
        message,
    }
}

/// A hash as people see it: `sha256:` and 12 characters.
pub fn short_hash(hash: &str) -> String {
    format!("sha256:{}", hash.chars().take(12).collect::<String>())
}

/// Writes JSON without blanks and with sorted keys, whatever order the value has them in.
fn canonical(value: &Value, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (at, (key, value)) in fields.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key)?;
                out.push(b':');
                canonical(value, out)?;
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                canonical(item, out)?;
            }
            out.push(b']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => serde_json::to_writer(&mut *out, value)?,
    }
    Ok(())
}

fn write_kind<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

fn read_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    let name = String::deserialize(deserializer)?;
    kind_of(&name).ok_or_else(|| de::Error::custom(format!("no kind of rules `{name}`")))
}

fn kind_of(name: &str) -> Option<Kind> {
    [Kind::FalcoRule, Kind::ClusterFalcoRule].into_iter().find(|kind| kind.name() == name)
}
