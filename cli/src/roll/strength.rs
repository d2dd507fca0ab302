//! Whether a site is at full strength, from what its nodes say.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use tradewind_topology::ProcessName;

/// What one node says of itself: the part of its status that counts here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) incarnation: u64,
    /// The site's roster that it goes by.
    #[serde(default)]
    pub(crate) roster: usize,
    state: String,
    explanation: String,
    view: u64,
    shards: Vec<ShardStatus>,
}

#[derive(Clone, Debug, Deserialize)]
struct ShardStatus {
    ledger: String,
    delivered: u64,
    durable: u64,
}

/// What a node answered, or why it did not.
pub(crate) type Answers = BTreeMap<ProcessName, Result<NodeStatus, String>>;

/// A node that keeps its site below full strength.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    pub(crate) name: ProcessName,
    pub(crate) why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why)
    }
}

/// How far each ledger was, at whichever node had most of it. Under load nodes are never asked at one moment, so none
/// is held to what another had later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Goal(BTreeMap<String, u64>);

impl Goal {
    pub(crate) fn of(answers: &Answers) -> Self {
        let mut goal = BTreeMap::new();
        for shard in answers.values().flatten().flat_map(|status| &status.shards) {
            let most: &mut u64 = goal.entry(shard.ledger.clone()).or_default();
            *most = (*most).max(shard.delivered);
        }
        Self(goal)
    }
}

/// Who is missing: a node that does not answer, is not active, is not in the newest view that any is in, or has less
/// on its disk than the goal.
pub(crate) fn missing(answers: &Answers, goal: &Goal) -> Vec<Missing> {
    let newest = answers.values().flatten().map(|status| status.view).max().unwrap_or_default();
    let why = |answer: &Result<NodeStatus, String>| match answer {
        Err(error) => Some(format!("does not answer: {error}")),
        Ok(status) => weakness(status, newest, goal),
    };
    let weak = answers
        .iter()
        .filter_map(|(name, answer)| Some(Missing { name: name.clone(), why: why(answer)? }));
    weak.collect()
}

fn weakness(status: &NodeStatus, newest: u64, goal: &Goal) -> Option<String> {
    if status.state != "active" {
        return Some(status.explanation.clone());
    }
    if status.view != newest {
        return Some(format!("in view {}, others are in view {newest}", status.view));
    }
    status.shards.iter().find_map(|shard| {
        let goal = goal.0.get(&shard.ledger).copied().unwrap_or_default();
        let lacking = goal.checked_sub(shard.durable).filter(|lacking| *lacking > 0)?;
        Some(format!("lacks {lacking} of {goal} entries of {} on its disk", shard.ledger))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, view: u64, delivered: u64, durable: u64) -> NodeStatus {
        let (state, explanation) = (state.into(), format!("{state}: in words"));
        let shards = vec![ShardStatus { ledger: "bench.0".into(), delivered, durable }];
        NodeStatus { incarnation: 1, roster: 0, state, explanation, view, shards }
    }

    fn answers(all: [Result<NodeStatus, String>; 3]) -> Answers {
        let names = ["a1", "a2", "a3"].map(|name| name.parse().expect("a name"));
        names.into_iter().zip(all).collect()
    }

    #[test]
    fn a_site_whose_nodes_are_active_in_one_view_with_the_goal_on_disk_is_at_full_strength() {
        let first = answers([10, 12, 11].map(|at| Ok(status("active", 4, at, at - 3))));
        let goal = Goal::of(&first);
        let later = answers([12, 12, 20].map(|at| Ok(status("active", 4, at + 9, at))));
        assert_eq!(missing(&later, &goal), []);
    }

    #[test]
    fn whoever_is_missing_is_named_with_the_reason() {
        let goal = Goal::of(&answers([7, 30, 9].map(|at| Ok(status("active", 4, at, at)))));
        let found = missing(
            &answers([
                Err("refused".into()),
                Ok(status("stalled", 4, 30, 30)),
                Ok(status("active", 3, 30, 30)),
            ]),
            &goal,
        );
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a1: does not answer: refused",
                "a2: stalled: in words",
                "a3: in view 3, others are in view 4",
            ]
        );
        let behind = answers([30, 30, 28].map(|at| Ok(status("active", 4, 40, at))));
        let found = missing(&behind, &goal);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "a3: lacks 2 of 30 entries of bench.0 on its disk");
    }
}
