//! Whose signatures, and how many, make a checkpoint believable.

use alloc::string::String;
use alloc::vec::Vec;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::key::{KeyKind, VerifierKey, VerifierKeyError};
use super::signed::SignedNote;
use crate::entry::{Genesis, Member, quorum};

/// A checkpoint of `origin` holds if at least `threshold` of `members` signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    origin: String,
    members: Vec<Member>,
    keys: Vec<VerifierKey>,
    threshold: usize,
}

/// A checkpoint that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// Who signed, as indices into the policy's members, ascending.
    pub signers: Vec<usize>,
}

/// Why a note does not satisfy a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It is another ledger's.
    #[error("a checkpoint of `{found}`, not of `{expected}`")]
    Origin {
        /// Its origin line.
        found: String,
        /// The policy's.
        expected: String,
    },
    /// A signature line names a member's key, and the signature is not by it.
    #[error("the signature of `{member}` is wrong")]
    BadSignature {
        /// The member's name.
        member: String,
    },
    /// Valid, but signed by too few.
    #[error("signed by {} of the members, {threshold} are needed", .verified.signers.len())]
    TooFew {
        /// What was signed and by whom.
        verified: Verified,
        /// How many are needed.
        threshold: usize,
    },
}

impl Policy {
    /// A policy with a threshold of its own.
    ///
    /// # Errors
    /// If a member's key is no public key or the origin cannot be a key name.
    ///
    /// # Panics
    /// If `threshold` is 0: such a policy believes anybody.
    pub fn new(
        origin: &str,
        members: Vec<Member>,
        threshold: usize,
    ) -> Result<Self, VerifierKeyError> {
        assert!(threshold > 0, "a policy wants at least one signature");
        let key = |member: &Member| VerifierKey::new(origin, KeyKind::Ed25519, member.public_key);
        let keys = members.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { origin: origin.into(), members, keys, threshold })
    }

    /// The default policy: a majority of `members`. Fails as [`Policy::new`].
    pub fn majority(origin: &str, members: Vec<Member>) -> Result<Self, VerifierKeyError> {
        let threshold = quorum(members.len());
        Self::new(origin, members, threshold)
    }

    /// A majority of the genesis' members. Fails as [`Policy::new`].
    pub fn of_genesis(genesis: &Genesis) -> Result<Self, VerifierKeyError> {
        Self::majority(&genesis.origin(), genesis.members.clone())
    }

    /// The ledger whose checkpoints it judges.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Who may sign.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Their verifier keys, in the same order.
    #[must_use]
    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    /// How many must sign.
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Checks a note. Signatures by keys it does not know are ignored, as signed-note demands; a wrong
    /// one by a key it knows rejects the note; a member counts once.
    ///
    /// # Errors
    /// See [`PolicyError`]; with [`PolicyError::TooFew`] everything there is holds.
    pub fn verify(&self, note: &SignedNote) -> Result<Verified, PolicyError> {
        let checkpoint = note.checkpoint()?;
        if checkpoint.origin != self.origin {
            let expected = self.origin.clone();
            return Err(PolicyError::Origin { found: checkpoint.origin, expected });
        }
        let mut signers = Vec::new();
        for (index, (key, member)) in self.keys.iter().zip(&self.members).enumerate() {
            let mut by_key = note.signatures().iter().filter(|line| key.claims(line)).peekable();
            if by_key.peek().is_none() {
                continue;
            }
            if !by_key.all(|line| key.verify(note.text(), line)) {
                return Err(PolicyError::BadSignature { member: member.name.clone() });
            }
            signers.push(index);
        }
        let verified = Verified { checkpoint, signers };
        if verified.signers.len() < self.threshold {
            return Err(PolicyError::TooFew { verified, threshold: self.threshold });
        }
        Ok(verified)
    }
}
