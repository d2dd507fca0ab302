//! What runs reached, kind by kind: a simulator that never comes to the hard places proves nothing. Each kind is one
//! value of an enum that lists itself, so that a new one cannot be forgotten.

use std::collections::BTreeMap;

use tradewind_site_protocol::{Action, Counters, ShardStep, Step};

/// What counts things of a kind, all of which are known.
pub trait Kind: Copy + Ord + std::fmt::Debug + 'static {
    /// All there are.
    const ALL: &'static [Self];
}

/// Declares an enum that lists its values.
macro_rules! kinds {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $value:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[$doc])* $value,)* }

        impl Kind for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)*];
        }
    };
}

pub(crate) use kinds;

kinds! {
/// What goes wrong.
pub enum Fault {
    /// One node loses power.
    Crash,
    /// All do at once.
    CrashOfAll,
    /// Some do at once.
    CrashOfSome,
    /// A node loses power right before or after something that it does ([`Point`]).
    CrashAtPoint,
    /// So it does, and others are kept apart at that moment.
    CrashAndCut,
    /// A link breaks: what is on its way is lost.
    BrokenLink,
    /// It breaks, and one end does not notice before the next link is there.
    UnnoticedBreak,
    /// It breaks again and again.
    FlappingLink,
    /// Nodes are kept apart: in two parts, with a bridge between them, or one alone.
    Partition,
    /// Nothing arrives over a link one way for longer than silence is borne.
    OneWay,
    /// What a node sends is late, all of it, in its order.
    Delay,
    /// Messages arrive twice.
    Duplicate,
    /// A node stands still.
    Pause,
    /// A node gets little of its processor: it lives, and falls behind.
    Starved,
    /// A disk is slow, and the node loses power with much that is not synced.
    SlowDisk,
    /// A disk does nothing for seconds, and then goes on.
    StalledDisk,
    /// A disk is full for a while.
    FullDisk,
    /// An fsync fails: the node leaves at once.
    SyncError,
    /// A write of entries is torn by a crash: a part of it is on the disk.
    TornWrite,
    /// A write of a promise is interrupted by a crash: the old or the new one is on the disk.
    TornPromise,
    /// A cut of a ledger is interrupted by a crash: it was made, or not.
    TornCut,
    /// A ledger is being replaced by one that begins with a snapshot when the node crashes: it was, or not.
    TornPlant,
    /// A part of a snapshot is damaged on its way to a peer.
    DamagedPart,
    /// A disk is empty after a start.
    LostDisk,
    /// A disk says to have synced what it has not, and loses it in a crash.
    LostSync,
    /// A byte in the middle of a disk changes.
    BitRot,
    /// A wall clock jumps.
    ClockJump,
}
}

kinds! {
/// What a shell does for a core that can be interrupted: a node can crash right before and right after each.
pub enum Point {
    /// Entries and values are given to the log.
    Write,
    /// An fsync ends: the node comes to know of it.
    Synced,
    /// A promise is written.
    Promise,
    /// It is on the disk (written beside the old one, synced, renamed): the node comes to know of it.
    Promised,
    /// What is known of others is written.
    Remember,
    /// It is on the disk.
    Remembered,
    /// A ledger is cut.
    Cut,
    /// It is cut.
    WasCut,
    /// A part of a snapshot of others is written, or a value that it names.
    Keep,
    /// It is on the disk: the node comes to know of it.
    Kept,
    /// A ledger is replaced by one that begins with a snapshot.
    Plant,
    /// It is replaced.
    Planted,
    /// A message is sent.
    Send,
    /// What was published in a turn is flushed to a peer.
    Publish,
    /// Rows are made for a view.
    Prepare,
    /// A view is installed.
    Install,
    /// A view stops.
    Stop,
    /// A checkpoint is signed.
    Sign,
    /// Answers are given to clients.
    Answer,
    /// Entries, values, roots or parts of snapshots are read from the disk.
    Read,
}
}

kinds! {
/// Which side of a point.
pub enum Side {
    /// It is not done.
    Before,
    /// It is done, and nothing after it.
    After,
}
}

kinds! {
/// What else must be seen.
pub enum Seen {
    /// A node with an empty disk was refused.
    LostDiskRefused,
    /// A node that lost what its disk said to have was told so by the others, or noticed it itself, and ended.
    LostSyncDetected,
    /// All that a disk lost was still at others, and given back to it.
    LostSyncSurvived,
    /// A damaged entry was found by a start, which refused.
    RotFoundAtStart,
    /// It was found by the running node, which looks for bit rot.
    RotFoundByScrub,
    /// It was found when a peer asked for it: the node ended.
    RotFoundByRead,
    /// It was repaired from another replica.
    RotRepaired,
    /// A view was stopped to let a node in, and installed with it, while nothing went wrong.
    Join,
    /// A view was stopped because a member held the others up, which were enough without it.
    HeldUp,
    /// A majority alone had to make progress.
    MajorityAlone,
    /// An outcome of a submission was given up.
    Unknown,
    /// A publish arrived after its view.
    FrameOfOldView,
    /// A core had a peer disconnected.
    Disconnect,
    /// A submission was refused.
    Refused,
    /// A request was submitted again.
    Repeated,
    /// A request was answered.
    Answered,
    /// A detached value was written.
    Detached,
    /// A detached value of an entry came by the bulk lane.
    Adopted,
    /// A read was answered behind a barrier.
    Read,
    /// A read was refused, or given up by a view that stopped.
    ReadRefused,
    /// A topology file with another roster was given to the nodes.
    Change,
    /// A view was installed of a roster after the founders', for the first time.
    RosterBegun,
    /// A node was told that it was removed, and ended.
    Dismissed,
    /// A node lost its disk for ever, and began anew under another key.
    Replaced,
    /// A ledger was pruned behind two snapshots.
    Pruning,
    /// A ledger began anew with a snapshot of others.
    LedgerReplaced,
    /// A crash came while a snapshot was being taken.
    TakingInterrupted,
    /// A start went on with a snapshot of which a part was there.
    TakingResumed,
    /// A call was checked for linearizability.
    LinearCall,
}
}

/// Which point of its shell an action is; `None` if it is nothing that could be interrupted.
pub(crate) fn point_of(action: &Action) -> Option<Point> {
    Some(match action {
        Action::Append { .. } | Action::Stage { .. } => Point::Write,
        Action::Promise(_) => Point::Promise,
        Action::Remember(_) => Point::Remember,
        Action::Rewind { .. } => Point::Cut,
        Action::Send { .. } => Point::Send,
        Action::Prepare { .. } => Point::Prepare,
        Action::Installed { .. } => Point::Install,
        Action::Stopped { .. } => Point::Stop,
        Action::Sign { .. } => Point::Sign,
        Action::Answers(_) => Point::Answer,
        Action::ReadLog { .. }
        | Action::ReadValue { .. }
        | Action::ReadRoots { .. }
        | Action::ReadPart { .. } => Point::Read,
        Action::Take { .. } | Action::KeepPart { .. } | Action::KeepValue { .. } => Point::Keep,
        Action::Plant { .. } => Point::Plant,
        Action::Disconnect { .. }
        | Action::Unstage { .. }
        | Action::BarrierPassed { .. }
        | Action::Snapshot { .. }
        | Action::Agreed { .. }
        | Action::Committed { .. }
        | Action::Checkpoint { .. }
        | Action::SnapshotsDiffer { .. }
        | Action::Unknown(_)
        | Action::Failed(_) => return None,
    })
}

/// A node's way from one step to another, as it is seen between two inputs. Others are possible where several things come
/// together in one input; which are not, says `invariant_no_step_is_skipped`.
pub const STEPS: &[(Step, Step)] = {
    use Step::{Accepted, Active, CatchingUp, Failed, Gathering, Learning, Promising};
    &[
        (Gathering, Learning),
        (Gathering, CatchingUp),
        (Gathering, Promising),
        (Gathering, Failed),
        (Learning, Gathering),
        (CatchingUp, Gathering),
        (CatchingUp, Promising),
        (Promising, Gathering),
        (Promising, Accepted),
        (Promising, Active),
        (Accepted, Gathering),
        (Accepted, Promising),
        (Accepted, Active),
        (Active, Gathering),
    ]
};

/// A shard's way from one step to another at one of its members: all there may be.
pub const SHARD_STEPS: &[(ShardStep, ShardStep)] = {
    use ShardStep::{Drained, Idle, Rewinding, Running, Stopped};
    &[
        (Idle, Running),
        (Idle, Rewinding),
        (Running, Stopped),
        (Running, Idle),
        (Stopped, Drained),
        (Stopped, Idle),
        (Drained, Running),
        (Drained, Idle),
        (Drained, Rewinding),
        (Rewinding, Idle),
    ]
};

/// Counters of what never happens while all nodes compute alike.
const NEVER: &[&str] = &["snapshots_differ"];

/// How often what happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally<K>(BTreeMap<K, u64>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Tally<K> {
    /// How often this happened.
    #[must_use]
    pub fn of(&self, kind: K) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    pub(crate) fn hit(&mut self, kind: K) {
        self.add(kind, 1);
    }

    pub(crate) fn add(&mut self, kind: K, times: u64) {
        *self.0.entry(kind).or_default() += times;
    }

    fn join(&mut self, other: &Self) {
        other.0.iter().for_each(|(kind, times)| self.add(*kind, *times));
    }
}

/// What the runs reached.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Coverage {
    /// Counters of all cores, added up.
    pub core: Counters,
    /// What went wrong, where it had an effect.
    pub faults: Tally<Fault>,
    /// Crashes at a point.
    pub points: Tally<(Point, Side)>,
    /// Ways of nodes.
    pub steps: Tally<(Step, Step)>,
    /// Ways of shards.
    pub shard_steps: Tally<(ShardStep, ShardStep)>,
    /// What else was seen.
    pub seen: Tally<Seen>,
    /// Points that were passed while faults may happen.
    pub passed: u64,
    /// Steps of a script that came too late to be taken.
    pub unscripted: usize,
    /// Times that nodes did not hear of what others did, in runs of nothing else.
    pub veils: u64,
    /// The longest change of a view that let a node in while nothing went wrong, microseconds.
    pub join_pause_max: u64,
}

impl Coverage {
    /// Adds another run.
    pub fn join(&mut self, other: &Self) {
        self.core.add(&other.core);
        self.faults.join(&other.faults);
        self.points.join(&other.points);
        self.steps.join(&other.steps);
        self.shard_steps.join(&other.shard_steps);
        self.seen.join(&other.seen);
        self.passed += other.passed;
        self.unscripted += other.unscripted;
        self.veils += other.veils;
        self.join_pause_max = self.join_pause_max.max(other.join_pause_max);
    }

    /// All that was never reached, in words.
    #[must_use]
    pub fn missed(&self) -> Vec<String> {
        let counters = self.core.all().into_iter();
        let counters = counters.filter(|(name, count)| *count == 0 && !NEVER.contains(name));
        let mut missed: Vec<String> = counters.map(|(name, _)| format!("counter {name}")).collect();
        let mut note = |what: &str, kind: &dyn std::fmt::Debug, count: u64| {
            if count == 0 {
                missed.push(format!("{what} {kind:?}"));
            }
        };
        Fault::ALL.iter().for_each(|kind| note("fault", kind, self.faults.of(*kind)));
        Seen::ALL.iter().for_each(|kind| note("sight", kind, self.seen.of(*kind)));
        for point in Point::ALL {
            for side in Side::ALL {
                note("crash at", &(point, side), self.points.of((*point, *side)));
            }
        }
        STEPS.iter().for_each(|way| note("step", way, self.steps.of(*way)));
        SHARD_STEPS.iter().for_each(|way| note("shard step", way, self.shard_steps.of(*way)));
        missed
    }
}
