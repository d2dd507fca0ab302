//! Model checking of the rules by which views follow each other (docs/protocol.md, section 7).
//!
//! `rules` are those of the document and nothing else, small enough to follow every path of: 3 nodes that crash, lose what
//! was not on disk, and whose messages come late or never. The real code is driven by the simulator; here it is the
//! rules themselves that are shown to be enough, and each of them to be needed: a mutant that breaks one is found.

mod rules;

use rules::{Action, Log, Mutant, Node, State, Views};
use stateright::{Checker, HasDiscoveries, Model, Property};

const LOST: &str = "what was acknowledged is in every later view";
const SUCCESSORS: &str = "no two views of one number, and what they commit lies on one line";
const TWICE: &str = "a second change of view commits";
const OLD: &str = "a node runs an old view while a new one commits";

impl Model for Views {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.possible(state));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LOST, acknowledged_is_never_lost),
            Property::always(SUCCESSORS, at_most_one_successor),
            Property::sometimes(TWICE, |model: &Views, state: &State| {
                let committed = |proposal| model.committed(state, proposal) > 0;
                state.proposals.len() > 2 && (1..state.proposals.len()).all(committed)
            }),
            Property::sometimes(OLD, |model: &Views, state: &State| {
                let newest = state.proposals.len() - 1;
                let old = |node: &Node| node.installed.is_some_and(|view| view < newest);
                state.nodes.iter().any(old) && model.committed(state, newest) > 0
            }),
        ]
    }
}

/// Whatever a view committed, each later view that anybody installed begins with.
fn acknowledged_is_never_lost(model: &Views, state: &State) -> bool {
    let all = 0..state.proposals.len();
    all.clone().all(|earlier| {
        let view = state.proposals[earlier].view;
        let committed = state.proposals[earlier].prefix(model.committed(state, earlier));
        let mut later = all.clone().filter(|&p| state.proposals[p].view > view && state.ran(p));
        later.all(|p| state.proposals[p].log.starts_with(&committed))
    })
}

/// Views that were installed have numbers of their own; those that committed anything lie on one line.
fn at_most_one_successor(model: &Views, state: &State) -> bool {
    let ran = (0..state.proposals.len()).filter(|&proposal| state.ran(proposal));
    let ran: Vec<(u8, Log)> = ran
        .map(|index| {
            let proposal = &state.proposals[index];
            (proposal.view, proposal.prefix(model.committed(state, index)))
        })
        .collect();
    let on_one_line = |a: &Log, b: &Log| a.starts_with(b) || b.starts_with(a);
    let fit = |a: &(u8, Log), b: &(u8, Log)| a.0 != b.0 && on_one_line(&a.1, &b.1);
    (0..ran.len()).all(|one| (0..one).all(|other| fit(&ran[one], &ran[other])))
}

/// Follows every path within these bounds, after what happened before; with a mutant, until it is found.
fn check(
    mutant: Option<Mutant>,
    changes: usize,
    crashes: u8,
    before: Vec<Action>,
) -> impl Checker<Views> {
    let model = Views { mutant, changes, crashes, entries: 1, before };
    let checker = model.checker().threads(2);
    let checker = match mutant {
        None => checker,
        Some(_) => checker.finish_when(HasDiscoveries::AnyFailures),
    };
    let began = std::time::Instant::now();
    let checker = checker.spawn_bfs().join();
    println!(
        "{mutant:?}, {changes} changes, {crashes} crashes: {} states, {:?}",
        checker.unique_state_count(),
        began.elapsed()
    );
    checker
}

#[test]
fn the_rules_keep_what_was_acknowledged_and_views_on_one_line() {
    check(None, 2, 1, vec![]).assert_properties();
    let two_histories = check(None, 3, 2, before());
    two_histories.assert_no_discovery(LOST);
    two_histories.assert_no_discovery(SUCCESSORS);
}

#[test]
fn each_broken_rule_is_found() {
    for mutant in [
        Mutant::MinorityInstall,
        Mutant::ForgottenPromise,
        Mutant::ShortestLog,
        Mutant::LengthAlone,
        Mutant::AckBeforeView,
        Mutant::StaleStand,
        Mutant::AcceptWhileRunning,
    ] {
        let checker = match mutant {
            Mutant::AckBeforeView => check(Some(mutant), 3, 2, before()),
            _ => check(Some(mutant), 2, 1, vec![]),
        };
        let found = [LOST, SUCCESSORS].into_iter().filter(|name| checker.discovery(name).is_some());
        assert!(found.count() > 0, "{mutant:?} is not found");
    }
}

/// An entry of the first view got to one node alone. The others began a second view, and one of them crashed in it before
/// it had the VIEW entry on its disk: two histories, neither of which a majority has.
fn before() -> Vec<Action> {
    use Action::{Accept, Crash, Install, Propose, Stop, Sync};
    vec![
        Stop(0, true),
        Stop(1, false),
        Stop(2, false),
        Propose([false, true, true]),
        Accept(1, 1),
        Accept(2, 1),
        Install(1, 1),
        Install(2, 1),
        Sync(1),
        Stop(1, false),
        Crash(2),
    ]
}
