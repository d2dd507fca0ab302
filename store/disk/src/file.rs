//! The file of a snapshot (docs/formats/snapshot.md).

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use tradewind_ledger::base::{Base, BaseError, MAX_BASE};
use tradewind_ledger::tree::CompactRange;
use tradewind_ledger::{Digest, SnapshotRecord, Version};
use tradewind_store::Store;
use tradewind_store::snapshot::{Chunk, Decoder, MAX_CHUNK, SnapshotError};

const MAGIC: [u8; 8] = *b"TWSNAP\r\n";
const FORMAT: u32 = 1;

/// Why a file is not a snapshot that a start can begin at.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// The system, or the file ends early.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something else, or of another release.
    #[error("it begins with neither `TWSNAP` nor a format that is known")]
    Magic,
    /// A length that none of its parts can have.
    #[error("a part of {found} bytes; there can be up to {max}")]
    Length {
        /// The length.
        found: usize,
        /// The longest.
        max: usize,
    },
    /// Its base.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// One of its chunks.
    #[error(transparent)]
    Chunk(#[from] SnapshotError),
    /// It is whole, but of another state than it says.
    #[error("its {0} is not that of its chunks")]
    Differs(&'static str),
}

/// A snapshot on its way into a file.
pub(crate) struct Writing {
    file: BufWriter<File>,
    chunks: CompactRange,
    size: Version,
    bytes: u64,
}

impl Writing {
    /// Begins the file, in place of one that may be there.
    pub(crate) fn begin(path: &Path, base: &Base) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&head(base))?;
        Ok(Self { file, chunks: CompactRange::new(), size: base.size(), bytes: 0 })
    }

    pub(crate) fn chunk(&mut self, chunk: &Chunk) -> io::Result<()> {
        self.chunks.push(chunk.leaf());
        self.bytes += chunk.size() as u64;
        self.file.write_all(&chunk.to_bytes())
    }

    /// Ends the file and makes it durable under its name: afterwards it is there, whole. Gives what
    /// a SNAPSHOT entry says of it.
    pub(crate) fn finish(mut self, temporary: &Path, path: &Path) -> io::Result<SnapshotRecord> {
        let root = self.chunks.root();
        let count = u32::try_from(self.chunks.size().0).map_err(io::Error::other)?;
        self.file.write_all(&end(count, &root))?;
        self.file.into_inner()?.sync_all()?;
        fs::rename(temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(SnapshotRecord { size: self.size, root, chunks: count, bytes: self.bytes })
    }
}

/// What stands before the chunks.
pub(crate) fn head(base: &Base) -> Vec<u8> {
    let base = base.encode();
    let len = u32::try_from(base.len()).expect("a base is much shorter");
    [&MAGIC[..], &FORMAT.to_be_bytes(), &len.to_be_bytes(), &base].concat()
}

/// What stands after the chunks.
pub(crate) fn end(count: u32, root: &Digest) -> Vec<u8> {
    [&[0; 8][..], &count.to_be_bytes(), &root.0].concat()
}

/// The base that a snapshot's file begins with.
pub(crate) fn read_base(path: &Path) -> Result<Base, FileFault> {
    base(&mut BufReader::new(File::open(path)?))
}

pub(crate) fn base(file: &mut impl Read) -> Result<Base, FileFault> {
    let head: [u8; 12] = array(file)?;
    if head[..8] != MAGIC || head[8..] != FORMAT.to_be_bytes() {
        return Err(FileFault::Magic);
    }
    let len = u32::from_be_bytes(array(file)?) as usize;
    Ok(Base::decode(&part(file, len, MAX_BASE)?)?)
}

/// Reads all of a snapshot and checks every byte of it.
pub(crate) fn read(path: &Path, at: Version) -> Result<(Base, Store, SnapshotRecord), FileFault> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let base = base(&mut file)?;
    let (mut decoder, mut chunks, mut bytes) = (Decoder::new(), CompactRange::new(), 0);
    while let Some(chunk) = chunk(&mut file)? {
        decoder.push(&chunk.committed, &chunk.values)?;
        chunks.push(chunk.leaf());
        bytes += chunk.size() as u64;
    }
    let count = u32::from_be_bytes(array(&mut file)?);
    let root = Digest(array(&mut file)?);
    if (u64::from(count), root) != (chunks.size().0, chunks.root()) {
        return Err(FileFault::Differs("root"));
    }
    if file.read(&mut [0])? != 0 {
        return Err(FileFault::Differs("end"));
    }
    let store = decoder.finish()?;
    if (store.next(), store.last_hlc()) != (base.size(), Some(base.last_hlc())) || at != base.size()
    {
        return Err(FileFault::Differs("base, or its name,"));
    }
    Ok((base, store, SnapshotRecord { size: at, root, chunks: count, bytes }))
}

/// Reads the next chunk; `None` at their end.
pub(crate) fn chunk(file: &mut impl Read) -> Result<Option<Chunk>, FileFault> {
    let committed = u32::from_be_bytes(array(file)?) as usize;
    let values = u32::from_be_bytes(array(file)?) as usize;
    if (committed, values) == (0, 0) {
        return Ok(None);
    }
    let committed = part(file, committed, MAX_CHUNK)?;
    Ok(Some(Chunk { committed, values: part(file, values, MAX_CHUNK)? }))
}

fn array<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn part(file: &mut impl Read, len: usize, max: usize) -> Result<Vec<u8>, FileFault> {
    if len > max {
        return Err(FileFault::Length { found: len, max });
    }
    let mut bytes = vec![0; len];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
