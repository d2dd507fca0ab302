//! Linearizable reads at any member, by a barrier that all reads of a node share (docs/protocol.md, section 11).
//!
//! A node that has reads to answer counts `barrier_asked` in its row up; who runs the view echoes that count. Once a
//! majority of a shard's members on the view's roster has, no later view existed when the reads began, of whatever roster.
//! Then they wait until what this node had received of the shard when it asked is delivered and committed
//! (`shard::reading`). One barrier of a shard is on its way at a time: reads that come meanwhile share the next one.

use alloc::vec::Vec;

use tradewind_ledger::quorum;

use crate::access::StoreAccess;
use crate::action::Action;
use crate::error::Refused;
use crate::ids::{Barrier, NodeId, ShardIndex};
use crate::layout::Layout;
use crate::memory::Memory;
use crate::node::NodeCore;
use crate::shard::Replica;

/// A node's part in the barriers of its view.
#[derive(Clone, Debug)]
pub(crate) struct Barriers {
    /// The last one that the own node asked for. It grows beyond views.
    asked: Barrier,
    /// By node: the last one that was echoed to it in this view.
    seen: Vec<u64>,
}

impl Barriers {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { asked: Barrier::default(), seen: alloc::vec![0; nodes] }
    }

    /// A view begins, with rows of zeroes.
    pub(crate) fn begin_view(&mut self) {
        self.seen.fill(0);
    }
}

impl<S: StoreAccess> NodeCore<S> {
    /// A read of a shard that has to see all that was acknowledged anywhere before this call. It may look at the committed
    /// state once [`Action::BarrierPassed`] tells of the barrier that is returned here, or of a later one, for this shard.
    /// If [`Action::Stopped`] comes first, it is refused.
    ///
    /// # Errors
    /// [`Refused`]: this node does not know now what was acknowledged.
    pub fn handle_read(&mut self, shard: ShardIndex) -> Result<Barrier, Refused> {
        self.check_running(shard)?;
        self.replica(shard).read();
        self.out.counters.reads += 1;
        Ok(self.barriers.asked.next())
    }

    /// Echoes what the other members of the view ask for. Only who runs it does: so it has promised no later one, and has
    /// delivered nothing but what is stable.
    pub(crate) fn echo_barriers<M: Memory>(&mut self, memory: &mut M) {
        for node in self.members.iter().filter(|node| **node != self.config.own) {
            let asked = memory.load(*node, Layout::BARRIER_ASKED.start);
            let seen = &mut self.barriers.seen[node.index()];
            if *seen < asked {
                *seen = asked;
                let column = Layout::barrier_seen(*node);
                memory.store(column.start, &asked.to_le_bytes());
                memory.publish(column, &[*node]);
                self.out.counters.echoes += 1;
            }
        }
    }

    /// Lets the reads through whose barriers have passed, and asks for the next barrier if there are others.
    pub(crate) fn turn_barriers<M: Memory>(&mut self, memory: &mut M) {
        self.pass_barriers(memory);
        if !self.replicas.iter().flatten().any(Replica::wants_barrier) {
            return;
        }
        let barrier = self.barriers.asked.next();
        self.barriers.asked = barrier;
        self.out.counters.barriers += 1;
        memory.store(Layout::BARRIER_ASKED.start, &barrier.0.to_le_bytes());
        for replica in self.replicas.iter_mut().flatten().filter(|replica| replica.wants_barrier())
        {
            replica.ask_barrier(barrier, self.planted);
            memory.publish(Layout::BARRIER_ASKED, replica.peers());
        }
        // A member alone needs nobody's echo.
        self.pass_barriers(memory);
    }

    fn pass_barriers<M: Memory>(&mut self, memory: &M) {
        let column = Layout::barrier_seen(self.config.own).start;
        let seen = |node: NodeId| memory.load(node, column);
        let roster = self.config.roster(self.roster);
        for (shard, replica) in (0..).map(ShardIndex).zip(&mut self.replicas) {
            let Some(replica) = replica else { continue };
            // Who is absent counts as one that does not run the view.
            let enough = quorum(roster.shard(shard).len());
            if let Some(barrier) = replica.pass_barriers(seen, enough, self.planted) {
                self.out.actions.push_back(Action::BarrierPassed { shard, barrier });
            }
        }
    }
}
