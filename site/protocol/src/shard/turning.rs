//! One turn of a shard in a running view: takes what has landed, delivers, sends, and publishes once
//! (docs/protocol.md, sections 1 to 3).

use alloc::vec::Vec;

use tradewind_ledger::{Hlc, RequestId};

use super::agreeing::{self, RECORD};
use super::{Content, Flow, Item, Outputs, Replica, Stage, Turn};
use crate::access::StoreAccess;
use crate::action::{Action, Answer, Submission};
use crate::config::Mutation;
use crate::error::PeerFault;
use crate::ids::NodeId;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::order::Next;
use crate::payload::{next_item, split_lean};
use crate::ring::{Flags, Header};

impl<S: StoreAccess> Replica<S> {
    /// One turn of a running view.
    ///
    /// # Errors
    /// The peer whose row makes no sense.
    pub(crate) fn turn<M: Memory>(
        &mut self,
        turn: &mut Turn<'_, M>,
    ) -> Result<(), (NodeId, PeerFault)> {
        if self.flow.is_none() {
            return Ok(());
        }
        self.receive(turn)?;
        self.take_bulk(turn)?;
        self.deliver(turn);
        self.begin_bodies(turn);
        self.send(turn);
        self.send_bulk(turn);
        if !turn.planted(Mutation::NullsForgotten) {
            self.flow().order.decide_nulls();
        }
        // What was decided just now may be all that was missing.
        self.deliver(turn);
        self.note_progress(turn.now, turn.out);
        self.hand_to_log(turn.out);
        self.settle(turn);
        self.sign_and_collect(turn);
        self.publish(turn);
        Ok(())
    }

    /// One turn after the view stopped: answers still become due as disks finish.
    pub(crate) fn turn_stopped<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        if self.flow.is_some() && !self.is_rewinding() {
            self.settle(turn);
            self.publish(turn);
        }
    }

    fn flow(&mut self) -> &mut Flow {
        self.flow.as_mut().expect("a view runs")
    }

    /// Takes messages out of the peers' rings and reads their counters.
    pub(super) fn receive<M: Memory>(
        &mut self,
        turn: &mut Turn<'_, M>,
    ) -> Result<(), (NodeId, PeerFault)> {
        let (limits, shard) = (&turn.config.limits, self.shard);
        // A disk that does not keep up makes the senders wait for credits.
        let take = self.backlog_bytes <= limits.backlog_bytes;
        let layout = self.layout;
        let flow = self.flow.as_mut().expect("a view runs");
        for (rank, peer) in flow.others.clone() {
            let fault = |problem| (peer, PeerFault::Row { shard, problem });
            let sent = turn.memory.load(peer, layout.sent());
            let rounds = turn.memory.load(peer, layout.rounds());
            while take && flow.order.received(rank) < sent {
                let reader = &mut flow.readers[rank];
                let read = reader.read(turn.memory, peer, layout.ring(), limits.message_bytes);
                let Some((header, payload)) = read.map_err(fault)? else { break };
                let (checker, held) = (&mut flow.checkers[rank], flow.bulk.held(rank));
                let longest = limits.command_bytes;
                checker.check(header.flags, &payload, longest, held).map_err(fault)?;
                flow.bulk.close(rank, checker.named());
                note_clock(turn, peer, header.stamp);
                let content = match header.flags.has(Flags::SNAPSHOT) {
                    true => Content::Snapshot(agreeing::decode(&payload).map_err(fault)?),
                    false => Content::Peer(payload),
                };
                let item = Item { flags: header.flags, stamp: header.stamp, content };
                flow.order.push(rank, header.round, item).map_err(fault)?;
            }
            // Rounds are of the same publish as `sent`: nulls are known only when its messages are.
            if flow.order.received(rank) >= sent {
                flow.order.decide(rank, rounds);
            }
        }
        self.note_stable(turn);
        Ok(())
    }

    /// Takes blocks of bodies out of the peers' bulk rings.
    fn take_bulk<M: Memory>(&mut self, turn: &mut Turn<'_, M>) -> Result<(), (NodeId, PeerFault)> {
        let (limits, shard) = (&turn.config.limits, self.shard);
        let Self { flow, layout, next_body, .. } = self;
        let bulk = &mut flow.as_mut().expect("a view runs").bulk;
        let bounds = (&limits.bulk, limits.command_bytes);
        bulk.take(turn.memory, layout, bounds, next_body, turn.out)
            .map_err(|(peer, problem)| (peer, PeerFault::Row { shard, problem }))
    }

    /// Begins to send the bodies of submissions, and lets those be ordered whose bodies all members hold.
    fn begin_bodies<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        let limits = &turn.config.limits;
        let Self { flow, layout, outbox, peers, next_body, .. } = self;
        let bulk = &mut flow.as_mut().expect("a view runs").bulk;
        while let Some(large) = outbox.next_large() {
            if !bulk.may_begin(large.body_bytes() as u64, &limits.bulk) {
                turn.out.counters.bulk_window_waits += 1;
                break;
            }
            let named = bulk.begin(&large.bodies, next_body, turn.out);
            outbox.begin(named);
        }
        let held = match turn.planted(Mutation::OrderedBeforeHeld) {
            true => bulk.held(self.own),
            false => bulk.held_everywhere(turn.memory, layout, peers),
        };
        if let Some(named) = outbox.ready(held) {
            bulk.note_ordered(named);
        }
    }

    /// Publishes blocks of bodies, behind the turn's messages.
    fn send_bulk<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        let Self { flow, layout, .. } = self;
        let bulk = &mut flow.as_mut().expect("a view runs").bulk;
        bulk.send(turn.memory, layout, &turn.config.limits.bulk, turn.out);
    }

    /// Every member's `received` counters say what is stable, and what room the own ring has.
    fn note_stable<M: Memory>(&mut self, turn: &Turn<'_, M>) {
        let own_row_only = turn.planted(Mutation::OwnRowStability);
        let (own, layout) = (self.own, self.layout);
        let Self { members, flow, .. } = self;
        let flow = flow.as_mut().expect("a view runs");
        for sender in 0..members.len() {
            let mut everywhere = flow.order.received(sender);
            let mut stable = everywhere;
            for (rank, peer) in &flow.others {
                let received = match *rank == sender {
                    // A sender has what it sent.
                    true => turn.memory.load(*peer, layout.sent()),
                    false => turn.memory.load(*peer, layout.received(sender)),
                };
                everywhere = everywhere.min(received);
            }
            if !own_row_only {
                stable = everywhere;
            }
            flow.order.set_stable(sender, stable);
            if sender == own {
                flow.writer.release(everywhere);
            }
        }
    }

    pub(super) fn deliver<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        if self.peers.is_empty() {
            let own = self.own;
            let flow = self.flow();
            let sent = flow.order.received(own);
            flow.order.set_stable(own, sent);
            flow.writer.release(sent);
        }
        let nulls_early = turn.planted(Mutation::NullsEarly);
        if turn.planted(Mutation::SealByLocalClock) {
            self.machine.local_clock = Some(Hlc::from_micros(turn.now.wall_us));
        }
        while let Some(next) = self.flow().order.next(nulls_early) {
            match next {
                Next::Null => turn.out.counters.nulls += 1,
                Next::Message(rank, item) => self.deliver_message(rank, item, turn),
            }
        }
    }

    fn deliver_message<M: Memory>(&mut self, rank: usize, item: Item, turn: &mut Turn<'_, M>) {
        let Item { flags, stamp, content } = item;
        let again = turn.planted(Mutation::RetryExecutedAgain);
        let (own, shard) = (self.own, self.shard);
        let Self { machine, store, outbox, flow, .. } = self;
        let Flow { stage, assemblies, bulk, seals_sent, marks_sent, .. } =
            flow.as_mut().expect("a view runs");
        let stopped = *stage != Stage::Running && !turn.planted(Mutation::AnswersDrained);
        let out = &mut *turn.out;
        let mut undecided = Vec::new();
        store.with_mut(|store| {
            let mut execute = |machine: &mut Machine, request, lean, command: &[u8]| {
                let request = salted(request, rank, again);
                out.counters.commands += 1;
                let Some((named, command)) = split_lean(command).filter(|_| lean) else {
                    return machine.execute(store, stamp, request, command);
                };
                let mut bodies = bulk.deliver(rank, named);
                let reply = machine.execute_lean(store, stamp, request, command, &mut bodies);
                out.counters.bodies_dropped += bodies.len() as u64;
                let unstage = |(body, _)| Action::Unstage { shard, body };
                out.actions.extend(bodies.into_iter().map(unstage));
                reply
            };
            match &content {
                Content::Own(completes) => {
                    for _ in 0..*completes {
                        let submission = outbox.take_delivered();
                        let Submission { request, command, bodies, .. } = &submission;
                        let before = machine.size();
                        let reply = execute(machine, *request, !bodies.is_empty(), command);
                        if stopped && machine.size() == before {
                            undecided.push(submission.ticket);
                            continue;
                        }
                        let answer = Answer { ticket: submission.ticket, reply };
                        outbox.answer_at(machine.size(), submission.durability, answer);
                    }
                }
                Content::Peer(payload) if flags.has(Flags::FRAGMENT) => {
                    if let Some((head, command)) = assemblies[rank].push(flags, payload) {
                        execute(machine, head.request, head.lean, &command);
                    }
                }
                Content::Snapshot(record) => {
                    machine.commit_snapshot(store, stamp, *record);
                    out.counters.snapshots += 1;
                }
                Content::Peer(payload) => {
                    let mut batch = &payload[..];
                    while let Some((head, command)) = next_item(&mut batch) {
                        execute(machine, head.request, head.lean, command);
                    }
                }
            }
            // Only the lowest member asks for these; whoever sent them, all replicas read the same.
            if flags.has(Flags::SEAL) || flags.has(Flags::BEAT) {
                machine.seal_on_request(store, stamp, flags.has(Flags::BEAT));
            }
            if flags.has(Flags::MARK) {
                machine.mark();
            }
        });
        if !undecided.is_empty() {
            out.actions.push_back(Action::Unknown(undecided));
        }
        if rank == own {
            *seals_sent -= usize::from(flags.has(Flags::SEAL) || flags.has(Flags::BEAT));
            *marks_sent -= usize::from(flags.has(Flags::MARK));
        }
        self.take_marks(turn.out);
    }

    pub(super) fn take_marks(&mut self, out: &mut Outputs) {
        for mark in self.machine.take_marks() {
            self.marks.push(mark);
            self.timers.marked = mark.size;
            out.counters.marks += 1;
        }
    }

    /// Sends what waits, a few messages at most, so that batches grow under load.
    fn send<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        let limits = &turn.config.limits;
        while self.may_send(limits) {
            let snapshot = self.snapshot_due();
            let plan = match snapshot {
                Some(_) => None,
                None => self.outbox.plan(limits.message_bytes),
            };
            let control =
                self.control_flags(turn.now.instant, limits, plan.is_some() || snapshot.is_some());
            let (completes, flags, len) = match &plan {
                Some(plan) => (plan.completes, plan.flags.with(control), plan.len),
                None if snapshot.is_some() => (0, control.with(Flags::SNAPSHOT), RECORD),
                None if control == Flags::default() => break,
                None => (0, control, 0),
            };
            let Self { flow, outbox, layout, peers, scratch, own, .. } = self;
            let flow = flow.as_mut().expect("a view runs");
            let Some(place) = flow.writer.place(len) else {
                turn.out.counters.no_credit += 1;
                break;
            };
            let stamp = Hlc::from_micros(turn.now.wall_us);
            let round = flow.order.own_rounds();
            let header = Header { flags, round, stamp };
            let memory = &mut *turn.memory;
            let at = (layout.ring(), &peers[..]);
            let writer = &mut flow.writer;
            match &plan {
                Some(plan) => outbox.send(plan, scratch, |parts| {
                    writer.write(memory, at, &place, header, parts);
                }),
                None => {
                    let record = snapshot.as_ref().map(agreeing::encode);
                    let payload = record.as_ref().map_or(&[][..], |record| &record[..]);
                    writer.write(memory, at, &place, header, &[payload]);
                }
            }
            let content = match snapshot {
                Some(record) => {
                    flow.snapshot_sent = record.size;
                    Content::Snapshot(record)
                }
                None => Content::Own(completes),
            };
            let item = Item { flags, stamp, content };
            flow.order.push(*own, round, item).expect("own rounds grow");
            flow.seals_sent += usize::from(flags.has(Flags::SEAL) || flags.has(Flags::BEAT));
            flow.marks_sent += usize::from(flags.has(Flags::MARK));
            if flags.has(Flags::MARK) {
                self.timers.marked_at = turn.now.instant;
            }
            let counters = &mut turn.out.counters;
            counters.messages += 1;
            counters.wraps += u64::from(place.wraps());
            counters.fragments += u64::from(flags.has(Flags::FRAGMENT));
        }
    }

    /// Publishes the counters, if any changed: once a turn, as one range.
    fn publish<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        let delivered = self.machine.size();
        let Self { flow, layout, peers, durable, members, own, .. } = self;
        let flow = flow.as_mut().expect("a view was installed");
        let sent = flow.order.received(*own);
        let counters = [sent, flow.order.own_rounds(), delivered.0, durable.0];
        let received = (0..members.len()).map(|rank| flow.order.received(rank));
        let mut changed = false;
        let taken = (0..members.len()).map(|rank| flow.bulk.taken(rank));
        let held = (0..members.len()).map(|rank| flow.bulk.held(rank));
        let columns = counters.into_iter().chain(received).chain(taken).chain(held);
        for (index, value) in columns.enumerate() {
            if flow.published[index] != value {
                changed = true;
                flow.published[index] = value;
                turn.memory.store(layout.counters().start + index * 8, &value.to_le_bytes());
            }
        }
        if changed {
            turn.memory.publish(layout.counters(), peers);
        }
        self.marks.publish(turn.memory, &self.layout, &self.peers);
    }
}

fn note_clock<M>(turn: &mut Turn<'_, M>, peer: NodeId, stamp: Hlc) {
    let ahead = stamp.micros().saturating_sub(turn.now.wall_us);
    turn.clock_ahead[peer.index()] = ahead;
    turn.out.counters.clock_ahead += u64::from(ahead > turn.config.limits.clock_skew_us);
}

/// Planted bug: the same request through another node looks like another one.
fn salted(mut request: RequestId, rank: usize, planted: bool) -> RequestId {
    if planted {
        request.session.0 ^= 1 << (rank + 1);
    }
    request
}
