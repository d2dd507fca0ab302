//! Whom the others of a shard wait for: a message is stable only once every member of the view has received it, so one
//! that is slow holds up all. Here it is known for how long.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::Replica;
use crate::access::StoreAccess;
use crate::ids::{Instant, NodeId};
use crate::memory::Memory;

/// By rank: what all others had received of each sender, and since when they had it, oldest first; without what this
/// member has by now.
#[derive(Debug)]
pub(super) struct Pace {
    owed: Vec<VecDeque<(Instant, Vec<u64>)>>,
}

impl Pace {
    pub(super) fn new(members: usize) -> Self {
        Self { owed: vec![VecDeque::new(); members] }
    }

    /// Takes in what each present member has received of each sender; remembers anew what is owed once in `every` µs, so
    /// that members who look at different times come to about the same.
    fn look(&mut self, now: Instant, every: u64, received: &[(usize, Vec<u64>)]) {
        for (rank, own) in received {
            let owed = &mut self.owed[*rank];
            let has = |level: &[u64]| own.iter().zip(level).all(|(own, level)| own >= level);
            while owed.front().is_some_and(|(_, level)| has(level)) {
                owed.pop_front();
            }
            if owed.back().is_some_and(|(at, _)| now.since(*at) < every) {
                continue;
            }
            let others = received.iter().filter(|(other, _)| other != rank);
            let level = others.map(|(_, levels)| levels.clone()).reduce(|mut least, levels| {
                least.iter_mut().zip(levels).for_each(|(least, level)| *least = level.min(*least));
                least
            });
            if let Some(level) = level.filter(|level| !has(level)) {
                owed.push_back((now, level));
            }
        }
    }

    /// For how long the others have had something that this member has not, µs.
    fn waited(&self, rank: usize, now: Instant) -> u64 {
        self.owed[rank].front().map_or(0, |(since, _)| now.since(*since))
    }
}

impl<S: StoreAccess> Replica<S> {
    /// Looks who holds the shard up; see [`Pace::look`]. `anew`: what was seen before says nothing.
    pub(crate) fn watch_pace<M: Memory>(
        &mut self,
        now: Instant,
        every: u64,
        anew: bool,
        memory: &M,
    ) {
        let (own, layout, senders) = (self.own, self.layout, self.members.len());
        let Some(flow) = self.flow.as_mut() else { return };
        if anew {
            flow.pace = Pace::new(senders);
        }
        let of_peer = |(rank, node): &(usize, NodeId)| {
            let level = |sender| match sender == *rank {
                true => memory.load(*node, layout.sent()),
                false => memory.load(*node, layout.received(sender)),
            };
            (*rank, (0..senders).map(level).collect())
        };
        let mut received: Vec<_> = flow.others.iter().map(of_peer).collect();
        received.push((own, (0..senders).map(|sender| flow.order.received(sender)).collect()));
        flow.pace.look(now, every, &received);
    }

    /// For how long the others of the view have waited for this one, µs.
    pub(crate) fn waited_for(&self, node: NodeId, now: Instant) -> u64 {
        let rank = self.members.iter().position(|member| *member == node);
        let waited = |rank| Some(self.flow.as_ref()?.pace.waited(rank, now));
        rank.and_then(waited).unwrap_or(0)
    }
}
