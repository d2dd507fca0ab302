//! A follower and the feeders of its parents, without a network: messages are handed over at once,
//! except what a test holds back or changes.

use alloc::{boxed::Box, format, string::String, string::ToString, vec, vec::Vec};
use core::time::Duration;
use std::collections::BTreeMap;

use tradewind_ledger::ids::{Hlc, Version};
use tradewind_ledger::tree::leaf_hash;

use super::*;
use crate::evidence::Evidence;
use crate::feeder::{FeedAction, Feeder, FeederConfig, Located};
use crate::fixture::{Disk, History, path};
use crate::wire::{
    Accept, Batch, Beat, HeadNote, ParentMessage, Refuse, RefuseReason, Value, ValueHeader, Welcome,
};

const LEDGER: &str = "flights.0";
const SECOND: Duration = Duration::from_secs(1);

type Tamper = Box<dyn FnMut(Batch) -> Batch>;

/// A parent: what it has, what it is connected with, and how it lies.
struct ParentSide {
    name: String,
    history: History,
    head: Option<Head>,
    path: Option<Vec<String>>,
    /// The first entry that it keeps.
    first: Version,
    is_up: bool,
    tamper: Option<Tamper>,
    values_wrong: bool,
    feeder: Option<(SessionId, Feeder)>,
}

/// A child and its parents.
struct World {
    now: Instant,
    child: Follower,
    parents: Vec<ParentSide>,
    disk: Disk,
    /// Values that a slow disk has not stored yet; `None` for a fast one.
    unstored: Option<Vec<(LedgerId, Digest)>>,
    shown: BTreeMap<LedgerId, Version>,
    evidence: Vec<Evidence>,
    events: Vec<FollowEvent>,
    confirmed: Vec<Head>,
    reports: Vec<MirrorReport>,
    path: Option<Vec<String>>,
    /// The parents of which a snapshot was to be taken.
    lenders: Vec<usize>,
}

fn parent(name: &str, history: &History, size: Option<Version>) -> ParentSide {
    ParentSide {
        name: name.into(),
        history: history.clone(),
        head: size.map(|size| history.head(size)),
        path: path(&[name, "ams"]),
        first: Version::ZERO,
        is_up: true,
        tamper: None,
        values_wrong: false,
        feeder: None,
    }
}

impl World {
    /// A child that has the first `size` entries of `history`.
    fn new(history: &History, size: Version, parents: Vec<ParentSide>) -> Self {
        let config = FollowerConfig {
            deployment: "atlas".into(),
            name: "leaf".into(),
            parents: parents.iter().map(|parent| parent.name.clone()).collect(),
            window_bytes: 2 << 20,
            timing: Timing::default(),
        };
        let ledger = LedgerConfig {
            genesis: history.genesis.clone(),
            replay: history.replay_at(size),
            is_halted: false,
        };
        let now = Instant(1_000_000_000);
        let mut world = Self {
            now,
            child: Follower::new(config, vec![ledger], now),
            parents,
            disk: Disk::of(history, size),
            unstored: None,
            shown: BTreeMap::new(),
            evidence: Vec::new(),
            events: Vec::new(),
            confirmed: Vec::new(),
            reports: Vec::new(),
            path: None,
            lenders: Vec::new(),
        };
        world.settle();
        world
    }

    /// Hands over everything until nobody has anything more to say.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let child = self.child.poll_action();
            if let Some(action) = child {
                self.act(action);
                continue;
            }
            let mut is_quiet = true;
            for index in 0..self.parents.len() {
                is_quiet &= !self.feed(index);
            }
            if is_quiet {
                return;
            }
        }
        panic!("it never settles: {:?}", self.events);
    }

    /// Lets time pass in small steps, both sides alive.
    fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(100));
            for parent in &mut self.parents {
                if let Some((_, feeder)) = parent.feeder.as_mut().filter(|_| parent.is_up) {
                    feeder.handle_tick(self.now, &|_| Duration::from_millis(3));
                }
            }
            self.settle();
            if self.now >= self.child.poll_timeout() {
                self.child.handle_tick(self.now);
                self.settle();
                assert!(self.child.poll_timeout() > self.now, "a timer that is due for ever");
            }
        }
    }

    fn act(&mut self, action: FollowAction) {
        match action {
            FollowAction::Dial { session, parent } => self.dial(session, parent),
            FollowAction::Send { session, message } => {
                let now = self.now;
                if let Some(feeder) = self.feeder_of(session) {
                    feeder.handle_message(now, message);
                }
            }
            FollowAction::Close { session, .. } => {
                for parent in &mut self.parents {
                    parent.feeder.take_if(|(id, _)| *id == session);
                }
            }
            FollowAction::StoreValue { ledger, digest, bytes } => {
                self.disk.values.insert(digest, bytes);
                match &mut self.unstored {
                    Some(unstored) => unstored.push((ledger, digest)),
                    None => self.child.handle_stored(&ledger, digest),
                }
            }
            FollowAction::Commit(admitted) => self.commit(&admitted),
            FollowAction::Confirm { head, .. } => self.confirmed.push(head),
            FollowAction::TakeSnapshot { parent, .. } => self.lenders.push(parent),
            FollowAction::Fresh { .. } => {}
            FollowAction::Evidence(evidence) => self.evidence.push(*evidence),
            FollowAction::Path(path) => self.path = path,
            FollowAction::Event(event) => self.events.push(event),
        }
    }

    fn dial(&mut self, session: SessionId, index: usize) {
        let parent = &mut self.parents[index];
        if !parent.is_up {
            return self.child.handle_closed(self.now, session, "connection refused");
        }
        let ledger = parent.history.genesis.ledger.clone();
        let lineage = parent.history.genesis.lineage().unwrap();
        let config = FeederConfig {
            name: parent.name.clone(),
            deployment: "atlas".into(),
            child: "leaf".into(),
            ledgers: [(ledger.clone(), lineage)].into(),
            timing: Timing::default(),
        };
        let mut feeder = Feeder::new(config, parent.path.clone(), self.now);
        if let Some(head) = parent.head.clone() {
            feeder.handle_head(&ledger, head);
        }
        parent.feeder = Some((session, feeder));
        self.child.handle_connected(self.now, session);
    }

    fn feeder_of(&mut self, session: SessionId) -> Option<&mut Feeder> {
        let feeders = self.parents.iter_mut().filter_map(|parent| parent.feeder.as_mut());
        feeders.into_iter().find(|(id, _)| *id == session).map(|(_, feeder)| feeder)
    }

    fn commit(&mut self, admitted: &Admitted) {
        for (digest, _) in &admitted.detached {
            assert!(self.disk.values.contains_key(digest), "values come before their entries");
        }
        let tree = self.disk.ledgers.entry(admitted.ledger.clone()).or_default();
        assert_eq!(tree.size(), admitted.first, "entries come in order");
        admitted.batch.entries().for_each(|entry| tree.push(leaf_hash(entry)));
        let size = tree.size();
        self.shown.insert(admitted.ledger.clone(), size);
        self.child.handle_durable(self.now, &admitted.ledger, size, admitted.head.hlc);
    }

    /// One action of a parent's feeder; whether there was one.
    fn feed(&mut self, index: usize) -> bool {
        let now = self.now;
        let parent = &mut self.parents[index];
        let Some((session, feeder)) = parent.feeder.as_mut().filter(|_| parent.is_up) else {
            return false;
        };
        let session = *session;
        let Some(action) = feeder.poll_action() else { return false };
        match action {
            FeedAction::Send(message) => {
                self.child.handle_message(now, &self.disk, session, message);
            }
            FeedAction::Locate { ledger, size, head } => {
                let located =
                    Located { first: parent.first, ..parent.history.located(size, &head) };
                feeder.handle_located(&ledger, &head, Some(located));
            }
            FeedAction::Read { ledger, first, max_bytes, head, .. } => {
                let (mut batch, done) = parent.history.read(first, max_bytes.min(2_000), &head);
                feeder.handle_read(&ledger, first, Some(done));
                feeder.handle_sent();
                if let Some(tamper) = &mut parent.tamper {
                    batch = tamper(batch);
                }
                self.child.handle_batch(now, &self.disk, session, batch);
            }
            FeedAction::SendValue { ledger, digest } => {
                feeder.handle_value_sent(ledger.clone(), digest, true);
                let mut body = parent.history.values[&digest].clone();
                if parent.values_wrong {
                    body[0] ^= 1;
                }
                let header = ValueHeader { ledger, digest, bytes: body.len() as u64 };
                self.child.handle_value(now, session, Value { header, body });
            }
            FeedAction::Report(reports) => self.reports.extend(reports),
            FeedAction::Close { .. } => {
                parent.feeder = None;
                self.child.handle_closed(now, session, "closed by the parent");
            }
        }
        true
    }

    fn grow(&mut self, index: usize, size: Version) {
        let parent = &mut self.parents[index];
        let head = parent.history.head(size);
        parent.head = Some(head.clone());
        if let Some((_, feeder)) = &mut parent.feeder {
            feeder.handle_head(&parent.history.genesis.ledger, head);
        }
        self.settle();
    }

    fn verified(&self) -> Version {
        self.child.status().ledgers[0].frontier.verified
    }

    fn refusals(&self) -> u64 {
        self.child.status().ledgers[0].refusals
    }

    fn fed_by(&self) -> Option<String> {
        self.child.status().parent
    }

    /// What the child has is what the site has, as far as it goes.
    fn assert_prefix_of(&self, history: &History) {
        let frontier = self.child.status().ledgers[0].frontier.clone();
        let root = self.disk.root_at(&frontier.ledger, frontier.durable);
        if frontier.durable > Version::ZERO {
            assert_eq!(root, Some(history.root_at(frontier.durable)));
        }
    }
}

#[test]
fn a_new_child_catches_up_and_then_follows_the_tail() {
    let history = History::grown(LEDGER, 200);
    let mut world = World::new(&history, Version(0), vec![parent("a1", &history, None)]);
    assert_eq!((world.fed_by().as_deref(), world.verified()), (Some("a1"), Version(0)));
    for size in [1, 50, 51, 200] {
        world.grow(0, Version(size));
        assert_eq!(world.verified(), Version(size));
    }
    world.grow(0, history.size());
    world.assert_prefix_of(&history);
    assert_eq!(world.disk.values.len(), history.values.len());
    assert_eq!(world.path, path(&["leaf", "a1", "ams"]));
    world.pass(SECOND * 2);
    let last = world.reports.last().unwrap();
    assert_eq!((&*last.mirror, &*last.parent), ("leaf", "a1"));
    assert_eq!(last.ledgers[0].durable, history.size());
}

#[test]
fn a_restarted_child_is_confirmed_before_it_is_fed() {
    let history = History::grown(LEDGER, 100);
    let size = history.size();
    let world = World::new(&history, Version(70), vec![parent("a1", &history, Some(size))]);
    assert_eq!(world.confirmed.len(), 1);
    assert_eq!(world.confirmed[0].size, Version(70));
    assert_eq!(world.confirmed[0].root, history.root_at(Version(70)));
    assert_eq!(world.verified(), size);
}

#[test]
fn whatever_a_parent_changes_in_a_batch_is_refused_and_an_honest_one_takes_over() {
    let history = History::grown(LEDGER, 300);
    let size = history.size();
    let other = History::grown("flights.1", 300);
    let old = history.note(Version(5), &[0, 1, 2]);
    let lies: Vec<(&str, Tamper)> = vec![
        (
            "flipped",
            Box::new(|mut batch| {
                batch.body[40] ^= 4;
                batch
            }),
        ),
        (
            "truncated",
            Box::new(|mut batch| {
                batch.body.pop();
                batch
            }),
        ),
        (
            "shifted",
            Box::new(|mut batch| {
                batch.header.first = Version(3);
                batch
            }),
        ),
        (
            "old note",
            Box::new(move |mut batch| {
                batch.header.claim.note.clone_from(&old);
                batch
            }),
        ),
        (
            "no proof",
            Box::new(|mut batch| {
                batch.header.claim.links.clear();
                batch
            }),
        ),
        (
            "other ledger's entries",
            Box::new(move |mut batch| {
                let head = other.head(other.size());
                batch.body = other.batch(batch.header.first, batch.end(), &head).body;
                batch.header.bytes = u32::try_from(batch.body.len()).unwrap();
                batch
            }),
        ),
    ];
    for (lie, tamper) in lies {
        let mut liar = parent("a1", &history, Some(size));
        liar.tamper = Some(tamper);
        let honest = parent("a2", &history, Some(size));
        let mut world = World::new(&history, Version(0), vec![liar, honest]);
        world.pass(SECOND);
        assert!(world.refusals() >= 1, "{lie}: {:?}", world.events);
        assert_eq!(world.verified(), size, "{lie}: {:?}", world.events);
        assert_eq!(world.fed_by().as_deref(), Some("a2"), "{lie}");
        assert!(world.evidence.is_empty(), "{lie}");
        world.assert_prefix_of(&history);
    }
}

#[test]
fn replayed_and_reordered_batches_do_no_harm() {
    let history = History::grown(LEDGER, 300);
    let size = history.size();
    // Each batch is sent in the place of the next one: the same is sent twice.
    let mut liar = parent("a1", &history, Some(size));
    let mut last: Option<Batch> = None;
    liar.tamper = Some(Box::new(move |batch| last.replace(batch.clone()).unwrap_or(batch)));
    let honest = parent("a2", &history, Some(size));
    let mut world = World::new(&history, Version(0), vec![liar, honest]);
    world.pass(SECOND);
    assert_eq!((world.verified(), world.fed_by().as_deref()), (size, Some("a2")));

    // Streams overtake each other: batches come in reverse, in pairs.
    let mut world = World::new(&history, Version(0), vec![parent("a1", &history, None)]);
    let head = history.head(size);
    let middle = Version(20);
    let batches = [history.batch(middle, size, &head), history.batch(Version(0), middle, &head)];
    let session = world.parents[0].feeder.as_ref().unwrap().0;
    for batch in batches {
        world.child.handle_batch(world.now, &world.disk, session, batch);
    }
    world.settle();
    assert_eq!((world.verified(), world.refusals()), (size, 0));
    world.assert_prefix_of(&history);
}

#[test]
fn a_gap_that_is_never_filled_costs_the_parent_its_child() {
    let history = History::grown(LEDGER, 100);
    let size = history.size();
    let silent = parent("a1", &history, None);
    let honest = parent("a2", &history, Some(size));
    let mut world = World::new(&history, Version(0), vec![silent, honest]);
    let session = world.parents[0].feeder.as_ref().unwrap().0;
    let batch = history.batch(Version(20), size, &history.head(size));
    world.child.handle_batch(world.now, &world.disk, session, batch);
    world.pass(SECOND * 6);
    assert_eq!((world.verified(), world.fed_by().as_deref()), (size, Some("a2")));
}

#[test]
fn a_wrong_value_is_refused_and_its_entry_is_not_made_durable() {
    let history = History::grown(LEDGER, 60);
    let size = history.size();
    let mut liar = parent("a1", &history, Some(size));
    liar.values_wrong = true;
    let mut world = World::new(&history, Version(0), vec![liar]);
    assert!(world.refusals() >= 1);
    assert!(world.disk.values.is_empty());
    world.parents[0].values_wrong = false;
    world.pass(SECOND * 20);
    let frontier = &world.child.status().ledgers[0].frontier;
    assert_eq!((frontier.verified, frontier.durable), (size, size));
    assert_eq!(world.disk.values, history.values);
}

#[test]
fn a_slow_disk_bounds_the_values_that_are_asked_for() {
    let mut history = History::new(LEDGER);
    (0..40).for_each(|index| history.put(index * 11 + 10, format!("{index}").as_bytes()));
    let size = history.size();
    let mut world = World::new(&history, Version(0), vec![parent("a1", &history, None)]);
    world.unstored = Some(Vec::new());
    world.grow(0, size);
    let mut seen = 0;
    while let Some(unstored) = world.unstored.replace(Vec::new()).filter(|list| !list.is_empty()) {
        assert!(unstored.len() <= 8, "{} values are in memory", unstored.len());
        seen += unstored.len();
        for (ledger, digest) in unstored {
            world.child.handle_stored(&ledger, digest);
        }
        world.settle();
    }
    assert_eq!((seen, world.verified()), (40, size));
    assert_eq!(world.child.status().ledgers[0].frontier.durable, size);
}

#[test]
fn two_signed_histories_halt_the_ledger_and_are_kept_as_evidence() {
    let history = History::grown(LEDGER, 100);
    // The same beginning and the same keys, then something else.
    let mut fork = History::grown(LEDGER, 40);
    (0..100).for_each(|index| fork.put(index, b"other"));
    let size = Version(90);
    let policy = tradewind_ledger::note::Policy::of_genesis(&history.genesis).unwrap();

    // The fork is as long as what is held, or longer: the parent refuses and proves it.
    let mut world = World::new(&history, Version(0), vec![parent("a1", &history, Some(size))]);
    world.parents[0].history = fork.clone();
    world.parents[0].head = Some(fork.head(fork.size()));
    let session = world.parents[0].feeder.take().unwrap().0;
    world.child.handle_closed(world.now, session, "restarted from a backup");
    world.pass(SECOND);
    assert!(world.child.status().ledgers[0].is_halted, "{:?}", world.events);
    assert_eq!(world.evidence.len(), 1);
    assert!(world.evidence[0].holds(&policy));
    assert_eq!(world.verified(), size);
    let text = world.evidence[0].to_string();
    assert!(text.contains("size 90\n") && text.matches("atlas/ams/flights/0\n").count() == 2);
    world.assert_prefix_of(&history);
    assert_eq!(world.fed_by(), None, "nothing is left to follow");

    // The fork is shorter: its signed checkpoint is compared with what is held.
    let mut world = World::new(&history, Version(0), vec![parent("a1", &history, Some(size))]);
    world.parents[0].history = fork.clone();
    world.parents[0].head = Some(fork.head(Version(60)));
    let session = world.parents[0].feeder.take().unwrap().0;
    world.child.handle_closed(world.now, session, "restarted from a backup");
    world.pass(SECOND);
    assert_eq!(world.evidence.len(), 1, "{:?}", world.events);
    assert_eq!(world.evidence[0].size, Version(60));
    assert!(world.evidence[0].holds(&policy));
}

#[test]
fn a_claim_of_a_fork_without_proof_only_costs_the_parent_its_child() {
    let history = History::grown(LEDGER, 50);
    let world = || World::new(&history, Version(30), vec![parent("a1", &history, None)]);
    let mut fork = History::grown(LEDGER, 10);
    (0..50).for_each(|index| fork.put(index, b"other"));
    let head = fork.head(fork.size());
    let mut claim = fork.claim(Version(30), &head);
    let root = fork.root_at(Version(30));
    // Signed by one node only.
    claim.note = fork.note(fork.size(), &[1]);
    let ledger = history.genesis.ledger.clone();
    let mut world = world();
    let session = world.parents[0].feeder.as_ref().unwrap().0;
    let refuse = Refuse { ledger: ledger.clone(), reason: RefuseReason::Fork { root, claim } };
    world.child.handle_message(world.now, &world.disk, session, ParentMessage::Refuse(refuse));
    let status = world.child.status();
    assert!(!status.ledgers[0].is_halted && status.parent.is_none());

    let note = fork.note(Version(20), &[1]);
    let mut world = World::new(&history, Version(30), vec![parent("a1", &history, None)]);
    let session = world.parents[0].feeder.as_ref().unwrap().0;
    let head = ParentMessage::Head(HeadNote { ledger, note });
    world.child.handle_message(world.now, &world.disk, session, head);
    let status = world.child.status();
    assert!(!status.ledgers[0].is_halted && status.parent.is_none());
}

#[test]
fn a_parent_of_another_lineage_is_left() {
    let history = History::grown(LEDGER, 50);
    let mut other = history.clone();
    other.genesis.site = "lhr".into();
    let parents =
        vec![parent("a1", &other, Some(Version(40))), parent("a2", &history, Some(Version(40)))];
    let mut world = World::new(&history, Version(30), parents);
    world.pass(SECOND);
    assert_eq!((world.fed_by().as_deref(), world.verified()), (Some("a2"), Version(40)));
}

#[test]
fn a_snapshot_is_taken_only_of_a_parent_while_no_other_has_the_entries() {
    let history = History::grown(LEDGER, 50);
    let pruned =
        |name| ParentSide { first: Version(35), ..parent(name, &history, Some(Version(40))) };
    let parents = vec![pruned("relay"), parent("a2", &history, Some(Version(40)))];
    let mut world = World::new(&history, Version(30), parents);
    world.pass(SECOND);
    assert_eq!((world.fed_by().as_deref(), world.verified()), (Some("a2"), Version(40)));
    assert!(world.lenders.is_empty(), "a2 has them");

    // Here is all that the parent has pruned: it is fed.
    let mut world = World::new(&history, Version(35), vec![pruned("relay")]);
    world.pass(SECOND);
    assert_eq!((world.lenders.len(), world.verified()), (0, Version(40)));

    let mut world = World::new(&history, Version(30), vec![pruned("relay"), pruned("a2")]);
    world.pass(60 * SECOND);
    assert_eq!(world.lenders, [1], "once both were asked, and once only");
    assert_eq!((world.verified(), world.evidence.len()), (Version(30), 0));
    assert!(world.events.iter().any(|event| event.to_string().contains("pruned")));
    world.child.handle_not_taken(&history.genesis.ledger);
    world.pass(60 * SECOND);
    assert_eq!(world.lenders.len(), 2, "that failed: again");
}

#[test]
fn a_loop_is_left_by_the_path() {
    let history = History::grown(LEDGER, 50);
    let mut looping = parent("relay", &history, Some(Version(40)));
    looping.path = path(&["relay", "leaf", "a1", "ams"]);
    let parents = vec![looping, parent("a2", &history, Some(Version(40)))];
    let mut world = World::new(&history, Version(0), parents);
    world.pass(SECOND);
    assert_eq!((world.fed_by().as_deref(), world.verified()), (Some("a2"), Version(40)));

    // It arises later.
    let mut world = World::new(&history, Version(0), vec![parent("relay", &history, None)]);
    let session = world.parents[0].feeder.as_ref().unwrap().0;
    let beat = Beat { path: path(&["relay", "leaf", "ams"]), ledgers: vec![] };
    world.child.handle_message(world.now, &world.disk, session, ParentMessage::Beat(beat));
    assert_eq!(world.fed_by(), None);
}

#[test]
fn a_dead_silent_or_cut_off_parent_is_left_and_a_preferred_one_taken_back() {
    let history = History::grown(LEDGER, 200);
    let both = || {
        vec![
            parent("relay", &history, Some(Version(50))),
            parent("a1", &history, Some(Version(50))),
        ]
    };
    // Silent: it lives, but says nothing.
    let mut world = World::new(&history, Version(0), both());
    world.parents[0].is_up = false;
    world.pass(SECOND * 4);
    assert_eq!(world.fed_by().as_deref(), Some("relay"), "not yet");
    world.pass(SECOND * 2);
    assert_eq!(world.fed_by().as_deref(), Some("a1"));
    world.grow(1, Version(80));
    assert_eq!(world.verified(), Version(80));
    // Back, but behind: it is not preferred before it has what the child has.
    world.parents[0].feeder = None;
    world.parents[0].is_up = true;
    world.pass(SECOND * 25);
    assert_eq!(world.fed_by().as_deref(), Some("a1"));
    world.grow(0, Version(90));
    world.pass(SECOND * 25);
    assert_eq!((world.fed_by().as_deref(), world.verified()), (Some("relay"), Version(90)));
    assert_eq!(world.refusals(), 0);
    world.assert_prefix_of(&history);

    // Cut off from the site.
    world.parents[0].path = None;
    let now = world.now;
    world.parents[0].feeder.as_mut().unwrap().1.handle_path(now, None);
    world.pass(SECOND * 3);
    assert_eq!(world.path, None);
    world.pass(SECOND * 4);
    assert_eq!(world.fed_by().as_deref(), Some("a1"));
    assert_eq!(world.path, path(&["leaf", "a1", "ams"]));
}

#[test]
fn a_ledger_that_never_grows_makes_the_child_look_elsewhere() {
    let history = History::grown(LEDGER, 50);
    let size = history.size();
    let parents = vec![parent("a1", &history, Some(size)), parent("a2", &history, Some(size))];
    let mut world = World::new(&history, Version(0), parents);
    world.pass(Timing::default().silence - SECOND);
    assert_eq!(world.fed_by().as_deref(), Some("a1"));
    world.pass(SECOND * 2);
    assert_eq!(world.fed_by().as_deref(), Some("a2"));
}

#[test]
fn more_than_was_granted_and_messages_out_of_turn_end_the_session() {
    let history = History::grown(LEDGER, 50);
    let fresh = || World::new(&history, Version(0), vec![parent("a1", &history, None)]);
    let ledger = history.genesis.ledger.clone();
    let accept = Accept { ledger: ledger.clone(), size: Version(9), claim: None };
    let elsewhere = Accept { ledger: "other.3".parse().unwrap(), ..accept };
    let welcome = Welcome { name: "a1".into(), path: None };
    for message in [ParentMessage::Accept(elsewhere), ParentMessage::Welcome(welcome)] {
        let mut world = fresh();
        let session = world.parents[0].feeder.as_ref().unwrap().0;
        world.child.handle_message(world.now, &world.disk, session, message);
        assert_eq!(world.fed_by(), None);
    }
    let mut world = fresh();
    let session = world.parents[0].feeder.as_ref().unwrap().0;
    // Batches far ahead are never admitted, so nothing is credited.
    let mut sent = 0_u64;
    for first in (1_000_u64..).step_by(100) {
        let entry = vec![0; 60_000];
        let claim = history.claim(history.size(), &history.head(history.size()));
        let batch = Batch::pack(ledger.clone(), Version(first), &vec![entry; 10], claim);
        sent += batch.body.len() as u64;
        world.child.handle_batch(world.now, &world.disk, session, batch);
        if world.fed_by().is_none() {
            break;
        }
    }
    assert!(((2 << 20)..(3 << 20)).contains(&sent), "{sent} bytes were taken");
    assert_eq!(world.verified(), Version(0));
}

#[test]
fn what_mirrors_below_report_is_passed_on() {
    let history = History::grown(LEDGER, 50);
    let mut world =
        World::new(&history, Version(0), vec![parent("a1", &history, Some(Version(40)))]);
    let frontier = Frontier {
        ledger: history.genesis.ledger.clone(),
        received: Version(7),
        verified: Version(6),
        durable: Version(5),
        hlc: Hlc(1),
    };
    let below =
        MirrorReport { mirror: "below".into(), parent: "leaf".into(), ledgers: vec![frontier] };
    world.child.handle_reports(world.now, vec![below.clone()]);
    world.pass(SECOND);
    assert!(world.reports.contains(&below));
    // A new parent is told everything again.
    let session = world.parents[0].feeder.take().unwrap().0;
    world.reports.clear();
    world.child.handle_closed(world.now, session, "gone");
    world.pass(SECOND);
    assert!(world.reports.contains(&below));
}

#[test]
fn the_text_of_events_names_parent_ledger_and_reason() {
    let event = FollowEvent::Refused {
        parent: "a1".into(),
        ledger: LEDGER.parse().unwrap(),
        reason: "why".into(),
    };
    assert_eq!(format!("{event}"), "refused from a1 for flights.0: why");
}
