//! Completing ledgers, for a proposed view or beside a running one: what a node that is behind asks for and takes up, and what a node that has
//! more gives (docs/protocol.md, section 7).

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use tradewind_ledger::{Digest, Version, ViewId};

use super::rewinding::Search;
use super::{Forming, Stage};
use crate::access::StoreAccess;
use crate::action::{Action, ReadFor};
use crate::batch::EntryBatch;
use crate::catch_up::{CatchUp, Step};
use crate::config::Mutation;
use crate::error::{Fatal, PeerFault};
use crate::ids::{Instant, NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::shard::Replica;
use crate::taking::Want;
use crate::wire::{Control, Proposal, Target};

/// The completing of ledgers, for a proposal or beside a running view: at most one of these is at work.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    /// The view that is proposed, or runs.
    pub(super) view: ViewId,
    /// By shard: what the own ledger is to be.
    goals: Vec<Option<Goal>>,
    pub(super) fetch: Option<CatchUp>,
    /// The shard whose own ledger is no beginning of the proposed one.
    apart: Option<ShardIndex>,
    pub(super) search: Option<Search>,
    /// When something was asked for, or came.
    pub(super) moved_at: Instant,
    /// Who has pruned what this node lacks of a shard, and of which size a snapshot is that it offers instead.
    pub(super) pruned: Vec<(ShardIndex, NodeId, Option<Version>)>,
    /// Who has not got a snapshot any more that it offered, or that another gave parts of.
    pub(super) gone: Vec<(ShardIndex, NodeId, Version)>,
    /// The part of a snapshot that is under way, or on its way to the own disk.
    pub(super) asking: Option<Asking>,
}

/// A part of a snapshot that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) shard: ShardIndex,
    pub(super) source: NodeId,
    /// Entries that the snapshot is of.
    pub(super) size: Version,
    pub(super) want: Want,
    /// Whether all came, and the shell writes them.
    pub(super) keeping: bool,
}

impl Asking {
    pub(super) fn new(shard: ShardIndex, source: NodeId, size: Version, want: Want) -> Self {
        Self { shard, source, size, want, keeping: false }
    }

    /// What asks for the next piece, when so many bytes are here.
    pub(super) fn question(&self, view: ViewId, offset: u64) -> Control {
        let (shard, size) = (self.shard, self.size);
        match self.want {
            Want::Part(part) => Control::FetchPart { view, shard, size, part, offset },
            Want::Value(_, digest) => Control::FetchValue { view, shard, digest, offset },
        }
    }
}

/// The ledger that a node completes its own to.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) view: ViewId,
    pub(super) size: Version,
    /// Known of a proposal; of a running view it is found while entries come.
    pub(super) root: Option<Digest>,
    pub(super) source: NodeId,
}

impl From<&Target> for Goal {
    fn from(target: &Target) -> Self {
        let Target { view, size, root, source } = *target;
        Self { view, size, root: Some(root), source }
    }
}

impl Completion {
    pub(super) fn new(view: ViewId, goals: Vec<Option<Goal>>, now: Instant) -> Self {
        let (fetch, apart, search) = (None, None, None);
        let (pruned, gone, asking) = (Vec::new(), Vec::new(), None);
        let moved_at = now;
        Self { view, goals, fetch, apart, search, moved_at, pruned, gone, asking }
    }

    /// Who has not yet answered what it was asked.
    pub(super) fn awaited(&self) -> Option<NodeId> {
        let fetched = self.fetch.as_ref().filter(|fetch| !fetch.is_idle());
        fetched
            .map(|fetch| fetch.source)
            .or_else(|| self.search.as_ref().map(Search::source))
            .or_else(|| self.awaited_part())
    }

    /// Who has not yet given the part of a snapshot that it was asked for.
    pub(super) fn awaited_part(&self) -> Option<NodeId> {
        let asked = self.asking.as_ref().filter(|asking| !asking.keeping);
        asked.map(|asking| asking.source)
    }

    /// Takes nothing more from this source. Returns whether anything was under way.
    pub(super) fn abandon_source(&mut self, source: NodeId) -> bool {
        let fetches = self.fetch.take_if(|fetch| fetch.source == source).is_some();
        let searches = self.search.take_if(|search| search.source() == source).is_some();
        let left = |asking: &mut Asking| asking.source == source && !asking.keeping;
        let asks = self.asking.take_if(left).is_some();
        if fetches || searches {
            self.apart = None;
        }
        fetches || searches || asks
    }

    /// Whether the entries that this node lacks of a shard were pruned there.
    pub(super) fn is_pruned(&self, shard: ShardIndex, at: NodeId) -> bool {
        self.pruned.iter().any(|(of, node, _)| (*of, *node) == (shard, at))
    }
}

/// How the own ledger of a shard stands to the proposed one.
enum Standing {
    Same,
    /// Of the same view: the proposed one goes on where it ends. Or of an older view: perhaps.
    Behind,
    /// It ends with entries of an older view that the proposed one does not have, as far as it can be seen.
    Apart,
    /// It has more than it told: the proposal is made of an older state of this node.
    Ahead,
}

impl<S: StoreAccess> NodeCore<S> {
    /// Completes one ledger after the other; then promises, or asks to be let in.
    pub(super) fn catch_up(&mut self, now: Now) {
        let rewinding = self.replicas.iter().flatten().any(Replica::is_rewinding);
        let learning = self.is_learning();
        let Phase::Forming(forming) = &mut self.phase else { return };
        let Some(completion) = forming.completion() else { return };
        if completion.search.is_some() || completion.asking.is_some() || rewinding {
            return;
        }
        if let Some(running) = &mut completion.fetch {
            let (shard, source, target) = (running.shard, running.source, running.target);
            let replica = self.replicas[shard.index()].as_ref().expect("an own shard");
            let size = replica.replay().size();
            if !running.is_idle() {
                return;
            }
            // One chunk at a time, and no faster than the own disk.
            if size < target {
                if replica.backlog_bytes() <= self.config.limits.chunk_bytes {
                    running.asked = true;
                    completion.moved_at = now.instant;
                    let (view, first, end) = (completion.view, size, target);
                    self.question(now, source, Control::Fetch { view, shard, first, end });
                }
                return;
            }
        }
        completion.fetch = None;
        let apart = completion.apart.take();
        let goals = match learning {
            true => self.lessons(now),
            false => completion.goals.clone(),
        };
        if let Phase::Forming(forming) = &mut self.phase
            && let Some(completion) = forming.completion()
        {
            completion.goals.clone_from(&goals);
        }
        let mut stuck = false;
        for (index, goal) in goals.into_iter().enumerate() {
            let Some(replica) = &self.replicas[index] else { continue };
            let (Some(goal), shard) = (goal, ShardIndex(index as u16)) else { continue };
            let (size, root) = (replica.replay().size(), replica.replay().root());
            let standing = match self.standing(replica, &goal) {
                Standing::Behind if apart == Some(shard) => Standing::Apart,
                standing => standing,
            };
            match standing {
                Standing::Same => {}
                Standing::Apart if replica.view() == goal.view => {
                    let pair =
                        [(self.config.own, root), (goal.source, goal.root.unwrap_or_default())];
                    return self.diverged(self.divergence(shard, size, pair));
                }
                // Only what is on disk is compared.
                Standing::Apart if !replica.is_settled() => return self.note_apart(shard),
                Standing::Apart => return self.compare(now, shard, goal.source, goal.size),
                Standing::Ahead => return self.give_up(now),
                Standing::Behind if self.has_pruned(shard, goal.source) => {
                    if self.take(now, shard) {
                        return;
                    }
                    stuck = true;
                }
                Standing::Behind => {
                    return self.fetch(now, CatchUp::new(shard, goal.source, goal.size), size);
                }
            }
        }
        match (stuck, learning) {
            // Nobody has what is missing, nor a snapshot: asked again when somebody tells what there is.
            (true, _) => {}
            (false, true) => self.learned(now),
            // What was fetched is on disk before the promise: other views may count on that (section 7, rosters).
            (false, false) if !self.is_settled() => {}
            (false, false) => self.promise(now),
        }
    }

    pub(super) fn has_pruned(&self, shard: ShardIndex, source: NodeId) -> bool {
        match &self.phase {
            Phase::Forming(Forming {
                stage: Stage::Learning(completion) | Stage::CatchingUp(_, completion),
                ..
            }) => completion.is_pruned(shard, source),
            _ => false,
        }
    }

    fn standing(&self, replica: &Replica<S>, goal: &Goal) -> Standing {
        let (view, size) = (replica.view(), replica.replay().size());
        let Some(root) = goal.root else {
            // Committed in a running view: whatever of it is here stays, and more may be here by now.
            return match view.cmp(&goal.view) {
                Ordering::Greater => Standing::Same,
                Ordering::Equal if size >= goal.size => Standing::Same,
                _ if size < goal.size => Standing::Behind,
                _ => Standing::Apart,
            };
        };
        if size == goal.size && replica.replay().root() == root {
            return Standing::Same;
        }
        match view.cmp(&goal.view) {
            _ if self.planted == Some(Mutation::ShortestLogWins) && size >= goal.size => {
                Standing::Apart
            }
            Ordering::Greater if self.planted == Some(Mutation::LengthAloneWins) => Standing::Apart,
            Ordering::Greater => Standing::Ahead,
            Ordering::Equal if size > goal.size => Standing::Ahead,
            _ if goal.source == self.config.own => Standing::Ahead,
            _ if size < goal.size => Standing::Behind,
            Ordering::Equal | Ordering::Less => Standing::Apart,
        }
    }

    fn note_apart(&mut self, shard: ShardIndex) {
        if let Phase::Forming(forming) = &mut self.phase
            && let Some(completion) = forming.completion()
        {
            completion.apart = Some(shard);
        }
    }

    /// The proposal does not fit: tells the present state.
    pub(super) fn give_up(&mut self, now: Now) {
        self.out.counters.stale_messages += 1;
        if let Phase::Forming(forming) = &mut self.phase {
            forming.drop_if(now, |_| true);
        }
        self.attempt += 1;
        self.tell_all(now);
    }

    fn fetch(&mut self, now: Now, catch_up: CatchUp, first: Version) {
        let (shard, source, end) = (catch_up.shard, catch_up.source, catch_up.target);
        let Phase::Forming(forming) = &mut self.phase else { return };
        let Some(completion) = forming.completion() else { return };
        completion.fetch = Some(catch_up);
        completion.moved_at = now.instant;
        let view = completion.view;
        self.question(now, source, Control::Fetch { view, shard, first, end });
    }

    /// Something came from a source: the leader that waits for it is told.
    pub(super) fn note_moved(&mut self, now: Now) {
        let Phase::Forming(forming) = &mut self.phase else { return };
        forming.stage_since = now.instant;
        let leader = forming.stage.proposal().and_then(Proposal::leader);
        let Some(completion) = forming.completion() else { return };
        completion.moved_at = now.instant;
        let view = completion.view;
        if let Some(leader) = leader
            && self.planted != Some(Mutation::ProgressUntold)
        {
            self.send(leader, Control::Progress { view });
        }
    }

    /// Whether the own node has the shard, and the asking one too.
    pub(super) fn serves(&self, shard: ShardIndex, from: NodeId) -> bool {
        let has = self.replicas.get(shard.index()).is_some_and(Option::is_some);
        has && self.config.roster(self.config.last()).shard(shard).contains(&from)
    }

    pub(super) fn handle_fetch(
        &mut self,
        now: Now,
        from: NodeId,
        view: ViewId,
        (shard, first, end): (ShardIndex, Version, Version),
    ) {
        if !self.serves(shard, from) {
            return self.peer_faulty(now, from, PeerFault::Message("fetch of a foreign shard"));
        }
        let replica = self.replicas[shard.index()].as_ref().expect("it serves the shard");
        if first >= end || replica.is_rewinding() || replica.durable() < end {
            // Its ledger was cut since it told of it; the other will hear of its new stand.
            self.out.counters.stale_messages += 1;
            return;
        }
        let reader = ReadFor { peer: from, view, shard };
        let max_bytes = self.config.limits.chunk_bytes;
        self.out.actions.push_back(Action::ReadLog { reader, first, end, max_bytes });
    }

    /// The ledger that is being completed in this view from this source.
    pub(super) fn running(
        &mut self,
        (from, view, shard): (NodeId, ViewId, ShardIndex),
    ) -> Option<&mut CatchUp> {
        let forming = match &mut self.phase {
            Phase::Forming(forming) => Some(forming),
            _ => None,
        };
        let completion = forming.and_then(Forming::completion).filter(|c| c.view == view);
        let running = completion.and_then(|completion| completion.fetch.as_mut());
        let running = running.filter(|r| r.shard == shard && r.source == from);
        self.out.counters.stale_messages += u64::from(running.is_none());
        running
    }

    pub(super) fn handle_entries(
        &mut self,
        now: Now,
        of: (NodeId, ViewId, ShardIndex),
        first: Version,
        root_before: Digest,
        entries: &EntryBatch,
    ) {
        let (from, _, shard) = of;
        self.answered(from);
        let Some(running) = self.running(of) else { return };
        let (target, asked) = (running.target, running.asked);
        let replica = self.replicas[shard.index()].as_ref().expect("an own shard");
        let (size, root) = (replica.replay().size(), replica.replay().root());
        if !asked
            || first != size
            || entries.is_empty()
            || entries.len() as u64 > target.since(size)
        {
            let fault = PeerFault::Message("entries that were not asked for");
            return self.peer_faulty(now, from, fault);
        }
        if root != root_before {
            if let Phase::Forming(forming) = &mut self.phase
                && let Some(completion) = forming.completion()
                && completion.goals[shard.index()].as_ref().is_some_and(|g| g.view > replica.view())
            {
                (completion.fetch, completion.apart) = (None, Some(shard));
                return self.catch_up(now);
            }
            let pair = [(self.config.own, root), (from, root_before)];
            return self.diverged(self.divergence(shard, size, pair));
        }
        if let Some(running) = self.running(of) {
            running.add(entries);
        }
        self.note_moved(now);
        self.out.counters.caught_up += entries.len() as u64;
        self.take_up(now, of);
    }

    pub(super) fn handle_value_part(
        &mut self,
        now: Now,
        of: (NodeId, ViewId, ShardIndex),
        digest: Digest,
        offset: u64,
        bytes: &[u8],
    ) {
        let shard = of.2;
        self.answered(of.0);
        if self.take_value_part(now, of, (digest, offset, bytes)) || self.running(of).is_none() {
            return;
        }
        match self.pieces[shard.index()].add(digest, offset, bytes) {
            Ok(true) => {
                self.note_moved(now);
                self.take_up(now, of);
            }
            Ok(false) => self.out.counters.stale_messages += 1,
            Err(problem) => self.peer_faulty(now, of.0, PeerFault::Message(problem)),
        }
    }

    /// Takes up what arrived as far as it is complete.
    pub(super) fn take_up(&mut self, now: Now, of: (NodeId, ViewId, ShardIndex)) {
        let (from, view, shard) = of;
        loop {
            let mut pieces = core::mem::take(&mut self.pieces[shard.index()]);
            let step = self.running(of).map(|running| running.next(&mut pieces));
            self.pieces[shard.index()] = pieces;
            let Some(step) = step else { return };
            let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
            let problem = match step {
                Ok(Step::Take(entry, mut values)) => {
                    self.out.counters.values_caught_up += values.len() as u64;
                    match replica.follow(&entry, &mut values) {
                        Ok(()) => continue,
                        Err(problem) => problem,
                    }
                }
                Ok(Step::Value(digest, offset)) => {
                    let ask = Control::FetchValue { view, shard, digest, offset };
                    replica.hand_to_log(&mut self.out);
                    return self.question(now, from, ask);
                }
                Ok(Step::Done) => {
                    replica.hand_to_log(&mut self.out);
                    return self.catch_up(now);
                }
                Err(problem) => String::from(problem),
            };
            let at = replica.replay().size();
            let ledger = self.config.shards[shard.index()].genesis.ledger.clone();
            let peer = self.name(from);
            return self.fail(Fatal::CatchUp { peer, ledger, at, problem });
        }
    }
}
