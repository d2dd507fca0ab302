//! Checkpoints and their signatures, exactly as C2SP has them: [signed-note], [tlog-checkpoint],
//! [tlog-cosignature].
//!
//! Every node of a site signs with the ledger's origin as key *name* and its own key, so signatures of
//! one checkpoint share a name and differ in key id.
//!
//! [signed-note]: https://c2sp.org/signed-note
//! [tlog-checkpoint]: https://c2sp.org/tlog-checkpoint
//! [tlog-cosignature]: https://c2sp.org/tlog-cosignature

mod checkpoint;
mod key;
mod policy;
mod signed;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use key::{
    Ed25519Signer, KeyId, KeyKind, Signer, VerifierKey, VerifierKeyError, cosignature_message,
    key_id,
};
pub use policy::{Policy, PolicyError, Verified};
pub use signed::{MAX_NOTE, MAX_SIGNATURES, NoteError, NoteSignature, SignedNote};
