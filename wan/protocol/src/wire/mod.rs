//! What parent and child say to each other, byte for byte as in `docs/formats/wan.md`.
//!
//! The child opens one bidirectional stream for control: a sequence of frames. The parent opens one
//! unidirectional stream a batch or value: one frame that announces it, then its raw bytes to the
//! end of the stream. Who lacks what a parent has pruned opens a bidirectional stream for each part of a snapshot. Unknown kinds, versions, trailing bytes and lengths beyond the limits are
//! errors; no length is trusted before it was compared with its limit.

mod bulk;
mod frame;
mod lend;
mod message;

pub use bulk::{Batch, BatchHeader, Bulk, BulkHeader, Value, ValueHeader};
pub use frame::{CONTROL_BYTES_MAX, HEADER_BYTES, Header, PROTOCOL_VERSION, WireError};
pub use lend::{Ask, Lent, Part};
pub use message::{
    Accept, Beat, Bye, ChildMessage, Fresh, Frontier, HeadNote, Hello, MirrorReport, NoValue,
    ParentMessage, Position, Refuse, RefuseReason, Want, Welcome,
};

/// Bytes of entries (with their length prefixes) in one batch at most; a batch is about half of it.
pub const BATCH_BYTES_MAX: u32 = 2 << 20;

/// Entries in one batch at most.
pub const BATCH_ENTRIES_MAX: u32 = 1 << 16;

/// Ledgers, reports or digests in one message at most.
pub const LIST_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
