//! A deterministic simulator of a core group: real [`NodeCore`](tradewind_site_protocol::NodeCore)s on simulated
//! links, disks, clocks and clients. Everything follows from a seed; a failure names it, and
//! `tradewind-tests sim --seed S` tells the same run step by step.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | what a seed stands for: site, shards, limits, faults |
//! | `world` | the event loop: shells around cores |
//! | `shell` | what a node's shell does for its core |
//! | `links`, `work`, `readers`, `end` | frames on their way, clients, reads, coming to rest |
//! | `faults`, `veils`, `crashes`, `storage`, `loss` | what goes wrong by chance |
//! | `roster` | who comes and goes |
//! | `snapshots` | snapshots that are made, pruned behind, and taken over the wire |
//! | `points`, `script`, `sweep` | crashes at every point of a shell, in runs whose course is laid down |
//! | `coverage` | what was reached, kind by kind |
//! | `fabric`, `disk`, `client` | the simulated surroundings |
//! | `check` | the invariants |

mod check;
mod client;
mod coverage;
mod crashes;
mod disk;
mod end;
mod fabric;
mod faults;
mod links;
mod loss;
mod plan;
mod points;
mod readers;
mod rng;
mod roster;
mod script;
mod shell;
mod snapshots;
mod storage;
mod sweep;
mod veils;
mod work;
mod world;

use std::fmt;
use std::process::Command;

pub use check::Violation;
pub(crate) use check::{Check, broken};
pub use coverage::{Coverage, Fault, Kind, Point, SHARD_STEPS, STEPS, Seen, Side, Tally};
pub use points::Injection;
pub use script::Script;
pub use sweep::{Case, every_point, pairs};
use tradewind_site_protocol::Mutation;

/// A run that broke an invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What was broken.
    pub violation: Violation,
    /// When, in simulated microseconds.
    pub at_us: u64,
}

impl Failure {
    /// What it takes to see it again: what was run, as the command line names it, and at which commit.
    #[must_use]
    pub fn report(&self, run: &str) -> String {
        let commit = commit();
        format!(
            "sim {run} at commit {commit}: {self}\nsee it there with: cargo run --release -p tradewind-tests -- sim {run}"
        )
    }
}

/// The commit that this was built from, and whether it was changed since; `unknown` outside a repository.
#[must_use]
pub fn commit() -> String {
    let arguments =
        ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"];
    let described = Command::new("git").args(arguments).output();
    let text = described.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or_else(|| "unknown".into(), |text| String::from_utf8_lossy(&text).trim().into())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} us: {}", self.at_us, self.violation)
    }
}

/// A bug that is planted, to show that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// In the core.
    Core(Mutation),
    /// The shell gives its peers what it reads without a look at the checksum.
    DamageServed,
    /// The shell says that a promise is on disk, and does not write it.
    PromiseForgotten,
}

impl Planted {
    pub(crate) fn in_core(self) -> Option<Mutation> {
        match self {
            Self::Core(mutation) => Some(mutation),
            Self::DamageServed | Self::PromiseForgotten => None,
        }
    }
}

impl From<Mutation> for Planted {
    fn from(mutation: Mutation) -> Self {
        Self::Core(mutation)
    }
}

/// A site of three nodes in a run of [`run_late`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Late {
    /// When the last node starts for the first time, microseconds; the others work meanwhile.
    pub after_us: u64,
    /// Whether one of the others crashes at that moment, and stays away: then nothing goes on without the last one.
    pub needed: bool,
}

/// Runs a site without faults, one node of which starts late and has all to learn, by chunks of 100 bytes.
///
/// # Errors
/// The first invariant that is broken.
pub fn run_late(seed: u64, late: Late, planted: Option<Planted>) -> Result<Coverage, Failure> {
    let plan = plan::Plan::with_late(seed, late, planted);
    world::World::new(&plan, seed, None).run()
}

/// Runs a site without faults but one: the disk of the last of three nodes stands still so many times, mostly. `needed`: a
/// shard cannot do without it.
///
/// # Errors
/// The first invariant that is broken.
pub fn run_stalling(
    seed: u64,
    times: usize,
    needed: bool,
    planted: Option<Planted>,
) -> Result<Coverage, Failure> {
    let plan = plan::Plan::with_stalls(seed, times, needed, planted);
    world::World::new(&plan, seed, None).run()
}

/// What a seed is run as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    /// From it everything follows.
    pub seed: u64,
    /// Whether nodes are added and removed meanwhile.
    pub changes: bool,
    /// Whether all that goes wrong is that nodes of a small site do not notice for a while that others go on without them,
    /// with many reads.
    pub veiled: bool,
}

impl Course {
    /// A seed with faults of all kinds.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, changes: false, veiled: false }
    }

    /// The same, of nodes that do not notice that others go on.
    #[must_use]
    pub fn veiled(self) -> Self {
        Self { veiled: true, ..self }
    }

    /// The same, with nodes that come and go.
    #[must_use]
    pub fn with_changes(self) -> Self {
        Self { changes: true, ..self }
    }

    fn plan(self, planted: Option<Planted>) -> plan::Plan {
        let plan = match self.veiled {
            true => plan::Plan::with_veils(self.seed, planted),
            false => plan::Plan::of_seed(self.seed, planted),
        };
        let plan = match self.changes {
            true => plan.with_changes(self.seed),
            false => plan,
        };
        match planted {
            // Seeds in which planted bugs are looked for are to stay the same runs.
            Some(_) => plan,
            None => plan.with_slow_ones(self.seed),
        }
    }
}

/// As the command line names it.
impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [(self.veiled, " --veiled"), (self.changes, " --changes")];
        write!(f, "--seed {}", self.seed)?;
        flags.into_iter().filter(|(set, _)| *set).try_for_each(|(_, flag)| f.write_str(flag))
    }
}

/// Runs a seed to its end.
///
/// # Errors
/// The first invariant that is broken.
pub fn run(course: Course, planted: Option<Planted>) -> Result<Coverage, Failure> {
    world::World::new(&course.plan(planted), course.seed, None).run()
}

/// Runs a seed and tells each step, one line at a time.
///
/// # Errors
/// As [`run`].
pub fn run_traced(
    course: Course,
    planted: Option<Planted>,
    mut tell: impl FnMut(&str),
) -> Result<Coverage, Failure> {
    let (seed, plan) = (course.seed, course.plan(planted));
    tell(&format!("seed {seed}: {} nodes, {} shards", plan.nodes.len(), plan.shards.len()));
    for shard in &plan.shards {
        tell(&format!("  {} on {:?}", shard.genesis.ledger, shard.members));
    }
    for (roster, at) in plan.rosters.iter().zip([0].iter().chain(&plan.changes_at)) {
        let nodes: Vec<_> = roster.seats.iter().map(|seat| seat.node).collect();
        tell(&format!("  at {at} us: {nodes:?}, shards {:?}", roster.shards));
    }
    tell(&format!("  {:?}", plan.limits));
    let trace = Box::new(|line: String| tell(&line));
    world::World::new(&plan, seed, Some(trace)).run()
}

/// Runs a script, and tells each step if that is wanted.
///
/// # Errors
/// As [`run`].
pub fn run_script(
    case: &Case,
    planted: Option<Planted>,
    tell: Option<&mut dyn FnMut(&str)>,
) -> Result<Coverage, Failure> {
    let mut plan = plan::Plan::of_script(case.script, case.seed, planted);
    plan.injections.clone_from(&case.crashes);
    let trace = tell.map(|tell| -> Box<dyn FnMut(String)> { Box::new(move |line| tell(&line)) });
    world::World::new(&plan, case.seed, trace).run()
}
