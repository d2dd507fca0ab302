//! What a node remembers of the others, so that one of them that lost its disk, or got an older one back, is not taken
//! for the node that it was (docs/protocol.md, section 7, "Lost disks").
//!
//! A majority counts only if its members still have what they promised and acknowledged. So each node keeps on its own disk
//! what the others certainly had on theirs, and refuses whoever comes with less. What is remembered of a peer never shrinks
//! at an honest disk: the incarnation is counted before it is told; all members of an installed view promised it on
//! disk; and what is committed and on a node's disk is never cut off.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Version, ViewId};

use crate::access::StoreAccess;
use crate::action::Action;
use crate::config::Mutation;
use crate::error::{Loss, LostData, Refusal};
use crate::ids::{Incarnation, NodeId, Now, ShardIndex};
use crate::node::NodeCore;
use crate::shard::Replica;
use crate::wire::{Hello, Proposal};

/// The least that another node had on its disk.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Recollection {
    /// The highest incarnation it told of.
    pub incarnation: Incarnation,
    /// The last view that was installed with it.
    pub view: ViewId,
    /// By shard: how many committed entries it had on its disk. Zero where nothing is known; may be shorter than the
    /// site's shards.
    pub sizes: Vec<Version>,
}

impl Recollection {
    fn size(&self, shard: ShardIndex) -> Version {
        self.sizes.get(shard.index()).copied().unwrap_or_default()
    }

    /// What of this a peer lacks that says hello.
    fn missing_in(&self, hello: &Hello) -> Option<(Option<ShardIndex>, u64, u64)> {
        if hello.stand.incarnation < self.incarnation {
            return Some((None, hello.stand.incarnation.0, self.incarnation.0));
        }
        let size = |shard: ShardIndex| {
            let told = hello.ledgers.iter().find(|ledger| ledger.shard == shard);
            told.map_or(Version::ZERO, |ledger| ledger.size)
        };
        let shards = (0..self.sizes.len()).map(|index| ShardIndex(index as u16));
        let short = shards.into_iter().find(|shard| size(*shard) < self.size(*shard));
        short.map(|shard| (Some(shard), size(shard).0, self.size(shard).0))
    }
}

impl<S: StoreAccess> NodeCore<S> {
    /// Gives the node what it remembered of the others, by node, as the last [`Action::Remember`] wrote it: before anything
    /// else, and without what is of a key that a node no longer has.
    pub fn recall(&mut self, recollections: Vec<Recollection>) {
        for (peer, recollection) in self.peers.iter_mut().zip(recollections) {
            peer.recollection = recollection;
        }
    }

    /// Why a peer cannot be the one that this node knows.
    pub(super) fn lost_data(&self, from: NodeId, hello: &Hello) -> Option<Refusal> {
        if self.planted == Some(Mutation::LostDiskTrusted) {
            return None;
        }
        let peer = &self.peers[from.index()];
        let known = &peer.recollection;
        let told = peer.stand.filter(|stand| stand.incarnation == hello.stand.incarnation);
        if peer.heard && told >= Some(hello.stand) {
            // This stand, or a later one of the same start, was looked at before; its hello may be older than the view.
            return None;
        }
        let number = hello.stand.incarnation.0;
        let loss = match known.missing_in(hello) {
            None if hello.last_view < known.view => {
                Loss::View { found: hello.last_view, known: known.view }
            }
            // What comes first over a link is not older than what came over the one before.
            None if told > Some(hello.stand) => Loss::Incarnation { found: number, known: number },
            None => return None,
            Some((None, found, known)) => Loss::Incarnation { found, known },
            Some((Some(shard), found, known)) => Loss::Entries {
                ledger: self.config.shards[shard.index()].genesis.ledger.clone(),
                found: Version(found),
                known: Version(known),
            },
        };
        Some(Refusal::LostData(Box::new(LostData { name: self.name(from), loss })))
    }

    /// Whether this node has heard, and not refused, each other member as the start that a proposal names. Otherwise their
    /// hellos are on their way: nothing is promised before.
    pub(super) fn has_heard(&self, proposal: &Proposal) -> bool {
        proposal.members.iter().all(|(node, stand)| {
            let peer = &self.peers[node.index()];
            let heard = peer.stand.is_some_and(|known| known.incarnation == stand.incarnation);
            *node == self.config.own || heard && peer.heard && peer.refusal.is_none()
        })
    }

    /// So many entries of a shard were committed, as far as this node remembers from before its start: what it remembers of
    /// others is never more than that, and these entries were here too.
    pub(super) fn remembered_as_committed(&self, shard: ShardIndex) -> Version {
        let sizes = self.peers.iter().map(|peer| peer.recollection.size(shard));
        sizes.max().unwrap_or_default()
    }

    /// A peer told of its start.
    pub(super) fn note_start(&mut self, from: NodeId, incarnation: Incarnation) {
        let known = &mut self.peers[from.index()].recollection.incarnation;
        *known = (*known).max(incarnation);
    }

    /// A view is installed: all its members promised it, and are the starts that it names.
    pub(super) fn note_members(&mut self) {
        for node in self.other_members() {
            let peer = &mut self.peers[node.index()];
            let incarnation = peer.stand.map_or(Incarnation::default(), |stand| stand.incarnation);
            peer.recollection.view = peer.recollection.view.max(self.view);
            self.note_start(node, incarnation);
        }
    }

    /// Asks that what is known of the others be written down, if it is more than before; no sooner than the period after
    /// the last time, unless `at_once`.
    pub(crate) fn remember(&mut self, now: Now, at_once: bool) {
        let period = self.config.limits.remember_us;
        if !at_once && now.instant.since(self.remembered_at) < period {
            return;
        }
        self.remembered_at = now.instant;
        let shards = self.config.shards.len();
        for (index, replica) in self.replicas.iter().enumerate() {
            for (node, size) in replica.iter().flat_map(Replica::kept_by_others) {
                let sizes = &mut self.peers[node.index()].recollection.sizes;
                if sizes.is_empty() {
                    *sizes = vec![Version::ZERO; shards];
                }
                sizes[index] = sizes[index].max(size);
            }
        }
        let all: Vec<Recollection> =
            self.peers.iter().map(|peer| peer.recollection.clone()).collect();
        if all != self.remembered {
            self.remembered.clone_from(&all);
            self.out.counters.remembered += 1;
            self.out.actions.push_back(Action::Remember(all));
        }
    }
}
