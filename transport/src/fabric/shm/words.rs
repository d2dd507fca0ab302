//! What two fabrics tell each other about shared memory over their authenticated link.
//!
//! | kind | body | meaning |
//! |---|---|---|
//! | 1 `Invite` | 16 bytes name, 16 bytes token, 8 bytes process-id namespace | hand me your memory at this socket, with this token |
//! | 2 `Mapped` | 8 bytes view | I have mapped your memory of this view |
//! | 3 `Attach` | 8 bytes view, 8 bytes position | read my ring from here; what was published before is visible |
//! | 4 `Ask` | 8 bytes view | you were too slow for my ring: say `Mapped` when you read this |
//! | 5 `Refuse` | text | I do not take your memory, and why |

use crate::fabric::bytes::{number, take, text};

/// Names a socket, and proves that it was told over the link.
pub(super) type Random = [u8; 16];

/// A message of one shared-memory fabric to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Words {
    Invite { name: Random, token: Random, space: u64 },
    Mapped { view: u64 },
    Attach { view: u64, position: u64 },
    Ask { view: u64 },
    Refuse { reason: String },
}

impl Words {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Invite { name, token, space } => {
                [&[1], &name[..], token, &space.to_le_bytes()].concat()
            }
            Self::Mapped { view } => [&[2], &view.to_le_bytes()[..]].concat(),
            Self::Attach { view, position } => {
                [&[3], &view.to_le_bytes()[..], &position.to_le_bytes()].concat()
            }
            Self::Ask { view } => [&[4], &view.to_le_bytes()[..]].concat(),
            Self::Refuse { reason } => [&[5], reason.as_bytes()].concat(),
        }
    }

    /// Whether these are words about RDMA: the peer has another provider.
    pub(super) fn is_of_verbs(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|kind| (65..=70).contains(kind))
    }

    /// `None` for what no fabric says.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let words = match kind {
            1 => Self::Invite {
                name: take(&mut rest)?,
                token: take(&mut rest)?,
                space: number(&mut rest)?,
            },
            2 => Self::Mapped { view: number(&mut rest)? },
            3 => Self::Attach { view: number(&mut rest)?, position: number(&mut rest)? },
            4 => Self::Ask { view: number(&mut rest)? },
            5 => Self::Refuse { reason: text(&mut rest) },
            _ => return None,
        };
        rest.is_empty().then_some(words)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let all = [
            Words::Invite { name: [1; 16], token: [2; 16], space: 4 },
            Words::Mapped { view: 3 },
            Words::Attach { view: 3, position: 77 },
            Words::Ask { view: 3 },
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
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            _ = Words::decode(&bytes);
        }
    }
}
