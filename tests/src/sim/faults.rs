//! What goes wrong, by chance.

use tradewind_site_protocol::NodeId;

use super::coverage::Fault;
use super::plan::{MS, Slow};
use super::world::{Event, World};

/// What is chosen from, each as often as it stands here. The rest of [`Fault`] comes with these.
const CHOICE: &[Fault] = &[
    Fault::Crash,
    Fault::Crash,
    Fault::Crash,
    Fault::CrashAtPoint,
    Fault::CrashAtPoint,
    Fault::CrashAtPoint,
    Fault::CrashAtPoint,
    Fault::CrashOfAll,
    Fault::CrashOfSome,
    Fault::BrokenLink,
    Fault::BrokenLink,
    Fault::FlappingLink,
    Fault::Partition,
    Fault::Partition,
    Fault::OneWay,
    Fault::Delay,
    Fault::Duplicate,
    Fault::Pause,
    Fault::SlowDisk,
    Fault::SlowDisk,
    Fault::StalledDisk,
    Fault::FullDisk,
    Fault::SyncError,
    Fault::LostDisk,
    Fault::LostDisk,
    Fault::LostSync,
    Fault::BitRot,
    Fault::BitRot,
    Fault::ClockJump,
];

impl World<'_> {
    pub(super) fn fault(&mut self) {
        if self.healed {
            return;
        }
        if self.plan.veiled {
            self.troubled_at = self.now + 1_000 * MS;
            return self.veil();
        }
        if self.liar.is_none() {
            self.troubled_at = self.now + 1_000 * MS;
            let node = self.some_node();
            let fault = *self.rng.pick(CHOICE);
            self.do_harm(fault, node);
        }
        let at = self.now + self.rng.range(1..2 * self.plan.fault_every);
        self.at(at, Event::Fault);
    }

    fn some_node(&mut self) -> NodeId {
        NodeId(self.rng.index(self.nodes.len()) as u16)
    }

    fn do_harm(&mut self, fault: Fault, node: NodeId) {
        let (now, peer) = (self.now, self.some_node());
        match fault {
            Fault::Crash => {
                self.hit(fault);
                self.crash(node);
            }
            Fault::CrashOfAll | Fault::CrashOfSome => {
                self.tell(|| format!("power loss: {fault:?}"));
                self.hit(fault);
                for index in 0..self.nodes.len() {
                    if fault == Fault::CrashOfAll || self.rng.percent(50) {
                        self.crash(NodeId(index as u16));
                    }
                }
            }
            Fault::CrashAtPoint | Fault::CrashAndCut => self.set_trap(node),
            Fault::BrokenLink | Fault::UnnoticedBreak => {
                if peer != node {
                    self.tell(|| format!("the link between {node} and {peer} breaks"));
                    self.break_link(node, peer);
                }
            }
            Fault::FlappingLink => {
                if peer != node {
                    self.tell(|| format!("the link between {node} and {peer} flaps"));
                    self.hit(fault);
                    for _ in 0..self.rng.range(3..10) {
                        let at = now + self.rng.range(MS..800 * MS);
                        self.at(at, Event::Break(node, peer));
                    }
                }
            }
            Fault::Partition => self.partition(),
            Fault::OneWay => {
                let until = now + self.rng.range(50 * MS..600 * MS);
                self.tell(|| format!("nothing gets from {node} to {peer} until {} ms", until / MS));
                self.hit(fault);
                self.lanes.entry((node, peer)).or_default().held_until = until;
            }
            Fault::Delay => {
                let until = now + self.rng.range(5 * MS..80 * MS);
                self.tell(|| format!("what {node} sends is late until {} ms", until / MS));
                self.hit(fault);
                for peer in 0..self.nodes.len() as u16 {
                    self.lanes.entry((node, NodeId(peer))).or_default().held_until = until;
                }
            }
            Fault::Duplicate => {
                let until = now + self.rng.range(20 * MS..300 * MS);
                self.tell(|| format!("messages of {node} arrive twice until {} ms", until / MS));
                self.nodes[node.index()].doubles_until = until;
            }
            Fault::Pause => {
                let pause = self.rng.range(MS..1_000 * MS);
                self.tell(|| format!("{node} is paused for {} ms", pause / MS));
                self.hit(fault);
                self.nodes[node.index()].paused_until = now + pause;
            }
            Fault::SlowDisk => {
                // So that a crash finds much that is not synced.
                let slow = self.rng.range(20 * MS..300 * MS);
                self.tell(|| format!("the disks of {node} are slow for {} ms", slow / MS));
                self.hit(fault);
                self.nodes[node.index()].slow_down(now + slow);
                self.at(now + slow, Event::Crash(node));
            }
            Fault::StalledDisk => {
                let stall = self.rng.range(300 * MS..10_000 * MS);
                self.tell(|| format!("the disks of {node} stand still for {} ms", stall / MS));
                self.hit(fault);
                self.nodes[node.index()].slow_down(now + stall);
            }
            Fault::FullDisk => self.fill_disk(node),
            Fault::SyncError => self.nodes[node.index()].sync_fails = true,
            Fault::LostDisk => self.lose_disk(node),
            Fault::LostSync => self.lie(node),
            Fault::BitRot => self.rot(node),
            Fault::ClockJump => {
                let jump = self.rng.range(0..20_000_000) as i64 - 10_000_000;
                self.tell(|| format!("the clock of {node} jumps by {} ms", jump / 1000));
                self.hit(fault);
                self.nodes[node.index()].skew += jump;
            }
            Fault::TornWrite | Fault::TornPromise | Fault::TornCut | Fault::TornPlant => {
                self.crash(node);
            }
            // The plan says how many are, and when.
            Fault::DamagedPart | Fault::Starved => {}
        }
    }

    /// From now on a node does not keep up.
    pub(super) fn slow(&mut self, Slow { node, until, disk, .. }: Slow) {
        if self.healed || self.liar.is_some() {
            return;
        }
        self.troubled_at = self.troubled_at.max(until);
        let what = if disk { Fault::StalledDisk } else { Fault::Starved };
        self.tell(|| format!("{node} does not keep up until {} ms: {what:?}", until / MS));
        self.hit(what);
        match disk {
            true => self.nodes[node.index()].slow_down(until),
            false => self.nodes[node.index()].starved_until = until,
        }
    }

    /// Keeps some nodes apart for a while: one alone, two parts, or two parts with a bridge.
    pub(super) fn partition(&mut self) {
        let sides: Vec<u64> = (0..self.nodes.len()).map(|_| self.rng.range(0..5)).collect();
        let apart = |a: NodeId, b: NodeId| match (sides[a.index()], sides[b.index()]) {
            // The bridge.
            (4, _) | (_, 4) => false,
            (a, b) => (a < 2) != (b < 2),
        };
        self.hit(Fault::Partition);
        let for_us = self.rng.range(50 * MS..900 * MS);
        self.keep_apart(apart, for_us);
    }
}
