//! Taking a snapshot: what a node does whose entries to come were pruned by all that have them (docs/protocol.md,
//! section 8).
//!
//! One part is under way at a time, and none is asked for while the one before it is not on the own disk. Each is checked
//! by the manifest when it comes, and the manifest by the signatures of a majority; so it makes no difference who gives
//! it, and what is on disk stays, whatever interrupts the taking.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tradewind_ledger::{Digest, Manifest, Policy, Version, ViewId};

use super::completion::Asking;
use super::{Forming, Stage};
use crate::access::StoreAccess;
use crate::action::{Action, ReadFor};
use crate::config::Mutation;
use crate::error::PeerFault;
use crate::ids::{NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase, RecoveredShard};
use crate::roster::RosterId;
use crate::taking::{Coming, Held, Part, Taking, Want};
use crate::wire::Control;

/// A piece of a part, of `total` bytes; zero if the sender has not got it.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) size: Version,
    pub(super) part: Part,
    pub(super) offset: u64,
    pub(super) total: u64,
    pub(super) bytes: Vec<u8>,
}

impl<S: StoreAccess> NodeCore<S> {
    // At a node that has a snapshot.

    /// Entries that a `ReadLog` action asked for were pruned. The peer is told which snapshot it can have instead.
    pub fn handle_log_pruned(&mut self, reader: ReadFor) {
        let ReadFor { peer, view, shard } = reader;
        let replica = self.replicas[shard.index()].as_ref().expect("it was asked for");
        let snapshot = replica.offer().map(|(_, record)| record.size);
        self.send(peer, Control::Pruned { view, shard, snapshot });
    }

    /// A piece that a `ReadPart` action asked for, of a part of `total` bytes; zero if it is not here.
    pub fn handle_part_read(
        &mut self,
        reader: ReadFor,
        size: Version,
        part: Part,
        (offset, total, bytes): (u64, u64, Vec<u8>),
    ) {
        let ReadFor { peer, view, shard } = reader;
        self.send(peer, Control::Part { view, shard, size, part, offset, total, bytes });
    }

    pub(super) fn handle_fetch_part(
        &mut self,
        now: Now,
        from: NodeId,
        (view, shard): (ViewId, ShardIndex),
        (size, part, offset): (Version, Part, u64),
    ) {
        if !self.serves(shard, from) {
            return self.peer_faulty(now, from, PeerFault::Message("fetch of a foreign shard"));
        }
        let replica = self.replicas[shard.index()].as_ref().expect("it serves the shard");
        let entry = replica.offer().filter(|(_, record)| record.size == size).map(|(at, _)| at);
        let reader = ReadFor { peer: from, view, shard };
        let max_bytes = self.config.limits.chunk_bytes;
        let action = Action::ReadPart { reader, size, entry, part, offset, max_bytes };
        self.out.actions.push_back(action);
    }

    // At a node that takes one.

    /// A snapshot of which a part is on disk since an earlier start: gone on with if it is needed.
    pub fn recall_taking(&mut self, shard: ShardIndex, manifest: Box<Manifest>, held: Held) {
        let believed = self.believes(shard, &manifest);
        let Some(replica) = self.replicas[shard.index()].as_mut() else { return };
        if believed {
            replica.taking = Some(Taking::new(manifest, held));
        }
    }

    /// The shell keeps what it has of the snapshot that a `Take` action named.
    pub fn handle_taken(
        &mut self,
        now: Now,
        shard: ShardIndex,
        manifest: Box<Manifest>,
        held: Held,
    ) {
        let size = manifest.base.size();
        let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
        (replica.taking, replica.beginning) = (Some(Taking::new(manifest, held)), false);
        self.go_on_taking(now, shard, size, Want::Part(Part::Manifest));
        // A later attempt may have waited for it.
        self.continue_forming(now);
        self.drain_inbox(now);
    }

    /// The part of a `KeepPart` action is on disk; it names detached values that are not there.
    pub fn handle_part_kept(
        &mut self,
        now: Now,
        shard: ShardIndex,
        (size, part): (Version, Part),
        missing: Vec<(u64, Digest)>,
    ) {
        self.note_kept(now, shard, size, (Want::Part(part), missing));
    }

    /// The value of a `KeepValue` action is on disk.
    pub fn handle_value_kept(
        &mut self,
        now: Now,
        shard: ShardIndex,
        size: Version,
        value: (u64, Digest),
    ) {
        let want = Want::Value(value.0, value.1);
        self.note_kept(now, shard, size, (want, Vec::new()));
    }

    /// The ledger was replaced as a `Plant` action asked for; `recovered` is what it is now.
    ///
    /// # Panics
    /// If that was not asked for.
    pub fn handle_planted(&mut self, now: Now, shard: ShardIndex, recovered: RecoveredShard<S>) {
        let RecoveredShard { replay, store } = recovered;
        let limits = &self.config.limits;
        let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
        replica.planted(replay, store, limits, &mut self.out);
        self.out.counters.planted += 1;
        if let Phase::Forming(forming) = &mut self.phase {
            forming.drop_if(now, |_| true);
            if matches!(forming.stage, Stage::Learning(_)) {
                forming.stage = Stage::Gathering;
            }
        }
        // What was told of this node is not true any more.
        self.attempt += 1;
        self.tell_all(now);
        self.continue_forming(now);
        self.drain_inbox(now);
    }

    fn note_kept(
        &mut self,
        now: Now,
        shard: ShardIndex,
        size: Version,
        (want, missing): (Want, Vec<(u64, Digest)>),
    ) {
        let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
        if let Some(taking) = replica.taking.as_mut().filter(|taking| taking.size() == size) {
            taking.kept(want, missing);
        }
        self.go_on_taking(now, shard, size, want);
    }

    fn go_on_taking(&mut self, now: Now, shard: ShardIndex, size: Version, want: Want) {
        if let Phase::Forming(forming) = &mut self.phase
            && let Some(completion) = forming.completion()
            && completion
                .asking
                .as_ref()
                .is_some_and(|it| it.keeping && (it.shard, it.size, it.want) == (shard, size, want))
        {
            completion.asking = None;
            self.catch_up(now);
        }
        self.drain_inbox(now);
    }

    /// The source of a shard has pruned what this node lacks.
    pub(super) fn handle_pruned(
        &mut self,
        now: Now,
        of: (NodeId, ViewId, ShardIndex),
        snapshot: Option<Version>,
    ) {
        let (from, _, shard) = of;
        self.answered(from);
        if self.running(of).is_none_or(|running| !running.asked) {
            return;
        }
        if let Phase::Forming(forming) = &mut self.phase
            && let Some(completion) = forming.completion()
        {
            completion.fetch = None;
            completion.moved_at = now.instant;
            completion.pruned.push((shard, from, snapshot));
        }
        self.catch_up(now);
    }

    /// Everything that this node could ask has pruned what it lacks of this shard: asks for the next part of a snapshot, or
    /// has the ledger replaced by it once all parts are here. Returns whether there is anything to be had.
    pub(super) fn take(&mut self, now: Now, shard: ShardIndex) -> bool {
        let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
        let here = replica.replay().size();
        if replica.beginning {
            // What is here of it is about to be told.
            return true;
        }
        // A ledger that grew past a snapshot does not need it.
        replica.taking.take_if(|taking| taking.size() <= here);
        if let Some(taking) = &replica.taking {
            let size = taking.size();
            let Some(want) = taking.next() else {
                if replica.is_settled() {
                    replica.begin_plant(size, &mut self.out);
                }
                return true;
            };
            if let Some(source) = self.lender(now, shard, size) {
                self.ask(now, Asking::new(shard, source, size, want));
                return true;
            }
            // Nobody has it any more.
            self.replicas[shard.index()].as_mut().expect("an own shard").taking = None;
        }
        let Some((source, size)) = self.offer(now, shard, here) else { return false };
        self.ask(now, Asking::new(shard, source, size, Want::Part(Part::Manifest)));
        true
    }

    /// The newest snapshot that anybody offers, and whom to ask for it; rather an older one than of who gave a wrong part.
    fn offer(&self, now: Now, shard: ShardIndex, here: Version) -> Option<(NodeId, Version)> {
        let Phase::Forming(Forming {
            stage: Stage::Learning(completion) | Stage::CatchingUp(_, completion),
            ..
        }) = &self.phase
        else {
            return None;
        };
        let of = completion.pruned.iter().filter(|(of, ..)| *of == shard);
        let sizes = of.filter_map(|(.., size)| *size).filter(|size| *size > here);
        let lent = sizes.filter_map(|size| Some((self.lender(now, shard, size)?, size)));
        lent.max_by_key(|(node, size)| (!self.peers[node.index()].gave_wrong, *size))
    }

    /// Whom to ask for a part of a snapshot: any member of the running view, or of the proposed one, that has not said that
    /// it has not got it; rather one that never gave a wrong part, or is silent, and that offered it.
    fn lender(&self, now: Now, shard: ShardIndex, size: Version) -> Option<NodeId> {
        let Phase::Forming(forming) = &self.phase else { return None };
        let (completion, nodes) = match (&forming.stage, &forming.running) {
            (Stage::Learning(completion), Some(running)) => (completion, running.members.clone()),
            (Stage::CatchingUp(proposal, completion), _) => (completion, proposal.nodes()),
            _ => return None,
        };
        let members = self.config.roster(self.config.last()).shard(shard);
        let may_have = |node: &NodeId| {
            self.peers[node.index()].connected
                && members.contains(node)
                && !completion.gone.contains(&(shard, *node, size))
        };
        self.one_of(nodes.into_iter().filter(may_have), |node| {
            let offered = completion.pruned.contains(&(shard, *node, Some(size)));
            (!self.peers[node.index()].gave_wrong, self.readiness(now, *node), offered)
        })
    }

    fn ask(&mut self, now: Now, asking: Asking) {
        let Phase::Forming(forming) = &mut self.phase else { return };
        let Some(completion) = forming.completion() else { return };
        completion.moved_at = now.instant;
        let coming =
            &mut self.replicas[asking.shard.index()].as_mut().expect("an own shard").coming;
        coming.go_on(asking.size, asking.want);
        let (source, question) = (asking.source, asking.question(completion.view, coming.len()));
        completion.asking = Some(asking);
        self.question(now, source, question);
    }

    fn asking(&mut self, (from, view, shard): (NodeId, ViewId, ShardIndex)) -> Option<&mut Asking> {
        let Phase::Forming(forming) = &mut self.phase else { return None };
        let completion = forming.completion().filter(|completion| completion.view == view)?;
        let asking = completion.asking.as_mut();
        asking.filter(|it| it.source == from && it.shard == shard && !it.keeping)
    }

    /// What is here of the part of a snapshot that is asked for.
    fn coming(&mut self, shard: ShardIndex) -> &mut Coming {
        &mut self.replicas[shard.index()].as_mut().expect("an own shard").coming
    }

    /// A piece of a part arrived.
    pub(super) fn handle_part(&mut self, now: Now, of: (NodeId, ViewId, ShardIndex), piece: Piece) {
        let Piece { size, part, offset, total, bytes } = piece;
        self.answered(of.0);
        let wanted =
            self.asking(of).is_some_and(|it| it.size == size && it.want == Want::Part(part));
        if !wanted || self.coming(of.2).len() != offset {
            self.out.counters.stale_messages += 1;
            return;
        }
        if total == 0 {
            return self.part_gone(now, (of.2, of.0, size));
        }
        let added = self.coming(of.2).add(total, &bytes);
        self.go_on_after(now, of, added);
    }

    /// A piece of a detached value arrived, which a snapshot needs. Returns whether it was asked for so.
    pub(super) fn take_value_part(
        &mut self,
        now: Now,
        of: (NodeId, ViewId, ShardIndex),
        (digest, offset, bytes): (Digest, u64, &[u8]),
    ) -> bool {
        let Some(asking) = self.asking(of) else { return false };
        let Want::Value(len, wanted) = asking.want else { return false };
        if wanted != digest || self.coming(of.2).len() != offset {
            return false;
        }
        let added = self.coming(of.2).add(len, bytes);
        self.go_on_after(now, of, added);
        true
    }

    /// A piece was added to what is asked for, which may be whole with it: keeps that, or asks for the next piece.
    fn go_on_after(
        &mut self,
        now: Now,
        of: (NodeId, ViewId, ShardIndex),
        added: Result<bool, &'static str>,
    ) {
        let whole = match added {
            Ok(whole) => whole,
            Err(problem) => {
                self.coming(of.2).take();
                return self.wrong_part(now, of.0, problem);
            }
        };
        self.note_moved(now);
        match whole {
            true => self.keep(now, of),
            false => self.ask_on(now, of),
        }
    }

    fn ask_on(&mut self, now: Now, of: (NodeId, ViewId, ShardIndex)) {
        let Some(asking) = self.asking(of) else { return };
        let asking = *asking;
        let question = asking.question(of.1, self.coming(of.2).len());
        self.question(now, of.0, question);
    }

    /// All pieces are here: what is as it must be goes to the disk.
    fn keep(&mut self, now: Now, of: (NodeId, ViewId, ShardIndex)) {
        let (from, _, shard) = of;
        let Some(asking) = self.asking(of) else { return };
        let (size, want) = (asking.size, asking.want);
        asking.keeping = true;
        let bytes = self.coming(shard).take();
        let replica = self.replicas[shard.index()].as_ref().expect("an own shard");
        let begun = replica.taking.as_ref().is_some_and(|taking| taking.size() == size);
        if want != Want::Part(Part::Manifest) && !begun {
            // The shell began another one, as an earlier lesson asked for.
            self.ask_nothing();
            return self.catch_up(now);
        }
        let action = match want {
            Want::Part(Part::Manifest) => self
                .manifest(shard, size, &bytes)
                .map(|manifest| Action::Take { shard, manifest: Box::new(manifest) }),
            Want::Part(part) => {
                let unchecked = self.planted == Some(Mutation::PartsUnchecked);
                let checked = match &replica.taking {
                    Some(_) if unchecked => Ok(()),
                    Some(taking) => taking.check(part, &bytes),
                    None => Err("a part without its manifest"),
                };
                checked.map(|()| Action::KeepPart { shard, size, part, bytes })
            }
            Want::Value(len, digest) => {
                match tradewind_ledger::tree::value_digest(&bytes) == digest {
                    true => Ok(Action::KeepValue { shard, size, len, digest, bytes }),
                    false => Err("a value does not have the digest that the state names"),
                }
            }
        };
        match action {
            Ok(action) => {
                self.out.counters.parts_taken += 1;
                if let Action::Take { shard, .. } = action {
                    let replica = self.replicas[shard.index()].as_mut();
                    replica.expect("an own shard").beginning = true;
                }
                self.out.actions.push_back(action);
            }
            Err(problem) => self.wrong_part(now, from, problem),
        }
    }

    /// What a source gave is not what it must be: it is left, and asked again only if nobody else has it.
    fn wrong_part(&mut self, now: Now, from: NodeId, problem: &'static str) {
        self.out.counters.wrong_parts += 1;
        self.peers[from.index()].gave_wrong = true;
        self.ask_nothing();
        self.peer_faulty(now, from, PeerFault::Message(problem));
    }

    fn ask_nothing(&mut self) {
        if let Phase::Forming(forming) = &mut self.phase
            && let Some(completion) = forming.completion()
        {
            completion.asking = None;
        }
    }

    fn part_gone(&mut self, now: Now, gone: (ShardIndex, NodeId, Version)) {
        if let Phase::Forming(forming) = &mut self.phase
            && let Some(completion) = forming.completion()
        {
            completion.asking = None;
            completion.gone.push(gone);
        }
        self.catch_up(now);
    }

    /// Whether a manifest is of a ledger, by the signatures of its members: a majority of them on some roster that views may
    /// be of by now, for which of these the members go by, who is outside cannot know.
    fn believes(&self, shard: ShardIndex, manifest: &Manifest) -> bool {
        let replica = self.replicas[shard.index()].as_ref();
        let lineage = replica.and_then(|replica| replica.replay().lineage());
        let origin = self.config.shards[shard.index()].genesis.origin();
        let signed = |id: RosterId| {
            let policy = Policy::majority(&origin, self.config.records(id, shard));
            policy.is_ok_and(|policy| manifest.verify(&policy).is_ok())
        };
        let mut rosters = (self.promise.established.0..=self.config.last().0).map(RosterId);
        lineage == Some(manifest.base.lineage()) && rosters.any(signed)
    }

    /// Reads the manifest of the snapshot of `size` entries.
    fn manifest(
        &self,
        shard: ShardIndex,
        size: Version,
        bytes: &[u8],
    ) -> Result<Manifest, &'static str> {
        let manifest = Manifest::decode(bytes).map_err(|_| "not the manifest of a snapshot")?;
        match self.believes(shard, &manifest) && manifest.base.size() == size {
            true => Ok(manifest),
            false => Err("a manifest that does not follow from what a majority signed"),
        }
    }
}
