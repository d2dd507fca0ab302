//! Symmetric one-sided memory between the nodes of one site: the [`Fabric`] trait and its providers.
//!
//! Every node owns one **row** of bytes and holds a read-only copy of every other member's row.
//! The owner stores into its row and *publishes* ranges of it; some time later the copies at the
//! peers show them. That is all the fast path of the core group needs: no request, no answer, no
//! thread a peer. Beside it there is a **control lane** of ordinary messages for what is rare.
//!
//! The contract in full, with the reasons, is `docs/fabric.md`; in short:
//!
//! 1. **Order.** When a peer sees the effect of a publish, it sees all that was published to it
//!    before. What it sees of a word of eight bytes is never torn. (A copy may already show
//!    something *later*: the newest value wins, values in between may never be seen.)
//! 2. **No loss within a view.** While the view lasts, a publish reaches each peer it was meant for,
//!    through slow spells, reconnects, and a peer that prepares the view later than the owner.
//! 3. **Regions belong to a view.** After [`Fabric::prepare`] nothing of an older view ever lands.
//! 4. **Bounded.** A peer that does not read costs a fixed amount of memory, and nobody else time.
//! 5. **One thread.** All calls but [`Wake::wake`] come from the group thread; copies change inside
//!    [`Fabric::poll`] only, so whatever runs between two polls sees memory that stands still.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tcp`] | the fabric over TCP, with TLS unless the topology says otherwise |
//! | [`shm`] | rows through shared memory between processes of one host, all else over TCP |
//! | `verbs` | rows by RDMA, all else over TCP (features `verbs`, `verbs-dlopen`) |
//! | [`sim`] | nodes of one process, for tests: chance from a seed, and time that passes when it is told to |
//! | `choice` | [`open`]: the provider that a topology asks for |
//! | `paths` | how rows reach each peer, for people |
//! | `bytes` | taking messages of providers apart |
//! | `ranges` | which bytes of a row a peer has still to be shown |
//! | `region` | the rows of a view |

pub mod shm;
pub mod sim;
pub mod tcp;
#[cfg(any(feature = "verbs", feature = "verbs-dlopen"))]
pub mod verbs;

mod bytes;
mod choice;
mod paths;
mod ranges;
mod region;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

pub use choice::{OpenError, open, open_with};
pub use paths::{Path, PathKind, Paths};

/// A node's index in its site's list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The index as it is used on slices.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node #{}", self.0)
    }
}

/// The longest row that [`Fabric::prepare`] accepts.
pub const ROW_BYTES_MAX: usize = 256 << 20;

/// The longest message of the control lane.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Bytes and messages of the control lane that may wait for one peer.
const LANE_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
const LANE_MESSAGES_MAX: usize = 4_096;

/// Symmetric one-sided memory between the nodes of one site; see the module's contract.
pub trait Fabric: Send {
    /// Makes the zeroed regions of a view: the own row, and a copy of the row of each member.
    ///
    /// From now on what peers publish in this view lands; what they still send of older views is
    /// dropped and counted. What this node published in the older view and was not yet sent is
    /// forgotten. Members need not prepare at the same time: a publish waits for its reader.
    /// Neither links nor messages of the control lane are touched.
    ///
    /// The caller's duty: a view id is used for one membership and one `row_len` only, for ever;
    /// `members` includes the own node.
    ///
    /// # Errors
    /// [`FabricError`] if the view is not newer than the current one, the row too long or not of
    /// whole words, or a member unknown; nothing has changed then.
    fn prepare(&mut self, view: u64, members: &[NodeId], row_len: usize)
    -> Result<(), FabricError>;

    /// Writes to the own row, visible to nobody until it is published.
    ///
    /// # Panics
    /// If no view is prepared, or the bytes would end beyond the row.
    fn store(&mut self, offset: usize, bytes: &[u8]);

    /// Queues a range of the own row for `peers`; it leaves with the next [`Self::flush`].
    ///
    /// What is sent is the range's content at the moment of sending, so a store to a range that is
    /// still queued may be seen without a publish of its own. Ranges are widened to whole words of
    /// eight bytes. The own node in `peers` is ignored.
    ///
    /// # Panics
    /// If the range ends beyond the row, or a peer is no member of the view.
    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]);

    /// Sends what is queued, as far as the links take it now; the rest follows from [`Self::poll`].
    /// To be called once in each turn of the caller's loop, after its publishes and sends.
    fn flush(&mut self);

    /// One little-endian word of the local copy of a member's row (of the own row: itself).
    ///
    /// # Panics
    /// If `peer` is no member, or `offset` is no multiple of eight or ends beyond the row.
    fn load(&self, peer: NodeId, offset: usize) -> u64;

    /// Copies bytes out of the local copy of a member's row (of the own row: itself).
    ///
    /// # Panics
    /// If `peer` is no member, or the bytes end beyond the row.
    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]);

    /// Queues a message of the control lane: reliable and in order while the link lasts, lost with it.
    ///
    /// It arrives after all that was published to that peer before it is visible there, except for
    /// publishes that still wait for the peer to prepare their view; later publishes may be visible
    /// when it arrives. `false` if it was not taken: no link, longer than [`MESSAGE_BYTES_MAX`], or
    /// the lane's queue is full.
    #[must_use]
    fn send(&mut self, peer: NodeId, message: &[u8]) -> bool;

    /// Moves bytes in both directions, then returns what happened, appended to `events`.
    ///
    /// Parks in the kernel until there is an event, [`Wake::wake`] was called or `timeout` is over
    /// (`None`: no limit). Never spins when idle.
    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<FabricEvent>);

    /// A handle with which other threads end the current or next [`Self::poll`].
    fn waker(&self) -> Arc<dyn Wake>;

    /// Breaks the link to a peer, telling it why; the fabric will connect anew, after a pause.
    /// The event [`FabricEvent::Lost`] follows if it was connected.
    fn disconnect(&mut self, peer: NodeId, reason: &str);

    /// What was counted since the start.
    fn counters(&self) -> Counters;
}

/// Ends a [`Fabric::poll`] from another thread.
pub trait Wake: Send + Sync {
    /// The current or next poll returns with [`FabricEvent::Woken`]; calls before that add up to one.
    fn wake(&self);
}

/// Something that [`Fabric::poll`] has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FabricEvent {
    /// The link to a peer is up and both ends have accepted each other.
    Connected {
        /// Who.
        peer: NodeId,
        /// The peer's incarnation: it grows with each start of the peer's process.
        incarnation: u64,
    },
    /// The link to a peer is gone; messages on their way are lost. The fabric goes on trying.
    Lost {
        /// Who.
        peer: NodeId,
        /// What happened, for people.
        reason: String,
    },
    /// A link could not be made; told again only when the reason changes. The fabric goes on trying.
    Unreachable {
        /// Who.
        peer: NodeId,
        /// What stands in the way, for people.
        reason: String,
    },
    /// A message of the control lane.
    Message {
        /// From whom.
        peer: NodeId,
        /// As it was sent.
        bytes: Vec<u8>,
    },
    /// The copy of a peer's row has changed; told once a poll.
    RowChanged {
        /// Whose.
        peer: NodeId,
    },
    /// [`Wake::wake`] was called.
    Woken,
}

/// Why a view was not prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FabricError {
    /// View ids only grow.
    #[error("view {view} is not newer than view {current}, which is prepared")]
    OldView {
        /// The view asked for.
        view: u64,
        /// The view in force.
        current: u64,
    },
    /// Rows are of whole words, and bounded.
    #[error("a row of {found} bytes: allowed are multiples of 8 from 8 to {ROW_BYTES_MAX}")]
    RowLength {
        /// The length asked for.
        found: usize,
    },
    /// A member that is not in the site's list of nodes.
    #[error("{0} is not a node of this site")]
    UnknownMember(NodeId),
    /// A view without the own node.
    #[error("the own node, {0}, is not among the members")]
    NotMember(NodeId),
}

/// What a fabric has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes handed to the network.
    pub bytes_sent: u64,
    /// Bytes taken from the network.
    pub bytes_received: u64,
    /// Calls of [`Fabric::publish`]: the fabric's operations on the fast path.
    pub publishes: u64,
    /// Batches of published ranges sent.
    pub batches_sent: u64,
    /// Batches of published ranges that landed.
    pub batches_received: u64,
    /// Messages of the control lane sent.
    pub messages_sent: u64,
    /// Messages of the control lane received.
    pub messages_received: u64,
    /// Batches of an older view, dropped.
    pub stale_dropped: u64,
    /// Links made.
    pub links_made: u64,
    /// Links lost.
    pub links_lost: u64,
    /// Connections refused: not authenticated, another deployment, site or topology.
    pub refused: u64,
    /// Peers that were asleep and were woken by a system call of their own (shared memory).
    pub bells_rung: u64,
    /// Peers that were too slow for the ring in shared memory, and left it for a while.
    pub laps: u64,
    /// RDMA writes handed to a network card.
    pub writes_posted: u64,
    /// The most bytes that waited for one peer, sealed batches and messages together.
    pub backlog_bytes_max: u64,
}

impl Counters {
    /// These of a provider, and those of the TCP fabric that it is built upon, which counts as published only
    /// what goes over it.
    fn upon(self, tcp: Self) -> Self {
        Self {
            bytes_sent: self.bytes_sent + tcp.bytes_sent,
            bytes_received: self.bytes_received + tcp.bytes_received,
            publishes: self.publishes,
            batches_sent: self.batches_sent + tcp.batches_sent,
            batches_received: self.batches_received + tcp.batches_received,
            stale_dropped: self.stale_dropped + tcp.stale_dropped,
            bells_rung: self.bells_rung,
            laps: self.laps,
            writes_posted: self.writes_posted,
            ..tcp
        }
    }
}
