//! A directory for a deployment that lives as long as the command: the user's, kept, or a temporary one, removed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Removed when dropped, unless it is the user's or was kept.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    temporary: bool,
}

impl Scratch {
    /// `dir`, made if it is missing, or a new directory among the system's temporary ones.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new(what: &str, dir: Option<&Path>) -> anyhow::Result<Self> {
        let name = format!("tradewind-{what}-{}", std::process::id());
        let path = dir.map_or_else(|| std::env::temp_dir().join(name), Path::to_path_buf);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let path = path.canonicalize().with_context(|| path.display().to_string())?;
        Ok(Self { path, temporary: dir.is_none() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is, so that one can look into it.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.temporary = false;
        self.path.clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary directory");
        }
    }
}
