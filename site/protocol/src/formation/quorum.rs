//! Which nodes could make a view together: the largest set of nodes that are all linked with each other.

use alloc::vec::Vec;

use crate::ids::NodeId;
use crate::wire::Hello;

/// The largest set of nodes that contains `own`, that are `eligible`, of which each two are linked by what both say, and
/// which is `enough`; of several as large, the one with the lowest ranks. Ascending; empty if there is none, and while the
/// own node has said nothing. What holds more than enough has to be enough.
///
/// Sites are small, and links mostly whole: then the first set tried is the answer.
pub(super) fn quorum(
    own: NodeId,
    hellos: &[Option<Hello>],
    eligible: impl Fn(NodeId) -> bool,
    enough: impl Fn(&[NodeId]) -> bool,
) -> Vec<NodeId> {
    let told = |node: NodeId| hellos[node.index()].as_ref();
    let linked = |a: NodeId, b: NodeId| {
        let lists = |x: NodeId, y: NodeId| told(x).is_some_and(|h| !h.waiting_for.contains(&y));
        a == b || lists(a, b) && lists(b, a)
    };
    if told(own).is_none() {
        return Vec::new();
    }
    let all = (0..hellos.len()).map(|index| NodeId(index as u16));
    let candidates: Vec<NodeId> =
        all.filter(|node| linked(own, *node) && eligible(*node)).collect();
    let (mut best, mut chosen) = (Vec::new(), Vec::new());
    let rules = (&linked as &dyn Fn(NodeId, NodeId) -> bool, &enough as &dyn Fn(&[NodeId]) -> bool);
    extend(&candidates, &mut chosen, &mut best, rules, own);
    best
}

type Rules<'a> = (&'a dyn Fn(NodeId, NodeId) -> bool, &'a dyn Fn(&[NodeId]) -> bool);

/// Tries all sets that begin with `chosen` and go on with some of `rest`.
fn extend(
    rest: &[NodeId],
    chosen: &mut Vec<NodeId>,
    best: &mut Vec<NodeId>,
    rules: Rules<'_>,
    own: NodeId,
) {
    let (linked, enough) = rules;
    if chosen.len() + rest.len() <= best.len() || !enough(&[chosen, rest].concat()) {
        return;
    }
    let Some((first, rest)) = rest.split_first() else {
        best.clone_from(chosen);
        return;
    };
    if chosen.iter().all(|node| linked(*node, *first)) {
        chosen.push(*first);
        extend(rest, chosen, best, rules, own);
        chosen.pop();
    }
    if *first != own {
        extend(rest, chosen, best, rules, own);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use tradewind_ledger::{Digest, ViewId};

    use super::*;
    use crate::ids::Incarnation;
    use crate::roster::RosterId;
    use crate::wire::Stand;

    /// Nodes that all speak, without these links.
    fn told(nodes: u16, cut: &[(u16, u16)]) -> Vec<Option<Hello>> {
        let hello = |node: u16| Hello {
            stand: Stand { incarnation: Incarnation(1), attempt: 1 },
            rosters: vec![Digest::ZERO],
            begun: RosterId(0),
            established: RosterId(0),
            last_view: ViewId(0),
            waiting_for: cut
                .iter()
                .filter_map(|(a, b)| match node {
                    _ if node == *a => Some(NodeId(*b)),
                    _ if node == *b => Some(NodeId(*a)),
                    _ => None,
                })
                .collect(),
            settled: true,
            unfinished: false,
            late: Vec::new(),
            slow: Vec::new(),
            ledgers: vec![],
        };
        (0..nodes).map(|node| Some(hello(node))).collect()
    }

    fn of(own: u16, hellos: &[Option<Hello>]) -> Vec<u16> {
        quorum(NodeId(own), hellos, |_| true, |_| true).into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn all_linked_are_all_chosen() {
        assert_eq!(of(1, &told(5, &[])), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_bridge_belongs_to_the_side_of_lower_ranks() {
        let bridge = told(5, &[(0, 3), (0, 4), (1, 3), (1, 4)]);
        assert_eq!(of(0, &bridge), [0, 1, 2]);
        assert_eq!(of(2, &bridge), [0, 1, 2]);
        assert_eq!(of(4, &bridge), [2, 3, 4]);
    }

    #[test]
    fn a_low_rank_with_few_links_does_not_hide_a_majority() {
        let hellos = told(5, &[(1, 2), (1, 3), (1, 4), (0, 4)]);
        assert_eq!(of(0, &hellos), [0, 2, 3]);
        assert_eq!(of(3, &hellos), [0, 2, 3]);
    }

    #[test]
    fn a_large_set_that_is_not_enough_does_not_hide_a_smaller_one_that_is() {
        let hellos = told(6, &[(2, 3), (2, 4), (2, 5)]);
        let with_two = |nodes: &[NodeId]| nodes.contains(&NodeId(2));
        assert_eq!(of(0, &hellos), [0, 1, 3, 4, 5]);
        assert_eq!(quorum(NodeId(0), &hellos, |_| true, with_two), [0, 1, 2].map(NodeId));
        assert_eq!(quorum(NodeId(3), &hellos, |_| true, with_two), []);
    }

    #[test]
    fn a_link_counts_only_if_both_ends_have_it() {
        let mut hellos = told(3, &[]);
        hellos[2].as_mut().unwrap().waiting_for.push(NodeId(0));
        assert_eq!(of(0, &hellos), [0, 1]);
        hellos[0] = None;
        assert_eq!(of(0, &hellos), [0; 0]);
    }
}
