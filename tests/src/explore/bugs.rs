//! Bugs that are planted, and within which bounds they are found.

use tradewind_site_protocol::Mutation;

use super::{Bounds, Case, Opening};
use crate::sim::Planted;

/// A bug that exploring finds.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// Which.
    pub planted: Planted,
    /// From where.
    pub opening: Opening,
    /// In which order.
    pub order: usize,
    /// With so many choices.
    pub bounds: Bounds,
    /// What it breaks; which of these is seen first may change with the core.
    pub breaks: &'static [&'static str],
}

impl Bug {
    /// As the command line names it.
    #[must_use]
    pub fn name(&self) -> String {
        match self.planted {
            Planted::Core(mutation) => format!("{mutation:?}"),
            other => format!("{other:?}"),
        }
    }

    /// Where it is found.
    #[must_use]
    pub fn case(&self) -> Case {
        let Self { planted, opening, order, bounds, .. } = *self;
        Case { opening, order, bounds, planted: Some(planted) }
    }
}

const fn bug(
    planted: Planted,
    (opening, order): (Opening, usize),
    (deviations, crashes, cuts): (u32, u32, u32),
    breaks: &'static [&'static str],
) -> Bug {
    Bug { planted, opening, order, bounds: Bounds { deviations, crashes, cuts }, breaks }
}

const fn core(
    mutation: Mutation,
    from: (Opening, usize),
    bounds: (u32, u32, u32),
    breaks: &'static [&'static str],
) -> Bug {
    bug(Planted::Core(mutation), from, bounds, breaks)
}

const ORDER: &str = "invariant_one_order";
const SUCCESSOR: &str = "invariant_one_successor_view";
const FAILS: &str = "invariant_no_node_fails";
const REWIND: &str = "invariant_rewind_keeps_committed";
const PRESENT: &str = "invariant_acknowledged_is_present";
const ANSWER: &str = "invariant_acknowledged_is_durable";
const COMMIT: &str = "invariant_committed_is_durable";
const STABLE: &str = "invariant_stable_before_delivered";
const PROGRESS: &str = "invariant_progress_resumes";

const START: (Opening, usize) = (Opening::Start, 0);
const RUNNING: (Opening, usize) = (Opening::Running, 0);

/// All of them.
pub const BUGS: &[Bug] = &[
    core(Mutation::MinorityInstalls, START, (0, 0, 1), &[SUCCESSOR]),
    bug(Planted::PromiseForgotten, START, (0, 1, 1), &[FAILS, SUCCESSOR, ORDER]),
    core(Mutation::ShortestLogWins, RUNNING, (0, 1, 0), &[FAILS, REWIND, PRESENT]),
    core(Mutation::LengthAloneWins, (Opening::Longer, 0), (0, 0, 0), &[FAILS, REWIND, PRESENT]),
    core(Mutation::CommitBeforeView, (Opening::Histories, 2), (0, 1, 0), &[FAILS, REWIND, PRESENT]),
    core(Mutation::RewindTooFar, (Opening::Suffix, 0), (0, 0, 0), &[REWIND]),
    core(Mutation::AnswerBeforeSync, RUNNING, (0, 0, 0), &[ANSWER]),
    core(Mutation::OwnDiskCommits, RUNNING, (0, 0, 0), &[COMMIT]),
    core(Mutation::OwnRowStability, RUNNING, (0, 0, 0), &[STABLE]),
    core(Mutation::SuspicionTakenBack, RUNNING, (0, 0, 1), &[PROGRESS]),
    core(Mutation::PendingForgotten, RUNNING, (0, 0, 1), &[PROGRESS]),
    core(Mutation::NullsForgotten, RUNNING, (0, 0, 0), &[PROGRESS]),
    core(Mutation::NullsEarly, RUNNING, (1, 0, 0), &[ORDER]),
];
