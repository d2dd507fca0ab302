//! Where two ledgers part, and cutting off what the own one has beyond that (docs/protocol.md, section 7).
//!
//! A ledger whose last view is older than that of the best one may end with entries that nobody acknowledged: the
//! others went on without them. Roots over beginnings of both ledgers, at a few sizes at a time, narrow down how much
//! they share.

use alloc::vec::Vec;

use tradewind_ledger::{Digest, Version, ViewId};

use super::Forming;
use crate::access::StoreAccess;
use crate::action::{Action, ReadFor};
use crate::config::Mutation;
use crate::error::{Fatal, PeerFault};
use crate::ids::{NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::shard::Replica;
use crate::wire::Control;

/// Sizes that are compared at a time.
const PROBES: u64 = 16;

type Roots = Vec<(Version, Digest)>;

/// The search for the common beginning of the own ledger and another one.
#[derive(Clone, Debug)]
pub(super) struct Search {
    shard: ShardIndex,
    source: NodeId,
    /// Known to be common.
    low: Version,
    /// The most that can be common.
    high: Version,
    own: Option<Roots>,
    theirs: Option<Roots>,
}

impl Search {
    pub(super) fn source(&self) -> NodeId {
        self.source
    }

    pub(super) fn new(shard: ShardIndex, source: NodeId, high: Version) -> Self {
        // The first entry names the lineage, which was compared.
        let low = Version(1).min(high);
        Self { shard, source, low, high, own: None, theirs: None }
    }

    /// The sizes to look at next: the last one first of all, then evenly spread ones.
    fn sizes(&self) -> Vec<Version> {
        let span = self.high.since(self.low);
        let probes = PROBES.min(span);
        (1..=probes).map(|i| Version(self.low.0 + span * i / probes)).collect()
    }

    /// Takes roots of one side; once those of both are there, narrows the search. Returns whether they were asked for.
    fn take(&mut self, is_own: bool, roots: &Roots) -> bool {
        let expected = self.sizes();
        if !roots.iter().map(|(size, _)| size).eq(&expected) {
            return false;
        }
        *(if is_own { &mut self.own } else { &mut self.theirs }) = Some(roots.clone());
        let (Some(own), Some(theirs)) = (&self.own, &self.theirs) else { return true };
        let same = own.iter().zip(theirs).take_while(|(own, theirs)| own == theirs).count();
        if let Some((differs, _)) = own.get(same) {
            self.high = Version(differs.0 - 1);
        }
        if let Some((common, _)) = same.checked_sub(1).and_then(|last| own.get(last)) {
            self.low = *common;
        }
        (self.own, self.theirs) = (None, None);
        true
    }

    /// The size of the common beginning, once it is known.
    fn common(&self) -> Option<Version> {
        (self.low == self.high).then_some(self.low)
    }
}

impl<S: StoreAccess> NodeCore<S> {
    /// Begins to compare the own ledger of a shard with a source's, of which `size` entries matter.
    pub(super) fn compare(&mut self, now: Now, shard: ShardIndex, source: NodeId, size: Version) {
        let own = self.replicas[shard.index()].as_ref().map_or(size, Replica::durable);
        self.out.counters.compared += 1;
        self.search_on(now, Search::new(shard, source, own.min(size)));
    }

    /// Asks both sides for the next roots, or cuts the ledger once it is known where.
    fn search_on(&mut self, now: Now, search: Search) {
        let Some(view) = self.completing() else { return };
        let (shard, source) = (search.shard, search.source);
        if let Some(common) = search.common() {
            return self.cut(now, shard, common);
        }
        let sizes = search.sizes();
        if let Phase::Forming(forming) = &mut self.phase
            && let Some(completion) = forming.completion()
        {
            completion.search = Some(search);
            completion.moved_at = now.instant;
        }
        let reader = ReadFor { peer: self.config.own, view, shard };
        self.out.actions.push_back(Action::ReadRoots { reader, sizes: sizes.clone() });
        self.question(now, source, Control::AskRoots { view, shard, sizes });
    }

    fn completing(&mut self) -> Option<ViewId> {
        let Phase::Forming(forming) = &mut self.phase else { return None };
        forming.completion().map(|completion| completion.view)
    }

    fn cut(&mut self, now: Now, shard: ShardIndex, common: Version) {
        let planted = self.planted == Some(Mutation::RewindTooFar);
        let remembered = self.remembered_as_committed(shard);
        let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
        let (durable, committed) = (replica.durable(), replica.committed());
        // Only if disks lost what they said to have synced can any of this be gone elsewhere.
        let committed = committed.max(remembered.min(durable));
        if common == durable {
            // The own ledger is a beginning of the other.
            return self.catch_up(now);
        }
        if common < committed {
            let ledger = self.config.shards[shard.index()].genesis.ledger.clone();
            return self.fail(Fatal::Rewind { ledger, common, committed });
        }
        let to = match planted {
            true => Version(common.0.saturating_sub(3).max(1)),
            false => common,
        };
        replica.begin_rewind(to, &mut self.out);
    }

    pub(super) fn handle_ask_roots(
        &mut self,
        now: Now,
        from: NodeId,
        view: ViewId,
        (shard, sizes): (ShardIndex, Vec<Version>),
    ) {
        if !self.serves(shard, from) || sizes.len() as u64 > PROBES {
            return self.peer_faulty(now, from, PeerFault::Message("roots of a foreign shard"));
        }
        let replica = self.replicas[shard.index()].as_ref().expect("it serves the shard");
        if replica.is_rewinding() || sizes.iter().any(|size| *size > replica.durable()) {
            // Its ledger was cut since it told of it; the other will hear of its new stand.
            self.out.counters.stale_messages += 1;
            return;
        }
        let reader = ReadFor { peer: from, view, shard };
        self.out.actions.push_back(Action::ReadRoots { reader, sizes });
    }

    pub(super) fn take_roots(
        &mut self,
        now: Now,
        (from, view, shard): (NodeId, ViewId, ShardIndex),
        roots: &Roots,
    ) {
        let own = self.config.own;
        self.answered(from);
        let current = self.completing() == Some(view);
        let forming = match &mut self.phase {
            Phase::Forming(forming) => Some(forming),
            _ => None,
        };
        let Some(completion) = forming.and_then(Forming::completion) else {
            self.out.counters.stale_messages += 1;
            return;
        };
        let fits = |search: &&mut Search| {
            current && search.shard == shard && (from == own || from == search.source)
        };
        let taken = completion.search.as_mut().filter(fits);
        if !taken.is_some_and(|search| search.take(from == own, roots)) {
            self.out.counters.stale_messages += 1;
            return;
        }
        if completion.search.as_ref().is_some_and(|s| s.own.is_none() && s.theirs.is_none())
            && let Some(search) = completion.search.take()
        {
            self.note_moved(now);
            self.search_on(now, search);
        }
    }
}
