//! The distinct keys of a segment, for its `keys_root`.

use alloc::vec::Vec;

use crate::ids::Digest;
use crate::tree::{leaf_hash, root_of};

/// Keys in the order they came, packed into one buffer. Keys are at most 4,096 bytes and a segment's
/// bytes are limited, so 32-bit offsets do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a key lies.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

/// A key's eight bytes after those that all keys have in common: they decide most comparisons on their own.
fn prefix(key: &[u8], common: usize) -> u64 {
    let mut prefix = [0; 8];
    let rest = &key[common..];
    let taken = rest.len().min(8);
    prefix[..taken].copy_from_slice(&rest[..taken]);
    u64::from_be_bytes(prefix)
}

impl Keys {
    pub(crate) fn insert(&mut self, key: &[u8]) {
        let fits = "a segment's bytes are limited to less than 2^32";
        self.spans.push(Span {
            start: u32::try_from(self.bytes.len()).expect(fits),
            len: u32::try_from(key.len()).expect(fits),
        });
        self.bytes.extend_from_slice(key);
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// The RFC 6962 root over the distinct keys in ascending order.
    pub(crate) fn root(&self) -> Digest {
        let key = |span: &Span| {
            let start = span.start as usize;
            &self.bytes[start..start + span.len as usize]
        };
        let first = self.spans.first().map_or(&[][..], key);
        let common = self.spans.iter().fold(first.len(), |common, span| {
            first[..common].iter().zip(key(span)).take_while(|(a, b)| a == b).count()
        });
        let mut sorted: Vec<_> =
            self.spans.iter().map(|span| (prefix(key(span), common), span)).collect();
        let compare = |(a, a_span): &(u64, &Span), (b, b_span): &(u64, &Span)| {
            a.cmp(b).then_with(|| key(a_span).cmp(key(b_span)))
        };
        sorted.sort_unstable_by(compare);
        sorted.dedup_by(|a, b| compare(a, b).is_eq());
        root_of(sorted.iter().map(|(_, span)| leaf_hash(key(span))))
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn root_is_over_the_sorted_distinct_keys(
            keys in prop::collection::vec(prop::collection::vec(0_u8..3, 1..12), 0..60)
        ) {
            let mut packed = Keys::default();
            keys.iter().for_each(|key| packed.insert(key));
            let distinct: BTreeSet<_> = keys.iter().collect();
            prop_assert_eq!(packed.root(), root_of(distinct.into_iter().map(|key| leaf_hash(key))));
        }
    }
}
