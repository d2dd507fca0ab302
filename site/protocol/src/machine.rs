//! The replicated machine of one shard: ordered commands in, entries out.
//!
//! Everything here is a function of the delivered messages: the same at every replica, byte for byte. In
//! particular segments are cut here, by what was delivered, never by a clock (docs/protocol.md, section 4).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tradewind_ledger::{
    Base, Body, Digest, Entry, Hlc, Member, Replay, RequestId, SealLimits, SnapshotRecord, Value,
    Version, ViewId, ViewRecord,
};
use tradewind_store::snapshot::Pin;
use tradewind_store::{
    Apart, Command, CommandError, Context, Lean, Outcome, Refusal, Reply, SnapshotRule, Store,
};

use crate::action::{Action, Adopted};
use crate::batch::{EntryBatch, Values};
use crate::ids::{BodyId, ShardIndex};

/// A size at which all replicas sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) size: Version,
    pub(crate) root: Digest,
}

/// The ledger's running state and what came of the last deliveries.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    replay: Replay,
    limits: SealLimits,
    /// Entries made and not yet handed to the log, from `first` on.
    first: Version,
    entries: EntryBatch,
    leaves: Vec<Digest>,
    values: Values,
    adopted: Vec<Adopted>,
    marks: VecDeque<Mark>,
    rule: SnapshotRule,
    /// What was pinned for snapshots, with the end of the segment where that was.
    pins: Vec<(Pin, Arc<Base>)>,
    scratch: Vec<u8>,
    /// Planted bug: the clock to seal by.
    pub(crate) local_clock: Option<Hlc>,
}

impl Machine {
    pub(crate) fn new(replay: Replay, limits: SealLimits, rule: SnapshotRule) -> Self {
        let first = replay.size();
        let (entries, leaves, values) = (EntryBatch::default(), Vec::new(), Vec::new());
        let (marks, scratch, local_clock) = (VecDeque::new(), Vec::new(), None);
        let (adopted, pins) = (Vec::new(), Vec::new());
        Self {
            replay,
            limits,
            first,
            entries,
            leaves,
            values,
            adopted,
            marks,
            rule,
            pins,
            scratch,
            local_clock,
        }
    }

    pub(crate) fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Entries so far: the delivered size.
    pub(crate) fn size(&self) -> Version {
        self.replay.size()
    }

    /// Executes a command; `stamp` is the time of the message that brought it.
    pub(crate) fn execute(
        &mut self,
        store: &mut Store,
        stamp: Hlc,
        request: RequestId,
        command: &[u8],
    ) -> Reply {
        let command = match Command::decode(command) {
            Ok(command) => command,
            Err(error) => return Reply::Refused(Refusal::Command(error)),
        };
        let outcome = store.execute(self.context(stamp, request), command);
        self.take_outcome(store, stamp, outcome, &mut Vec::new())
    }

    /// Executes a lean command whose large values are these; leaves those that no entry names.
    pub(crate) fn execute_lean(
        &mut self,
        store: &mut Store,
        stamp: Hlc,
        request: RequestId,
        command: &[u8],
        bodies: &mut Vec<(BodyId, Apart)>,
    ) -> Reply {
        let carries = |lean: &Lean| lean.apart().eq(bodies.iter().map(|(_, apart)| *apart));
        // Decided by what was ordered, so all replicas refuse it alike; no node makes such a one.
        let Some(lean) = Lean::decode(command).ok().filter(carries) else {
            let error = CommandError::Malformed(command.len() as u64);
            return Reply::Refused(Refusal::Command(error));
        };
        let outcome = store.execute_lean(self.context(stamp, request), lean);
        self.take_outcome(store, stamp, outcome, bodies)
    }

    fn context(&self, stamp: Hlc, request: RequestId) -> Context {
        let hlc = stamp.after(self.replay.last_hlc());
        Context { version: self.size(), hlc, view: self.replay.view(), request }
    }

    fn take_outcome(
        &mut self,
        store: &mut Store,
        stamp: Hlc,
        outcome: Outcome,
        bodies: &mut Vec<(BodyId, Apart)>,
    ) -> Reply {
        if let Some(entry) = &outcome.entry {
            self.record(entry);
            self.values.extend(outcome.detached);
            if !bodies.is_empty() {
                self.adopt(entry, bodies);
            }
            if self.seal_due() {
                self.seal(store, stamp);
            }
        }
        outcome.reply
    }

    /// The bodies that an entry names become its values, each once.
    fn adopt(&mut self, entry: &Entry, bodies: &mut Vec<(BodyId, Apart)>) {
        for update in entry.updates() {
            let Some(Value::Detached { len, digest }) = update.value else { continue };
            let named = |(_, apart): &(BodyId, Apart)| apart.digest == digest;
            if let Some(at) = bodies.iter().position(named) {
                let (body, _) = bodies.remove(at);
                self.adopted.push(Adopted { body, digest, len });
            }
        }
    }

    /// Begins the ledger: its first entry.
    pub(crate) fn begin(&mut self, store: &mut Store, genesis: &Entry) {
        self.apply(store, genesis);
    }

    /// Begins a view: its VIEW entry, and a mark, so that a group that comes back soon signs.
    pub(crate) fn begin_view(
        &mut self,
        store: &mut Store,
        view: ViewId,
        members: Vec<Member>,
        stamp: Hlc,
    ) {
        self.marks.clear();
        let hlc = stamp.after(self.replay.last_hlc());
        self.apply(store, &Entry { hlc, view, body: Body::View(ViewRecord { view, members }) });
        self.mark();
    }

    /// An ordered request to seal: `always`, or only if the open segment has entries.
    pub(crate) fn seal_on_request(&mut self, store: &mut Store, stamp: Hlc, always: bool) {
        if always || !self.replay.segment().is_empty() {
            self.seal(store, stamp);
        }
    }

    /// An ordered request to commit the ledger to a snapshot that a majority made.
    pub(crate) fn commit_snapshot(
        &mut self,
        store: &mut Store,
        stamp: Hlc,
        record: SnapshotRecord,
    ) {
        // Whoever asks has those entries, and nothing is delivered here that it has not delivered.
        if record.size <= self.size() {
            let hlc = stamp.after(self.replay.last_hlc());
            let view = self.replay.view();
            self.apply(store, &Entry { hlc, view, body: Body::Snapshot(record) });
            if self.seal_due() {
                self.seal(store, stamp);
            }
        }
    }

    /// The size so far is to be signed.
    pub(crate) fn mark(&mut self) {
        let mark = Mark { size: self.size(), root: self.replay.root() };
        if self.marks.back() != Some(&mark) {
            self.marks.push_back(mark);
        }
    }

    /// Marks made since the last call.
    pub(crate) fn take_marks(&mut self) -> impl Iterator<Item = Mark> + '_ {
        self.marks.drain(..)
    }

    /// The snapshots that became due since the last call.
    pub(crate) fn take_pins(&mut self) -> impl Iterator<Item = (Pin, Arc<Base>)> + '_ {
        self.pins.drain(..)
    }

    /// What the log is to append since the last call.
    pub(crate) fn take_appended(&mut self, shard: ShardIndex) -> Option<Action> {
        if self.entries.is_empty() {
            return None;
        }
        let leaves = self.leaves.len();
        Some(Action::Append {
            shard,
            first: core::mem::replace(&mut self.first, self.replay.size()),
            entries: self.entries.take(),
            leaves: core::mem::replace(&mut self.leaves, Vec::with_capacity(leaves)),
            values: core::mem::take(&mut self.values),
            bodies: core::mem::take(&mut self.adopted),
        })
    }

    /// Takes up an entry that another replica made, while catching up.
    ///
    /// # Errors
    /// In words why it does not continue the ledger; the machine must not be used any more.
    pub(crate) fn follow(
        &mut self,
        store: &mut Store,
        bytes: &[u8],
        values: &mut Values,
    ) -> Result<(), alloc::string::String> {
        let text = |error: &dyn core::fmt::Display| alloc::format!("{error}");
        let version = self.size();
        let entry = self.replay.push(bytes).map_err(|error| text(&error))?;
        store.apply(version, &entry).map_err(|error| text(&error))?;
        self.entries.push(bytes);
        self.leaves.push(self.replay.last_leaf());
        self.values.append(values);
        if let Body::Seal(_) = entry.body {
            self.pin(store);
        }
        Ok(())
    }

    fn seal_due(&self) -> bool {
        // By the time in the ledger itself, which is agreed.
        let now = self.local_clock.unwrap_or(self.replay.last_hlc());
        let segment = self.replay.segment();
        !segment.is_empty() && segment.due(&self.limits, now)
    }

    fn seal(&mut self, store: &mut Store, stamp: Hlc) {
        let hlc = stamp.after(self.replay.last_hlc());
        let entry = self.replay.make_seal(hlc);
        self.apply(store, &entry);
        self.pin(store);
        self.mark();
    }

    /// At the end of a segment: pins the state if a snapshot is due.
    fn pin(&mut self, store: &mut Store) {
        if let Some(pin) = store.pin_if_due(&self.rule) {
            let base = self.replay.base().expect("a SEAL was just taken up");
            self.pins.push((pin, Arc::clone(base)));
        }
    }

    fn apply(&mut self, store: &mut Store, entry: &Entry) {
        store.apply(self.size(), entry).expect("control entries fit any state");
        self.record(entry);
    }

    fn record(&mut self, entry: &Entry) {
        self.scratch.clear();
        entry.encode(&mut self.scratch).expect("the store makes entries that can be encoded");
        let leaf = self.replay.observe(&self.scratch, entry);
        self.leaves.push(leaf.expect("entries made here continue the ledger"));
        self.entries.push(&self.scratch);
    }
}
