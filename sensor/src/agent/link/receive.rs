//! Puts a bundle together from its chunks. Nothing that the other side says is believed: not the length, not the order,
//! not the hash.

use bundle::Bundle;
use link::{BUNDLE_BYTES, proto};

/// A bundle whose bytes have the hash that names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Lower-case hexadecimal SHA-256.
    pub hash: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Verified {
    /// Checks bytes against a hash.
    pub fn check(hash: &str, bytes: Vec<u8>) -> Option<Self> {
        (Bundle::hash(&bytes) == hash).then(|| Self { hash: hash.to_owned(), bytes })
    }
}

/// A bundle that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The hash that it was offered under.
    pub hash: String,
    /// Why.
    pub reason: String,
}

/// The bundle that is being received, if any.
#[derive(Debug, Default)]
pub struct Receiving {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    hash: String,
    expected: usize,
    bytes: Vec<u8>,
}

impl Receiving {
    /// An offer; it overtakes one whose chunks are still coming.
    pub fn offer(&mut self, offer: proto::BundleOffer) -> Result<(), Refused> {
        self.current = None;
        let proto::BundleOffer { hash, bytes } = offer;
        let sane = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !sane {
            let reason = "the hash of the offer is no SHA-256 in lower-case hexadecimal digits".to_owned();
            return Err(Refused { hash: hash.chars().take(64).collect(), reason });
        }
        match usize::try_from(bytes) {
            Ok(expected) if expected > 0 && bytes <= BUNDLE_BYTES => {
                self.current = Some(Current { hash, expected, bytes: Vec::new() });
                Ok(())
            }
            _ => {
                Err(Refused { hash, reason: format!("the bundle has {bytes} bytes; 1 to {BUNDLE_BYTES} are possible") })
            }
        }
    }

    /// A chunk. Those of a bundle that was refused or overtaken are passed over.
    pub fn chunk(&mut self, chunk: &proto::BundleChunk) -> Result<Option<Verified>, Refused> {
        let Some(current) = self.current.as_mut().filter(|current| current.hash == chunk.hash) else { return Ok(None) };
        let fits = chunk.offset == current.bytes.len() as u64
            && !chunk.data.is_empty()
            && chunk.data.len() <= current.expected - current.bytes.len();
        if fits {
            current.bytes.extend_from_slice(&chunk.data);
            if current.bytes.len() < current.expected {
                return Ok(None);
            }
        }
        let Some(Current { hash, bytes, .. }) = self.current.take() else { return Ok(None) };
        let refused = |reason: &str| Refused { hash: hash.clone(), reason: reason.to_owned() };
        if !fits {
            return Err(refused("its chunks do not follow each other"));
        }
        Verified::check(&hash, bytes).map(Some).ok_or_else(|| refused("its bytes do not have the hash of the offer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(bytes: &[u8]) -> proto::BundleOffer {
        proto::BundleOffer { hash: Bundle::hash(bytes), bytes: bytes.len() as u64 }
    }

    fn chunk(hash: &str, offset: u64, data: &[u8]) -> proto::BundleChunk {
        proto::BundleChunk { hash: hash.to_owned(), offset, data: data.to_vec().into() }
    }

    #[test]
    fn chunks_make_a_bundle() {
        let mut receiving = Receiving::default();
        let offered = offer(b"abcdef");
        let hash = offered.hash.clone();
        receiving.offer(offered).expect("a good offer");
        assert_eq!(receiving.chunk(&chunk(&hash, 0, b"abc")), Ok(None));
        let whole = receiving.chunk(&chunk(&hash, 3, b"def")).expect("good chunks").expect("the last chunk");
        assert_eq!(whole.bytes, b"abcdef");
        assert_eq!(receiving.chunk(&chunk(&hash, 6, b"more")), Ok(None), "what comes behind is passed over");
    }

    #[test]
    fn a_newer_offer_overtakes() {
        let mut receiving = Receiving::default();
        let (old, new) = (offer(b"old"), offer(b"new"));
        receiving.offer(old.clone()).expect("a good offer");
        assert_eq!(receiving.chunk(&chunk(&old.hash, 0, b"o")), Ok(None));
        receiving.offer(new.clone()).expect("a good offer");
        assert_eq!(receiving.chunk(&chunk(&old.hash, 1, b"ld")), Ok(None));
        let whole = receiving.chunk(&chunk(&new.hash, 0, b"new")).expect("a good chunk");
        assert_eq!(whole.map(|bundle| bundle.bytes), Some(b"new".to_vec()));
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let mut receiving = Receiving::default();
        let too_large = proto::BundleOffer { bytes: BUNDLE_BYTES + 1, ..offer(b"x") };
        assert!(receiving.offer(too_large).is_err());
        assert!(receiving.offer(proto::BundleOffer { bytes: 0, ..offer(b"x") }).is_err());
        assert!(receiving.offer(proto::BundleOffer { hash: "../x".to_owned(), bytes: 3 }).is_err());

        let good = offer(b"abc");
        for bad in [chunk(&good.hash, 1, b"a"), chunk(&good.hash, 0, b"abcd"), chunk(&good.hash, 0, b"")] {
            receiving.offer(good.clone()).expect("a good offer");
            assert!(receiving.chunk(&bad).is_err(), "{bad:?}");
            assert_eq!(receiving.chunk(&chunk(&good.hash, 0, b"abc")), Ok(None), "it was given up");
        }
        receiving.offer(good.clone()).expect("a good offer");
        let refused = receiving.chunk(&chunk(&good.hash, 0, b"xyz")).expect_err("a wrong hash");
        assert_eq!(refused.hash, good.hash);
    }
}
