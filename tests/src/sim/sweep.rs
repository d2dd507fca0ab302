//! Systematic crashes: short runs, again and again, with a crash at each of their points, and at pairs of them.

use std::fmt;

use clap::ValueEnum;

use super::coverage::{Kind, Side};
use super::points::Injection;
use super::rng::Rng;
use super::script::Script;
use super::{Coverage, Failure, Planted, run_script};

/// A script with crashes beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The script.
    pub script: Script,
    /// What chance there is in it follows from this.
    pub seed: u64,
    /// The crashes.
    pub crashes: Vec<Injection>,
}

impl Case {
    /// Runs it.
    ///
    /// # Errors
    /// As [`super::run`].
    pub fn run(&self, planted: Option<Planted>) -> Result<Coverage, Failure> {
        run_script(self, planted, None)
    }
}

/// What is given to the command line to see it step by step.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { script, seed, crashes } = self;
        let script = script.to_possible_value().expect("no script is hidden");
        write!(f, "--script {} --from {seed}", script.get_name())?;
        crashes.iter().try_for_each(|crash| write!(f, " --crash {crash}"))
    }
}

/// A crash before and one after every point that a run of a script passes: of the node alone at every third, with another
/// one cut off at the others.
///
/// # Errors
/// If the script itself breaks an invariant.
pub fn every_point(script: Script, seed: u64) -> Result<Vec<Case>, Failure> {
    let base = Case { script, seed, crashes: Vec::new() };
    let points = base.run(None)?.passed;
    let sides = (1..=points).flat_map(|nth| Side::ALL.iter().map(move |side| (nth, *side)));
    let crash = |(nth, side)| Injection { nth, side, apart: ((nth + seed) % 3) as u16 };
    Ok(sides.map(|side| Case { crashes: vec![crash(side)], ..base.clone() }).collect())
}

/// So many pairs of crashes, drawn: the second one soon after the first, while the others deal with that.
///
/// # Errors
/// If the script itself breaks an invariant.
pub fn pairs(script: Script, seed: u64, count: usize) -> Result<Vec<Case>, Failure> {
    let base = Case { script, seed, crashes: Vec::new() };
    let points = base.run(None)?.passed;
    let mut rng = Rng::new(seed);
    let mut crash = |range| {
        let (nth, side) = (rng.range(range), *rng.pick(Side::ALL));
        Injection { nth, side, apart: rng.range(0..3) as u16 }
    };
    let pair = |_| {
        let first = crash(1..points + 1);
        let second = crash(first.nth + 1..first.nth + 150);
        Case { crashes: vec![first, second], ..base.clone() }
    };
    Ok((0..count).map(pair).collect())
}
