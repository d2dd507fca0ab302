//! The total order of one shard within a view (docs/protocol.md, section 2).
//!
//! The sender of rank `r` decides its rounds 0, 1, 2 ... one after the other: a message or a null. Round `k`
//! of rank `r` stands at `seq = k * senders + r`, and everybody delivers in the order of seq. A message is
//! delivered when it is *stable*: copied out of the sender's ring by every member. So whatever was delivered
//! anywhere is held everywhere. A null is delivered as soon as it is decided.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

/// A place in the order: a round, and a rank in it.
pub(crate) type Place = (u64, usize);

/// What one sender decided, as seen here.
#[derive(Clone, Debug)]
struct Lane<T> {
    /// Messages taken out of its ring.
    received: u64,
    /// Its rounds below this are decided, and all their messages were taken out.
    decided: u64,
    /// Messages that wait for their turn, with their rounds.
    waiting: VecDeque<(u64, T)>,
}

/// What stands next in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// A message of the sender of this rank.
    Message(usize, T),
    /// A round without a message.
    Null,
}

/// The order of a shard, with the messages that wait for their turn.
#[derive(Clone, Debug)]
pub(crate) struct Order<T> {
    own: usize,
    lanes: Vec<Lane<T>>,
    /// Messages of each sender that every member has.
    stable: Vec<u64>,
    /// Next place in the order.
    round: u64,
    rank: usize,
    /// The own rounds below this must be decided before all that was received can be delivered.
    wanted: u64,
}

impl<T> Order<T> {
    /// The beginning of a view.
    pub(crate) fn new(senders: usize, own: usize) -> Self {
        let lane = || Lane { received: 0, decided: 0, waiting: VecDeque::new() };
        Self {
            own,
            lanes: (0..senders).map(|_| lane()).collect(),
            stable: vec![0; senders],
            round: 0,
            rank: 0,
            wanted: 0,
        }
    }

    /// Messages taken from the sender of `rank`.
    pub(crate) fn received(&self, rank: usize) -> u64 {
        self.lanes[rank].received
    }

    /// Messages of the sender of `rank` that were delivered.
    pub(crate) fn delivered(&self, rank: usize) -> u64 {
        self.lanes[rank].received - self.lanes[rank].waiting.len() as u64
    }

    /// The place in the order that is delivered next.
    pub(crate) fn place(&self) -> Place {
        (self.round, self.rank)
    }

    /// The last place that holds a message which is received and not delivered.
    pub(crate) fn last(&self) -> Option<Place> {
        let back = |(rank, lane): (usize, &Lane<T>)| Some((lane.waiting.back()?.0, rank));
        self.lanes.iter().enumerate().filter_map(back).max()
    }

    /// The own rounds below this are decided: the round of the next own message.
    pub(crate) fn own_rounds(&self) -> u64 {
        self.lanes[self.own].decided
    }

    /// Own messages that are not yet delivered.
    pub(crate) fn outstanding(&self) -> usize {
        self.lanes[self.own].waiting.len()
    }

    /// Takes a message of round `round`; for the own rank, this decides the round.
    ///
    /// # Errors
    /// When the rounds of a sender do not grow, or are rounds that were announced as nulls.
    pub(crate) fn push(&mut self, rank: usize, round: u64, item: T) -> Result<(), &'static str> {
        let lane = &mut self.lanes[rank];
        let last = lane.waiting.back().map_or(lane.decided, |(last, _)| lane.decided.max(last + 1));
        if round < last || round == u64::MAX {
            return Err("a message of a round that was decided before");
        }
        lane.waiting.push_back((round, item));
        lane.received += 1;
        if rank == self.own {
            lane.decided = round + 1;
        }
        // Seq order: the own place in the same round comes first if the own rank is lower.
        self.wanted = self.wanted.max(round + u64::from(self.own < rank));
        Ok(())
    }

    /// Notes that a peer's rounds below `rounds` are decided; all its messages of these rounds were pushed.
    pub(crate) fn decide(&mut self, rank: usize, rounds: u64) {
        let lane = &mut self.lanes[rank];
        lane.decided = lane.decided.max(rounds);
    }

    /// Lazy nulls: gives up the own rounds that others wait for. Returns whether any were.
    pub(crate) fn decide_nulls(&mut self) -> bool {
        let wanted = self.wanted;
        let own = &mut self.lanes[self.own];
        let late = own.decided < wanted;
        own.decided = own.decided.max(wanted);
        late
    }

    /// The sender of `rank` is not in the view: all its rounds are nulls.
    pub(crate) fn set_absent(&mut self, rank: usize) {
        self.lanes[rank].decided = u64::MAX;
    }

    /// The view stopped: what was taken may be delivered whether all have it or not.
    pub(crate) fn release(&mut self) {
        self.stable.fill(u64::MAX);
    }

    /// Notes how many messages of the sender of `rank` every member has.
    pub(crate) fn set_stable(&mut self, rank: usize, messages: u64) {
        self.stable[rank] = self.stable[rank].max(messages);
    }

    /// The next in the order, if it can be delivered.
    pub(crate) fn next(&mut self, nulls_early: bool) -> Option<Next<T>> {
        let ordinal = self.delivered(self.rank);
        let lane = &mut self.lanes[self.rank];
        let next = match lane.waiting.front() {
            Some((round, _)) if *round == self.round => {
                if ordinal >= self.stable[self.rank] {
                    return None;
                }
                let (_, item) = lane.waiting.pop_front()?;
                Next::Message(self.rank, item)
            }
            // Its rings hold no message of this round: they come in order.
            Some(_) => Next::Null,
            None if lane.decided > self.round => Next::Null,
            // A planted bug: an undecided round taken for a null when others are further.
            _ if nulls_early && self.wanted > self.round => Next::Null,
            _ => return None,
        };
        self.rank += 1;
        if self.rank == self.lanes.len() {
            self.rank = 0;
            self.round += 1;
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_sender_needs_only_the_nulls_before_its_message() {
        let mut own = Order::new(3, 2);
        own.push(0, 0, 'a').unwrap();
        assert!(!own.decide_nulls(), "rank 2 stands behind rank 0 in the same round");
        own.push(0, 1, 'b').unwrap();
        assert!(own.decide_nulls());
        assert_eq!(own.own_rounds(), 1);
    }

    #[test]
    fn messages_wait_for_stability_and_nulls_do_not() {
        let mut order = Order::new(2, 1);
        order.push(0, 1, 'b').unwrap();
        assert_eq!(order.next(false), Some(Next::Null), "its message of round 1 came first");
        assert_eq!(order.next(false), None, "the own round 0 is not decided");
        assert!(order.decide_nulls());
        assert_eq!(order.next(false), Some(Next::Null));
        assert_eq!(order.next(false), None, "not stable");
        assert!(order.last() >= Some(order.place()));
        order.set_stable(0, 1);
        assert_eq!(order.next(false), Some(Next::Message(0, 'b')));
        assert_eq!(order.last(), None);
    }

    #[test]
    fn who_is_absent_is_not_waited_for_and_a_stopped_view_gives_what_it_has() {
        let mut order = Order::new(3, 1);
        order.set_absent(0);
        order.push(1, 0, 'a').unwrap();
        assert_eq!(order.next(false), Some(Next::Null));
        assert_eq!(order.next(false), None, "not stable");
        order.release();
        assert_eq!(order.next(false), Some(Next::Message(1, 'a')));
        assert_eq!(order.next(false), None, "round 0 of rank 2 is not decided");
    }

    #[test]
    fn rounds_of_a_sender_must_grow() {
        let mut order = Order::new(2, 1);
        order.push(0, 3, ()).unwrap();
        assert!(order.push(0, 3, ()).is_err());
        order.decide(0, 6);
        assert!(order.push(0, 5, ()).is_err());
        assert!(order.push(0, 6, ()).is_ok());
    }
}
