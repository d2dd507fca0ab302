//! How the members of a shard commit its ledger to the snapshots that they make (docs/protocol.md, section 6).
//!
//! Each makes its own and tells the others its root. Once a majority told the same, the lowest member of the view asks, in
//! the total order, for a SNAPSHOT entry that holds it. So no single machine that computed wrongly decides what the state
//! is, and one that finds another root in the ledger knows that it is the one that differs.

use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{SnapshotRecord, Version, quorum};

use super::Replica;
use crate::access::StoreAccess;
use crate::error::SnapshotsDiffer;
use crate::ids::NodeId;

/// Bytes of a record in a message.
pub(crate) const RECORD: usize = 52;

/// The snapshots of one shard, as its members told.
#[derive(Clone, Debug)]
pub(super) struct Agreeing {
    own: usize,
    /// The own ones that are kept, the newest last.
    made: Vec<SnapshotRecord>,
    /// By rank: the newest.
    told: Vec<Option<SnapshotRecord>>,
    /// The newest own one that the ledger holds, and where.
    agreed: Option<(Version, SnapshotRecord)>,
}

impl Agreeing {
    pub(super) fn new(own: usize, members: usize) -> Self {
        Self { own, made: Vec::new(), told: vec![None; members], agreed: None }
    }

    /// The ledger begins with a snapshot that others gave, of which its manifest shows that they signed for it.
    pub(super) fn took(&mut self, agreed: (Version, SnapshotRecord)) {
        self.agreed = Some(agreed);
    }

    /// The shard has these members from now on; it had those before.
    pub(super) fn begin_view(&mut self, own: usize, before: &[NodeId], now: &[NodeId]) {
        let told = |node: &NodeId| {
            let rank = before.iter().position(|member| member == node)?;
            self.told[rank]
        };
        self.told = now.iter().map(told).collect();
        self.own = own;
    }

    /// What a majority told, if it is of more entries than what the ledger is `known` to hold, and this node made a snapshot
    /// there too: perhaps another one, and then it is to find that out.
    pub(super) fn due(&self, known: Version) -> Option<SnapshotRecord> {
        let told = || self.told.iter().flatten();
        let same = |record: &SnapshotRecord| told().filter(|other| *other == record).count();
        let made = |size| self.made.iter().any(|made| made.size == size);
        let due = told().filter(|record| record.size > known && made(record.size));
        due.copied().find(|record| same(record) >= quorum(self.told.len()))
    }
}

impl<S: StoreAccess> Replica<S> {
    /// This node made a snapshot, or has it from before this start. Returns who told another one of the same entries.
    pub(crate) fn snapshot_made(
        &mut self,
        record: SnapshotRecord,
    ) -> Vec<(NodeId, SnapshotRecord)> {
        let agreeing = &mut self.agreeing;
        agreeing.made.retain(|made| made.size < record.size);
        // Those that a shell keeps whole.
        agreeing.made.drain(..agreeing.made.len().saturating_sub(1));
        agreeing.made.push(record);
        agreeing.told[agreeing.own] = Some(record);
        let told = self.members.iter().zip(&agreeing.told);
        let told = told.filter_map(|(node, told)| Some((*node, (*told)?)));
        told.filter(|(_, told)| told.size == record.size && *told != record).collect()
    }

    /// The snapshot that this node can give: the newest that the ledger holds and this node made too, or took.
    pub(crate) fn offer(&self) -> Option<(Version, SnapshotRecord)> {
        self.agreeing.agreed
    }

    /// As [`Replica::offer`], known from an earlier start.
    pub(crate) fn recall_offer(&mut self, at: Version, record: SnapshotRecord) {
        self.agreeing.agreed = Some((at, record));
    }

    /// An own snapshot that the ledger holds since the last call, for good: a majority signed for it. Before that it cannot be
    /// given to anybody, so nothing may be pruned for its sake: who lacks that may be needed for the next signature.
    pub(crate) fn newly_agreed(&mut self) -> Option<(Version, SnapshotRecord)> {
        let (at, record) = *self.replay().snapshot()?;
        let known = self.agreeing.agreed.is_some_and(|(_, known)| known.size >= record.size);
        let signed = self.marks.checkpoint_size();
        let settled = at < self.committed.min(self.durable).min(signed);
        if known || !settled || !self.agreeing.made.contains(&record) {
            return None;
        }
        self.agreeing.agreed = Some((at, record));
        self.agreeing.agreed
    }

    /// The own newest snapshot.
    pub(crate) fn newest_snapshot(&self) -> Option<SnapshotRecord> {
        self.agreeing.made.last().copied()
    }

    /// Another member made a snapshot. Returns the own one if it is of the same entries and differs.
    pub(crate) fn snapshot_told(
        &mut self,
        from: NodeId,
        record: SnapshotRecord,
    ) -> Option<SnapshotRecord> {
        let rank = self.members.iter().position(|member| *member == from)?;
        self.agreeing.told[rank] = Some(record);
        let same = |made: &&SnapshotRecord| made.size == record.size;
        self.agreeing.made.iter().find(same).filter(|made| **made != record).copied()
    }

    /// An own snapshot that is not what the ledger says it is.
    pub(crate) fn snapshots_differ(&self) -> Option<SnapshotsDiffer> {
        let (_, agreed) = self.replay().snapshot()?;
        let own = self.agreeing.made.iter().find(|made| made.size == agreed.size)?;
        (own != agreed).then_some(SnapshotsDiffer {
            size: own.size,
            root: own.root,
            agreed: agreed.root,
        })
    }

    /// What the lowest member is to ask for, in a message of its own.
    pub(super) fn snapshot_due(&self) -> Option<SnapshotRecord> {
        let flow = self.flow.as_ref().filter(|flow| flow.leads && !self.outbox.is_cut())?;
        let held = self.replay().snapshot().map_or(Version::ZERO, |(_, record)| record.size);
        self.agreeing.due(held.max(flow.snapshot_sent))
    }
}

/// The payload of the request.
pub(super) fn encode(record: &SnapshotRecord) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&record.size.0.to_le_bytes());
    bytes[8..40].copy_from_slice(&record.root.0);
    bytes[40..44].copy_from_slice(&record.chunks.to_le_bytes());
    bytes[44..].copy_from_slice(&record.bytes.to_le_bytes());
    bytes
}

/// Reads what [`encode`] wrote; the entry made of it can be encoded.
pub(super) fn decode(payload: &[u8]) -> Result<SnapshotRecord, &'static str> {
    let wrong = "not the record of a snapshot";
    let bytes: &[u8; RECORD] = payload.try_into().map_err(|_| wrong)?;
    let (size, rest) = bytes.split_first_chunk().ok_or(wrong)?;
    let (root, rest) = rest.split_first_chunk().ok_or(wrong)?;
    let (chunks, rest) = rest.split_first_chunk().ok_or(wrong)?;
    let (bytes, _) = rest.split_first_chunk().ok_or(wrong)?;
    let record = SnapshotRecord {
        size: Version(u64::from_le_bytes(*size)),
        root: tradewind_ledger::Digest(*root),
        chunks: u32::from_le_bytes(*chunks),
        bytes: u64::from_le_bytes(*bytes),
    };
    if record.size == Version::ZERO || record.chunks == 0 || record.bytes < record.chunks.into() {
        return Err(wrong);
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tradewind_ledger::Digest;

    use super::*;

    fn record(size: u64, root: u8) -> SnapshotRecord {
        SnapshotRecord { size: Version(size), root: Digest([root; 32]), chunks: 2, bytes: 100 }
    }

    #[test]
    fn a_majority_makes_a_snapshot_due_and_no_other() {
        let mut agreeing = Agreeing::new(1, 3);
        (agreeing.made, agreeing.told[1]) = (vec![record(7, 1)], Some(record(7, 1)));
        assert_eq!(agreeing.due(Version::ZERO), None);
        agreeing.told[0] = Some(record(7, 2));
        assert_eq!(agreeing.due(Version::ZERO), None);
        agreeing.told[2] = Some(record(7, 1));
        assert_eq!(agreeing.due(Version::ZERO), Some(record(7, 1)));
        assert_eq!(agreeing.due(Version(7)), None, "the ledger has it");
        agreeing.told = vec![Some(record(9, 1)), Some(record(7, 1)), Some(record(9, 1))];
        assert_eq!(agreeing.due(Version::ZERO), None, "nothing here to compare it with");
        agreeing.told = vec![Some(record(7, 2)), Some(record(7, 1)), Some(record(7, 2))];
        assert_eq!(agreeing.due(Version::ZERO), Some(record(7, 2)), "this node is the odd one");
    }

    proptest! {
        #[test]
        fn any_payload_is_a_record_or_none(payload in proptest::collection::vec(any::<u8>(), 40..60)) {
            if let Ok(record) = decode(&payload) {
                prop_assert_eq!(&encode(&record)[..], &payload[..]);
            }
        }
    }
}
