//! Who a datagram socket last had to do with: without a connection, its other end may be another with each datagram.
//!
//! Falco's `fd.name_changed` says whether it is, and official rules rely on it so that a thousand datagrams to one place
//! are one alert. Memory is fixed: sockets share places by inode number, and one that lost its place is taken for new,
//! which is an alert more, never one less.

use abi::record::tag;

use crate::decode::Record;

/// How many places there are.
const PLACES: usize = 4096;

/// Bytes of an address that tell ends apart: family, port, IPv6 address.
const ADDRESS: usize = 24;

/// Inode number of a socket and the address that it had to do with last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    ino: u64,
    address: [u8; ADDRESS],
}

/// The places; none before the first datagram.
#[derive(Debug, Default)]
pub(super) struct Datagrams(Vec<Place>);

impl Datagrams {
    /// Notes the other end of a datagram; whether it is another than the socket had.
    pub fn changes(&mut self, record: &Record<'_>) -> bool {
        let Some(block) = record.block(tag::ADDRESS) else { return false };
        let Some(facts) = record.fd() else { return false };
        let mut place = Place { ino: facts.ino, address: [0; ADDRESS] };
        for (to, from) in place.address.iter_mut().zip(block.bytes) {
            *to = *from;
        }
        if self.0.is_empty() {
            self.0.resize(PLACES, Place::default());
        }
        match self.0.get_mut(facts.ino as usize % PLACES) {
            Some(known) if *known == place => false,
            Some(known) => {
                *known = place;
                true
            }
            None => true,
        }
    }
}
