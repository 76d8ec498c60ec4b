//! Why an event does not match: the first part of a condition that does not hold.

use event::fields::{EventSource, Subject};
use hashbrown::HashSet;

use crate::{
    filter::{
        ast::{Expr, TextId},
        parse::{Depth, parse},
        print::canonical,
    },
    load::{Loader, Options, RuleMatching},
    ruleset::{Evaluation, Ruleset},
};

/// The parts that a condition joins by `and`, each a rule of its own.
#[derive(Debug)]
pub struct Parts {
    texts: Vec<String>,
    ruleset: Ruleset,
}

impl Parts {
    /// Takes a condition apart whose macros and lists are put in, as
    /// [`RuleInfo::condition`](crate::load::RuleInfo::condition). `None` when it is none. It costs as much as loading the rule.
    pub fn new(condition: &str, source: EventSource) -> Option<Self> {
        let parts = match parse(condition, TextId::default(), Depth::RULES).ok()? {
            Expr::And(parts, _) => parts,
            other => vec![other],
        };
        let texts: Vec<String> = parts.iter().map(canonical).collect();
        let rule = |(at, part): (usize, &String)| {
            serde_json::json!({
                "rule": at.to_string(), "desc": "", "condition": part, "output": "", "priority": "DEBUG",
                "source": source.name(),
            })
        };
        let rules: Vec<_> = texts.iter().enumerate().map(rule).collect();
        let mut loader = Loader::new(Options { rule_matching: RuleMatching::All, ..Options::default() });
        loader.add("parts", serde_json::Value::from(rules).to_string().as_bytes());
        Some(Self { texts, ruleset: loader.finish().ruleset? })
    }

    /// The first that does not hold for an event, as text; `None` when all do.
    pub fn unmet<'a>(&self, subject: &impl Subject<'a>) -> Option<&str> {
        let mut holding = HashSet::new();
        self.ruleset.matches(subject, &mut Evaluation::default(), |rule| _ = holding.insert(rule.index()));
        self.texts.iter().enumerate().find(|(at, _)| !holding.contains(at)).map(|(_, text)| text.as_str())
    }
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
        let unmet = |condition: &str| {
            let parts = Parts::new(condition, EventSource::Syscall)?;
            parts.unmet(&written.subject(&arena)).map(str::to_owned)
        };
        assert_eq!(unmet("evt.type = openat and fd.num >= 0 and fd.name = /x").as_deref(), Some("fd.num >= 0"));
        assert_eq!(unmet("evt.type in (open, creat)").as_deref(), Some("evt.type in (open, creat)"));
        let either = "evt.type = openat and (fd.name startswith /usr or fd.name endswith \"a b\")";
        assert_eq!(unmet(either).as_deref(), Some("(fd.name startswith /usr or fd.name endswith \"a b\")"));
        assert_eq!(
            unmet("evt.type = openat and not fd.name startswith /etc").as_deref(),
            Some("not fd.name startswith /etc")
        );
        assert_eq!(unmet("evt.type = openat and fd.name exists"), None);
        assert!(Parts::new("evt.type = ", EventSource::Syscall).is_none());
    }
}
