//! Of whom a view could be made, and of which roster (docs/protocol.md, section 7).

use alloc::vec::Vec;

use tradewind_ledger::ViewId;

use super::Forming;
use super::quorum::quorum;
use crate::access::StoreAccess;
use crate::config::Mutation;
use crate::error::Refusal;
use crate::ids::NodeId;
use crate::node::{NodeCore, Phase};
use crate::roster::{RosterId, Span};
use crate::wire::{Hello, Proposal};

/// A view that could be made.
pub(super) struct Choice {
    pub(super) span: Span,
    pub(super) members: Vec<NodeId>,
}

impl<S: StoreAccess> NodeCore<S> {
    /// The view that this node could make of eligible ones that are there: of the newest roster that it can be of.
    pub(super) fn choice(
        &self,
        forming: &Forming,
        eligible: impl Fn(NodeId) -> bool,
    ) -> Option<Choice> {
        self.choice_with(self.config.own, forming, eligible)
    }

    /// The same, of a view that has this node in it.
    pub(super) fn choice_with(
        &self,
        one: NodeId,
        forming: &Forming,
        eligible: impl Fn(NodeId) -> bool,
    ) -> Option<Choice> {
        let told = |node: NodeId| forming.hellos[node.index()].as_ref();
        let most = |members: &[NodeId], of: fn(&Hello) -> RosterId| {
            members.iter().filter_map(|node| told(*node).map(of)).max().unwrap_or_default()
        };
        (0..=self.config.last().0).rev().map(RosterId).find_map(|roster| {
            let fits = |node: NodeId| {
                let hello =
                    told(node).filter(|hello| (hello.begun..=hello.last()).contains(&roster));
                hello.is_some() && self.config.is_seated(roster, node)
            };
            if !fits(one) {
                return None;
            }
            let quick = |node: NodeId| eligible(node) && fits(node);
            let span_of = |members: &[NodeId]| Span {
                established: most(members, |hello| hello.established),
                roster,
            };
            let enough = |members: &[NodeId]| {
                let begun = most(members, |hello| hello.begun);
                self.carries(span_of(members), members)
                    && (begun == roster || self.is_due(forming, (begun, roster), members))
            };
            let members = quorum(one, &forming.hellos, quick, enough);
            (!members.is_empty()).then(|| Choice { span: span_of(&members), members })
        })
    }

    /// Whether these may be the members of a view.
    pub(super) fn carries(&self, span: Span, members: &[NodeId]) -> bool {
        match self.planted {
            Some(Mutation::MinorityInstalls) => !members.is_empty(),
            _ => self.config.carries(self.needed(span), members),
        }
    }

    /// The rosters of which a view has to have majorities.
    pub(super) fn needed(&self, span: Span) -> Span {
        match self.planted {
            Some(Mutation::NewRosterAlone) => Span { established: span.roster, ..span },
            _ => span,
        }
    }

    /// Whether it is time to begin a roster: whoever is new on it is there and ready, and nobody would be left out only
    /// because it has an older topology file. Views of the one before go on until then.
    fn is_due(
        &self,
        forming: &Forming,
        (begun, roster): (RosterId, RosterId),
        members: &[NodeId],
    ) -> bool {
        let all = (0..self.config.nodes.len() as u16).map(NodeId);
        let mut seated = all.filter(|node| self.config.is_seated(roster, *node));
        seated.all(|node| {
            let told = forming.hellos[node.index()].as_ref();
            let is_new = !self.config.is_seated(begun, node);
            (!is_new || members.contains(&node)) && told.is_none_or(|hello| hello.last() >= roster)
        })
    }

    /// The view of the newest roster that could be made without waiting for those who lack much, if that is possible.
    pub(super) fn foremost(&self, forming: &Forming) -> Option<Choice> {
        let quick = self.without_laggards(forming, |_| true);
        quick.or_else(|| self.choice(forming, |_| true))
    }

    /// Whether a view of a newer roster than a proposal's could be made: a node with an older topology file does not keep
    /// the others from that.
    pub(super) fn is_outdated(&self, forming: &Forming, proposal: &Proposal) -> bool {
        let foremost = self.foremost(forming);
        foremost.is_some_and(|choice| choice.span.roster > proposal.roster)
    }

    /// The oldest roster that this node helps to make a view of.
    pub(super) fn begun(&self) -> RosterId {
        self.promise.roster
    }

    /// Whether no view runs, and a majority with this node in it is there to make one.
    pub(crate) fn goes_on(&self) -> bool {
        let Phase::Forming(forming) = &self.phase else { return false };
        self.choice(forming, |_| true).is_some()
    }

    /// Nodes that are wanting for a majority; none if one is there.
    pub(crate) fn missing(&self) -> Vec<NodeId> {
        let Phase::Forming(forming) = &self.phase else { return Vec::new() };
        if self.goes_on() {
            return Vec::new();
        }
        let there = quorum(self.config.own, &forming.hellos, |_| true, |_| true);
        let mut others = self.other_nodes();
        others.retain(|node| !there.contains(node) && self.config.is_seated(self.begun(), *node));
        others
    }

    /// Those of the eligible nodes that lack little, if they make a majority, and if leaving out the others suspends no
    /// shard: who lacks much learns beside their view, which it could not if the shard did not run.
    pub(super) fn without_laggards(
        &self,
        forming: &Forming,
        eligible: impl Fn(NodeId) -> bool,
    ) -> Option<Choice> {
        let quick = |node: NodeId| eligible(node) && !self.is_laggard(forming, node);
        let chosen = self.choice(forming, quick)?;
        let reachable = self.choice(forming, |_| true)?;
        (!self.suspends(&chosen, &reachable)).then_some(chosen)
    }

    /// Whether a shard would wait in one view that runs in the other.
    pub(super) fn suspends(&self, chosen: &Choice, reachable: &Choice) -> bool {
        let runs = |of: &Choice, shard| self.config.runs(self.needed(of.span), shard, &of.members);
        let mut shards = self.config.shard_indexes();
        shards.any(|shard| runs(reachable, shard) && !runs(chosen, shard))
    }

    /// Whether a node lacks much of what others told that they have.
    pub(super) fn is_laggard(&self, forming: &Forming, node: NodeId) -> bool {
        let told = |node: NodeId| forming.hellos[node.index()].iter().flat_map(|h| &h.ledgers);
        let all = || (0..forming.hellos.len()).map(|index| NodeId(index as u16));
        if self.planted == Some(Mutation::AdmitsUnlearned) {
            return false;
        }
        told(node).any(|own| {
            let of_shard = all().flat_map(told).filter(|state| state.shard == own.shard);
            let best = of_shard.max_by_key(|state| (state.view, state.size));
            best.is_some_and(|b| {
                b.size.0.saturating_sub(own.size.0) > self.config.limits.lag_entries
            })
        })
    }

    /// Whether a node that is not there may yet come: at the start whoever was in the last view, later only who was
    /// not lost.
    pub(super) fn is_waited_for(&self, forming: &Forming, node: NodeId) -> bool {
        let refusal = self.peers[node.index()].refusal.as_ref();
        let is_past = matches!(refusal, Some(Refusal::OldRoster { .. } | Refusal::Removed { .. }));
        if is_past || !self.config.is_seated(self.config.last(), node) {
            return false;
        }
        match self.ran {
            true => self.peers[node.index()].connected && forming.hellos[node.index()].is_none(),
            false => {
                let expected =
                    self.promise.view == ViewId(0) || self.promise.members.contains(&node);
                expected && !self.is_laggard(forming, node)
            }
        }
    }
}
