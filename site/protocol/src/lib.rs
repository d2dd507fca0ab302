//! The core group of a site as one pure state machine, [`NodeCore`]: virtual synchrony over a shared table and
//! rings, in the manner of Derecho (Jha et al., ACM TOCS 2019). `docs/protocol.md` says what holds and why.
//!
//! A shell owns clocks, threads, sockets and files; it calls `handle_*` with what happens, performs what
//! [`NodeCore::poll_action`] hands out, and once a turn lets [`NodeCore::handle_rows`] work on the fabric's
//! memory. The simulator in `tests/` does the same with a fabric and disks of its own.
//!
//! | module | holds |
//! |---|---|
//! | `node` | [`NodeCore`]: inputs, outputs, heartbeats, status |
//! | `formation` (`quorum`, `choosing`, `proposing`, `completion`, `sources`, `rewinding`, `recalling`, `steps`), `catch_up`, `wire` | agreement on a view and on its first state; control messages |
//! | `formation::learning` | catching up beside a view that runs without this node |
//! | `formation::pace` | leaving out a member that holds the others up |
//! | `roster` | who the nodes are, and from which roster to which a view may lead |
//! | `formation::taking`, `taking` | a snapshot instead of entries that were pruned |
//! | `shard` (`turning`, `settling`, `timers`, `pace`, `recent`, `agreeing`) | one shard at one member: its views; a turn; what is on disks; who holds it up; agreed snapshots |
//! | `snapshots` | which snapshots were made, and who computed wrongly |
//! | `layout`, `ring`, `payload` | where columns lie; messages in a ring; commands in a message |
//! | `bulk` | large values, in blocks beside the order |
//! | `order` | rounds, nulls, stability: the total order of a view |
//! | `machine` | ordered commands to entries, seals and marks: the replicated part |
//! | `checkpoint` | marks to checkpoints with a majority of signatures |
//! | `outbox` | own submissions until they are answered |
//! | `barrier` | linearizable reads at any member |
//! | `memory`, `access` | what a shell provides: [`Memory`], [`StoreAccess`] |
//! | `action`, `batch`, `config`, `error`, `ids`, `status` | the vocabulary of the interface |

#![no_std]

extern crate alloc;

mod access;
mod action;
mod barrier;
mod batch;
mod bulk;
mod catch_up;
mod checkpoint;
mod config;
mod error;
mod formation;
mod ids;
mod layout;
mod machine;
mod memory;
mod node;
mod order;
mod outbox;
mod payload;
mod ring;
mod roster;
mod shard;
mod snapshots;
mod status;
mod taking;
mod wire;

pub use access::StoreAccess;
pub use action::{Action, Adopted, Answer, Promise, ReadFor, Stop, Submission};
pub use batch::{EntryBatch, Values};
pub use bulk::Staged;
pub use config::{
    BULK_ABOVE, BulkLimits, Limits, Mutation, NodeConfig, NodeInfo, Schedule, ShardConfig,
};
pub use error::{
    ConfigError, Divergence, Fatal, Loss, LostData, PeerFault, Refusal, Refused, SnapshotsDiffer,
};
pub use formation::{Recollection, ShardStep, Step};
pub use ids::{Barrier, BodyId, Incarnation, Instant, NodeId, Now, ShardIndex, Ticket};
pub use memory::Memory;
pub use node::{NodeCore, RecoveredShard};
pub use roster::{Roster, RosterId, Seat};
pub use status::{Counters, PeerStatus, ReplicaStatus, ShardStatus, State, Status};
pub use taking::{Held, Part};
pub use tradewind_store::Durability;
#[cfg(feature = "mutations")]
pub use wire::message_in_words;
