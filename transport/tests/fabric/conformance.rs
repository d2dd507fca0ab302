//! What docs/fabric.md promises, shown against the trait alone, for any provider.
//!
//! A provider implements [`Site`] and calls [`conformance!`] with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tradewind_transport::fabric::{Fabric, FabricError, FabricEvent, MESSAGE_BYTES_MAX, NodeId};

/// A set of nodes that can reach each other.
pub(crate) trait Site: Sized {
    /// A site of `nodes` nodes, none of them running. A peer that is silent for `silence` is lost.
    fn new(nodes: u16, silence: Duration) -> Self;

    /// Starts a node, for the first time or again.
    fn start(&mut self, node: NodeId, incarnation: u64) -> Box<dyn Fabric>;

    /// The time that its nodes live in.
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(RealTime(Instant::now()))
    }
}

/// Time, as nodes see it.
pub(crate) trait Clock {
    fn now(&self) -> Duration;

    /// Lets time pass in which nobody does anything.
    fn pass(&self, by: Duration);
}

/// The machine's, since some moment.
struct RealTime(Instant);

impl Clock for RealTime {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn pass(&self, by: Duration) {
        thread::sleep(by);
    }
}

/// So long that only a failure reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) const A: NodeId = NodeId(0);
pub(crate) const B: NodeId = NodeId(1);
pub(crate) const C: NodeId = NodeId(2);

/// Running nodes and what they told.
pub(crate) struct Nodes {
    pub(crate) fabrics: Vec<Option<Box<dyn Fabric>>>,
    pub(crate) events: Vec<Vec<FabricEvent>>,
    clock: Arc<dyn Clock>,
}

impl Nodes {
    /// Nodes in real time.
    pub(crate) fn of(fabrics: Vec<Option<Box<dyn Fabric>>>) -> Self {
        let events = vec![Vec::new(); fabrics.len()];
        Self { fabrics, events, clock: Arc::new(RealTime(Instant::now())) }
    }

    pub(crate) fn start<S: Site>(site: &mut S, nodes: u16) -> Self {
        let fabrics = (0..nodes).map(|node| Some(site.start(NodeId(node), 1))).collect();
        let mut all = Self { clock: site.clock(), ..Self::of(fabrics) };
        all.until("all are connected", |all| {
            all.events.iter().all(|events| {
                let connected =
                    |event: &&FabricEvent| matches!(event, FabricEvent::Connected { .. });
                events.iter().filter(connected).count() == usize::from(nodes) - 1
            })
        });
        all.forget();
        all
    }

    pub(crate) fn forget(&mut self) {
        self.events.iter_mut().for_each(Vec::clear);
    }

    pub(crate) fn at(&mut self, node: NodeId) -> &mut dyn Fabric {
        self.fabrics[node.index()].as_mut().expect("the node runs").as_mut()
    }

    pub(crate) fn poll(&mut self, node: NodeId) {
        let events = &mut self.events[node.index()];
        if let Some(fabric) = &mut self.fabrics[node.index()] {
            fabric.poll(Some(Duration::from_millis(1)), events);
        }
    }

    pub(crate) fn told(&self, node: NodeId, wanted: impl Fn(&FabricEvent) -> bool) -> bool {
        self.events[node.index()].iter().any(wanted)
    }

    /// Polls the nodes in turn until `done`.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, done: impl FnMut(&mut Self) -> bool) {
        let all: Vec<NodeId> = (0..self.fabrics.len() as u16).map(NodeId).collect();
        self.until_of(&all, what, done);
    }

    /// Polls some nodes in turn until `done`.
    #[track_caller]
    pub(crate) fn until_of(
        &mut self,
        nodes: &[NodeId],
        what: &str,
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let start = self.clock.now();
        while !done(self) {
            let waited = self.clock.now() - start;
            assert!(waited < LONG, "never: {what}; events: {:?}", self.events);
            for &node in nodes {
                self.poll(node);
            }
        }
    }

    pub(crate) fn prepare(&mut self, view: u64, row_len: usize) {
        let members: Vec<NodeId> = (0..self.fabrics.len() as u16).map(NodeId).collect();
        for fabric in self.fabrics.iter_mut().flatten() {
            fabric.prepare(view, &members, row_len).expect("a newer view");
        }
    }

    pub(crate) fn put(&mut self, node: NodeId, offset: usize, word: u64, peers: &[NodeId]) {
        let fabric = self.at(node);
        fabric.store(offset, &word.to_le_bytes());
        fabric.publish(offset..offset + 8, peers);
        fabric.flush();
    }
}

/// Small numbers without an order that matters (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A writer fills slots in a ring and counts them; readers must never see a count without its slots,
/// nor the second of two counters ahead of the first. They poll rarely, so values coalesce.
pub(crate) fn order_holds_under_random_publishes<S: Site>() {
    const SLOTS: u64 = 64;
    const SLOT: usize = 4_096;
    const RING: usize = 64;
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut nodes = Nodes::start(&mut S::new(3, LONG), 3);
        nodes.prepare(1, RING + SLOTS as usize * SLOT);
        let total = 3_000;
        let mut written = 0;
        let mut seen = [0; 3];
        while seen[1] < total || seen[2] < total {
            for _ in 0..dice.below(20) {
                if written < total {
                    written += 1;
                    let slot = RING + (written % SLOTS) as usize * SLOT;
                    let length = 8 + dice.below(SLOT as u64 / 8 - 1) as usize * 8;
                    let writer = nodes.at(A);
                    writer.store(slot, &written.to_le_bytes().repeat(length / 8));
                    writer.publish(slot..slot + length, &[A, B, C]);
                    writer.store(0, &written.to_le_bytes());
                    writer.publish(0..8, &[B, C]);
                    writer.store(8, &written.to_le_bytes());
                    writer.publish(8..16, &[B, C]);
                }
            }
            if dice.below(3) == 0 {
                nodes.at(A).flush();
            }
            nodes.poll(A);
            let reader = if dice.below(8) == 0 { C } else { B };
            nodes.poll(reader);
            let copy = nodes.at(reader);
            let (first, second) = (copy.load(A, 0), copy.load(A, 8));
            assert!(second <= first, "seed {seed}: the counter published later is ahead");
            assert!(first >= seen[reader.index()], "seed {seed}: a counter went back");
            seen[reader.index()] = first;
            for message in first.saturating_sub(SLOTS - 1).max(1)..=first {
                let found = copy.load(A, RING + (message % SLOTS) as usize * SLOT);
                let fits = found >= message && found % SLOTS == message % SLOTS;
                assert!(fits, "seed {seed}: {first} counted, slot of {message} holds {found}");
            }
        }
    }
}

pub(crate) fn what_is_stored_but_not_published_stays_at_home<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(3, LONG), 3);
    nodes.prepare(1, 64);
    nodes.at(A).store(0, &[7; 64]);
    nodes.at(A).publish(16..24, &[B]);
    nodes.until("B sees it", |all| all.at(B).load(A, 16) == 0x0707_0707_0707_0707);
    let mut row = [0; 64];
    nodes.at(B).copy(A, 0, &mut row);
    assert_eq!((&row[..16], &row[24..]), (&[0; 16][..], &[0; 40][..]), "other words");
    assert_eq!(nodes.at(C).load(A, 16), 0, "another peer");
    assert_eq!(nodes.at(A).load(A, 8), 0x0707_0707_0707_0707, "the own row shows it at once");
}

pub(crate) fn late_batches_of_an_old_view_never_land<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(2, LONG), 2);
    nodes.prepare(1, 1 << 20);
    nodes.put(A, 0, 1, &[B]);
    nodes.until("B sees it", |all| all.at(B).load(A, 0) == 1);
    // On its way, larger than what is read at once, when B prepares the next view.
    nodes.at(A).store(0, &[9; 1 << 20]);
    nodes.at(A).publish(0..1 << 20, &[B]);
    nodes.at(A).flush();
    let members = [A, B];
    nodes.at(B).prepare(2, &members, 1 << 20).unwrap();
    nodes.until("B drops it", |all| all.at(B).counters().stale_dropped >= 1);
    let mut row = vec![1; 1 << 20];
    nodes.at(B).copy(A, 0, &mut row);
    assert!(row.iter().all(|byte| *byte == 0), "the row of the new view is untouched");
    // The link still works once A is there, too.
    nodes.at(A).prepare(2, &members, 1 << 20).unwrap();
    nodes.put(A, 8, 5, &[B]);
    nodes.until("B sees the new view", |all| all.at(B).load(A, 8) == 5);
    assert_eq!(nodes.at(B).load(A, 0), 0);
}

pub(crate) fn a_publish_waits_for_a_peer_that_prepares_later<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(2, LONG), 2);
    nodes.at(A).prepare(7, &[A, B], 64).unwrap();
    nodes.put(A, 8, 42, &[B]);
    assert!(nodes.at(A).send(B, b"prepare"));
    nodes.until("the message comes, although the view does not", |all| {
        all.told(B, |event| matches!(event, FabricEvent::Message { .. }))
    });
    nodes.at(B).prepare(7, &[A, B], 64).unwrap();
    nodes.until("B sees it", |all| all.at(B).load(A, 8) == 42);
    assert_eq!(nodes.at(B).counters().links_lost, 0);
}

pub(crate) fn views_and_rows_out_of_bounds_are_refused<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(2, LONG), 2);
    let a = nodes.at(A);
    assert_eq!(a.prepare(1, &[A, B], 0), Err(FabricError::RowLength { found: 0 }));
    assert_eq!(a.prepare(1, &[A, B], 12), Err(FabricError::RowLength { found: 12 }));
    let huge = 1 << 40;
    assert_eq!(a.prepare(1, &[A, B], huge), Err(FabricError::RowLength { found: huge }));
    assert_eq!(a.prepare(1, &[B], 8), Err(FabricError::NotMember(A)));
    assert_eq!(a.prepare(1, &[A, C], 8), Err(FabricError::UnknownMember(C)));
    assert_eq!(a.prepare(3, &[A, B], 8), Ok(()));
    let old = FabricError::OldView { view: 3, current: 3 };
    assert_eq!(a.prepare(3, &[A, B], 8), Err(old));
}

pub(crate) fn a_dead_peer_is_lost_and_comes_back_as_a_new_incarnation<S: Site>() {
    for dead in [A, B] {
        let alive = NodeId(1 - dead.0);
        let mut site = S::new(2, LONG);
        let mut nodes = Nodes::start(&mut site, 2);
        nodes.prepare(1, 64);
        nodes.fabrics[dead.index()] = None;
        nodes.until("it is lost", |all| {
            all.told(alive, |e| matches!(e, FabricEvent::Lost { peer, .. } if *peer == dead))
        });
        assert!(!nodes.at(alive).send(dead, b"anybody there?"), "no link, no message");
        nodes.fabrics[dead.index()] = Some(site.start(dead, 2));
        let back = FabricEvent::Connected { peer: dead, incarnation: 2 };
        nodes.until("it is back", |all| all.told(alive, |event| *event == back));
        nodes.prepare(2, 64);
        nodes.put(alive, 0, 3, &[dead]);
        nodes.put(dead, 0, 4, &[alive]);
        nodes.until("both see each other", |all| {
            all.at(alive).load(dead, 0) == 4 && all.at(dead).load(alive, 0) == 3
        });
    }
}

pub(crate) fn a_broken_link_loses_no_publish<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(2, LONG), 2);
    nodes.prepare(1, 1 << 16);
    nodes.at(B).prepare(2, &[A, B], 1 << 16).unwrap();
    nodes.at(A).prepare(2, &[A, B], 1 << 16).unwrap();
    for round in 1..=20_u64 {
        // In flight, or queued, or still to come when the link breaks.
        let offset = round as usize * 8;
        nodes.put(A, offset, round, &[B]);
        let (breaker, other) = if round % 2 == 0 { (A, B) } else { (B, A) };
        nodes.at(breaker).disconnect(other, "a test of nerves");
        nodes.put(A, 0, round, &[B]);
        nodes.until("the link is lost at both ends and back", |all| {
            [A, B].iter().all(|node| {
                let events = &all.events[node.index()];
                let lost = events.iter().position(|e| matches!(e, FabricEvent::Lost { .. }));
                lost.is_some_and(|lost| {
                    events[lost..].iter().any(|e| matches!(e, FabricEvent::Connected { .. }))
                })
            })
        });
        let told = |event: &FabricEvent| matches!(event, FabricEvent::Lost { reason, .. } if reason.contains("a test of nerves"));
        assert!(nodes.told(A, told) || nodes.told(B, told), "{:?}", nodes.events);
        nodes.forget();
    }
    nodes.until("B sees the last", |all| all.at(B).load(A, 0) == 20);
    for round in 1..=20 {
        assert_eq!(nodes.at(B).load(A, round * 8), round as u64);
    }
}

/// A peer that is up but does not poll: whether stopped, or busy with something else for too long.
pub(crate) fn a_silent_peer_is_lost_within_its_deadline<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(2, Duration::from_millis(300)), 2);
    let start = nodes.clock.now();
    nodes.until_of(&[A], "B is lost", |all| {
        all.told(A, |event| matches!(event, FabricEvent::Lost { peer, .. } if *peer == B))
    });
    let waited = nodes.clock.now() - start;
    assert!(waited > Duration::from_millis(150), "not at the first missed sign of life");
    nodes.until("B is back", |all| {
        all.told(A, |event| matches!(event, FabricEvent::Connected { peer, .. } if *peer == B))
    });
}

pub(crate) fn idle_links_hold<S: Site>() {
    let silence = Duration::from_millis(300);
    let mut nodes = Nodes::start(&mut S::new(3, silence), 3);
    let end = nodes.clock.now() + 4 * silence;
    nodes.until("some deadlines have passed", |all| all.clock.now() > end);
    let lost = |event: &FabricEvent| matches!(event, FabricEvent::Lost { .. });
    assert!(nodes.events.iter().flatten().all(|event| !lost(event)), "{:?}", nodes.events);
}

pub(crate) fn time_in_which_one_stood_still_is_not_held_against_peers<S: Site>() {
    let silence = Duration::from_millis(300);
    let mut nodes = Nodes::start(&mut S::new(3, silence), 3);
    for _ in 0..3 {
        nodes.clock.pass(3 * silence); // The stall itself: all three live in this thread.
        let end = nodes.clock.now() + silence;
        nodes.until("a deadline has passed", |all| all.clock.now() > end);
    }
    let lost = |event: &FabricEvent| matches!(event, FabricEvent::Lost { .. });
    assert!(nodes.events.iter().flatten().all(|event| !lost(event)), "{:?}", nodes.events);
}

pub(crate) fn a_peer_that_does_not_read_costs_bounded_memory_and_nobody_time<S: Site>() {
    const ROW: usize = 1 << 20;
    let mut nodes = Nodes::start(&mut S::new(3, LONG), 3);
    nodes.prepare(1, ROW);
    nodes.until("C sees it", |all| {
        all.put(A, 0, 1, &[B, C]);
        all.at(C).load(A, 0) == 1 && all.at(B).load(A, 0) == 1
    });
    // C stands still now. Eight times more than the kernel's buffers take, over and over.
    for round in 2..600_u64 {
        let offset = 8 + (round as usize % 15) * 65_536;
        let writer = nodes.at(A);
        writer.store(offset, &round.to_le_bytes().repeat(8_192));
        writer.publish(offset..offset + 65_536, &[B, C]);
        nodes.put(A, 0, round, &[B, C]);
        nodes.until_of(&[A, B], "B keeps up", |all| all.at(B).load(A, 0) == round);
    }
    let backlog = nodes.at(A).counters().backlog_bytes_max;
    assert!(backlog <= 2 * ROW as u64, "{backlog} bytes waited for C");
    nodes.until("C has caught up", |all| all.at(C).load(A, 0) == 599);
    for round in 585..600 {
        assert_eq!(nodes.at(C).load(A, 8 + (round as usize % 15) * 65_536 + 65_528), round);
    }
}

pub(crate) fn messages_are_ordered_and_come_after_earlier_publishes<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(2, LONG), 2);
    nodes.prepare(1, 64);
    nodes.until("A knows that B has prepared the view", |all| {
        all.put(A, 8, 1, &[B]);
        all.at(B).load(A, 8) == 1
    });
    let mut next = 1;
    nodes.until("the last message came", |all| {
        for _ in 0..50 {
            if next <= 2_000_u64 {
                all.at(A).store(0, &next.to_le_bytes());
                all.at(A).publish(0..8, &[B]);
                if all.at(A).send(B, &next.to_le_bytes()) {
                    next += 1;
                }
            }
        }
        let count = all.at(B).load(A, 0);
        for event in &all.events[B.index()] {
            if let FabricEvent::Message { bytes, .. } = event {
                let number = u64::from_le_bytes(bytes[..].try_into().unwrap());
                assert!(number <= count, "message {number} came before the publish {count}");
            }
        }
        all.told(B, |e| matches!(e, FabricEvent::Message { bytes, .. } if bytes[..] == 2_000_u64.to_le_bytes()))
    });
    let numbers = nodes.events[B.index()].iter().filter_map(|event| match event {
        FabricEvent::Message { bytes, .. } => {
            Some(u64::from_le_bytes(bytes[..].try_into().unwrap()))
        }
        _ => None,
    });
    assert!(numbers.eq(1..=2_000), "all of them, in order");
}

pub(crate) fn messages_are_bounded_in_size_and_number<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(2, LONG), 2);
    let largest = vec![5; MESSAGE_BYTES_MAX];
    assert!(!nodes.at(A).send(B, &vec![5; MESSAGE_BYTES_MAX + 1]), "too long");
    let mut taken = 0;
    while nodes.at(A).send(B, &largest) {
        taken += 1;
        nodes.poll(A);
        assert!(taken < 10, "B does not read, and still its messages are taken");
    }
    assert!(taken > 0);
    nodes
        .until("all that was taken arrives", |all| all.at(B).counters().messages_received == taken);
    let whole =
        |e: &FabricEvent| matches!(e, FabricEvent::Message { bytes, .. } if *bytes == largest);
    assert!(nodes.events[B.index()].iter().all(whole));
    assert!(nodes.at(A).send(B, &largest), "there is room again");
}

pub(crate) fn a_waker_ends_a_poll_that_is_parked_and_one_to_come<S: Site>() {
    let mut site = S::new(1, LONG);
    let (mut fabric, clock) = (site.start(A, 1), site.clock());
    let waker = fabric.waker();
    let mut events = Vec::new();
    waker.wake();
    waker.wake();
    fabric.poll(None, &mut events);
    assert_eq!(events, [FabricEvent::Woken]);
    fabric.poll(Some(Duration::ZERO), &mut events);
    assert_eq!(events, [FabricEvent::Woken], "two wakes before a poll add up to one");

    for _ in 0..200 {
        events.clear();
        let other = Arc::clone(&waker);
        let thread = thread::spawn(move || other.wake());
        fabric.poll(None, &mut events);
        assert_eq!(events, [FabricEvent::Woken]);
        thread.join().unwrap();
    }
    let start = clock.now();
    fabric.poll(Some(Duration::from_millis(50)), &mut events);
    assert!(clock.now() - start >= Duration::from_millis(50), "nothing left over to wake it");
}

/// Three connected nodes, each in its thread as in production, with nothing to do.
pub(crate) fn idle_nodes_use_no_cpu<S: Site>() {
    let nodes = Nodes::start(&mut S::new(3, Duration::from_millis(500)), 3);
    let stop = Arc::new(AtomicBool::new(false));
    let mut wakers = Vec::new();
    let mut threads = Vec::new();
    for mut fabric in nodes.fabrics.into_iter().flatten() {
        wakers.push(fabric.waker());
        let stop = Arc::clone(&stop);
        threads.push(thread::spawn(move || {
            let before = cpu_time();
            let mut events = Vec::new();
            while !stop.load(Ordering::Acquire) {
                fabric.poll(None, &mut events);
            }
            cpu_time() - before
        }));
    }
    let window = Duration::from_secs(2);
    thread::sleep(window); // Not to wait for anything: it is the time over which CPU is counted.
    stop.store(true, Ordering::Release);
    wakers.iter().for_each(|waker| waker.wake());
    for thread in threads {
        let used = thread.join().unwrap();
        assert!(used < window * idle_percent() / 100, "{used:?} of CPU in {window:?}");
    }
}

/// What idle links may cost. More on an emulated processor (tests/rdma), where TLS alone is dear; one
/// that spins takes all of it.
fn idle_percent() -> u32 {
    std::env::var("TRADEWIND_IDLE_CPU_PERCENT").map_or(1, |text| text.parse().expect("a number"))
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = stat.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// Runs the suite for a provider, in a module of its own.
macro_rules! conformance {
    ($module:ident, $site:ty) => {
        mod $module {
            use super::*;

            $crate::conformance::conformance! { @tests $site;
                order_holds_under_random_publishes
                what_is_stored_but_not_published_stays_at_home
                late_batches_of_an_old_view_never_land
                a_publish_waits_for_a_peer_that_prepares_later
                views_and_rows_out_of_bounds_are_refused
                a_dead_peer_is_lost_and_comes_back_as_a_new_incarnation
                a_broken_link_loses_no_publish
                a_silent_peer_is_lost_within_its_deadline
                idle_links_hold
                time_in_which_one_stood_still_is_not_held_against_peers
                a_peer_that_does_not_read_costs_bounded_memory_and_nobody_time
                messages_are_ordered_and_come_after_earlier_publishes
                messages_are_bounded_in_size_and_number
                a_waker_ends_a_poll_that_is_parked_and_one_to_come
                idle_nodes_use_no_cpu
            }
            $crate::conformance::conformance! { @faults $site;
                a_peer_that_dies_at_any_step_is_lost_and_the_others_go_on_without_it
                a_peer_that_dies_while_it_connects_is_missed_by_nobody
                those_who_are_parked_are_told_of_a_death
                a_slow_peer_sees_all_in_order_at_last
                a_member_that_was_left_out_writes_late_and_nothing_of_it_lands
            }
        }
    };
    (@tests $site:ty; $($test:ident)*) => {$(
        #[test]
        fn $test() {
            $crate::conformance::$test::<$site>();
        }
    )*};
    (@faults $site:ty; $($test:ident)*) => {$(
        #[test]
        fn $test() {
            $crate::faults::$test::<$site>();
        }
    )*};
}
pub(crate) use conformance;
