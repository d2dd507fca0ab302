//! Disks and clocks that misbehave while a process runs: a library for `LD_PRELOAD`, compiled when it is wanted, which
//! looks into a shared page before each sync, each write and each look at the clock.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

/// The library's source.
const SOURCE: &str = include_str!("../shim/faults.c");
/// Bytes of the shared page.
const PAGE: u64 = 4096;

/// Why no faults can be injected.
#[derive(Debug, Error)]
pub enum FaultsError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The library does not compile.
    #[error(
        "disk and clock faults need a C compiler, `cc` (Debian: apt-get install gcc libc6-dev): {reason}"
    )]
    Compiler {
        /// What went wrong.
        reason: String,
    },
}

/// What misbehaves; the order is that of `struct faults` in `shim/faults.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Each sync fails with this `errno`.
    SyncErrno,
    /// Each sync takes so many milliseconds longer.
    SyncDelayMs,
    /// Each write fails with this `errno`.
    WriteErrno,
    /// The time of day is so many seconds ahead.
    ClockOffsetS,
    /// The time of day is this many seconds since 1970, and does not move.
    ClockFrozenS,
}

/// The compiled library.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
}

/// The faults of one process. They can be changed while it runs and outlive its restart.
#[derive(Debug)]
pub struct Faults {
    file: File,
    path: PathBuf,
    library: PathBuf,
    below: PathBuf,
}

impl Shim {
    /// Compiles the library into `dir`, which must exist.
    ///
    /// # Errors
    /// When `dir` cannot be written or there is no C compiler.
    pub fn build(dir: &Path) -> Result<Self, FaultsError> {
        let (source, library) = (dir.join("faults.c"), dir.join("faults.so"));
        fs::write(&source, SOURCE).map_err(io(&source))?;
        let compiled = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .map_err(|error| FaultsError::Compiler { reason: error.to_string() })?;
        if !compiled.status.success() {
            let reason = String::from_utf8_lossy(&compiled.stderr).into_owned();
            return Err(FaultsError::Compiler { reason });
        }
        Ok(Self { library })
    }

    /// The faults, none yet, of the process `name`, for its files below the directory `below`; beside the library lies
    /// the page that tells them.
    ///
    /// # Errors
    /// When the page cannot be made.
    pub fn faults(&self, name: &str, below: &Path) -> Result<Faults, FaultsError> {
        let path = self.library.with_file_name(format!("{name}.faults"));
        let options =
            File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = options.map_err(io(&path))?;
        file.set_len(PAGE).map_err(io(&path))?;
        Ok(Faults { file, path, library: self.library.clone(), below: below.into() })
    }
}

impl Faults {
    /// What the process must find in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let pair = |name: &str, value: &Path| (name.into(), value.as_os_str().to_owned());
        vec![
            pair("LD_PRELOAD", &self.library),
            pair("TRADEWIND_FAULTS", &self.path),
            pair("TRADEWIND_FAULTS_BELOW", &self.below),
        ]
    }

    /// Sets a fault, 0 for none; the process sees it at once.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn set(&self, field: Field, value: i64) -> Result<(), FaultsError> {
        let offset = 8 * field as u64;
        self.file.write_all_at(&value.to_ne_bytes(), offset).map_err(io(&self.path))
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> FaultsError {
    let path = path.display().to_string();
    move |source| FaultsError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sync FILE` calls fsync, `date` reads the clock: both through libc.
    #[test]
    fn a_sync_fails_only_below_the_directory_and_a_clock_is_ahead_only_while_told() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("data/a"), dir.path().join("b"));
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(&inside, "a").unwrap();
        fs::write(&outside, "b").unwrap();
        let shim = Shim::build(dir.path()).unwrap();
        let faults = shim.faults("ams-1", &dir.path().join("data")).unwrap();
        let run = |program: &str, argument: &Path| {
            let mut command = Command::new(program);
            command.arg(argument).envs(faults.environment()).output().unwrap()
        };
        let sync = |file: &Path| run("sync", file).status.success();
        let year = || {
            let output = run("date", Path::new("+%Y"));
            String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
        };
        let now = year();
        assert!(sync(&inside) && sync(&outside));

        faults.set(Field::SyncErrno, 5).unwrap();
        faults.set(Field::ClockOffsetS, 2 * 366 * 86_400).unwrap();
        assert!(!sync(&inside), "a sync below the directory fails");
        assert!(sync(&outside), "others do not");
        assert!(year() >= now + 2);

        faults.set(Field::SyncErrno, 0).unwrap();
        faults.set(Field::ClockOffsetS, 0).unwrap();
        faults.set(Field::ClockFrozenS, 86_400).unwrap();
        assert!(sync(&inside));
        assert_eq!(year(), 1970);
    }
}
