//! The file `state`: what is known beyond the segments. Replaced whole, so that there is always a good one.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use link::proto;
use prost::Message;

const NAME: &str = "state";

/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// Contents of the file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct State {
    /// Random name of the spool.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Number up to which the operator has everything.
    #[prost(uint64, tag = "2")]
    pub acked: u64,
    /// Number of the last alert that is counted in `units`.
    #[prost(uint64, tag = "3")]
    pub counted: u64,
    /// Alerts lost since the spool began.
    #[prost(uint64, tag = "4")]
    pub lost: u64,
    /// Number up to which alerts were given up: `lost` counts those that were not acknowledged.
    #[prost(uint64, tag = "5")]
    pub given_up: u64,
    /// Counts.
    #[prost(message, repeated, tag = "6")]
    pub units: Vec<proto::UnitCounts>,
}

/// What reading gave.
pub enum Read {
    /// A good state.
    Good(State),
    /// There is no file: a new spool.
    None,
    /// There is one, and it is damaged.
    Damaged,
}

/// Reads the file.
pub fn read(folder: &Path) -> io::Result<Read> {
    let path = folder.join(NAME);
    match fs::metadata(&path) {
        Ok(meta) if meta.len() > MAX_BYTES => return Ok(Read::Damaged),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::None),
        Err(error) => return Err(error),
    }
    let bytes = fs::read(&path)?;
    let good = bytes.split_first_chunk::<4>().filter(|(crc, rest)| u32::from_le_bytes(**crc) == crc32fast::hash(rest));
    let state = good.and_then(|(_, rest)| State::decode(rest).ok()).filter(|state| !state.id.is_empty());
    Ok(state.map_or(Read::Damaged, Read::Good))
}

/// Replaces the file, durably.
pub fn write(folder: &Path, state: &State) -> io::Result<()> {
    let content = state.encode_to_vec();
    let mut bytes = Vec::with_capacity(content.len() + 4);
    bytes.extend(crc32fast::hash(&content).to_le_bytes());
    bytes.extend(content);
    replace(folder, NAME, &bytes)
}

/// Replaces a file whole: after a crash there is the old one or the new one.
pub fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}
