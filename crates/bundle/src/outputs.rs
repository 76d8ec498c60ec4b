//! What a SensorConfig adds to alerts, without its mistakes: a field that does not exist must not keep every rule of the
//! cluster from loading.

use api::config::{AppendOutput, Outputs};
use event::fields::EventSource;
use rules::{
    filter::names::Catalogue,
    load::{self, ExtraField},
    output::Template,
};

/// A part of the outputs that no alert can have. It is left out, the rest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputMistake {
    /// The field of the resource, for example `spec.outputs.appendFields[0]`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// What can be added to alerts, in order, and what cannot.
///
/// Rules for other events have other fields: what names no source is added where its fields exist.
pub fn appended(outputs: &Outputs) -> (Vec<load::AppendOutput>, Vec<OutputMistake>) {
    let (mut made, mut mistakes) = (Vec::new(), Vec::new());
    if outputs.suggested_output() {
        made.push(load::AppendOutput::suggested());
    }
    for (at, name) in outputs.append_fields.iter().enumerate() {
        let path = format!("spec.outputs.appendFields[{at}]");
        let sources = sources(&format!("%{name}"), None, path, &mut mistakes);
        let fields = || vec![ExtraField::Field(name.clone())];
        let one = |source| load::AppendOutput { source, extra_fields: fields(), ..load::AppendOutput::default() };
        made.extend(sources.into_iter().map(one));
    }
    for (at, append) in outputs.append_output.iter().enumerate() {
        one(append, &format!("spec.outputs.appendOutput[{at}]"), &mut made, &mut mistakes);
    }
    (made, mistakes)
}

fn one(append: &AppendOutput, path: &str, made: &mut Vec<load::AppendOutput>, mistakes: &mut Vec<OutputMistake>) {
    let matching = append.match_.clone().unwrap_or_default();
    let asked = matching.source.as_deref();
    if asked.is_some_and(|asked| EventSource::by_name(asked).is_none()) {
        let known = EventSource::ALL.map(EventSource::name).join(" or ");
        let message = format!("there is no such source of events; write {known}");
        return mistakes.push(OutputMistake { path: format!("{path}.match.source"), message });
    }
    let base = |source| load::AppendOutput {
        source,
        tags: matching.tags.clone(),
        rule: matching.rule.clone(),
        ..load::AppendOutput::default()
    };
    if let Some(text) = &append.extra_output {
        let sources = sources(text, asked, format!("{path}.extraOutput"), mistakes);
        made.extend(sources.into_iter().map(|s| load::AppendOutput { extra_output: Some(text.clone()), ..base(s) }));
    }
    for (at, name) in append.extra_fields.iter().enumerate() {
        let sources = sources(&format!("%{name}"), asked, format!("{path}.extraFields[{at}]"), mistakes);
        let fields = || vec![ExtraField::Field(name.clone())];
        made.extend(sources.into_iter().map(|s| load::AppendOutput { extra_fields: fields(), ..base(s) }));
    }
}

/// The sources whose events have every field of a text; one `None` stands for all of them.
fn sources(text: &str, asked: Option<&str>, path: String, mistakes: &mut Vec<OutputMistake>) -> Vec<Option<String>> {
    let (mut good, mut first) = (Vec::new(), None);
    let all: Vec<_> =
        EventSource::ALL.into_iter().filter(|source| asked.is_none_or(|asked| asked == source.name())).collect();
    for source in &all {
        match Template::parse(text, Catalogue { source: *source, ..Catalogue::default() }) {
            Ok(_) => good.push(Some(source.name().to_owned())),
            Err(errors) => first = first.or(errors.into_iter().next()),
        }
    }
    match (good.len(), first) {
        (0, Some(error)) => {
            let help = error.finding.help.map(|help| format!("; {help}")).unwrap_or_default();
            mistakes.push(OutputMistake { path, message: format!("{}{help}", error.finding.message) });
        }
        (found, _) if found == all.len() && asked.is_none() => return vec![None],
        (_, _) => {}
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(value: serde_json::Value) -> Outputs {
        serde_json::from_value(value).expect("outputs")
    }

    #[test]
    fn what_has_mistakes_is_left_out_and_the_rest_holds() {
        let (made, mistakes) = appended(&outputs(serde_json::json!({
            "suggestedOutput": false,
            "appendFields": ["proc.exepath", "proc.nme"],
            "appendOutput": [
                {"extraOutput": "at %evt.time", "extraFields": ["user.uid", "bad"]},
                {"match": {"source": "syscal"}, "extraOutput": "x"},
                {"match": {"source": "k8s_audit"}, "extraFields": ["proc.name"]},
            ],
        })));
        let places: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(
            places,
            [
                "spec.outputs.appendFields[1]",
                "spec.outputs.appendOutput[0].extraFields[1]",
                "spec.outputs.appendOutput[1].match.source",
                "spec.outputs.appendOutput[2].extraFields[0]",
            ]
        );
        assert!(mistakes[0].message.contains("proc.nme") && mistakes[0].message.contains("proc.name"), "{mistakes:?}");
        let sources: Vec<_> = made.iter().map(|append| append.source.as_deref()).collect();
        assert_eq!(sources, [Some("syscall"), None, Some("syscall")]);
    }
}
