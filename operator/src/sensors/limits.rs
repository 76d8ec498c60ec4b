//! Cuts what a sensor says to what is of use, before anything remembers it: a sensor that was taken over must not fill
//! the operator's memory, nor the memory of whoever reads its alerts.
//!
//! An honest sensor stays far below these bounds, but for the text of an alert about a very long command line.

use std::collections::HashMap;

use link::proto::{self, from_sensor::Message};

use crate::conditions::cut_in_place as cut;

/// Bytes of a word: a uid, a hash, a priority, a version.
const WORD: usize = 128;
/// Bytes of the name of a rule, pod or image.
const NAME: usize = 512;
/// Bytes of a sentence for people.
const SENTENCE: usize = 4 << 10;
/// Bytes of the output of an alert.
const OUTPUT: usize = 64 << 10;
/// Bytes of the fields of an alert; an alert with more has none.
const FIELDS: usize = 256 << 10;
/// Tags, hooks, kinds of losses.
const WORDS: usize = 64;
/// Rule resources in one message.
const UNITS: usize = 10_000;

/// Cuts a message.
pub fn tame(message: &mut Message) {
    match message {
        Message::Hello(hello) => tame_hello(hello),
        Message::BundleAck(ack) => {
            cut(&mut ack.hash, WORD);
            cut(&mut ack.failure, SENTENCE);
            ack.units.truncate(UNITS);
            for unit in &mut ack.units {
                cut(&mut unit.uid, WORD);
                cut(&mut unit.code, WORD);
                cut(&mut unit.message, SENTENCE);
            }
        }
        Message::Counts(counts) => {
            counts.units.truncate(UNITS);
            for unit in &mut counts.units {
                cut(&mut unit.uid, WORD);
                unit.rules.iter_mut().for_each(|rule| cut(&mut rule.rule, NAME));
            }
        }
        Message::Report(report) => {
            let losses = std::mem::take(&mut report.losses).into_iter().take(WORDS);
            report.losses = losses.map(|(mut kind, lost)| (cutting(&mut kind), lost)).collect::<HashMap<_, _>>();
            report.hooks.truncate(WORDS);
            report.hooks.iter_mut().for_each(|hook| cut(hook, WORD));
            if !report.events_per_second.is_finite() {
                report.events_per_second = 0.0;
            }
        }
        Message::Alerts(alerts) => alerts.alerts.iter_mut().for_each(tame_alert),
    }
}

/// Cuts what a sensor says of itself.
pub fn tame_hello(hello: &mut proto::Hello) {
    let proto::Hello { protocol: _, node, version, kernel, architecture, boot_id, spool: _, bundle, driver, role: _ } =
        hello;
    for word in [node, version, kernel, architecture, boot_id, bundle, driver] {
        cut(word, NAME);
    }
}

fn tame_alert(alert: &mut proto::Alert) {
    for word in [&mut alert.unit, &mut alert.priority, &mut alert.source, &mut alert.bundle, &mut alert.id] {
        cut(word, WORD);
    }
    cut(&mut alert.rule, NAME);
    cut(&mut alert.message, OUTPUT);
    alert.tags.truncate(WORDS);
    alert.tags.iter_mut().for_each(|tag| cut(tag, WORD));
    if alert.output_fields.len() > FIELDS {
        alert.output_fields = String::new();
    }
    if let Some(proto::Object { group, version, resource, namespace, name, uid, exists: _ }) = &mut alert.object {
        for word in [group, version, resource, namespace, name, uid] {
            cut(word, NAME);
        }
    }
    if let Some(proto::Pod { namespace, name, uid, container, container_id, image }) = &mut alert.pod {
        for word in [namespace, name, uid, container, container_id, image] {
            cut(word, NAME);
        }
    }
}

fn cutting(word: &mut String) -> String {
    cut(word, WORD);
    std::mem::take(word)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_an_honest_sensor_says_is_left_as_it_is() {
        let alert = proto::Alert {
            unit: "7c1f6a52-3f0e-4b1e-9a52-0c9a1f1d2b3c".into(),
            rule: "Terminal shell in container".into(),
            priority: "Notice".into(),
            message: "ä".repeat(10_000),
            output_fields: r#"{"proc.name":"sh"}"#.into(),
            tags: vec!["container".into()],
            pod: Some(proto::Pod { name: "x".repeat(253), ..proto::Pod::default() }),
            ..proto::Alert::default()
        };
        let mut message = Message::Alerts(proto::Alerts { first: 1, alerts: vec![alert], lost: 0 });
        let before = message.clone();
        tame(&mut message);
        assert_eq!(message, before);
    }

    #[test]
    fn huge_texts_are_cut_between_characters() {
        let huge = || "ä".repeat(1 << 20);
        let alert = proto::Alert {
            rule: huge(),
            message: huge(),
            output_fields: huge(),
            tags: vec![huge(); 3],
            pod: Some(proto::Pod { namespace: huge(), ..proto::Pod::default() }),
            ..proto::Alert::default()
        };
        let mut message = Message::Alerts(proto::Alerts { first: 1, alerts: vec![alert], lost: 0 });
        tame(&mut message);
        let Message::Alerts(alerts) = message else { unreachable!("it was Alerts") };
        assert!(alerts.encoded_len() < 80 << 10, "{}", alerts.encoded_len());
        let report = proto::NodeReport {
            events_per_second: f64::NAN,
            losses: (0..1000).map(|kind| (format!("{kind}{}", huge()), 1)).take(100).collect(),
            hooks: vec![huge(); 100],
            ..proto::NodeReport::default()
        };
        let mut message = Message::Report(report);
        tame(&mut message);
        let Message::Report(report) = message else { unreachable!("it was Report") };
        assert!(report.encoded_len() < 20 << 10 && report.events_per_second == 0.0);
    }
}
