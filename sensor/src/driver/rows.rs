//! Which system calls are traced, and what must stand in the slots of the kernel's tables for that.
//!
//! Pure: [`super::Driver`] compares what there is with what there should be, and changes the difference.

use std::collections::BTreeMap;

use abi::{
    control::slot,
    record::kind,
    syscalls::{COMPAT_ALIASES, GENERIC, NONE, SOCKETCALL, SYSCALLS},
};

const ROWS: usize = SYSCALLS.len();
const ALL: usize = ROWS + GENERIC.len();

/// A set of system calls: rows of the table, and behind them the calls without a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows([u64; ALL.div_ceil(64)]);

impl Rows {
    /// No call.
    pub const NONE: Self = Self([0; ALL.div_ceil(64)]);

    /// Every row of the table; calls without a row share one program.
    pub fn all_programs() -> Self {
        (0..=ROWS).fold(Self::NONE, |mut rows, index| {
            rows.insert(index);
            rows
        })
    }

    /// The calls whose names satisfy a condition.
    pub fn of(wanted: impl Fn(&str) -> bool) -> Self {
        let mut rows = Self::NONE;
        names().enumerate().filter(|(_, name)| wanted(name)).for_each(|(index, _)| rows.insert(index));
        rows
    }

    /// Adds a call.
    fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    /// Whether a call is in the set.
    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & 1 << (index % 64) != 0
    }

    /// Calls in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Whether a call is in both sets.
    pub fn meets(self, other: Self) -> bool {
        self.0.iter().zip(other.0).any(|(one, other)| one & other != 0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..ALL).filter(|index| self.contains(*index))
    }
}

/// Names of all system calls, which are event types: rows first.
pub fn names() -> impl Iterator<Item = &'static str> {
    SYSCALLS.iter().map(|row| row.name).chain(GENERIC.iter().map(|call| call.name))
}

/// The record kind and name of every system call.
pub fn kinds() -> impl Iterator<Item = (&'static str, u16)> {
    names().enumerate().map(|(index, name)| (name, kind_of(index)))
}

fn kind_of(index: usize) -> u16 {
    // Both tables fit: the kernel side asserts it when it is compiled.
    if index < ROWS { kind::FIRST_SYSCALL + index as u16 } else { kind::FIRST_GENERIC + (index - ROWS) as u16 }
}

/// A kernel program that can stand in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// That of a row.
    Row(&'static str),
    /// The one for calls without a row.
    Generic,
    /// Finds the program of a 32-bit call whose number is nobody else's.
    Gate,
    /// Takes `socketcall` apart.
    Socketcall,
}

impl Program {
    /// Its name in the object.
    pub fn name(self) -> String {
        match self {
            Self::Row(name) => format!("sys_{name}"),
            Self::Generic => "sys_generic".to_owned(),
            Self::Gate => "compat_gate".to_owned(),
            Self::Socketcall => "socketcall".to_owned(),
        }
    }
}

/// What stands in the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// By native number, those of the x32 interface included.
    pub native: BTreeMap<u32, Program>,
    /// By 32-bit number.
    pub compat: BTreeMap<u32, Program>,
    /// Record kinds of calls without a row; native numbers, then 32-bit numbers behind [`slot::NUMBERS`].
    pub kinds: BTreeMap<u32, u32>,
}

impl Slots {
    /// What a set of calls needs; `compat` when the kernel takes 32-bit calls.
    pub fn of(rows: Rows, compat: bool) -> Self {
        let mut slots = Self::default();
        for index in rows.iter() {
            let (name, [x86_64, i386, aarch64], program) = match SYSCALLS.get(index) {
                Some(row) => (row.name, [row.x86_64, row.i386, row.aarch64], Program::Row(row.name)),
                None => {
                    let call = &GENERIC[index - ROWS];
                    (call.name, [call.x86_64, call.i386, call.aarch64], Program::Generic)
                }
            };
            let native = if cfg!(target_arch = "aarch64") { aarch64 } else { x86_64 };
            let aliases = COMPAT_ALIASES.iter().filter(|(alias, _)| *alias == name).map(|(_, number)| *number);
            let kind = u32::from(kind_of(index));
            for number in [native].into_iter().filter_map(known).chain(x32_number(name)) {
                slots.native.insert(number, program);
                if program == Program::Generic {
                    slots.kinds.insert(number, kind);
                }
            }
            for number in [i386].into_iter().chain(aliases).filter_map(known).filter(|_| compat) {
                slots.compat.insert(number, program);
                if program == Program::Generic {
                    slots.kinds.insert(slot::NUMBERS + number, kind);
                }
            }
            if compat && SOCKET_CALLS.contains(&name) {
                slots.compat.insert(SOCKETCALL as u32, Program::Socketcall);
            }
        }
        for number in slots.compat.keys() {
            // Whatever stands there finds the 32-bit call, too.
            slots.native.entry(*number).or_insert(Program::Gate);
        }
        slots
    }
}

fn known(number: i32) -> Option<u32> {
    (number != NONE).then_some(number as u32)
}

/// The calls that 32-bit programs make by `socketcall`.
const SOCKET_CALLS: [&str; 17] = [
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
];

/// Numbers of the x32 interface that are not the native ones (arch/x86/entry/syscalls/syscall_64.tbl).
fn x32_number(name: &str) -> Option<u32> {
    Some(match name {
        "rt_sigaction" => 512,
        "rt_sigreturn" => 513,
        "ioctl" => 514,
        "readv" => 515,
        "writev" => 516,
        "recvfrom" => 517,
        "sendmsg" => 518,
        "recvmsg" => 519,
        "execve" => 520,
        "ptrace" => 521,
        "rt_sigpending" => 522,
        "rt_sigtimedwait" => 523,
        "rt_sigqueueinfo" => 524,
        "sigaltstack" => 525,
        "timer_create" => 526,
        "mq_notify" => 527,
        "kexec_load" => 528,
        "waitid" => 529,
        "set_robust_list" => 530,
        "get_robust_list" => 531,
        "vmsplice" => 532,
        "move_pages" => 533,
        "preadv" => 534,
        "pwritev" => 535,
        "rt_tgsigqueueinfo" => 536,
        "recvmmsg" => 537,
        "sendmmsg" => 538,
        "process_vm_readv" => 539,
        "process_vm_writev" => 540,
        "setsockopt" => 541,
        "getsockopt" => 542,
        "io_setup" => 543,
        "io_submit" => 544,
        "execveat" => 545,
        "preadv2" => 546,
        "pwritev2" => 547,
        _ => return None,
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn slots(names: &[&str]) -> Slots {
        Slots::of(Rows::of(|name| names.contains(&name)), true)
    }

    #[test]
    fn a_number_that_is_two_calls_has_the_program_of_the_native_one() {
        // 5 is open for a 32-bit program and fstat natively.
        assert_eq!(slots(&["open"]).native.get(&5), Some(&Program::Gate));
        assert_eq!(slots(&["open", "fstat"]).native.get(&5), Some(&Program::Row("fstat")));
        assert_eq!(slots(&["open", "fstat"]).compat.get(&5), Some(&Program::Row("open")));
    }

    #[test]
    fn calls_without_a_row_share_a_program_and_have_kinds() {
        let slots = slots(&["acct"]);
        assert_eq!(slots.native.get(&163), Some(&Program::Generic));
        let kind = slots.kinds.get(&163).copied();
        assert!(kind.is_some_and(|kind| kind >= u32::from(kind::FIRST_GENERIC)));
        assert_eq!(slots.kinds.get(&(slot::NUMBERS + 51)).copied(), kind);
    }

    #[test]
    fn old_forms_of_a_32_bit_call_and_socketcall_are_seen() {
        assert_eq!(slots(&["setuid"]).compat.keys().copied().collect::<Vec<_>>(), [23, 213]);
        assert_eq!(slots(&["connect"]).compat.get(&102), Some(&Program::Socketcall));
        // 102 is getuid natively.
        assert_eq!(slots(&["connect"]).native.get(&102), Some(&Program::Gate));
    }

    #[test]
    fn no_number_belongs_to_two_calls() {
        let (mut native, mut compat) = (BTreeMap::new(), BTreeMap::new());
        for index in 0..ALL {
            let mut rows = Rows::NONE;
            rows.insert(index);
            let slots = Slots::of(rows, true);
            let name = names().nth(index);
            for (number, _) in slots.native.iter().filter(|(_, program)| **program != Program::Gate) {
                assert_eq!(native.insert(*number, name), None, "native {number}: {name:?}");
            }
            for (number, _) in slots.compat.iter().filter(|(_, program)| **program != Program::Socketcall) {
                assert_eq!(compat.insert(*number, name), None, "32-bit {number}: {name:?}");
            }
        }
    }

    #[test]
    fn aliases_name_calls() {
        for (alias, _) in COMPAT_ALIASES {
            assert!(names().any(|name| name == *alias), "{alias}");
        }
    }
}
