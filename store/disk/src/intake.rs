//! Taking a snapshot from other replicas into files, part by part, and making a ledger's directory of it.
//!
//! Everything lies below a folder of its own until all of it is there; the ledger's directory is replaced in one step that a
//! crash cannot divide. Whoever calls has verified each part by the manifest; what is found after a crash is verified again.
//!
//! ```text
//! manifest          what the parts have to be
//! hashes            leaf hashes, block after block
//! chunks            a snapshot's file, as far as it has come
//! ledger/           the directory to come: values, then the snapshot, hash tiles and the base
//! whole             all of it is there: the ledger is to be replaced
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tradewind_ledger::manifest::BLOCK_LEAVES;
use tradewind_ledger::tree::{CompactRange, root_of, value_digest};
use tradewind_ledger::{Digest, Manifest, Version};
use tradewind_ledger_disk::{Face, PlantError, WriteError, has_value, keep_value, plant, replace};
use tradewind_store::snapshot::Chunk;

use crate::file;
use crate::folder::Folder;

const BLOCK_BYTES: u64 = BLOCK_LEAVES * 32;

/// A snapshot on its way in.
#[derive(Debug)]
pub struct Intake {
    folder: PathBuf,
    manifest: Manifest,
    hashes: File,
    chunks: File,
    /// Where the next chunk goes.
    end: u64,
    held: Held,
}

/// What is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A block of leaf hashes.
    Block(u32),
    /// A chunk.
    Chunk(u32),
    /// A detached value of so many bytes.
    Value(u64, Digest),
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many blocks of leaf hashes.
    pub blocks: u32,
    /// How many chunks.
    pub chunks: u32,
    /// Detached values that these name and that are not there.
    pub missing: Vec<(u64, Digest)>,
}

impl Intake {
    /// Goes on with what is in `folder`; `None` if nothing is, or nothing that can be gone on with.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn resume(folder: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(folder.join("manifest")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        match Manifest::decode(&bytes) {
            Ok(manifest) => Self::open(folder, manifest).map(Some),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "a snapshot that was being taken is begun anew");
                Ok(None)
            }
        }
    }

    /// Begins to take the snapshot of this manifest, in place of what else is in `folder`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn begin(folder: &Path, manifest: Manifest) -> io::Result<Self> {
        if let Some(found) = Self::resume(folder)?
            && (&found.manifest.base, &found.manifest.chunks) == (&manifest.base, &manifest.chunks)
        {
            return Ok(found);
        }
        remove(folder)?;
        fs::create_dir_all(folder)?;
        replace(&folder.join("manifest"), &manifest.encode())?;
        Self::open(folder, manifest)
    }

    fn open(folder: &Path, manifest: Manifest) -> io::Result<Self> {
        undo_end(folder, &manifest)?;
        let open = |name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(folder.join(name))
        };
        let (hashes, chunks) = (open("hashes")?, open("chunks")?);
        let folder = folder.to_owned();
        let mut intake = Self { folder, manifest, hashes, chunks, end: 0, held: Held::default() };
        intake.find_blocks()?;
        intake.find_chunks()?;
        Ok(intake)
    }

    /// What is there.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// What the parts have to be.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Finds the whole blocks that are there; what a crash left behind them is written over.
    fn find_blocks(&mut self) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 18, &self.hashes);
        let size = self.manifest.base.size().0;
        let mut held = 0;
        for (index, root) in (0..).zip(&self.manifest.blocks) {
            let leaves = size.saturating_sub(index * BLOCK_LEAVES).min(BLOCK_LEAVES);
            let mut bytes = vec![0; leaves as usize * 32];
            match reader.read_exact(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            if root_of(digests(&bytes)) != *root {
                break;
            }
            held += 1;
        }
        self.held.blocks = held;
        Ok(())
    }

    /// The same for chunks, and for the values that they name.
    fn find_chunks(&mut self) -> io::Result<()> {
        let head = file::head(&self.manifest.base);
        let mut end = head.len() as u64;
        let mut found = vec![0; head.len()];
        let mut reader = BufReader::with_capacity(1 << 20, &self.chunks);
        let begun = match reader.read_exact(&mut found) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            read => read.map(|()| found == head)?,
        };
        let (mut held, mut missing) = (0, Vec::new());
        while begun && (held as usize) < self.manifest.chunks.len() {
            // Whatever cannot be read as the next chunk was not written wholly.
            let Ok(Some(chunk)) = file::chunk(&mut reader) else { break };
            let Ok(named) = chunk.detached(held == 0) else { break };
            if chunk.leaf() != self.manifest.chunks[held as usize] {
                break;
            }
            (held, end) = (held + 1, end + 8 + chunk.size() as u64);
            missing.extend(self.lacking(named));
        }
        missing.sort_unstable_by_key(|(_, digest)| *digest);
        missing.dedup();
        (self.held.chunks, self.held.missing) = (held, missing);
        if !begun {
            self.chunks.write_all_at(&head, 0)?;
        }
        self.end = end;
        self.chunks.set_len(end)
    }

    fn lacking(&self, named: Vec<(u64, Digest)>) -> impl Iterator<Item = (u64, Digest)> {
        let ledger = self.folder.join("ledger");
        named.into_iter().filter(move |(len, digest)| !has_value(&ledger, digest, *len))
    }

    /// What is to be fetched next; `None` if all of it is here. Values first: so no more of their names wait than one chunk has.
    #[must_use]
    pub fn next(&self) -> Option<Next> {
        if let Some((len, digest)) = self.held.missing.last() {
            return Some(Next::Value(*len, *digest));
        }
        if (self.held.blocks as usize) < self.manifest.blocks.len() {
            return Some(Next::Block(self.held.blocks));
        }
        let more = (self.held.chunks as usize) < self.manifest.chunks.len();
        more.then_some(Next::Chunk(self.held.chunks))
    }

    /// Keeps what [`Intake::next`] asked for, if it is what the manifest says: `false` otherwise, and nothing is changed.
    ///
    /// # Errors
    /// As [`Intake::keep_block`].
    pub fn keep(&mut self, next: Next, bytes: &[u8]) -> io::Result<bool> {
        match next {
            Next::Value(len, digest) => {
                if bytes.len() as u64 != len || value_digest(bytes) != digest {
                    return Ok(false);
                }
                self.keep_value(&digest, bytes)?;
                self.held.missing.retain(|(_, other)| *other != digest);
            }
            Next::Block(index) => {
                let whole = bytes.len().is_multiple_of(32);
                if !whole
                    || self.manifest.blocks.get(index as usize) != Some(&root_of(digests(bytes)))
                {
                    return Ok(false);
                }
                self.keep_block(index, bytes)?;
            }
            Next::Chunk(index) => {
                let chunk = Chunk::from_bytes(bytes);
                let Some(chunk) = chunk.filter(|chunk| chunk.detached(index == 0).is_ok()) else {
                    return Ok(false);
                };
                if self.manifest.chunks.get(index as usize) != Some(&chunk.leaf()) {
                    return Ok(false);
                }
                let mut missing = self.keep_chunk(index, bytes)?;
                missing.sort_unstable_by_key(|(_, digest)| *digest);
                missing.dedup();
                self.held.missing = missing;
            }
        }
        Ok(true)
    }

    /// The root of the first `size` entries, by the leaf hashes that are here; `None` if they are not.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn root_at(&self, size: Version) -> io::Result<Option<Digest>> {
        let blocks = u64::from(self.held.blocks) * BLOCK_LEAVES;
        if size > self.manifest.base.size() || size.0 > blocks {
            return Ok(None);
        }
        let mut reader = BufReader::with_capacity(1 << 18, &self.hashes);
        reader.seek(SeekFrom::Start(0))?;
        let mut tree = CompactRange::new();
        for _ in 0..size.0 {
            let mut leaf = [0; 32];
            reader.read_exact(&mut leaf)?;
            tree.push(Digest(leaf));
        }
        Ok(Some(tree.root()))
    }

    /// Keeps the leaf hashes of a block; one that is there already is passed over.
    ///
    /// # Errors
    /// If the system refuses. If the disk is full, it may be tried again; otherwise the process should end.
    pub fn keep_block(&mut self, index: u32, bytes: &[u8]) -> io::Result<()> {
        if index == self.held.blocks {
            self.hashes.write_all_at(bytes, u64::from(index) * BLOCK_BYTES)?;
            self.hashes.sync_data()?;
            self.held.blocks += 1;
        }
        Ok(())
    }

    /// Keeps a chunk; one that is there already is passed over. Gives the detached values that it names and that are not
    /// there.
    ///
    /// # Errors
    /// As [`Intake::keep_block`].
    pub fn keep_chunk(&mut self, index: u32, bytes: &[u8]) -> io::Result<Vec<(u64, Digest)>> {
        if index == self.held.chunks {
            self.chunks.write_all_at(bytes, self.end)?;
            self.chunks.sync_data()?;
            self.end += bytes.len() as u64;
            self.held.chunks += 1;
        }
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "not a chunk");
        let chunk = Chunk::from_bytes(bytes).ok_or_else(unreadable)?;
        let named = chunk.detached(index == 0).map_err(|_| unreadable())?;
        Ok(self.lacking(named).collect())
    }

    /// Keeps a detached value.
    ///
    /// # Errors
    /// As [`Intake::keep_block`].
    pub fn keep_value(&mut self, digest: &Digest, value: &[u8]) -> io::Result<()> {
        keep_value(&self.folder.join("ledger"), digest, value).map_err(|error| match error {
            WriteError::NoSpace(_) => io::Error::new(io::ErrorKind::StorageFull, error),
            error => io::Error::other(error),
        })
    }

    /// All parts are there: makes the ledger's directory of them, and notes that it is to take the place of the old one. Then
    /// [`replace_ledger`] does that. After an error call it again, after a crash [`resume`](Self::resume) first: nothing has to
    /// be taken again.
    ///
    /// # Errors
    /// If the system refuses, or the base does not belong to the hashes.
    pub fn finish(&self, face: Face) -> Result<(), PlantError> {
        let ledger = self.folder.join("ledger");
        let system = |source| PlantError::System { dir: self.folder.clone(), source };
        let size = self.manifest.base.size();
        let snapshot = Folder::of(&ledger).file(size);
        fs::create_dir_all(snapshot.parent().unwrap_or(&ledger)).map_err(system)?;
        if !ledger.join("base").exists() {
            let mut hashes = BufReader::with_capacity(1 << 18, &self.hashes);
            hashes.seek(SeekFrom::Start(0)).map_err(system)?;
            plant(&ledger, face, &self.manifest.base, |tile| {
                let mut bytes = vec![0; usize::from(tile.width) * 32];
                hashes.read_exact(&mut bytes)?;
                Ok(digests(&bytes).collect())
            })?;
        }
        if !snapshot.exists() {
            let root = root_of(self.manifest.chunks.iter().copied());
            let end = file::end(self.held.chunks, &root);
            self.chunks.write_all_at(&end, self.end).map_err(system)?;
            self.chunks.sync_all().map_err(system)?;
            fs::rename(self.folder.join("chunks"), &snapshot).map_err(system)?;
            sync_parent(&snapshot).map_err(system)?;
        }
        Folder::of(&ledger).keep_manifest(&self.manifest).map_err(system)?;
        replace(&self.folder.join("whole"), b"").map_err(system)
    }
}

/// Replaces the ledger in the directory `ledger` by the one that was made in `folder`, if one was, so that after a crash the
/// next call goes on. To be called before the ledger is opened. Returns whether it did.
///
/// # Errors
/// If the system refuses.
pub fn replace_ledger(folder: &Path, ledger: &Path) -> io::Result<bool> {
    if !folder.join("whole").exists() {
        return Ok(false);
    }
    let new = folder.join("ledger");
    let replaces = new.exists();
    if replaces {
        remove(ledger)?;
        fs::create_dir_all(ledger.parent().unwrap_or(Path::new(".")))?;
        fs::rename(&new, ledger)?;
        sync_parent(ledger)?;
        sync_parent(&new)?;
    }
    remove(folder)?;
    Ok(replaces)
}

/// Takes back what an interrupted end of the taking did to the chunks, so that it begins once more.
fn undo_end(folder: &Path, manifest: &Manifest) -> io::Result<()> {
    let whole = folder.join("whole");
    if whole.exists() {
        fs::remove_file(&whole)?;
        sync_parent(&whole)?;
    }
    let moved = Folder::of(&folder.join("ledger")).file(manifest.base.size());
    match fs::rename(moved, folder.join("chunks")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn digests(bytes: &[u8]) -> impl Iterator<Item = Digest> {
    bytes.as_chunks::<32>().0.iter().copied().map(Digest)
}
