//! What can happen next: the step that comes if nothing else is chosen, and what may come instead.

use tradewind_site_protocol::NodeId;

use super::Bounds;
use super::parts::Link;
use super::step::{Channel, Step};
use super::world::{FAIR_FOR, World};
use crate::sim::{Violation, broken};

/// How often time has to pass at most before something comes of it.
const PATIENCE: u32 = 60;

impl World {
    /// All channels, in the order in which they are served.
    fn channels(&self) -> Vec<Channel> {
        let backwards = self.order == 1;
        let ways = self.all().flat_map(|from| self.all().map(move |to| (from, to)));
        let ways: Vec<_> = ways.filter(|(from, to)| from != to).collect();
        let lanes = ways.iter().map(|(from, to)| Channel::Lane(*from, *to));
        let rows = ways.iter().map(|(from, to)| Channel::Row(*from, *to));
        let (logs, promises) = (self.all().map(Channel::Log), self.all().map(Channel::Promise));
        let links = self.pairs().map(|(a, b)| Channel::Link(a, b));
        let mut all: Vec<Channel> = match self.order {
            0 => logs.chain(promises).chain(lanes).chain(rows).chain(links).collect(),
            1 => logs.chain(promises).chain(links).chain(rows).chain(lanes).collect(),
            _ => rows.chain(lanes).chain(links).chain(promises).chain(logs).collect(),
        };
        if backwards {
            all.reverse();
        }
        all
    }

    /// Whether something can come through a channel, held up or not.
    fn is_ready(&self, channel: Channel) -> bool {
        match channel {
            Channel::Lane(from, to) => self.is_up(to) && !self.lane(from, to).is_empty(),
            Channel::Row(from, to) => {
                let (there, here) = (self.node(from), self.node(to));
                self.is_up(from)
                    && self.is_up(to)
                    && self.link(from, to) == Link::Up
                    && here.linked[from.index()]
                    && here.rows.is_news(from, &there.rows.shown)
            }
            Channel::Log(node) => self.is_up(node) && self.node(node).disk.is_behind(),
            Channel::Promise(node) => self.is_up(node) && self.node(node).disk.promising.is_some(),
            Channel::Link(a, b) => self.link(a, b) == Link::Down && self.is_up(a) && self.is_up(b),
        }
    }

    fn may_submit(&self, command: usize) -> bool {
        let asked = &self.setting.commands[command];
        let runs = self.node(asked.node).runs.as_ref();
        !self.submitted[command] && runs.is_some_and(|(view, _)| *view >= asked.view)
    }

    /// What comes next if nothing else is chosen; `None` at the end of a path.
    pub(super) fn due(&self) -> Result<Option<Step>, Violation> {
        if let Some(channel) = self.next_channel() {
            return Ok(Some(Step::Next(channel)));
        }
        if let Some(command) = (0..self.submitted.len()).find(|command| self.may_submit(*command)) {
            return Ok(Some(Step::Submit(command)));
        }
        if let Some(channel) = self.held.first() {
            return Ok(Some(Step::Release(*channel)));
        }
        // First a majority alone has to go on; then all.
        if self.has_majority() && !self.has_view() {
            return self.wait("a majority that is linked has no view");
        }
        if let Some((a, b)) = self.pairs().find(|(a, b)| self.link(*a, *b) == Link::Cut) {
            return Ok(Some(Step::Mend(a, b)));
        }
        if let Some(node) = self.all().find(|node| !self.is_up(*node)) {
            return Ok(Some(Step::Start(node)));
        }
        match self.unfinished() {
            Some(what) => self.wait(what),
            None => Ok(None),
        }
    }

    /// The channel that comes next: the first in the order; but if there is no rest for long any of them, as if it were drawn,
    /// for the order serves some last, and that is unfair if others never rest.
    fn next_channel(&self) -> Option<Channel> {
        let free = |channel: &Channel| !self.held.contains(channel) && self.is_ready(*channel);
        let mut ready = self.channels().into_iter().filter(free);
        let Some(drawn) = self.busy.checked_sub(FAIR_FOR) else { return ready.next() };
        let ready: Vec<Channel> = ready.collect();
        let drawn = drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        ready.get(drawn.checked_rem(ready.len())?).copied()
    }

    fn wait(&self, what: &str) -> Result<Option<Step>, Violation> {
        match self.waited < PATIENCE {
            true => Ok(Some(Step::Time)),
            false => broken("invariant_progress_resumes", what.into()),
        }
    }

    fn are_linked(&self, nodes: &[NodeId]) -> bool {
        let up = nodes.iter().all(|node| self.is_up(*node));
        up && self
            .pairs()
            .all(|(a, b)| !nodes.contains(&a) || !nodes.contains(&b) || self.link(a, b) == Link::Up)
    }

    /// Whether some nodes that are linked with each other are a majority, of any roster.
    fn has_majority(&self) -> bool {
        let site = &self.setting.site;
        (0..1_u16 << self.nodes.len()).any(|set| {
            let nodes: Vec<NodeId> = self.all().filter(|node| set >> node.0 & 1 == 1).collect();
            let is_majority = |roster: usize| {
                let all = site.members(roster);
                nodes.iter().filter(|node| all.contains(node)).count() > all.len() / 2
            };
            (0..=site.last()).all(is_majority) && self.are_linked(&nodes)
        })
    }

    /// Whether a view runs at all its members.
    fn has_view(&self) -> bool {
        self.nodes.iter().filter_map(|node| node.runs.as_ref()).any(|(view, members)| {
            let runs = |node: &NodeId| {
                self.node(*node).runs.as_ref().is_some_and(|(running, _)| running == view)
            };
            self.are_linked(members) && members.iter().all(runs)
        })
    }

    /// What is still to come now that all nodes are up and linked, and nothing is on its way.
    fn unfinished(&self) -> Option<&'static str> {
        let members = self.setting.site.members(self.setting.site.last());
        let first = &self.node(members[0]);
        let runs = |node: &NodeId| {
            let runs = self.node(*node).runs.as_ref();
            runs.is_some_and(|(_, of)| of == members) && runs == first.runs.as_ref()
        };
        let size = first.disk.size();
        let same = |node: &NodeId| {
            let disk = &self.node(*node).disk;
            disk.size() == size && disk.head(size) == first.disk.head(size)
        };
        if !members.iter().all(runs) {
            Some("all are linked, and are not in one view")
        } else if !members.iter().all(same) {
            Some("a view runs, and its ledgers are not the same")
        } else if !members.iter().all(|node| self.committed(*node) == size) {
            Some("not all is committed")
        } else {
            (!self.known.open.is_empty()).then_some("not everything is answered")
        }
    }

    /// What may come instead of the step that is due.
    pub(super) fn others(&self, due: Option<Step>, left: Bounds) -> Vec<Step> {
        let mut others = Vec::new();
        if left.deviations > 0 {
            if let Some(Step::Next(channel)) = due {
                others.push(Step::Hold(channel));
            }
            let ready = self.held.iter().filter(|channel| self.is_ready(**channel));
            others.extend(ready.map(|channel| Step::Release(*channel)));
            let commands = 0..self.submitted.len();
            others.extend(commands.filter(|c| self.may_submit(*c)).map(Step::Submit));
            let forming = |node: &NodeId| self.is_up(*node) && self.node(*node).runs.is_none();
            others.extend(self.all().filter(forming).map(Step::Tick));
            let cut = self.pairs().filter(|(a, b)| self.link(*a, *b) == Link::Cut);
            others.extend(cut.map(|(a, b)| Step::Mend(a, b)));
            others.extend(self.all().filter(|node| !self.is_up(*node)).map(Step::Start));
        }
        if left.crashes > 0 {
            others.push(Step::Outage);
            for node in self.all().filter(|node| self.is_up(*node)) {
                let disk = &self.node(node).disk;
                let writes = disk.is_behind() || disk.promising.is_some();
                others.push(Step::Crash(node, false));
                others.extend(writes.then_some(Step::Crash(node, true)));
            }
        }
        if left.cuts > 0 {
            let up = self.pairs().filter(|(a, b)| self.link(*a, *b) == Link::Up);
            others.extend(up.map(|(a, b)| Step::Cut(a, b)));
        }
        others.retain(|other| Some(*other) != due);
        others
    }
}
