//! Runs whose course is laid down: what is done to whom, and when. For histories that chance comes to too seldom, and as
//! short base runs for crashes at every point.

use tradewind_site_protocol::NodeId;

use super::coverage::{Kind, Point, Side, kinds};
use super::plan::MS;
use super::world::{Event, World};

kinds! {
/// The scripts, each with three nodes and one shard that all of them are members of.
#[derive(clap::ValueEnum)]
pub enum Script {
    /// Nothing happens to the nodes.
    Calm,
    /// One is away for a while, learns beside the view of the others, and is let in.
    Return,
    /// Power is lost everywhere; they come back one after the other.
    PowerLoss,
    /// Two are linked with the third only, and then with each other.
    Bridge,
    /// One has an entry on its disk that the others lost in a crash and went on without: it is cut off.
    Suffix,
    /// So it has, and more of them than the others have of their next view; then all lose power.
    LongerSuffix,
    /// An entry of the first view got to the disk of one node alone, the VIEW entry of the second to that of another alone;
    /// the third view, of the first of them and the third node, has just begun when it ends.
    TwoHistories,
    /// A member of a view hears late that it stopped, and goes on sending to one that forms the next.
    LateNews,
    /// One accepts a view, crashes before it hears that it is installed, and meets only who knows nothing of that view.
    Accepted,
}
}

/// When something is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// So long after what was done before, microseconds.
    Later(u64),
    /// When this node passes such a point.
    At(NodeId, Point, Side),
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// Loses power, and comes back soon.
    Crash(NodeId),
    /// Loses power, and stays down.
    Down(NodeId),
    /// Comes back.
    Up(NodeId),
    Cut(NodeId, NodeId),
    /// The second does not notice.
    CutUnnoticed(NodeId, NodeId),
    Mend(NodeId, NodeId),
    /// What this disk begins to sync takes so long more.
    Slow(NodeId, u64),
    /// Nothing arrives from the first at the second for so long.
    Hold(NodeId, NodeId, u64),
}

/// One thing that is done.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    when: When,
    then: Vec<Deed>,
}

/// The disk of a node stands still so many times, each time for so long, and so long after it began the last time.
pub(super) fn stalls(node: NodeId, (times, for_us, every_us): (usize, u64, u64)) -> Vec<Scene> {
    let then = vec![Deed::Slow(node, for_us)];
    vec![Scene { when: When::Later(every_us), then }; times]
}

impl Script {
    /// What is done, and how long it takes at most.
    pub(super) fn scenes(self) -> (Vec<Scene>, u64) {
        use Deed::{Crash, Cut, CutUnnoticed, Down, Hold, Mend, Slow, Up};
        use Point::{Install, Prepare, Send, Synced, Write};
        use Side::After;
        let (a, b, c) = (NodeId(0), NodeId(1), NodeId(2));
        let later = |ms: u64, then: Vec<Deed>| Scene { when: When::Later(ms * MS), then };
        let at = |node, point, then| Scene { when: When::At(node, point, After), then };
        // The first has entries on its disk that the others lose in a crash, and is cut off from them.
        let a_suffix = || {
            vec![
                later(60, vec![Slow(b, 200 * MS), Slow(c, 200 * MS)]),
                at(a, Write, vec![]),
                later(7, vec![Crash(b), Crash(c), Cut(a, b), Cut(a, c)]),
            ]
        };
        let (scenes, until) = match self {
            Script::Calm => (vec![], 120),
            Script::Return => (vec![later(40, vec![Down(c)]), later(150, vec![Up(c)])], 400),
            Script::PowerLoss => (
                vec![
                    later(60, vec![Down(a), Down(b), Down(c)]),
                    later(20, vec![Up(c)]),
                    later(60, vec![Up(b)]),
                    later(80, vec![Up(a)]),
                ],
                450,
            ),
            Script::Bridge => (vec![later(0, vec![Cut(a, c)]), later(150, vec![Mend(a, c)])], 350),
            Script::Suffix => {
                let mut scenes = a_suffix();
                scenes.push(at(b, Install, vec![]));
                scenes.push(later(50, vec![Mend(a, b), Mend(a, c)]));
                (scenes, 900)
            }
            Script::LongerSuffix => {
                let mut scenes = a_suffix();
                scenes.push(at(c, Install, vec![]));
                let all = vec![Crash(a), Crash(b), Crash(c), Mend(a, b), Mend(a, c)];
                scenes.push(later(8, all));
                (scenes, 1_000)
            }
            Script::TwoHistories => {
                let mut scenes = a_suffix();
                scenes.extend([
                    // The second view.
                    at(c, Prepare, vec![Slow(c, 400 * MS)]),
                    at(b, Install, vec![]),
                    at(b, Synced, vec![Down(b), Down(c), Cut(b, c), Mend(a, c)]),
                    later(5, vec![Up(c)]),
                    // The third.
                    at(c, Prepare, vec![Slow(c, 400 * MS)]),
                    at(c, Install, vec![]),
                    later(15, vec![Down(c), Cut(a, c), Cut(a, b), Mend(b, c)]),
                    later(5, vec![Up(b), Up(c)]),
                    at(c, Install, vec![]),
                    later(100, vec![Mend(a, b), Mend(a, c)]),
                ]);
                (scenes, 1_800)
            }
            Script::LateNews => (
                vec![
                    later(70, vec![Slow(c, 40 * MS), Hold(c, a, 90 * MS), CutUnnoticed(b, a)]),
                    later(60, vec![Cut(a, b)]),
                    later(60, vec![Mend(a, b)]),
                ],
                500,
            ),
            Script::Accepted => (
                vec![
                    later(0, vec![Cut(a, c)]),
                    later(60, vec![Down(b)]),
                    later(30, vec![Up(b)]),
                    // Its promise is out, and what it says of it is on its way.
                    at(b, Prepare, vec![]),
                    at(b, Send, vec![Crash(b)]),
                    at(a, Install, vec![Cut(a, b)]),
                    later(400, vec![Mend(a, b), Mend(a, c)]),
                ],
                900,
            ),
        };
        (scenes, until * MS)
    }
}

impl World<'_> {
    /// The next scene waits for its time.
    pub(super) fn next_scene(&mut self) {
        if let Some(Scene { when: When::Later(us), .. }) = self.scenes.front() {
            let at = self.now + us;
            self.at(at, Event::Scene(self.scenes.len()));
        }
    }

    /// The time of a scene has come.
    pub(super) fn scene(&mut self, left: usize) {
        if self.scenes.len() == left {
            self.play();
        }
    }

    pub(super) fn script_sees(&mut self, node: NodeId, point: Point, side: Side) {
        let awaited = match self.scenes.front() {
            Some(Scene { when: When::At(who, what, which), .. }) => {
                (*who, *what, *which) == (node, point, side)
            }
            _ => false,
        };
        if awaited {
            self.play();
        }
    }

    fn play(&mut self) {
        let Some(Scene { then, .. }) = self.scenes.pop_front() else { return };
        for deed in then {
            self.tell(|| format!("script: {deed:?}"));
            match deed {
                Deed::Crash(node) => self.crash(node),
                Deed::Down(node) => {
                    self.crash(node);
                    self.nodes[node.index()].held = true;
                }
                Deed::Up(node) => {
                    self.nodes[node.index()].held = false;
                    self.at(self.now, Event::Restart(node));
                }
                Deed::Cut(a, b) => {
                    self.cut.insert((a.min(b), a.max(b)));
                    self.break_link(a, b);
                }
                Deed::CutUnnoticed(a, b) => {
                    self.cut.insert((a.min(b), a.max(b)));
                    self.break_link_at(a, b, &[(a, b)]);
                }
                Deed::Mend(a, b) => self.mend(&[(a.min(b), a.max(b))]),
                Deed::Slow(node, us) => {
                    self.nodes[node.index()].slow_down(self.now + us);
                }
                Deed::Hold(a, b, us) => {
                    self.lanes.entry((a, b)).or_default().held_until = self.now + us;
                }
            }
        }
        self.next_scene();
    }
}
