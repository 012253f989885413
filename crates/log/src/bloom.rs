//! A Bloom filter: says of a hash that it may have been added, or that it was not.

/// Bits, a power of two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bloom(Box<[u8]>);

impl Bloom {
    pub(crate) fn new(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let bytes = (hashes.len() * BITS_PER_HASH / 8).next_power_of_two();
        let mut bits = vec![0; bytes.clamp(MIN_BYTES, MAX_BYTES)];
        for hash in hashes {
            for bit in probes(hash, bits.len()) {
                bits[bit / 8] |= 1 << (bit % 8);
            }
        }
        Self(bits.into())
    }

    /// Takes what [`Self::as_bytes`] gave.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let fits = bytes.len().is_power_of_two() && (MIN_BYTES..=MAX_BYTES).contains(&bytes.len());
        fits.then(|| Self(bytes.into()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn may_have(&self, hash: u64) -> bool {
        probes(hash, self.0.len()).all(|bit| self.0[bit / 8] & (1 << (bit % 8)) != 0)
    }
}

fn probes(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (hash as usize, (hash >> 32) as usize | 1);
    (0..PROBES).map(move |probe| first.wrapping_add(step.wrapping_mul(probe)) & (bytes * 8 - 1))
}

const PROBES: usize = 6;
const BITS_PER_HASH: usize = 10;
const MIN_BYTES: usize = 64;

/// There is one filter for each segment in memory, and some logs have hundreds of those.
pub(crate) const MAX_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_added_is_missed_and_little_else_is_found() {
        let mut random = fastrand::Rng::with_seed(1);
        let hashes: Vec<u64> = (0..5_000).map(|_| random.u64(..)).collect();
        let bloom = Bloom::new(hashes.iter().copied());
        assert!(hashes.iter().all(|hash| bloom.may_have(*hash)));
        let wrong = (0..10_000).filter(|_| bloom.may_have(random.u64(..)));
        assert!(wrong.count() < 300);
        assert_eq!(Bloom::from_bytes(bloom.as_bytes()), Some(bloom));
        assert_eq!(Bloom::from_bytes(&[0; 100]), None);
    }
}
