//! Builds the conditions of a status, so that equal states give equal bytes.
//!
//! kstatus' conventions: `Ready` is always there, `Reconciling` and `Stalled` only while true; a condition's time moves
//! only when its status does.

use api::condition::{Condition, ConditionStatus, ConditionType, Reason};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// Longest message, in bytes.
const MESSAGE_BYTES: usize = 4096;

/// The conditions of one object, under construction.
#[derive(Debug)]
pub struct Conditions<'a> {
    before: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    set: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Conditions of a generation; `before` are those that the object has.
    pub fn new(before: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { before, generation, now, set: Vec::new() }
    }

    /// Sets one. The message must not contain times or anything else that differs without a difference.
    pub fn set(&mut self, type_: ConditionType, status: ConditionStatus, reason: Reason, message: &str) {
        let before = self.before.iter().find(|before| before.type_ == type_.name() && before.status == status);
        let since = before.map_or_else(|| Time(whole_seconds(self.now)), |before| before.last_transition_time.clone());
        self.set.push(Condition::new(type_, status, reason, cut(message, MESSAGE_BYTES), self.generation, since));
    }

    /// Sets one to true or false.
    pub fn is(&mut self, type_: ConditionType, holds: bool, reason: Reason, message: &str) {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        self.set(type_, status, reason, message);
    }

    /// All that were set, in order of their type.
    pub fn finish(mut self) -> Vec<Condition> {
        self.set.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.set
    }
}

/// The API server keeps seconds: more would read back as a difference.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The text, cut at a character so that it has at most so many bytes.
pub fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Like [`cut`], without a copy of what is short enough.
pub fn cut_in_place(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        *text = cut(text, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let mut first = Conditions::new(&[], Some(1), at(1));
        first.is(ConditionType::Ready, false, Reason::Progressing, "on its way");
        let first = first.finish();
        let mut second = Conditions::new(&first, Some(2), at(2));
        second.is(ConditionType::Ready, false, Reason::CompileError, "1 error");
        let second = second.finish();
        assert_eq!(second.first().map(|c| c.last_transition_time.clone()), Some(Time(at(1))));
        let mut third = Conditions::new(&second, Some(2), at(3));
        third.is(ConditionType::Ready, true, Reason::AllNodesLoaded, "");
        assert_eq!(third.finish().first().map(|c| c.last_transition_time.clone()), Some(Time(at(3))));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöüß", 7), "äö…");
    }
}
