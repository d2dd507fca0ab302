//! What a shell does: takes what came, lets the core work on the rows, performs its actions; and crashes on the way, where
//! it is told to.

use tradewind_ledger::{Checkpoint, Digest, Signer};
use tradewind_site_protocol::{
    Action, BodyId, Fatal, Instant, NodeCore, NodeId, Now, ShardIndex, Staged, State, Stop,
};

use super::check::{Check, Checker};
use super::coverage::{Fault, Point, Seen, Side, point_of};
use super::disk::Disk;
use super::fabric::{Frame, Rows};
use super::plan::MS;
use super::snapshots::Done;
use super::world::{Event, Input, Node, World, members_disks};
use super::{Planted, Violation};

impl World<'_> {
    pub(super) fn give(&mut self, node: NodeId, input: Input) {
        let inbox = &mut self.nodes[node.index()].inbox;
        match input {
            // A shell has its clients' requests from another queue than what the fabric brings.
            Input::Read(..) if self.rng.percent(50) => inbox.push_front(input),
            _ => inbox.push_back(input),
        }
        self.wake(node);
    }

    pub(super) fn wake(&mut self, node: NodeId) {
        let pause = self.nodes[node.index()].paused_until;
        let at = (self.now + self.rng.range(5..60)).max(pause);
        self.wake_at(node, at);
    }

    pub(super) fn wake_at(&mut self, node: NodeId, at: u64) {
        let state = &mut self.nodes[node.index()];
        if state.core.is_some() && state.turn_at.is_none_or(|planned| planned > at) {
            state.turn_at = Some(at);
            let incarnation = state.incarnation;
            self.at(at, Event::Turn(node, incarnation));
        }
    }

    /// What a shell does in a turn: takes (some of) what came, lets the core work on the rows, performs its actions.
    pub(super) fn turn(&mut self, node: NodeId, incarnation: u64) -> Check {
        let state = &mut self.nodes[node.index()];
        if state.incarnation != incarnation || state.turn_at != Some(self.now) {
            return Ok(());
        }
        state.turn_at = None;
        if state.paused_until > self.now {
            let at = state.paused_until;
            self.wake_at(node, at);
            return Ok(());
        }
        let starved = self.now < state.starved_until;
        let take = match self.rng.percent(20) {
            true => self.rng.index(state.inbox.len() + 1),
            false => state.inbox.len(),
        };
        let take = if starved { take.min(1) } else { take };
        if starved {
            state.paused_until = self.now + self.rng.range(10 * MS..40 * MS);
        }
        let now = self.clock(node);
        for _ in 0..take {
            let Some(input) = self.nodes[node.index()].inbox.pop_front() else { break };
            let point = self.ends_at_disk(node, &input);
            if point.is_some_and(|point| !self.passes(node, point, Side::Before)) {
                break;
            }
            self.take_input(node, now, input);
            self.watch_steps(node)?;
            if point.is_some_and(|point| !self.passes(node, point, Side::After)) {
                break;
            }
            self.perform(node)?;
        }
        let Node { core, rows, .. } = &mut self.nodes[node.index()];
        let Some(core) = core else { return Ok(()) };
        // A shell has no rows before the first Prepare; the core does not touch them then.
        let none = &mut Rows::new(node, tradewind_ledger::ViewId(0), &[], 0);
        core.handle_rows(now, rows.as_mut().unwrap_or(none));
        self.watch_steps(node)?;
        self.perform(node)?;
        self.flush(node);
        if std::mem::take(&mut self.delivered) || self.plan.bulk_percent > 0 {
            self.check_turn(node)?;
        }
        if !self.nodes[node.index()].inbox.is_empty() {
            self.wake(node);
        }
        let timeout = self.nodes[node.index()].core.as_ref().and_then(NodeCore::poll_timeout);
        if let Some(Instant(at)) = timeout {
            self.wake_at(node, at.max(self.now + 10));
        }
        Ok(())
    }

    /// What ends at the disk, before the core comes to know of it. Returns which point that is.
    fn ends_at_disk(&mut self, node: NodeId, input: &Input) -> Option<Point> {
        let state = &mut self.nodes[node.index()];
        Some(match input {
            Input::Synced(_) if std::mem::take(&mut state.sync_fails) => {
                // Nothing is acknowledged after this, nor tried again: the process ends.
                self.tell(|| format!("an fsync of {node} fails"));
                self.hit(Fault::SyncError);
                self.crash(node);
                return None;
            }
            Input::Synced(shard) => {
                state.disk(*shard).finish_sync();
                Point::Synced
            }
            Input::Promised(written) => {
                state.promising.take_if(|newest| newest.view == written.view);
                if self.plan.planted != Some(Planted::PromiseForgotten) {
                    state.promise.clone_from(written);
                }
                Point::Promised
            }
            Input::Remembered(written) => {
                state.remembered.clone_from(written);
                Point::Remembered
            }
            Input::Rewound(shard, to) => {
                state.disk(*shard).cut(*to);
                state.rewinding = None;
                Point::WasCut
            }
            Input::Snapshots(Done::Begun(..) | Done::Part(..) | Done::Value(..)) => Point::Kept,
            Input::Snapshots(Done::Planted(..)) => Point::Planted,
            _ => return None,
        })
    }

    fn take_input(&mut self, node: NodeId, now: Now, input: Input) {
        let Node { core, rows, links, disks, snapshots, .. } = &mut self.nodes[node.index()];
        let Some(core) = core else { return };
        match input {
            Input::Frame(from, generation, frame) => {
                if links.get(&from) != Some(&generation) {
                    return;
                }
                match frame {
                    Frame::Message(message) => core.handle_message(now, from, &message),
                    Frame::Publish { view, offset, bytes } => {
                        if let Some(rows) = rows.as_mut().filter(|rows| rows.view == view) {
                            rows.land(from, offset, &bytes);
                        } else {
                            self.coverage.seen.hit(Seen::FrameOfOldView);
                        }
                    }
                }
            }
            Input::Linked(peer, generation) => {
                links.insert(peer, generation);
                core.handle_connected(now, peer);
            }
            Input::Unlinked(peer, generation) => {
                if links.get(&peer) == Some(&generation) {
                    links.remove(&peer);
                    core.handle_lost(now, peer);
                }
            }
            Input::Synced(shard) => {
                core.handle_durable(now, ShardIndex(shard as u16), disks[&shard].synced());
                self.start_sync(node, shard);
            }
            Input::Staged(shard, body, staged) => {
                core.handle_staged(now, ShardIndex(shard as u16), body, staged);
            }
            Input::Signed(shard, size, signature) => {
                core.handle_signature(ShardIndex(shard as u16), size, signature);
            }
            Input::LogRead(reader, first, root_before, entries) => {
                core.handle_log_read(reader, first, root_before, entries);
            }
            Input::ValueRead(reader, digest, offset, bytes) => {
                core.handle_value_read(reader, digest, offset, bytes);
            }
            Input::Roots(reader, roots) => core.handle_roots(now, reader, roots),
            Input::Promised(written) => core.handle_promised(now, written.view),
            Input::Snapshots(done) => self.take_snapshots(node, now, done),
            Input::Remembered(_) => {}
            Input::Rewound(shard, _) => {
                if disks[&shard].damage().is_err() {
                    // A start in the place of this one would find it.
                    return self.crash(node);
                }
                let rule = &self.plan.limits.snapshots;
                let recovered = snapshots.recover(shard, &disks[&shard], rule);
                core.handle_rewound(now, ShardIndex(shard as u16), recovered);
            }
            Input::Read(shard, read) => self.take_read(node, shard, read),
            Input::Submit(shard, submission) => {
                let ticket = submission.ticket;
                if let Err(refused) = core.handle_submit(ShardIndex(shard as u16), submission) {
                    self.see(Seen::Refused);
                    self.tell(|| format!("{node} refuses a request: {refused}"));
                    self.tickets.remove(&ticket);
                }
            }
        }
    }

    pub(super) fn perform(&mut self, node: NodeId) -> Check {
        while let Some(action) =
            self.nodes[node.index()].core.as_mut().and_then(NodeCore::poll_action)
        {
            self.act(node, action)?;
        }
        Ok(())
    }

    fn act(&mut self, node: NodeId, action: Action) -> Check {
        let point = point_of(&action);
        if point.is_some_and(|point| !self.passes(node, point, Side::Before)) {
            return Ok(());
        }
        self.do_action(node, action)?;
        if let Some(point) = point {
            self.passes(node, point, Side::After);
        }
        Ok(())
    }

    fn do_action(&mut self, node: NodeId, action: Action) -> Check {
        let incarnation = self.nodes[node.index()].incarnation;
        match action {
            Action::Prepare { view, members, row_len } => {
                self.tell(|| format!("{node} prepares view {view}"));
                self.nodes[node.index()].rows = Some(Rows::new(node, view, &members, row_len));
            }
            Action::Send { to, message } => self.transmit(node, to, Frame::Message(message)),
            Action::Disconnect { peer, reason } => {
                self.tell(|| format!("{node} disconnects {peer}: {reason}"));
                self.see(Seen::Disconnect);
                self.break_link(node, peer);
            }
            Action::Stage { shard, body, bytes, last, check } => {
                self.stage(node, shard.index(), body, &bytes, last.then_some(check));
            }
            Action::Unstage { shard, body } => {
                self.nodes[node.index()].disk(shard.index()).unstage(body);
            }
            Action::Append { shard, first, entries, values, bodies, .. } => {
                let shard = shard.index();
                self.tell(|| {
                    format!("{node} appends {} to shard {shard} at {first}", entries.len())
                });
                let disk = self.nodes[node.index()].disk(shard);
                self.coverage.seen.add(Seen::Detached, (values.len() + bodies.len()) as u64);
                self.coverage.seen.add(Seen::Adopted, bodies.len() as u64);
                self.delivered = true;
                disk.adopt(&bodies);
                disk.append(first, &entries, values);
                self.checker.invariant_one_order(shard, disk, first, &entries)?;
                self.start_sync(node, shard);
            }
            Action::ReadLog { reader, first, end, max_bytes } => {
                let disk = &self.nodes[node.index()].disks[&reader.shard.index()];
                if first < disk.first() {
                    self.read_pruned(node, reader);
                    return Ok(());
                }
                let checked = self.plan.planted != Some(Planted::DamageServed);
                let Ok(entries) = disk.read((first, end), max_bytes, checked) else {
                    self.see(Seen::RotFoundByRead);
                    self.crash(node);
                    return Ok(());
                };
                Checker::invariant_corruption_is_never_served(node, disk, first, &entries)?;
                let input = Input::LogRead(reader, first, disk.root(first), entries);
                let at = self.now + self.rng.range(20..2_000);
                self.at(at, Event::Input(node, incarnation, input));
            }
            Action::ReadValue { reader, digest, offset, max_bytes } => {
                let disk = &self.nodes[node.index()].disks[&reader.shard.index()];
                // Of a snapshot it may be asked for what it has not got: then it gives no answer.
                let Some(value) = disk.value(&digest) else { return Ok(()) };
                let rest = value.get(offset as usize..).unwrap_or_default();
                let bytes = rest[..rest.len().min(max_bytes)].to_vec();
                let input = Input::ValueRead(reader, digest, offset, bytes);
                let at = self.now + self.rng.range(20..2_000);
                self.at(at, Event::Input(node, incarnation, input));
            }
            Action::Snapshot { .. }
            | Action::ReadPart { .. }
            | Action::Take { .. }
            | Action::Agreed { .. }
            | Action::KeepPart { .. }
            | Action::KeepValue { .. }
            | Action::Plant { .. } => self.act_on_snapshots(node, action)?,
            Action::Sign { shard, checkpoint } => self.sign(node, shard.index(), &checkpoint)?,
            Action::Answers(answers) => {
                for answer in answers {
                    self.answer(node, answer)?;
                }
            }
            Action::Committed { shard, version } => {
                let disks = members_disks(self.plan, &self.nodes, shard.index(), self.roster(node));
                let own = &self.nodes[node.index()].disks[&shard.index()];
                let of = shard.index();
                self.checker.invariant_committed_is_durable(of, version, own, &disks)?;
            }
            Action::BarrierPassed { shard, barrier } => {
                self.barrier_passed(node, shard.index(), barrier);
            }
            Action::Checkpoint { shard, size, note } => {
                self.tell(|| {
                    format!("{node} has a checkpoint of shard {} at {size}", shard.index())
                });
                let of = (shard.index(), self.roster(node));
                self.checker.invariant_checkpoint_has_majority(of, size, &note)?;
                self.signed(node, shard.index(), size, note);
            }
            Action::Stopped { view, why } => {
                self.tell(|| format!("{node} stops view {view}: {why:?}"));
                self.refuse_reads(node);
                let admits = matches!(why, Stop::Admits(_));
                self.coverage.seen.add(Seen::HeldUp, u64::from(matches!(why, Stop::Slow(_))));
                self.admitting[node.index()] = admits.then_some(self.now);
            }
            Action::Installed { view, members } => {
                self.tell(|| format!("{node} installs view {view} of {members:?}"));
                self.admitted(node)?;
                self.invariant_lost_sync_is_made_good(node)?;
                let roster = self.roster(node);
                self.begins(roster);
                self.checker.invariant_one_successor_view(view, roster, &members)?;
                self.invariant_lost_disk_has_no_voice(node)?;
            }
            Action::Promise(promise) => {
                self.tell(|| {
                    format!("{node} promises view {} of {:?}", promise.view, promise.members)
                });
                let state = &mut self.nodes[node.index()];
                self.checker.promised(promise.view, node, state.crashes);
                if self.now < state.full_until {
                    // A promise that cannot be written is not given: the process ends.
                    self.crash(node);
                    return Ok(());
                }
                state.promising = Some(promise.clone());
                let start = self.now.max(state.slow_until);
                let at = start + self.rng.delay(self.plan.fsync.0, self.plan.fsync.1);
                let done = &mut self.nodes[node.index()].promised_at;
                *done = at.max(*done);
                let at = *done;
                self.at(at, Event::Input(node, incarnation, Input::Promised(promise)));
            }
            Action::Remember(_) if self.now < self.nodes[node.index()].full_until => {}
            Action::Remember(peers) => {
                let at = self.now + self.rng.delay(self.plan.fsync.0, self.plan.fsync.1);
                self.at(at, Event::Input(node, incarnation, Input::Remembered(peers)));
            }
            Action::ReadRoots { reader, sizes } => {
                let disk = &self.nodes[node.index()].disks[&reader.shard.index()];
                let roots = sizes.into_iter().map(|size| (size, disk.root(size))).collect();
                let at = self.now + self.rng.range(20..2_000);
                self.at(at, Event::Input(node, incarnation, Input::Roots(reader, roots)));
            }
            Action::Rewind { shard, to, dropped } => {
                let shard = shard.index();
                self.tell(|| format!("{node} cuts {dropped} entries of shard {shard}, to {to}"));
                let state = &mut self.nodes[node.index()];
                self.checker.invariant_rewind_keeps_committed(shard, &state.disks[&shard], to)?;
                state.rewinding = Some((shard, to));
                let at = self.now + self.rng.range(20..5_000);
                self.at(at, Event::Input(node, incarnation, Input::Rewound(shard, to)));
            }
            Action::Unknown(tickets) => {
                self.coverage.seen.add(Seen::Unknown, tickets.len() as u64);
                for ticket in &tickets {
                    self.tickets.remove(ticket);
                }
            }
            Action::SnapshotsDiffer { differ, .. } => {
                let detail = format!("{node}: two snapshots of {} entries differ", differ.size);
                return Err(Violation { invariant: "invariant_snapshots_identical", detail });
            }
            Action::Failed(Fatal::LostData { .. }) if self.nodes[node.index()].lost.is_some() => {
                self.find_disk(node);
            }
            Action::Failed(fatal) if self.detects_a_lie(&fatal) => {}
            Action::Failed(Fatal::Removed { .. })
                if !self.plan.is_seated(node, self.newest_roster) =>
            {
                self.dismiss(node);
            }
            Action::Failed(fatal) => {
                let detail = format!("{node}: {fatal}");
                return Err(Violation { invariant: "invariant_no_node_fails", detail });
            }
        }
        Ok(())
    }

    fn sign(&mut self, node: NodeId, shard: usize, checkpoint: &Checkpoint) -> Check {
        let roster = self.roster(node);
        let disks: Vec<&Disk> = members_disks(self.plan, &self.nodes, shard, roster);
        let own = &self.nodes[node.index()].disks[&shard];
        self.checker.invariant_signed_is_durable(shard, checkpoint, own, &disks)?;
        let file = self.nodes[node.index()].file.expect("it runs");
        let signature = self.plan.signer(node, file).sign(checkpoint.to_string().as_bytes());
        let input = Input::Signed(shard, checkpoint.size, signature);
        let at = self.now + self.rng.range(20..500);
        let incarnation = self.nodes[node.index()].incarnation;
        self.at(at, Event::Input(node, incarnation, input));
        Ok(())
    }

    pub(super) fn start_sync(&mut self, node: NodeId, shard: usize) {
        let state = &mut self.nodes[node.index()];
        let now = self.now;
        let Some(disk) = state.disks.get_mut(&shard) else { return };
        if now >= state.full_until {
            disk.fill(false);
        }
        if disk.start_sync() {
            let (usual, longest) = self.plan.fsync;
            // As long as the disk is full, what is to be synced waits to be written.
            let start = now.max(state.slow_until).max(state.full_until);
            let (at, incarnation) = (start + self.rng.delay(usual, longest), state.incarnation);
            self.at(at, Event::Input(node, incarnation, Input::Synced(shard)));
        }
    }

    /// A piece of a body goes to the disk; `last`: the digest that the whole body must have, if any.
    fn stage(
        &mut self,
        node: NodeId,
        shard: usize,
        body: BodyId,
        bytes: &[u8],
        last: Option<Option<Digest>>,
    ) {
        let state = &mut self.nodes[node.index()];
        let found = state.disk(shard).stage(body, bytes, last.is_some());
        let (incarnation, start) = (state.incarnation, self.now.max(state.slow_until));
        let (usual, longest) = self.plan.fsync;
        // Into the page cache; only the end is synced.
        let part = start + self.rng.range(20..300);
        let part_of = Staged::Part(bytes.len());
        self.at(part, Event::Input(node, incarnation, Input::Staged(shard, body, part_of)));
        let (Some(check), Some(found)) = (last, found) else { return };
        let staged = match check {
            Some(check) if check != found => Staged::Wrong(found),
            _ => Staged::Whole,
        };
        let at = part + self.rng.delay(usual, longest);
        self.at(at, Event::Input(node, incarnation, Input::Staged(shard, body, staged)));
    }

    fn check_turn(&self, node: NodeId) -> Check {
        for shard in self.nodes[node.index()].disks.keys() {
            let members = self.plan.ever(*shard).into_iter();
            let active = |member: NodeId| {
                let core = self.nodes[member.index()].core.as_ref()?;
                let status = core.replica_status(ShardIndex(*shard as u16))?;
                (core.state() == State::Active).then_some((core.view().0, status))
            };
            let statuses: Vec<_> = members.filter_map(active).collect();
            Checker::invariant_stable_before_delivered(*shard, &statuses)?;
            Checker::invariant_held_before_ordered(*shard, &statuses)?;
        }
        Ok(())
    }
}
