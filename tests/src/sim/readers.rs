//! Readers: linearizable reads at any member of a shard, behind barriers. What reads are told goes into the same
//! histories as what writes are told.

use tradewind_ledger::Entry;
use tradewind_site_protocol::{Barrier, NodeId, ShardIndex};
use tradewind_store::BrokenChain;

use super::coverage::Seen;
use super::plan::MS;
use super::world::{Event, Input, World};

/// One reader: one read at a time.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Reads begun.
    pub(crate) begun: u64,
    /// The one that it waits for.
    current: Option<u64>,
}

/// A read at a node.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    reader: usize,
    /// Which of that reader's.
    number: u64,
    key: Vec<u8>,
    began: u64,
}

impl World<'_> {
    /// A reader begins its next read; one that was not answered by now is given up: it has no effect.
    pub(super) fn reader(&mut self, reader: usize, number: u64) {
        let state = &mut self.readers[reader];
        if number < state.begun {
            return;
        }
        state.current = None;
        if state.begun == self.plan.reads_per_reader {
            return;
        }
        state.begun += 1;
        state.current = Some(state.begun);
        let number = state.begun;
        let shard = self.rng.index(self.plan.shards.len());
        let node = *self.rng.pick(&self.plan.ever(shard));
        let key = format!("key-{}", self.rng.range(0..12)).into_bytes();
        let read = Read { reader, number, key, began: self.now };
        let (at, incarnation) =
            (self.now + self.rng.range(20..500), self.nodes[node.index()].incarnation);
        self.at(at, Event::Input(node, incarnation, Input::Read(shard, read)));
        let patience = self.rng.range(50..400) * MS;
        self.at(self.now + patience, Event::Reader(reader, number));
    }

    /// The reader's turn comes again soon.
    fn read_again(&mut self, read: &Read, within: u64) {
        let state = &mut self.readers[read.reader];
        if state.current.take_if(|number| *number == read.number).is_some() {
            let at = self.now + self.rng.range(10..within);
            self.at(at, Event::Reader(read.reader, read.number));
        }
    }

    /// A node takes a read.
    pub(super) fn take_read(&mut self, node: NodeId, shard: usize, read: Read) {
        let state = &mut self.nodes[node.index()];
        let Some(core) = &mut state.core else { return };
        match core.handle_read(ShardIndex(shard as u16)) {
            Ok(barrier) => state.reads.push((shard, barrier, read)),
            Err(_) => self.read_refused(&read),
        }
    }

    fn read_refused(&mut self, read: &Read) {
        self.see(Seen::ReadRefused);
        self.read_again(read, 30 * MS);
    }

    /// The node's view stopped: what waits for a barrier is refused.
    pub(super) fn refuse_reads(&mut self, node: NodeId) {
        for (_, _, read) in std::mem::take(&mut self.nodes[node.index()].reads) {
            self.read_refused(&read);
        }
    }

    /// A barrier has passed: its reads look at the committed state, and their readers are told.
    pub(super) fn barrier_passed(&mut self, node: NodeId, shard: usize, passed: Barrier) {
        let state = &mut self.nodes[node.index()];
        let (now, after): (Vec<_>, Vec<_>) = std::mem::take(&mut state.reads)
            .into_iter()
            .partition(|(of, barrier, _)| *of == shard && *barrier <= passed);
        state.reads = after;
        for (_, _, read) in now {
            self.look(node, shard, &read);
            self.read_again(&read, 5 * MS);
        }
    }

    fn look(&mut self, node: NodeId, shard: usize, read: &Read) {
        let state = &mut self.nodes[node.index()];
        let (core, disk) = (state.core.as_mut().expect("it acts"), &state.disks[&shard]);
        let index = ShardIndex(shard as u16);
        let at = core.replica_status(index).expect("an own shard").committed;
        let item = core.shard_store(index).expect("an own shard").get(&read.key, at);
        let item = item.unwrap_or_else(|walk| {
            let entry = |version: tradewind_ledger::Version| {
                let bytes = &disk.entries()[version.0 as usize];
                Ok::<_, BrokenChain>(Entry::decode(bytes).expect("a core makes entries"))
            };
            walk.item(at, entry).expect("chains of changes are whole")
        });
        if self.readers[read.reader].current == Some(read.number) {
            let times = (read.began, self.now);
            let client = self.clients.len() + read.reader;
            self.histories[shard].record_get(client, &read.key, times, item.as_ref());
            self.see(Seen::Read);
        }
    }

    /// A read that a node accepted and did not answer.
    pub(super) fn unanswered_read(&self) -> Option<String> {
        let waiting = self.nodes.iter().flat_map(|node| &node.reads).next();
        let (shard, barrier, read) = waiting?;
        Some(format!("a read of shard {shard} waits for {barrier:?} since {} us", read.began))
    }
}
