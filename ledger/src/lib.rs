//! Entries, segments, Merkle tree, checkpoints and proofs of a ledger: pure formats and checks.
//!
//! | module | what lives there |
//! |---|---|
//! | [`ids`] | newtypes: [`Version`], [`Hlc`], [`Digest`] ... |
//! | [`entry`] | what a leaf says, and its canonical bytes |
//! | [`tree`] | the RFC 6962 tree: roots, inclusion and consistency proofs |
//! | [`segment`] | the open segment: when to seal, what the SEAL says |
//! | [`segment_file`] | the layout of a segment's file: header, records, names |
//! | [`replay`] | checks a ledger's entries from the genesis on, or from a base |
//! | [`base`] | the state after a SEAL, to begin a replay there |
//! | [`manifest`] | what shows that a snapshot is of a ledger, part by part |
//! | [`note`] | checkpoints, signed notes, keys, and the policy that says which signatures suffice |
//! | [`tile`] | hash tiles and entry bundles: the public face |
//! | [`tlog_proof`] | inclusion proofs to carry away |
//!
//! Nothing here knows a clock, a file or a network. Bytes from outside never panic, and never cause an
//! allocation before their length was checked. Formats are byte tables in `docs/formats/`.

#![no_std]

extern crate alloc;

pub mod base;
pub mod entry;
pub mod ids;
mod keys;
pub mod manifest;
pub mod note;
pub mod replay;
pub mod segment;
pub mod segment_file;
mod text;
pub mod tile;
pub mod tlog_proof;
pub mod tree;

pub use base::{Base, BaseError};
pub use entry::{
    Body, Entry, EntryError, Genesis, Member, Seal, SnapshotRecord, Txn, Update, Value, ViewRecord,
    Write, quorum,
};
pub use ids::{
    Digest, Hlc, KeyVersion, LedgerId, Lineage, RequestId, RequestNumber, SessionId, Version,
    ViewId,
};
pub use manifest::{Manifest, ManifestError};
pub use note::{
    Checkpoint, Ed25519Signer, NoteSignature, Policy, PolicyError, SignedNote, Signer, Verified,
    VerifierKey,
};
pub use replay::{Replay, ReplayError, ReplayErrorKind};
pub use segment::{SealLimits, SegmentTracker};
pub use segment_file::SegmentName;
