//! A room of its own for a program: network, mounts and processes that nobody else sees, and that vanish with it.
//!
//! Namespaces of Linux, entered by `unshare`(1). When the program ends, however it ends, the kernel ends every process
//! in the room and takes down its links, mounts and rules: nothing is left to clean up.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

/// Set for a program inside a container, to what names the container.
const INSIDE: &str = "TRADEWIND_CONTAINER";

/// The tools that are called, and the packages of Debian that have them.
const TOOLS: [(&str, &str); 7] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("prlimit", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];

/// Why there can be no container.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// Programs are missing.
    #[error(
        "cut links and small disks need {tools}, not found in PATH, /usr/sbin or /sbin; on Debian: apt-get install {packages}"
    )]
    Tools {
        /// What is missing.
        tools: String,
        /// Where it is.
        packages: String,
    },
    /// The system does not let this user.
    #[error(
        "cut links and small disks need root, or user namespaces for this user \
         (sysctl kernel.unprivileged_userns_clone=1), with network, mount and process namespaces: {reason}"
    )]
    Privileges {
        /// What `unshare` said.
        reason: String,
    },
}

/// What names the container that this program runs in, if it does.
#[must_use]
pub fn inside() -> Option<String> {
    env::var(INSIDE).ok()
}

/// A command that runs `program` in a new container, as root of it. It is killed when its starter ends, and standard
/// input is a pipe that closes then: watch it to end in order.
///
/// # Errors
/// When tools or privileges are missing: what, and how to get it.
pub fn command(program: &Path) -> Result<Command, ContainerError> {
    let mut missing: Vec<_> =
        TOOLS.iter().filter(|(tool, _)| find(tool).is_none()).copied().collect();
    if !missing.is_empty() {
        let tools = missing.iter().map(|(tool, _)| *tool).collect::<Vec<_>>().join(", ");
        missing.dedup_by_key(|(_, package)| *package);
        let packages = missing.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" ");
        return Err(ContainerError::Tools { tools, packages });
    }
    let refused = |reason: String| ContainerError::Privileges { reason };
    let tried = unshare().arg("true").output().map_err(|error| refused(error.to_string()))?;
    if !tried.status.success() {
        return Err(refused(String::from_utf8_lossy(&tried.stderr).trim().into()));
    }
    let mut command = unshare();
    command.arg(program).env(INSIDE, std::process::id().to_string()).stdin(Stdio::piped());
    Ok(command)
}

/// Brings up 127.0.0.1, which a new container has switched off; does nothing outside of one.
///
/// # Errors
/// What the system said.
pub fn loopback_up() -> Result<(), ContainerError> {
    if inside().is_none() {
        return Ok(());
    }
    run(tool("ip").args(["link", "set", "lo", "up"]))
        .map_err(|reason| ContainerError::Privileges { reason })
}

fn unshare() -> Command {
    let mut command = tool("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]);
    command
}

/// The command `name`, wherever it lies.
pub(crate) fn tool(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}

/// Runs a command to its end.
///
/// # Errors
/// What it said if it failed.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let said = match command.output() {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("{command:?}: {}", said.trim()))
}

/// Administrators' tools are not always in a user's PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}
