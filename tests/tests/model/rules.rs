//! The rules, as a state machine over all nodes and all that travels between them.
//!
//! Messages are not modelled as such: a proposal is made from what its members have at that moment, and can be accepted,
//! or installed, at any later time or never. So delay and loss of every message are in it: an action that is possible
//! need not happen, and what its members do between a hello and the proposal, they may as well do after it.

use std::fmt;

/// Nodes of the roster.
pub(crate) const NODES: usize = 3;

/// What a ledger holds: that a view began, or an entry that was ordered in one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// The VIEW entry of this view.
    View(u8),
    /// The n-th entry of this view.
    Entry(u8, u8),
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View(view) => write!(f, "V{view}"),
            Self::Entry(view, index) => write!(f, "{view}.{index}"),
        }
    }
}

/// A ledger.
pub(crate) type Log = Vec<Item>;

/// The last view that a ledger has an entry of.
fn last_view(log: &Log) -> u8 {
    match log.last() {
        Some(Item::View(view) | Item::Entry(view, _)) => *view,
        None => 0,
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node {
    /// Its ledger.
    pub(crate) log: Log,
    /// How much of it is on disk.
    pub(crate) durable: usize,
    /// The highest view it has accepted; on disk.
    pub(crate) promised: u8,
    /// The proposal whose view it runs; none while it is forming.
    pub(crate) installed: Option<usize>,
    /// Its part in each proposal.
    pub(crate) parts: Vec<Part>,
}

impl Node {
    /// A start of the process, or the end of a view: whatever was asked of it before is void.
    fn begins_a_stand(&mut self) {
        self.installed = None;
        self.parts.iter_mut().for_each(|part| part.same_stand = false);
    }
}

/// A node's part in a proposal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Part {
    /// Whether it is a member.
    pub(crate) member: bool,
    /// Whether it has the stand that the proposal counts on.
    pub(crate) same_stand: bool,
    /// Whether it accepted.
    pub(crate) accepted: bool,
    /// Whether it installed the view, ever.
    pub(crate) ran: bool,
    /// The size that it has told, in this view, to have on disk.
    pub(crate) told: usize,
}

/// A view that was proposed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proposal {
    /// Its number.
    pub(crate) view: u8,
    /// With which ledger it begins; the VIEW entry comes next.
    pub(crate) log: Log,
    /// How many entries of it are stable.
    pub(crate) stable: u8,
}

impl Proposal {
    /// The first `size` items that a member's ledger has in this view.
    pub(crate) fn prefix(&self, size: usize) -> Log {
        let entries = (0..self.stable).map(|index| Item::Entry(self.view, index));
        let all = self.log.iter().copied().chain([Item::View(self.view)]).chain(entries);
        all.take(size).collect()
    }
}

/// Everything. Nodes are alike, so states that differ only in who is who are one: nodes are kept sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// The nodes.
    pub(crate) nodes: [Node; NODES],
    /// All views that were ever proposed.
    pub(crate) proposals: Vec<Proposal>,
    /// Crashes so far.
    pub(crate) crashes: u8,
}

impl State {
    /// Whether any node installed this view.
    pub(crate) fn ran(&self, proposal: usize) -> bool {
        self.nodes.iter().any(|node| node.parts[proposal].ran)
    }
}

/// One step of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The next message of a running view has reached all its members, and they execute it: whoever received it will
    /// have the entry in its ledger before it tells anybody what it has, or crash.
    Stabilize(usize),
    /// A node's disk has all of its ledger, and the other members are told.
    Sync(usize),
    /// A node leaves its view: it lost a link, or was told to. It delivers the next message too, if it was told to and
    /// has it: on leaving nobody waits until all have it.
    Stop(usize, bool),
    /// A process crashes and starts again: what was not on disk is gone.
    Crash(usize),
    /// One of the nodes marked proposes a view of all of them.
    Propose([bool; NODES]),
    /// A node accepts a proposal.
    Accept(usize, usize),
    /// A node installs a view that all members have accepted.
    Install(usize, usize),
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// One node is enough, to form a view and to commit.
    MinorityInstall,
    /// What was accepted is not on disk.
    ForgottenPromise,
    /// A view begins with the shortest ledger.
    ShortestLog,
    /// A view begins with the longest ledger, whatever views it is of.
    LengthAlone,
    /// What a majority has is committed before the VIEW entry is.
    AckBeforeView,
    /// A proposal counts although its member has moved on since it was asked.
    StaleStand,
    /// A node that runs a view accepts another without leaving it first.
    AcceptWhileRunning,
}

/// The rules, and how far they are followed.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    /// What is broken.
    pub(crate) mutant: Option<Mutant>,
    /// Most proposals after the first view.
    pub(crate) changes: usize,
    /// Most crashes.
    pub(crate) crashes: u8,
    /// Most entries of a view.
    pub(crate) entries: u8,
    /// What has happened before: a path that leads to where a bug shows within few steps.
    pub(crate) before: Vec<Action>,
}

impl Views {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn quorum(&self) -> usize {
        if self.is(Mutant::MinorityInstall) { 1 } else { NODES / 2 + 1 }
    }

    /// All nodes run the first view, and then came what happened before.
    pub(crate) fn first(&self) -> State {
        let part = Part { member: true, same_stand: true, accepted: true, ran: true, told: 1 };
        let node = || Node {
            log: vec![Item::View(1)],
            durable: 1,
            promised: 1,
            installed: Some(0),
            parts: vec![part],
        };
        let founding = Proposal { view: 1, log: Vec::new(), stable: 0 };
        let nodes = std::array::from_fn(|_| node());
        let first = State { nodes, proposals: vec![founding], crashes: 0 };
        let step = |state: State, action| self.apply(&state, action).expect("an allowed step");
        let mut state = self.before.iter().fold(first, step);
        state.nodes.sort_unstable();
        state
    }

    /// How much of a view's ledger is committed: answered to clients, shown to readers and mirrors.
    pub(crate) fn committed(&self, state: &State, proposal: usize) -> usize {
        let mut told = state.nodes.each_ref().map(|node| node.parts[proposal].told);
        told.sort_unstable();
        let size = told[NODES - self.quorum()];
        let has_view = size > state.proposals[proposal].log.len();
        if has_view || self.is(Mutant::AckBeforeView) { size } else { 0 }
    }

    /// What may happen next.
    pub(crate) fn possible(&self, state: &State) -> Vec<Action> {
        let (nodes, proposals) = (0..NODES, 0..state.proposals.len());
        let mut all: Vec<Action> = proposals.clone().map(Action::Stabilize).collect();
        for node in nodes.clone() {
            use Action::{Accept, Crash, Install, Stop, Sync};
            all.push(Sync(node));
            // Who leaves when no view can follow has no part in anything any more.
            if state.proposals.len() <= self.changes || self.mutant.is_some() {
                all.extend([Crash(node), Stop(node, false), Stop(node, true)]);
            }
            all.extend(proposals.clone().flat_map(|p| [Accept(node, p), Install(node, p)]));
        }
        let subset = |bits: u8| std::array::from_fn(|node| bits >> node & 1 == 1);
        all.extend((0..1_u8 << NODES).map(|bits| Action::Propose(subset(bits))));
        all
    }

    /// What `action` leads to; nothing if it is not allowed, or changes nothing.
    pub(crate) fn step(&self, state: &State, action: &Action) -> Option<State> {
        let mut next = self.apply(state, action)?;
        next.nodes.sort_unstable();
        Some(next)
    }

    fn apply(&self, state: &State, action: &Action) -> Option<State> {
        let mut next = state.clone();
        let done = match *action {
            Action::Stabilize(proposal) => self.stabilize(&mut next, proposal),
            Action::Sync(node) => sync(&mut next.nodes[node]),
            Action::Stop(node, extra) => self.stop(&mut next, node, extra),
            Action::Crash(node) => self.crash(&mut next, node),
            Action::Propose(members) => self.propose(&mut next, members),
            Action::Accept(node, proposal) => self.accept(&mut next, node, proposal),
            Action::Install(node, proposal) => install(&mut next, node, proposal),
        };
        done.filter(|()| next != *state).map(|()| next)
    }

    fn stabilize(&self, state: &mut State, index: usize) -> Option<()> {
        let view = state.proposals[index].view;
        let receives = |node: &Node| {
            let part = node.parts[index];
            !part.member || (part.same_stand && part.accepted && node.promised == view)
        };
        let all = state.nodes.iter().all(receives) && state.ran(index);
        let stable = &mut state.proposals[index].stable;
        if !all || *stable == self.entries {
            return None;
        }
        let entry = Item::Entry(view, *stable);
        *stable += 1;
        let running = state.nodes.iter_mut().filter(|node| node.installed == Some(index));
        running.for_each(|node| node.log.push(entry));
        Some(())
    }

    fn crash(&self, state: &mut State, index: usize) -> Option<()> {
        state.crashes += 1;
        let node = &mut state.nodes[index];
        node.log.truncate(node.durable);
        node.begins_a_stand();
        if self.is(Mutant::ForgottenPromise) {
            node.promised = last_view(&node.log);
        }
        (state.crashes <= self.crashes).then_some(())
    }

    /// Before it tells others what it has, a node waits for its disk.
    fn stop(&self, state: &mut State, index: usize, extra: bool) -> Option<()> {
        let node = &mut state.nodes[index];
        let proposal = &state.proposals[node.installed?];
        if extra {
            let next = (node.log.len() - proposal.log.len() - 1) as u8;
            if next >= self.entries {
                return None;
            }
            node.log.push(Item::Entry(proposal.view, next));
        }
        node.durable = node.log.len();
        node.begins_a_stand();
        Some(())
    }

    fn propose(&self, state: &mut State, members: [bool; NODES]) -> Option<()> {
        let marked = state.nodes.iter().zip(members).filter(|(_, member)| *member);
        let asked: Vec<&Node> = marked.map(|(node, _)| node).collect();
        let allowed = asked.len() >= self.quorum() && state.proposals.len() <= self.changes;
        if !allowed || asked.iter().any(|node| node.installed.is_some()) {
            return None;
        }
        let view = asked.iter().map(|node| node.promised.max(last_view(&node.log))).max()? + 1;
        let best = |node: &&&Node| {
            let length = node.log.len();
            match self.mutant {
                Some(Mutant::ShortestLog) => (0, usize::MAX - length),
                Some(Mutant::LengthAlone) => (0, length),
                _ => (last_view(&node.log), length),
            }
        };
        let log = asked.iter().max_by_key(best)?.log.clone();
        state.proposals.push(Proposal { view, log, stable: 0 });
        for (node, member) in state.nodes.iter_mut().zip(members) {
            node.parts.push(Part { member, same_stand: member, ..Part::default() });
        }
        Some(())
    }

    fn accept(&self, state: &mut State, index: usize, place: usize) -> Option<()> {
        let (node, proposal) = (&mut state.nodes[index], &state.proposals[place]);
        let part = node.parts[place];
        let same = part.same_stand || self.is(Mutant::StaleStand);
        let forming = node.installed.is_none() || self.is(Mutant::AcceptWhileRunning);
        if !part.member || !same || !forming || node.promised >= proposal.view {
            return None;
        }
        node.promised = proposal.view;
        node.log.clone_from(&proposal.log);
        node.durable = node.log.len();
        node.installed = None;
        node.parts[place] = Part { same_stand: true, accepted: true, ..part };
        Some(())
    }
}

fn sync(node: &mut Node) -> Option<()> {
    node.durable = node.log.len();
    node.parts[node.installed?].told = node.durable;
    Some(())
}

fn install(state: &mut State, index: usize, place: usize) -> Option<()> {
    let accepted = |node: &Node| node.parts[place].accepted || !node.parts[place].member;
    let by_all = state.nodes.iter().all(accepted);
    let (node, proposal) = (&mut state.nodes[index], &state.proposals[place]);
    let part = node.parts[place];
    let still = part.accepted && part.same_stand && node.promised == proposal.view;
    if !by_all || !still || node.installed.is_some() {
        return None;
    }
    node.installed = Some(place);
    // What the proposal asked for is on its disk.
    node.parts[place] = Part { told: proposal.log.len(), ran: true, ..part };
    node.log = proposal.prefix(usize::MAX);
    Some(())
}
