//! The reads of a shard that wait for a barrier (docs/protocol.md, section 11). There is nothing here for each read: a
//! shell keeps them by the barrier they were given.

use alloc::collections::VecDeque;

use tradewind_ledger::Version;

use super::Replica;
use crate::access::StoreAccess;
use crate::config::Mutation;
use crate::ids::{Barrier, NodeId};
use crate::order::Place;

/// The reads of one shard in one view.
#[derive(Clone, Default, Debug)]
pub(super) struct Reads {
    /// Whether there are some for which no barrier was asked yet.
    waiting: bool,
    asked: Option<Asked>,
    /// Barriers with all their echoes, and the size that has to be committed before their reads are answered. Both grow.
    echoed: VecDeque<(Barrier, Version)>,
}

/// The barrier that is on its way.
#[derive(Clone, Debug)]
struct Asked {
    barrier: Barrier,
    /// The last message that was received and not delivered when it was asked for.
    last: Option<Place>,
    /// The size of the ledger once that was delivered.
    size: Option<Version>,
}

impl Reads {
    /// The order has come to `place`, and the ledger to `size`. Returns the barrier that is on its way if echoes are all
    /// that it waits for.
    fn delivered(&mut self, place: Place, size: Version) -> Option<Barrier> {
        let asked = self.asked.as_mut()?;
        if asked.last.is_none_or(|last| last < place) {
            asked.size.get_or_insert(size);
        }
        asked.size.map(|_| asked.barrier)
    }

    /// The barrier that [`Reads::delivered`] returned has its echoes.
    fn echoed(&mut self) {
        let Some(Asked { barrier, size: Some(size), .. }) = self.asked.take() else { return };
        match self.echoed.back_mut() {
            // So there are never more than sizes that are not committed.
            Some((last, same)) if *same == size => *last = barrier,
            _ => self.echoed.push_back((barrier, size)),
        }
    }

    /// So much is committed: the last barrier whose reads may be answered now, if that is news.
    fn committed(&mut self, committed: Version) -> Option<Barrier> {
        let mut passed = None;
        while self.echoed.front().is_some_and(|(_, size)| *size <= committed) {
            passed = self.echoed.pop_front().map(|(barrier, _)| barrier);
        }
        passed
    }
}

impl<S: StoreAccess> Replica<S> {
    /// A read came.
    pub(crate) fn read(&mut self) {
        self.reads.waiting = true;
    }

    /// Whether a barrier has to be asked for: one is on its way at a time.
    pub(crate) fn wants_barrier(&self) -> bool {
        self.reads.waiting && self.reads.asked.is_none()
    }

    /// A barrier is asked for. All that was acknowledged in this view before the reads came was received here by now.
    pub(crate) fn ask_barrier(&mut self, barrier: Barrier, planted: Option<Mutation>) {
        let flow = self.flow.as_ref().expect("a view runs");
        let last = flow.order.last().filter(|_| planted != Some(Mutation::BarrierOfDelivered));
        self.reads.waiting = false;
        self.reads.asked = Some(Asked { barrier, last, size: None });
    }

    /// Takes note of the echoes (`seen` tells the last barrier that a member has echoed, `enough` how many members have to)
    /// and of what is delivered and committed. Returns the last barrier whose reads may be answered now, if that is news.
    pub(crate) fn pass_barriers(
        &mut self,
        seen: impl Fn(NodeId) -> u64,
        enough: usize,
        planted: Option<Mutation>,
    ) -> Option<Barrier> {
        let place = self.flow.as_ref()?.order.place();
        if let Some(Barrier(barrier)) = self.reads.delivered(place, self.machine.size()) {
            let outrun = u64::from(planted == Some(Mutation::BarrierOutrun));
            let echoes = self.peers.iter().filter(|node| seen(**node) + outrun >= barrier).count();
            // The own node runs the view, too.
            if echoes + 1 >= enough || planted == Some(Mutation::BarrierUnechoed) {
                self.reads.echoed();
            }
        }
        let committed = match planted {
            Some(Mutation::BarrierUncommitted) => self.machine.size(),
            _ => self.committed,
        };
        self.reads.committed(committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(barrier: u64, last: Option<Place>) -> Option<Asked> {
        Some(Asked { barrier: Barrier(barrier), last, size: None })
    }

    #[test]
    fn reads_wait_for_what_was_received_and_for_no_more() {
        let mut reads = Reads { asked: asked(1, Some((4, 1))), ..Reads::default() };
        assert_eq!(reads.delivered((4, 1), Version(9)), None, "that message is next");
        assert_eq!(reads.delivered((4, 2), Version(10)), Some(Barrier(1)));
        // What is delivered while the echoes are on their way does not count.
        assert_eq!(reads.delivered((7, 0), Version(15)), Some(Barrier(1)));
        reads.echoed();
        assert_eq!(reads.committed(Version(9)), None);
        assert_eq!(reads.committed(Version(10)), Some(Barrier(1)));
        assert_eq!(reads.committed(Version(11)), None, "told once");
    }

    #[test]
    fn barriers_that_wait_for_one_size_take_one_place() {
        let mut reads = Reads::default();
        for barrier in 1..100 {
            reads.asked = asked(barrier, None);
            assert!(reads.delivered((0, 0), Version(3 + barrier / 50)).is_some());
            reads.echoed();
        }
        assert_eq!(reads.echoed.len(), 2);
        assert_eq!(reads.committed(Version(3)), Some(Barrier(49)));
        assert_eq!(reads.committed(Version(7)), Some(Barrier(99)));
    }
}
