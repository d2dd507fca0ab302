//! Where exploring begins.

use clap::ValueEnum;
use tradewind_ledger::ViewId;
use tradewind_site_protocol::NodeId;

use super::parts::{Command, Setting, Watch};
use super::site::Site;
use super::step::{Channel, Step};
use super::world::World;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const C: NodeId = NodeId(2);

/// What happened before the first choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Opening {
    /// Three nodes with empty disks, that were started.
    Start,
    /// They run their first view, and nothing is on its way.
    Running,
    /// A link was cut at that moment: two of them will go on without the third, which is linked with one of these.
    Bridge,
    /// Two entries of the first view got to the first node alone, and to its disk. The others run the second view, and the
    /// first node comes back.
    Suffix,
    /// The same, but the third node crashed when the second VIEW entry was on two disks, and only the others are linked.
    Longer,
    /// The same, but it crashed before that entry was on its disk, and only the first node and that one are linked:
    /// two histories. These two are about to make a view of the older one.
    Histories,
}

impl Opening {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Start, Self::Running, Self::Bridge, Self::Suffix, Self::Longer, Self::Histories];

    pub(super) fn play(self, watch: &mut Watch) -> World {
        let command = |node, view, puts| Command { node, view: ViewId(view), puts };
        let commands = match self {
            Self::Start => vec![command(C, 1, 1)],
            Self::Running | Self::Bridge => {
                vec![command(A, 1, 1), command(C, 1, 1), command(B, 2, 1)]
            }
            _ => vec![command(A, 1, 2), command(C, 3, 1)],
        };
        let setting = Setting { site: Site::new(&[&[0, 1, 2]]), commands, planted: None };
        let mut play = Play { world: World::new(setting), watch };
        [A, B, C].into_iter().for_each(|node| play.take(Step::Start(node)));
        if self == Self::Start {
            return play.world;
        }
        play.until(|world| world.all().all(|node| world.node(node).runs.is_some()));
        play.until(|world| !matches!(world.due(), Ok(Some(Step::Next(_)))));
        match self {
            Self::Start | Self::Running => {}
            Self::Bridge => play.take(Step::Cut(A, B)),
            Self::Suffix | Self::Longer | Self::Histories => play.part(),
        }
        match self {
            Self::Longer => play.keep(),
            Self::Histories => play.forget(),
            _ => {}
        }
        play.world
    }
}

/// A path that is laid down.
struct Play<'a> {
    world: World,
    watch: &'a mut Watch,
}

impl Play<'_> {
    fn take(&mut self, step: Step) {
        self.world.take(step, self.watch).expect("the opening holds");
    }

    /// Does what is due until it is so.
    fn until(&mut self, done: impl Fn(&World) -> bool) {
        while !done(&self.world) {
            let due = self.world.due().expect("the opening holds");
            self.take(due.expect("the opening gets there"));
        }
    }

    /// What the first node sends gets nowhere, but it hears that the third goes on, and delivers it. Then it is cut off.
    fn part(&mut self) {
        self.take(Step::Submit(0));
        self.take(Step::Cut(A, B));
        for held in [Channel::Lane(A, C), Channel::Row(A, C), Channel::Log(C)] {
            self.take(Step::Hold(held));
        }
        self.until(|world| world.node(A).disk.synced().0 == 4);
        self.take(Step::Cut(A, C));
        self.until(|world| [B, C].iter().all(|node| world.node(*node).disk.size().0 == 3));
        self.world.held.clear();
    }

    /// The second view commits its VIEW entry; then only the first node and the second are there.
    fn keep(&mut self) {
        self.until(|world| [B, C].iter().all(|node| world.committed(*node).0 == 3));
        self.take(Step::Crash(C, false));
        self.until(|world| world.node(B).runs.is_none());
        self.take(Step::Mend(A, B));
    }

    /// One of those who run the second view crashes before its VIEW entry is on its disk. When it comes back, it is linked with
    /// the first node alone, and has from it what the first view left.
    fn forget(&mut self) {
        self.take(Step::Crash(C, false));
        self.until(|world| world.node(B).runs.is_none());
        self.take(Step::Cut(B, C));
        self.take(Step::Start(C));
        self.take(Step::Mend(A, C));
        self.until(|world| world.node(C).disk.synced().0 == 4);
    }
}
