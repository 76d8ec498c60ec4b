//! The in-kernel filter of open calls: what the sensor derives from the loaded rules, so that an open that no rule can
//! match is dropped before it costs anything.
//!
//! A filter is a list of clauses, and an event passes when it satisfies one of them, or when the programs cannot tell:
//! **it may pass too much, never too little**. Doubt is a path that could not be read, is relative, longer than
//! [`PATH_SCAN`], or not in normal form (`//`, `/.`, `./`, a slash at the end); its text is not yet what rules compare.
//!
//! A clause asks for a result, for properties of the call, and optionally for a path in a set. Sets are bits: a path's
//! bits come from the longest matching prefix (map `PATH_PREFIXES`, whose values include the bits of shorter ones) and
//! from suffixes.

/// Most clauses of one filter; more are not needed by any ruleset seen, and then everything passes.
pub const CLAUSES: usize = 16;

/// Most suffixes of one filter.
pub const SUFFIXES: usize = 32;

/// Longest prefix in bytes; a longer one is cut, which passes more.
pub const PREFIX_BYTES: usize = 56;

/// Most prefixes.
pub const PREFIXES: u32 = 4096;

/// Longest path that is looked at in bytes.
pub const PATH_SCAN: usize = 256;

/// Bits of [`Clause::needs`]: what a call does, from its flags and result.
pub mod need {
    /// Opens for reading.
    pub const READ: u32 = 1;
    /// Opens for writing.
    pub const WRITE: u32 = 2;
    /// Has `O_CREAT`.
    pub const CREAT: u32 = 4;
    /// Has `O_TRUNC`.
    pub const TRUNC: u32 = 8;
    /// Succeeded.
    pub const SUCCESS: u32 = 16;
    /// Failed.
    pub const FAILURE: u32 = 32;
}

/// One way in which a rule can match.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clause {
    /// [`need`] bits that the call must all have.
    pub needs: u32,
    /// 1: a rule of high priority may match.
    pub urgent: u32,
    /// Path sets of which the path must be in one; 0 for any path.
    pub paths: u64,
}

/// An end of a path.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Suffix {
    /// Up to eight last bytes, the last in the highest byte.
    pub value: u64,
    /// Which bytes of `value` count.
    pub mask: u64,
    /// Path sets that this end belongs to.
    pub paths: u64,
}

/// The filter of one record kind: an element of map `FILTERS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// 0: everything passes.
    pub enabled: u32,
    /// Clauses in use.
    pub clauses: u32,
    /// Suffixes in use.
    pub suffixes: u32,
    /// 1: every record of this kind is urgent, whether the filter is switched on or not.
    pub urgent: u32,
    /// The clauses.
    pub clause: [Clause; CLAUSES],
    /// The suffixes.
    pub suffix: [Suffix; SUFFIXES],
}

impl Filter {
    /// Passes everything.
    pub const OFF: Self = Self {
        enabled: 0,
        clauses: 0,
        suffixes: 0,
        urgent: 0,
        clause: [Clause { needs: 0, urgent: 0, paths: 0 }; CLAUSES],
        suffix: [Suffix { value: 0, mask: 0, paths: 0 }; SUFFIXES],
    };

    /// How many words of 64 bits it is.
    pub const WORDS: usize = size_of::<Self>() / 8;
}

/// Key of map `PATH_PREFIXES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixKey {
    /// Length in bits.
    pub bits: u32,
    /// The prefix.
    pub bytes: [u8; PREFIX_BYTES],
}
