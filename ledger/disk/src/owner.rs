//! The data directory of a process: whose it is, and how often it was opened (docs/formats/data-directory.md).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

const MAGIC: &str = "tradewind data directory, format 1";

/// Whose directory it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The deployment.
    pub deployment: String,
    /// `node` or `mirror`.
    pub role: &'static str,
    /// The process' name in the topology.
    pub name: String,
    /// The process' public key, in the topology's notation.
    pub key: String,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
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
        "data directory {}: its {field} is {found:?}, but this process has {expected:?}: it belongs to another process; \
         start this one with a directory of its own (see `deployment.data` in the topology file)", .path.display()
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
    #[error("data directory {}: line {line} is {found:?}, expected {expected}", .path.display())]
    Format {
        /// The identity file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What was found.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
}

/// Claims `dir` for `owner`: makes it if missing, refuses it if it is somebody else's, and counts this start.
/// Gives the incarnation: larger at each start, durable before it is given out.
///
/// # Errors
/// See [`DataError`].
pub fn claim(dir: &Path, owner: &Owner) -> Result<u64, DataError> {
    let path = dir.join("identity");
    let io = |source| DataError::Io { path: path.clone(), source };
    fs::create_dir_all(dir).map_err(io)?;
    let last = match fs::read_to_string(&path) {
        Ok(text) => check(&path, &text, owner)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(io(error)),
    };
    let incarnation = last + 1;
    let text = format!(
        "{MAGIC}\ndeployment {}\nrole {}\nname {}\nkey {}\nincarnation {incarnation}\n",
        owner.deployment, owner.role, owner.name, owner.key
    );
    replace(&path, text.as_bytes()).map_err(io)?;
    Ok(incarnation)
}

fn check(path: &Path, text: &str, owner: &Owner) -> Result<u64, DataError> {
    let mut lines = text.lines().enumerate();
    let mut line = |expected: &'static str, prefix: &str| {
        let (index, line) = lines.next().unwrap_or((0, ""));
        line.strip_prefix(prefix).map(str::to_owned).ok_or_else(|| DataError::Format {
            path: path.into(),
            line: index + 1,
            found: line.into(),
            expected,
        })
    };
    line("the first line of a data directory of format 1", MAGIC)?;
    let fields: [(&'static str, &str, &str); 4] = [
        ("deployment", "deployment ", &owner.deployment),
        ("role", "role ", owner.role),
        ("name", "name ", &owner.name),
        ("key", "key ", &owner.key),
    ];
    for (field, prefix, expected) in fields {
        let found = line(field, prefix)?;
        if found != expected {
            let expected = expected.into();
            return Err(DataError::Foreign { path: path.into(), field, found, expected });
        }
    }
    let found = line("incarnation and a number", "incarnation ")?;
    found.parse().ok().filter(|last| *last < u64::MAX).ok_or(DataError::Format {
        path: path.into(),
        line: 6,
        found,
        expected: "incarnation and a number below 2^64 - 1",
    })
}

/// Writes a file so that after a crash the old or the new content is there, never neither.
///
/// # Errors
/// What the file system says; the old content stands then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { deployment: "atlas".into(), role: "node", name: name.into(), key: "k".into() }
    }

    #[test]
    fn each_start_gets_a_larger_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(claim(dir.path(), &owner("a1")).unwrap(), 1);
        assert_eq!(claim(dir.path(), &owner("a1")).unwrap(), 2);
    }

    #[test]
    fn the_directory_of_another_process_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), &owner("a1")).unwrap();
        let before = fs::read(dir.path().join("identity")).unwrap();
        let error = claim(dir.path(), &owner("a2")).unwrap_err().to_string();
        assert!(error.contains("its name is \"a1\", but this process has \"a2\""), "{error}");
        assert_eq!(fs::read(dir.path().join("identity")).unwrap(), before);
    }

    #[test]
    fn a_damaged_identity_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), &owner("a1")).unwrap();
        let path = dir.path().join("identity");
        let text = fs::read_to_string(&path).unwrap().replace("incarnation 1", "incarnation x");
        fs::write(&path, text).unwrap();
        let error = claim(dir.path(), &owner("a1")).unwrap_err();
        assert!(matches!(error, DataError::Format { line: 6, .. }), "{error}");
    }
}
