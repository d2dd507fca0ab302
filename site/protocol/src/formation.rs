//! How the nodes of a site agree on a view: at the start, and each time one of them was lost and is back
//! (docs/protocol.md, section 7).
//!
//! 1. Who is in no running view tells everybody its *stand* and its ledgers ([`Hello`]). Who hears that from a
//!    member of its running view stops too.
//! 2. When all are connected to all and everything they have is on their disks, the lowest node proposes the next
//!    view: its number, the stands that it is made of, and for each shard the longest ledger and who has it.
//! 3. Who is behind fetches the rest; roots must agree. Then it prepares rows and accepts.
//! 4. When all have accepted, the leader commits; who gets that installs the view: its first entry is VIEW.
//!
//! A stand grows each time a node stops or loses a peer, and a proposal counts for a member only while it names
//! that member's own present stand and its peers' newest ones. So nothing of an older attempt has an effect, and a
//! view that was installed anywhere began everywhere with the same ledgers.

mod completion;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Digest, Hlc, Member, Version, ViewId};

use crate::access::StoreAccess;
use crate::action::{Action, ReadFor};
use crate::catch_up::CatchUp;
use crate::error::{Divergence, Fatal, PeerFault, Refusal};
use crate::ids::{Instant, NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::shard::Replica;
use crate::wire::{Control, Hello, LedgerState, Proposal, Stand, Target};

/// What a node holds while no view runs.
#[derive(Debug)]
pub(crate) struct Forming {
    pub(crate) since: Instant,
    /// By node, the own one too: what it told in this forming.
    hellos: Vec<Option<Hello>>,
    stage: Stage,
    /// At the leader: the proposal that is out, and who accepted it.
    leading: Option<(Proposal, Vec<bool>)>,
    /// Whether the last own hello said "settled".
    told_settled: bool,
}

#[derive(Debug)]
enum Stage {
    /// No proposal.
    Gathering,
    /// Completing ledgers for this one.
    CatchingUp(Proposal, Option<CatchUp>),
    /// Ready for this one.
    Accepted(Proposal),
}

impl Forming {
    pub(crate) fn new(since: Instant, nodes: usize) -> Self {
        let (stage, leading, told_settled) = (Stage::Gathering, None, false);
        Self { since, hellos: vec![None; nodes], stage, leading, told_settled }
    }

    fn drop_proposal(&mut self) {
        self.stage = Stage::Gathering;
        self.leading = None;
    }

    /// A node has this stand by now: drops a proposal that is made of another one. (The leader may have heard of
    /// it before this node did; then the proposal is as good as the stand.)
    fn drop_unless(&mut self, node: NodeId, stand: Stand) {
        let stale = |proposal: &Proposal| proposal.stands.get(node.index()) != Some(&stand);
        if let Stage::CatchingUp(proposal, _) | Stage::Accepted(proposal) = &self.stage
            && stale(proposal)
        {
            self.stage = Stage::Gathering;
        }
        if self.leading.as_ref().is_some_and(|(proposal, _)| stale(proposal)) {
            self.leading = None;
        }
    }
}

impl<S: StoreAccess> NodeCore<S> {
    pub(crate) fn handle_control(&mut self, now: Now, from: NodeId, message: Control) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        match message {
            Control::Hello(hello) => self.handle_hello(now, from, hello),
            Control::Refuse(refusal) => self.peers[from.index()].refusal = Some(refusal),
            Control::Propose(proposal) => self.handle_proposal(from, proposal),
            Control::Accept { view } => self.handle_accept(from, view),
            Control::Commit { view } => self.handle_commit(now, from, view),
            Control::Fetch { view, shard, first, end } => {
                self.handle_fetch(now, from, view, (shard, first, end));
            }
            Control::FetchValue { view, shard, digest, offset } => {
                let reader = ReadFor { peer: from, view, shard };
                if self.serves(shard, from) {
                    let max_bytes = self.config.limits.chunk_bytes;
                    let action = Action::ReadValue { reader, digest, offset, max_bytes };
                    self.out.actions.push_back(action);
                }
            }
            Control::Entries { view, shard, first, root_before, entries } => {
                self.handle_entries(now, (from, view, shard), first, root_before, &entries);
            }
            Control::ValuePart { view, shard, digest, offset, bytes } => {
                self.handle_value_part(now, (from, view, shard), digest, offset, &bytes);
            }
        }
    }

    pub(crate) fn drain_inbox(&mut self, now: Now) {
        while let Some(message) = self.inbox.pop_front() {
            self.handle_control(now, self.config.own, message);
        }
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Control) {
        if to == self.config.own {
            self.inbox.push_back(message);
        } else if self.peers[to.index()].connected {
            self.out.actions.push_back(Action::Send { to, message: message.encode() });
        }
    }

    pub(crate) fn peer_lost(&mut self, now: Now, peer: NodeId) {
        self.peers[peer.index()].connected = false;
        self.stop(now);
        if let Phase::Forming(forming) = &mut self.phase {
            forming.hellos[peer.index()] = None;
        }
    }

    pub(crate) fn peer_faulty(&mut self, now: Now, peer: NodeId, reason: PeerFault) {
        self.out.actions.push_back(Action::Disconnect { peer, reason });
        self.peer_lost(now, peer);
    }

    /// Nodes that are not connected to this one, or to another one that says so.
    pub(crate) fn missing(&self) -> Vec<NodeId> {
        let mut missing: Vec<NodeId> = self.other_nodes();
        missing.retain(|node| !self.peers[node.index()].connected);
        if let Phase::Forming(forming) = &self.phase {
            let heard = forming.hellos.iter().flatten().flat_map(|hello| &hello.waiting_for);
            missing.extend(heard.filter(|node| node.index() < self.peers.len()));
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn own_stand(&self) -> Stand {
        Stand { incarnation: self.config.incarnation, attempt: self.attempt }
    }

    /// Stops the running view, or the attempt to form one, and begins anew.
    fn stop(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Failed(_) => return,
            Phase::Active => {
                for replica in self.replicas.iter_mut().flatten() {
                    replica.stop(self.planted, &mut self.out);
                }
                self.out.counters.stalls += 1;
                self.phase = Phase::Forming(Forming::new(now.instant, self.config.nodes.len()));
            }
            Phase::Forming(forming) => forming.drop_proposal(),
        }
        self.attempt += 1;
        self.tell_all();
    }

    /// Tells everybody where this node stands, if no view runs.
    pub(crate) fn tell_all(&mut self) {
        let hello = self.hello();
        let Phase::Forming(forming) = &mut self.phase else { return };
        forming.told_settled = hello.settled;
        for node in self.other_nodes() {
            self.send(node, Control::Hello(hello.clone()));
        }
        self.inbox.push_back(Control::Hello(hello));
    }

    fn hello(&self) -> Hello {
        let replicas = self.replicas.iter().flatten();
        let ledger = |(index, replica): (usize, &Option<Replica<S>>)| {
            let replica = replica.as_ref()?;
            Some(LedgerState {
                shard: ShardIndex(index as u16),
                lineage: self.lineages[index],
                size: replica.replay().size(),
                root: replica.replay().root(),
            })
        };
        let mut waiting_for = self.other_nodes();
        waiting_for.retain(|node| !self.peers[node.index()].connected);
        Hello {
            stand: self.own_stand(),
            topology: self.config.topology_digest,
            last_view: self.view.max(self.accepted),
            waiting_for,
            settled: replicas.into_iter().all(Replica::is_settled),
            ledgers: self.replicas.iter().enumerate().filter_map(ledger).collect(),
        }
    }

    fn handle_hello(&mut self, now: Now, from: NodeId, hello: Hello) {
        let own = self.config.own;
        if from != own {
            if let Some(refusal) = self.refusal(&hello) {
                self.peers[from.index()].refusal = Some(refusal.clone());
                self.send(from, Control::Refuse(refusal));
                return;
            }
            self.peers[from.index()].refusal = None;
            let known = self.peers[from.index()].stand;
            if known > Some(hello.stand) || known == Some(hello.stand) && self.is_active() {
                self.out.counters.stale_messages += 1;
                return;
            }
            self.peers[from.index()].stand = Some(hello.stand);
            if known != Some(hello.stand) {
                // It stopped, or is new: then this node has to know everybody's present state again.
                if self.is_active() {
                    self.stop(now);
                } else {
                    if let Phase::Forming(forming) = &mut self.phase {
                        forming.drop_unless(from, hello.stand);
                    }
                    let hello = self.hello();
                    self.send(from, Control::Hello(hello));
                }
            }
        } else if hello.stand != self.own_stand() {
            return;
        }
        if let Phase::Forming(forming) = &mut self.phase {
            forming.hellos[from.index()] = Some(hello);
            self.try_propose(now);
        }
    }

    fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }

    /// Why a peer can be no part of this site.
    fn refusal(&self, hello: &Hello) -> Option<Refusal> {
        let ours = self.config.topology_digest;
        if hello.topology != ours {
            return Some(Refusal::Topology { ours, theirs: hello.topology });
        }
        hello.ledgers.iter().find_map(|state| {
            let (ours, theirs) = (*self.lineages.get(state.shard.index())?, state.lineage);
            let ledger = self.config.shards[state.shard.index()].genesis.ledger.clone();
            (ours != theirs).then_some(Refusal::Lineage { ledger, ours, theirs })
        })
    }

    /// At the leader: proposes a view once everybody is there and settled.
    fn try_propose(&mut self, now: Now) {
        if self.config.own != NodeId(0) {
            return;
        }
        let Phase::Forming(forming) = &self.phase else { return };
        let ready = |hello: &&Hello| hello.settled && hello.waiting_for.is_empty();
        let hellos: Vec<Hello> = forming.hellos.iter().flatten().filter(ready).cloned().collect();
        if hellos.len() < self.config.nodes.len() {
            return;
        }
        let stands: Vec<Stand> = hellos.iter().map(|hello| hello.stand).collect();
        if forming.leading.as_ref().is_some_and(|(proposal, _)| proposal.stands == stands) {
            return;
        }
        let targets = match self.targets(&hellos) {
            Ok(targets) => targets,
            Err(divergence) => return self.diverged(divergence),
        };
        let last = hellos.iter().map(|hello| hello.last_view).max();
        let view = ViewId(last.unwrap_or_default().max(self.proposed).0 + 1);
        self.proposed = view;
        let stamp = Hlc::from_micros(now.wall_us);
        let proposal = Proposal { view, stamp, stands, targets };
        if let Phase::Forming(forming) = &mut self.phase {
            forming.leading = Some((proposal.clone(), vec![false; hellos.len()]));
        }
        for node in self.other_nodes() {
            self.send(node, Control::Propose(proposal.clone()));
        }
        self.inbox.push_back(Control::Propose(proposal));
    }

    /// By shard the longest ledger.
    fn targets(&self, hellos: &[Hello]) -> Result<Vec<Target>, Box<Divergence>> {
        let mut targets = Vec::new();
        for (index, shard) in self.config.shards.iter().enumerate() {
            let mut longest: Option<Target> = None;
            let mut seen: Vec<(NodeId, LedgerState)> = Vec::new();
            for member in &shard.members {
                let ledgers = &hellos[member.index()].ledgers;
                let Some(state) = ledgers.iter().find(|state| state.shard.index() == index) else {
                    continue;
                };
                let other = seen.iter().find(|(_, s)| s.size == state.size && s.root != state.root);
                if let Some((other, theirs)) = other {
                    let pair = [(*member, state.root), (*other, theirs.root)];
                    return Err(self.divergence(ShardIndex(index as u16), state.size, pair));
                }
                seen.push((*member, state.clone()));
                if longest.as_ref().is_none_or(|longest| longest.size < state.size) {
                    let (size, root) = (state.size, state.root);
                    longest = Some(Target { size, root, source: *member });
                }
            }
            let none = Target { size: Version::ZERO, root: Digest::ZERO, source: shard.members[0] };
            targets.push(longest.unwrap_or(none));
        }
        Ok(targets)
    }

    fn divergence(
        &self,
        shard: ShardIndex,
        size: Version,
        [(node, root), (other, other_root)]: [(NodeId, Digest); 2],
    ) -> Box<Divergence> {
        Box::new(Divergence {
            ledger: self.config.shards[shard.index()].genesis.ledger.clone(),
            size,
            name: self.name(node),
            root,
            other_name: self.name(other),
            other_root,
        })
    }

    fn diverged(&mut self, divergence: Box<Divergence>) {
        for node in self.other_nodes() {
            self.send(node, Control::Refuse(Refusal::Divergence(divergence.clone())));
        }
        self.fail(Fatal::Divergence(divergence));
    }

    fn fail(&mut self, fatal: Fatal) {
        self.out.actions.push_back(Action::Failed(fatal.clone()));
        self.phase = Phase::Failed(fatal);
    }

    /// Whether a proposal names this node's own present stand, and no other node's older than this one knows.
    fn is_current(&self, proposal: &Proposal) -> bool {
        let own = self.config.own.index();
        proposal.stands.len() == self.peers.len()
            && proposal.targets.len() == self.replicas.len()
            && proposal.stands.iter().enumerate().all(|(node, stand)| match node == own {
                true => *stand == self.own_stand(),
                // A peer's hello to the leader may be faster than the one to this node.
                false => self.peers[node].stand.is_none_or(|known| known <= *stand),
            })
    }

    fn handle_proposal(&mut self, from: NodeId, proposal: Proposal) {
        let current = from == NodeId(0) && self.is_current(&proposal);
        let Phase::Forming(forming) = &mut self.phase else {
            self.out.counters.stale_messages += 1;
            return;
        };
        if !current || proposal.view <= self.accepted {
            self.out.counters.stale_messages += 1;
            return;
        }
        forming.stage = Stage::CatchingUp(proposal, None);
        self.continue_forming();
    }

    /// Goes on with what the log, or a message, made possible.
    pub(crate) fn continue_forming(&mut self) {
        let Phase::Forming(forming) = &mut self.phase else { return };
        if matches!(forming.stage, Stage::Gathering) {
            let told = forming.told_settled;
            if !told && self.replicas.iter().flatten().all(Replica::is_settled) {
                self.tell_all();
            }
            return;
        }
        self.catch_up();
    }

    fn accept(&mut self) {
        let Phase::Forming(forming) = &mut self.phase else { return };
        let stage = core::mem::replace(&mut forming.stage, Stage::Gathering);
        let Stage::CatchingUp(proposal, _) = stage else { return };
        let view = proposal.view;
        forming.stage = Stage::Accepted(proposal);
        self.accepted = view;
        self.rows = false;
        let members = (0..self.peers.len()).map(|index| NodeId(index as u16)).collect();
        let row_len = self.layout.row_len();
        self.out.actions.push_back(Action::Prepare { view, members, row_len });
        self.send(NodeId(0), Control::Accept { view });
    }

    fn handle_accept(&mut self, from: NodeId, view: ViewId) {
        let Phase::Forming(Forming { leading: Some((proposal, accepted)), .. }) = &mut self.phase
        else {
            self.out.counters.stale_messages += 1;
            return;
        };
        if proposal.view != view {
            self.out.counters.stale_messages += 1;
            return;
        }
        accepted[from.index()] = true;
        if accepted.iter().all(|accepted| *accepted) {
            for node in self.other_nodes() {
                self.send(node, Control::Commit { view });
            }
            self.inbox.push_back(Control::Commit { view });
        }
    }

    fn handle_commit(&mut self, now: Now, from: NodeId, view: ViewId) {
        let proposal = match &self.phase {
            Phase::Forming(Forming { stage: Stage::Accepted(proposal), .. })
                if proposal.view == view && from == NodeId(0) && self.is_current(proposal) =>
            {
                proposal.clone()
            }
            _ => {
                self.out.counters.stale_messages += 1;
                return;
            }
        };
        for (node, stand) in proposal.stands.iter().enumerate() {
            self.peers[node].stand = Some(*stand);
        }
        for (replica, shard) in self.replicas.iter_mut().zip(&self.config.shards) {
            let Some(replica) = replica else { continue };
            let records: Vec<Member> = self.config.roster(shard);
            let begin = (view, records, proposal.stamp);
            replica.begin_view(begin, &self.config.limits, now, &mut self.out);
        }
        self.view = view;
        self.rows = true;
        self.phase = Phase::Active;
        self.out.counters.views += 1;
        self.reset_heartbeats(now);
        self.out.actions.push_back(Action::Installed { view });
    }
}
