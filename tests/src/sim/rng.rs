//! The only source of chance in a run: everything follows from the seed.

use std::ops::Range;

/// SplitMix64: small, fast, and the same for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x7261_6465_7769_6E64)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "an empty range has no member");
        range.start + self.next() % (range.end - range.start)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.range(0..len as u64) as usize
    }

    /// Whether something that happens `percent` times of a hundred happens.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.range(0..100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// A duration that is mostly short and sometimes as long as `longest`.
    pub(crate) fn delay(&mut self, usual: u64, longest: u64) -> u64 {
        if self.percent(95) {
            self.range(usual / 4..usual + 1)
        } else {
            self.range(usual..longest.max(usual + 1))
        }
    }
}
