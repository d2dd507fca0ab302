//! Messages of the control lane: rare, reliable, in order while a link lasts.
//!
//! One byte of format version, then postcard. Decoding is strict: the whole message, nothing behind it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tradewind_ledger::{Digest, Hlc, Lineage, SnapshotRecord, Version, ViewId};

use crate::batch::EntryBatch;
use crate::config::Schedule;
use crate::error::Refusal;
use crate::ids::{Incarnation, NodeId, ShardIndex};
use crate::roster::{RosterId, Span};
use crate::taking::Part;

/// First byte of every message.
const FORMAT: u8 = 6;

/// A message. Variants are only ever appended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Control {
    /// What the sender has, who is in no running view; it stands still until a proposal asks for more.
    Hello(Hello),
    /// The receiver's part is refused.
    Refuse(Refusal),
    /// The leader proposes a view.
    Propose(Proposal),
    /// The sender has every ledger as proposed, and rows for the view.
    Accept { view: ViewId },
    /// All members have accepted: install the view.
    Commit { view: ViewId },
    /// Asks the source of a shard for entries.
    Fetch { view: ViewId, shard: ShardIndex, first: Version, end: Version },
    /// Entries from `first`, and the root over all before.
    Entries {
        view: ViewId,
        shard: ShardIndex,
        first: Version,
        root_before: Digest,
        entries: EntryBatch,
    },
    /// Asks the source of a shard for a piece of a detached value.
    FetchValue { view: ViewId, shard: ShardIndex, digest: Digest, offset: u64 },
    /// A piece of a detached value.
    ValuePart {
        view: ViewId,
        shard: ShardIndex,
        digest: Digest,
        offset: u64,
        #[serde(with = "octets")]
        bytes: Vec<u8>,
    },
    /// The answer to a hello, and the first word of a view to those who are not in it: it runs without them, and what
    /// the sender has to give of it.
    Running { view: ViewId, members: Vec<NodeId>, ledgers: Vec<Shelf> },
    /// A proposal's number is not above this one, which the sender has accepted.
    Outbid { accepted: ViewId },
    /// Asks the source of a shard for the roots over its first entries, at these sizes.
    AskRoots { view: ViewId, shard: ShardIndex, sizes: Vec<Version> },
    /// Roots by size.
    Roots { view: ViewId, shard: ShardIndex, roots: Vec<(Version, Digest)> },
    /// To the leader: the sender came closer to what is proposed.
    Progress { view: ViewId },
    /// The newest snapshot that the sender made of a shard.
    Snapshot { shard: ShardIndex, record: SnapshotRecord },
    /// Instead of entries: they were pruned; and of how many entries a snapshot is that the sender has instead.
    Pruned { view: ViewId, shard: ShardIndex, snapshot: Option<Version> },
    /// Asks for a piece of a part of the snapshot of `size` entries.
    FetchPart { view: ViewId, shard: ShardIndex, size: Version, part: Part, offset: u64 },
    /// A piece of a part that has `total` bytes; zero if it is not there.
    Part {
        view: ViewId,
        shard: ShardIndex,
        size: Version,
        part: Part,
        offset: u64,
        total: u64,
        #[serde(with = "octets")]
        bytes: Vec<u8>,
    },
}

/// A message in words, for whoever follows a run.
#[cfg(feature = "mutations")]
#[must_use]
pub fn message_in_words(message: &[u8]) -> alloc::string::String {
    Control::decode(message)
        .map_or_else(alloc::string::String::from, |message| alloc::format!("{message:?}"))
}

/// One stand of a node: a number that grows each time the node stops a view or gives up a proposal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Stand {
    pub(crate) incarnation: Incarnation,
    pub(crate) attempt: u64,
}

/// What a node tells when it is in no running view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) stand: Stand,
    /// The digests of the rosters that the sender's topology file tells of, from the founding on; at least that one.
    pub(crate) rosters: Vec<Digest>,
    /// The roster of the last view that it promised, and the newest of which it knows that a view was installed.
    pub(crate) begun: RosterId,
    pub(crate) established: RosterId,
    /// The highest view installed or accepted.
    pub(crate) last_view: ViewId,
    /// Peers that the sender has no link to.
    pub(crate) waiting_for: Vec<NodeId>,
    /// Whether all that the sender has is on its disk, and nothing of a stopped view is still to be delivered.
    pub(crate) settled: bool,
    /// Whether more of a view that the sender ran may get to its disk than is told here.
    pub(crate) unfinished: bool,
    /// Nodes because of which the sender gave up its last proposal.
    pub(crate) late: Vec<NodeId>,
    /// Members that held the others up in the view that the sender stopped.
    pub(crate) slow: Vec<NodeId>,
    pub(crate) ledgers: Vec<LedgerState>,
}

impl Hello {
    /// The last roster that the sender's topology file tells of.
    pub(crate) fn last(&self) -> RosterId {
        RosterId(self.rosters.len().saturating_sub(1) as u32)
    }
}

/// A ledger as a node has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LedgerState {
    pub(crate) shard: ShardIndex,
    pub(crate) lineage: Lineage,
    /// The view of the last VIEW entry.
    pub(crate) view: ViewId,
    pub(crate) size: Version,
    pub(crate) root: Digest,
}

/// What a member of a running view has to give of a ledger to those who are not in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Shelf {
    pub(crate) shard: ShardIndex,
    /// Entries that are committed in this view, and on the sender's disk; zero before the first.
    pub(crate) size: Version,
    /// Who has so many can be let in: what is missing is little.
    pub(crate) near: Version,
}

/// Whether these can be the members of a view of a site of so many nodes.
pub(crate) fn are_members(members: &[NodeId], nodes: usize) -> bool {
    members.is_sorted_by(|a, b| a < b) && members.iter().all(|node| node.index() < nodes)
}

/// The next view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) view: ViewId,
    /// The leader's clock: the time of the VIEW entries, unless their ledgers are ahead of it.
    pub(crate) stamp: Hlc,
    /// How blocks of the bulk lane get to all members: the leader's choice.
    pub(crate) schedule: Schedule,
    /// The members, ascending, with the stands that it is made of. Who has another one by now ignores it. The first
    /// one leads.
    pub(crate) members: Vec<(NodeId, Stand)>,
    /// The roster that they are on, and from which on they are a majority of each.
    pub(crate) roster: RosterId,
    pub(crate) established: RosterId,
    /// By shard; `None` where the members hold no majority of it: it does not run in the view.
    pub(crate) targets: Vec<Option<Target>>,
}

impl Proposal {
    /// The rosters that its members are majorities of.
    pub(crate) fn span(&self) -> Span {
        Span { established: self.established, roster: self.roster }
    }

    /// The members without their stands.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.members.iter().map(|(node, _)| *node).collect()
    }

    /// Who leads: the lowest member.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.members.first().map(|(node, _)| *node)
    }

    /// Whether it can be one for a site of so many nodes and shards: members ascending, and ledgers held by members.
    pub(crate) fn is_sound(&self, nodes: usize, shards: usize) -> bool {
        let held = |target: &Target| self.stand(target.source).is_some();
        self.members.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.members.iter().all(|(node, _)| node.index() < nodes)
            && self.targets.len() == shards
            && self.targets.iter().flatten().all(held)
    }

    /// The stand of a member that the proposal is made of.
    pub(crate) fn stand(&self, node: NodeId) -> Option<Stand> {
        self.members.iter().find(|(member, _)| *member == node).map(|(_, stand)| *stand)
    }
}

/// How a ledger is before the view begins: the log of the latest view, and of these the longest; and who has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) view: ViewId,
    pub(crate) size: Version,
    pub(crate) root: Digest,
    pub(crate) source: NodeId,
}

impl Control {
    /// The bytes that travel.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, alloc::vec![FORMAT])
            .expect("a message has nothing postcard cannot write")
    }

    /// Reads exactly one message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => match postcard::take_from_bytes(rest) {
                Ok((message, [])) => Ok(message),
                Ok(_) => Err("bytes behind the message"),
                Err(_) => Err("not a message"),
            },
            Some(_) => Err("another format version; run the same release on all nodes of a site"),
            None => Err("empty"),
        }
    }
}

/// Serde of byte strings as one piece instead of byte by byte.
pub(crate) mod octets {
    use alloc::vec::Vec;
    use core::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        from.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_proposal_names_nobody_and_nothing_that_is_not_there() {
        let stand = Stand { incarnation: Incarnation(1), attempt: 1 };
        let target = |source| {
            let (view, size, root) = (ViewId(1), Version(2), Digest([3; 32]));
            Some(Target { view, size, root, source: NodeId(source) })
        };
        let proposal = |members: &[u16], targets: Vec<Option<Target>>| {
            let members = members.iter().map(|node| (NodeId(*node), stand)).collect();
            let (roster, established) = (RosterId(0), RosterId(0));
            let (view, stamp, schedule) = (ViewId(2), Hlc(0), Schedule::Chain);
            Proposal { view, stamp, schedule, members, roster, established, targets }
        };
        assert!(proposal(&[0, 2], vec![target(2), None]).is_sound(3, 2));
        assert!(!proposal(&[2, 0], vec![target(2), None]).is_sound(3, 2), "not ascending");
        assert!(!proposal(&[0, 3], vec![target(0), None]).is_sound(3, 2), "no such node");
        assert!(!proposal(&[0, 2], vec![target(1), None]).is_sound(3, 2), "held by no member");
        assert!(!proposal(&[0, 2], vec![target(9), None]).is_sound(3, 2), "held by nobody");
        assert!(!proposal(&[0, 2], vec![target(0)]).is_sound(3, 2), "another number of shards");
    }

    #[test]
    fn decoding_is_strict() {
        let message = Control::Entries {
            view: ViewId(3),
            shard: ShardIndex(1),
            first: Version(7),
            root_before: Digest([5; 32]),
            entries: [&b"one"[..], b"", b"three"].into_iter().collect(),
        };
        let mut bytes = message.encode();
        assert_eq!(Control::decode(&bytes), Ok(message));
        bytes.push(0);
        assert!(Control::decode(&bytes).is_err());
        assert!(Control::decode(&bytes[..bytes.len() - 2]).is_err());
        bytes[0] = 9;
        assert!(Control::decode(&bytes).is_err());
        assert!(Control::decode(&[]).is_err());
    }

    /// Golden bytes: a change here is a change of the protocol.
    #[test]
    fn the_encoding_does_not_drift() {
        let accept = Control::Accept { view: ViewId(300) };
        assert_eq!(accept.encode(), [FORMAT, 3, 0xAC, 2]);
        let part = Control::ValuePart {
            view: ViewId(1),
            shard: ShardIndex(2),
            digest: Digest([0xAB; 32]),
            offset: 3,
            bytes: b"xy".to_vec(),
        };
        let golden = [&[FORMAT, 8, 1, 2][..], &[0xAB; 32], &[3, 2, b'x', b'y']].concat();
        assert_eq!(part.encode(), golden);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Control::decode(&bytes);
        }
    }
}
