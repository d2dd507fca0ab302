//! A deterministic simulator of a core group: real [`NodeCore`](tradewind_site_protocol::NodeCore)s on simulated
//! links, disks, clocks and clients. Everything follows from a seed; a failure names it, and
//! `tradewind-tests sim --seed S` tells the same run step by step.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | what a seed stands for: site, shards, limits, faults |
//! | `world` | the event loop: shells around cores |
//! | `links`, `faults`, `loss`, `work`, `end` | its parts: frames on their way, what goes wrong, clients, coming to rest |
//! | `fabric`, `disk`, `client` | the simulated surroundings |
//! | `check` | the invariants |

mod check;
mod client;
mod disk;
mod end;
mod fabric;
mod faults;
mod links;
mod loss;
mod plan;
mod rng;
mod snapshots;
mod work;
mod world;

use std::fmt;

pub use check::Violation;
use tradewind_site_protocol::{Counters, Mutation};

/// A run that broke an invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What was broken.
    pub violation: Violation,
    /// When, in simulated microseconds.
    pub at_us: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} us: {}", self.at_us, self.violation)
    }
}

/// What the runs reached: a simulator that never comes to the hard places proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Coverage {
    /// Counters of all cores, added up.
    pub core: Counters,
    /// Nodes that crashed.
    pub crashes: u64,
    /// Links that broke.
    pub broken_links: u64,
    /// Nodes that were stopped for a while.
    pub pauses: u64,
    /// Peers that a core had disconnected.
    pub disconnects: u64,
    /// Times nodes were kept apart: in two parts, with a bridge between them, or one alone.
    pub partitions: u64,
    /// Times nothing arrived over a link one way.
    pub one_way: u64,
    /// Times a link broke again and again.
    pub flapping: u64,
    /// Promises that were being written in a crash.
    pub promises_torn: u64,
    /// Nodes that came back with an empty disk, and were refused.
    pub lost_disks_refused: u64,
    /// Views that were stopped to let a node in, and installed with it, while nothing went wrong.
    pub joins: u64,
    /// The longest of these changes, microseconds.
    pub join_pause_max: u64,
    /// Runs in which a majority alone had to make progress.
    pub majorities_alone: u64,
    /// Submissions whose outcome was given up.
    pub unknown: u64,
    /// Publishes that arrived after their view.
    pub frames_of_old_views: u64,
    /// Submissions refused.
    pub refused: u64,
    /// Requests submitted again.
    pub repeated: u64,
    /// Requests answered.
    pub answered: u64,
    /// Detached values written.
    pub detached: u64,
    /// Ledgers pruned behind two snapshots.
    pub prunings: u64,
    /// Ledgers begun anew with a snapshot of others.
    pub ledgers_replaced: u64,
    /// Pieces of snapshots that were damaged on their way.
    pub damaged_parts: u64,
    /// Crashes while a snapshot was being taken.
    pub takings_interrupted: u64,
    /// Starts that went on with a snapshot of which a part was there.
    pub takings_resumed: u64,
    /// Calls that were checked for linearizability.
    pub linear_calls: u64,
}

impl Coverage {
    /// Adds what a core counted.
    pub(crate) fn add(&mut self, counters: &Counters) {
        let (sum, more) = (&mut self.core, counters);
        sum.views += more.views;
        sum.stalls += more.stalls;
        sum.proposals += more.proposals;
        sum.takeovers += more.takeovers;
        sum.partial_views += more.partial_views;
        sum.abandoned += more.abandoned;
        sum.outbid += more.outbid;
        sum.admissions += more.admissions;
        sum.backoffs += more.backoffs;
        sum.lessons += more.lessons;
        sum.learned += more.learned;
        sum.sources_lost += more.sources_lost;
        sum.prolonged += more.prolonged;
        sum.laggards += more.laggards;
        sum.drained += more.drained;
        sum.compared += more.compared;
        sum.rewinds += more.rewinds;
        sum.suspended += more.suspended;
        sum.promises_recovered += more.promises_recovered;
        sum.remembered += more.remembered;
        sum.messages += more.messages;
        sum.commands += more.commands;
        sum.resent += more.resent;
        sum.nulls += more.nulls;
        sum.wraps += more.wraps;
        sum.fragments += more.fragments;
        sum.no_credit += more.no_credit;
        sum.caught_up += more.caught_up;
        sum.values_caught_up += more.values_caught_up;
        sum.seals += more.seals;
        sum.marks += more.marks;
        sum.checkpoints += more.checkpoints;
        sum.clock_ahead += more.clock_ahead;
        sum.bad_signatures += more.bad_signatures;
        sum.snapshots += more.snapshots;
        sum.snapshots_differ += more.snapshots_differ;
        sum.parts_taken += more.parts_taken;
        sum.wrong_parts += more.wrong_parts;
        sum.planted += more.planted;
        sum.stale_messages += more.stale_messages;
    }

    /// Adds another run.
    pub fn join(&mut self, other: &Coverage) {
        self.add(&other.core);
        self.crashes += other.crashes;
        self.prunings += other.prunings;
        self.ledgers_replaced += other.ledgers_replaced;
        self.damaged_parts += other.damaged_parts;
        self.takings_interrupted += other.takings_interrupted;
        self.takings_resumed += other.takings_resumed;
        self.broken_links += other.broken_links;
        self.pauses += other.pauses;
        self.disconnects += other.disconnects;
        self.partitions += other.partitions;
        self.one_way += other.one_way;
        self.flapping += other.flapping;
        self.promises_torn += other.promises_torn;
        self.lost_disks_refused += other.lost_disks_refused;
        self.joins += other.joins;
        self.join_pause_max = self.join_pause_max.max(other.join_pause_max);
        self.majorities_alone += other.majorities_alone;
        self.unknown += other.unknown;
        self.frames_of_old_views += other.frames_of_old_views;
        self.refused += other.refused;
        self.repeated += other.repeated;
        self.answered += other.answered;
        self.detached += other.detached;
        self.linear_calls += other.linear_calls;
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
pub fn run_late(seed: u64, late: Late, mutation: Option<Mutation>) -> Result<Coverage, Failure> {
    let plan = plan::Plan::with_late(seed, late, mutation);
    world::World::new(&plan, seed, None).run()
}

/// Runs a seed to its end.
///
/// # Errors
/// The first invariant that is broken.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Result<Coverage, Failure> {
    let plan = plan::Plan::of_seed(seed, mutation);
    world::World::new(&plan, seed, None).run()
}

/// Runs a seed and tells each step, one line at a time.
///
/// # Errors
/// As [`run`].
pub fn run_traced(
    seed: u64,
    mutation: Option<Mutation>,
    mut tell: impl FnMut(&str),
) -> Result<Coverage, Failure> {
    let plan = plan::Plan::of_seed(seed, mutation);
    tell(&format!("seed {seed}: {} nodes, {} shards", plan.nodes.len(), plan.shards.len()));
    for shard in &plan.shards {
        tell(&format!("  {} on {:?}", shard.genesis.ledger, shard.members));
    }
    tell(&format!("  {:?}", plan.limits));
    let trace = Box::new(|line: String| tell(&line));
    world::World::new(&plan, seed, Some(trace)).run()
}
