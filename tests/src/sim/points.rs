//! Crashes right before and right after what a shell does: every n-th time in systematic runs, by kind in others.

use std::fmt;
use std::str::FromStr;

use tradewind_site_protocol::{NodeId, ShardIndex};

use super::check::{Check, Checker};
use super::coverage::{Fault, Kind, Point, Seen, Side};
use super::plan::MS;
use super::world::{Event, World};

/// A crash at one of the points that a run passes: the node whose point it is loses power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    /// Which point, from 1, counted over all nodes from the beginning of the run.
    pub nth: u64,
    /// Before or after it.
    pub side: Side,
    /// If not zero: the node so many places behind the one that crashes is cut off from all others for a while.
    pub apart: u16,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.side == Side::Before { "before" } else { "after" };
        write!(f, "{}:{side}:{}", self.nth, self.apart)
    }
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not NTH:before:APART or NTH:after:APART");
        let parts: Vec<&str> = text.split(':').collect();
        let [nth, side, apart] = parts[..] else { return Err(wrong()) };
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return Err(wrong()),
        };
        let (Ok(nth), Ok(apart)) = (nth.parse(), apart.parse()) else { return Err(wrong()) };
        Ok(Self { nth, side, apart })
    }
}

/// Where a node is to crash.
#[derive(Debug)]
pub(super) enum Trap {
    Nth(Injection),
    /// When this node, or any, passes points of this kind so many times more.
    Kind {
        node: Option<NodeId>,
        point: Point,
        side: Side,
        left: u64,
        cut: bool,
    },
}

impl World<'_> {
    /// A node comes to a point, or leaves it. Returns whether it goes on.
    pub(super) fn passes(&mut self, node: NodeId, point: Point, side: Side) -> bool {
        if self.healed || self.liar.is_some() {
            return true;
        }
        self.coverage.passed += u64::from(side == Side::Before);
        let nth = self.coverage.passed;
        let sprung = self.traps.iter_mut().position(|trap| match trap {
            Trap::Nth(injection) => (injection.nth, injection.side) == (nth, side),
            Trap::Kind { node: whose, point: kind, side: when, left, .. } => {
                let fits = whose.is_none_or(|n| n == node) && (*kind, *when) == (point, side);
                *left -= u64::from(fits);
                fits && *left == 0
            }
        });
        if let Some(at) = sprung {
            let trap = self.traps.swap_remove(at);
            self.spring(&trap, node, point, side);
        }
        self.script_sees(node, point, side);
        self.nodes[node.index()].core.is_some()
    }

    fn spring(&mut self, trap: &Trap, node: NodeId, point: Point, side: Side) {
        self.tell(|| format!("{node} crashes {side:?} {point:?}").to_lowercase());
        self.coverage.points.hit((point, side));
        self.crash(node);
        match *trap {
            Trap::Nth(Injection { apart: 0, .. }) => {}
            Trap::Nth(Injection { apart, .. }) => {
                let other = NodeId((node.0 + apart) % self.nodes.len() as u16);
                self.coverage.faults.hit(Fault::CrashAndCut);
                self.keep_apart(|a, b| (a == other) != (b == other), 400 * MS);
            }
            Trap::Kind { cut: true, .. } => {
                self.coverage.faults.hit(Fault::CrashAndCut);
                self.partition();
            }
            Trap::Kind { .. } => self.coverage.faults.hit(Fault::CrashAtPoint),
        }
    }

    /// Some node will crash at a point of some kind.
    pub(super) fn set_trap(&mut self, node: NodeId) {
        let point = *self.rng.pick(Point::ALL);
        let side = *self.rng.pick(Side::ALL);
        let left = match point {
            Point::Send | Point::Publish => self.rng.range(1..40),
            Point::Write
            | Point::Synced
            | Point::Sign
            | Point::Answer
            | Point::Keep
            | Point::Kept => self.rng.range(1..10),
            _ => 1,
        };
        let cut = self.rng.percent(30);
        self.traps.push(Trap::Kind { node: Some(node), point, side, left, cut });
    }

    /// Ledgers are cut, or replaced, so seldom that a crash there is laid out in advance.
    pub(super) fn set_trap_at_cut(&mut self) {
        let (point, side) =
            (*self.rng.pick(&[Point::Cut, Point::WasCut]), *self.rng.pick(Side::ALL));
        if self.rng.percent(90) {
            self.traps.push(Trap::Kind { node: None, point, side, left: 1, cut: false });
        }
        if self.plan.prunes {
            let kinds = [Point::Keep, Point::Kept, Point::Plant, Point::Planted];
            let (point, side) = (*self.rng.pick(&kinds), *self.rng.pick(Side::ALL));
            let left = match point {
                Point::Keep | Point::Kept => self.rng.range(1..5),
                _ => 1,
            };
            self.traps.push(Trap::Kind { node: None, point, side, left, cut: false });
        }
    }

    /// After each input: which way the node and its shards went.
    pub(super) fn watch_steps(&mut self, node: NodeId) -> Check {
        let state = &mut self.nodes[node.index()];
        let Some(core) = &state.core else { return Ok(()) };
        let (from, to) = (state.step.replace(core.step()), core.step());
        if let Some(from) = from.filter(|from| *from != to) {
            Checker::invariant_no_step_is_skipped(node, from, to)?;
            self.coverage.steps.hit((from, to));
        }
        for shard in state.disks.keys() {
            // Its topology file may not tell yet of a shard that it is to have.
            let Some(to) = core.shard_step(ShardIndex(*shard as u16)) else { continue };
            if let Some(from) = state.shard_steps.insert(*shard, to).filter(|from| *from != to) {
                Checker::invariant_no_shard_step_is_skipped(node, from, to)?;
                self.coverage.shard_steps.hit((from, to));
            }
        }
        Ok(())
    }

    pub(super) fn see(&mut self, what: Seen) {
        self.coverage.seen.hit(what);
    }

    pub(super) fn hit(&mut self, fault: Fault) {
        self.coverage.faults.hit(fault);
    }

    /// Cuts the links between pairs of nodes that are to be apart, for a while.
    pub(super) fn keep_apart(&mut self, apart: impl Fn(NodeId, NodeId) -> bool, for_us: u64) {
        let count = self.nodes.len() as u16;
        let nodes = || (0..count).map(NodeId);
        let pairs = nodes().flat_map(|a| nodes().map(move |b| (a, b)));
        let pairs: Vec<_> = pairs.filter(|(a, b)| a < b && apart(*a, *b)).collect();
        self.tell(|| format!("kept apart: {pairs:?}"));
        for (a, b) in &pairs {
            self.cut.insert((*a, *b));
            self.break_link(*a, *b);
        }
        self.at(self.now + for_us, Event::Mend(pairs));
    }
}
