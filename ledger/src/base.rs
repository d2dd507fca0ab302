//! The state of a ledger right after a SEAL: where a replay may begin instead of at the genesis.
//!
//! A base holds three of the ledger's entries, the GENESIS, the VIEW in force and the SEAL, and the right edge of the
//! tree before the SEAL. Whoever has its [root](Base::root) from a checkpoint knows that the SEAL stands there; that the
//! other two stand in the same tree takes a proof of their inclusion ([`Base::entries`]). The bytes are those of
//! `docs/formats/base.md`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::entry::{Body, Entry, EntryError, Genesis, MAX_ENTRY, Member, Seal, ViewRecord};
use crate::ids::{Digest, Hlc, Lineage, Version, ViewId};
use crate::tree::{CompactRange, leaf_hash, value_digest};

/// First bytes of an encoded base.
pub const MAGIC: [u8; 8] = *b"TWBASE\r\n";
/// The version of the layout that this code reads and writes.
pub const FORMAT: u32 = 1;
/// Bytes of an encoded base at most.
pub const MAX_BASE: usize = 12 + 3 * (10 + MAX_ENTRY) + 8 + 64 * 32 + 32;

const NO_VIEW: u8 = 0;
const HAS_VIEW: u8 = 1;

/// The state of a replay at the end of a segment. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    genesis: Arc<Genesis>,
    lineage: Lineage,
    view: Option<InForce>,
    /// The tree before the SEAL.
    before: CompactRange,
    seal: Seal,
    /// Time and view of the SEAL.
    hlc: Hlc,
    view_id: ViewId,
    /// What follows from the others: the SEAL's leaf hash, and the tree with it.
    leaf: Digest,
    tree: CompactRange,
}

/// The last VIEW entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) version: Version,
    pub(crate) hlc: Hlc,
    pub(crate) record: Arc<ViewRecord>,
}

/// Why bytes are not a base.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// Something else.
    #[error("not a base: it begins with neither `TWBASE` nor a format that is known")]
    Magic,
    /// Written by a newer release.
    #[error("base format {found}; this program reads format {FORMAT}")]
    Format {
        /// The format.
        found: u32,
    },
    /// The bytes end too early, or too late.
    #[error("the base ends at byte {at}, in the middle of {field}, or goes on after its end")]
    Length {
        /// Where.
        at: usize,
        /// What was read there.
        field: &'static str,
    },
    /// The bytes were changed.
    #[error("the base's digest is {found}, but its bytes have {computed}")]
    Digest {
        /// The digest in it.
        found: Digest,
        /// The digest of the bytes before it.
        computed: Digest,
    },
    /// One of its entries is none.
    #[error("the base's {which}: {source}")]
    Entry {
        /// Which.
        which: &'static str,
        /// What is wrong with it.
        source: EntryError,
    },
    /// Its parts do not belong together.
    #[error("the base's {0} does not fit the rest of it")]
    Unfit(&'static str),
}

/// What a base is made of.
pub(crate) struct Parts {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) lineage: Lineage,
    pub(crate) view: Option<InForce>,
    pub(crate) before: CompactRange,
    pub(crate) seal: Seal,
    pub(crate) hlc: Hlc,
    pub(crate) view_id: ViewId,
    pub(crate) leaf: Digest,
}

impl Base {
    /// The base after a SEAL that a replay has checked.
    pub(crate) fn of_replay(parts: Parts) -> Self {
        let Parts { genesis, lineage, view, before, seal, hlc, view_id, leaf } = parts;
        let mut tree = before.clone();
        tree.push(leaf);
        Self { genesis, lineage, view, before, seal, hlc, view_id, leaf, tree }
    }

    /// Entries before it: a replay goes on with this version.
    #[must_use]
    pub fn size(&self) -> Version {
        self.tree.size()
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// The right edge of the tree over them.
    #[must_use]
    pub fn compact_range(&self) -> &CompactRange {
        &self.tree
    }

    /// The ledger's beginning.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The ledger's identity.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The view in force.
    #[must_use]
    pub fn view(&self) -> ViewId {
        self.view_id
    }

    /// The members of the view in force, by rank.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match &self.view {
            Some(view) => &view.record.members,
            None => &self.genesis.members,
        }
    }

    /// Time of its last entry, the SEAL.
    #[must_use]
    pub fn last_hlc(&self) -> Hlc {
        self.hlc
    }

    /// Version and content of its last entry.
    #[must_use]
    pub fn seal(&self) -> (Version, &Seal) {
        (self.before.size(), &self.seal)
    }

    /// Leaf hash of its last entry.
    #[must_use]
    pub fn last_leaf(&self) -> Digest {
        self.leaf
    }

    pub(crate) fn shared_genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    pub(crate) fn in_force(&self) -> Option<&InForce> {
        self.view.as_ref()
    }

    /// The entries that it holds, with their versions: GENESIS, the VIEW in force if there was one, SEAL. That all of
    /// them are in a tree with its root is what makes the base true.
    #[must_use]
    pub fn entries(&self) -> Vec<(Version, Vec<u8>)> {
        let bytes = |entry: Entry| entry.to_bytes().expect("it was an entry before");
        let genesis = Genesis::clone(&self.genesis).into_entry();
        let view = self.view.as_ref().map(|view| (view.version, bytes(view.entry())));
        let seal = Entry { hlc: self.hlc, view: self.view_id, body: Body::Seal(self.seal) };
        let ends = [(Version::ZERO, bytes(genesis)), (self.before.size(), bytes(seal))];
        let [first, last] = ends;
        [Some(first), view, Some(last)].into_iter().flatten().collect()
    }

    /// The bytes of `docs/formats/base.md`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entries = self.entries();
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_be_bytes());
        put_entry(&mut out, &entries[0].1);
        match &entries[1..entries.len() - 1] {
            [(version, view)] => {
                out.push(HAS_VIEW);
                out.extend_from_slice(&version.0.to_be_bytes());
                put_entry(&mut out, view);
            }
            _ => out.push(NO_VIEW),
        }
        out.extend_from_slice(&self.before.size().0.to_be_bytes());
        self.before.parts().iter().for_each(|part| out.extend_from_slice(&part.0));
        put_entry(&mut out, &entries[entries.len() - 1].1);
        let digest = value_digest(&out);
        out.extend_from_slice(&digest.0);
        out
    }

    /// Reads a base strictly: encoding it again gives the same bytes.
    ///
    /// # Errors
    /// On anything that no replay could have come to, as far as the base itself can tell.
    pub fn decode(bytes: &[u8]) -> Result<Self, BaseError> {
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(BaseError::Magic);
        }
        let mut input = Input { bytes, at: 8 };
        let format = u32::from_be_bytes(input.array("the format")?);
        if format != FORMAT {
            return Err(BaseError::Format { found: format });
        }
        let (content, digest) = bytes
            .split_last_chunk::<32>()
            .filter(|(content, _)| content.len() >= 12 && bytes.len() <= MAX_BASE)
            .ok_or(BaseError::Length { at: bytes.len(), field: "the digest" })?;
        let (found, computed) = (Digest(*digest), value_digest(content));
        if found != computed {
            return Err(BaseError::Digest { found, computed });
        }
        input.bytes = content;
        input.base()
    }
}

impl InForce {
    fn entry(&self) -> Entry {
        let record = ViewRecord::clone(&self.record);
        Entry { hlc: self.hlc, view: record.view, body: Body::View(record) }
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &[u8]) {
    let len = u16::try_from(entry.len()).expect("an entry has at most 65,535 bytes");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(entry);
}

/// Reads fields one after the other; never past the end.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], BaseError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(BaseError::Length { at: self.at, field })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BaseError> {
        Ok(self.take(N, field)?.try_into().expect("take returns the length asked for"))
    }

    fn entry(&mut self, which: &'static str) -> Result<(&'a [u8], Entry), BaseError> {
        let len = u16::from_be_bytes(self.array(which)?);
        let bytes = self.take(len.into(), which)?;
        let entry = Entry::decode(bytes).map_err(|source| BaseError::Entry { which, source })?;
        Ok((bytes, entry))
    }

    fn base(&mut self) -> Result<Base, BaseError> {
        let (bytes, Entry { body: Body::Genesis(genesis), .. }) = self.entry("GENESIS entry")?
        else {
            return Err(BaseError::Unfit("GENESIS entry"));
        };
        let lineage = Lineage(leaf_hash(bytes));
        let view = self.view()?;
        let before = self.tree()?;
        let (bytes, Entry { hlc, view: view_id, body: Body::Seal(seal) }) =
            self.entry("SEAL entry")?
        else {
            return Err(BaseError::Unfit("SEAL entry"));
        };
        if self.at != self.bytes.len() {
            return Err(BaseError::Length { at: self.at, field: "what follows the SEAL entry" });
        }
        let leaf = leaf_hash(bytes);
        let genesis = Arc::new(genesis);
        let parts = Parts { genesis, lineage, view, before, seal, hlc, view_id, leaf };
        parts.check()?;
        Ok(Base::of_replay(parts))
    }

    fn view(&mut self) -> Result<Option<InForce>, BaseError> {
        match self.array("the tag of the view")? {
            [NO_VIEW] => return Ok(None),
            [HAS_VIEW] => {}
            _ => return Err(BaseError::Unfit("tag of the view")),
        }
        let version = Version(u64::from_be_bytes(self.array("the version of the VIEW entry")?));
        match self.entry("VIEW entry")? {
            (_, Entry { hlc, body: Body::View(record), .. }) => {
                Ok(Some(InForce { version, hlc, record: Arc::new(record) }))
            }
            _ => Err(BaseError::Unfit("VIEW entry")),
        }
    }

    fn tree(&mut self) -> Result<CompactRange, BaseError> {
        let size = u64::from_be_bytes(self.array("the SEAL's version")?);
        // No ledger is so large that its next sizes have no number.
        if size >= u64::MAX >> 1 {
            return Err(BaseError::Unfit("version"));
        }
        let parts = self.take(size.count_ones() as usize * 32, "the right edge of the tree")?;
        let parts = parts.as_chunks::<32>().0.iter().copied().map(Digest).collect();
        Ok(CompactRange::from_parts(Version(size), parts).expect("one part for each 1 bit"))
    }
}

impl Parts {
    /// What a replay would have checked, and this still can.
    fn check(&self) -> Result<(), BaseError> {
        let Self { lineage, view, before, seal, hlc, view_id, .. } = self;
        let version = before.size();
        let first_segment = seal.first == Version::ZERO;
        let alone = seal.count == 1;
        let fits = [
            ("version", version > Version::ZERO),
            ("SEAL's count", seal.first.0.checked_add(seal.count.into()) == Some(version.0 + 1)),
            ("SEAL's root before it", seal.root_before == before.root()),
            ("SEAL's number", first_segment == (seal.segment == 0)),
            ("SEAL's number", seal.segment <= seal.first.0),
            ("SEAL's previous one", !first_segment || seal.prev_seal == Digest::ZERO),
            ("GENESIS entry", version.0 > 1 || before.parts() == [lineage.0]),
            ("time", seal.hlc_first <= seal.hlc_last && (seal.hlc_last < *hlc || alone)),
            ("time", !alone || (seal.hlc_first == *hlc && seal.hlc_last == *hlc)),
            ("time", *hlc > Hlc(0)),
        ];
        if let Some((what, _)) = fits.into_iter().find(|(_, fits)| !fits) {
            return Err(BaseError::Unfit(what));
        }
        match view {
            None if *view_id != ViewId(0) => Err(BaseError::Unfit("view")),
            Some(it) if it.record.view != *view_id || *view_id == ViewId(0) => {
                Err(BaseError::Unfit("view"))
            }
            Some(it) if it.version == Version::ZERO || it.version >= version || it.hlc >= *hlc => {
                Err(BaseError::Unfit("place of the VIEW entry"))
            }
            _ => Ok(()),
        }
    }
}
