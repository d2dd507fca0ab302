//! Whom the others of a shard wait for: a message is stable only once every member of the view has received it, and a
//! command is ordered only once every member holds its bodies, so one that is slow holds up all. Here it is known for how
//! long (docs/protocol.md, section 7, "Slow members").

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::quorum;

use super::Replica;
use crate::access::StoreAccess;
use crate::ids::{Instant, NodeId};
use crate::memory::Memory;

/// By rank: what is owed by a member.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    members: Vec<Owed>,
}

#[derive(Clone, Default, Debug)]
struct Owed {
    /// What a majority had received of each sender, and since when, oldest first; without what this member has by now.
    messages: VecDeque<(Instant, Vec<u64>)>,
    /// Since when blocks or bodies wait for it and it took no step, and how many steps it had taken by then.
    bodies: Option<(Instant, u64)>,
}

impl Pace {
    pub(super) fn new(members: usize) -> Self {
        Self { members: vec![Owed::default(); members] }
    }

    /// Takes in what each present member has received of each sender. A majority goes on without whoever lacks what it has;
    /// that is noted anew once in `every` µs, so that members who look at different times come to about the same.
    fn look_at_messages(
        &mut self,
        (now, every): (Instant, u64),
        majority: usize,
        received: &[(usize, Vec<u64>)],
    ) {
        let Some(level) = level_of(majority, received) else { return };
        for (rank, own) in received {
            let owed = &mut self.members[*rank].messages;
            let has = |level: &[u64]| own.iter().zip(level).all(|(own, level)| own >= level);
            while owed.front().is_some_and(|(_, level)| has(level)) {
                owed.pop_front();
            }
            let noted = |(at, last): &(Instant, Vec<u64>)| now.since(*at) < every || *last == level;
            if !has(&level) && !owed.back().is_some_and(noted) {
                owed.push_back((now, level.clone()));
            }
        }
    }

    /// Takes in whether bodies wait for a member that reads the own bulk ring, and how many blocks and bodies it has taken:
    /// a large value may take long, as long as it comes closer.
    fn look_at_bodies(&mut self, now: Instant, rank: usize, wait: bool, steps: u64) {
        let bodies = &mut self.members[rank].bodies;
        if !wait {
            *bodies = None;
        } else if bodies.is_none_or(|(_, taken)| taken != steps) {
            *bodies = Some((now, steps));
        }
    }

    /// For how long the others have waited for this member, µs.
    fn waited(&self, rank: usize, now: Instant) -> u64 {
        let Owed { messages, bodies } = &self.members[rank];
        let since = messages.front().map(|(since, _)| *since);
        let since = since.into_iter().chain(bodies.map(|(since, _)| since)).min();
        since.map_or(0, |since| now.since(since))
    }
}

/// By sender: how many of its messages so many members have; nothing if there are fewer members.
fn level_of(majority: usize, received: &[(usize, Vec<u64>)]) -> Option<Vec<u64>> {
    let senders = received.first()?.1.len();
    let level = |sender: usize| {
        let mut have: Vec<u64> = received.iter().map(|(_, levels)| levels[sender]).collect();
        have.sort_unstable_by(|a, b| b.cmp(a));
        have.get(majority - 1).copied()
    };
    (0..senders).map(level).collect()
}

impl<S: StoreAccess> Replica<S> {
    /// Looks who holds the shard up. `anew`: what was seen before says nothing.
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
        flow.pace.look_at_messages((now, every), quorum(senders), &received);
        for (rank, node) in &flow.others {
            let columns =
                |of| [memory.load(*node, layout.taken(of)), memory.load(*node, layout.held(of))];
            let steps = (0..senders).flat_map(columns).sum();
            let wait = flow.bulk.waits_for(memory, &layout, (*rank, *node));
            flow.pace.look_at_bodies(now, *rank, wait, steps);
        }
    }

    /// For how long the others of the view have waited for this one, µs.
    pub(crate) fn waited_for(&self, node: NodeId, now: Instant) -> u64 {
        let rank = self.members.iter().position(|member| *member == node);
        let waited = |rank| Some(self.flow.as_ref()?.pace.waited(rank, now));
        rank.and_then(waited).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn received(levels: &[u64]) -> Vec<(usize, Vec<u64>)> {
        levels.iter().map(|level| vec![*level]).enumerate().collect()
    }

    #[test]
    fn who_lacks_what_a_majority_has_is_waited_for_and_two_do_not_hide_each_other() {
        let mut pace = Pace::new(5);
        for second in 0..4 {
            let at = (Instant(second * SECOND), SECOND / 2);
            pace.look_at_messages(at, 3, &received(&[9, 9, 9, 2, 2 + second]));
        }
        let waited = |rank| pace.waited(rank, Instant(3 * SECOND));
        assert_eq!([0, 1, 2, 3, 4].map(waited), [0, 0, 0, 3 * SECOND, 3 * SECOND]);
    }

    #[test]
    fn who_is_behind_and_keeps_up_is_waited_for_no_longer_than_it_is_behind() {
        let mut pace = Pace::new(3);
        for second in 2..20 {
            let levels = received(&[second, second, second - 2]);
            pace.look_at_messages((Instant(second * SECOND), SECOND / 2), 2, &levels);
        }
        assert_eq!(pace.waited(2, Instant(19 * SECOND)), SECOND);
        // A majority that is slow is the pace of the shard.
        pace.look_at_messages((Instant(20 * SECOND), 0), 2, &received(&[40, 19, 19]));
        assert_eq!([0, 1, 2].map(|rank| pace.waited(rank, Instant(21 * SECOND))), [0; 3]);
    }

    #[test]
    fn a_body_may_take_long_while_it_comes_closer() {
        let mut pace = Pace::new(2);
        for second in 0..10 {
            pace.look_at_bodies(Instant(second * SECOND), 1, true, second.min(6));
        }
        assert_eq!(pace.waited(1, Instant(9 * SECOND)), 3 * SECOND);
        pace.look_at_bodies(Instant(10 * SECOND), 1, false, 6);
        assert_eq!(pace.waited(1, Instant(10 * SECOND)), 0);
    }
}
