//! Kinds of records: numbers of the version that recorded → numbers of the version that reads.

use abi::{
    record::kind,
    syscalls::{GENERIC, SYSCALLS},
};
use serde::{Deserialize, Serialize};

/// The kinds that a version knows beyond exec, fork and exit: number, name, parameters in the order of their blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds(Vec<(u16, String, Vec<String>)>);

impl Kinds {
    /// Those of this version.
    pub fn ours() -> Self {
        let row = |(index, row): (usize, &abi::syscalls::Syscall)| {
            let params = row.params.iter().map(|param| (*param).to_owned()).collect();
            Some((kind::FIRST_SYSCALL.checked_add(u16::try_from(index).ok()?)?, row.name.to_owned(), params))
        };
        let call = |(index, call): (usize, &abi::syscalls::Generic)| {
            Some((kind::FIRST_GENERIC.checked_add(u16::try_from(index).ok()?)?, call.name.to_owned(), Vec::new()))
        };
        let rows = SYSCALLS.iter().enumerate().filter_map(row);
        Self(rows.chain(GENERIC.iter().enumerate().filter_map(call)).collect())
    }

    /// What each of these numbers is called here: the index is the number.
    pub(crate) fn translate(&self) -> Vec<Translation> {
        let ours = Self::ours();
        let mut table: Vec<Translation> = (0..kind::FIRST_SYSCALL).map(Translation::Same).collect();
        for (number, name, params) in &self.0 {
            let at = usize::from(*number);
            // Numbers above what any version can have are not kept.
            if *number < kind::FIRST_SYSCALL || u32::from(*number) >= kind::MAX {
                continue;
            }
            if table.len() <= at {
                table.resize(at + 1, Translation::Unknown);
            }
            // Later versions may have more parameters, behind those that were there.
            let known = ours.0.iter().find(|(_, ours, _)| ours == name);
            table[at] = match known {
                Some((ours, _, more)) if more.starts_with(params) => Translation::Same(*ours),
                _ => Translation::Unknown,
            };
        }
        table
    }
}

/// What becomes of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Translation {
    /// It has this number here.
    Same(u16),
    /// This version has no such kind, or other parameters.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_name_whatever_their_number_was() {
        let ours = Kinds::ours();
        let (number, name, params) = ours.0.last().expect("rows").clone();
        let moved = Kinds(vec![
            (kind::FIRST_SYSCALL, name.clone(), params.clone()),
            (kind::FIRST_SYSCALL + 1, "no_such_call".to_owned(), Vec::new()),
            (kind::FIRST_SYSCALL + 2, name, [&params[..], &["more".to_owned()]].concat()),
            (u16::MAX, "far".to_owned(), Vec::new()),
        ]);
        let table = moved.translate();
        assert_eq!(table[0], Translation::Same(0));
        let at = |offset: u16| table[usize::from(kind::FIRST_SYSCALL + offset)];
        assert_eq!((at(0), at(1), at(2)), (Translation::Same(number), Translation::Unknown, Translation::Unknown));
        assert_eq!(table.len(), usize::from(kind::FIRST_SYSCALL) + 3);
    }
}
