//! Values that fields yield: one closed set of shapes, shared by fields, filters and outputs.
//!
//! A value borrows from the event, from process state or from the per-event [`Arena`]; it is `Copy` and
//! never owns memory, so evaluating rules allocates nothing on the heap.

use std::net::IpAddr;

use ipnet::IpNet;

/// Scratch memory of one event: what an extractor builds (a joined command line, a normalised path)
/// lives here and is dropped, without a free per value, when the event is done.
pub type Arena = bumpalo::Bump;

/// The declared type of a field. Falco's parameter types, reduced to what comparisons and output can tell
/// apart (reference: `fields.json`, libsinsp `PT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A C string: bytes, compared exactly. Falco: charbuf, fspath, fsrelpath.
    Text,
    /// Raw bytes. Falco: bytebuf.
    Bytes,
    /// `true` or `false`.
    Bool,
    /// Signed integer of the given width in bits. Falco: int8…int64, pid, fd, errno.
    Int(u8),
    /// Unsigned integer of the given width in bits. Falco: uint8…uint64, flags, mode, l4proto.
    Uint(u8),
    /// A port; constants may be service names.
    Port,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A network in CIDR form.
    Net,
    /// A span of time in nanoseconds.
    RelTime,
    /// A point in time, nanoseconds since the Unix epoch.
    AbsTime,
    /// A floating point number, printed with one decimal.
    Double,
    /// Known only at run time (`evt.rawarg.x`): the event's parameter decides.
    Dynamic,
}

/// How an integer is printed. Falco: `PF_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Radix {
    /// Plain decimal.
    #[default]
    Decimal,
    /// `0x`-less upper-case hexadecimal, as Falco prints `PF_HEX`.
    Hex,
    /// Octal with a leading zero.
    Octal,
}

/// One value of a field for one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// See [`ValueType::Text`]. Never contains NUL: extractors cut there, as C strings end.
    Text(&'a [u8]),
    /// See [`ValueType::Bytes`].
    Bytes(&'a [u8]),
    /// See [`ValueType::Bool`].
    Bool(bool),
    /// Signed integers of any width.
    Int(i64),
    /// Unsigned integers of any width, ports, times.
    Uint(u64),
    /// See [`ValueType::Ip`].
    Ip(IpAddr),
    /// See [`ValueType::Net`].
    Net(IpNet),
    /// See [`ValueType::Double`].
    Double(f64),
    /// Several values: a list-valued field, or the candidates of a field whose [`Matching`](crate::fields::Matching)
    /// is not plain (every ancestor, either end of a connection).
    List(&'a [Value<'a>]),
}
