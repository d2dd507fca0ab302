//! Whose data directory it is, and the evidence in it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use tradewind_ledger::LedgerId;
use tradewind_wan::protocol::Evidence;

/// First line of an identity file; nodes and mirrors have the same format.
const MAGIC: &str = "tradewind data directory, format 1";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file system refused.
    #[error("data directory: {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory is somebody else's.
    #[error(
        "data directory {}: its {field} is {found:?}, but this process has {expected:?}: it belongs \
         to another process; start this one with a directory of its own (see `deployment.data` in \
         the topology file)", .path.display()
    )]
    Foreign {
        /// The identity file.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// In the file.
        found: String,
        /// By the topology.
        expected: String,
    },
    /// The identity file is not one.
    #[error("data directory {}: line {line} is {found:?}, expected {expected:?}", .path.display())]
    Format {
        /// The identity file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What was found.
        found: String,
        /// What it must begin with.
        expected: &'static str,
    },
}

/// Claims `dir` for a mirror: makes it if missing, refuses it if it is somebody else's, and counts
/// this start. Gives the incarnation: larger at each start, durable before it is given out.
pub(crate) fn claim(dir: &Path, deployment: &str, name: &str, key: &str) -> Result<u64, DataError> {
    let path = dir.join("identity");
    let io = |source| DataError::Io { path: path.clone(), source };
    fs::create_dir_all(dir).map_err(io)?;
    let fields = [("deployment ", deployment), ("role ", "mirror"), ("name ", name), ("key ", key)];
    let last = match fs::read_to_string(&path) {
        Ok(text) => check(&path, &text, &fields)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(io(error)),
    };
    let incarnation = last + 1;
    let mut text = format!("{MAGIC}\n");
    for (prefix, value) in fields {
        text.push_str(&format!("{prefix}{value}\n"));
    }
    text.push_str(&format!("incarnation {incarnation}\n"));
    replace(&path, text.as_bytes()).map_err(io)?;
    Ok(incarnation)
}

fn check(path: &Path, text: &str, fields: &[(&'static str, &str); 4]) -> Result<u64, DataError> {
    let mut lines = text.lines().zip(1..).map(|(line, number)| (number, line));
    let mut value = |expected: &'static str| {
        let (line, found) = lines.next().unwrap_or((0, ""));
        found.strip_prefix(expected).map(str::to_owned).ok_or_else(|| DataError::Format {
            path: path.into(),
            line,
            found: found.into(),
            expected,
        })
    };
    value(MAGIC)?;
    for (prefix, expected) in fields {
        let found = value(prefix)?;
        if found != *expected {
            let (field, expected) = (prefix.trim_end(), (*expected).to_owned());
            return Err(DataError::Foreign { path: path.into(), field, found, expected });
        }
    }
    let expected = "incarnation ";
    let found = value(expected)?;
    found.parse().ok().filter(|last| *last < u64::MAX).ok_or(DataError::Format {
        path: path.into(),
        line: 6,
        found,
        expected,
    })
}

/// Writes a file so that after a crash the old or the new content is there, never neither.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The evidence of forks that a mirror has seen: `<data>/evidence/<ledger>-<size>.txt`. While there is
/// a file for a ledger, it is not followed.
#[derive(Clone, Debug)]
pub(crate) struct EvidenceFolder(PathBuf);

impl EvidenceFolder {
    pub(crate) fn of(data: &Path) -> Self {
        Self(data.join("evidence"))
    }

    /// The first file about this ledger, if there is one.
    pub(crate) fn find(&self, ledger: &LedgerId) -> Result<Option<PathBuf>, DataError> {
        let io = |source| DataError::Io { path: self.0.clone(), source };
        let files = match fs::read_dir(&self.0) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let prefix = format!("{ledger}-");
        for file in files {
            let file = file.map_err(io)?;
            let name = file.file_name();
            let is_about = name.to_str().is_some_and(|name| {
                name.starts_with(&prefix) && Path::new(name).extension() == Some("txt".as_ref())
            });
            if is_about {
                return Ok(Some(file.path()));
            }
        }
        Ok(None)
    }

    /// Keeps evidence; the file's path.
    pub(crate) fn keep(&self, evidence: &Evidence) -> Result<PathBuf, DataError> {
        let path = self.0.join(format!("{}-{}.txt", evidence.ledger, evidence.size));
        let io = |source| DataError::Io { path: path.clone(), source };
        fs::create_dir_all(&self.0).map_err(io)?;
        replace(&path, evidence.to_string().as_bytes()).map_err(io)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_counts_and_a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let claim = |name| claim(dir.path(), "atlas", name, "KEY");
        assert_eq!(claim("nyc-1").unwrap(), 1);
        assert_eq!(claim("nyc-1").unwrap(), 2);
        let before = fs::read(dir.path().join("identity")).unwrap();
        let error = claim("nyc-2").unwrap_err().to_string();
        assert!(error.contains("its name is \"nyc-1\", but this process has \"nyc-2\""), "{error}");
        assert_eq!(fs::read(dir.path().join("identity")).unwrap(), before);
    }

    #[test]
    fn a_damaged_identity_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), "atlas", "m", "KEY").unwrap();
        let path = dir.path().join("identity");
        let text = fs::read_to_string(&path).unwrap().replace("incarnation 1", "incarnation x");
        fs::write(&path, text).unwrap();
        let error = claim(dir.path(), "atlas", "m", "KEY").unwrap_err();
        assert!(matches!(error, DataError::Format { line: 6, .. }), "{error}");
    }
}
