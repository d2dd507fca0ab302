//! Core groups under faults, simulated from seeds: invariants hold, the hard places are reached, and planted bugs
//! are found.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tradewind_site_protocol::Mutation;
use tradewind_tests::sim::{self, Coverage, Late};

/// Runs seeds on two threads; stops at the first that breaks something.
fn run_all(seeds: u64) -> Coverage {
    let next = AtomicU64::new(0);
    let work = || {
        let mut sum = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return sum;
            }
            match sim::run(seed, None) {
                Ok(coverage) => sum.join(&coverage),
                Err(failure) => panic!(
                    "seed {seed}: {failure}\nreplay: cargo run --release -p tradewind-tests -- sim --seed {seed}"
                ),
            }
        }
    };
    thread::scope(|scope| {
        let other = scope.spawn(work);
        let mut sum = work();
        sum.join(&other.join().expect("the other half holds"));
        sum
    })
}

#[test]
fn invariants_hold_and_the_hard_places_are_reached() {
    let coverage = run_all(2_000);
    let core = coverage.core;
    let reached = [
        ("views", core.views),
        ("stalls", core.stalls),
        ("views proposed", core.proposals),
        ("views led by another than the first node", core.takeovers),
        ("views without all nodes", core.partial_views),
        ("proposals given up", core.abandoned),
        ("proposals outbid", core.outbid),
        ("nodes let in", core.admissions),
        ("nodes made to wait", core.backoffs),
        ("lessons beside a running view", core.lessons),
        ("lessons that came to their end", core.learned),
        ("sources lost while learning", core.sources_lost),
        ("proposals prolonged for who catches up", core.prolonged),
        ("laggards left out", core.laggards),
        ("joins while nothing goes wrong", coverage.joins),
        ("messages delivered after their view stopped", core.drained),
        ("ledgers compared", core.compared),
        ("ledgers cut", core.rewinds),
        ("shards without a majority", core.suspended),
        ("promises recovered", core.promises_recovered),
        ("promises written in a crash", coverage.promises_torn),
        ("times peers were written down", core.remembered),
        ("lost disks refused", coverage.lost_disks_refused),
        ("partitions", coverage.partitions),
        ("one-way links", coverage.one_way),
        ("flapping links", coverage.flapping),
        ("majorities alone", coverage.majorities_alone),
        ("commands sent again in a later view", core.resent),
        ("nulls", core.nulls),
        ("wraps", core.wraps),
        ("fragments", core.fragments),
        ("waits for credits", core.no_credit),
        ("entries caught up", core.caught_up),
        ("detached values caught up", core.values_caught_up),
        ("snapshots that ledgers were committed to", core.snapshots),
        ("ledgers pruned", coverage.prunings),
        ("parts of snapshots taken", core.parts_taken),
        ("ledgers begun anew with a snapshot", core.planted),
        ("damaged parts", coverage.damaged_parts),
        ("wrong parts refused", core.wrong_parts),
        ("takings of snapshots interrupted", coverage.takings_interrupted),
        ("takings of snapshots resumed", coverage.takings_resumed),
        ("seals", core.seals),
        ("marks", core.marks),
        ("checkpoints", core.checkpoints),
        ("stamps ahead of the clock", core.clock_ahead),
        ("signatures seen with another size", core.bad_signatures),
        ("stale control messages", core.stale_messages),
        ("crashes", coverage.crashes),
        ("broken links", coverage.broken_links),
        ("pauses", coverage.pauses),
        ("silent peers disconnected", coverage.disconnects),
        ("frames of old views", coverage.frames_of_old_views),
        ("refusals", coverage.refused),
        ("repeated requests", coverage.repeated),
        ("answers", coverage.answered),
        ("detached values", coverage.detached),
        ("calls checked for linearizability", coverage.linear_calls),
    ];
    let missed: Vec<_> = reached.iter().filter(|(_, count)| *count == 0).collect();
    assert!(missed.is_empty(), "never reached: {missed:?} in {coverage:#?}");
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    let run = |seed| {
        let mut lines = Vec::new();
        let result = sim::run_traced(seed, None, |line| lines.push(line.to_owned()));
        (result, lines)
    };
    assert_eq!(run(7), run(7));
}

/// The invariants that find a planted bug, over at most so many seeds.
fn found_by(mutation: Mutation, seeds: u64) -> Option<&'static str> {
    (0..seeds).find_map(|seed| sim::run(seed, Some(mutation)).err().map(|f| f.violation.invariant))
}

#[test]
fn delivering_before_it_is_stable_is_found() {
    assert_eq!(found_by(Mutation::OwnRowStability, 50), Some("invariant_stable_before_delivered"));
}

#[test]
fn answering_before_the_sync_is_found() {
    assert_eq!(found_by(Mutation::AnswerBeforeSync, 50), Some("invariant_acknowledged_is_durable"));
}

#[test]
fn committing_by_the_own_disk_alone_is_found() {
    assert_eq!(found_by(Mutation::OwnDiskCommits, 50), Some("invariant_committed_is_durable"));
}

#[test]
fn taking_an_undecided_round_for_a_null_is_found() {
    let found = found_by(Mutation::NullsEarly, 50);
    assert!(
        matches!(found, Some("invariant_one_order" | "invariant_progress_resumes")),
        "{found:?}"
    );
}

#[test]
fn forgetting_nulls_is_found() {
    assert_eq!(found_by(Mutation::NullsForgotten, 5), Some("invariant_progress_resumes"));
}

#[test]
fn sealing_by_a_local_clock_is_found() {
    assert_eq!(found_by(Mutation::SealByLocalClock, 50), Some("invariant_one_order"));
}

#[test]
fn executing_a_repeated_request_again_is_found() {
    let found = found_by(Mutation::RetryExecutedAgain, 100);
    assert!(
        matches!(found, Some("invariant_each_request_once" | "invariant_acknowledged_is_present")),
        "{found:?}"
    );
}

#[test]
fn signing_before_it_is_durable_is_found() {
    assert_eq!(found_by(Mutation::SignBeforeSync, 50), Some("invariant_signed_is_durable"));
}

#[test]
fn a_view_of_a_minority_is_found() {
    let found = found_by(Mutation::MinorityInstalls, 50);
    assert!(
        matches!(found, Some("invariant_one_order" | "invariant_one_successor_view")),
        "{found:?}"
    );
}

#[test]
fn letting_the_shortest_log_win_is_found() {
    // The node whose acknowledged entries would be cut refuses, and says so.
    assert_eq!(found_by(Mutation::ShortestLogWins, 50), Some("invariant_no_node_fails"));
}

#[test]
fn cutting_a_ledger_too_far_is_found() {
    let found = found_by(Mutation::RewindTooFar, 200);
    assert_eq!(found, Some("invariant_rewind_keeps_committed"));
}

#[test]
fn taking_a_node_without_its_disk_for_the_one_it_was_is_found() {
    let found = found_by(Mutation::LostDiskTrusted, 100);
    assert_eq!(found, Some("invariant_lost_disk_has_no_voice"));
}

#[test]
fn keeping_parts_of_a_snapshot_unchecked_is_found() {
    let found = found_by(Mutation::PartsUnchecked, 600);
    assert_eq!(found, Some("invariant_corruption_is_not_kept"));
}

#[test]
fn trusting_a_lost_peer_again_is_found() {
    assert_eq!(found_by(Mutation::SuspicionTakenBack, 50), Some("invariant_progress_resumes"));
}

#[test]
fn forgetting_what_a_stopped_view_did_not_deliver_is_found() {
    // Clients repeat their requests, so this one shows as submissions that are never answered.
    assert_eq!(found_by(Mutation::PendingForgotten, 50), Some("invariant_progress_resumes"));
}

/// What happens when a node starts late, after the others worked for so long.
fn late(seed: u64, after_ms: u64, mutation: Option<Mutation>) -> Result<Coverage, &'static str> {
    let late = Late { after_us: after_ms * 1_000, needed: false };
    sim::run_late(seed, late, mutation).map_err(|failure| failure.violation.invariant)
}

#[test]
fn a_node_that_has_much_to_learn_pauses_the_others_no_longer_than_one_with_little() {
    for seed in 0..3 {
        let [little, much] = [500, 2_500].map(|after| late(seed, after, None).expect("it holds"));
        assert!(little.joins > 0 && much.joins > 0, "{little:?} {much:?}");
        let learned = (little.core.caught_up, much.core.caught_up);
        assert!(learned.1 > 2 * learned.0, "seed {seed}: {learned:?}");
        // Both are far below what the bound allows, and about the same.
        let (little, much) = (little.join_pause_max, much.join_pause_max);
        assert!(much < 3 * little.max(20_000), "seed {seed}: {little} and {much} us");
    }
}

#[test]
fn letting_a_node_in_before_it_learned_is_found() {
    let learned = late(1, 2_000, None).expect("it holds").core;
    assert!(learned.admissions <= 2 && learned.abandoned == 0, "{learned:?}");
    // Views that stop for it in vain, again and again.
    let unlearned = late(1, 2_000, Some(Mutation::AdmitsUnlearned)).expect("it is safe").core;
    assert!(unlearned.admissions > 2 && unlearned.abandoned > 0, "{unlearned:?}");
}

#[test]
fn a_proposal_lasts_as_long_as_somebody_comes_closer_to_it() {
    let run = |mutation| {
        let late = Late { after_us: 3_000_000, needed: true };
        sim::run_late(1, late, mutation).expect("it holds").core
    };
    let told = run(None);
    assert!(told.prolonged > 0 && told.abandoned == 0, "{told:?}");
    assert!(run(Some(Mutation::ProgressUntold)).abandoned > 0);
}
