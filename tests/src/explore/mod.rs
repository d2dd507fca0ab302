//! A model checker of the real core: [`NodeCore`](tradewind_site_protocol::NodeCore)s, with the formation of views and all
//! else in them, on links and disks that do what is chosen. All paths are followed on which no more is chosen than bounds
//! allow.
//!
//! At each moment one step is *due*: the first in a fixed order of what can happen. What may come instead costs one of three
//! budgets: a **deviation** (what is due is held up, until there is nothing else to do or it is released; a timer is due
//! early; something that waits for quiet happens now), a **crash**, a **cut** link. So few choices, at any points of a path,
//! make all orders that differ from the usual one in few places: most bugs need no more (delay bounding, Emmi and others,
//! POPL 2011). States are compared by a hash of all that decides what follows, and each is gone on from once.
//!
//! When nothing else can happen, commands are submitted, what was held up is released, a majority that is linked gets time to
//! make a view, and only then links are mended and nodes started. At the end of each path all nodes have to be in one view,
//! with all that was submitted.
//!
//! | module | holds |
//! |---|---|
//! | `site`, `openings` | who the nodes are; where exploring begins |
//! | `step`, `choices` | what can happen; what is due, and what may come instead |
//! | `parts`, `world`, `shell` | everything at one moment; what a node's shell does for its core |
//! | `disk`, `rows` | a node's disk and memory |
//! | `known` | what must hold |
//! | `search` | the search, and replay |

mod bugs;
mod choices;
mod disk;
mod known;
mod openings;
mod parts;
mod rows;
mod search;
mod shell;
mod site;
mod step;
mod world;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use tradewind_site_protocol::Counters;

pub use bugs::{BUGS, Bug};
pub use openings::Opening;
use parts::Watch;

use crate::sim::{Planted, Violation};

/// How much is chosen on a path at most.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bounds {
    /// Times that something else comes than what is due.
    pub deviations: u32,
    /// Crashes.
    pub crashes: u32,
    /// Links that are cut.
    pub cuts: u32,
}

/// What is explored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Where it begins.
    pub opening: Opening,
    /// Which of three orders says what is due.
    pub order: usize,
    /// How much is chosen.
    pub bounds: Bounds,
    /// A bug that is to be found.
    pub planted: Option<Planted>,
}

/// How many orders there are.
pub const ORDERS: usize = 3;

/// As the command line names it.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { deviations, crashes, cuts } = self.bounds;
        let opening = self.opening.to_possible_value().expect("no opening is hidden");
        write!(f, "--opening {} --order {}", opening.get_name(), self.order)?;
        write!(f, " --deviations {deviations} --crashes {crashes} --cuts {cuts}")
    }
}

/// At the n-th step something else comes than what is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The step.
    pub at: usize,
    /// What comes, of what may come.
    pub choice: usize,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at, self.choice)
    }
}

impl FromStr for Choice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| part.parse().map_err(|_| "a choice is STEP:WHICH");
        let (at, choice) = text.split_once(':').ok_or("a choice is STEP:WHICH")?;
        Ok(Self { at: number(at)?, choice: number(choice)? })
    }
}

/// A path on which something is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// What.
    pub violation: Violation,
    /// The path: what was chosen on it.
    pub choices: Vec<Choice>,
}

/// What was explored.
#[derive(Clone, Default, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps taken.
    pub steps: u64,
    /// Paths that came to their end.
    pub ends: u64,
    /// Steps of the longest path.
    pub longest: usize,
    /// Counters of all cores, over all steps.
    pub core: Counters,
    /// Sizes of the views that were installed.
    pub views: BTreeSet<usize>,
    /// What was found.
    pub found: Option<Counterexample>,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, ends, longest, .. } = self;
        write!(f, "{states} states, {steps} steps, {ends} ends, {longest} steps at most")
    }
}

impl Explored {
    /// Adds what another case explored.
    pub fn join(&mut self, other: Self) {
        self.states += other.states;
        self.steps += other.steps;
        self.ends += other.ends;
        self.longest = self.longest.max(other.longest);
        self.core.add(&other.core);
        self.views.extend(other.views);
        self.found = self.found.take().or(other.found);
    }
}

/// Explores a case, to its end or to the first violation.
#[must_use]
pub fn explore(case: Case) -> Explored {
    let mut watch = Watch::default();
    let explored = search::search(case, &mut watch);
    Explored { core: watch.counters, views: watch.views, ..explored }
}

/// Follows one path of a case, and tells each step.
#[must_use]
pub fn replay(case: Case, choices: &[Choice]) -> (Vec<String>, Option<Violation>) {
    let mut watch = Watch { lines: Some(Vec::new()), ..Watch::default() };
    let found = search::replay(case, choices, &mut watch).err();
    (watch.lines.unwrap_or_default(), found)
}

/// A counterexample in words: what is broken, how to see it again, and each step.
#[must_use]
pub fn report(case: Case, found: &Counterexample) -> String {
    let (lines, _) = replay(case, &found.choices);
    let choices: Vec<String> = found.choices.iter().map(|c| format!(" --take {c}")).collect();
    format!(
        "{}\nsee it again with: tradewind-tests explore {case}{}\n{}",
        found.violation,
        choices.concat(),
        lines.join("\n")
    )
}
