//! One file a record: the path is the key, the bytes are the value.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use tradewind_ledger::entry::MAX_VALUE;

use super::{Record, Sink, Visit};
use crate::data;

/// Reads the regular files below `root`, in the order of their names; symbolic links, sockets and
/// the like are passed over.
pub(super) fn read(root: &Path, visit: Visit<'_>) -> anyhow::Result<()> {
    let mut position = 0;
    let mut stack = entries(root)?;
    while let Some(path) = stack.pop() {
        let shown = || path.display().to_string();
        let metadata = fs::symlink_metadata(&path).with_context(shown)?;
        if metadata.is_dir() {
            stack.extend(entries(&path)?);
        } else if metadata.is_file() {
            let value = contents(&path).with_context(shown)?;
            position += value.len() as u64;
            let key = path.strip_prefix(root).expect("found below it");
            let key = key.as_os_str().as_bytes().to_vec();
            visit(Record { key, value, place: shown(), position })?;
        }
    }
    Ok(())
}

/// What a directory holds, last name first.
fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut entries = entries.with_context(|| directory.display().to_string())?;
    entries.sort_unstable_by(|a, b| b.cmp(a));
    Ok(entries)
}

fn contents(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    File::open(path)?.take(MAX_VALUE + 1).read_to_end(&mut value)?;
    ensure!(
        value.len() as u64 <= MAX_VALUE,
        "more than {MAX_VALUE} bytes, the largest value: split the file"
    );
    Ok(value)
}

/// Writes files into a new or empty directory.
pub(super) struct Writer {
    root: PathBuf,
}

impl Writer {
    pub(super) fn new(root: PathBuf) -> anyhow::Result<Self> {
        let shown = || root.display().to_string();
        fs::create_dir_all(&root).with_context(shown)?;
        let is_empty = fs::read_dir(&root).with_context(shown)?.next().is_none();
        ensure!(is_empty, "{} is not empty: choose another directory", root.display());
        Ok(Self { root })
    }
}

impl Sink for Writer {
    fn write(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let shown = || format!("{:?}", data::shown(key, 64));
        let good =
            |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        ensure!(
            key.split(|byte| *byte == b'/').all(good),
            "{} is no path of a file: export as ndjson instead",
            shown()
        );
        let path = self.root.join(OsStr::from_bytes(key));
        let parent = path.parent().expect("it lies below the root");
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, value)).with_context(|| {
            format!("{}: as a file; if another key is a directory of it, export as ndjson", shown())
        })
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}
