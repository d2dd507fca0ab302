//! The auditor: re-derives everything that a ledger claims, from its files or its public face.
//!
//! The trusted base is small on purpose: this crate, `tradewind-ledger`, and a checksum. It knows nothing of
//! how a ledger was made; it reads a [`Source`] (a directory here, HTTP in the command line) and lists
//! *all* that is wrong, each with file and offset, and ends with the range of entries that is proven.
//!
//! | module | what lives there |
//! |---|---|
//! | [`source`] | where files come from |
//! | [`verify`](mod@verify) | the whole check of one or many ledgers |
//! | [`report`] | what it found, and the exit code |
//! | [`proof`] | `prove` and `check`: that an entry is in the ledger, as a `.tlog-proof` |
//! | [`consistency`](mod@consistency) | that one checkpoint extends another |
//!
//! Inside of a check: `segments` walks the segment files, `tiles` compares the public face with what the
//! entries give, `keys` follows each key's versions, `values` hashes detached values,
//! `judge` compares it all with what was signed.

pub mod consistency;
mod judge;
mod keys;
mod ledger;
mod packed;
pub mod proof;
mod pruned;
mod published;
mod reader;
pub mod report;
mod segments;
mod signatures;
pub mod source;
mod tiles;
mod values;
pub mod verify;

pub use consistency::{ConsistencyReport, consistency};
pub use proof::{CheckReport, ProveError, check, prove};
pub use report::{Evidence, LedgerReport, Problem, ProblemKind, Report, Trust, Verdict};
pub use source::{DirSource, Source, SourceError};
pub use verify::{Options, verify};
