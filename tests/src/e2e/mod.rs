//! End-to-end tests with real processes: what they share.
//!
//! - [`Running`]: a deployment in a temporary directory, all processes ready; killed and removed when dropped
//! - [`Run`]: one call of the command line
//! - [`Writers`]: clients that write until told to stop, and remember what was acknowledged
//! - [`wait_for_calls`]: of clients that contend for a few keys
//! - `checks`: what must hold of mirrors and ledgers
//!
//! Nothing sleeps to let something happen: [`eventually`] asks until it has happened, or a deadline has passed.

mod checks;
mod writers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tradewind_local::{Contenders, Deployment, MirrorPlan, OPERATOR, Plan};

pub use checks::{
    assert_ledgers_hold, assert_segments_equal, export, ledgers, sizes, wait_for_sizes,
};
pub use writers::{Acknowledged, Writers};

/// Generous: the machine may be busy with other things.
pub const LIMIT: Duration = Duration::from_secs(40);

/// The `tradewind` executable of the profile that the tests are built with; built at the first call.
///
/// # Panics
/// If it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "tradewind-cli", "--bin", "tradewind", "--locked"]);
        build
            .arg("--message-format=json-render-diagnostics")
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let output = build.stderr(Stdio::inherit()).output().expect("cargo runs");
        assert!(output.status.success(), "the binary does not build");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the executable")
    })
}

/// Asks until the answer is `Ok`.
///
/// # Panics
/// If it is not after [`LIMIT`]; the last answer is told.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) => assert!(Instant::now() < deadline, "not {what} after {LIMIT:?}: {last}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `more` further calls of contending clients are recorded.
///
/// # Panics
/// If they are not in time.
pub fn wait_for_calls(clients: &Contenders, more: usize) {
    let goal = clients.calls() + more;
    eventually("called", || match clients.calls() {
        calls if calls >= goal => Ok(()),
        calls => Err(format!("{calls} of {goal} calls; errors: {:?}", clients.errors())),
    });
}

/// A deployment whose processes are all ready.
#[derive(Debug)]
pub struct Running {
    /// Its processes; dropped, and so killed, before their directory goes away.
    pub deployment: Deployment,
    dir: tempfile::TempDir,
}

impl Running {
    /// Starts every process of `plan`.
    ///
    /// # Panics
    /// If one does not become ready.
    pub fn start(plan: Plan) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut deployment = Deployment::create(dir.path(), binary(), plan).expect("a deployment");
        deployment.start_all().expect("processes start");
        let mut running = Self { deployment, dir };
        running.ready();
        running
    }

    /// Waits until all started processes are ready.
    ///
    /// # Panics
    /// If one does not become ready.
    pub fn ready(&mut self) {
        if let Err(error) = self.deployment.wait_ready(LIMIT) {
            self.fail(&error.to_string());
        }
    }

    /// Calls the command line as the operator of this deployment.
    pub fn run(&self, args: &[&str]) -> Run {
        let output = self.command(args).output().expect("the command runs");
        Run { args: args.join(" "), output }
    }

    /// The command line as the operator of this deployment, not run yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("TRADEWIND_TOPOLOGY", self.deployment.topology_file())
            .env("TRADEWIND_AS", OPERATOR)
            .env_remove("TRADEWIND_ENDPOINTS")
            .env_remove("TRADEWIND_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    /// The status of a process.
    ///
    /// # Panics
    /// If it does not answer with JSON.
    pub fn status(&self, name: &str) -> serde_json::Value {
        let (_, text) = self.deployment.fetch(name, "/status").expect("a status");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Fails the test and tells each process' status and the end of its log.
    ///
    /// # Panics
    /// Always.
    pub fn fail(&self, why: &str) -> ! {
        let mut told = String::new();
        for name in self.deployment.plan().process_names() {
            let log = std::fs::read_to_string(self.deployment.log(&name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(12)..].join("\n    ");
            let status = match self.deployment.fetch(&name, "/status") {
                Ok((_, status)) => status,
                Err(error) => error.to_string(),
            };
            told += &format!("\n  {name}: {status}\n    {tail}");
        }
        panic!("{why}\nlogs in {}:{told}", self.dir.path().display());
    }
}

/// What a call of the command line brought.
#[derive(Debug)]
pub struct Run {
    args: String,
    output: Output,
}

impl Run {
    /// The exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    /// What it printed.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it said beside.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The same call, which must have ended with this exit code.
    ///
    /// # Panics
    /// If it has not.
    pub fn expect(self, code: i32) -> Self {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        assert_eq!(self.code(), code, "tradewind {}\n{stdout}\n{stderr}", self.args);
        self
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    /// If it failed, or printed something else.
    pub fn json(self) -> serde_json::Value {
        let stdout = self.expect(0).stdout();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }
}

fn mirror(name: &str, parent: &str) -> MirrorPlan {
    MirrorPlan {
        name: name.into(),
        region: "us".into(),
        parents: vec![parent.into()],
        pools: vec![POOL.into()],
    }
}

/// One site with the pool `bench`, and a mirror `leaf` of it.
pub fn site_leaf(nodes: usize, shards: u32) -> Plan {
    let mut plan = Plan::one_site(nodes, shards);
    plan.mirrors = vec![mirror("leaf", "ams")];
    plan
}

/// One site of three nodes with the pool `bench` in two shards, a relay, and a leaf behind it.
pub fn site_relay_leaf() -> Plan {
    let mut plan = Plan::one_site(3, 2);
    plan.mirrors = vec![mirror("relay", "ams"), mirror("leaf", "relay")];
    plan
}

/// The pool of [`site_leaf`] and [`site_relay_leaf`].
pub const POOL: &str = "bench";
