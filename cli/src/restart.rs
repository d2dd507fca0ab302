//! How `serve` begins anew: the same process id, a fresh process image.
//!
//! The executable is the one that then lies where this one was started from, so a restart also takes up a new
//! release. Files and sockets are closed on exec (the standard library opens all of them so); standard input, output
//! and error stay.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use anyhow::Context as _;
use tokio::sync::Notify;
use tradewind_gateway::Restart;
use tradewind_transport::tls::Credentials;
use tradewind_transport::{Directory, Identity};

use crate::exit::words;
use crate::topology::load;

/// A start takes at least so long, so that a process which wants to begin anew again and again does not spin.
const START_MIN: Duration = Duration::from_secs(1);

/// What this process was started from.
pub(crate) struct Image {
    program: PathBuf,
    name: OsString,
    args: Vec<OsString>,
    started: Instant,
}

impl Image {
    /// To be called at the start: later the executable may have been replaced.
    ///
    /// # Errors
    /// When the system does not tell what it executes.
    pub(crate) fn of_this_process() -> anyhow::Result<Self> {
        let executed = env::current_exe().context("asking for the executable")?;
        let mut args = env::args_os();
        let name = args.next().unwrap_or_else(|| executed.clone().into());
        let program = program(&name, executed);
        Ok(Self { program, name, args: args.collect(), started: Instant::now() })
    }

    /// Replaces this process by a fresh one with the same arguments. Returns only if that fails.
    pub(crate) fn execute(&self) -> io::Error {
        thread::sleep(START_MIN.saturating_sub(self.started.elapsed()));
        Command::new(&self.program).arg0(&self.name).args(&self.args).exec()
    }
}

/// The path to execute next time: as the starter gave it if it led here, for it may be a symbolic link that leads to
/// another release then; otherwise what is executed.
fn program(name: &OsString, executed: PathBuf) -> PathBuf {
    let given = Path::new(name);
    let leads_here = given.components().count() > 1
        && given.canonicalize().is_ok_and(|path| Some(path) == executed.canonicalize().ok());
    match std::path::absolute(given) {
        Ok(given) if leads_here => given,
        _ => executed,
    }
}

/// Takes requests for a restart.
#[derive(Debug)]
pub(crate) struct Restarter {
    topology: PathBuf,
    name: String,
    asked: Notify,
}

impl Restarter {
    pub(crate) fn new(topology: &Path, name: &str) -> Self {
        Self { topology: topology.into(), name: name.into(), asked: Notify::new() }
    }

    /// Waits until a restart is due.
    pub(crate) async fn begun(&self) {
        self.asked.notified().await;
    }

    fn try_check(&self) -> anyhow::Result<()> {
        let topology = load(&self.topology)?;
        topology.process(&self.name).context("the topology file does not name it any more")?;
        let key = topology.keys.join(format!("{}.key", self.name));
        let directory = Arc::new(Directory::from_topology(&topology)?);
        Credentials::new(&Identity::load(&self.name, &key)?, directory)?;
        Ok(())
    }
}

impl Restart for Restarter {
    /// A process that could not come back must not end: the files that it starts from are read first.
    fn check(&self) -> Result<(), String> {
        self.try_check().map_err(|error| words(&error))
    }

    fn begin(&self) {
        self.asked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_path_that_was_given_is_executed_again_if_it_led_here() {
        let dir = tempfile::tempdir().unwrap();
        let (old, other, link) =
            (dir.path().join("old"), dir.path().join("other"), dir.path().join("current"));
        std::fs::write(&old, "").unwrap();
        std::fs::write(&other, "").unwrap();
        symlink(&old, &link).unwrap();
        assert_eq!(program(&link.clone().into(), old.clone()), link);
        assert_eq!(program(&other.into(), old.clone()), old, "another program's path");
        assert_eq!(program(&"tradewind".into(), old.clone()), old, "found through PATH");
    }
}
