//! A disk of its own for a directory: small, so that it can be full; a `tmpfs`. Only inside a
//! [`container`](crate::container), whose mounts nobody else sees.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::container::{inside, run, tool};

/// The file that fills it.
const BALLAST: &str = ".ballast";

/// A mounted disk; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty disk of so many MiB at the directory `at`, made if missing.
    ///
    /// # Errors
    /// When the system refuses, or outside a container.
    pub fn mount(at: &Path, mib: u32) -> io::Result<Self> {
        if inside().is_none() {
            return Err(io::Error::other("disks are mounted only inside a container"));
        }
        fs::create_dir_all(at)?;
        let options = format!("size={mib}m,mode=0700");
        call(tool("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at))?;
        Ok(Self { at: at.into() })
    }

    /// Takes up all the space that is left.
    ///
    /// # Errors
    /// When something else than a full disk stops it.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.at.join(BALLAST))?;
        loop {
            match ballast.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(full) if full.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(other) => return Err(other),
            }
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.at.join(BALLAST))
    }

    /// Makes it read-only, or writable again. Files that are open for writing keep the system from doing the former in
    /// the ordinary way, so nothing may run on it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_read_only(&self, read_only: bool) -> io::Result<()> {
        let how = if read_only { "remount,ro" } else { "remount,rw" };
        call(tool("mount").args(["-o", how]).arg(&self.at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whatever holds it goes with the container, and the disk too.
        let _ = call(tool("umount").arg("--lazy").arg(&self.at));
    }
}

fn call(command: &mut std::process::Command) -> io::Result<()> {
    run(command).map_err(io::Error::other)
}
