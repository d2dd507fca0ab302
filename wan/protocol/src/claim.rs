//! Why a prefix of a ledger is to be believed.
//!
//! The home site signs sizes of its own choice, and a batch seldom ends at one. So a batch comes
//! with the signed checkpoint of a size at or beyond its end, and with RFC 6962 consistency proofs
//! that lead there. A parent that is itself in the middle of catching up holds entries only up to
//! its own size; it proves what it hands on up to that size and passes on its own parent's proof from
//! there. Hence a *chain* of proofs, one [`Link`] each.

use alloc::{string::String, sync::Arc, vec::Vec};

use serde::{Deserialize, Serialize};
use tradewind_ledger::ids::{Digest, Hlc, Version};
use tradewind_ledger::note::{Checkpoint, NoteError, Policy, PolicyError, SignedNote};
use tradewind_ledger::tree::{ProofError, verify_consistency};

/// Links of a chain at most: each hop of the tree of mirrors adds at most one while it catches up.
pub const LINKS_MAX: usize = 16;

/// One step of the chain: the tree so far is a prefix of the tree `(size, root)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Size of the larger tree.
    pub size: Version,
    /// Its root.
    pub root: Digest,
    /// Consistency proof from the size before.
    pub proof: Vec<Digest>,
}

/// A signed checkpoint, and the chain that leads to it from the size that is claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The signed note, exactly as it was signed.
    pub note: String,
    /// Empty if the note is over the claimed size itself.
    pub links: Vec<Link>,
}

/// Why a claim does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The note cannot be read.
    #[error("its note cannot be read: {0}")]
    Note(#[from] NoteError),
    /// The note is not signed as it must be, or is another ledger's.
    #[error("its note does not hold: {0}")]
    Policy(#[from] PolicyError),
    /// A chain that is too long or does not grow.
    #[error("its chain of {found} proofs does not grow, or is longer than {LINKS_MAX}")]
    Chain {
        /// Number of links.
        found: usize,
    },
    /// A link does not hold.
    #[error("size {from} is not proven to lead to size {to}: {source}")]
    Link {
        /// The smaller size.
        from: Version,
        /// The larger size.
        to: Version,
        /// Why.
        source: ProofError,
    },
    /// The chain ends elsewhere than at what was signed.
    #[error(
        "the entries lead to size {size} root {root}, signed are size {signed_size} root {signed_root}"
    )]
    Root {
        /// Where the chain ends.
        size: Version,
        /// The root there.
        root: Digest,
        /// The size that was signed.
        signed_size: Version,
        /// The root that was signed.
        signed_root: Digest,
    },
}

impl Claim {
    /// Checks that the tree `(size, root)` is a prefix of one that the policy's members signed.
    ///
    /// # Errors
    /// See [`ClaimError`].
    pub fn verify(
        &self,
        policy: &Policy,
        size: Version,
        root: Digest,
    ) -> Result<Checkpoint, ClaimError> {
        let signed = self.signed(policy)?;
        self.leads(size, root, &signed)?;
        Ok(signed)
    }

    /// What was signed, if enough members signed it.
    pub(crate) fn signed(&self, policy: &Policy) -> Result<Checkpoint, ClaimError> {
        let note = SignedNote::parse(self.note.as_bytes())?;
        Ok(policy.verify(&note)?.checkpoint)
    }

    /// Checks that the chain leads from `(size, root)` to what was signed.
    pub(crate) fn leads(
        &self,
        mut size: Version,
        mut root: Digest,
        signed: &Checkpoint,
    ) -> Result<(), ClaimError> {
        let chain = ClaimError::Chain { found: self.links.len() };
        if self.links.len() > LINKS_MAX {
            return Err(chain);
        }
        for link in &self.links {
            if link.size <= size {
                return Err(chain);
            }
            verify_consistency(size, link.size, &root, &link.root, &link.proof)
                .map_err(|source| ClaimError::Link { from: size, to: link.size, source })?;
            (size, root) = (link.size, link.root);
        }
        if (size, root) != (signed.size, signed.root) {
            let (signed_size, signed_root) = (signed.size, signed.root);
            return Err(ClaimError::Root { size, root, signed_size, signed_root });
        }
        Ok(())
    }
}

/// A prefix of a ledger that may be shown and handed on: durable here, and signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Entries in it.
    pub size: Version,
    /// The root over them.
    pub root: Digest,
    /// Time of its last entry.
    pub hlc: Hlc,
    /// The signed note over this size or a larger one.
    pub note: Arc<str>,
    /// Leads from this size to the note's; empty if they are the same.
    pub links: Arc<[Link]>,
}

impl Head {
    /// The head of a ledger whose newest signed checkpoint is over all of `size`.
    #[must_use]
    pub fn signed(size: Version, root: Digest, hlc: Hlc, note: &str) -> Self {
        Self { size, root, hlc, note: note.into(), links: Arc::new([]) }
    }

    /// Whether the note is over exactly this size, so that it can be published with it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether one more proof before this head's own chain would be too many.
    pub(crate) fn is_chain_full(&self) -> bool {
        self.links.len() >= LINKS_MAX
    }

    /// The claim of the prefix of `size` entries, `proof` being the consistency proof from there to
    /// this head's size (not looked at if that is the same).
    #[must_use]
    pub fn claim(&self, size: Version, proof: Vec<Digest>) -> Claim {
        let mut links = Vec::with_capacity(self.links.len() + 1);
        if size != self.size {
            links.push(Link { size: self.size, root: self.root, proof });
        }
        links.extend(self.links.iter().cloned());
        Claim { note: String::from(&*self.note), links }
    }
}
