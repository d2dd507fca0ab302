//! The evidence of forks, in the mirror's data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tradewind_ledger::LedgerId;
use tradewind_ledger_disk::{DataError, replace};
use tradewind_wan::protocol::Evidence;

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
