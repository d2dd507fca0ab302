//! The folder of a ledger's snapshots.
//!
//! The two newest snapshots are kept whole: should one be damaged, the other one is there. Of older ones the base is
//! kept, as a place that the ledger can be pruned at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tradewind_ledger::base::Base;
use tradewind_ledger::{Manifest, SnapshotRecord, Version};

use crate::file::{self, FileFault, Writing};

/// How many snapshots are kept.
const GENERATIONS: usize = 2;
const SNAPSHOT: &str = "snap";
const BASE: &str = "base";
const AGREED: &str = "at";
const MANIFEST: &str = "manifest";
const TEMPORARY: &str = "tmp";

/// The snapshots of one ledger.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// That of the ledger in this directory; it need not exist.
    pub(crate) fn of(ledger: &Path) -> Self {
        Self { path: ledger.join("snapshots") }
    }

    pub(crate) fn file(&self, at: Version) -> PathBuf {
        self.named(at, SNAPSHOT)
    }

    fn named(&self, at: Version, extension: &str) -> PathBuf {
        self.path.join(format!("{:020}.{extension}", at.0))
    }

    /// The snapshots that are there, the newest first.
    pub(crate) fn snapshots(&self) -> io::Result<Vec<Version>> {
        let mut found = self.list(SNAPSHOT)?;
        found.reverse();
        Ok(found)
    }

    /// In ascending order; other files are left alone.
    fn list(&self, extension: &str) -> io::Result<Vec<Version>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let stem =
                name.to_str().and_then(|name| name.strip_suffix(extension)?.strip_suffix('.'));
            found.extend(
                stem.filter(|it| it.len() == 20).and_then(|it| it.parse().ok()).map(Version),
            );
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Writes a snapshot: `fill` adds its chunks.
    pub(crate) fn write(
        &self,
        base: &Base,
        fill: impl FnOnce(&mut Writing) -> io::Result<()>,
    ) -> io::Result<SnapshotRecord> {
        fs::create_dir_all(&self.path)?;
        let temporary = self.named(base.size(), TEMPORARY);
        let write = || {
            let mut writing = Writing::begin(&temporary, base)?;
            fill(&mut writing)?;
            writing.finish(&temporary, &self.file(base.size()))
        };
        write().inspect_err(|_| _ = fs::remove_file(&temporary))
    }

    /// Notes that the ledger holds a snapshot, in the entry `at`.
    pub(crate) fn agree(&self, size: Version, at: Version) -> io::Result<()> {
        tradewind_ledger_disk::replace(&self.named(size, AGREED), format!("{at}\n").as_bytes())
    }

    /// Keeps what a snapshot was taken by, which notes at the same time that the ledger holds it.
    pub(crate) fn keep_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let size = manifest.base.size();
        tradewind_ledger_disk::replace(&self.named(size, MANIFEST), &manifest.encode())?;
        self.agree(size, manifest.version)
    }

    /// What the snapshot of `size` entries was taken by; `None` if it was made here.
    pub(crate) fn manifest(&self, size: Version) -> io::Result<Option<Manifest>> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        match fs::read(self.named(size, MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => Manifest::decode(&bytes?).map(Some).map_err(invalid),
        }
    }

    /// The newest snapshot that is here and that the ledger holds, with the version of its entry.
    pub(crate) fn agreed(&self) -> io::Result<Option<(Version, Version)>> {
        for size in self.list(AGREED)?.into_iter().rev().filter(|size| self.file(*size).exists()) {
            let text = fs::read_to_string(self.named(size, AGREED))?;
            if let Ok(at) = text.trim_end().parse() {
                return Ok(Some((size, Version(at))));
            }
        }
        Ok(None)
    }

    /// Removes all but the newest snapshots, of which the bases stay, and the newest that the ledger holds; and what an
    /// interrupted start or write left.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let agreed = self.agreed()?.map(|(size, _)| size);
        for left in self.list(TEMPORARY)? {
            fs::remove_file(self.named(left, TEMPORARY))?;
        }
        for gone in self.list(AGREED)?.into_iter().filter(|size| agreed > Some(*size)) {
            fs::remove_file(self.named(gone, AGREED))?;
        }
        for gone in self.list(MANIFEST)?.into_iter().filter(|size| agreed > Some(*size)) {
            fs::remove_file(self.named(gone, MANIFEST))?;
        }
        let old = self.snapshots()?.into_iter().skip(GENERATIONS);
        for old in old.filter(|old| agreed != Some(*old)) {
            let file = self.file(old);
            match file::read_base(&file) {
                Ok(base) => tradewind_ledger_disk::replace(&self.named(old, BASE), &base.encode())?,
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "an old snapshot goes without leaving its base");
                }
            }
            fs::remove_file(file)?;
        }
        Ok(())
    }

    /// The older one of the snapshots that are kept: nothing before it is needed for any start.
    pub(crate) fn safe(&self) -> io::Result<Option<Version>> {
        Ok(self.snapshots()?.get(GENERATIONS - 1).copied())
    }

    /// Where the ledger can be pruned, in ascending order: at bases, up to the older snapshot.
    pub(crate) fn places(&self) -> io::Result<Vec<Version>> {
        let mut places = self.list(BASE)?;
        places.extend(self.safe()?);
        Ok(places)
    }

    pub(crate) fn base(&self, at: Version) -> Result<Base, FileFault> {
        let file = self.named(at, BASE);
        match fs::read(&file) {
            Ok(bytes) => Ok(Base::decode(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file::read_base(&self.file(at))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the bases before `first`, which the ledger was pruned at.
    pub(crate) fn forget_before(&self, first: Version) -> io::Result<()> {
        let mut gone = self.list(BASE)?.into_iter().filter(|at| *at < first);
        gone.try_for_each(|at| fs::remove_file(self.named(at, BASE)))
    }
}
