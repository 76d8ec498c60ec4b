//! Reads the running kernel's type information (BTF) far enough to find members, sizes and enumerators.
//!
//! aya keeps its types private, and a general BTF library takes ten times as long at every start; this is the little
//! that [`abi::offsets`] needs. Format: Documentation/bpf/btf.rst in the kernel tree. The bytes are the kernel's own, yet
//! nothing is assumed: what does not parse is [`BtfError::Malformed`], never a panic.

use std::{collections::HashMap, path::Path};

use abi::offsets::{MISSING, Need, OFFSETS, Origin};

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why offsets can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file can't be read.
    #[error(
        "cannot read {VMLINUX}: the kernel must be built with CONFIG_DEBUG_INFO_BTF=y (Linux 5.4 or later; all large distributions are)"
    )]
    Read(#[source] std::io::Error),
    /// The bytes are not BTF.
    #[error("{VMLINUX} is not BTF that we understand")]
    Malformed,
    /// A member that everything depends on does not exist.
    #[error("this kernel's types lack {from}, which the programs can't do without; please report the kernel version")]
    Missing {
        /// The row's origin.
        from: String,
    },
}

const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;
const KIND_INT: u32 = 1;
/// typedef, volatile, const, restrict, type tag: names for another type.
const TRANSPARENT: [u32; 5] = [8, 9, 10, 11, 18];

/// Parsed type information.
pub struct Btf {
    bytes: Vec<u8>,
    /// Byte position of each type; index 0 is `void`.
    types: Vec<usize>,
    strings: usize,
    /// Structs, unions and enums by name.
    names: HashMap<Vec<u8>, Vec<u32>>,
}

impl Btf {
    /// Reads the running kernel's BTF.
    pub fn of_kernel() -> Result<Self, BtfError> {
        let bytes = std::fs::read(Path::new(VMLINUX)).map_err(BtfError::Read)?;
        Self::parse(bytes).ok_or(BtfError::Malformed)
    }

    /// Parses raw BTF.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut btf = Self { bytes, types: vec![0], strings: 0, names: HashMap::new() };
        if btf.word(0)? & 0xffff != 0xeb9f {
            return None;
        }
        let header = btf.word(4)? as usize;
        let start = header.checked_add(btf.word(8)? as usize)?;
        let end = start.checked_add(btf.word(12)? as usize)?;
        btf.strings = header.checked_add(btf.word(16)? as usize)?;
        let mut at = start;
        while at < end {
            let (name, kind, count) = btf.head(at)?;
            let id = btf.types.len() as u32;
            if matches!(kind, KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64) && name != 0 {
                let name = btf.string(name)?.to_vec();
                btf.names.entry(name).or_default().push(id);
            }
            btf.types.push(at);
            let rest = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * count,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * count,
                _ => 0,
            };
            at = at.checked_add(12 + rest)?;
        }
        Some(btf)
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.bytes.get(self.strings.checked_add(offset as usize)?..)?;
        rest.split(|byte| *byte == 0).next()
    }

    /// Name offset, kind and element count of the type at a position.
    fn head(&self, at: usize) -> Option<(u32, u32, usize)> {
        let info = self.word(at + 4)?;
        Some((self.word(at)?, info >> 24 & 31, (info & 0xffff) as usize))
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..32 {
            let at = *self.types.get(id as usize)?;
            if id == 0 || !TRANSPARENT.contains(&self.head(at)?.1) {
                return Some(id);
            }
            id = self.word(at + 8)?;
        }
        None
    }

    /// Byte offset and type of a member, looked for in unnamed members too.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u64, u32)> {
        let at = *self.types.get(id as usize)?;
        let (_, kind, count) = self.head(at)?;
        if !matches!(kind, KIND_STRUCT | KIND_UNION) || depth > 8 {
            return None;
        }
        let bitfields = self.word(at + 4)? >> 31 == 1;
        (0..count).find_map(|i| {
            let member = at + 12 + 12 * i;
            let offset = self.word(member + 8)?;
            let bits = u64::from(if bitfields { offset & 0xff_ffff } else { offset });
            let member_name = self.word(member)?;
            let ty = self.resolve(self.word(member + 4)?)?;
            if member_name == 0 {
                let (inner, ty) = self.member(ty, name, depth + 1)?;
                return Some((bits / 8 + inner, ty));
            }
            (self.string(member_name)? == name).then_some((bits / 8, ty))
        })
    }

    /// Offset of the first alternative of a path that exists; see [`abi::offsets`] for the form.
    pub fn offset(&self, structure: &str, paths: &str) -> Option<u64> {
        let ids = self.names.get(structure.as_bytes())?;
        paths.split('|').find_map(|path| {
            let (path, add) = path.split_once('+').unwrap_or((path, "0"));
            let add: u64 = add.parse().ok()?;
            ids.iter().find_map(|id| {
                let mut id = *id;
                let mut offset = add;
                for name in path.split('.') {
                    let (inner, ty) = self.member(id, name.as_bytes(), 0)?;
                    offset += inner;
                    id = ty;
                }
                Some(offset)
            })
        })
    }

    /// Size of a struct in bytes.
    pub fn size(&self, structure: &str) -> Option<u64> {
        self.names.get(structure.as_bytes())?.iter().find_map(|id| {
            let at = *self.types.get(*id as usize)?;
            (self.head(at)?.1 == KIND_STRUCT).then(|| self.word(at + 8).map(u64::from))?
        })
    }

    /// Value of an enumerator.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Option<u64> {
        self.names.get(enumeration.as_bytes())?.iter().find_map(|id| {
            let at = *self.types.get(*id as usize)?;
            let (_, kind, count) = self.head(at)?;
            if kind != KIND_ENUM {
                return None;
            }
            (0..count).find_map(|i| {
                let row = at + 12 + 8 * i;
                (self.string(self.word(row)?)? == name.as_bytes()).then(|| self.word(row + 4).map(u64::from))?
            })
        })
    }

    fn value(&self, from: Origin) -> Option<u64> {
        match from {
            Origin::Member(structure, paths) => self.offset(structure, paths),
            Origin::Size(structure) => self.size(structure),
            Origin::Enumerator(enumeration, name) => self.enumerator(enumeration, name),
        }
    }

    /// Resolves every row of [`OFFSETS`], in order, and lists the features that go without.
    pub fn resolve_offsets(&self) -> Result<Resolved, BtfError> {
        let mut resolved = Resolved { values: [MISSING; OFFSETS.len()], without: Vec::new() };
        for (row, value) in OFFSETS.iter().zip(&mut resolved.values) {
            match (self.value(row.from), row.need) {
                (Some(found), _) => *value = found,
                (None, Need::Must) => return Err(BtfError::Missing { from: describe(row.from) }),
                (None, Need::May(feature)) => {
                    if !resolved.without.contains(&feature) {
                        resolved.without.push(feature);
                    }
                }
            }
        }
        Ok(resolved)
    }
}

/// The offsets of this kernel.
pub struct Resolved {
    /// In the order of [`OFFSETS`].
    pub values: [u64; OFFSETS.len()],
    /// Features that this kernel's types do not allow.
    pub without: Vec<&'static str>,
}

impl Resolved {
    /// The value of a row; [`MISSING`] when there is no such row.
    pub fn get(&self, name: &str) -> u64 {
        OFFSETS.iter().zip(&self.values).find(|(row, _)| row.name == name).map_or(MISSING, |(_, value)| *value)
    }
}

fn describe(from: Origin) -> String {
    match from {
        Origin::Member(structure, paths) => format!("struct {structure}.{paths}"),
        Origin::Size(structure) => format!("struct {structure}"),
        Origin::Enumerator(enumeration, name) => format!("enum {enumeration} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_btf_are_refused() {
        assert!(Btf::parse(vec![]).is_none());
        assert!(Btf::parse(vec![0; 64]).is_none());
        let mut truncated = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
        truncated.resize(24, 0xff);
        assert!(Btf::parse(truncated).is_none());
    }

    #[test]
    fn this_kernel_has_every_member_that_must_be_there() {
        let Ok(btf) = Btf::of_kernel() else {
            eprintln!("ignored: no {VMLINUX} here");
            return;
        };
        let resolved = btf.resolve_offsets().expect("all required members");
        assert_eq!(btf.offset("path", "mnt"), Some(0));
        assert_ne!(resolved.get("task_tgid"), MISSING);
    }
}
