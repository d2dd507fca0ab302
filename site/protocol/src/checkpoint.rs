//! From marks to checkpoints: signing what is durable, and collecting the signatures of a majority
//! (docs/protocol.md, section 6).

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Checkpoint, Policy, SignedNote, Version};

use crate::ids::NodeId;
use crate::layout::{SIGNATURE, ShardLayout};
use crate::machine::Mark;
use crate::memory::Memory;
use crate::shard::Elders;

/// Marks that may wait for signatures; older ones are given up.
const MARKS_MAX: usize = 128;

type Signature = [u8; SIGNATURE];

/// The marks of one shard that have no majority of signatures yet.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    policy: Policy,
    own: usize,
    elders: Vec<Elders>,
    waiting: VecDeque<(Mark, Vec<Option<Signature>>)>,
    /// Largest size given out to be signed.
    asked: Version,
    /// Largest size signed here.
    signed: Version,
    /// The signature over `signed`, while the row does not show it.
    unpublished: Option<Signature>,
    /// By rank: the size of the last signature that was looked at.
    heard: Vec<Version>,
    /// Largest size with a majority.
    checkpoint: Version,
}

impl Marks {
    pub(crate) fn new(policy: Policy, own: usize) -> Self {
        let heard = vec![Version::ZERO; policy.members().len()];
        Self {
            policy,
            own,
            elders: Vec::new(),
            waiting: VecDeque::new(),
            asked: Version::ZERO,
            signed: Version::ZERO,
            unpublished: None,
            heard,
            checkpoint: Version::ZERO,
        }
    }

    /// A new view with these members: rows are zero again, and its first mark covers all before.
    pub(crate) fn begin_view(&mut self, policy: Policy, own: usize, elders: Vec<Elders>) {
        self.heard = vec![Version::ZERO; policy.members().len()];
        (self.policy, self.own, self.elders) = (policy, own, elders);
        self.forget();
    }

    /// Gives up all marks.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.asked = self.signed;
        self.unpublished = None;
        self.heard.fill(Version::ZERO);
    }

    pub(crate) fn push(&mut self, mark: Mark) {
        if self.waiting.len() == MARKS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((mark, vec![None; self.heard.len()]));
    }

    /// Largest size signed here.
    pub(crate) fn signed_size(&self) -> Version {
        self.signed
    }

    /// Largest size with a majority of signatures.
    pub(crate) fn checkpoint_size(&self) -> Version {
        self.checkpoint
    }

    /// Whether a mark waits for its majority.
    pub(crate) fn is_outstanding(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The newest mark up to `durable`, if it is to be signed now: one signature at a time.
    pub(crate) fn next_to_sign(&mut self, durable: Version) -> Option<Checkpoint> {
        if self.asked > self.signed {
            return None;
        }
        let mark = self.waiting.iter().rev().map(|(mark, _)| mark).find(|m| m.size <= durable)?;
        if mark.size <= self.signed {
            return None;
        }
        self.asked = mark.size;
        Some(self.checkpoint_of(mark))
    }

    /// The own signature. One for a mark of an earlier view counts for nothing.
    pub(crate) fn add_own(&mut self, size: Version, signature: Signature) {
        if size != self.asked || size <= self.signed {
            return;
        }
        self.signed = size;
        let own = self.own;
        if let Some((_, signatures)) = self.waiting.iter_mut().find(|(mark, _)| mark.size == size) {
            signatures[own] = Some(signature);
            self.unpublished = Some(signature);
        }
    }

    /// Shows the own signature: first the bytes, then the size that they are for.
    pub(crate) fn publish<M: Memory>(
        &mut self,
        memory: &mut M,
        layout: &ShardLayout,
        peers: &[NodeId],
    ) {
        let Some(signature) = self.unpublished.take() else { return };
        memory.store(layout.signature().start, &signature);
        memory.publish(layout.signature(), peers);
        memory.store(layout.signed_size().start, &self.signed.0.to_le_bytes());
        memory.publish(layout.signed_size(), peers);
    }

    /// Looks at what the member of `rank` signed. Returns whether that was wrong: a torn pair of size and
    /// signature (the next one will be whole), or a node that lies.
    pub(crate) fn collect<M: Memory>(
        &mut self,
        memory: &M,
        layout: &ShardLayout,
        (rank, peer): (usize, NodeId),
        delivered: Version,
    ) -> bool {
        let size = Version(memory.load(peer, layout.signed_size().start));
        if size <= self.heard[rank] || size > delivered {
            return false;
        }
        let Some(at) = self.waiting.iter().position(|(mark, _)| mark.size == size) else {
            self.heard[rank] = size;
            return false;
        };
        let mut signature = [0; SIGNATURE];
        memory.copy(peer, layout.signature().start, &mut signature);
        if memory.load(peer, layout.signed_size().start) != size.0 {
            return false;
        }
        self.heard[rank] = size;
        let checkpoint = self.checkpoint_of(&self.waiting[at].0);
        let key = &self.policy.keys()[rank];
        let line = checkpoint.signature_of(key.public_key(), signature);
        let holds = key.verify(&alloc::format!("{checkpoint}"), &line);
        if holds {
            self.waiting[at].1[rank] = Some(signature);
        }
        !holds
    }

    /// The newest mark up to `durable` with a majority of signatures; it and all older ones are done.
    pub(crate) fn next_checkpoint(&mut self, durable: Version) -> Option<(Version, SignedNote)> {
        let threshold = self.policy.threshold();
        let enough = |signatures: &[Option<Signature>]| {
            let of = |elders: &Elders| {
                let signed = elders.ranks.iter().filter(|rank| signatures[**rank].is_some());
                signed.count() >= elders.threshold
            };
            signatures.iter().flatten().count() >= threshold && self.elders.iter().all(of)
        };
        let at = self.waiting.iter().rposition(|(m, s)| m.size <= durable && enough(s))?;
        let (mark, signatures) = self.waiting.drain(..=at).next_back()?;
        let checkpoint = self.checkpoint_of(&mark);
        let keys = self.policy.keys().iter().zip(signatures);
        let lines = keys.filter_map(|(key, signature)| {
            Some(checkpoint.signature_of(key.public_key(), signature?))
        });
        let note = checkpoint.with_signatures(lines.collect()).expect("a checkpoint makes a note");
        self.checkpoint = mark.size;
        Some((mark.size, note))
    }

    fn checkpoint_of(&self, mark: &Mark) -> Checkpoint {
        Checkpoint { origin: self.policy.origin().into(), size: mark.size, root: mark.root }
    }
}
