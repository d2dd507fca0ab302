//! What two such fabrics tell each other over their authenticated link.
//!
//! | kind | body | meaning |
//! |---|---|---|
//! | 65 `Offer` | view 8, ring address 8, rkey 4, queue pair 4, PSN 4, MTU 4, GID 16 bytes | write to me here, in this view |
//! | 66 `Ready` | 8 bytes view | my queue pair is connected to yours |
//! | 67 `Attach` | 8 bytes view | what was published before is visible; from here it goes by RDMA |
//! | 68 `After` | 8 bytes view, 8 bytes number | the next message comes after so many batches by RDMA |
//! | 69 `Left` | 8 bytes view, 8 bytes number | you prepared a newer view; in the old one I had sent so many batches |
//! | 70 `Refuse` | text | rows do not reach me by RDMA, and why |

use crate::fabric::bytes::{number, take, text};

/// Where a peer's ring is, and the end of its queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) view: u64,
    pub(super) address: u64,
    pub(super) rkey: u32,
    pub(super) queue_pair: u32,
    pub(super) psn: u32,
    pub(super) mtu: u32,
    pub(super) gid: [u8; 16],
}

/// A message of one verbs fabric to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Words {
    Offer(Offer),
    Ready { view: u64 },
    Attach { view: u64 },
    After { view: u64, batches: u64 },
    Left { view: u64, batches: u64 },
    Refuse { reason: String },
}

impl Words {
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = |kind: u8, numbers: &[u64]| {
            let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
            std::iter::once(kind).chain(bytes).collect()
        };
        match self {
            Self::Offer(offer) => {
                let mut bytes: Vec<u8> = numbers(65, &[offer.view, offer.address]);
                for number in [offer.rkey, offer.queue_pair, offer.psn, offer.mtu] {
                    bytes.extend(number.to_le_bytes());
                }
                bytes.extend(offer.gid);
                bytes
            }
            Self::Ready { view } => numbers(66, &[*view]),
            Self::Attach { view } => numbers(67, &[*view]),
            Self::After { view, batches } => numbers(68, &[*view, *batches]),
            Self::Left { view, batches } => numbers(69, &[*view, *batches]),
            Self::Refuse { reason } => [&[70], reason.as_bytes()].concat(),
        }
    }

    /// `None` for what no verbs fabric says.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let rest = &mut rest;
        let words = match kind {
            65 => Self::Offer(Offer {
                view: number(rest)?,
                address: number(rest)?,
                rkey: short(rest)?,
                queue_pair: short(rest)?,
                psn: short(rest)?,
                mtu: short(rest)?,
                gid: take(rest)?,
            }),
            66 => Self::Ready { view: number(rest)? },
            67 => Self::Attach { view: number(rest)? },
            68 => Self::After { view: number(rest)?, batches: number(rest)? },
            69 => Self::Left { view: number(rest)?, batches: number(rest)? },
            70 => Self::Refuse { reason: text(rest) },
            _ => return None,
        };
        rest.is_empty().then_some(words)
    }
}

fn short(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let (address, rkey, queue_pair) = (0x7f00_1234_5000, 2, 3);
        let offer = Offer { view: 9, address, rkey, queue_pair, psn: 4, mtu: 5, gid: [6; 16] };
        let all = [
            Words::Offer(offer),
            Words::Ready { view: 9 },
            Words::Attach { view: 9 },
            Words::After { view: 9, batches: 70 },
            Words::Left { view: 9, batches: 71 },
            Words::Refuse { reason: "no".into() },
        ];
        for words in all {
            let bytes = words.encode();
            assert_eq!(Words::decode(&bytes), Some(words.clone()));
            if !matches!(words, Words::Refuse { .. }) {
                assert_eq!(Words::decode(&bytes[..bytes.len() - 1]), None);
                assert_eq!(Words::decode(&[&bytes[..], &[0]].concat()), None);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            _ = Words::decode(&bytes);
        }
    }
}
