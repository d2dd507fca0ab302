//! The real core on all paths within small bounds: invariants hold, the hard places are reached, and planted bugs are found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tradewind_tests::explore::{self, BUGS, Bounds, Case, Explored, ORDERS, Opening};

/// Explores cases on two threads.
fn explore_all(cases: &[Case]) -> Explored {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut sum = Explored::default();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            let explored = explore::explore(*case);
            println!("{case}: {explored}, {:.1?}", began.elapsed());
            if let Some(found) = &explored.found {
                next.store(cases.len(), Ordering::Relaxed);
                panic!("{}", explore::report(*case, found));
            }
            sum.join(explored);
        }
        sum
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut sum = work();
        sum.join(other.join().expect("the other half holds"));
        sum
    })
}

fn cases(deviations: u32, crashes: u32, cuts: u32) -> impl Iterator<Item = Case> {
    let bounds = Bounds { deviations, crashes, cuts };
    Opening::ALL.iter().flat_map(move |opening| {
        (0..ORDERS).map(move |order| Case { opening: *opening, order, bounds, planted: None })
    })
}

#[test]
fn invariants_hold_on_all_paths_and_the_hard_places_are_reached() {
    let cuts = cases(0, 0, 1).filter(|case| case.opening != Opening::Bridge);
    let faults = cases(0, 1, 0).chain(cuts).filter(|case| case.order < 2);
    let two = cases(2, 0, 0).filter(|case| case.opening == Opening::Start && case.order == 0);
    let all: Vec<Case> = faults.chain(cases(1, 0, 0)).chain(two).collect();
    let explored = explore_all(&all);
    println!("in all: {explored}, {:?}", explored.core);
    assert_eq!(explored.views.iter().copied().collect::<Vec<_>>(), [2, 3], "sizes of views");
    for reached in [
        "views",
        "partial_views",
        "takeovers",
        "outbid",
        "parted",
        "promises_recovered",
        "resent",
        "drained",
        "rewinds",
        "compared",
        "caught_up",
        "lessons",
        "learned",
        "admissions",
        "stale_messages",
        "remembered",
        "nulls",
    ] {
        let counters = explored.core.all();
        let count = counters.iter().find(|(name, _)| *name == reached).expect("a counter").1;
        assert!(count > 0, "{reached} is never reached");
    }
}

#[test]
fn each_planted_bug_is_found() {
    for bug in BUGS {
        let without =
            explore::explore(Case { bounds: Bounds::default(), planted: None, ..bug.case() });
        assert_eq!(without.found, None, "{}", bug.name());
        let began = Instant::now();
        let explored = explore::explore(bug.case());
        let found = explored.found.as_ref();
        let found = found.unwrap_or_else(|| panic!("{} is not found: {explored}", bug.name()));
        println!(
            "{}: {} after {explored}, {:.1?}",
            bug.name(),
            found.violation.invariant,
            began.elapsed()
        );
        assert!(bug.breaks.contains(&found.violation.invariant), "{}: {found:?}", bug.name());
        let (_, again) = explore::replay(bug.case(), &found.choices);
        assert_eq!(again.as_ref(), Some(&found.violation), "its path leads there again");
    }
}

#[test]
fn exploring_twice_is_the_same() {
    let case = cases(0, 1, 0).next().expect("a case");
    let [one, two] = [(); 2].map(|()| explore::explore(case));
    assert_eq!((one.states, one.steps, one.ends), (two.states, two.steps, two.ends));
}
