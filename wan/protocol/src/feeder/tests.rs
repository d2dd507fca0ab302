//! A feeder alone: what it offers, what it refuses, and that it never sends more than was asked for.

use alloc::{string::String, vec, vec::Vec};

use super::*;
use crate::fixture::{History, path};
use crate::wire::{Frontier, Hello};

const LEDGER: &str = "flights.0";

struct Parent {
    history: History,
    feeder: Feeder,
    now: Instant,
}

fn hello(deployment: &str, mirror: &str) -> ChildMessage {
    let (deployment, mirror) = (deployment.into(), mirror.into());
    ChildMessage::Hello(Hello { deployment, mirror })
}

impl Parent {
    fn new(size: Option<u64>) -> Self {
        let history = History::grown(LEDGER, 100);
        let ledger = history.genesis.ledger.clone();
        let config = FeederConfig {
            name: "relay".into(),
            deployment: "atlas".into(),
            child: "leaf".into(),
            ledgers: [(ledger.clone(), history.genesis.lineage().unwrap())].into(),
            timing: Timing::default(),
        };
        let now = Instant(1_000);
        let mut feeder = Feeder::new(config, path(&["relay", "a1", "ams"]), now);
        if let Some(size) = size {
            feeder.handle_head(&ledger, history.head(Version(size)));
        }
        Self { history, feeder, now }
    }

    fn greeted(size: Option<u64>) -> Self {
        let mut parent = Self::new(size);
        let said = parent.says(hello("atlas", "leaf"));
        assert!(matches!(&said[..], [FeedAction::Send(ParentMessage::Welcome(welcome))]
            if welcome.name == "relay"));
        parent
    }

    fn says(&mut self, message: ChildMessage) -> Vec<FeedAction> {
        self.feeder.handle_message(self.now, message);
        self.actions()
    }

    fn actions(&mut self) -> Vec<FeedAction> {
        core::iter::from_fn(|| self.feeder.poll_action()).collect()
    }

    fn follow(&mut self, size: u64) -> Vec<FeedAction> {
        let position = self.history.position(Version(size));
        self.says(ChildMessage::Follow(vec![position]))
    }

    fn located(&mut self, size: u64, head: u64) -> Vec<FeedAction> {
        let head = self.history.head(Version(head));
        let located = self.history.located(Version(size), &head);
        self.feeder.handle_located(&self.history.genesis.ledger, &head, Some(located));
        self.actions()
    }

    fn read_to(&mut self, first: u64, end: u64, bytes: u64) -> Vec<FeedAction> {
        let done = ReadDone { end: Version(end), bytes };
        self.feeder.handle_read(&self.history.genesis.ledger, Version(first), Some(done));
        self.actions()
    }
}

fn reads(actions: &[FeedAction]) -> Vec<(u64, u64)> {
    let read = |action: &FeedAction| match action {
        FeedAction::Read { first, max_bytes, .. } => Some((first.0, *max_bytes)),
        _ => None,
    };
    actions.iter().filter_map(read).collect()
}

fn is_closed(actions: &[FeedAction]) -> bool {
    matches!(actions.last(), Some(FeedAction::Close { .. }))
}

fn refusals(actions: Vec<FeedAction>) -> Vec<RefuseReason> {
    let refusal = |action| match action {
        FeedAction::Send(ParentMessage::Refuse(refuse)) => Some(refuse.reason),
        _ => None,
    };
    actions.into_iter().filter_map(refusal).collect()
}

#[test]
fn nothing_is_said_to_who_does_not_greet_or_is_somebody_else() {
    for first in [
        ChildMessage::Grant(1 << 30),
        ChildMessage::Follow(vec![]),
        hello("other", "leaf"),
        hello("atlas", "somebody"),
    ] {
        let mut parent = Parent::new(Some(50));
        let said = parent.says(first.clone());
        assert!(is_closed(&said), "{first:?}: {said:?}");
        assert!(parent.follow(0).is_empty(), "closed for good");
    }
    let mut parent = Parent::greeted(Some(50));
    assert!(is_closed(&parent.says(hello("atlas", "leaf"))));
}

#[test]
fn no_byte_is_sent_beyond_what_was_granted() {
    let mut parent = Parent::greeted(Some(50));
    assert!(matches!(&parent.follow(10)[..], [FeedAction::Locate { size: Version(10), .. }]));
    let said = parent.located(10, 50);
    assert!(matches!(&said[..], [FeedAction::Send(ParentMessage::Accept(accept))]
        if accept.claim.is_some() && accept.size == Version(50)));
    let said = parent.says(ChildMessage::Grant(CREDIT_BYTES_MIN - 1));
    assert!(said.is_empty(), "too little for any entry: {said:?}");
    let said = parent.says(ChildMessage::Grant(CREDIT_BYTES_MIN + 1_000));
    assert_eq!(reads(&said), [(10, CREDIT_BYTES_MIN + 1_000)]);
    // One read at a time in a ledger, and the next begins where this one ended.
    assert!(reads(&parent.says(ChildMessage::Grant(8 << 20))).is_empty());
    assert_eq!(reads(&parent.read_to(10, 30, 100_000)), [(30, BATCH_BYTES)]);
    // At the head there is nothing to read, until it grows.
    assert!(reads(&parent.read_to(30, 50, 100_000)).is_empty());
    parent.feeder.handle_head(&parent.history.genesis.ledger, parent.history.head(Version(60)));
    assert_eq!(reads(&parent.actions()), [(50, BATCH_BYTES)]);
    assert!(is_closed(&parent.says(ChildMessage::Grant(7))), "a grant is not taken back");
}

#[test]
fn a_slow_child_holds_a_bounded_number_of_batches() {
    let mut parent = Parent::greeted(Some(100));
    parent.follow(0);
    parent.located(0, 100);
    let mut said = parent.says(ChildMessage::Grant(1 << 40));
    let mut begun = 0;
    while let [(first, _)] = reads(&said)[..] {
        begun += 1;
        said = parent.read_to(first, first + 1, 1_000);
    }
    assert_eq!(begun, IN_FLIGHT_MAX);
    parent.feeder.handle_sent();
    assert_eq!(reads(&parent.actions()).len(), 1);
}

#[test]
fn a_child_with_another_history_is_refused_with_proof() {
    let mut parent = Parent::greeted(Some(60));
    let mut fork = History::grown(LEDGER, 10);
    (0..50).for_each(|index| fork.put(index, b"other"));
    let position = fork.position(Version(40));
    parent.says(ChildMessage::Follow(vec![position]));
    let refused = refusals(parent.located(40, 60));
    let [RefuseReason::Fork { root, claim }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(*root, parent.history.root_at(Version(40)));
    let policy = tradewind_ledger::note::Policy::of_genesis(&parent.history.genesis).unwrap();
    claim.verify(&policy, Version(40), *root).unwrap();
    assert!(reads(&parent.says(ChildMessage::Grant(1 << 30))).is_empty());
}

#[test]
fn ledgers_that_the_child_may_not_have_and_other_lineages_are_refused() {
    let mut parent = Parent::greeted(Some(60));
    let mut stranger = parent.history.position(Version(10));
    stranger.ledger = "settings.0".parse().unwrap();
    let mut foreign = parent.history.position(Version(10));
    foreign.lineage.0.0[0] ^= 1;
    let refused = refusals(parent.says(ChildMessage::Follow(vec![stranger.clone(), foreign])));
    assert!(matches!(&refused[..], [RefuseReason::Unknown, RefuseReason::Lineage { .. }]));
    let digests = vec![Digest::ZERO];
    let want = Want { ledger: stranger.ledger, digests };
    assert!(is_closed(&parent.says(ChildMessage::Want(want))));
}

#[test]
fn a_child_that_is_ahead_is_shown_the_head_and_fed_once_it_is_reached() {
    let mut parent = Parent::greeted(Some(30));
    let said = parent.follow(40);
    assert!(matches!(
        &said[..],
        [
            FeedAction::Send(ParentMessage::Accept(Accept { size: Version(30), claim: None, .. })),
            FeedAction::Send(ParentMessage::Head(_)),
        ]
    ));
    parent.says(ChildMessage::Grant(1 << 30));
    let ledger = parent.history.genesis.ledger.clone();
    parent.feeder.handle_head(&ledger, parent.history.head(Version(35)));
    assert!(matches!(&parent.actions()[..], [FeedAction::Send(ParentMessage::Head(_))]));
    parent.feeder.handle_head(&ledger, parent.history.head(Version(45)));
    assert!(matches!(&parent.actions()[..], [FeedAction::Locate { size: Version(40), .. }]));
    assert_eq!(reads(&parent.located(40, 45)), [(40, BATCH_BYTES)]);
}

#[test]
fn a_position_that_is_replaced_while_the_ledger_is_busy_is_taken_up_afterwards() {
    let mut parent = Parent::greeted(Some(60));
    parent.follow(10);
    assert!(parent.follow(20).is_empty(), "one lookup at a time");
    let said = parent.located(10, 60);
    assert!(matches!(&said[..], [FeedAction::Locate { size: Version(20), .. }]), "{said:?}");
    parent.located(20, 60);
    assert_eq!(reads(&parent.says(ChildMessage::Grant(8 << 20))), [(20, BATCH_BYTES)]);
    assert!(parent.follow(50).is_empty(), "one read at a time");
    let said = parent.read_to(20, 30, 1_000);
    assert!(matches!(&said[..], [FeedAction::Locate { size: Version(50), .. }]), "{said:?}");
    assert_eq!(reads(&parent.located(50, 60)), [(50, BATCH_BYTES)]);
}

#[test]
fn a_ledger_that_cannot_be_read_is_refused() {
    let mut parent = Parent::greeted(Some(60));
    parent.follow(10);
    let (ledger, head) = (parent.history.genesis.ledger.clone(), parent.history.head(Version(60)));
    parent.feeder.handle_located(&ledger, &head, None);
    assert_eq!(refusals(parent.actions()), [RefuseReason::Unreadable]);
    parent.follow(10);
    parent.located(10, 60);
    parent.says(ChildMessage::Grant(8 << 20));
    parent.feeder.handle_read(&ledger, Version(10), None);
    assert_eq!(refusals(parent.actions()), [RefuseReason::Unreadable]);
}

#[test]
fn beats_tell_path_and_age_and_a_change_of_path_at_once() {
    let mut parent = Parent::greeted(Some(60));
    parent.follow(10);
    parent.located(10, 60);
    let tick = |parent: &mut Parent| -> Vec<Beat> {
        let now = parent.feeder.poll_timeout();
        parent.feeder.handle_tick(now, &|_| Duration::from_millis(7));
        let beat = |action| match action {
            FeedAction::Send(ParentMessage::Beat(beat)) => Some(beat),
            _ => None,
        };
        parent.actions().into_iter().filter_map(beat).collect()
    };
    let beats = tick(&mut parent);
    assert_eq!(beats[0].path, path(&["relay", "a1", "ams"]));
    assert_eq!((beats[0].ledgers[0].size, beats[0].ledgers[0].age_ms), (Version(60), 7));
    let now = parent.now;
    parent.feeder.handle_path(now, None);
    assert_eq!(parent.feeder.poll_timeout(), now);
    assert_eq!(tick(&mut parent)[0].path, None);
}

#[test]
fn reports_are_handed_up_but_none_about_the_parent_itself() {
    let mut parent = Parent::greeted(None);
    let report = |mirror: &str| {
        let frontier = Frontier {
            ledger: LEDGER.parse().unwrap(),
            received: Version(3),
            verified: Version(2),
            durable: Version(1),
            hlc: tradewind_ledger::ids::Hlc(5),
        };
        let (mirror, parent) = (String::from(mirror), String::from("relay"));
        MirrorReport { mirror, parent, ledgers: vec![frontier] }
    };
    let said = parent.says(ChildMessage::Report(vec![report("leaf"), report("below")]));
    assert!(matches!(&said[..], [FeedAction::Report(reports)] if reports.len() == 2));
    assert!(is_closed(&parent.says(ChildMessage::Report(vec![report("relay")]))));
}

#[test]
fn values_are_sent_a_few_at_a_time() {
    let mut parent = Parent::greeted(Some(60));
    let ledger = parent.history.genesis.ledger.clone();
    let digest = |n: u8| Digest([n; 32]);
    let want = Want { ledger: ledger.clone(), digests: (0..10).map(digest).collect() };
    let said = parent.says(ChildMessage::Want(want));
    assert_eq!(said.len(), VALUES_IN_FLIGHT_MAX);
    parent.feeder.handle_value_sent(ledger.clone(), digest(0), true);
    assert_eq!(parent.actions().len(), 1);
    parent.feeder.handle_value_sent(ledger, digest(1), false);
    let said = parent.actions();
    assert!(matches!(
        &said[..],
        [FeedAction::Send(ParentMessage::NoValue(_)), FeedAction::SendValue { .. }]
    ));
}
