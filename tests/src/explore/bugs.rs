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
        let Self { planted, opening, order, bounds } = *self;
        Case { opening, order, bounds, planted: Some(planted) }
    }
}

const fn bug(
    planted: Planted,
    opening: Opening,
    order: usize,
    (deviations, crashes, cuts): (u32, u32, u32),
) -> Bug {
    Bug { planted, opening, order, bounds: Bounds { deviations, crashes, cuts } }
}

/// All of them.
pub const BUGS: &[Bug] = &[
    bug(Planted::Core(Mutation::MinorityInstalls), Opening::Start, 0, (0, 0, 1)),
    bug(Planted::PromiseForgotten, Opening::Running, 0, (1, 1, 0)),
    bug(Planted::Core(Mutation::ShortestLogWins), Opening::Running, 0, (0, 1, 0)),
    bug(Planted::Core(Mutation::LengthAloneWins), Opening::Suffix, 0, (0, 0, 0)),
    bug(Planted::Core(Mutation::DeliveryAfterStop), Opening::Running, 0, (1, 0, 1)),
    bug(Planted::Core(Mutation::CommitBeforeView), Opening::Histories, 2, (0, 2, 0)),
    bug(Planted::Core(Mutation::RewindTooFar), Opening::Suffix, 0, (0, 0, 0)),
    bug(Planted::Core(Mutation::AnswerBeforeSync), Opening::Running, 0, (0, 0, 0)),
    bug(Planted::Core(Mutation::OwnDiskCommits), Opening::Running, 0, (0, 0, 0)),
    bug(Planted::Core(Mutation::OwnRowStability), Opening::Running, 0, (0, 0, 0)),
    bug(Planted::Core(Mutation::SuspicionTakenBack), Opening::Running, 0, (0, 0, 1)),
    bug(Planted::Core(Mutation::PendingForgotten), Opening::Running, 0, (0, 0, 1)),
    bug(Planted::Core(Mutation::NullsForgotten), Opening::Running, 0, (0, 0, 0)),
    bug(Planted::Core(Mutation::NullsEarly), Opening::Running, 0, (0, 0, 0)),
];
