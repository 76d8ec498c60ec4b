//! Why an event does not match: the first part of a condition that does not hold.

use event::fields::{EventSource, Subject};

use crate::{
    filter::{
        ast::{Expr, TextId},
        parse::{Depth, parse},
        print::canonical,
    },
    load::{Loader, Options, RuleMatching},
    ruleset::Evaluation,
};

/// Of the parts that a condition joins by `and`, the first that does not hold for an event, as text. `None` when all hold, or
/// the condition cannot be read. The condition is one with its macros and lists put in, as
/// [`RuleInfo::condition`](crate::load::RuleInfo::condition).
pub fn unmet<'a>(condition: &str, source: EventSource, subject: &impl Subject<'a>) -> Option<String> {
    let parts = match parse(condition, TextId::default(), Depth::RULES).ok()? {
        Expr::And(parts, _) => parts,
        other => vec![other],
    };
    parts.iter().map(canonical).find(|part| !holds(part, source, subject))
}

fn holds<'a>(part: &str, source: EventSource, subject: &impl Subject<'a>) -> bool {
    let rule = serde_json::json!([{
        "rule": "part", "desc": "", "condition": part, "output": "", "priority": "DEBUG", "source": source.name(),
    }]);
    let mut loader = Loader::new(Options { rule_matching: RuleMatching::All, ..Options::default() });
    loader.add("part", rule.to_string().as_bytes());
    let mut found = false;
    if let Some(ruleset) = loader.finish().ruleset {
        ruleset.matches(subject, &mut Evaluation::default(), |_| found = true);
    }
    found
}

#[cfg(test)]
mod tests {
    use event::value::Arena;

    use super::*;
    use crate::{
        filter::names::Catalogue,
        written::{Given, Written},
    };

    #[test]
    fn the_first_part_that_does_not_hold_is_named() {
        let given = [
            ("evt.type", Given::Text("openat")),
            ("fd.name", Given::Text("/etc/shadow")),
            ("fd.num", Given::Number(-2)),
        ];
        let written = Written::new(given, Catalogue::default()).expect("good fields");
        let arena = Arena::new();
        let unmet = |condition: &str| unmet(condition, EventSource::Syscall, &written.subject(&arena));
        assert_eq!(unmet("evt.type = openat and fd.num >= 0 and fd.name = /x").as_deref(), Some("fd.num >= 0"));
        assert_eq!(unmet("evt.type in (open, creat)").as_deref(), Some("evt.type in (open, creat)"));
        let either = "evt.type = openat and (fd.name startswith /usr or fd.name endswith \"a b\")";
        assert_eq!(unmet(either).as_deref(), Some("(fd.name startswith /usr or fd.name endswith \"a b\")"));
        assert_eq!(
            unmet("evt.type = openat and not fd.name startswith /etc").as_deref(),
            Some("not fd.name startswith /etc")
        );
        assert_eq!(unmet("evt.type = openat and fd.name exists"), None);
        assert_eq!(unmet("evt.type = "), None);
    }
}
