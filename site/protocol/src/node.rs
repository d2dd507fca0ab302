//! [`NodeCore`]: the whole of a node's part in the core group. Inputs and outputs are here, the agreement on
//! views is in `formation`, each shard's work in `shard`.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Body, Digest, Entry, Hlc, Lineage, Replay, Version, ViewId};

use crate::access::StoreAccess;
use crate::action::{Action, Promise, ReadFor, Submission};
use crate::barrier::Barriers;
use crate::batch::EntryBatch;
use crate::bulk::Staged;
use crate::catch_up::Pieces;
use crate::config::{Mutation, NodeConfig};
use crate::error::{ConfigError, Fatal, PeerFault, Refusal, Refused};
use crate::formation::{Forming, Owed, Recollection};
use crate::ids::{BodyId, Instant, NodeId, Now, ShardIndex};
use crate::layout::{Layout, SIGNATURE};
use crate::memory::Memory;
use crate::roster::RosterId;
use crate::shard::{Outputs, Replica, Seats, Turn};
use crate::status::{PeerStatus, ShardStatus, State, Status};
use crate::wire::{Control, Stand};

/// A shard as the shell recovered it from disk; `replay` and `store` both hold all entries of the ledger, none
/// for an empty one.
#[derive(Clone, Debug)]
pub struct RecoveredShard<S> {
    /// All entries, all on disk.
    pub replay: Replay,
    /// The state after them.
    pub store: S,
}

/// What is known of another node (the own place in the list is not used).
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) connected: bool,
    /// The newest stand it told of.
    pub(crate) stand: Option<Stand>,
    /// Whether it said hello over the present link, and was not refused.
    pub(crate) heard: bool,
    pub(crate) refusal: Option<Refusal>,
    /// The last roster that its topology file tells of, as far as it said so.
    pub(crate) file: Option<RosterId>,
    /// Whether it gave a part of a snapshot that was not what it must be.
    pub(crate) gave_wrong: bool,
    /// Whether it has yet to answer a question about ledgers.
    pub(crate) owes: Option<Owed>,
    /// The least that it had on its disk.
    pub(crate) recollection: Recollection,
    /// When a message of it came, or the link.
    pub(crate) heard_at: Instant,
    /// It is let into a running view from here on, and how long it had to wait for that.
    pub(crate) admit_at: Instant,
    pub(crate) admit_wait: u64,
    /// Heartbeat as last seen, and when it moved.
    heartbeat: u64,
    pub(crate) moved_at: Instant,
}

/// Where a node is in the life of views.
///
/// ```text
///          all members accepted                  member lost, or one tells that it stopped
///   Forming ------------------> Active    Active ----------------------------------------> Forming
///   Forming, Active --- replicas differ, or a ledger cannot be continued ---> Failed
/// ```
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it at a node, moved once a view")]
pub(crate) enum Phase {
    /// No view runs: gathering, comparing, catching up.
    Forming(Forming),
    /// The view runs.
    Active,
    /// The end.
    Failed(Fatal),
}

/// A node's part in the core group, as a pure state machine.
///
/// The shell calls `handle_*` for what happens and drains [`NodeCore::poll_action`] after each call (in any case
/// before the next [`NodeCore::handle_rows`]). Once a turn, after all other inputs, it calls
/// [`NodeCore::handle_rows`], which does all the work on the fabric's memory, then flushes the fabric and parks no
/// longer than [`NodeCore::poll_timeout`]. Submissions are only queued by [`NodeCore::handle_submit`]; the next
/// turn sends them.
#[derive(Clone, Debug)]
pub struct NodeCore<S> {
    pub(crate) config: NodeConfig,
    pub(crate) layout: Layout,
    /// By shard; `None` where the own node is no member.
    pub(crate) replicas: Vec<Option<Replica<S>>>,
    pub(crate) lineages: Vec<Lineage>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) phase: Phase,
    /// Last view installed, and its members.
    pub(crate) view: ViewId,
    pub(crate) members: Vec<NodeId>,
    /// The roster that it is of.
    pub(crate) roster: RosterId,
    /// Last view accepted, on disk before the leader is told.
    pub(crate) promise: Promise,
    /// The highest number of a view that was heard of: the next proposal is above it.
    pub(crate) highest: ViewId,
    /// Whether a view ran since this start: then it is known who was lost.
    pub(crate) ran: bool,
    pub(crate) attempt: u64,
    /// Whom the last view was stopped for, to let it in.
    pub(crate) admitting: Option<NodeId>,
    /// By shard: what is there of the detached values of the entry that is to be taken up next.
    pub(crate) pieces: Vec<Pieces>,
    /// Whether the fabric's rows are those of `view`.
    pub(crate) rows: bool,
    /// By node: what was last written down of them, and when.
    pub(crate) remembered: Vec<Recollection>,
    pub(crate) remembered_at: Instant,
    /// Messages to the own node.
    pub(crate) inbox: VecDeque<Control>,
    pub(crate) barriers: Barriers,
    pub(crate) out: Outputs,
    clock_ahead: Vec<u64>,
    /// A bug of the simulator's; none anywhere else.
    pub(crate) planted: Option<Mutation>,
    beat: u64,
    beat_at: Instant,
    pub(crate) turned_at: Instant,
}

impl<S: StoreAccess> NodeCore<S> {
    /// Makes a node that knows nobody yet. `recovered` holds one item for each shard that the own node is a member
    /// of, in the order of the shards; `promise` is what the last [`Action::Promise`] wrote, at the first start the
    /// default. Empty ledgers get their genesis entry (an `Append` action).
    ///
    /// # Errors
    /// [`ConfigError`]: nothing may be started with this.
    pub fn new(
        config: NodeConfig,
        recovered: Vec<RecoveredShard<S>>,
        promise: Promise,
        now: Now,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        config.check_promise(&promise)?;
        let layout = config.layout(promise.roster);
        // Who is a member of a shard on the last roster keeps its ledger before it has a part in it.
        let last = config.roster(config.last());
        let expected = last.shards.iter().filter(|shard| shard.contains(&config.own)).count();
        if recovered.len() != expected {
            return Err(ConfigError::Recovered { found: recovered.len(), expected });
        }
        let (mut recovered, mut out) = (recovered.into_iter(), Outputs::default());
        let (mut replicas, mut lineages) = (Vec::new(), Vec::new());
        let mut view = ViewId(0);
        for (index, shard) in config.shards.iter().enumerate() {
            let (genesis, lineage) = encode_genesis(shard)?;
            lineages.push(lineage);
            let Some(RecoveredShard { replay, store }) =
                last.shards[index].contains(&config.own).then(|| recovered.next()).flatten()
            else {
                replicas.push(None);
                continue;
            };
            if let Some(found) = replay.lineage().filter(|found| *found != lineage) {
                let ledger = shard.genesis.ledger.clone();
                return Err(ConfigError::Lineage { ledger, found, expected: lineage });
            }
            view = view.max(replay.view());
            let shard_index = ShardIndex(index as u16);
            let seats = Seats::of(&config, config.last(), shard_index, &layout)
                .map_err(|error| genesis_error(shard, &error))?;
            let is_empty = replay.size() == Version::ZERO;
            let mut replica = Replica::new(&config, shard_index, seats, replay, store);
            if is_empty {
                replica.begin(&genesis, &mut out);
            }
            replicas.push(Some(replica));
        }
        out.counters.promises_recovered += u64::from(promise.view > ViewId(0));
        let peer = || Peer {
            connected: false,
            stand: None,
            heard: false,
            refusal: None,
            file: None,
            gave_wrong: false,
            owes: None,
            recollection: Recollection::default(),
            heard_at: now.instant,
            admit_at: now.instant,
            admit_wait: 0,
            heartbeat: 0,
            moved_at: now.instant,
        };
        Ok(Self {
            peers: config.nodes.iter().map(|_| peer()).collect(),
            clock_ahead: vec![0; config.nodes.len()],
            phase: Phase::Forming(Forming::new(now.instant, config.nodes.len())),
            layout,
            replicas,
            lineages,
            view,
            members: Vec::new(),
            roster: promise.roster,
            highest: view.max(promise.view),
            promise,
            ran: false,
            attempt: 1,
            admitting: None,
            pieces: config.shards.iter().map(|_| Pieces::default()).collect(),
            rows: false,
            remembered: Vec::new(),
            remembered_at: now.instant,
            inbox: VecDeque::new(),
            barriers: Barriers::new(config.nodes.len()),
            planted: None,
            out,
            beat: 0,
            beat_at: now.instant,
            turned_at: now.instant,
            config,
        })
    }

    /// Plants a bug, so that tests can show that the checkers find it.
    #[cfg(feature = "mutations")]
    pub fn plant(&mut self, mutation: Option<Mutation>) {
        self.planted = mutation;
    }

    /// Writes all that decides what this node does next, for a checker that compares states: without what never changes
    /// and what is only counted.
    ///
    /// # Errors
    /// Those of `out`.
    #[cfg(feature = "mutations")]
    pub fn describe(&self, out: &mut impl core::fmt::Write) -> core::fmt::Result
    where
        S: core::fmt::Debug,
    {
        // Whatever is added to a node has to be looked at here.
        let Self {
            replicas,
            peers,
            phase,
            view,
            members,
            roster,
            promise,
            highest,
            ran,
            attempt,
            admitting,
            pieces,
            rows,
            remembered,
            remembered_at,
            inbox,
            barriers,
            beat,
            beat_at,
            turned_at,
            out: outputs,
            config: _,
            lineages: _,
            planted: _,
            clock_ahead: _,
            layout: _,
        } = self;
        let Outputs { actions, answers, counters: _ } = outputs;
        write!(
            out,
            "{replicas:?} {peers:?} {phase:?} {view:?} {members:?} {roster:?} {promise:?}"
        )?;
        write!(out, "{highest:?} {ran} {attempt} {admitting:?} {pieces:?} {rows} {remembered:?}")?;
        write!(out, "{remembered_at:?} {inbox:?} {barriers:?} {beat} {beat_at:?}")?;
        write!(out, "{turned_at:?} {actions:?} {answers:?}")
    }

    /// What was counted since the last call.
    #[cfg(feature = "mutations")]
    pub fn take_counters(&mut self) -> crate::status::Counters {
        core::mem::take(&mut self.out.counters)
    }

    /// A client's command for a shard.
    ///
    /// # Errors
    /// [`Refused`]: it was not and will not be executed; there is no answer.
    pub fn handle_submit(
        &mut self,
        shard: ShardIndex,
        submission: Submission,
    ) -> Result<(), Refused> {
        self.check_running(shard)?;
        let Self { replicas, config, .. } = self;
        let replica = replicas[shard.index()].as_mut().expect("looked at just now");
        replica.outbox().accept(submission, &config.limits)
    }

    /// Whether the own node is a member of a shard that takes part in a running view.
    pub(crate) fn check_running(&self, shard: ShardIndex) -> Result<(), Refused> {
        let Some(replica) = self.replicas.get(shard.index()) else {
            return Err(Refused::UnknownShard(shard));
        };
        let members = self.config.roster(self.roster).shard(shard);
        let waits = matches!(self.phase, Phase::Forming(_));
        let (Some(replica), true) = (replica, waits || members.contains(&self.config.own)) else {
            let ledger = self.config.shards[shard.index()].genesis.ledger.clone();
            return Err(Refused::NotMember { ledger, members: self.names(members) });
        };
        match &self.phase {
            Phase::Active if replica.is_running() => Ok(()),
            Phase::Active => {
                let waiting_for = self.names(&self.absent(shard));
                Err(Refused::Unavailable { waiting_for })
            }
            Phase::Failed(fatal) => Err(Refused::Failed(Box::new(fatal.clone()))),
            Phase::Forming(_) => {
                Err(Refused::Unavailable { waiting_for: self.names(&self.missing()) })
            }
        }
    }

    /// The link to a peer is up.
    pub fn handle_connected(&mut self, now: Now, peer: NodeId) {
        if !self.is_peer(peer) {
            return;
        }
        if self.peers[peer.index()].connected {
            // A new link in place of one whose loss was not told.
            self.peer_lost(now, peer);
        }
        self.peers[peer.index()].connected = true;
        self.peers[peer.index()].heard = false;
        self.peers[peer.index()].file = None;
        self.peers[peer.index()].heard_at = now.instant;
        self.tell_all(now);
        self.drain_inbox(now);
    }

    /// The link to a peer is gone.
    pub fn handle_lost(&mut self, now: Now, peer: NodeId) {
        if self.is_peer(peer) && self.peers[peer.index()].connected {
            self.peer_lost(now, peer);
            self.drain_inbox(now);
        }
    }

    /// A message of the control lane.
    pub fn handle_message(&mut self, now: Now, from: NodeId, message: &[u8]) {
        if !self.is_peer(from) || !self.peers[from.index()].connected {
            self.out.counters.stale_messages += 1;
            return;
        }
        self.peers[from.index()].heard_at = now.instant;
        match Control::decode(message) {
            Ok(message) => self.handle_control(now, from, message),
            Err(problem) => self.peer_faulty(now, from, PeerFault::Message(problem)),
        }
        self.drain_inbox(now);
    }

    /// One turn on the rows: takes what has landed, delivers, sends, publishes. `memory` is touched only while rows
    /// are prepared for the view that runs or has just stopped.
    pub fn handle_rows<M: Memory>(&mut self, now: Now, memory: &mut M) {
        if !matches!(self.phase, Phase::Failed(_)) {
            let (active, rows) = (matches!(self.phase, Phase::Active), self.rows);
            let drain = !active && self.goes_on();
            let mut fault = None;
            let Self { replicas, config, out, clock_ahead, planted, .. } = self;
            let planted = *planted;
            let mut turn = Turn { now, memory, config, out, clock_ahead, planted };
            for replica in replicas.iter_mut().flatten() {
                if active {
                    fault = fault.or(replica.turn(&mut turn).err());
                    continue;
                }
                if drain {
                    replica.drain(&mut turn, rows);
                }
                if rows {
                    replica.turn_stopped(&mut turn);
                }
            }
            if let Some((peer, fault)) = fault {
                self.peer_faulty(now, peer, fault);
            } else if active {
                self.echo_barriers(memory);
                self.turn_barriers(memory);
                self.remember(now, false);
                self.heartbeats(now, memory);
            } else {
                if rows && planted == Some(Mutation::BarrierEchoedStopped) {
                    self.echo_barriers(memory);
                }
                self.continue_forming(now);
                self.watch_forming(now);
            }
        }
        if !matches!(self.phase, Phase::Failed(_)) {
            self.compare_snapshots();
        }
        self.turned_at = now.instant;
        self.flush_answers();
        self.drain_inbox(now);
    }

    /// The log synced: entries below `size` of the shard are on disk.
    ///
    /// # Panics
    /// If the log claims more than it was given.
    pub fn handle_durable(&mut self, now: Now, shard: ShardIndex, size: Version) {
        self.replica(shard).set_durable(size);
        self.continue_forming(now);
        self.drain_inbox(now);
    }

    /// How far a body of the bulk lane is written, as `Stage` actions asked for.
    pub fn handle_staged(&mut self, now: Now, shard: ShardIndex, body: BodyId, staged: Staged) {
        if let Some(sender) = self.replica(shard).set_staged(body, staged) {
            let problem = "a body does not have the digest it was announced with";
            if sender == self.config.own {
                // Never compared, so never wrong.
                return;
            }
            self.peer_faulty(now, sender, PeerFault::Row { shard, problem });
        }
        self.drain_inbox(now);
    }

    /// The promise of this view is on stable storage.
    pub fn handle_promised(&mut self, now: Now, view: ViewId) {
        self.promised(view);
        self.drain_inbox(now);
    }

    /// Roots over the first entries of the own ledger, by size, as a `ReadRoots` action asked for.
    pub fn handle_roots(&mut self, now: Now, reader: ReadFor, roots: Vec<(Version, Digest)>) {
        let ReadFor { peer, view, shard } = reader;
        self.send(peer, Control::Roots { view, shard, roots });
        self.drain_inbox(now);
    }

    /// The ledger was cut as a `Rewind` action asked for; `recovered` is what is left of it. No sync of what was cut
    /// off is reported after this.
    ///
    /// # Panics
    /// If that was not asked for.
    pub fn handle_rewound(&mut self, now: Now, shard: ShardIndex, recovered: RecoveredShard<S>) {
        let RecoveredShard { replay, store } = recovered;
        let limits = &self.config.limits;
        let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
        replica.rewound(replay, store, limits, &mut self.out);
        self.continue_forming(now);
        self.drain_inbox(now);
    }

    /// The own signature over the checkpoint of the `Sign` action.
    pub fn handle_signature(
        &mut self,
        shard: ShardIndex,
        size: Version,
        signature: [u8; SIGNATURE],
    ) {
        self.replica(shard).marks().add_own(size, signature);
    }

    /// Entries read for a peer, from `first`, and the root over all before.
    pub fn handle_log_read(
        &mut self,
        reader: ReadFor,
        first: Version,
        root_before: Digest,
        entries: EntryBatch,
    ) {
        let ReadFor { peer, view, shard } = reader;
        self.send(peer, Control::Entries { view, shard, first, root_before, entries });
    }

    /// A piece of a detached value read for a peer.
    pub fn handle_value_read(
        &mut self,
        reader: ReadFor,
        digest: Digest,
        offset: u64,
        bytes: Vec<u8>,
    ) {
        let ReadFor { peer, view, shard } = reader;
        self.send(peer, Control::ValuePart { view, shard, digest, offset, bytes });
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.actions.pop_front()
    }

    /// When [`NodeCore::handle_rows`] must be called even if nothing happens; `None`: not at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Active => {}
            Phase::Forming(_) => return self.forming_timeout(),
            Phase::Failed(_) => return None,
        }
        let limits = &self.config.limits;
        if self.replicas.iter().flatten().any(Replica::is_busy) {
            return Some(self.turned_at);
        }
        let timers = self.replicas.iter().flatten().filter_map(|r| r.next_timer(limits));
        timers.chain((self.members.len() > 1).then_some(self.beat_at)).min()
    }

    /// The store of a shard, for reads between turns; `None` if the own node is no member.
    pub fn shard_store(&mut self, shard: ShardIndex) -> Option<&mut S> {
        self.replicas.get_mut(shard.index())?.as_mut().map(Replica::store)
    }

    /// What the node is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let peer = |(index, info): (usize, &crate::NodeInfo)| PeerStatus {
            node: NodeId(index as u16),
            name: info.name.clone(),
            connected: self.peers[index].connected,
            refusal: self.peers[index].refusal.clone(),
            clock_ahead_us: self.clock_ahead[index],
        };
        let last = self.config.last();
        let others = self.config.nodes.iter().enumerate();
        let others = others.filter(|(i, _)| self.config.is_seated(last, NodeId(*i as u16)));
        let shards = self.config.shards.iter().zip(&self.replicas);
        Status {
            state: self.state(),
            view: self.view,
            roster: self.roster,
            last_roster: last,
            members: match self.phase {
                Phase::Active => self.members.clone(),
                _ => Vec::new(),
            },
            peers: others.filter(|(i, _)| *i != self.config.own.index()).map(peer).collect(),
            shards: shards
                .zip(0..)
                .map(|((shard, replica), index)| ShardStatus {
                    ledger: shard.genesis.ledger.clone(),
                    members: self.config.roster(self.roster).shard(ShardIndex(index)).to_vec(),
                    waiting_for: match &self.phase {
                        Phase::Active
                            if !self.config.holds(
                                self.roster,
                                ShardIndex(index),
                                &self.members,
                            ) =>
                        {
                            self.absent(ShardIndex(index))
                        }
                        _ => Vec::new(),
                    },
                    replica: replica.as_ref().map(Replica::status),
                })
                .collect(),
            counters: self.out.counters,
        }
    }

    /// One shard, without the rest of [`NodeCore::status`]; `None` if the own node is no member.
    #[must_use]
    pub fn replica_status(&self, shard: ShardIndex) -> Option<crate::ReplicaStatus> {
        self.replicas.get(shard.index())?.as_ref().map(Replica::status)
    }

    /// The last installed view.
    #[must_use]
    pub fn view(&self) -> ViewId {
        self.view
    }

    /// The roster of the last installed view; before the first, of the last one promised.
    #[must_use]
    pub fn roster(&self) -> RosterId {
        self.roster
    }

    /// What the node is doing, without the rest of [`NodeCore::status`].
    #[must_use]
    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Active => State::Active,
            Phase::Failed(fatal) => State::Failed(fatal.clone()),
            Phase::Forming(forming) => {
                let (missing, since) = (self.missing(), forming.since);
                match forming.running() {
                    Some(view) => State::Learning { view, since },
                    None if missing.is_empty() => State::Forming { since },
                    None => State::Minority { missing, since },
                }
            }
        }
    }

    fn heartbeats<M: Memory>(&mut self, now: Now, memory: &mut M) {
        let others = self.other_members();
        if others.is_empty() {
            return;
        }
        let (heartbeat_us, silence_us) =
            (self.config.limits.heartbeat_us, self.config.limits.silence_us);
        let beats = now.instant >= self.beat_at;
        if beats {
            self.beat += 1;
            self.beat_at = now.instant.plus(heartbeat_us);
            memory.store(Layout::HEARTBEAT.start, &self.beat.to_le_bytes());
            memory.publish(Layout::HEARTBEAT, &others);
        }
        let slept = self.slept(now);
        let mut silent = None;
        for node in others {
            let peer = &mut self.peers[node.index()];
            let heartbeat = memory.load(node, Layout::HEARTBEAT.start);
            if heartbeat != peer.heartbeat || slept {
                (peer.heartbeat, peer.moved_at) = (heartbeat, now.instant);
            }
            let silence = now.instant.since(peer.moved_at);
            if silence > silence_us {
                silent = Some((node, PeerFault::Silent(silence)));
            }
        }
        if let Some((node, fault)) = silent {
            self.peer_faulty(now, node, fault);
        } else if beats {
            self.watch_pace(now, memory, slept);
        }
    }

    /// Rows of a new view: heartbeats begin again.
    pub(crate) fn reset_heartbeats(&mut self, now: Now) {
        (self.beat, self.beat_at) = (0, now.instant);
        for peer in &mut self.peers {
            (peer.heartbeat, peer.moved_at) = (0, now.instant);
        }
    }

    fn flush_answers(&mut self) {
        if !self.out.answers.is_empty() {
            let answers = core::mem::take(&mut self.out.answers);
            self.out.actions.push_back(Action::Answers(answers));
        }
    }

    pub(crate) fn replica(&mut self, shard: ShardIndex) -> &mut Replica<S> {
        self.replicas[shard.index()].as_mut().expect("the shell works for own shards only")
    }

    fn is_peer(&self, node: NodeId) -> bool {
        node != self.config.own && node.index() < self.config.nodes.len()
    }

    /// The other members of the view.
    pub(crate) fn other_members(&self) -> Vec<NodeId> {
        self.members.iter().copied().filter(|node| *node != self.config.own).collect()
    }

    /// Members of a shard that are not in the view.
    fn absent(&self, shard: ShardIndex) -> Vec<NodeId> {
        let members = self.config.roster(self.roster).shard(shard).iter().copied();
        members.filter(|node| !self.members.contains(node)).collect()
    }

    /// Whether the process itself stood still since the last turn: then it can not tell how long others were silent.
    pub(crate) fn slept(&self, now: Now) -> bool {
        now.instant.since(self.turned_at) > self.config.limits.silence_us / 2
    }

    pub(crate) fn all_nodes(&self) -> Vec<NodeId> {
        (0..self.config.nodes.len()).map(|index| NodeId(index as u16)).collect()
    }

    pub(crate) fn other_nodes(&self) -> Vec<NodeId> {
        let all = self.all_nodes().into_iter();
        all.filter(|node| *node != self.config.own).collect()
    }

    pub(crate) fn name(&self, node: NodeId) -> String {
        self.config.nodes[node.index()].name.clone()
    }

    fn names(&self, nodes: &[NodeId]) -> Vec<String> {
        nodes.iter().map(|node| self.name(*node)).collect()
    }
}

fn genesis_error(shard: &crate::ShardConfig, error: &dyn core::fmt::Display) -> ConfigError {
    ConfigError::Genesis {
        ledger: shard.genesis.ledger.clone(),
        problem: alloc::format!("{error}"),
    }
}

/// The first entry of a ledger, and the ledger's identity.
fn encode_genesis(shard: &crate::ShardConfig) -> Result<(Entry, Lineage), ConfigError> {
    let body = Body::Genesis(shard.genesis.clone());
    let entry = Entry { hlc: Hlc(0), view: ViewId(0), body };
    let mut bytes = Vec::new();
    entry.encode(&mut bytes).map_err(|error| genesis_error(shard, &error))?;
    let lineage = Lineage(tradewind_ledger::tree::leaf_hash(&bytes));
    Ok((entry, lineage))
}
