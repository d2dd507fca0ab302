//! Where the files of a ledger come from.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Gives files by their path below a data directory, a ledger's directory or a ledger's URL. Paths have
/// `/` between their parts and never begin with one.
pub trait Source: Sync {
    /// What a human calls it: a directory or URL.
    fn name(&self) -> String;

    /// The whole file; `None` if there is none.
    ///
    /// # Errors
    /// If it has more than `limit` bytes (which are then not read), or reading fails.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError>;

    /// `len` bytes of a file from `offset` on; `None` if there is no such file here, or if it ends before. A source that serves
    /// a ledger's public face needs no parts of files.
    ///
    /// # Errors
    /// If reading fails.
    fn read_part(
        &self,
        path: &str,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let _ = (path, offset, len);
        Ok(None)
    }

    /// The length of a file in bytes; `None` if there is none, or the source cannot tell.
    ///
    /// # Errors
    /// If the system fails.
    fn length(&self, path: &str) -> Result<Option<u64>, SourceError> {
        let _ = path;
        Ok(None)
    }

    /// The paths of all files below a directory, in any order; `None` if this source cannot list (as HTTP
    /// cannot). A directory that does not exist has no files.
    ///
    /// # Errors
    /// If listing fails.
    fn list(&self, dir: &str) -> Result<Option<Vec<String>>, SourceError>;
}

/// A file that cannot be read. Whether it is right remains unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It is longer than its kind may be.
    #[error("{path} has {len} bytes; at most {limit} are allowed")]
    TooLong {
        /// Which file.
        path: String,
        /// Its length.
        len: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Anything else.
    #[error("{path}: {reason}")]
    Io {
        /// Which file or directory.
        path: String,
        /// What went wrong.
        reason: String,
    },
}

/// Files of a local directory.
#[derive(Clone, Debug)]
pub struct DirSource {
    root: PathBuf,
}

impl DirSource {
    /// The directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Opens a file that may not be there.
    fn open(&self, path: &str) -> Result<Option<fs::File>, SourceError> {
        match fs::File::open(self.root.join(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            file => file.map(Some).map_err(failed(path)),
        }
    }

    fn walk(&self, dir: &Path, path: &str, files: &mut Vec<String>) -> Result<(), SourceError> {
        let failed = failed(path);
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(&failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(&failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            // A file may vanish while a live ledger is read: whoever reads it next sees that.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&entry.path(), &below, files)?;
            } else {
                files.push(below);
            }
        }
        Ok(())
    }
}

impl Source for DirSource {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = failed(path);
        let Some(file) = self.open(path)? else { return Ok(None) };
        let len = file.metadata().map_err(&failed)?.len();
        if len > limit {
            return Err(SourceError::TooLong { path: path.to_owned(), len, limit });
        }
        let mut bytes = Vec::with_capacity(len as usize);
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    fn read_part(
        &self,
        path: &str,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let mut bytes = vec![0; len];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(failed(path)(error)),
        }
    }

    fn length(&self, path: &str) -> Result<Option<u64>, SourceError> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        Ok(Some(file.metadata().map_err(failed(path))?.len()))
    }

    fn list(&self, dir: &str) -> Result<Option<Vec<String>>, SourceError> {
        let mut files = Vec::new();
        self.walk(&self.root.join(dir), dir, &mut files)?;
        Ok(Some(files))
    }
}

fn failed(path: &str) -> impl Fn(std::io::Error) -> SourceError {
    move |error| SourceError::Io { path: path.to_owned(), reason: error.to_string() }
}

/// A part of another source: all paths begin with `prefix`.
pub(crate) struct Below<'a> {
    pub(crate) source: &'a dyn Source,
    /// Empty, or ends with `/`.
    pub(crate) prefix: String,
}

impl Source for Below<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.source.name(), self.prefix.trim_end_matches('/'))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        self.source.read(&format!("{}{path}", self.prefix), limit)
    }

    fn read_part(
        &self,
        path: &str,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        self.source.read_part(&format!("{}{path}", self.prefix), offset, len)
    }

    fn length(&self, path: &str) -> Result<Option<u64>, SourceError> {
        self.source.length(&format!("{}{path}", self.prefix))
    }

    fn list(&self, dir: &str) -> Result<Option<Vec<String>>, SourceError> {
        let Some(files) = self.source.list(&format!("{}{dir}", self.prefix))? else {
            return Ok(None);
        };
        let below = |file: String| file.strip_prefix(&self.prefix).map(str::to_owned);
        Ok(Some(files.into_iter().filter_map(below).collect()))
    }
}
