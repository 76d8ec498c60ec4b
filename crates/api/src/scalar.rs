//! Scalars of the specs that are more than a string: priorities, durations, sizes.
//!
//! Each is parsed once, when the resource is read; after that no text of them is left to be wrong.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How serious a rule's author finds a match, in Falco's words and order: smaller is more serious.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// System is unusable.
    Emergency,
    /// Act now.
    Alert,
    /// Critical condition.
    Critical,
    /// Error condition.
    Error,
    /// Warning condition.
    Warning,
    /// Normal but significant.
    Notice,
    /// For information.
    Informational,
    /// For debugging rules.
    Debug,
}

impl Priority {
    const NAMES: [(&str, Self); 9] = [
        ("Emergency", Self::Emergency),
        ("Alert", Self::Alert),
        ("Critical", Self::Critical),
        ("Error", Self::Error),
        ("Warning", Self::Warning),
        ("Notice", Self::Notice),
        ("Informational", Self::Informational),
        ("Debug", Self::Debug),
        ("Info", Self::Informational),
    ];

    /// The spelling of Falco's output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emergency => "Emergency",
            Self::Alert => "Alert",
            Self::Critical => "Critical",
            Self::Error => "Error",
            Self::Warning => "Warning",
            Self::Notice => "Notice",
            Self::Informational => "Informational",
            Self::Debug => "Debug",
        }
    }
}

/// A scalar of a spec that does not mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// Not one of Falco's priorities.
    #[error("no priority `{0}`; one of Emergency, Alert, Critical, Error, Warning, Notice, Informational, Debug")]
    Priority(String),
    /// Not a duration.
    #[error("`{0}` is not a duration; write 500ms, 10s, 5m or 1h30m")]
    Duration(String),
    /// Not a size.
    #[error("`{0}` is not a size; write 1048576, 512Ki, 100Mi or 1Gi")]
    Size(String),
}

impl FromStr for Priority {
    type Err = ScalarError;

    /// Any case; `INFO` is `INFORMATIONAL`.
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        Self::NAMES
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, priority)| priority)
            .ok_or_else(|| ScalarError::Priority(text.into()))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A length of time such as `500ms` or `1h30m`, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    /// The length.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let wrong = || ScalarError::Duration(text.into());
        let mut rest = text;
        let mut total_ms = 0_u64;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let units = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(units);
            let ms_per_unit = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(wrong()),
            };
            let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(ms_per_unit)).ok_or_else(wrong)?;
            total_ms = total_ms.checked_add(ms).ok_or_else(wrong)?;
            rest = tail;
        }
        if text.is_empty() {
            return Err(wrong());
        }
        Ok(Self(Duration::from_millis(total_ms)))
    }
}

impl fmt::Display for Span {
    /// The shortest spelling that reads back as the same length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, ms_per_unit) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if ms >= ms_per_unit {
                write!(f, "{}{unit}", ms / ms_per_unit)?;
                ms %= ms_per_unit;
            }
        }
        Ok(())
    }
}

/// A number of bytes such as `100Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = ScalarError;

    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "" => 0,
            "Ki" => 10,
            "Mi" => 20,
            "Gi" => 30,
            _ => return Err(ScalarError::Size(text.into())),
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
        bytes.map(Self).ok_or_else(|| ScalarError::Size(text.into()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
        match units.into_iter().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Text in the resource, a value in the program.
macro_rules! text_form {
    ($type:ident, $schema:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_form!(Priority, {
    "type": "string",
    "maxLength": 16,
    "pattern": "^(?i)(emergency|alert|critical|error|warning|notice|informational|info|debug)$",
});
text_form!(Span, { "type": "string", "maxLength": 32, "pattern": "^([0-9]{1,9}(ms|s|m|h))+$" });
text_form!(Size, { "type": "string", "maxLength": 16, "pattern": "^([0-9]{1,12}|[0-9]{1,9}(Ki|Mi|Gi))$" });

/// A whole number or a text: a value of a Falco list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A number.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl JsonSchema for Scalar {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text or a whole number.",
            "x-kubernetes-int-or-string": true,
            "maxLength": 1024,
        })
    }
}

/// A value of an exception: a scalar, or a list of them for comparisons such as `in`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// One value.
    One(Scalar),
    /// Several values.
    Many(Vec<Scalar>),
    /// Anything else is a mistake, which [`crate::check`] reports. The API server has no words to refuse it with, and
    /// one resource that cannot be read would keep us from reading any.
    Other(serde_json::Value),
}

impl Cell {
    /// What to say about [`Cell::Other`].
    pub(crate) const WANTED: &str = "this must be a text, a whole number, or a list of them";
}

impl JsonSchema for Cell {
    fn schema_name() -> Cow<'static, str> {
        "Cell".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// A structural schema has no "text or list": the API server keeps what it finds, reading the rule checks it.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, a whole number, or a list of them for comparisons such as `in`.",
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}

/// The value of a field in a test: a text, a whole number, true or false, or a list of those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// True or false.
    Bool(bool),
    /// A number.
    Number(i64),
    /// A text, in the form that the field has in alerts.
    Text(String),
    /// Several values, for fields that have several.
    List(Vec<FieldItem>),
    /// Anything else is a mistake, which [`crate::check`] reports: as with [`Cell::Other`].
    Other(serde_json::Value),
}

/// One of several values of a field in a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldItem {
    /// True or false.
    Bool(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl fmt::Display for FieldItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

impl FieldValue {
    /// What to say about [`FieldValue::Other`].
    pub(crate) const WANTED: &str = "this must be a text, a whole number, true or false, or a list of those";
}

impl JsonSchema for FieldValue {
    fn schema_name() -> Cow<'static, str> {
        "FieldValue".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// A structural schema has no "text, number or bool": the API server keeps what it finds, reading checks it.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, a whole number, true or false, or a list of those.",
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(ToString::to_string).collect();
                write!(f, "({})", items.join(", "))
            }
            Self::Other(value) => value.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_and_print_shortest() {
        for (text, ms, printed) in
            [("500ms", 500, "500ms"), ("90s", 90_000, "1m30s"), ("1h30m", 5_400_000, "1h30m"), ("0s", 0, "0s")]
        {
            let span: Span = text.parse().expect("a duration");
            assert_eq!((span.duration().as_millis(), span.to_string().as_str()), (ms, printed));
        }
    }

    #[test]
    fn durations_without_unit_or_number_are_refused() {
        for text in ["", "10", "s", "1d", "-1s", "1.5s", "1 s", "99999999999999999999h", "9999999999999999999h"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, bytes) in [("0", 0), ("1048576", 1 << 20), ("100Mi", 100 << 20), ("1Gi", 1 << 30)] {
            assert_eq!(text.parse::<Size>().map(Size::bytes), Ok(bytes));
        }
        assert_eq!(Size(3 << 20).to_string(), "3Mi");
        for text in ["", "Mi", "1M", "1.5Gi", "99999999999999999Gi"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn priorities_read_in_any_case() {
        assert_eq!("WARNING".parse(), Ok(Priority::Warning));
        assert_eq!("info".parse(), Ok(Priority::Informational));
        assert!("fatal".parse::<Priority>().is_err());
    }

    /// What the API server lets through must be readable: one resource that isn't would hide all others.
    #[test]
    fn the_largest_values_that_fit_the_schemas_are_read() {
        let schema = |schema: Schema, text: &str| {
            let pattern = schema.get("pattern").and_then(|pattern| pattern.as_str()).expect("a pattern").to_owned();
            assert!(regex::Regex::new(&pattern).expect("a pattern").is_match(text), "{text} does not fit {pattern}");
        };
        let generator = &mut SchemaGenerator::default();
        for text in ["999999999999", "999999999Gi"] {
            schema(Size::json_schema(generator), text);
            assert!(text.parse::<Size>().is_ok(), "{text}");
        }
        let text = "999999999h".repeat(3);
        schema(Span::json_schema(generator), &text);
        assert!(text.parse::<Span>().is_ok(), "{text}");
    }

    #[test]
    fn cells_and_field_values_read_whatever_the_api_server_keeps() {
        let read = |json: &str| serde_json::from_str::<Cell>(json).expect("a cell");
        assert_eq!(read("[1, \"a\"]"), Cell::Many(vec![Scalar::Number(1), Scalar::Text("a".into())]));
        for json in ["{}", "[[1]]", "true", "1.5", "null", "[null]"] {
            assert!(matches!(read(json), Cell::Other(_)), "{json}");
        }
        let read = |json: &str| serde_json::from_str::<FieldValue>(json).expect("a value");
        assert_eq!(read("true"), FieldValue::Bool(true));
        assert_eq!(read("[1, \"a\"]"), FieldValue::List(vec![FieldItem::Number(1), FieldItem::Text("a".into())]));
        for json in ["{}", "[[1]]", "[1.5]", "1.5", "null"] {
            assert!(matches!(read(json), FieldValue::Other(_)), "{json}");
        }
    }
}
