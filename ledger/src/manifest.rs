//! What shows that a snapshot is of a ledger, and what each of its parts has to be, before any of them is fetched.
//!
//! A reader who knows the keys of the ledger's members believes the checkpoint; the checkpoint's root holds the SNAPSHOT
//! entry and goes on from the base; the entry's root is that of the chunks, the base's root that of the leaf hashes of all
//! entries before it. So each part can be checked on its own when it comes, from whoever has it. The bytes are those of
//! `docs/formats/snapshot-manifest.md`.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use crate::base::{Base, BaseError, MAX_BASE};
use crate::entry::{Body, Entry, EntryError, MAX_ENTRY, SnapshotRecord};
use crate::ids::{Digest, Version};
use crate::note::{MAX_NOTE, NoteError, Policy, PolicyError, SignedNote};
use crate::tree::{
    HashSource, MissingNode, ProofError, consistency_proof, inclusion_proof, leaf_hash, root_of,
    verify_consistency, verify_inclusion,
};

/// First bytes of an encoded manifest.
pub const MAGIC: [u8; 8] = *b"TWMANI\r\n";
/// The version of the layout that this code reads and writes.
pub const FORMAT: u32 = 1;
/// Leaf hashes of one block; the last one may have fewer. A power of two, so that a block is a subtree.
pub const BLOCK_LEAVES: u64 = 1 << BLOCK_LEVEL;
const BLOCK_LEVEL: u8 = 13;

/// What a replica gives to one that is to take a snapshot of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// A checkpoint that covers the SNAPSHOT entry.
    pub note: SignedNote,
    /// The SNAPSHOT entry: its version and bytes, and its place in the checkpoint's tree.
    pub version: Version,
    /// Its bytes.
    pub entry: Vec<u8>,
    /// That it stands there in the checkpoint's tree.
    pub inclusion: Vec<Digest>,
    /// The ledger where the state is of.
    pub base: Base,
    /// That the checkpoint's tree goes on from the base's.
    pub consistency: Vec<Digest>,
    /// The leaf of each chunk.
    pub chunks: Vec<Digest>,
    /// The root of each run of [`BLOCK_LEAVES`] leaf hashes of entries before the base.
    pub blocks: Vec<Digest>,
}

/// Why bytes are no manifest, or one is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Something else, or of another release.
    #[error("not a manifest: it begins with neither `TWMANI` nor a format that is known")]
    Magic,
    /// The bytes end too early, too late, or a length is too large.
    #[error("the manifest ends, or has no possible length, at byte {at}, in {field}")]
    Length {
        /// Where.
        at: usize,
        /// What was read there.
        field: &'static str,
    },
    /// Its checkpoint is no note.
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteError),
    /// Its checkpoint is not signed as it must be.
    #[error("its checkpoint: {0}")]
    Policy(#[from] PolicyError),
    /// Its base.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// Its entry is none.
    #[error("its SNAPSHOT entry: {0}")]
    Entry(#[from] EntryError),
    /// Its entry is of another kind.
    #[error("its entry is no SNAPSHOT")]
    Kind,
    /// A proof does not hold.
    #[error("its {which} is not in the signed ledger: {source}")]
    Proof {
        /// Of what.
        which: &'static str,
        /// What is wrong.
        source: ProofError,
    },
    /// Its parts do not belong together.
    #[error("its {0} does not fit the rest of it")]
    Unfit(&'static str),
    /// Whoever makes it lacks a hash.
    #[error(transparent)]
    Missing(#[from] MissingNode),
}

impl Manifest {
    /// Makes the manifest of a snapshot, whose chunks have these leaves, at a replica that has the ledger up to the note's
    /// size.
    ///
    /// # Errors
    /// If the note does not cover the entry, or the tree lacks a node.
    pub fn make(
        tree: &impl HashSource,
        note: SignedNote,
        (version, entry): (Version, Vec<u8>),
        base: Base,
        chunks: Vec<Digest>,
    ) -> Result<Self, ManifestError> {
        let size = note.checkpoint().map_err(PolicyError::from)?.size;
        let proof = |which| move |source| ManifestError::Proof { which, source };
        let inclusion = inclusion_proof(tree, version, size).map_err(proof("SNAPSHOT entry"))?;
        let consistency = consistency_proof(tree, base.size(), size).map_err(proof("base"))?;
        let mut blocks = Vec::new();
        for block in 0..base.size().0.div_ceil(BLOCK_LEAVES) {
            let whole = (block + 1) * BLOCK_LEAVES <= base.size().0;
            let missing = MissingNode { level: BLOCK_LEVEL, index: block };
            blocks.push(match whole {
                true => tree.node(BLOCK_LEVEL, block).ok_or(missing)?,
                false => root_of(Self::block_of(tree, base.size(), block)?),
            });
        }
        Ok(Self { note, version, entry, inclusion, base, consistency, chunks, blocks })
    }

    /// The leaf hashes of a block of a ledger's first `size` entries.
    ///
    /// # Errors
    /// If the tree lacks one of them.
    pub fn block_of(
        tree: &impl HashSource,
        size: Version,
        block: u64,
    ) -> Result<Vec<Digest>, MissingNode> {
        let first = block.saturating_mul(BLOCK_LEAVES);
        let leaf = |index| tree.node(0, index).ok_or(MissingNode { level: 0, index });
        (first..first.saturating_add(BLOCK_LEAVES).min(size.0)).map(leaf).collect()
    }

    /// Whether all that it says follows from a checkpoint that `policy` believes.
    ///
    /// # Errors
    /// What does not.
    pub fn verify(&self, policy: &Policy) -> Result<SnapshotRecord, ManifestError> {
        let checkpoint = policy.verify(&self.note)?.checkpoint;
        let Entry { body: Body::Snapshot(record), .. } = Entry::decode(&self.entry)? else {
            return Err(ManifestError::Kind);
        };
        let (leaf, base) = (leaf_hash(&self.entry), &self.base);
        let (size, root) = (checkpoint.size, checkpoint.root);
        verify_inclusion(&leaf, self.version, size, &self.inclusion, &root)
            .map_err(|source| ManifestError::Proof { which: "SNAPSHOT entry", source })?;
        verify_consistency(base.size(), size, &base.root(), &root, &self.consistency)
            .map_err(|source| ManifestError::Proof { which: "base", source })?;
        let fits = [
            ("base", base.size() == record.size && record.size <= self.version),
            ("number of chunks", self.chunks.len() as u64 == u64::from(record.chunks)),
            ("list of chunks", root_of(self.chunks.iter().copied()) == record.root),
            ("number of blocks", self.blocks.len() as u64 == record.size.0.div_ceil(BLOCK_LEAVES)),
            // Blocks are subtrees of equal width but for the last: the tree over them is the tree over their leaves.
            ("list of blocks", root_of(self.blocks.iter().copied()) == base.root()),
        ];
        match fits.into_iter().find(|(_, fits)| !fits) {
            Some((what, _)) => Err(ManifestError::Unfit(what)),
            None => Ok(record),
        }
    }

    /// The bytes of `docs/formats/snapshot-manifest.md`.
    ///
    /// # Panics
    /// If a proof has more hashes than any has, or there are 2^32 chunks or blocks.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        put_bytes(&mut out, self.note.to_string().as_bytes());
        out.extend_from_slice(&self.version.0.to_be_bytes());
        put_bytes(&mut out, &self.entry);
        put_digests(&mut out, &self.inclusion);
        put_bytes(&mut out, &self.base.encode());
        put_digests(&mut out, &self.consistency);
        put_digests(&mut out, &self.chunks);
        put_digests(&mut out, &self.blocks);
        out
    }

    /// Reads a manifest strictly: encoding it again gives the same bytes. Nothing of it is proven yet.
    ///
    /// # Errors
    /// On anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let head = [&MAGIC[..], &FORMAT.to_be_bytes()].concat();
        if !bytes.starts_with(&head) {
            return Err(ManifestError::Magic);
        }
        let mut input = Input { bytes, at: head.len() };
        let manifest = Self {
            note: SignedNote::parse(input.bytes("the checkpoint", MAX_NOTE)?)?,
            version: Version(u64::from_be_bytes(input.array("the entry's version")?)),
            entry: input.bytes("the SNAPSHOT entry", MAX_ENTRY)?.to_vec(),
            inclusion: input.digests("the proof of inclusion")?,
            base: Base::decode(input.bytes("the base", MAX_BASE)?)?,
            consistency: input.digests("the proof of consistency")?,
            chunks: input.digests("the list of chunks")?,
            blocks: input.digests("the list of blocks")?,
        };
        match input.at == bytes.len() {
            true => Ok(manifest),
            false => Err(ManifestError::Length { at: input.at, field: "what follows its end" }),
        }
    }
}

fn put_length(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("far fewer than 2^32");
    out.extend_from_slice(&len.to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_digests(out: &mut Vec<u8>, digests: &[Digest]) {
    put_length(out, digests.len());
    digests.iter().for_each(|digest| out.extend_from_slice(&digest.0));
}

/// Reads fields one after the other; never past the end.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], ManifestError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(ManifestError::Length { at: self.at, field })?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ManifestError> {
        Ok(self.take(N, field)?.try_into().expect("take returns the length asked for"))
    }

    fn length(&mut self, field: &'static str) -> Result<usize, ManifestError> {
        Ok(u32::from_be_bytes(self.array(field)?) as usize)
    }

    fn bytes(&mut self, field: &'static str, max: usize) -> Result<&'a [u8], ManifestError> {
        let at = self.at;
        match self.length(field)? {
            len if len > max => Err(ManifestError::Length { at, field }),
            len => self.take(len, field),
        }
    }

    fn digests(&mut self, field: &'static str) -> Result<Vec<Digest>, ManifestError> {
        let at = self.at;
        let len = self.length(field)?.checked_mul(32);
        let bytes = self.take(len.ok_or(ManifestError::Length { at, field })?, field)?;
        Ok(bytes.as_chunks::<32>().0.iter().copied().map(Digest).collect())
    }
}
