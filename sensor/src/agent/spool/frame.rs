//! How an alert lies in a file: length, CRC-32, bytes. What does not add up ends the file.

use super::ALERT_BYTES;

/// Bytes in front of the content.
pub const HEAD: usize = 8;

/// Appends a frame; content longer than [`ALERT_BYTES`] is not taken.
pub fn push(into: &mut Vec<u8>, content: &[u8]) -> bool {
    let Ok(length) = u32::try_from(content.len()) else { return false };
    if content.is_empty() || content.len() > ALERT_BYTES {
        return false;
    }
    into.extend(length.to_le_bytes());
    into.extend(crc32fast::hash(content).to_le_bytes());
    into.extend(content);
    true
}

/// The content of the first frame, and what lies behind it. `None` when it is cut off or damaged.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length == 0 || length > ALERT_BYTES {
        return None;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    (crc32fast::hash(content) == u32::from_le_bytes(*crc)).then_some((content, rest))
}
