//! A ledger in files: append, group commit, recovery, tiles.
//!
//! [`open`] locks a ledger's directory, recovers it, replays every entry through
//! [`Replay`](tradewind_ledger::replay::Replay) and shows each to the caller, so that a store is
//! rebuilt in the same pass. It gives out three owners:
//!
//! | type | thread | what it does |
//! |---|---|---|
//! | [`LedgerWriter`] | log thread | buffers entries, makes them durable together, rolls files at SEALs |
//! | [`LedgerReader`] | any | entries, values and tree hashes of what is durable |
//! | [`Publisher`] | off the hot path | `checkpoint` and its tiles, the ledger's public face |
//!
//! | module | what lives there |
//! |---|---|
//! | `layout`, `ops` | paths and the lock; each kind of change to the file system, for crash tests |
//! | `segment`, `writer` | the growing file; group commit |
//! | `scan`, `recover`, `tail`, `open` | reading files; telling torn tails from damage; repair |
//! | `start` | beginning at a base instead of at the genesis |
//! | `shared`, `reader` | what is durable and where it lies |
//! | `tree`, `tiles`, `publisher` | hashes, tile files, publication |
//! | `values`, `staged` | detached values; and before an entry names them |
//! | `prune`, `plant` | removing the oldest entries; beginning without them |
//! | `repair` | damaged files made again from another replica |
//! | `scrub` | bit rot found and mended while the ledger is in use |
//! | `owner` | [`claim`]: whose a data directory is, and how often it was opened |
//!
//! The files' formats are in `docs/formats/segment-file.md` and `docs/formats/data-directory.md`.
//!
//! Invariants: an entry is durable only after every entry before it and the detached values it refers to;
//! `checkpoint` never covers an entry that is not durable; a sealed file has the same bytes at every
//! replica; nothing below a recorded sync is ever cut off; after a failed sync nothing is written any more.

mod error;
mod layout;
mod open;
mod ops;
mod owner;
mod plant;
mod prune;
mod publisher;
mod reader;
mod recover;
mod repair;
mod rewind;
mod scan;
mod scrub;
mod segment;
mod shared;
mod staged;
mod start;
mod tail;
mod tiles;
mod tree;
mod values;
mod writer;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::{
    BaseFault, Damage, FileError, Found, OpenError, PublishError, ReadError, WriteError,
};
pub use open::{Face, Opened, Options, Recovery, VisitError, open};
pub use owner::{DataError, Owner, claim, replace};
pub use plant::{PlantError, plant};
pub use prune::{PruneError, Pruning};
pub use publisher::Publisher;
pub use reader::LedgerReader;
pub use repair::{DirPeer, Peer, PeerError, Repair, RepairError, repair};
pub use rewind::{RewindError, rewind};
pub use scrub::{Checked, Fault, MendError, Scrubber};
pub use segment::is_no_space;
pub use shared::SealedSegment;
pub use staged::{StagedValue, Stager};
pub use start::Start;
pub use values::{ValueFile, has_value, keep_value};
pub use writer::LedgerWriter;
