//! The search: depth first, the step that is due before all others; a state that was there before, with as much left to
//! choose, is not gone on from again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::parts::Watch;
use super::step::Step;
use super::world::World;
use super::{Bounds, Case, Choice, Counterexample, Explored};
use crate::sim::{Check, Violation};

/// No path takes so many steps: one that does goes round in circles.
const LONGEST: usize = 1_000;

/// A state of the path that is being followed.
struct Frame {
    world: World,
    left: Bounds,
    /// What may come next, the step that is due first; and which of them is to be looked at.
    steps: Vec<Step>,
    due: bool,
    next: usize,
}

impl Frame {
    fn new(world: World, left: Bounds) -> Result<Self, Violation> {
        let due = world.due()?;
        let mut steps: Vec<Step> = due.into_iter().collect();
        steps.extend(world.others(due, left));
        Ok(Self { world, left, steps, due: due.is_some(), next: 0 })
    }

    /// The choice that was looked at last, if there was any other.
    fn choice(&self) -> usize {
        self.next - 1
    }
}

impl Bounds {
    /// What is left after a step that is not the one that was due.
    fn after(self, step: Step) -> Self {
        match step {
            Step::Crash(..) | Step::Outage => Self { crashes: self.crashes - 1, ..self },
            Step::Cut(..) => Self { cuts: self.cuts - 1, ..self },
            _ => Self { deviations: self.deviations - 1, ..self },
        }
    }
}

/// A step, where a panic of a core is a violation like any other.
fn take(world: &mut World, step: Step, watch: &mut Watch) -> Check {
    let taken = catch_unwind(AssertUnwindSafe(|| world.take(step, watch)));
    taken.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
        let detail = text.unwrap_or_else(|| "no words".into());
        Err(Violation { invariant: "invariant_no_core_panics", detail })
    })
}

/// Where a case begins. What is laid down of it is without the bug, and served in the first order.
fn begin(case: Case, watch: &mut Watch) -> World {
    let mut world = case.opening.play(watch);
    world.order = case.order;
    world.plant(case.planted);
    world
}

/// Follows all paths of a case.
pub(super) fn search(case: Case, watch: &mut Watch) -> Explored {
    let world = begin(case, watch);
    let (mut visited, mut stack) = (HashMap::new(), Vec::new());
    let mut explored = Explored::default();
    match Frame::new(world, case.bounds) {
        Ok(frame) => stack.push(frame),
        Err(violation) => explored.found = Some(counterexample(violation, &stack)),
    }
    while let Some(frame) = stack.last_mut() {
        let Some(step) = frame.steps.get(frame.next).copied() else {
            explored.ends += u64::from(!frame.due);
            stack.pop();
            continue;
        };
        let left = if frame.due && frame.next == 0 { frame.left } else { frame.left.after(step) };
        frame.next += 1;
        explored.steps += 1;
        let mut world = frame.world.clone();
        let taken = take(&mut world, step, watch);
        let next = taken.and_then(|()| match is_new(&mut visited, &world, left) {
            true => Frame::new(world, left).map(Some),
            false => Ok(None),
        });
        match next {
            Ok(Some(frame)) => stack.push(frame),
            Ok(None) => {}
            Err(violation) => {
                explored.found = Some(counterexample(violation, &stack));
                break;
            }
        }
        explored.longest = explored.longest.max(stack.len());
        if stack.len() > LONGEST {
            let detail = format!("a path comes to no end in {LONGEST} steps");
            let violation = Violation { invariant: "invariant_progress_resumes", detail };
            explored.found = Some(counterexample(violation, &stack));
            break;
        }
    }
    explored.states = visited.len();
    explored
}

/// Whether this state was not reached before with as much left to choose.
fn is_new(visited: &mut HashMap<u64, u32>, world: &World, left: Bounds) -> bool {
    let mut hasher = DefaultHasher::new();
    (world.print(), left.crashes, left.cuts).hash(&mut hasher);
    match visited.entry(hasher.finish()) {
        Entry::Vacant(vacant) => {
            vacant.insert(left.deviations);
            true
        }
        Entry::Occupied(known) if *known.get() >= left.deviations => false,
        Entry::Occupied(mut known) => {
            known.insert(left.deviations);
            true
        }
    }
}

fn counterexample(violation: Violation, stack: &[Frame]) -> Counterexample {
    let followed = stack.iter().filter(|frame| frame.next > 0);
    let at = followed.zip(0..).filter(|(frame, _)| !frame.due || frame.choice() > 0);
    let choices = at.map(|(frame, at)| Choice { at, choice: frame.choice() });
    Counterexample { violation, choices: choices.collect() }
}

/// Follows one path, and tells each step; the steps that are due, but for these choices.
///
/// # Errors
/// What is broken on it.
pub(super) fn replay(case: Case, choices: &[Choice], watch: &mut Watch) -> Check {
    let mut world = begin(case, watch);
    watch.tell(|| "-- from here on by choice --".into());
    let mut left = case.bounds;
    for at in 0..LONGEST {
        let due = world.due().inspect_err(|_| world.tell(watch))?;
        let mut steps: Vec<Step> = due.into_iter().collect();
        steps.extend(world.others(due, left));
        let chosen = choices.iter().find(|choice| choice.at == at);
        let choice = chosen.map_or(0, |choice| choice.choice);
        if due.is_none() && chosen.is_none() {
            break;
        }
        let Some(step) = steps.get(choice).copied() else { break };
        if due.is_none() || choice > 0 {
            left = left.after(step);
        }
        watch.tell(|| format!("{at}:{choice}"));
        take(&mut world, step, watch)?;
    }
    Ok(())
}
