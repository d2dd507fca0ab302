//! What a core asks of its shell.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use tradewind_ledger::note::{Checkpoint, SignedNote};
use tradewind_ledger::{Base, Digest, Manifest, RequestId, Version, ViewId};
use tradewind_store::snapshot::Pin;
use tradewind_store::{Body, Durability, Lean, Reply};

use crate::batch::{EntryBatch, Values};
use crate::error::{Fatal, PeerFault, SnapshotsDiffer};
use crate::formation::Recollection;
use crate::ids::{Barrier, BodyId, NodeId, ShardIndex, Ticket};
use crate::payload::NAMED;
use crate::roster::RosterId;
use crate::taking::Part;

/// A command of a client for one shard.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The shell's name for it.
    pub ticket: Ticket,
    /// The client's request: executed once, however often it is submitted.
    pub request: RequestId,
    /// When to answer: `Memory` when every member has executed it (only a crash of all members before any
    /// of them synced can undo it), `Disk` when it is on disk at a majority.
    pub durability: Durability,
    /// A [`tradewind_store::Command`] in postcard, as it came from the client; decoded at delivery.
    pub command: Vec<u8>,
    /// Large values that were taken out of `command` by [`Submission::lighten`]; empty otherwise.
    pub bodies: Vec<Body>,
}

impl Submission {
    /// If the command has more than `most` bytes, takes its large values out: they go by the bulk lane, so that nothing
    /// has to wait for them in the order. Hashes them, which takes a while: not on a thread that others wait for.
    #[must_use]
    pub fn lighten(mut self, most: usize) -> Self {
        if self.command.len() > most && self.bodies.is_empty() {
            let command = Bytes::from(core::mem::take(&mut self.command));
            if let Some((lean, bodies)) = Lean::split(&command) {
                self.bodies = bodies;
                // Room for the number of its last body, which is known when it is sent.
                self.command = [&[0; NAMED][..], &lean.encode()].concat();
            } else {
                self.command = command.into();
            }
        }
        self
    }

    /// Bytes of the command and its large values.
    pub(crate) fn len(&self) -> usize {
        self.command.len() + self.body_bytes()
    }

    pub(crate) fn body_bytes(&self) -> usize {
        self.bodies.iter().map(|body| body.bytes.len()).sum()
    }
}

/// A body that an entry names: one of its detached values, staged before the entry was ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adopted {
    /// Which.
    pub body: BodyId,
    /// Its SHA-256, by which the entry names it.
    pub digest: Digest,
    /// Its length, bytes.
    pub len: u64,
}

/// The outcome of one submission. Answers of one shard and durability come in the order of its ledger.
/// An answer that wrote nothing (a conflict, a repeated request) waits like any other, until the
/// state that it was decided on has the durability asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The submission's ticket.
    pub ticket: Ticket,
    /// What the store answered; also a command that can not be decoded is answered here.
    pub reply: Reply,
}

/// Whom a read of the log is for; handed back with the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadFor {
    /// The peer that is behind; the own node, when it compares its ledger with another.
    pub peer: NodeId,
    /// The view that is being formed, or runs.
    pub view: ViewId,
    /// The shard.
    pub shard: ShardIndex,
}

/// Why a view stopped at this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The link to this member is lost, or it was silent.
    Lost(NodeId),
    /// This member holds a shard up, and the others are enough without it.
    Slow(NodeId),
    /// This member told that it stopped, or that it is new.
    Followed(NodeId),
    /// To let this node in.
    Admits(NodeId),
    /// This node told of a later view, which runs without the own node.
    Overtaken(NodeId),
}

/// The last view that a node accepted: it accepts no other of this number or a lower one, ever.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Promise {
    /// The view; zero before the first.
    pub view: ViewId,
    /// Its members: whom a node waits for a while at its start.
    pub members: Vec<NodeId>,
    /// The roster that it is of: the node helps to make no view of an older one, ever.
    pub roster: RosterId,
    /// The digest of that roster, so that it is not taken for another of its number; zero before the first view.
    pub digest: Digest,
    /// The newest roster of which the node knows that a view was installed: no view of an older one can be made.
    pub established: RosterId,
}

/// What the shell must do, in the order of [`crate::NodeCore::poll_action`].
#[derive(Clone, Debug)]
pub enum Action {
    /// Write this to stable storage in place of the promise before (old or new after a crash, never neither), synced
    /// before [`crate::NodeCore::handle_promised`]; after a restart it goes into [`crate::NodeCore::new`]. A node
    /// that forgot a promise could help to make two views of one number.
    Promise(Promise),
    /// Write down what is known of the others, by node, in place of what was written before: soon, but nothing waits for
    /// it. After a restart it goes into [`crate::NodeCore::recall`].
    Remember(Vec<Recollection>),
    /// Make zeroed rows of `row_len` bytes for this view (`Fabric::prepare`), before the next action.
    Prepare {
        /// The view.
        view: ViewId,
        /// Its members.
        members: Vec<NodeId>,
        /// Bytes of each row.
        row_len: usize,
    },
    /// Send on the control lane. If the lane refuses it (full), disconnect the peer: the protocol relies
    /// on a reliable lane while connected.
    Send {
        /// To whom.
        to: NodeId,
        /// The message.
        message: Vec<u8>,
    },
    /// Break the connection; the core already counts the peer as lost. The fabric reconnects.
    Disconnect {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: PeerFault,
    },
    /// Append to the shard's ledger and sync; then `handle_durable`. Values are stored (and synced)
    /// before the entries that name them.
    Append {
        /// The shard.
        shard: ShardIndex,
        /// Position of the first entry.
        first: Version,
        /// Encoded entries.
        entries: EntryBatch,
        /// Their leaf hashes, which the machine had to compute anyway.
        leaves: Vec<Digest>,
        /// Detached values by their SHA-256.
        values: Values,
        /// Detached values that were staged: to be made the ledger's, durably, before the entries are.
        bodies: Vec<Adopted>,
    },
    /// Write the next piece of a body beside the ledger, under a name of its own and on a thread of its own, for it may be
    /// long; and tell how far it is by [`crate::NodeCore::handle_staged`]. With the last piece sync it, and compare its
    /// digest with `check`. What is staged need not outlive the process.
    Stage {
        /// The shard.
        shard: ShardIndex,
        /// The body.
        body: BodyId,
        /// What follows.
        bytes: Bytes,
        /// Whether it is the last piece.
        last: bool,
        /// Of the last piece: the SHA-256 that the whole must have, if it is not known to have it.
        check: Option<Digest>,
    },
    /// Remove what was staged of a body; nothing more is asked of it, or reported.
    Unstage {
        /// The shard.
        shard: ShardIndex,
        /// The body.
        body: BodyId,
    },
    /// Make a snapshot of the shard's store as it was at the end of a segment, if the shell keeps snapshots: beside
    /// everything else, and only once a majority has signed for that size.
    Snapshot {
        /// The shard.
        shard: ShardIndex,
        /// What was pinned of the store.
        pin: Box<Pin>,
        /// The ledger there.
        base: Arc<Base>,
    },
    /// Read durable entries `first..end` (as many as fit `max_bytes`, at least one), and the tree's root
    /// over the entries before `first`; then `handle_log_read`, or `handle_log_pruned` if they were
    /// pruned. An unreadable log is fatal for the shell.
    ReadLog {
        /// Handed back.
        reader: ReadFor,
        /// First entry.
        first: Version,
        /// End, exclusive.
        end: Version,
        /// Bound on the sum of the entries' lengths (one entry may exceed it).
        max_bytes: usize,
    },
    /// Read `max_bytes` of a detached value from `offset`; then `handle_value_read`.
    ReadValue {
        /// Handed back.
        reader: ReadFor,
        /// The value.
        digest: Digest,
        /// Where to start.
        offset: u64,
        /// Most bytes to read; fewer only at the end of the value.
        max_bytes: usize,
    },
    /// Read up to `max_bytes` of a part of the own snapshot of `size` entries, from `offset`; then `handle_part_read`.
    ReadPart {
        /// Handed back.
        reader: ReadFor,
        /// Which snapshot.
        size: Version,
        /// Where its SNAPSHOT entry stands, which a manifest needs; `None` if that is not known any more.
        entry: Option<Version>,
        /// Which part.
        part: Part,
        /// Where to start.
        offset: u64,
        /// Most bytes to read; fewer only at the end of the part.
        max_bytes: usize,
    },
    /// Begin to keep the parts of this snapshot, in place of those of any other; those of the same that are there stay. Then
    /// `handle_taken`. The manifest was verified; after a restart it goes into [`crate::NodeCore::recall_taking`].
    Take {
        /// The shard.
        shard: ShardIndex,
        /// What the parts are.
        manifest: Box<Manifest>,
    },
    /// Keep a part durably; then `handle_part_kept`. It was verified, and comes in order: one that is there already is to be
    /// passed over.
    KeepPart {
        /// The shard.
        shard: ShardIndex,
        /// The snapshot.
        size: Version,
        /// Which part.
        part: Part,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Keep a detached value durably that a kept chunk names; then `handle_value_kept`.
    KeepValue {
        /// The shard.
        shard: ShardIndex,
        /// The snapshot.
        size: Version,
        /// Its length.
        len: u64,
        /// Its SHA-256, verified.
        digest: Digest,
        /// The value.
        bytes: Vec<u8>,
    },
    /// All of the snapshot is there: replace the ledger by one that begins with it, so that after a crash the one or the other
    /// is there; then `handle_planted`. All appends were synced before. A shell that cannot do so while it runs may
    /// do it and start the node anew.
    Plant {
        /// The shard.
        shard: ShardIndex,
        /// Entries that the snapshot is of.
        size: Version,
    },
    /// Compute the roots over the first `size` durable entries, for each of `sizes`; then `handle_roots`.
    ReadRoots {
        /// Handed back.
        reader: ReadFor,
        /// Sizes, none beyond what is durable.
        sizes: Vec<Version>,
    },
    /// Cut the shard's ledger to its first `to` entries, durably, and rebuild replay and store from them; then
    /// `handle_rewound`. What is cut off was never acknowledged (a majority went on without it); the shell reports it,
    /// and refuses to cut below its newest published checkpoint. All appends were synced before. A shell that cannot
    /// cut while it runs may cut and start the node anew.
    Rewind {
        /// The shard.
        shard: ShardIndex,
        /// Entries that stay.
        to: Version,
        /// Entries that go.
        dropped: u64,
    },
    /// Sign the checkpoint with the own key as log key (name = origin); then `handle_signature`.
    Sign {
        /// The shard.
        shard: ShardIndex,
        /// Size and root: on disk here and at a majority.
        checkpoint: Checkpoint,
    },
    /// Answer these submissions.
    Answers(Vec<Answer>),
    /// These submissions get no answer: they were executed in entries that are cut off, or changed nothing when the
    /// rest of a stopped view was delivered, where others may have gone on. Tell the clients that the outcome is not known;
    /// a request that is repeated is executed at most once.
    Unknown(Vec<Ticket>),
    /// Everything below `version` is on disk at a majority: reads may show it, mirrors may have it.
    Committed {
        /// The shard.
        shard: ShardIndex,
        /// The new watermark.
        version: Version,
    },
    /// The reads of the shard that [`crate::NodeCore::handle_read`] gave this barrier or an earlier one may look at the
    /// committed state now: whatever was acknowledged anywhere before they began is in it.
    BarrierPassed {
        /// The shard.
        shard: ShardIndex,
        /// The barrier.
        barrier: Barrier,
    },
    /// A majority of the members signed this checkpoint: publish it.
    Checkpoint {
        /// The shard.
        shard: ShardIndex,
        /// Its size.
        size: Version,
        /// The note with the signatures of a majority.
        note: SignedNote,
    },
    /// The running view stopped. Reads that wait for a barrier are refused; they may be tried again, anywhere.
    Stopped {
        /// The view.
        view: ViewId,
        /// Why.
        why: Stop,
    },
    /// A view was installed; for logs and metrics.
    Installed {
        /// The view.
        view: ViewId,
        /// Its members: a majority of the site's nodes.
        members: Vec<NodeId>,
    },
    /// The ledger holds the own snapshot of `size` entries, in the entry `at`, which a majority signed: it is kept until a later one is agreed on, and
    /// nothing after it is pruned, for whoever lacks what is gone can have it. After a restart it goes into
    /// [`crate::NodeCore::recall_offer`].
    Agreed {
        /// The shard.
        shard: ShardIndex,
        /// Which snapshot.
        size: Version,
        /// Its SNAPSHOT entry.
        at: Version,
    },
    /// A peer made another snapshot of the same entries: one of the two nodes computed wrongly. It ends as soon as a majority
    /// agreed against it; until then this is for logs.
    SnapshotsDiffer {
        /// The shard.
        shard: ShardIndex,
        /// The peer.
        peer: NodeId,
        /// The two.
        differ: SnapshotsDiffer,
    },
    /// The node can not go on: report, and exit with a code of its own.
    Failed(Fatal),
}
